"""The box table: a CSV row for each radiograph."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from sdfn_jax.core import csv_table, sealed, tables
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs.lung_boxes import NO_RULE, RULES
from sdfn_jax.metrics import published
from sdfn_jax.radiographs.flags import FLAGS


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
      confidence: the Dice coefficient that the mask is expected to have, 0 to 1 (`doubt.confidence`); the table keeps
        four decimals. None in tables of versions before 0.3 or from elsewhere.
      flags: what looks wrong, names from `flags.FLAGS` joined by `+`; empty for an ordinary film.
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
    confidence: float | None = None
    flags: str = ""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom): the region is `image[top:bottom, left:right]`."""
        return self.left, self.top, self.right, self.bottom


_PARSE = {
    **dict.fromkeys(("width", "height", "left", "top", "right", "bottom"), tables.whole_number),
    **dict.fromkeys(("lung_area", "confidence"), tables.number),
}
# Columns that a table may lack, and all columns.
_LATER = ("confidence", "flags")
BOX_COLUMNS = tuple(field.name for field in dataclasses.fields(BoxRow))
# The last column: a digest of the row's values. It does not match a row that was edited or damaged; a message says so.
CHECK = "check"


def read_box_table(path: str | Path) -> dict[str, BoxRow]:
    """Reads a box table.

    A table that was edited by hand, or has no checks, is read as it is. A message names the rows that are not as they
    were written, so that damage does not pass for an edit.

    Args:
      path: a table (`tables.read_table`) with the columns of `BoxRow`, in any order; others are ignored, and those of
        confidence and flags may be missing.

    Returns:
      {file name of the image: its row}, in the file's order.

    Raises:
      UserError: naming file and row, for a file that cannot be read, a missing column or value, an image named twice, a
        text where a number belongs, or a box that is empty or not inside its image.
    """
    path = Path(path)
    rows, changed, has_checks = {}, [], False
    columns = {name: () for name in BOX_COLUMNS if name not in _LATER}
    for number, record in tables.read_table(path, columns, optional=(*_LATER, CHECK), exact=("image",)):
        try:
            row = parse_row({name: text and csv_table.original(text) for name, text in record.items()})
            if row.image in rows:
                raise ValueError(f"a second row for image {row.image}")
        except ValueError as error:
            raise UserError(f"{path}, row {number}: {error}") from error
        rows[row.image] = row
        has_checks = CHECK in record
        if record.get(CHECK) != _check(row):
            changed.append(row.image)
    _say_changed(path, changed, len(rows), has_checks)
    return rows


def write_box_table(path: str | Path, rows: Iterable[BoxRow]) -> None:
    """Writes a box table; the file appears only when it is complete."""
    with csv_table.writing(path) as table:
        table.row([*BOX_COLUMNS, CHECK])
        table.rows([*_values(row), _check(row)] for row in rows)


def _check(row: BoxRow) -> str:
    # A letter first: a spreadsheet would read 12345678 or 123e4567 as a number, and write another text.
    # Rows of earlier versions, without a confidence, keep their check.
    later = 0 if row.confidence is None else len(_LATER)
    text = ",".join(_values(row)[: len(BOX_COLUMNS) - len(_LATER) + later]).encode(errors="surrogateescape")
    return f"x{hashlib.sha256(text).hexdigest()[:12]}"


def _say_changed(path: Path, changed: Sequence[str], count: int, has_checks: bool) -> None:
    if count and not has_checks:
        sealed.say(f"{path} has no column {CHECK}, as tables of older versions or from elsewhere: its boxes are used")
    elif changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        sealed.say(
            f"{path}: {len(changed):,} of {count:,} boxes are not as they were written ({shown}). They are used; if "
            "nobody edited them, the table is damaged: make it again"
        )


def _values(row: BoxRow) -> list[str]:
    """Returns the values of a row as the table spells them, in the order of `BOX_COLUMNS`."""
    values = ("" if value is None else value for value in dataclasses.astuple(row))
    return [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]


def parse_row(record: Mapping[str, str | None]) -> BoxRow:
    """Returns the row of {column: text}.

    Raises:
      ValueError: for what `read_box_table` refuses in one row.
    """
    values = {}
    for name in BOX_COLUMNS:
        text = record.get(name)
        if text and not text.isspace():
            try:
                values[name] = _PARSE.get(name, str)(text)
            except ValueError as error:
                raise ValueError(f"{name} is {error}") from error
        elif name not in _LATER:
            raise ValueError(f"no value for {name}")
    row = BoxRow(**values)
    if not (0 <= row.left < row.right <= row.width and 0 <= row.top < row.bottom <= row.height):
        raise ValueError(
            f"box (left, top, right, bottom) = {row.box} of {row.image} is empty or not inside its {row.width} x "
            f"{row.height} image"
        )
    for name in ("lung_area", "confidence"):
        if (share := getattr(row, name)) is not None and not 0 <= share <= 1:
            raise ValueError(f"{name} is {share}, not a share from 0 to 1")
    return row


def flag_counts(rows: Iterable[BoxRow]) -> str:
    """Returns a table of text: how many images carry which flag. An image counts once under each of its flags."""
    flags = [row.flags for row in rows]
    single = Counter(name for joined in flags if joined for name in joined.split("+"))
    lines = [("no flag", flags.count("")), *((name, single[name]) for name in FLAGS if name in single)]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}{count:>9,}{count / len(flags):>10.2%}" for name, count in lines)


def rule_counts(rows: Iterable[BoxRow]) -> str:
    """Returns a table of text: how many images needed which rule, next to the paper's share without a rule (B.2.2).

    An image for which several rules fired counts once under `any rule` and once under each of them.
    """
    rules = [row.rule for row in rows]
    none = rules.count(NO_RULE)
    single = Counter(name for rule in rules if rule != NO_RULE for name in rule.split("+"))
    lines = [
        ("no rule", none, f"{published.NO_RULE_SHARE:.2%}"),
        ("any rule", len(rules) - none, f"{published.SOME_RULE_SHARE:.2%}"),
        *((f"  {name}", single[name], "") for name in dict.fromkeys((*RULES, *single))),
        ("all images", len(rules), ""),
    ]
    head = f"{'rule':<16}{'images':>9}{'share':>10}{'paper':>10}"
    return "\n".join(
        [head]
        + [f"{name:<16}{count:>9,}{count / len(rules):>10.2%}{paper:>10}".rstrip() for name, count, paper in lines]
    )
