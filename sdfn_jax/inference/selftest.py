"""Checks an installation: tiny networks trained on synthetic films, and their output for four such films.

python -m sdfn_jax.predict --selftest                  (films -> files -> networks -> probabilities, compared)
python -m sdfn_jax.inference.selftest --run=runs/demo/fusion     (makes `golden/` again, from the demo's networks)

`golden/` holds the networks as safetensors and the probabilities as JSON; it was made by these two commands:
python -m sdfn_jax.main --config=configs/fusion.py:demo; python -m sdfn_jax.inference.selftest --run=runs/demo/fusion
"""

import argparse
import dataclasses
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from flax import traverse_util
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.inference.prediction import Reading
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.lungs import lung_boxes, mask
from sdfn_jax.metrics.evaluation import software
from sdfn_jax.radiographs import synthetic_dataset
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.radiographs.opening import ImageFile

# Largest difference of a probability. Devices sum float32 in another order and some round it to TF32's 11 bits, and
# drawing libraries round a grey level up or down. Activations in bfloat16 (8 bits) change these probabilities by
# 2.1e-3, so TF32 changes them by some 3e-4; another resize changes them by 1e-2 and more.
SELFTEST_TOLERANCE = 1e-3
_GOLDEN = Path(__file__).parent / "golden"
FILMS_FILE = _GOLDEN / "films.json"
_STAGES = ("lrg", "fusion")
_FILMS = 4
_SEED = 2018
# The films are chosen so that their lung boxes are the same at both thresholds: rounding does not move them.
_FIRM = (0.4, 0.6)


@dataclasses.dataclass(frozen=True)
class FilmDifference:
    """The differences of one film's reading.

    Attributes:
      film: its name.
      probability: largest difference of the 14 probabilities.
      pixels: largest difference of the lung box's edges.
    """

    film: str
    probability: float
    pixels: int

    @property
    def passed(self) -> bool:
        """Whether it is within the tolerance."""
        return self.probability <= SELFTEST_TOLERANCE and self.pixels == 0


def unpack(folder: str | Path) -> Path:
    """Writes the golden networks as runs, `lrg` and `fusion`, below a folder.

    Returns:
      the run folder of the fusion network.
    """
    folder = Path(folder)
    for stage in _STAGES:
        with safe_open(_GOLDEN / f"{stage}.safetensors", framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = json.loads(file.metadata()["metadata"])
        digest = metadata.pop("digest")
        checkpoint.save_best(
            folder / stage, metadata.pop("step"), traverse_util.unflatten_dict(arrays, sep="/"), metadata
        )
        if checkpoint.best_metadata(folder / stage)["digest"] != digest:
            raise UserError(f"{_GOLDEN / stage}.safetensors is damaged; install the package again")
    return folder / "fusion"


def run() -> list[FilmDifference]:
    """Draws the golden films, reads them as any other files, and compares."""
    films = json.loads(FILMS_FILE.read_text())["films"]
    with tempfile.TemporaryDirectory(prefix="sdfn_jax_selftest_") as folder:
        predictor = Predictor.load(unpack(folder))
        found = _read(predictor, [synthetic_film_of(each) for each in films], Path(folder))
    differences = []
    for film, reading in zip(films, found, strict=True):
        pixels = np.abs(np.subtract(reading.lung_box, film["lung_box"])).max()
        probability = max(abs(reading.probabilities[name] - value) for name, value in film["probabilities"].items())
        differences.append(FilmDifference(film["name"], probability, int(pixels)))
    return differences


def table(differences: Sequence[FilmDifference]) -> str:
    """Formats the result for a terminal."""
    lines = [f"{'drawn film':<12}{'probabilities off by':>22}{'lung box off by':>18}"]
    for each in differences:
        verdict = "pass" if each.passed else "FAIL"
        lines.append(f"{each.film:<12}{each.probability:>22.1e}{each.pixels:>15} px   {verdict}")
    passed = all(each.passed for each in differences)
    largest = max(each.probability for each in differences)
    lines.append(
        f"{'passed' if passed else 'FAILED'}: largest difference {largest:.1e}, allowed {SELFTEST_TOLERANCE:g} "
        "(devices and libraries round differently)"
    )
    return "\n".join(lines)


def make(workdir: str | Path) -> None:
    """Makes `golden/` again.

    Args:
      workdir: run folder of the demo's fusion network, with its lung region generator where the config says.
    """
    predictor = Predictor.load(workdir)
    if predictor.provenance.stage != "fusion" or not predictor.provenance.drawings:
        raise UserError(f"--run={workdir}: the selftest is made from the demo's fusion network, runs/demo/fusion")
    chosen = list(itertools.islice(_firm_films(predictor), _FILMS))
    with tempfile.TemporaryDirectory() as folder:
        readings = _read(predictor, chosen, Path(folder))
    for stage, place in zip(_STAGES, (Path(workdir).parent / "lrg", workdir), strict=True):
        variables, metadata = checkpoint.read_best(place)
        with appears_when_complete(_GOLDEN / f"{stage}.safetensors") as path:
            save_file(checkpoint.flatten(variables), path, {"metadata": json.dumps(metadata)})
    record = {
        "software": software(),
        "films": [
            {
                "name": film.name,
                "findings": film.findings,
                "stream": film.stream,
                "lung_box": reading.lung_box,
                "probabilities": dict(reading.probabilities),
            }
            for film, reading in zip(chosen, readings, strict=True)
        ],
    }
    with appears_when_complete(FILMS_FILE) as path:
        path.write_text(json.dumps(record, indent=2) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command that makes `golden/`."""
    parser = argparse.ArgumentParser(prog="python -m sdfn_jax.inference.selftest", description=main.__doc__)
    parser.add_argument("--run", required=True, help="the demo's fusion run, runs/demo/fusion")
    make(parser.parse_args(arguments).run)
    print(table(run()))


def synthetic_film_of(record: dict) -> synthetic_dataset.SyntheticFilm:
    """Returns the synthetic film that a record of `films.json` describes."""
    return synthetic_dataset.SyntheticFilm(record["name"], tuple(record["findings"]), tuple(record["stream"]))


def _firm_films(predictor: Predictor) -> Iterator[synthetic_dataset.SyntheticFilm]:
    """Yields films with none, one, two and so on of the findings, whose lung boxes no rounding moves."""
    lungs, found = predictor.lungs, 0
    for number in itertools.count():
        generator = np.random.default_rng((_SEED, number))
        findings = generator.choice(len(FINDINGS), found, replace=False)
        film = synthetic_dataset.SyntheticFilm(
            f"drawing_{number}", tuple(FINDINGS[each] for each in findings), (_SEED, number)
        )
        radiograph = film.draw().image
        (probability,) = lungs.segmenter.probabilities(lungs.shrink(radiograph)[None])
        boxes = {
            lung_boxes.lung_box(probability > threshold, radiograph.shape, lungs.postprocessing).box
            for threshold in (*_FIRM, mask.THRESHOLD)
        }
        if len(boxes) == 1:
            found += 1
            yield film


def _read(predictor: Predictor, films: Sequence[synthetic_dataset.SyntheticFilm], folder: Path) -> list[Reading]:
    files = []
    for film in films:
        files.append(ImageFile(film.name, folder / f"{film.name}.png"))
        Image.fromarray(film.draw().image).save(files[-1].path, compress_level=1)
    return list(predictor.readings(files))


if __name__ == "__main__":
    run_command(main)
