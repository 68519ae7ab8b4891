"""The films that benchmarks read: real ones where SDFN_DATA names their folder, drawings otherwise."""

import os
from pathlib import Path

from sdfn_jax import phantom

SIDE = 1024  # of the official images and of the drawings


def chestxray14(folder, count):
    """Returns a folder in ChestX-ray14's format with at most `count` films, and what they are.

    Real tables and films are linked into `folder`, drawings written there.
    """
    if "SDFN_DATA" not in os.environ:
        phantom.write_chestxray14(folder, max(count, 8), seed=0, test_share=0.3)
        return folder, f"drawings of {SIDE} x {SIDE}"
    source = Path(os.environ["SDFN_DATA"], "chestxray14").absolute()
    (folder / "images").mkdir(parents=True)
    for table in (*source.glob("*.csv"), *source.glob("*.txt")):
        (folder / table.name).symlink_to(table)
    for film in sorted((source / "images").glob("*.png"))[:count]:
        (folder / "images" / film.name).symlink_to(film)
    return folder, f"radiographs of {SIDE} x {SIDE}"


def paths(folder, count):
    """Returns the paths of at most `count` films of such a folder."""
    return sorted((folder / "images").glob("*.png"))[:count]
