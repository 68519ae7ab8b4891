"""One's own radiographs: files -> findings one can look at.

python -m sdfn_jax.predict FILES... --checkpoint=runs/fusion --output=FOLDER
python -m sdfn_jax.predict --selftest                                      (is this installation right?)

FILES are files, folders (with all below them) and quoted patterns; --list=FILE names a file with one in each line.
Stopped at any moment, the same command goes on where it was. The exit status is 0; 1 where some files could not be read
(errors.csv lists them, the others are there; with --selftest: where it failed); 2 where it could not be done, and the
message says why; 130 where it was stopped.
"""

from sdfn_jax.core import errors

if __name__ == "__main__":
    errors.begin_command()

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sdfn_jax.core import jit_cache
from sdfn_jax.core.arguments import positive
from sdfn_jax.core.errors import run_command
from sdfn_jax.inference import film_page, inputs, outputs, quality, selftest
from sdfn_jax.inference.batch import RESEARCH, count_films, predict
from sdfn_jax.inference.predictor import BATCH_SIZE, Predictor
from sdfn_jax.radiographs import dicom_identifiers


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        "python -m sdfn_jax.predict",
        description=__doc__,
        epilog="the output folder:\n" + outputs.__doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("films", metavar="FILES", nargs="*", help="files, folders, quoted patterns")
    parser.add_argument("--list", help="a text file with one of these in each line")
    parser.add_argument("--checkpoint", help="folder of a trained classifier, such as runs/fusion")
    parser.add_argument(
        "--lrg", help="folder of its lung region generator, where it is not the one it was trained with"
    )
    parser.add_argument("--output", type=Path, help="folder to write into")
    parser.add_argument(
        "--batch_size",
        type=positive,
        default=BATCH_SIZE,
        help=f"films the networks take at a time (default: {BATCH_SIZE})",
    )
    parser.add_argument(
        "--fix",
        action="append",
        default=[],
        choices=quality.FIXES,
        help="correct the films that are flagged so, and say which; may be given several times",
    )
    parser.add_argument(
        "--keep_identifiers",
        action="store_true",
        help=f"write {', '.join(dicom_identifiers.KEPT)} of DICOM files into the tables; nothing of a header otherwise",
    )
    parser.add_argument("--selftest", action="store_true", help="compare this installation with golden outputs")
    options = parser.parse_args(arguments)
    if options.selftest:
        alone = vars(parser.parse_args(["--selftest"]))
        if others := [name for name, value in vars(options).items() if value != alone[name]]:
            named = ", ".join("FILES" if name == "films" else f"--{name}" for name in others)
            parser.error(f"--selftest reads films and networks of its own; leave out {named}")
        jit_cache.use_cache()
        found = selftest.run()
        print(selftest.table(found))
        sys.exit(0 if all(each.passed for each in found) else 1)
    for needed in ("checkpoint", "output"):
        if getattr(options, needed) is None:
            parser.error(f"--{needed} is missing")
    if not options.films and options.list is None:
        parser.error("no FILES: name files, folders or patterns, or a list of them with --list")
    jit_cache.use_cache()
    sys.exit(1 if _run(options) else 0)


def _run(options: argparse.Namespace) -> int:
    places = options.films + (inputs.read_list(options.list) if options.list else [])
    films, not_found, left_out = inputs.find(places, leave_out=options.output)
    # A batch that is not filled takes as long as a full one: few films are read one by one.
    batch_size = options.batch_size if len(films) >= options.batch_size else 1
    predictor = Predictor.load(options.checkpoint, options.lrg, batch_size)
    print(f"{count_films(len(films))}, checkpoint {predictor.provenance.checkpoint[:12]}. {RESEARCH}")
    for note in _notes(predictor):
        print(note)
    sys.stdout.flush()
    return predict(predictor, films, options.output, options.fix, options.keep_identifiers, not_found, left_out)


def _notes(predictor: Predictor) -> Iterator[str]:
    """What a reader must know of the networks beforehand."""
    yield from film_page.notes(predictor.provenance)
    for branch, each in predictor.provenance.imported.items():
        yield f"weights of the {branch} branch: {each.describe()}"
    if predictor.gaps:
        yield predictor.gaps


if __name__ == "__main__":
    run_command(main, "the same command resumes from here")
