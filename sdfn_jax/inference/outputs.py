"""The files that `predict` leaves: what each holds, and how they are assembled from the journal. No JAX.

predictions.csv     one line per image: the columns of `columns`.
predictions.jsonl   the same, one JSON object per image, with the thresholds and the boxes of the heatmaps.
boxes.csv           one line per box. image, finding, threshold (60 or 180 of the heatmap's 0 to 255), left, top, right,
                    bottom; of the findings called positive and of the most probable one (Wang et al., CVPR 2017, 5.2).
                    Only with a classifier.
errors.csv          one line per file that could not be read, or place without images: image, problem. Only if there is
                    one.
left_out.csv        one line per file or folder that was skipped (hidden, reached twice, not a radiograph): path,
                    reason. Only if there is one.
no_dicom_results.csv
                    one line per film without DICOM results: image, reason. Only if they were asked for and there is
                    one.
overlays/           one picture per image: the heatmap of its most probable finding, and the lung box. Named like the
                    image, shortened if a file system would not take the name.
index.html          all images, every heatmap; of over 500 the others in index_2.html and so on, linked.
provenance.json     what all images have in common: networks, data, thresholds, why findings have none, software,
                    counts, the meaning of each column of predictions.csv.

In the .csv files a text that a spreadsheet would run (it begins with =, +, - or @) has ' before it (`csv_table`).
"""

import contextlib
import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from sdfn_jax.core import csv_table
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.inference import film_page, overlay
from sdfn_jax.inference.columns import columns
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.radiographs.dicom_identifiers import KEPT

PREDICTIONS, LINES, BOXES, ERRORS = "predictions.csv", "predictions.jsonl", "boxes.csv", "errors.csv"
LEFT_OUT = "left_out.csv"
PAGE, PROVENANCE, OVERLAYS = "index", "provenance.json", "overlays"
FILMS_A_PAGE = 500
# Bytes of a film's name that its picture keeps: within the 255 that a file system takes, and as in version 0.1.0.
_LONGEST_NAME = 242
_EDGES = ("left", "top", "right", "bottom")


def row(reading: Reading, identifiers: Mapping[str, str]) -> dict:
    """Returns a reading's line of `predictions.jsonl`: `Reading.to_dict`, its picture and identifiers."""
    return reading.to_dict() | {"overlay": overlay_path(reading.name)} | dict(identifiers)


def overlay_path(image: str) -> str:
    """Returns the name of an image's picture within the output folder, different for every image."""
    path = PurePosixPath(image)
    name = os.fsencode(path.name)
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name).hexdigest()[:16]
        path = path.with_name(f"{name[: _LONGEST_NAME - 17].decode(errors='ignore')}-{digest}")
    return f"{OVERLAYS}/{path}.png"


def write_overlay(folder: Path, reading: Reading) -> None:
    """Draws a reading's most probable finding, or its lungs alone, in the output folder."""
    drawings = bool(reading.provenance.drawings)
    overlay.write(folder / overlay_path(reading.name), reading, reading.top, drawings=drawings)


def assemble(
    folder: Path,
    names: Sequence[str],
    problems: Sequence[tuple[str, str]],
    piece: Callable[[str], dict],
    provenance: Provenance,
    record: dict,
    keep_identifiers: bool,
) -> list[Path]:
    """Writes all tables and pages, each complete or not at all, a film in memory at a time.

    Args:
      folder: the output folder.
      names: of the films that were read, in order.
      problems: (image or place, problem) of what was not read.
      piece: {`row`: from `row`, `entry`: from `film_page.entry`} of a film.
      provenance: of all of them.
      record: what else `provenance.json` says.
      keep_identifiers: whether the rows hold identifiers.

    Returns:
      the files, in the order a reader wants them.
    """
    starts = range(0, max(len(names), 1), FILMS_A_PAGE)
    pages = [
        folder / (f"{PAGE}.html" if start == 0 else f"{PAGE}_{number}.html") for number, start in enumerate(starts, 1)
    ]
    for number, (page, start) in enumerate(zip(pages, starts, strict=True)):
        shown = names[start : start + FILMS_A_PAGE]
        pager = film_page.Pager(tuple(each.name for each in pages), number, start + 1, len(shown), len(names))
        film_page.write(page, provenance, (piece(name)["entry"] for name in shown), pager, problems)
    chosen = columns(provenance, KEPT if keep_identifiers else ())
    with contextlib.ExitStack() as stack:
        table = stack.enter_context(csv_table.writing(folder / PREDICTIONS))
        unfinished = stack.enter_context(appears_when_complete(folder / LINES))
        lines = stack.enter_context(unfinished.open("w", encoding="utf-8"))
        boxes = stack.enter_context(csv_table.writing(folder / BOXES)) if provenance.classifies else None
        table.row(chosen.header)
        if boxes is not None:
            boxes.row(("image", "finding", "threshold", *_EDGES))
        for name in names:
            row = piece(name)["row"]
            table.row(chosen.values(row))
            lines.write(json.dumps(row) + "\n")
            if boxes is not None:
                boxes.rows(_box_rows(row))
    written = [*pages, folder / OVERLAYS, folder / PREDICTIONS, folder / LINES]
    written += [folder / BOXES] * provenance.classifies
    (folder / ERRORS).unlink(missing_ok=True)
    if problems:
        written.append(folder / ERRORS)
        with csv_table.writing(written[-1]) as table:
            table.rows([("image", "problem"), *problems])
    written.append(folder / PROVENANCE)
    with appears_when_complete(written[-1]) as path:
        text = json.dumps(dataclasses.asdict(provenance) | record | {"columns": chosen.meanings}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
    return written


def _box_rows(each: dict) -> Iterator[tuple]:
    for finding, by_threshold in each["boxes"].items():
        for threshold, boxes in by_threshold.items():
            yield from ((each["image"], finding, threshold, *box) for box in boxes)
