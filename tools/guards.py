"""Fits the numbers of `sdfn_jax/radiographs/quality.py` to real films, and measures its flags on others.

SDFN_DATA=FOLDER python -m tools.guards [--fit]

Films whose patient has an even number are fitted to, the others measured. `--fit` prints the numbers; without it,
those in `quality` are measured. Pictures of other things are scikit-image's own; nothing is fitted to them.
"""

import argparse
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import skimage.data
from scipy.optimize import minimize

from sdfn_jax.radiographs import pixels, quality, reader

# Of the 324 films, these lie on their side, with the neck at the left, and two are inverted: looked at one by one.
# fmt: off
ON_THEIR_SIDE = (
    "00002451_012", "00002599_004", "00003081_000", "00004573_000", "00007098_003", "00008980_003",
    "00011757_005", "00012681_003", "00012935_022", "00015920_006", "00016435_000", "00017158_024",
    "00017556_005", "00017779_000", "00018577_000", "00019473_002", "00020826_008", "00021160_000",
    "00021299_001", "00021916_007", "00023684_002",
)
# fmt: on
INVERTED = ("00017625_000", "00017999_000")
# The flags that `check` may give a film changed this way.
CHANGES = {
    "inverted": (lambda film: 255 - film, {"inverted"}),
    "turned left": (lambda film: np.rot90(film), {"rotated_90"}),
    "turned right": (lambda film: np.rot90(film, -1), {"rotated_90"}),
    "on its head": (lambda film: np.rot90(film, 2), {"rotated_180"}),
    "turned left, inverted": (lambda film: np.rot90(255 - film), {"inverted", "rotated_90"}),
    "on its head, inverted": (lambda film: np.rot90(255 - film, 2), {"inverted", "rotated_180"}),
    "black border": (lambda film: np.pad(film, film.shape[0] // 3), {"border"}),
    "white border": (lambda film: np.pad(film, film.shape[0] // 3, constant_values=255), {"border"}),
    "next to no contrast": (lambda film: (film // 32 + 100).astype(np.uint8), {"almost_empty"}),
    "200 pixels on a side": (lambda film: pixels.resize(film, (200, 200)), {"too_small"}),
    "left half": (lambda film: film[:, : film.shape[1] // 2], {"not_frontal_chest"}),
    "upper half": (lambda film: film[: film.shape[0] // 2], {"not_frontal_chest"}),
    "middle quarter": (
        lambda film: film[film.shape[0] // 4 : -film.shape[0] // 4, film.shape[1] // 4 : -film.shape[1] // 4],
        {"not_frontal_chest"},
    ),
}


def read_films(data: Path) -> dict[str, np.ndarray]:
    """Returns {name: film}, at most 512 pixels on a side, to save time."""
    paths = sorted((data / "chestxray14" / "images").rglob("*.png"))
    paths += sorted((data / "montgomery" / "MontgomerySet" / "CXR_png").glob("*.png"))

    def read(path: Path) -> np.ndarray:
        film = reader.read_radiograph(path)
        return pixels.resize(film, (512, 512)) if min(film.shape) > 512 else film

    with ThreadPoolExecutor(2) as threads:
        return dict(zip([path.stem for path in paths], threads.map(read, paths), strict=True))


def is_fitted(name: str) -> bool:
    return int(name.removeprefix("MCUCXR_").split("_")[0]) % 2 == 0


def truth(name: str) -> set[str]:
    return {"rotated_90"} if name in ON_THEIR_SIDE else {"inverted"} if name in INVERTED else set()


def other_pictures() -> dict[str, np.ndarray]:
    """scikit-image's own pictures, whole and four parts of each, faces, noise of several grains, a page of text."""
    rng = np.random.default_rng(0)
    folder = Path(skimage.data.__file__).parent
    pictures = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".png", ".jpg"):
            picture = pictures[path.name] = reader.read_radiograph(path)
            for part in range(4):
                side = int(min(picture.shape) * rng.uniform(0.4, 0.9))
                top, left = (rng.integers(0, length - side + 1) for length in picture.shape)
                pictures[f"{path.name}, part {part}"] = picture[top : top + side, left : left + side]
    for number, face in enumerate(np.load(folder / "lfw_subset.npy")[:200:10]):
        pictures[f"face {number}"] = (face * 255).astype(np.uint8)
    for grain in (1, 2, 4, 8, 16, 32, 64):
        for number in range(5):
            noise = rng.integers(0, 256, (-(-512 // grain),) * 2).astype(np.uint8)
            pictures[f"noise, grain {grain}, {number}"] = pixels.resize(noise, (512, 512))
    return pictures


def fit(films: dict[str, np.ndarray]) -> None:
    """Prints the numbers, and sets them in `quality`."""
    put_right = []
    for name, film in films.items():
        hypotheses = quality._hypotheses(quality._waves(quality._content(film)[0]))
        true = truth(name)
        side, inverted = int("rotated_90" in true), int("inverted" in true)
        order = [hypotheses[side, 0, inverted]]
        order += [hypotheses[i] for i in np.ndindex(2, 2, 2) if i != (side, 0, inverted)]
        put_right.append(order)
    put_right = np.array(put_right)
    even = quality._even(put_right)

    def loss(template: np.ndarray) -> tuple[float, np.ndarray]:
        scores = even @ template
        likeness = np.exp(scores - scores.max(axis=1, keepdims=True))
        likeness /= likeness.sum(axis=1, keepdims=True)
        gradient = (np.einsum("nh,nhk->k", likeness, even) - even[:, 0].sum(axis=0)) / len(even)
        return -np.log(likeness[:, 0]).mean() + 1e-4 * template @ template, gradient + 2e-4 * template

    quality._TEMPLATE = minimize(loss, np.zeros(even.shape[-1]), jac=True).x.round(1)
    described = np.stack([quality._description(upright) for upright in put_right[:, 0]])
    quality._MEAN = described.mean(axis=0).round(3)
    covariance = np.cov(described.T)
    quality._SCALE = np.linalg.inv(np.linalg.cholesky(covariance)).round(1)
    strange = np.sort([quality._strangeness(upright) for upright in put_right[:, 0]])
    quality._FARTHEST = float(strange[-3].round(2))  # 1 % of the fitted films lie farther
    print(
        f"_TEMPLATE = {quality._TEMPLATE.tolist()}\n_FARTHEST = {quality._FARTHEST}\n_MEAN = {quality._MEAN.tolist()}"
    )
    rows = [str(row[: number + 1].tolist()) for number, row in enumerate(quality._SCALE)]
    print("_SCALE rows:\n" + ",\n".join(rows))


def measure(films: dict[str, np.ndarray]) -> None:
    told = {name: set(quality.check(film)) for name, film in films.items()}
    right = sum(told[name] == truth(name) for name in films)
    print(f"  as they are: {right} of {len(films)} as looked at; otherwise:")
    for name, flags in told.items():
        if flags != truth(name):
            print(f"    {name}: {', '.join(sorted(flags)) or 'nothing'}; in truth {truth(name) or 'nothing'}")
    upright = [film for name, film in films.items() if not truth(name)]
    for change, (apply, expected) in CHANGES.items():
        told = [set(quality.check(np.ascontiguousarray(apply(film)))) for film in upright]
        hits, any_flag = sum(expected <= flags for flags in told), sum(bool(flags) for flags in told)
        counts = Counter(flag for flags in told for flag in flags).most_common()
        print(f"  {change}: {hits} of {len(upright)} told; {any_flag} with any flag: {dict(counts)}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--fit", action="store_true")
    flags = parser.parse_args()
    films = read_films(Path(os.environ["SDFN_DATA"]))
    fitted = {name: film for name, film in films.items() if is_fitted(name)}
    held_out = {name: film for name, film in films.items() if not is_fitted(name)}
    if flags.fit:
        fit(fitted)
    for what, part in ((f"{len(fitted)} films fitted to", fitted), (f"{len(held_out)} others", held_out)):
        print(what)
        measure(part)
    pictures = other_pictures()
    told = {name: set(quality.check(np.ascontiguousarray(picture))) for name, picture in pictures.items()}
    of_content = {"not_frontal_chest", "almost_empty", "border"}
    missed = [name for name, flags in told.items() if not flags & of_content]
    print(f"{len(pictures)} other pictures: {len(pictures) - len(missed)} flagged for what they show; not: {missed}")
    print(f"  {sum(not flags for flags in told.values())} without any flag")


if __name__ == "__main__":
    main()
