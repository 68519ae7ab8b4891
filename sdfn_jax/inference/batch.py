"""Many films -> one output folder: predictions, pages, overlays; an interrupted run resumes."""

import collections
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from sdfn_jax.core import csv_table, parallel, progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.journal import Journal
from sdfn_jax.core.parallel import Engine, in_batches, map_in_order
from sdfn_jax.core.shards import UNDIVIDED, Shard, ShardedWork
from sdfn_jax.core.terminal import printable
from sdfn_jax.inference import film_page, outputs
from sdfn_jax.inference.prediction import Reading
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.radiographs import dicom_identifiers, find
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.radiographs.opening import ImageFile, Unreadable

RESEARCH = "For research, not for diagnosis."
NOT_WRITTEN = "no_dicom_results.csv"
_JOURNAL = "journal.jsonl"
_FORMAT = 2  # of the journal's pieces: work begun by a version with another one is refused, not mixed


class DicomResults(Protocol):
    """A folder of DICOM results (`hospital.results.ResultsFolder`)."""

    folder: Path

    def write(self, reading: Reading, film: Path) -> str:
        """Writes the DICOM results of a film; returns why it has none, or an empty text."""


def predict(
    predictor: Predictor,
    films: Sequence[ImageFile],
    output: str | Path,
    fixes: Sequence[str] = (),
    keep_identifiers: bool = False,
    not_found: Sequence[tuple[str, str]] = (),
    left_out: Sequence[find.LeftOut] = (),
    dicom_results: DicomResults | None = None,
    shard: Shard = UNDIVIDED,
    engine: Engine = parallel.here,
) -> int:
    """Reads films and writes everything about them; resumes an interrupted call.

    The result is the same however many shards there were.

    Args:
      predictor: the networks.
      films: with different names.
      output: the folder; it must not hold a finished prediction.
      fixes: corrections for the films that are flagged so (`quality.FIXES`).
      keep_identifiers: whether the identifiers of DICOM headers go into the tables.
      not_found: (place, what is wrong with it) of the places where no films were found.
      left_out: what was skipped in the folders; it is counted, and listed in the output folder.
      dicom_results: where DICOM results go; None for none. Films that have none are counted, and listed in the output
        folder.
      shard: the part of the films that this process reads.
      engine: what computes.

    Returns:
      the number of films that could not be read, including places without films; 0 if other shards are not
      finished.

    Raises:
      UserError: if the folder holds a finished prediction, or one started with other networks or settings.
      OSError: if it cannot be written.
    """
    output = Path(output)
    if (output / outputs.PROVENANCE).exists():
        raise UserError(f"--output={output} holds a finished prediction; give another folder, or delete it")
    stamps = {film.name: _stamp(film.path) for film in films}

    def is_current(name: str, piece: dict) -> bool:
        return piece["stamp"] == stamps[name]

    made_by = _made_by(predictor, fixes, keep_identifiers, dicom_results)
    with ShardedWork(output / _JOURNAL, made_by, shard) as work:
        for _, problem in not_found:
            print(f"not read: {printable(problem)}", file=sys.stderr)
        find.report(left_out, output / outputs.LEFT_OUT)
        mine = work.mine(films)
        missing = _missing(work.journal, mine, predictor.batch_size, is_current)
        function = functools.partial(_pieces, predictor, output, fixes, keep_identifiers, dicom_results)
        with progress.bar(what="predict", unit="film", total=len(mine), initial=len(mine) - len(missing)) as bar:
            for name, piece in engine(function, missing, predictor.batch_size):
                if "problem" in piece:
                    progress.note(bar, f"not read: {piece['problem']}")
                work.journal.write(name, piece | {"stamp": stamps[name]})
                bar.update()
        pieces = work.all_pieces(stamps, is_current)
        if pieces is None:
            return 0
        names, problems = [], list(not_found)
        flags: collections.Counter[str] = collections.Counter()
        for film in films:
            piece = pieces[film.name]
            if "problem" in piece:
                problems.append((film.name, piece["problem"]))
            else:
                names.append(film.name)
                flags.update(piece["row"]["flags"])
        record = {"films": len(names), "not_read": len(problems), "note": RESEARCH}
        if predictor.uncalibrated:
            record["uncalibrated"] = predictor.uncalibrated
        if predictor.classifier is None:
            record["no_findings"] = film_page.NO_CLASSIFIER
        written = outputs.assemble(
            output, names, problems, pieces.__getitem__, predictor.provenance, record, keep_identifiers
        )
        without = [(name, why) for name in names if (why := pieces[name].get("no_dicom_results"))]
        work.delete()
    print(f"{count_films(len(names))} read" + (f", {len(problems):,} not" if problems else ""))
    for name, count in flags.most_common():
        print(f"flagged {name}: {count:,}. {FLAGS[name]}")
    print("\n".join(map(str, written)))
    if dicom_results is not None:
        _report(dicom_results.folder, len(names) - len(without), without, output / NOT_WRITTEN)
    return len(problems)


def _report(folder: Path, count: int, without: Sequence[tuple[str, str]], path: Path) -> None:
    """Prints how many films have DICOM results and why others have none, and lists these as a table."""
    print(f"DICOM results of {count_films(count)}, with the identifiers of their patients and studies: {folder}")
    if without:
        with csv_table.writing(path) as table:
            table.rows([("image", "reason"), *without])
        for reason, number in collections.Counter(why for _, why in without).most_common():
            print(f"no DICOM results: {count_films(number)}: {reason}")
        print(f"full list: {path}")


def _made_by(
    predictor: Predictor, fixes: Sequence[str], keep_identifiers: bool, dicom_results: DicomResults | None
) -> dict:
    """Returns what determines a film's entry in the journal."""
    calibration = None
    if predictor.calibration is not None:
        text = json.dumps(dataclasses.asdict(predictor.calibration), sort_keys=True)
        calibration = hashlib.sha256(text.encode()).hexdigest()
    return {
        "format": _FORMAT,
        "checkpoint": predictor.provenance.checkpoint,
        "lrg": predictor.provenance.lrg_checkpoint,
        "calibration": calibration,
        "fixes": sorted(set(fixes)),
        "keep_identifiers": keep_identifiers,
    } | ({} if dicom_results is None else {"dicom_results": str(dicom_results.folder.absolute())})


def _missing(
    journal: Journal, films: Sequence[ImageFile], size: int, is_current: Callable[[str, dict], bool]
) -> list[ImageFile]:
    """Returns the films that the journal lacks."""
    done = {film.name for film in films if film.name in journal and is_current(film.name, journal[film.name])}
    # Whole batches, as an uninterrupted run forms them: a film's neighbours in its batch are always the same.
    missing = [film for batch in in_batches(films, size) if not {each.name for each in batch} <= done for film in batch]
    if len(missing) < len(films):
        print(f"resuming: {len(films) - len(missing):,} of {len(films):,} films are done", flush=True)
    return missing


def _pieces(
    predictor: Predictor,
    output: Path,
    fixes: Sequence[str],
    keep_identifiers: bool,
    dicom_results: DicomResults | None,
    films: Sequence[ImageFile],
) -> Iterator[tuple[str, dict]]:
    """Reads films and draws their pictures; yields (name, what the journal keeps of it) for each."""
    paths = {film.name: film.path for film in films}

    def describe(found: Reading | Unreadable) -> tuple[str, dict]:
        if isinstance(found, Unreadable):
            return found.name, {"problem": printable(found.reason)}
        kept, unreadable = dicom_identifiers.read(paths[found.name]) if keep_identifiers else ({}, ())
        found = dataclasses.replace(found, flags=found.flags + unreadable)
        row = outputs.row(found, kept)
        outputs.write_overlay(output, found)
        piece: dict[str, Any] = {"row": row, "entry": film_page.entry(found)}
        if dicom_results is not None:
            piece["no_dicom_results"] = dicom_results.write(found, paths[found.name])
        return found.name, piece

    return map_in_order(describe, predictor.readings(films, fixes))


def count_films(count: int) -> str:
    """Returns `1 film` or `1,234 films`."""
    return f"{count:,} film{'' if count == 1 else 's'}"


def _stamp(path: Path) -> list[int] | None:
    """Distinguishes a file from a later one of the same name; None if it cannot be accessed."""
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
