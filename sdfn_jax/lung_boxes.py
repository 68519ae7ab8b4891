"""From a lung mask to the lung box (B.2.2), and the table that hands the boxes to the data sets.

NumPy and scikit-image only: the data set builders read the table without JAX.

A mask is an (h, w) bool array of the size the network works at (256 x 256), however wide or tall the radiograph is. Its
regions are 4-connected, as [21] counts them: two lungs that touch only at a corner are two.
"""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from skimage import measure

from sdfn_jax.core import csv_table, sealed, tables
from sdfn_jax.core.errors import UserError

NO_RULE = "none"
# The rules, in the order they are tried; a table joins those that fired with "+".
RULES = ("nearest_two", "drop_small", "mirror", "whole_image")
# Share of the 112,120 images for which the paper needed no rule (B.2.2).
PAPER_NO_RULE = 0.9584
# Side of the mask whose pixels the paper's margins count.
MARGIN_SIZE = 256


@dataclasses.dataclass(frozen=True)
class PostProcessing:
    """The numbers of the post-processing; the defaults are the paper's (B.2.2), and ours where it names none.

    Attributes:
      minimum_area: regions and holes below this share of the mask are cleaned away before the first rule ([21]).
      small_lung: of two regions, the smaller is dropped when its area is below this share of the larger's.
      margin_top: how far the box is widened at the top, in pixels of a 256 x 256 mask.
      margin_left: the same at the left.
      margin_right: the same at the right.
      margin_bottom: the same at the bottom.
      smallest_side: a box narrower or lower than this share of the mask, before it is widened, holds no pair of lungs:
        the whole image is taken. A choice: half of the least among Montgomery's 138 reference masks (0.43).
    """

    minimum_area: float = 0.02
    small_lung: float = 1 / 3
    margin_top: int = 15
    margin_left: int = 15
    margin_right: int = 15
    margin_bottom: int = 20
    smallest_side: float = 0.2

    def __post_init__(self):
        for name in ("minimum_area", "small_lung", "smallest_side"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"post-processing: {name} is {getattr(self, name)}, not a share from 0 to 1")
        for name in ("margin_top", "margin_left", "margin_right", "margin_bottom"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"post-processing: {name} is {value}, not a whole number of pixels")


@dataclasses.dataclass(frozen=True, eq=False)
class LungRegion:
    """What the post-processing made of one mask.

    Attributes:
      box: (left, top, right, bottom), half-open, in pixels of the radiograph's file.
      rule: `none`, or the rules that fired, joined by `+`.
      cleaned: (h, w) bool, the mask without specks and holes, before any rule.
      kept: (h, w) bool, the regions that the rules left; without the mirror image that rule 3 adds.
    """

    box: tuple[int, int, int, int]
    rule: str
    cleaned: np.ndarray
    kept: np.ndarray

    @property
    def lung_area(self) -> float:
        """Share of the image that the cleaned mask covers, 0 to 1."""
        return float(self.cleaned.mean())


def lung_box(mask: np.ndarray, size: tuple[int, int], parameters: PostProcessing) -> LungRegion:
    """Cleans a mask, applies the rules in the paper's order, and boxes what is left (B.2.2).

    The rules are tried one after the other on what the one before left. So of three regions two are kept, of these the
    smaller may be dropped, and the last one is then mirrored: `nearest_two+drop_small+mirror`. Two lungs grown together
    are one region and are mirrored too: the box can only grow by that, never lose a pixel. Where nothing is left, or
    too little to be lungs (`smallest_side`), the box is the whole image and `whole_image` ends the list.

    Args:
      mask: (h, w) bool.
      size: (height, width) of the radiograph's file; the mask covers all of it.
      parameters: the numbers of the rules.
    """
    cleaned = clean(mask, parameters)
    fired = []
    regions = split_regions(cleaned)
    if len(regions) > 2:
        fired.append("nearest_two")
        regions = keep_nearest_two(regions)
    if len(regions) == 2 and is_small(regions[1], regions[0], parameters.small_lung):
        fired.append("drop_small")
        regions = regions[:1]
    kept = lungs = np.any(regions, axis=0) if regions else np.zeros_like(cleaned)
    if len(regions) == 1:
        fired.append("mirror")
        lungs = mirror(kept)
    box = bounding_box(lungs)
    if box is None or _too_small(box, kept.shape, parameters.smallest_side):
        fired.append("whole_image")
        box = (0, 0, size[1], size[0])
    else:
        box = widen_and_scale(box, kept.shape, size, parameters)
    return LungRegion(box, "+".join(fired) or NO_RULE, cleaned, kept)


def clean(mask: np.ndarray, parameters: PostProcessing) -> np.ndarray:
    """Removes small regions, then fills small holes, as [21] does.

    A hole is background shut in by lung; a gap open to the image's border is none, so filling never moves the box.

    Args:
      mask: (h, w) bool.
      parameters: regions and holes below `minimum_area` go; one of exactly that share stays.

    Returns:
      (h, w) bool.
    """
    limit = parameters.minimum_area * mask.size
    labels, areas = _label(mask)
    large = (areas > 0) & (areas >= limit)
    mask = large[labels]
    # One pixel of background all round joins everything that is open to the border to label 1.
    labels, areas = _label(np.pad(~mask, 1, constant_values=True))
    holes = (areas > 0) & (areas < limit)
    holes[1] = False
    return mask | holes[labels][1:-1, 1:-1] if holes.any() else mask


def split_regions(mask: np.ndarray) -> list[np.ndarray]:
    """Returns the 4-connected regions of an (h, w) bool mask, each (h, w) bool, the largest first.

    Equal ones come in reading order of their first pixels.
    """
    labels, areas = _label(mask)
    order = np.argsort(-areas, kind="stable")
    return [labels == label for label in order[areas[order] > 0]]


def keep_nearest_two(regions: list[np.ndarray]) -> list[np.ndarray]:
    """Rule 1: keeps the two regions whose centroids are nearest the image centre.

    Distances are in pixels of the mask; of two equally near the one that comes first (the larger) is kept.

    Args:
      regions: (h, w) bool each, the largest first.

    Returns:
      Two of them, the larger first.
    """
    nearest = np.argsort([_distance_from_centre(region) for region in regions], kind="stable")[:2]
    return [regions[index] for index in sorted(nearest)]


def is_small(smaller: np.ndarray, larger: np.ndarray, small_lung: float) -> bool:
    """Rule 2: tells whether a region has less than `small_lung` (the paper: a third) of another's area.

    Args:
      smaller: (h, w) bool.
      larger: (h, w) bool.
      small_lung: at exactly this share it is not small.
    """
    return bool(smaller.sum() < small_lung * larger.sum())


def mirror(region: np.ndarray) -> np.ndarray:
    """Rule 3: joins an (h, w) bool region with its mirror image about the vertical centre line of the image."""
    return region | region[:, ::-1]


def bounding_box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Returns (left, top, right, bottom), half-open, of an (h, w) bool mask; None where it is empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def widen_and_scale(
    box: tuple[int, int, int, int],
    mask_size: tuple[int, int],
    size: tuple[int, int],
    parameters: PostProcessing,
) -> tuple[int, int, int, int]:
    """Widens a box of the mask, takes it to the pixels of the file and clips it to the image (B.2.2).

    Height and width are scaled separately. A border that falls inside a pixel of the file takes in that pixel, so the
    box holds all of the lung, and a mirrored mask gives the mirrored box.

    Args:
      box: (left, top, right, bottom) in pixels of the mask.
      mask_size: (height, width) of the mask.
      size: (height, width) of the file.
      parameters: the margins.

    Returns:
      (left, top, right, bottom) in pixels of the file, inside the image and never empty.
    """

    def along(start: int, stop: int, before: int, after: int, old: int, new: int) -> tuple[int, int]:
        # Whole numbers throughout, rounded outwards once: start / old - before / MARGIN_SIZE is a share of the image.
        first = (start * MARGIN_SIZE - before * old) * new // (old * MARGIN_SIZE)
        last = -((stop * MARGIN_SIZE + after * old) * -new // (old * MARGIN_SIZE))
        return max(first, 0), min(last, new)

    left, right = along(box[0], box[2], parameters.margin_left, parameters.margin_right, mask_size[1], size[1])
    top, bottom = along(box[1], box[3], parameters.margin_top, parameters.margin_bottom, mask_size[0], size[0])
    return left, top, right, bottom


def _label(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (h, w) labels, 0 for what is outside the mask, and the area of each label; that of 0 is given as 0."""
    labels = measure.label(mask, connectivity=1)
    areas = np.bincount(labels.ravel())
    areas[0] = 0
    return labels, areas


def _distance_from_centre(region: np.ndarray) -> float:
    # Sums of whole numbers, exact, so that a mirrored region is exactly as far away.
    doubled = [
        int(region.sum(axis=other) @ np.arange(1 - length, length, 2))
        for other, length in ((1, len(region)), (0, len(region[0])))
    ]
    return float(np.hypot(*doubled)) / region.sum()


def _too_small(box: tuple[int, int, int, int], mask_size: tuple[int, int], smallest_side: float) -> bool:
    left, top, right, bottom = box
    return right - left < smallest_side * mask_size[1] or bottom - top < smallest_side * mask_size[0]


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


_PARSE = {str: str, int: tables.whole_number, float: tables.number}
COLUMNS = tuple(field.name for field in dataclasses.fields(BoxRow))
# The last column: a digest of the row's values. A row that was mended, or damaged, does not fit it; that is said.
CHECK = "check"


def read_box_table(path: str | Path) -> dict[str, BoxRow]:
    """Reads a box table.

    A table that was mended by hand, or has no checks, is read as it is, and that is said: which rows are not those that
    were written, so that damage does not pass for mending.

    Args:
      path: a table (`tables.read_table`) with the columns of `BoxRow`, in any order, and perhaps others.

    Returns:
      {file name of the image: its row}, in the file's order.

    Raises:
      UserError: naming file and row, for a file that cannot be read, a missing column or value, an image named twice, a
        text where a number belongs, or a box that is empty or not inside its image.
    """
    path = Path(path)
    rows, changed, has_checks = {}, [], False
    for number, record in tables.read_table(path, {name: () for name in COLUMNS}, optional=(CHECK,)):
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
        table.row([*COLUMNS, CHECK])
        table.rows([*_values(row), _check(row)] for row in rows)


def _check(row: BoxRow) -> str:
    # A letter first: a spreadsheet would read 12345678 or 123e4567 as a number, and write another text.
    text = ",".join(_values(row)).encode(errors="surrogateescape")
    return f"x{hashlib.sha256(text).hexdigest()[:12]}"


def _say_changed(path: Path, changed: Sequence[str], count: int, has_checks: bool) -> None:
    if count and not has_checks:
        sealed.say(f"{path} has no column {CHECK}, as tables of older versions and of others: its boxes are used")
    elif changed:
        shown = ", ".join(changed[:5]) + (", ..." if len(changed) > 5 else "")
        sealed.say(
            f"{path}: {len(changed):,} of {count:,} boxes are not as they were written ({shown}). They are used; if "
            "nobody mended them, the table is damaged: make it again"
        )


def _values(row: BoxRow) -> list[str]:
    """Returns the values of a row as the table spells them, in the order of `COLUMNS`."""
    return [f"{value:.4f}" if isinstance(value, float) else str(value) for value in dataclasses.astuple(row)]


def parse_row(record: Mapping[str, str | None]) -> BoxRow:
    """Returns the row of {column: text}.

    Raises:
      ValueError: for what `read_box_table` refuses in one row.
    """
    values = {}
    for field in dataclasses.fields(BoxRow):
        text = record[field.name]
        if not text:
            raise ValueError(f"no value for {field.name}")
        try:
            values[field.name] = _PARSE[field.type](text)
        except ValueError as error:
            raise ValueError(f"{field.name} is {error}") from error
    row = BoxRow(**values)
    if not (0 <= row.left < row.right <= row.width and 0 <= row.top < row.bottom <= row.height):
        raise ValueError(
            f"box (left, top, right, bottom) = {row.box} of {row.image} is empty or not inside its {row.width} x "
            f"{row.height} image"
        )
    if not 0 <= row.lung_area <= 1:
        raise ValueError(f"lung_area is {row.lung_area}, not a share from 0 to 1")
    return row


def rule_counts(rows: Iterable[BoxRow]) -> str:
    """Returns a table of text: how many images needed which rule, beside the paper's share without a rule (B.2.2).

    An image for which several rules fired counts once under `any rule` and once under each of them.
    """
    rules = [row.rule for row in rows]
    none = rules.count(NO_RULE)
    single = Counter(name for rule in rules if rule != NO_RULE for name in rule.split("+"))
    lines = [
        ("no rule", none, f"{PAPER_NO_RULE:.2%}"),
        ("any rule", len(rules) - none, f"{1 - PAPER_NO_RULE:.2%}"),
        *((f"  {name}", single[name], "") for name in dict.fromkeys((*RULES, *single))),
        ("all images", len(rules), ""),
    ]
    head = f"{'rule':<16}{'images':>9}{'share':>10}{'paper':>10}"
    return "\n".join(
        [head]
        + [f"{name:<16}{count:>9,}{count / len(rules):>10.2%}{paper:>10}".rstrip() for name, count, paper in lines]
    )
