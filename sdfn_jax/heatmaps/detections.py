"""`detections.csv` and `localization.json`: the boxes a method drew, and where they come from. No JAX."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import csv_table, sealed
from sdfn_jax.core.files import file_digest
from sdfn_jax.heatmaps.localization import THRESHOLDS, FindingBoxes
from sdfn_jax.metrics.predictions import patient_array

DETECTIONS_FILE = "detections.csv"
ORIGIN_FILE = "localization.json"
# kind: `reference`, or the threshold that drew the box; pointing is in the reference rows.
_COLUMNS = ("image", "patient", "finding", "height", "width", "kind", "left", "top", "right", "bottom", "pointing")
_REFERENCE = "reference"
_OLD_OUTSIDE = "zero"  # of `cam.OUTSIDE`: the one rule there was before it was recorded
_ORIGIN = {"method": sealed.TEXT, "detections_sha256": sealed.TEXT}


def write(folder: str | Path, cases: Sequence[FindingBoxes], origin: dict) -> None:
    """Writes both files, each complete or not at all.

    Args:
      folder: where they go.
      cases: at least one.
      origin: `method`, `outside` (of `cam.OUTSIDE`), and whatever else a reader must know (checkpoint, data version,
        whether synthetic).
    """
    folder = Path(folder)
    with csv_table.writing(folder / DETECTIONS_FILE) as table:
        table.row(_COLUMNS)
        for case in cases:
            named = (case.image, case.patient, case.finding, *case.size)
            for box in case.references:
                table.row([*named, _REFERENCE, *map(float, box), case.pointing])
            for threshold, boxes in case.detections.items():
                for box in boxes:
                    table.row([*named, threshold, *map(float, box), ""])
    record = origin | {
        "images": len({case.image for case in cases}),
        "reference_boxes": sum(len(case.references) for case in cases),
        "detections_sha256": file_digest(folder / DETECTIONS_FILE),
    }
    sealed.write(folder / ORIGIN_FILE, record)


def read(folder: str | Path) -> tuple[list[FindingBoxes], dict]:
    """Reads what `write` wrote: the cases and their origin.

    Raises:
      DamagedError: naming the file, and the row or key, for an invalid table or record, or two that do not belong
        together.
      OSError: for a missing file.
    """
    folder = Path(folder)
    path = folder / DETECTIONS_FILE
    origin = sealed.read(folder / ORIGIN_FILE, _ORIGIN, "the record of a localization", "localize again")
    if origin["detections_sha256"] != file_digest(path):
        raise sealed.DamagedError(f"{path}: not the file that {ORIGIN_FILE} next to it describes; localize again")
    origin = {"outside": _OLD_OUTSIDE} | origin
    found: dict[tuple, dict] = {}
    for number, row in _rows(path):
        try:
            key = (row["image"], _patient(row["patient"]), row["finding"])
            case = found.setdefault(
                key,
                {"size": (int(row["height"]), int(row["width"])), _REFERENCE: [], "pointing": None}
                | {str(each): [] for each in THRESHOLDS},
            )
            case[row["kind"]].append([_number(row[edge]) for edge in ("left", "top", "right", "bottom")])
            if row["kind"] == _REFERENCE:
                case["pointing"] = _number(row["pointing"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise sealed.DamagedError(f"{path}, row {number}: {error}; localize again") from error
    cases = []
    for key, case in found.items():
        if not case[_REFERENCE]:
            raise sealed.DamagedError(f"{path}: {key[0]} has no reference box of {key[2]}; localize again")
        boxes = {each: np.array(case[str(each)], float).reshape(-1, 4) for each in THRESHOLDS}
        cases.append(FindingBoxes(*key, case["size"], np.array(case[_REFERENCE]), boxes, case["pointing"]))
    return cases, origin


def _patient(text: str) -> int | str:
    return patient_array([text]).tolist()[0]


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the number and the fields of each row."""
    try:
        columns, records = csv_table.records(path)
    except ValueError as error:
        raise sealed.DamagedError(f"{error}; localize again") from error
    if tuple(columns) != _COLUMNS:
        raise sealed.DamagedError(f"{path}: columns {columns}; expected {', '.join(_COLUMNS)}; localize again")
    yield from records


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a number")
    return value
