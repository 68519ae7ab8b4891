"""Sex, age and view of the images of an evaluation: `people.csv` next to `probabilities.csv`."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.core import csv_table, sealed

PEOPLE_FILE = "people.csv"
_COLUMNS = ["image", "sex", "age", "view"]


@dataclasses.dataclass(frozen=True)
class People:
    """Who is on N images, in their order.

    Attributes:
      sexes: N of `M`, `F`; anything else is unknown.
      ages: N, in years; NaN if unknown.
      views: N of `PA`, `AP`; anything else is unknown.
    """

    sexes: Sequence[str]
    ages: Sequence[float]
    views: Sequence[str]


def write(folder: Path, images: Sequence[str], people: People) -> None:
    """Writes the table into the folder of an evaluation."""
    with csv_table.writing(folder / PEOPLE_FILE) as table:
        table.row(_COLUMNS)
        for image, sex, age, view in zip(images, people.sexes, people.ages, people.views, strict=True):
            table.row([image, sex, "" if math.isnan(age) else float(age), view])


def read(folder: Path, images: Sequence[str]) -> People | None:
    """Reads the table of an evaluation.

    Args:
      folder: of the evaluation.
      images: N file names; the result is in their order.

    Returns:
      None if there is no table: earlier versions wrote none.

    Raises:
      DamagedError: for a table without one of its columns or of the images, or with an age that is no number.
    """
    path = folder / PEOPLE_FILE
    if not path.is_file():
        return None
    try:
        columns, records = csv_table.records(path)
        if absent := [name for name in _COLUMNS if name not in columns]:
            raise ValueError(f"{path}: no column {', '.join(absent)}")
        rows = {row["image"]: row for _, row in records}
        if absent := [image for image in images if image not in rows]:
            raise ValueError(f"{path}: {len(absent)} images are missing, such as {', '.join(absent[:3])}")
        mine = [rows[image] for image in images]
        ages = [float(row["age"] or "nan") for row in mine]
    except ValueError as error:
        raise sealed.DamagedError(f"{error}; evaluate again") from error
    return People([row["sex"] or "" for row in mine], ages, [row["view"] or "" for row in mine])
