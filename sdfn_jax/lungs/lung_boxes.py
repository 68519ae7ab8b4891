"""From a lung mask to the lung box (B.2.2). NumPy and scikit-image only.

A mask is an (h, w) bool array of the size the network works at (256 x 256), however wide or tall the radiograph is. Its
regions are 4-connected, as [21] counts them: two lungs that touch only at a corner are two.
"""

import dataclasses

import numpy as np
from skimage import measure

NO_RULE = "none"
# The rules, in the order they are tried; a table joins those that fired with "+".
RULES = ("nearest_two", "drop_small", "mirror", "whole_image")
# Side of the mask whose pixels the paper's margins count.
MARGIN_SIZE = 256


@dataclasses.dataclass(frozen=True)
class PostProcessing:
    """The numbers of the post-processing; the defaults are the paper's (B.2.2), or ours if it names none.

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
      confidence: 0 to 1, how sure the network is of `kept` (`doubt.confidence`); None for a mask of unknown origin.
    """

    box: tuple[int, int, int, int]
    rule: str
    cleaned: np.ndarray
    kept: np.ndarray
    confidence: float | None = None

    @property
    def lung_area(self) -> float:
        """Share of the image that the cleaned mask covers, 0 to 1."""
        return float(self.cleaned.mean())


def lung_box(mask: np.ndarray, size: tuple[int, int], parameters: PostProcessing) -> LungRegion:
    """Cleans a mask, applies the rules in the paper's order, and boxes what is left (B.2.2).

    The rules are tried one after the other on what the one before left. So of three regions two are kept, of these the
    smaller may be dropped, and the last one is then mirrored: `nearest_two+drop_small+mirror`. Two lungs grown together
    are one region and are mirrored too: the box can only grow by that, never lose a pixel. If nothing is left, or
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
    """Returns (left, top, right, bottom), half-open, of an (h, w) bool mask; None if it is empty."""
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
    return float(np.hypot(doubled[0], doubled[1])) / region.sum()


def _too_small(box: tuple[int, int, int, int], mask_size: tuple[int, int], smallest_side: float) -> bool:
    left, top, right, bottom = box
    return right - left < smallest_side * mask_size[1] or bottom - top < smallest_side * mask_size[0]
