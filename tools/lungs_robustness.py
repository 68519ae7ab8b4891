"""Measures lung region generators on films that were changed: Dice, lung recall of the box, confidence, flags.

SDFN_DATA=FOLDER python -m tools.lungs_robustness WORK

WORK is the folder of `tools/ship_lungs`. Each of Montgomery's films is read by the teacher that never saw it, as it is
and changed; the references are changed alike. Films of ChestX-ray14 have no reference: there the package's network is
compared with itself on the film as it is.
"""

import argparse
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage

from sdfn_jax.core import backend, errors, progress
from sdfn_jax.lungs.finder import LungFinder
from sdfn_jax.metrics import scores
from sdfn_jax.radiographs import pixels, reader
from sdfn_jax.workflow import stages
from tfds_builders.montgomery.montgomery_dataset_builder import Builder
from tfds_builders.registry import FOLDS
from tools.ship_lungs import (
    chestxray14_films,
    montgomery_films,
    prepared,
    read_lungs,
    read_upright,
    teacher_config,
)

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_ENOUGH = 0.99  # of the lungs in the box
_EVERY = 3  # of ChestX-ray14's films, in the order of their names


def _both(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """The same change of film and mask."""
    return lambda film, mask: (change(film), change(mask))


def _film(change: Callable[[np.ndarray], np.ndarray]) -> Change:
    """A change of the film's grey values alone."""
    return lambda film, mask: (change(film), mask)


def _turned(degrees: float) -> Change:
    return _both(lambda array: ndimage.rotate(array, degrees, reshape=False, order=1))


def _gamma(power: float) -> Change:
    return _film(lambda film: np.rint(255 * (film / 255) ** power).astype(np.uint8))


def _bordered(grey: int) -> Change:
    def change(film: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        width = len(film) // 4
        return np.pad(film, width, constant_values=grey), np.pad(mask, width)

    return change


def _resized(side: int) -> Change:
    return _both(lambda array: pixels.resize(array, (side, side)))


def _jpeg(film: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(film).save(file, "JPEG", quality=20)
    return np.asarray(Image.open(file))


def _noisy(film: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 15, film.shape)
    return np.clip(np.rint(film + noise), 0, 255).astype(np.uint8)


def _whitened(share: float) -> Change:
    """The lower part of one lung becomes as bright as the film's brightest tenth; it stays lung."""

    def change(film: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        lung = mask > 0
        lung[:, : lung.shape[1] // 2] = False
        rows = np.flatnonzero(lung.any(axis=1))
        lung[: rows[-1] - round(share * (rows[-1] - rows[0]))] = False
        soft = ndimage.gaussian_filter(ndimage.binary_dilation(lung, iterations=8).astype(float), 6)
        return np.rint(film + soft * np.maximum(np.percentile(film, 90) - film, 0)).astype(np.uint8), mask

    return change


CHANGES: dict[str, Change] = {
    "as it is": lambda film, mask: (film, mask),
    "mirrored": _both(lambda array: array[:, ::-1]),
    "turned by 5 degrees": _turned(5),
    "turned by 15 degrees": _turned(15),
    "on its side": _both(np.rot90),
    "upside down": _both(lambda array: array[::-1, ::-1]),
    "inverted": _film(lambda film: 255 - film),
    "gamma 0.5": _gamma(0.5),
    "gamma 2": _gamma(2.0),
    "half the contrast": _film(lambda film: film // 2 + 64),
    "black border": _bordered(0),
    "white border": _bordered(255),
    "noise, sd 15 of 255": _film(_noisy),
    "blurred, sd 4 of 512 px": _film(lambda film: ndimage.gaussian_filter(film, 4)),
    "JPEG, quality 20": _film(_jpeg),
    "300 x 300 pixels": _resized(300),
    "4000 x 4000 pixels": _resized(4000),
    "lower third of a lung white": _whitened(1 / 3),
    "one lung white": _whitened(1.0),
}


def _montgomery(data: Path) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (fold, film, mask of 0 and 255) of each film."""
    for path in montgomery_films(data):
        yield Builder._number(path.stem) % FOLDS, reader.read_radiograph(path), read_lungs(path) * np.uint8(255)


def measure(finders: list[LungFinder], films: list[tuple[int, np.ndarray, np.ndarray]]) -> None:
    """Prints a row for each change; `films` are (place of its finder, film, mask)."""
    print(f"{'':<30}{'Dice':>8}{'worst':>8}{'recall':>8}{'< 0.99':>8}{'confid.':>9}{'flagged':>9}{'silent < 0.99':>15}")
    rows = []
    for name, change in CHANGES.items():
        found: list[tuple[float, float, float, bool]] = []
        with progress.bar(what=name, unit="image", total=len(films), stays=False) as bar:
            for place in range(len(finders)):
                changed = [change(film, mask) for at, film, mask in films if at == place]
                lungs = finders[place]([np.ascontiguousarray(film) for film, _ in changed])
                for (_, mask), each in zip(changed, lungs, strict=True):
                    recall = scores.lung_recall(mask > 127, each.box)
                    found.append((scores.dice(each.mask, mask > 127), recall, each.confidence, bool(each.flags)))
                    bar.update()
        rows += [(name, *one) for one in found]
        dice, recall, sure, flagged = (np.array(values) for values in zip(*found, strict=True))
        missed = recall < _ENOUGH
        print(
            f"{name:<30}{dice.mean():>8.4f}{dice.min():>8.3f}{recall.mean():>8.4f}{missed.mean():>8.1%}"
            f"{sure.mean():>9.3f}{flagged.mean():>9.1%}{(missed & ~flagged.astype(bool)).mean():>15.1%}",
            flush=True,
        )
    sure, missed = np.array([row[3] for row in rows]), np.array([row[2] < _ENOUGH or row[1] < 0.9 for row in rows])
    print("\nbound   bad ones below it   good ones below it   (bad: recall below 0.99 or Dice below 0.9)")
    for bound in np.arange(0.80, 0.97, 0.01):
        print(f"{bound:.2f}{np.mean(sure[missed] < bound):>15.1%}{np.mean(sure[~missed] < bound):>20.1%}")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    backend.start()
    data = Path(os.environ["SDFN_DATA"])
    config = teacher_config(data, options.work)
    print(stages.cross_validate(config, prepared(config)))
    teachers = [LungFinder.load(f"{config.workdir}/fold_{fold}") for fold in range(FOLDS)]
    print("\nMontgomery, 138 films, each by the teacher that never saw it")
    measure(teachers, list(_montgomery(data)))
    shipped = LungFinder.load()
    chosen = list(chestxray14_films(data).items())[::_EVERY]
    films = [read_upright(name, path) for name, path in chosen]
    alone = [(0, film, each.mask * np.uint8(255)) for film, each in zip(films, shipped(films), strict=True)]
    print(f"\nChestX-ray14, {len(films)} films: the package's network against itself on the film as it is")
    measure([shipped], alone)


if __name__ == "__main__":
    errors.run_as_process(main)
