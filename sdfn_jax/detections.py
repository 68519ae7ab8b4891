"""`detections.csv` and `localization.json`: the boxes a method drew, and where they come from. No JAX."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.files import appears_when_complete, file_digest
from sdfn_jax.findings import FINDINGS, finding_index
from sdfn_jax.localization import THRESHOLDS, Case

DETECTIONS_FILE = "detections.csv"
ORIGIN_FILE = "localization.json"
# kind: `reference`, or the threshold that drew the box; pointing stands in the reference rows.
_COLUMNS = ("image", "patient", "finding", "height", "width", "kind", "left", "top", "right", "bottom", "pointing")
_REFERENCE = "reference"


def write(folder: str | Path, cases: Sequence[Case], origin: dict) -> None:
    """Writes both files, each complete or not at all.

    Args:
      folder: where they go.
      cases: at least one.
      origin: `method`, and whatever else a reader must know (checkpoint, data version, drawings).
    """
    folder = Path(folder)
    with appears_when_complete(folder / DETECTIONS_FILE) as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for case in cases:
            named = (case.image, case.patient, FINDINGS[case.finding], *case.size)
            for box in case.references:
                writer.writerow([*named, _REFERENCE, *map(float, box), case.pointing])
            for threshold, boxes in case.detections.items():
                for box in boxes:
                    writer.writerow([*named, threshold, *map(float, box), ""])
    record = origin | {
        "images": len({case.image for case in cases}),
        "reference_boxes": sum(len(case.references) for case in cases),
        "detections_sha256": file_digest(folder / DETECTIONS_FILE),
    }
    with appears_when_complete(folder / ORIGIN_FILE) as path:
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def read(folder: str | Path) -> tuple[list[Case], dict]:
    """Reads what `write` wrote: the cases and their origin.

    Raises:
      ValueError: naming the file, and the row, for a table or record that is not one, or two that do not belong
        together.
      OSError: for a missing file.
    """
    folder = Path(folder)
    path = folder / DETECTIONS_FILE
    try:
        origin = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
        digest = origin["detections_sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / ORIGIN_FILE}: not the record of a localisation; localize again") from error
    if digest != file_digest(path):
        raise ValueError(f"{path}: not the file that {ORIGIN_FILE} beside it describes; localize again")
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != _COLUMNS:
            raise ValueError(f"{path}: columns {reader.fieldnames}; expected {', '.join(_COLUMNS)}")
        found: dict[tuple, dict] = {}
        for number, row in enumerate(reader, start=2):
            try:
                key = (row["image"], int(row["patient"]), finding_index(row["finding"]))
                case = found.setdefault(
                    key,
                    {"size": (int(row["height"]), int(row["width"])), _REFERENCE: [], "pointing": None}
                    | {str(each): [] for each in THRESHOLDS},
                )
                case[row["kind"]].append([float(row[edge]) for edge in ("left", "top", "right", "bottom")])
                if row["kind"] == _REFERENCE:
                    case["pointing"] = float(row["pointing"])
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{path}, row {number}: {error}") from error
    cases = []
    for key, case in found.items():
        if not case[_REFERENCE]:
            raise ValueError(f"{path}: {key[0]} has no reference box of {FINDINGS[key[2]]}")
        boxes = {each: np.array(case[str(each)], float).reshape(-1, 4) for each in THRESHOLDS}
        cases.append(Case(*key, case["size"], np.array(case[_REFERENCE]), boxes, case["pointing"]))
    return cases, origin
