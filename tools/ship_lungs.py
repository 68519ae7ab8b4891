"""Makes the lung region generator that the package ships, from open data.

SDFN_DATA=FOLDER python -m tools.ship_lungs WORK [--write_package]

1. Teachers: three U-Nets of `configs/lungs.py`, each trained on another four fifths of Montgomery's films and masks.
2. Labels: the mean of the teachers' probabilities on films of ChestX-ray14 gives masks. `ship_lungs_films.json` lists
   what was said of each by eye: films left out, and masks cut off below a line. The others were accepted.
3. Student: one U-Net of the same config on all these films and those of Montgomery.
4. Package: the student's weights, rounded to float16.

Interrupted at any moment, the same command resumes. On one machine the result is the same bit for bit.
"""

import argparse
import json
import os
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from configs import lungs
from sdfn_jax.core import backend, checkpoint, errors, progress
from sdfn_jax.core.files import appears_when_complete, folder_appears_when_complete, remove_folder
from sdfn_jax.lungs import lung_boxes
from sdfn_jax.lungs.segmenter import Segmenter
from sdfn_jax.lungs.shipped import SHIPPED
from sdfn_jax.radiographs import pixels, reader
from sdfn_jax.workflow import modes, stages
from tfds_builders import prepare
from tools.guards import INVERTED, ON_THEIR_SIDE

TEACHERS = 3  # the first of the five folds of the cross-validation
# 14,400 batches; the teachers see 7,500.
_STUDENT_EPOCHS = 150
# Pixels of the films and masks that the student learns from; the network's own size is smaller.
_SIDE = 512
BY_EYE = Path(__file__).with_name("ship_lungs_films.json")


def teachers(data: Path, work: Path) -> list[Segmenter]:
    """Trains the teachers, or loads them."""
    networks = []
    for fold in range(TEACHERS):
        config = teacher_config(data, work)
        with config.unlocked():
            config.test_fold = fold
            config.workdir += f"/fold_{fold}"
        stages.train_lrg(config, prepared(config))
        networks.append(Segmenter.load(config.workdir, batch_size=1))
    return networks


def teacher_config(data: Path, work: Path) -> ConfigDict:
    """Returns the config whose cross-validation has the teachers as its first folds."""
    config = _config("montgomery", data / "montgomery", work)
    config.workdir = str(work / "teachers")
    return config


def chestxray14_films(data: Path) -> dict[str, Path]:
    """Returns {name: file} of the films that are labelled."""
    return {path.stem: path for path in sorted((data / "chestxray14" / "images").rglob("*.png"))}


def montgomery_films(data: Path) -> list[Path]:
    """Returns the radiographs of Montgomery, in order."""
    return sorted((data / "montgomery" / "MontgomerySet" / "CXR_png").glob("*.png"))


def read_lungs(film: Path) -> np.ndarray:
    """Returns both lungs of one of Montgomery's films, (H, W) bool."""
    masks = film.parent.parent / "ManualMask"
    return np.maximum(*(reader.read_radiograph(masks / side / film.name) for side in ("leftMask", "rightMask"))) > 0


def read_upright(name: str, path: Path) -> np.ndarray:
    """Returns a film as (512, 512) uint8, upright and with bright bones."""
    film = pixels.resize(reader.read_radiograph(path), (_SIDE, _SIDE))
    film = 255 - film if name in INVERTED else film
    return np.ascontiguousarray(np.rot90(film, -1)) if name in ON_THEIR_SIDE else film


def label(name: str, film: np.ndarray, networks: list[Segmenter], cut: dict) -> np.ndarray:
    """Returns the teachers' mask of an upright film's lungs, (512, 512) bool.

    Args:
      name: of the film.
      film: (512, 512) uint8.
      networks: the teachers.
      cut: {name: line of (x, y), shares of the side}; what is below the line is no lung.
    """
    size = networks[0].size
    small = pixels.resize(film, (size, size))
    probabilities = np.mean([network.probabilities(small[None])[0] for network in networks], axis=0)
    enlarged = pixels.resize(np.rint(255 * probabilities).astype(np.uint8), (_SIDE, _SIDE))
    mask = lung_boxes.clean(enlarged > 127, networks[0].postprocessing)
    if name in cut:
        line = cut[name]
        below = Image.new("L", (_SIDE, _SIDE))
        polygon = [(x * _SIDE, y * _SIDE) for x, y in (*line, (line[-1][0], 1), (line[0][0], 1))]
        ImageDraw.Draw(below).polygon(polygon, fill=255)
        mask &= np.asarray(below) == 0
    return mask


def write_films(data: Path, networks: list[Segmenter], folder: Path) -> None:
    """Writes the student's films and masks, Montgomery's and ChestX-ray14's, as `own_lungs` wants them."""
    by_eye = json.loads(BY_EYE.read_text())
    named = chestxray14_films(data)
    own = montgomery_films(data)
    with progress.bar(what="films and masks", unit="image", total=len(own) + len(named)) as bar:
        for path in own:
            _write(folder, path.stem, reader.read_radiograph(path), read_lungs(path))
            bar.update()
        for name, path in named.items():
            if name not in by_eye["left_out"]:
                film = read_upright(name, path)
                _write(folder, name, film, label(name, film, networks, by_eye["cut"]))
            bar.update()


def student(films: Path, work: Path) -> Path:
    """Trains the student, or resumes; returns its run folder."""
    config = _config("own_lungs", films, work)
    config.workdir = str(work / "student")
    config.num_epochs = _STUDENT_EPOCHS
    prepared(config)
    modes.run(config, "train", "test")
    return Path(config.workdir)


def write_package(run: Path) -> None:
    """Writes a run's weights into the package, rounded to float16, under the names of the config's defaults."""
    variables, metadata = checkpoint.read_best(run)
    rounded = jax.tree.map(lambda leaf: leaf.astype(np.float16).astype(np.float32), variables)
    config = metadata["config"]
    defaults = lungs.get_config("own_lungs")
    config["workdir"] = defaults.workdir
    config["data"].update(manual_dir=defaults.data.manual_dir, data_dir=defaults.data.data_dir)
    config["least_confidence"] = defaults.least_confidence
    if SHIPPED.joinpath("best").exists():
        remove_folder(SHIPPED / "best")
    checkpoint.save_best(SHIPPED, metadata["step"], rounded, metadata)


def _config(argument: str, films: Path, work: Path) -> ConfigDict:
    config = lungs.get_config(argument)
    config.data.manual_dir = str(films)
    config.data.data_dir = str(work / "tfds")
    return config


def prepared(config: ConfigDict) -> Path:
    """Returns the folder of a config's data set, prepared if it was not."""
    return prepare.prepare(
        config.data.name, manual_dir=config.data.manual_dir, data_dir=config.data.data_dir, size=config.data.size
    )


def _write(folder: Path, name: str, film: np.ndarray, mask: np.ndarray) -> None:
    for kind, array in (("images", film), ("masks", mask * np.uint8(255))):
        with appears_when_complete(folder / kind / f"{name}.png") as unfinished:
            Image.fromarray(array).save(unfinished)


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="a folder for everything in between")
    parser.add_argument("--write_package", action="store_true", help="replace the network in the package")
    options = parser.parse_args()
    backend.start()
    data = Path(os.environ["SDFN_DATA"])
    networks = teachers(data, options.work)
    films = options.work / "films"
    if not films.is_dir():
        with folder_appears_when_complete(films) as unfinished:
            write_films(data, networks, unfinished)
    run = student(films, options.work)
    if options.write_package:
        write_package(run)


if __name__ == "__main__":
    errors.run_as_process(main)
