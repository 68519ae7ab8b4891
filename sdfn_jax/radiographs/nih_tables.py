"""Readers of the official ChestX-ray14 tables: labels (2017 and v2020), reference boxes, split lists."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from sdfn_jax.core import tables
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.faults import Faults
from sdfn_jax.radiographs import findings, synthetic_dataset

Number = TypeVar("Number", int, float)

LABEL_TABLES = {"2017": "Data_Entry_2017.csv", "v2020": "Data_Entry_2017_v2020.csv"}
BOX_LIST = "BBox_List_2017.csv"
TRAIN_VAL_LIST = "train_val_list.txt"
TEST_LIST = "test_list.txt"

# Column names in the official tables, and in copies. Two official names contain commas: each is several columns.
_SEX, _WIDTH, _HEIGHT = "Patient Gender", "OriginalImage[Width", "Height]"
_ENTRY_COLUMNS = {
    "Image Index": (),
    "Finding Labels": (),
    "Follow-up #": (),
    "Patient ID": (),
    "Patient Age": (),
    _SEX: ("Patient Sex",),  # the v2020 table that NIH distributes today
    "View Position": (),
    _WIDTH: (),
    _HEIGHT: ("OriginalImageHeight",),  # Kaggle's sample
}
_BOX_COLUMNS = {"Image Index": (), "Finding Label": (), "Bbox [x": (), "y": (), "w": (), "h]": ()}
_AGE_WITH_UNIT = re.compile(r"(\d{1,4})([YMD])", re.ASCII)
_YEARS = {"Y": 1.0, "M": 1 / 12, "D": 1 / 365.25}
# Patient numbers and the like are stored in 32 bits.
_LARGEST = 2**31 - 1
# Pixels.
_FARTHEST = 1e6
# All differences between the versions: labels that v2020 has and 2017 lacks. Found by comparing NIH's two tables.
_ADDED_IN_V2020 = Path(__file__).with_name("labels_added_in_v2020.txt")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row of the label table.

    Attributes:
      labels: (14,) uint8 of 0 and 1, in the order of `findings.FINDINGS`.
      follow_up: number of the patient's radiograph, from 0.
      patient: number of the patient.
      age: in years, as in the table (2017 has ages up to 414).
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
      finding: index in `findings.FINDINGS`.
      box: (left, top, right, bottom) in pixels of the image.
      source: file and row, for messages.
    """

    finding: int
    box: tuple[float, float, float, float]
    source: str


def read_entries(path: Path, label_version: str, faults: Faults) -> dict[str, Entry]:
    """Reads a label table: {file name of the image: its entry}, in the table's order.

    A bad row (unknown finding, not a number, second row for an image) is reported to `faults`. The version is
    recognised by the labels that differ, not by how ages are written: Kaggle's 2017 has whole numbers, like v2020.

    Raises:
      UserError: for a missing table or column, a table that cannot be read, or one of the other version.
    """
    entries = {}
    for row_number, row in _read_rows(path, _ENTRY_COLUMNS, faults):
        try:
            name = _image_name(row["Image Index"])
            if name in entries:
                raise ValueError(f"a second row for {name}")
            entries[name] = _parse_entry(row)
        except ValueError as error:
            faults.report(_file_name(row["Image Index"]), f"{path}, row {row_number}: {error}")
    if not entries and not faults.reasons:
        raise UserError(f"{path}: no images, only the header")
    _check_version(path, entries, label_version)
    return entries


def revealing(folder: Path, entries: Mapping[str, Entry]) -> list[str]:
    """Returns the images of a folder's label table that reveal its version: the other labels them differently.

    A table of synthetic radiographs has none, whatever NIH's image of the same name shows.
    """
    if synthetic_dataset.is_synthetic(folder):
        return []
    return [name for name in _added_in_v2020() if name in entries]


def read_boxes(path: Path, entries: dict[str, Entry], faults: Faults) -> dict[str, list[ReferenceBox]]:
    """Reads the box list: {file name of the image: its boxes}.

    A bad row (image not in the label table, unknown finding, not a number, empty box, repeated row) is reported to
    `faults`.

    Raises:
      UserError: for a missing list or column, or a list that cannot be read.
    """
    boxes: dict[str, list[ReferenceBox]] = {}
    for row_number, row in _read_rows(path, _BOX_COLUMNS, faults):
        source = f"{path}, row {row_number}"
        try:
            name = _image_name(row["Image Index"])
            if name not in entries:
                raise ValueError(f"{name} is not in the label table")
            left, top, width, height = (_parse(row, column, _coordinate) for column in ("Bbox [x", "y", "w", "h]"))
            if not (width > 0 and height > 0):
                raise ValueError(f"a box {width:g} wide and {height:g} high")
            box = ReferenceBox(
                findings.finding_index(row["Finding Label"]), (left, top, left + width, top + height), source
            )
            if any((box.finding, box.box) == (other.finding, other.box) for other in boxes.get(name, ())):
                raise ValueError(f"a second row for the same box of {name}")
            boxes.setdefault(name, []).append(box)
        except ValueError as error:
            faults.report(_file_name(row["Image Index"]), f"{source}: {error}")
    return boxes


def read_lists(folder: Path, entries: dict[str, Entry]) -> tuple[set[str], set[str]]:
    """Reads the official lists: (images of train_val, images of test).

    Raises:
      UserError: for a missing list, or a patient in both lists.
    """
    train_val, test = (_read_list(folder / name) for name in (TRAIN_VAL_LIST, TEST_LIST))
    trained = {entries[name].patient: name for name in sorted(train_val & entries.keys())}
    for name in sorted(test & entries.keys()):
        patient = entries[name].patient
        if patient in trained:
            raise UserError(
                f"{folder}: patient {patient} is in both lists: {trained[patient]} in {TRAIN_VAL_LIST}, {name} in "
                f"{TEST_LIST}; use the official lists"
            )
    return train_val, test


def _read_rows(
    path: Path, columns: Mapping[str, Sequence[str]], faults: Faults
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields (number of the row, {column: text})."""
    if not path.is_file():
        raise UserError(f"{path} is missing; put the official table of that name into the folder")
    for row_number, row in tables.read_table(path, columns):
        if missing := [column for column, text in row.items() if text is None]:
            name = _file_name(row["Image Index"] or "")
            faults.report(name, f"{path}, row {row_number}: too short: no {', '.join(missing)}")
        else:
            yield row_number, row


def _read_list(path: Path) -> set[str]:
    """Reads one name per line; anything after it (some copies append labels) is ignored."""
    if not path.is_file():
        raise UserError(f"{path} is missing; put the official list of that name into the folder")
    names = set()
    for row_number, line in enumerate(tables.read_text(path).splitlines(), start=1):
        if first := re.split(r"[\s,;]", line.strip(), maxsplit=1)[0]:
            try:
                names.add(_image_name(first.strip('"')))
            except ValueError as error:
                raise UserError(f"{path}, row {row_number}: {error}") from error
    if not names:
        raise UserError(f"{path}: empty; the official list has the file name of an image on each line")
    return names


def _image_name(text: str) -> str:
    """Returns the file name of an image, without the folders that some copies put before it.

    Raises:
      ValueError: for anything but the name of a PNG file.
    """
    name = _file_name(text)
    if not name.lower().endswith(".png"):
        raise ValueError(f"{tables.shown(text)} is not the file name of an image, such as 00000001_000.png")
    return name


def _file_name(text: str) -> str:
    return re.split(r"[/\\]", text)[-1][:100]


@functools.cache
def _added_in_v2020() -> dict[str, np.ndarray]:
    """Returns {file name: (14,) uint8, 1 for the findings that v2020 has and 2017 has not}, of 181 images."""
    added: dict[str, np.ndarray] = {}
    for line in _ADDED_IN_V2020.read_text(encoding="utf-8").splitlines():
        name, finding = line.split()
        added.setdefault(name, np.zeros(len(findings.FINDINGS), np.uint8))[findings.finding_index(finding)] = 1
    return added


def _check_version(path: Path, entries: Mapping[str, Entry], label_version: str) -> None:
    """Refuses a table of the other version, under whatever name, and a mixture of both.

    Raises:
      UserError: naming an image of each version found.
    """
    found: dict[str, str] = {}
    for name in revealing(path.parent, entries):
        added, labels = _added_in_v2020()[name], entries[name].labels
        if (labels & added).any():
            found.setdefault("v2020", name)
        if (added > labels).any():
            found.setdefault("2017", name)
    if len(found) > 1:
        raise UserError(
            f"{path}: a mixture of both versions: {found['v2020']} has a label that only v2020 has, {found['2017']} "
            "lacks one that v2020 has; use an official table"
        )
    if found and label_version not in found:
        ((version, name),) = found.items()
        raise UserError(
            f"{path}: labels {name} as version {version} does, not as {label_version}; rename the file to "
            f"{LABEL_TABLES[version]} and use --label_version={version}"
        )


def _parse_entry(row: dict[str, str]) -> Entry:
    return Entry(
        labels=findings.parse_labels(row["Finding Labels"]),
        follow_up=_parse(row, "Follow-up #", _count),
        patient=_parse(row, "Patient ID", _count),
        age=_parse(row, "Patient Age", _years),
        sex=row[_SEX],
        view_position=row["View Position"],
        original_size=(_parse(row, _HEIGHT, _count), _parse(row, _WIDTH, _count)),
    )


def _years(text: str) -> float:
    if with_unit := _AGE_WITH_UNIT.fullmatch(text):
        return int(with_unit[1]) * _YEARS[with_unit[2]]
    return float(_count(text))


def _count(text: str) -> int:
    value = tables.whole_number(text)
    if not 0 <= value <= _LARGEST:
        raise ValueError(f"{value}, not a number from 0 to {_LARGEST:,}")
    return value


def _coordinate(text: str) -> float:
    value = tables.number(text)
    if abs(value) > _FARTHEST:
        raise ValueError(f"{value:g}, far outside any image")
    return value


def _parse(row: dict[str, str], column: str, parse: Callable[[str], Number]) -> Number:
    try:
        return parse(row[column])
    except ValueError as error:
        raise ValueError(f"{column} is {error}") from None
