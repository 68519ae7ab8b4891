"""Lung boxes: the table that hands them to the data sets, and the post-processing that makes them from a mask (B.2.2).

NumPy and scikit-image only: the data set builders read the table without JAX.
"""

import csv
import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class BoxRow:
    """One row of `lung_boxes.csv`: the lung region of one radiograph.

    Attributes:
      image: file name of the radiograph.
      width: of the file, in pixels.
      height: of the file, in pixels.
      left: first column of the box, in the file's own pixels.
      top: first row of the box.
      right: the column after the box's last one.
      bottom: the row after the box's last one.
      rule: `none`, or the rules that fired, joined by `+`.
      lung_area: share of the image that the cleaned lung mask covers, 0 to 1; the table keeps four decimals.
      checkpoint: digest of the lung region generator that made the mask.
    """

    image: str
    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    rule: str
    lung_area: float
    checkpoint: str

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom): the region is `image[top:bottom, left:right]`."""
        return self.left, self.top, self.right, self.bottom


COLUMNS = tuple(field.name for field in dataclasses.fields(BoxRow))


def read_box_table(path: str | Path) -> dict[str, BoxRow]:
    """Reads a box table.

    Args:
      path: a CSV file with the columns of `BoxRow`, in any order, and perhaps others.

    Returns:
      {file name of the image: its row}, in the file's order.

    Raises:
      ValueError: naming file and row, for a missing column or value, an image named twice, a text where a number
        belongs, or a box that is empty or not inside its image.
      OSError: for a file that cannot be opened.
    """
    path = Path(path)
    rows = {}
    # utf-8-sig: a table mended by hand in a spreadsheet comes back with a byte order mark.
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{path}: no column {', '.join(missing)}; a box table has {','.join(COLUMNS)}")
        for record in reader:
            try:
                row = _parse_row(record)
            except ValueError as error:
                raise ValueError(f"{path}, row {reader.line_num}: {error}") from error
            if row.image in rows:
                raise ValueError(f"{path}, row {reader.line_num}: a second row for image {row.image}")
            rows[row.image] = row
    return rows


def write_box_table(path: str | Path, rows: Iterable[BoxRow]) -> None:
    """Writes a box table; the file appears only when it is complete."""
    path = Path(path)
    unfinished = path.with_name(path.name + ".writing")
    with unfinished.open("w", newline="", encoding="utf-8") as file:
        file.write(",".join(COLUMNS) + "\n")
        csv.writer(file, lineterminator="\n").writerows(row_values(row) for row in rows)
    os.replace(unfinished, path)


def row_values(row: BoxRow) -> list[str]:
    """Returns a row as the table spells it, in the order of `COLUMNS`."""
    return [f"{value:.4f}" if isinstance(value, float) else str(value) for value in dataclasses.astuple(row)]


def file_digest(path: str | Path) -> str:
    """Returns the SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _parse_row(record: dict[str, str | None]) -> BoxRow:
    values = {}
    for field in dataclasses.fields(BoxRow):
        text = record[field.name]
        if not text:
            raise ValueError(f"no value for {field.name}")
        try:
            values[field.name] = field.type(text)
        except ValueError as error:
            kind = "a whole number" if field.type is int else "a number"
            raise ValueError(f"{field.name} is {text!r}, not {kind}") from error
    row = BoxRow(**values)
    if not (0 <= row.left < row.right <= row.width and 0 <= row.top < row.bottom <= row.height):
        raise ValueError(
            f"box (left, top, right, bottom) = {row.box} of {row.image} is empty or not inside its {row.width} x "
            f"{row.height} image"
        )
    if not 0 <= row.lung_area <= 1:
        raise ValueError(f"lung_area is {row.lung_area}, not a share from 0 to 1")
    return row
