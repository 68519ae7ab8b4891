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
import collections
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from sdfn_jax import film_files, film_page, guards, prediction_files, selftest
from sdfn_jax.core import jit_cache, progress
from sdfn_jax.core.arguments import positive
from sdfn_jax.core.errors import UserError, run_command
from sdfn_jax.core.journal import Journal
from sdfn_jax.core.parallel import map_in_order
from sdfn_jax.core.terminal import printable
from sdfn_jax.predictor import BATCH_SIZE, Film, Predictor, Problem
from sdfn_jax.radiographs import dicom_identifiers, find
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.reading import Reading

RESEARCH = "For research, not for diagnosis."
_JOURNAL = "journal.jsonl"


def predict(
    predictor: Predictor,
    films: Sequence[Film],
    output: str | Path,
    fixes: Sequence[str] = (),
    keep_identifiers: bool = False,
    not_found: Sequence[tuple[str, str]] = (),
    left_out: Sequence[find.LeftOut] = (),
) -> int:
    """Reads films and writes everything about them, going on where an earlier call was stopped.

    Args:
      predictor: the networks.
      films: with different names.
      output: the folder; it must not hold a finished prediction.
      fixes: corrections for the films that are flagged so (`guards.FIXES`).
      keep_identifiers: whether the identifiers of DICOM headers go into the tables.
      not_found: (place, what is wrong with it) of the places where no films were found.
      left_out: what was passed over in the folders; it is counted, and listed in the output folder.

    Returns:
      how many films could not be read, places without films among them.

    Raises:
      UserError: where the folder holds a finished prediction, or one begun with other networks or settings.
      OSError: where it cannot be written.
    """
    output = Path(output)
    if (output / prediction_files.PROVENANCE).exists():
        raise UserError(f"--output={output} holds a finished prediction; give another folder, or delete it")
    with Journal(output / _JOURNAL, _made_by(predictor, fixes, keep_identifiers)) as journal:
        for _, problem in not_found:
            print(f"not read: {printable(problem)}", file=sys.stderr)
        find.report(left_out, output / prediction_files.LEFT_OUT)
        _read(predictor, films, journal, output, fixes, keep_identifiers)
        names, problems, flags = [], list(not_found), collections.Counter()
        for film in films:
            piece = journal[film.name]
            if "problem" in piece:
                problems.append((film.name, piece["problem"]))
            else:
                names.append(film.name)
                flags.update(piece["row"]["flags"])
        record = {"films": len(names), "not_read": len(problems), "note": RESEARCH}
        if predictor.uncalibrated:
            record["uncalibrated"] = predictor.uncalibrated
        written = prediction_files.assemble(
            output, names, problems, journal.__getitem__, predictor.provenance, record, keep_identifiers
        )
        journal.delete()
    print(f"{_films(len(names))} read" + (f", {len(problems):,} not" if problems else ""))
    for name, count in flags.most_common():
        print(f"flagged {name}: {count:,}. {FLAGS[name]}")
    print("\n".join(map(str, written)))
    return len(problems)


def _made_by(predictor: Predictor, fixes: Sequence[str], keep_identifiers: bool) -> dict:
    """Returns what decides what the journal holds of a film."""
    calibration = None
    if predictor.calibration is not None:
        text = json.dumps(dataclasses.asdict(predictor.calibration), sort_keys=True)
        calibration = hashlib.sha256(text.encode()).hexdigest()
    return {
        "checkpoint": predictor.provenance.checkpoint,
        "lrg": predictor.provenance.lrg_checkpoint,
        "calibration": calibration,
        "fixes": sorted(set(fixes)),
        "keep_identifiers": keep_identifiers,
    }


def _read(
    predictor: Predictor,
    films: Sequence[Film],
    journal: Journal,
    output: Path,
    fixes: Sequence[str],
    keep_identifiers: bool,
) -> None:
    """Adds to the journal what it lacks of these films."""
    size = predictor.classifier.batch_size
    stamps = {film.name: _stamp(film.path) for film in films}
    done = {film.name for film in films if film.name in journal and journal[film.name]["stamp"] == stamps[film.name]}
    # Whole batches, as an uninterrupted run forms them: a film's neighbours in its batch are always the same.
    batches = [films[start : start + size] for start in range(0, len(films), size)]
    missing = [film for batch in batches if not {each.name for each in batch} <= done for film in batch]
    paths = {film.name: film.path for film in missing}
    if len(missing) < len(films):
        print(f"going on: {len(films) - len(missing):,} of {len(films):,} films are done", flush=True)

    def describe(found: Reading | Problem) -> tuple[str, dict]:
        if isinstance(found, Problem):
            return found.name, {"problem": printable(found.reason)}
        kept, unreadable = dicom_identifiers.read(paths[found.name]) if keep_identifiers else ({}, ())
        found = dataclasses.replace(found, flags=found.flags + unreadable)
        row = prediction_files.row(found, predictor.provenance, kept)
        prediction_files.write_overlay(output, found, row["top"], predictor.provenance)
        return found.name, {"row": row, "entry": film_page.entry(found)}

    with progress.bar(what="predict", unit="film", total=len(films), initial=len(films) - len(missing)) as bar:
        for name, piece in map_in_order(describe, predictor.readings(missing, fixes)):
            if "problem" in piece:
                progress.note(bar, f"not read: {piece['problem']}")
            journal.write(name, piece | {"stamp": stamps[name]})
            bar.update()


def _films(count: int) -> str:
    return f"{count:,} film{'' if count == 1 else 's'}"


def _stamp(path: Path) -> list[int] | None:
    """Tells a file from a later one of the same name; None where it cannot be looked at."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        "python -m sdfn_jax.predict",
        description=__doc__,
        epilog="the output folder:\n" + prediction_files.__doc__.split("\n\n", 1)[1],
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
        choices=guards.FIXES,
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
    places = options.films + (film_files.read_list(options.list) if options.list else [])
    films, not_found, left_out = film_files.find(places, leave_out=options.output)
    # A batch that is not filled takes as long as a full one: few films are read one by one.
    batch_size = options.batch_size if len(films) >= options.batch_size else 1
    predictor = Predictor.load(options.checkpoint, options.lrg, batch_size)
    print(f"{_films(len(films))}, checkpoint {predictor.provenance.checkpoint[:12]}. {RESEARCH}")
    for note in _notes(predictor):
        print(note)
    sys.stdout.flush()
    return predict(predictor, films, options.output, options.fix, options.keep_identifiers, not_found, left_out)


def _notes(predictor: Predictor) -> Iterator[str]:
    """What a reader must know of the networks beforehand."""
    yield from film_page.notes(predictor.provenance)
    for branch, each in predictor.provenance.imported.items():
        yield f"weights of the {branch} view: {each.describe()}"
    if predictor.gaps:
        yield predictor.gaps


if __name__ == "__main__":
    run_command(main, "the same command resumes from here")
