"""The files that `predict` leaves: what each holds, and how they are assembled from the journal. No JAX.

predictions.csv     one line per film; provenance.json says what its columns mean.
predictions.jsonl   the same, one JSON object per film, with the thresholds and the boxes of the heatmaps.
boxes.csv           one line per box. film, finding, threshold (60 or 180 of the heatmap's 0 to 255), left, top, right,
                    bottom; of the findings called positive and of the most probable one (Wang et al., CVPR 2017, 5.2).
errors.csv          one line per file that could not be read, or place without films: film, problem. Only if there is
                    one.
left_out.csv        one line per file or folder that was skipped (hidden, reached twice, not a radiograph): path,
                    reason. Only if there is one.
overlays/           one picture per film: the heatmap of its most probable finding, and the lung box. Named like the
                    film, shortened if a file system would not take the name.
index.html          all films, every heatmap; of over 500 films the others in index_2.html and so on, linked.
provenance.json     networks, data, thresholds, software, counts, columns of predictions.csv.

In the .csv files a text that a spreadsheet would run (it begins with =, +, - or @) has ' before it (`csv_table`).
"""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from sdfn_jax.core import csv_table
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.inference import film_page, overlay
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.radiographs.dicom_identifiers import KEPT
from sdfn_jax.radiographs.findings import FINDINGS

PREDICTIONS, LINES, BOXES, ERRORS = "predictions.csv", "predictions.jsonl", "boxes.csv", "errors.csv"
LEFT_OUT = "left_out.csv"
PAGE, PROVENANCE, OVERLAYS = "index", "provenance.json", "overlays"
FILMS_A_PAGE = 500
# Bytes of a film's name that its picture keeps: within the 255 that a file system takes, and as in version 0.1.0.
_LONGEST_NAME = 242
_EDGES = ("left", "top", "right", "bottom")
_EACH = "_X"  # at the end of a column's name: one for each finding


def _lung(row: dict, edge: int) -> int | str:
    return row["lung_box"][edge] if row["lung_box"] else ""


def _decision(row: dict, finding: str, what: str) -> float | int | str:
    point = row["decisions"].get(finding)
    return "" if point is None else int(point[what]) if what == "positive" else point[what]


def _calibrated(row: dict, finding: str) -> float | str:
    value = row["calibrated"][finding]
    return "" if value is None else value


def _identifier(name: str) -> Callable[[dict], str]:
    return lambda row: row.get(name, "")


# The columns of predictions.csv, in order: name, meaning, value from a `row`. `_X` stands for each finding, in their
# order; identifiers are columns only with --keep_identifiers.
PREDICTION_COLUMNS: tuple[tuple[str, str, Callable[..., object]], ...] = (
    ("film", "its path below the folder that was given, or its file's name", lambda row: row["film"]),
    ("width", "of the film, in pixels", lambda row: row["width"]),
    ("height", "of the film, in pixels", lambda row: row["height"]),
    ("lung_left", "first column of the lung box; empty without a lung region generator", lambda row: _lung(row, 0)),
    ("lung_top", "first row of the lung box", lambda row: _lung(row, 1)),
    ("lung_right", "the column after its last one", lambda row: _lung(row, 2)),
    ("lung_bottom", "the row after its last one", lambda row: _lung(row, 3)),
    ("rule", "rules of B.2.2 that fired, joined by +", lambda row: row["rule"]),
    ("flags", "what looks wrong with the film, joined by +", lambda row: "+".join(row["flags"])),
    ("fixes", "corrections asked for and applied, joined by +", lambda row: "+".join(row["fixes"])),
    ("top", "the most probable finding", lambda row: row["top"]),
    ("overlay", "the film's picture", lambda row: row["overlay"]),
    *(
        (name, "of the DICOM header, empty if it has none; only with --keep_identifiers", _identifier(name))
        for name in KEPT
    ),
    ("probability_X", "0 to 1", lambda row, finding: row["probabilities"][finding]),
    ("calibrated_X", "0 to 1; empty if not calibrated", _calibrated),
    (
        "positive_X",
        "1 or 0 at the operating point; empty if there is none",
        functools.partial(_decision, what="positive"),
    ),
    ("sensitivity_X", "of that point, on validation", functools.partial(_decision, what="sensitivity")),
    ("specificity_X", "of that point, on validation", functools.partial(_decision, what="specificity")),
    ("undecided_X", "why there is no operating point", lambda row, finding: row["undecided"].get(finding, "")),
)


def row(reading: Reading, identifiers: Mapping[str, str]) -> dict:
    """Returns a reading's line of `predictions.jsonl`: `Reading.to_dict`, its picture and identifiers."""
    return reading.to_dict() | {"overlay": overlay_path(reading.name)} | dict(identifiers)


def overlay_path(film: str) -> str:
    """Returns the name of a film's picture within the output folder, different for every film."""
    path = PurePosixPath(film)
    name = os.fsencode(path.name)
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name).hexdigest()[:16]
        path = path.with_name(f"{name[: _LONGEST_NAME - 17].decode(errors='ignore')}-{digest}")
    return f"{OVERLAYS}/{path}.png"


def write_overlay(folder: Path, reading: Reading) -> None:
    """Draws a reading's most probable finding in the output folder."""
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
      problems: (film or place, problem) of what was not read.
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
        chosen = names[start : start + FILMS_A_PAGE]
        pager = film_page.Pager(tuple(each.name for each in pages), number, start + 1, len(chosen), len(names))
        film_page.write(page, provenance, (piece(name)["entry"] for name in chosen), pager)
    rows, columns = (piece(name)["row"] for name in names), _columns(keep_identifiers)
    with (
        csv_table.writing(folder / PREDICTIONS) as table,
        appears_when_complete(folder / LINES) as lines,
        csv_table.writing(folder / BOXES) as boxes,
        lines.open("w", encoding="utf-8") as lines_file,
    ):
        table.row(columns)
        boxes.row(("film", "finding", "threshold", *_EDGES))
        for each in rows:
            table.row([value(each) for value in columns.values()])
            lines_file.write(json.dumps(each) + "\n")
            boxes.rows(_box_rows(each))
    written = [*pages, folder / OVERLAYS, folder / PREDICTIONS, folder / LINES, folder / BOXES]
    (folder / ERRORS).unlink(missing_ok=True)
    if problems:
        written.append(folder / ERRORS)
        with csv_table.writing(written[-1]) as table:
            table.rows([("film", "problem"), *problems])
    written.append(folder / PROVENANCE)
    with appears_when_complete(written[-1]) as path:
        meanings = {name: meaning for name, meaning, _ in PREDICTION_COLUMNS}
        text = json.dumps(dataclasses.asdict(provenance) | record | {"columns": meanings}, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
    return written


def _columns(keep_identifiers: bool) -> dict[str, Callable[[dict], object]]:
    """Returns {column: function from a `row` to its value}, in the table's order."""
    columns: dict[str, Callable[[dict], object]] = {}
    for name, _, value in PREDICTION_COLUMNS:
        if name in KEPT and not keep_identifiers:
            continue
        if name.endswith(_EACH):
            columns |= {
                name.removesuffix(_EACH) + f"_{finding}": functools.partial(value, finding=finding)
                for finding in FINDINGS
            }
        else:
            columns[name] = value
    return columns


def _box_rows(each: dict) -> Iterator[tuple]:
    for finding, by_threshold in each["boxes"].items():
        for threshold, boxes in by_threshold.items():
            yield from ((each["film"], finding, threshold, *box) for box in boxes)
