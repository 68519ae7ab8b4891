"""The films that benchmarks read: real ones if SDFN_DATA names their folder, drawings otherwise."""

import os
from pathlib import Path

from sdfn_jax.radiographs import synthetic_dataset

SIDE = 1024  # of the official images and of the drawings


def chestxray14(folder, count):
    """Returns a folder in ChestX-ray14's format with at most `count` films, and what they are.

    Real films are linked into `folder`, and their rows of the official tables copied; drawings are written there.
    """
    if "SDFN_DATA" not in os.environ:
        synthetic_dataset.write_chestxray14(folder, max(count, 8), seed=0, test_share=0.3)
        return folder, f"drawings of {SIDE} x {SIDE}"
    source = Path(os.environ["SDFN_DATA"], "chestxray14").absolute()
    (folder / "images").mkdir(parents=True)
    films = sorted((source / "images").glob("*.png"))
    test = set((source / "test_list.txt").read_text().split())
    # An empty official list would be refused: one film of the test list is always there.
    chosen = [*films[: count - 1], next(film for film in films[count - 1 :] if film.name in test)]
    for film in chosen:
        (folder / "images" / film.name).symlink_to(film)
    names = {film.name for film in chosen}
    for table in ("Data_Entry_2017.csv", "BBox_List_2017.csv", "train_val_list.txt", "test_list.txt"):
        lines = (source / table).read_text().splitlines()
        kept = [line for line in lines if line.startswith("Image Index") or line.partition(",")[0] in names]
        (folder / table).write_text("".join(f"{line}\n" for line in kept))
    return folder, f"radiographs of {SIDE} x {SIDE}"


def paths(folder, count):
    """Returns the paths of at most `count` films of such a folder."""
    return sorted((folder / "images").glob("*.png"))[:count]
