"""Grey levels of masks: which of them are lung, and which pictures are masks at all."""

import numpy as np
from scipy import ndimage

# Values this close, as a share of the largest, are one level: JPEG and resizing blur them.
_SAME = 0.1
# A level is a region of one value: a square of this share of the image's shorter side fits into it. Edges are narrower.
_REGION = 1 / 32
# Of two lungs, the smaller has at least this share of the larger's area (JSRT: 0.54), and each as much on its own side.
_SMALLER, _OWN_SIDE = 0.2, 0.9
# Share of its pixels that a picture has near two grey values: of 762 films of three sets at most 0.68, of masks all.
_TWO_VALUES = 0.85


def lungs(mask: np.ndarray, both: bool) -> np.ndarray:
    """Finds the lungs in a mask: one level on a dark background, or one for each lung.

    Copies have {0, 255} or {0, 1}, with soft edges if they were resized or stored as JPEG; or, for both lungs, two
    levels ({0, 1, 2}, {0, 128, 255}).

    Args:
      mask: (H, W) uint8.
      both: whether it is of both lungs.

    Returns:
      (H, W) bool.

    Raises:
      ValueError: for an empty mask, other levels (it would be unclear which are lung), or an inverted mask.
    """
    if not mask.any():
        raise ValueError("an empty mask")
    largest = int(mask.max())
    background, *others = levels = _levels(mask)
    if background[1] > _SAME * largest or not others or others[-1][1] < (1 - _SAME) * largest:
        raise ValueError(f"{_describe(levels)}: no lungs on a dark background")
    if len(others) == 1:
        found = mask > largest // 2
    elif len(others) == 2 and both and _side_by_side(mask, others):
        found = mask > others[0][0] // 2
    else:
        raise ValueError(f"{_describe(levels)}: it is unclear which of them are lung; give masks of the lungs alone")
    border = np.concatenate([found[0], found[-1], found[:, 0], found[:, -1]])
    if border.mean() > 0.5:
        raise ValueError(f"lung on {border.mean():.0%} of the image's border: an inverted mask; lungs must be bright")
    return found


def is_mask(picture: np.ndarray) -> bool:
    """Returns whether a picture, (H, W) uint8, has only two grey levels, and so is not a radiograph."""
    counts = np.bincount(picture.ravel(), minlength=256)
    near = round(_SAME * 255 / 3)
    share = 0
    for _ in range(2):
        band = slice(max(int(counts.argmax()) - near, 0), int(counts.argmax()) + near + 1)
        share += counts[band].sum()
        counts[band] = 0
    return share > _TWO_VALUES * picture.size


def _levels(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns (smallest, largest value) of each level, the darkest first."""
    values = np.unique(mask)
    near = _SAME * int(values[-1])
    if len(values) > 2:
        size = max(3, round(_REGION * min(mask.shape)))
        smooth = ndimage.maximum_filter(mask, size).astype(int) - ndimage.minimum_filter(mask, size) <= near
        # A value of fewer pixels than one such square is a speck.
        counts = np.bincount(mask[smooth], minlength=256)
        values = np.flatnonzero(counts)
    starts = np.flatnonzero(np.diff(values.astype(int)) > near) + 1
    return [(int(level[0]), int(level[-1])) for level in np.split(values, starts) if len(level)] or [(0, 255)]


def _side_by_side(mask: np.ndarray, two: list[tuple[int, int]]) -> bool:
    """Returns whether two levels are one lung each: on opposite sides of the image, and similar in size."""
    columns = [np.nonzero((mask >= low) & (mask <= high))[1] for low, high in two]
    first, second = sorted(columns, key=np.mean)
    middle = (first.mean() + second.mean()) / 2
    sizes = sorted(map(len, columns))
    on_own_side = min((first < middle).mean(), (second > middle).mean())
    return sizes[0] >= _SMALLER * sizes[1] and on_own_side >= _OWN_SIDE


def _describe(levels: list[tuple[int, int]]) -> str:
    names = [str(low) if low == high else f"{low} to {high}" for low, high in levels]
    return f"a mask of the levels {', '.join(names)}" if len(names) > 1 else f"a mask of one level, {names[0]}"
