"""One's own radiographs: files -> predictions and a page to look at.

python -m sdfn_jax.predict FILES... --checkpoint=runs/fusion --output=FOLDER
python -m sdfn_jax.predict FILES... --output=FOLDER                        (the lungs alone, no findings)
python -m sdfn_jax.predict --selftest                                      (is this installation right?)

Interrupted at any moment, the same command resumes. The exit status is 0; 1 if some files could not be read
(errors.csv lists them; with --selftest: if it failed); 2 if nothing could be done, and the message says why; 130 or 143
if it was stopped.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sdfn_jax.core import errors, ray_engine
from sdfn_jax.core.arguments import BATCH_SIZE, Parser, add_division, positive
from sdfn_jax.radiographs.flags import FIXES

if TYPE_CHECKING:
    from sdfn_jax.hospital.results import ResultsFolder
    from sdfn_jax.inference.predictor import Predictor
    from sdfn_jax.radiographs.opening import ImageFile

AGAIN = "the same command resumes from here"


def main(arguments: Sequence[str] | None = None, prog: str = "python -m sdfn_jax.predict") -> None:
    """Predicts files, or tests the installation."""
    options = _parse(arguments, prog)
    if options.selftest:
        from sdfn_jax import selftest

        selftest.main([])
    sys.exit(1 if _run(options) else 0)


def _parse(arguments: Sequence[str] | None, prog: str) -> argparse.Namespace:
    parser = Parser(
        prog,
        description="Reads radiographs (DICOM, PNG, JPEG, TIFF, JSRT's .IMG), and writes predictions and a page to "
        "look at. For research, not for diagnosis.",
        examples=_EXAMPLES,
    )
    parser.add_argument("films", metavar="FILES", nargs="*", help="files, folders with all below them, quoted patterns")
    parser.add_argument("--list", help="a text file with one of these on each line")
    parser.add_argument(
        "--checkpoint",
        help="folder of a trained classifier (runs/fusion), or of runs, or its .zip of sdfn export; without it the "
        "lungs alone are read",
    )
    parser.add_argument(
        "--lrg",
        help="run folder of the lung region generator, if it is not the classifier's or the package's own",
    )
    parser.add_argument("--output", type=Path, help="folder to write into")
    parser.add_argument(
        "--batch_size", type=positive, default=BATCH_SIZE, help="images at a time (default: %(default)s)"
    )
    parser.add_argument(
        "--fix", action="append", default=[], choices=FIXES, help="correct images flagged so; may be repeated"
    )
    parser.add_argument(
        "--keep_identifiers",
        action="store_true",
        help="write patient, study and image identifiers of DICOM headers into the tables",
    )
    parser.add_argument(
        "--dicom_results",
        type=Path,
        metavar="FOLDER",
        help="also write DICOM objects, with the films' identifiers",
    )
    add_division(parser)
    parser.add_argument("--selftest", action="store_true", help="compare this installation with golden outputs")
    options = parser.parse_args(arguments)
    if options.selftest:
        alone = vars(parser.parse_args(["--selftest"]))
        if others := [name for name, value in vars(options).items() if value != alone[name]]:
            named = ", ".join("FILES" if name == "films" else f"--{name}" for name in others)
            parser.error(f"--selftest brings its own films and networks; leave out {named}")
        return options
    if options.output is None:
        parser.error("--output is missing")
    if not options.films and options.list is None:
        parser.error("no FILES: name files, folders or patterns, or a list of them with --list")
    if options.dicom_results is not None:
        for flag, place in [("--output=", options.output), *(("", each) for each in options.films)]:
            if options.dicom_results.resolve().is_relative_to(Path(place).resolve()):
                parser.error(
                    f"--dicom_results={options.dicom_results} is in {flag}{place}; it holds identifiers, and is read "
                    "by no later prediction, in a folder of its own: name another"
                )
    return options


def _run(options: argparse.Namespace) -> int:
    from sdfn_jax.core import jit_cache  # here and below, so that --help needs no JAX
    from sdfn_jax.inference import batch, inputs
    from sdfn_jax.inference.predictor import Predictor

    jit_cache.use_cache()
    places = options.films + (inputs.read_list(options.list) if options.list else [])
    films, not_found, left_out = inputs.find(places, leave_out=options.output)
    dicom_results = _dicom_results(options.dicom_results, films)
    # A batch that is not full takes as long as a full one: a few films are read one at a time.
    batch_size = options.batch_size if len(films) >= options.batch_size else 1
    # Ray starts processes, which must come before JAX starts threads.
    with ray_engine.engine(options.engine, jit_cache.use_cache) as engine:
        predictor = Predictor.load(options.checkpoint, options.lrg, batch_size)
        print(f"{batch.count_films(len(films))}, {predictor.describe()}. {batch.RESEARCH}")
        for note in _notes(predictor):
            print(note)
        sys.stdout.flush()
        return batch.predict(
            predictor,
            films,
            options.output,
            options.fix,
            options.keep_identifiers,
            not_found,
            left_out,
            dicom_results,
            shard=options.shard,
            engine=engine,
        )


def _dicom_results(folder: Path | None, films: Sequence["ImageFile"]) -> "ResultsFolder | None":
    """Returns the folder of DICOM results, if there is to be one; a missing package is reported here."""
    if folder is None:
        return None
    from sdfn_jax.hospital.results import ResultsFolder

    return ResultsFolder(folder, films)


def _notes(predictor: "Predictor") -> Iterator[str]:
    """What a reader must know about the networks beforehand."""
    from sdfn_jax.inference import film_page

    yield from film_page.notes(predictor.provenance)
    for branch, each in predictor.provenance.imported.items():
        yield f"weights of the {branch} branch: {each.describe()}"
    if predictor.gaps:
        yield predictor.gaps


_EXAMPLES = """\
examples:
  %(prog)s film.dcm --checkpoint=runs/fusion --output=FOLDER
  %(prog)s FOLDER 'more/*.png' --checkpoint=runs/fusion --output=FOLDER
  %(prog)s FOLDER --output=FOLDER                      (lungs and flags, no findings)
  %(prog)s --selftest

in the output folder (docs/own_radiographs.md lists the columns):
  index.html          every image with its heatmaps, lung box and flags
  predictions.csv     one line per image; predictions.jsonl: the same with the heatmaps' boxes
  boxes.csv           boxes from heatmaps
  overlays/           a picture of each image
  errors.csv          what could not be read; left_out.csv: what was skipped
  provenance.json     networks, data, thresholds, software"""

if __name__ == "__main__":
    errors.run_as_process(main, AGAIN)
