"""Readers of the official ChestX-ray14 tables: labels (2017 and v2020), reference boxes, split lists."""

import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sdfn_jax import findings
from sdfn_jax.errors import UserError
from tfds_builders.base import Faults

LABEL_TABLES = {"2017": "Data_Entry_2017.csv", "v2020": "Data_Entry_2017_v2020.csv"}
BOX_LIST = "BBox_List_2017.csv"
TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"

# The headers hold unquoted commas, so one official column name is several names of the CSV file.
_ENTRY_COLUMNS = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width",
    "Height]",
)
_BOX_COLUMNS = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
_AGE_WITH_UNIT = re.compile(r"(\d+)([YMD])")
_YEARS = {"Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the label table.

    Attributes:
      labels: (14,) uint8 of 0 and 1, in the order of `findings.FINDINGS`.
      follow_up: number of the patient's radiograph, from 0.
      patient: number of the patient.
      age: in years, as the table says (2017 has ages up to 414).
      sex: `M` or `F`.
      view_position: `PA` or `AP`.
      original_size: (height, width) of the radiograph before NIH reduced it.
    """

    labels: np.ndarray
    follow_up: int
    patient: int
    age: float
    sex: str
    view_position: str
    original_size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class ReferenceBox:
    """One row of the box list.

    Attributes:
      finding: place in `findings.FINDINGS`.
      box: (left, top, right, bottom) in pixels of the image.
      source: file and row, for messages.
    """

    finding: int
    box: tuple[float, float, float, float]
    source: str


def read_entries(path: Path, label_version: str, faults: Faults) -> dict[str, Entry]:
    """Reads a label table: {file name of the image: its entry}, in the table's order.

    A bad row (unknown finding, no number, second row for an image) goes to `faults`.

    Raises:
      UserError: for a table or column that is not there, or a table of the other version.
    """
    entries = {}
    for row_number, row in _read_rows(path, _ENTRY_COLUMNS, faults):
        name = row["Image Index"]
        _check_version(path, row_number, row["Patient Age"], label_version)
        try:
            if name in entries:
                raise ValueError(f"a second row for {name}")
            entries[name] = _parse_entry(row)
        except ValueError as error:
            faults.report(name, f"{path}, row {row_number}: {error}")
    return entries


def read_boxes(path: Path, entries: dict[str, Entry], faults: Faults) -> dict[str, list[ReferenceBox]]:
    """Reads the box list: {file name of the image: its boxes}.

    A bad row (image not in the label table, unknown finding, no number, no extent, the same row twice) goes to
    `faults`.

    Raises:
      UserError: for a list or column that is not there.
    """
    boxes = {}
    for row_number, row in _read_rows(path, _BOX_COLUMNS, faults):
        name = row["Image Index"]
        source = f"{path}, row {row_number}"
        try:
            if name not in entries:
                raise ValueError(f"{name} is not in the label table")
            left, top, width, height = (_number(row, column, float) for column in ("Bbox [x", "y", "w", "h]"))
            if not (width > 0 and height > 0):
                raise ValueError(f"a box {width:g} wide and {height:g} high")
            box = ReferenceBox(
                findings.finding_index(row["Finding Label"]), (left, top, left + width, top + height), source
            )
            if any((box.finding, box.box) == (other.finding, other.box) for other in boxes.get(name, ())):
                raise ValueError(f"a second row for the same box of {name}")
            boxes.setdefault(name, []).append(box)
        except ValueError as error:
            faults.report(name, f"{source}: {error}")
    return boxes


def read_lists(folder: Path, entries: dict[str, Entry]) -> tuple[set[str], set[str]]:
    """Reads the official lists: (images of train_val, images of test).

    Raises:
      UserError: for a list that is not there, or a patient on both sides.
    """
    train_val, test = (_read_list(folder / name) for name in (TRAIN_VAL_LIST, TEST_LIST))
    trained = {entries[name].patient: name for name in sorted(train_val & entries.keys())}
    for name in sorted(test & entries.keys()):
        patient = entries[name].patient
        if patient in trained:
            raise UserError(
                f"{folder}: patient {patient} is on both sides: {trained[patient]} in {TRAIN_VAL_LIST}, {name} in "
                f"{TEST_LIST}; use the official lists"
            )
    return train_val, test


def _read_rows(path: Path, columns: Sequence[str], faults: Faults) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (number of the line, {column: text})."""
    if not path.is_file():
        raise UserError(f"{path} is not there; put the official table of this name into the folder")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        absent = [column for column in columns if column not in header]
        if absent:
            raise UserError(
                f"{path}: no column {absent[0]!r} in its first row; the official table has {','.join(columns)}"
            )
        places = {column: header.index(column) for column in columns}
        for row in reader:
            if not any(row):
                continue
            if len(row) <= max(places.values()):
                faults.report(row[0], f"{path}, row {reader.line_num}: {len(row)} fields, where the header has more")
                continue
            yield reader.line_num, {column: row[place].strip() for column, place in places.items()}


def _read_list(path: Path) -> set[str]:
    if not path.is_file():
        raise UserError(f"{path} is not there; put the official list of this name into the folder")
    return set(path.read_text(encoding="utf-8-sig").split())


def _check_version(path: Path, row_number: int, age: str, label_version: str) -> None:
    """Refuses a table under the other version's name: the labels of 181 images differ."""
    found = "v2020" if age.isdigit() else "2017" if _AGE_WITH_UNIT.fullmatch(age) else label_version
    if found != label_version:
        raise UserError(
            f"{path}, row {row_number}: age {age!r} is written as in {LABEL_TABLES[found]}, the table of version "
            f"{found}; give the file that name and use --label_version={found}"
        )


def _parse_entry(row: dict[str, str]) -> Entry:
    age = row["Patient Age"]
    with_unit = _AGE_WITH_UNIT.fullmatch(age)
    if not with_unit and not age.isdigit():
        raise ValueError(f"Patient Age is {age!r}, not a number of years")
    return Entry(
        labels=findings.parse_labels(row["Finding Labels"]),
        follow_up=_number(row, "Follow-up #", int),
        patient=_number(row, "Patient ID", int),
        age=int(with_unit[1]) * _YEARS[with_unit[2]] if with_unit else float(age),
        sex=row["Patient Gender"],
        view_position=row["View Position"],
        original_size=(_number(row, "Height]", int), _number(row, "OriginalImage[Width", int)),
    )


def _number(row: dict[str, str], column: str, kind: type) -> int | float:
    try:
        return kind(row[column])
    except ValueError:
        raise ValueError(f"{column} is {row[column]!r}, not a number") from None
