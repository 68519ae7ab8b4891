"""The files that `predict` leaves: what each holds, and how they are assembled from the journal. No JAX.

predictions.csv     a line a film. film, width, height (pixels); lung_left, lung_top, lung_right, lung_bottom (pixels of
                    the film, half-open; empty without a lung region generator), rule (B.2.2, joined by +), flags and
                    fixes (joined by +), top (the most probable finding), overlay (its picture); with --keep_identifiers
                    PatientID, StudyInstanceUID, SOPInstanceUID; then for each finding, in the paper's order:
                    probability_X (0 to 1), then calibrated_X (empty where not calibrated), then positive_X (1 or 0 at
                    the operating point; empty where there is none), then sensitivity_X and specificity_X of that point
                    on the validation split it was chosen on, then undecided_X (why there is no operating point).
predictions.jsonl   the same, a JSON object a film, with the thresholds and the boxes of the heatmaps.
boxes.csv           a line a box. film, finding, threshold (60 or 180 of the heatmap's 0 to 255), left, top, right,
                    bottom; of the findings called positive and of the most probable one (Wang et al., CVPR 2017, 5.2).
errors.csv          a line a file that could not be read, or a place without films: film, problem. Only where there is
                    one.
left_out.csv        a line a file or folder that was passed over (hidden, reached twice, no radiograph): path, reason.
                    Only where there is one.
overlays/           a picture a film: the heatmap of its most probable finding, the lung box. Under the film's name,
                    cut where a file system would not take it.
index.html          all films, every heatmap; of over 500 films the others in index_2.html and so on, linked.
provenance.json     networks, data, thresholds, software, counts.

In the .csv files a text that a spreadsheet would run (it begins with =, +, - or @) has ' before it (`csv_table`).
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from sdfn_jax.core import csv_table
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.heatmaps import cam, localization
from sdfn_jax.inference import film_page, overlay
from sdfn_jax.inference.prediction import Provenance, Reading
from sdfn_jax.radiographs.dicom_identifiers import KEPT
from sdfn_jax.radiographs.findings import FINDINGS

PREDICTIONS, LINES, BOXES, ERRORS = "predictions.csv", "predictions.jsonl", "boxes.csv", "errors.csv"
LEFT_OUT = "left_out.csv"
PAGE, PROVENANCE, OVERLAYS = "index", "provenance.json", "overlays"
FILMS_A_PAGE = 500
# Bytes of a name that a file system takes, less what a file is called while it is written (`appears_when_complete`).
_LONGEST_NAME = 255 - len("..writing.png")
_EDGES = ("left", "top", "right", "bottom")


def row(reading: Reading, provenance: Provenance, identifiers: dict[str, str]) -> dict:
    """Returns what `predictions.jsonl` holds of a reading."""
    height, width = reading.radiograph.shape
    top = FINDINGS[int(np.argmax(reading.probabilities))]
    probabilities = dict(zip(FINDINGS, reading.probabilities.tolist(), strict=True))
    decisions = {
        name: {"positive": probabilities[name] >= point.probability, "threshold": point.probability}
        | {"sensitivity": point.sensitivity, "specificity": point.specificity}
        for name, point in provenance.thresholds.items()
    }
    shown = [name for name in FINDINGS if name == top or decisions.get(name, {}).get("positive")]
    return {
        "film": reading.name,
        **identifiers,
        "width": width,
        "height": height,
        "lung_box": None if reading.lung_box is None else list(map(int, reading.lung_box)),
        "rule": reading.rule,
        "flags": list(reading.flags),
        "fixes": list(reading.fixes),
        "top": top,
        "overlay": overlay_path(reading.name),
        "probabilities": probabilities,
        "calibrated": {
            name: None if math.isnan(value) else value
            for name, value in zip(FINDINGS, reading.calibrated.tolist(), strict=True)
        },
        "decisions": decisions,
        "undecided": dict(provenance.undecided),
        "boxes": {name: _boxes(reading, FINDINGS.index(name)) for name in shown},
    }


def overlay_path(film: str) -> str:
    """Returns the name of a film's picture within the output folder, another for every film."""
    path = PurePosixPath(film)
    name = os.fsencode(path.name)
    if len(name) > _LONGEST_NAME:
        digest = hashlib.sha256(name).hexdigest()[:16]
        path = path.with_name(f"{name[: _LONGEST_NAME - 17].decode(errors='ignore')}-{digest}")
    return f"{OVERLAYS}/{path}.png"


def write_overlay(folder: Path, reading: Reading, top: str, provenance: Provenance) -> None:
    """Draws a reading's picture in the output folder."""
    overlay.write(folder / overlay_path(reading.name), reading, top, drawings=bool(provenance.drawings))


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
      problems: (film or place, what is wrong with it) of what was not read.
      piece: {`row`: from `row`, `entry`: from `film_page.entry`} of a film.
      provenance: of all of them.
      record: what `provenance.json` says beside it.
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
    rows = (piece(name)["row"] for name in names)
    with (
        csv_table.writing(folder / PREDICTIONS) as table,
        appears_when_complete(folder / LINES) as lines,
        csv_table.writing(folder / BOXES) as boxes,
        lines.open("w", encoding="utf-8") as lines_file,
    ):
        table.row(_columns(keep_identifiers))
        boxes.row(("film", "finding", "threshold", *_EDGES))
        for each in rows:
            table.row(_flat(each, keep_identifiers))
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
        text = json.dumps(dataclasses.asdict(provenance) | record, indent=2)
        path.write_text(text + "\n", encoding="utf-8")
    return written


def _columns(keep_identifiers: bool) -> list[str]:
    kinds = ("probability", "calibrated", "positive", "sensitivity", "specificity", "undecided")
    return [
        *("film", "width", "height", *(f"lung_{edge}" for edge in _EDGES), "rule", "flags", "fixes", "top", "overlay"),
        *(KEPT if keep_identifiers else ()),
        *(f"{kind}_{name}" for kind in kinds for name in FINDINGS),
    ]


def _flat(each: dict, keep_identifiers: bool) -> list:
    decisions = [each["decisions"].get(name, {}) for name in FINDINGS]
    return [
        *(each[name] for name in ("film", "width", "height")),
        *(each["lung_box"] or [""] * len(_EDGES)),
        *(each["rule"], "+".join(each["flags"]), "+".join(each["fixes"]), each["top"], each["overlay"]),
        *((each.get(name, "") for name in KEPT) if keep_identifiers else ()),
        *each["probabilities"].values(),
        *("" if value is None else value for value in each["calibrated"].values()),
        *(int(point["positive"]) if point else "" for point in decisions),
        *(point.get(share, "") for share in ("sensitivity", "specificity") for point in decisions),
        *(each["undecided"].get(name, "") for name in FINDINGS),
    ]


def _box_rows(each: dict) -> Iterator[tuple]:
    for finding, by_threshold in each["boxes"].items():
        for threshold, boxes in by_threshold.items():
            yield from ((each["film"], finding, threshold, *box) for box in boxes)


def _boxes(reading: Reading, finding: int) -> dict[str, list[list[int]]]:
    """Returns {threshold: boxes} of a heatmap, (left, top, right, bottom) in the film's pixels."""
    maps = {branch: each[..., finding] for branch, each in reading.maps.items()}
    heatmap = cam.rescale(cam.on_radiograph(maps, reading.lung_box, reading.radiograph.shape))
    return {
        str(threshold): localization.find_boxes(heatmap, threshold).astype(int).tolist()
        for threshold in localization.THRESHOLDS
    }
