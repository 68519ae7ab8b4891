"""Radiographs -> the box table (B.2.2), by a trained lung region generator; an interrupted run resumes."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sdfn_jax.core import parallel, progress, sources
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import appears_when_complete, make_folder
from sdfn_jax.core.journal import Journal
from sdfn_jax.core.parallel import Engine, in_batches
from sdfn_jax.core.shards import UNDIVIDED, Shard, ShardedWork
from sdfn_jax.core.terminal import printable
from sdfn_jax.lungs import box_record, box_table
from sdfn_jax.lungs.box_table import BoxRow
from sdfn_jax.lungs.finder import LungFinder, Lungs
from sdfn_jax.lungs.lung_boxes import PostProcessing
from sdfn_jax.lungs.segmenter import Segmenter
from sdfn_jax.radiographs import find, reader
from sdfn_jax.radiographs.opening import ImageFile


def find_radiographs(folder: str | Path) -> find.FoundFilms:
    """Finds every radiograph below a folder (`find.below`), told apart by file name alone, and sorted by it.

    Raises:
      UserError: if there is no such folder, no radiograph in it, or two of the same name and different content, which
        the box table, and the data sets that read it, could not tell apart.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the radiographs")
    found = find.below(folder)
    films, different, copies = find.by_name(found.films)
    if different:
        first, second = different[0]
        raise UserError(
            f"two radiographs named {first.name}: {first} and {second}; the box table tells them apart by name alone. "
            "Give a folder that holds each once (and no masks)."
        )
    left_out = [*found.left_out, *copies]
    if not films:
        raise UserError(
            f"no radiograph in {folder.resolve()} or below it; looked for files ending in {', '.join(reader.SUFFIXES)} "
            f"and for files that are DICOM by their content\n{find.describe(left_out)}".rstrip()
        )
    return find.FoundFilms(list(films.values()), left_out)


def report_left_out(found: find.FoundFilms, output: str | Path) -> None:
    """Prints what a box table leaves out of a folder, and lists it in `<its stem>_left_out.csv` next to the table."""
    output = Path(output)
    find.report(found.left_out, output.with_name(f"{output.stem}_left_out.csv"))


def make_box_table(
    segmenter: Segmenter,
    radiographs: Sequence[Path],
    output: str | Path,
    postprocessing: PostProcessing,
    skip_bad_files: bool = False,
    masks: Path | None = None,
    names: Sequence[str] | None = None,
    shard: Shard = UNDIVIDED,
    engine: Engine = parallel.here,
) -> list[BoxRow] | None:
    """Writes the lung box of every radiograph to a table (B.2.2); resumes an interrupted call.

    Rows are collected in `<output>.partial`, which survives being killed at any moment; the table itself appears at the
    end, and is the same however often the work was interrupted, and however many shards it had.

    Args:
      segmenter: the lung region generator.
      radiographs: files; the table is in their order.
      output: the table. What could not be read is listed next to it, in `<output's stem>_skipped.txt`, and what it was
        made from is recorded (`box_record`).
      postprocessing: the numbers of B.2.2.
      skip_bad_files: leave out, and list, files that cannot be read, instead of stopping at the first.
      masks: a folder for a PNG of each film's lungs, 0 and 255, as large as the film; None writes none.
      names: what the table calls the films, each once; their file names if None.
      shard: the part of the radiographs that this process does.
      engine: what computes.

    Returns:
      the rows; None if other shards are not finished.

    Raises:
      UserError: for a file that cannot be read, no file that can, a partial table begun with another checkpoint or
        other post-processing, or while another command makes the same table.
    """
    output = Path(output)
    films = [ImageFile(*each) for each in zip(names or [path.name for path in radiographs], radiographs, strict=True)]
    made_by: dict[str, Any] = {"checkpoint": segmenter.digest, "postprocessing": dataclasses.asdict(postprocessing)}
    if masks is not None:
        made_by["masks"] = True
        _check_mask_names(radiographs)
        make_folder(masks)
    paths = {film.name: film.path for film in films}

    def is_current(name: str, piece: dict) -> bool:
        source = piece.get("source")
        return "problem" in piece if source is None else sources.Source(**source).is_still(paths[name])

    with ShardedWork(output.with_name(output.name + ".partial"), made_by, shard) as work:
        mine = work.mine(films)
        rest = _missing(work.journal, mine, segmenter.batch_size, is_current)
        found = engine(
            functools.partial(_pieces, LungFinder(segmenter, postprocessing), masks), rest, segmenter.batch_size
        )
        with progress.bar(what="lung boxes", unit="image", total=len(mine), initial=len(mine) - len(rest)) as bar:
            for name, piece in found:
                _stop_at_problem(piece, skip_bad_files)
                work.journal.write(name, piece)
                bar.update()
        pieces = work.all_pieces(paths, is_current)
        if pieces is None:
            return None
        rows = _write(pieces, paths, output, segmenter.digest, postprocessing, skip_bad_files)
        work.delete()
    return rows


def _missing(
    journal: Journal, films: Sequence[ImageFile], batch_size: int, is_current: Callable[[str, dict], bool]
) -> list[ImageFile]:
    """Returns the films that no earlier call has boxed: none of a film replaced since, none that could not be read."""
    done = set()
    for film in films:
        if film.name in journal and "problem" not in (piece := journal[film.name]) and is_current(film.name, piece):
            done.add(film.name)
    # Whole batches, as an uninterrupted run forms them: a film's neighbours in its batch are always the same.
    batches = [batch for batch in in_batches(films, batch_size) if any(film.name not in done for film in batch)]
    missing = list(itertools.chain.from_iterable(batches))
    if done:
        print(f"resuming: {len(films) - len(missing):,} of {len(films):,} radiographs are done", flush=True)
    return missing


def _pieces(finder: LungFinder, masks: Path | None, films: Sequence[ImageFile]) -> Iterator[tuple[str, dict]]:
    """Finds the lungs of films and writes their masks.

    Yields:
      (name, what the journal keeps of it) for each film: its row, or `problem`; and `source`, the file as it was read,
      None for one that cannot be opened.
    """
    looked_at: dict[Path, sources.Source] = {}
    images = (_RecordedFile(film.name, film.path, looked_at) for film in films)
    for film, found in zip(films, finder.stream(images), strict=True):
        if isinstance(found, Lungs):
            if masks is not None:
                _write_mask(found, masks / f"{film.path.stem}.png")
            piece = dataclasses.asdict(_row(found, finder.segmenter.digest))
        else:
            piece = {"problem": found.reason}
        source = looked_at.pop(film.path, None)
        yield film.name, {**piece, "source": source and dataclasses.asdict(source)}


def _stop_at_problem(piece: dict, skip_bad_files: bool) -> None:
    if "problem" in piece and not skip_bad_files:
        raise UserError(
            f"{piece['problem']}. Repair or remove the file, or leave such files out with --skip_bad_files "
            "(sdfn_jax.main: --config.data.skip_bad_files=True); the same command then resumes from here."
        )


def _write(
    pieces: Mapping[str, dict],
    names: Iterable[str],
    output: Path,
    digest: str,
    postprocessing: PostProcessing,
    skip_bad_files: bool,
) -> list[BoxRow]:
    """Writes the table, and what is next to it; returns its rows."""
    rows, problems, films = [], [], {}
    for name in names:
        piece = dict(pieces[name])
        _stop_at_problem(piece, skip_bad_files)
        if (source := piece.pop("source")) is not None:
            films[name] = sources.Source(**source)
        if "problem" in piece:
            problems.append(piece["problem"])
        else:
            rows.append(BoxRow(**piece))
    if not rows:
        raise UserError(f"none of the {len(problems):,} radiographs can be read; the first: {problems[0]}")
    _list_problems(output.with_name(f"{output.stem}_skipped.txt"), problems)
    box_table.write_box_table(output, rows)
    box_record.write(output, digest, postprocessing, films)
    return rows


@dataclasses.dataclass(frozen=True)
class _RecordedFile(ImageFile):
    """A file of which it is recorded what it was when it was read."""

    looked_at: dict[Path, sources.Source]

    def load(self) -> tuple[np.ndarray, tuple[str, ...]]:
        self.looked_at[self.path] = sources.look_at(self.path)
        return reader.read_radiograph(self.path), ()


def _row(lungs: Lungs, digest: str) -> BoxRow:
    height, width = lungs.size
    # Four decimals, as the table keeps: a row is the same whether it comes from here or from a partial table.
    area, confidence = round(lungs.region.lung_area, 4), round(lungs.confidence, 4)
    return BoxRow(
        lungs.name, width, height, *lungs.box, lungs.rule, area, digest, confidence, flags="+".join(lungs.flags)
    )


def _check_mask_names(radiographs: Sequence[Path]) -> None:
    by_stem: dict[str, Path] = {}
    for path in radiographs:
        if (other := by_stem.setdefault(path.stem, path)) is not path:
            raise UserError(f"{other} and {path} would have one mask, {path.stem}.png; rename one of them")


def _write_mask(lungs: Lungs, path: Path) -> None:
    with appears_when_complete(path) as unfinished:
        Image.fromarray(lungs.mask * np.uint8(255)).save(unfinished, "PNG", compress_level=1)


def _list_problems(path: Path, problems: Sequence[str]) -> None:
    if not problems:
        path.unlink(missing_ok=True)  # of an earlier run
        return
    with appears_when_complete(path) as unfinished:
        unfinished.write_text("".join(f"{printable(problem)}\n" for problem in problems), encoding="utf-8")
    print(f"{len(problems):,} files could not be read and are left out; see {path}")
