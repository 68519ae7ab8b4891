"""Class activation maps of one network or of the fusion, and their sum on the radiograph (eq. 5 and 6); no JAX."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

CROPPED = ("lung",)  # branches that see the lung box alone; the others see the whole radiograph


def activation_maps(
    features: Mapping[str, np.ndarray], kernel: np.ndarray, branches: Sequence[str]
) -> dict[str, np.ndarray]:
    """Computes how much each place of a branch adds to each finding's logit (eq. 5; Zhou et al., CVPR 2016).

    The map of finding c is sum_j w[c, j] f_j over the branch's own features f_j and its own rows of the head's kernel.
    The features are those that the head averages, so for every image and finding

        sum over the branches of mean(map) + bias = logit.

    Args:
      features: {branch: (B, h, w, C) float}, as the network pools them: after the last ReLU.
      kernel: (sum of the C, K) float, the head's weights.
      branches: the branches in the order of the kernel's rows, `SDFN.branches`. Needed because JAX sorts
        the keys of a dictionary that leaves a jitted function.

    Returns:
      {branch: (B, h, w, K) float32}, neither clipped nor scaled.

    Raises:
      ValueError: if the kernel does not have one row for each feature of these branches.
    """
    channels = [features[branch].shape[-1] for branch in branches]
    if sum(channels) != len(kernel):
        raise ValueError(f"a head of {len(kernel)} rows does not fit branches {tuple(branches)} of {channels} features")
    parts = np.split(np.asarray(kernel, np.float32), np.cumsum(channels)[:-1])
    return {
        branch: np.asarray(features[branch], np.float32) @ part for branch, part in zip(branches, parts, strict=True)
    }


def resize_map(heatmap: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarges a map to the image it was computed from.

    Bilinear between the centres of the map's cells, constant beyond the outermost centres (Pillow's filter on 32-bit
    floats: negative values survive, no value leaves the map's range). The paper does not name its method.

    Args:
      heatmap: (h, w) float.
      size: (height, width) of the result, at least (h, w).

    Returns:
      (height, width) float32.
    """
    picture = Image.fromarray(np.ascontiguousarray(heatmap, np.float32))
    return np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def on_radiograph(
    maps: Mapping[str, np.ndarray], lung_box: tuple[int, int, int, int] | None, size: tuple[int, int]
) -> np.ndarray:
    """Places a network's maps of one finding on the radiograph, each where its branch looks, and adds them (eq. 6).

    Args:
      maps: {branch: (h, w) float}, at least one. A map adds nothing outside the part that its branch sees.
      lung_box: (left, top, right, bottom) in the radiograph's pixels, half-open; None if no branch needs it.
      size: (height, width) of the radiograph.

    Returns:
      (height, width) float32, not rescaled.

    Raises:
      ValueError: for a lung box that is empty or not inside the radiograph.
    """
    placed = np.zeros(size, np.float32)
    for branch, heatmap in maps.items():
        left, top, right, bottom = lung_box if branch in CROPPED else (0, 0, size[1], size[0])
        if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
            raise ValueError(
                f"lung box {left, top, right, bottom} is empty or not inside a radiograph of {size[1]} x {size[0]} "
                "pixels"
            )
        placed[top:bottom, left:right] += resize_map(heatmap, (bottom - top, right - left))
    return placed


def rescale(heatmap: np.ndarray) -> np.ndarray:
    """Rescales a heatmap so that its smallest value is 0 and its largest 255 (eq. 6; the thresholds of section C).

    Args:
      heatmap: float, any shape.

    Returns:
      float32 of that shape; all 0 for a constant map, which points nowhere.
    """
    lowest, highest = heatmap.min(), heatmap.max()
    if lowest == highest:
        return np.zeros(heatmap.shape, np.float32)
    return ((heatmap - lowest) * (255.0 / (highest - lowest))).astype(np.float32)


# The methods that `localize --method` can choose, by name. Each takes what `activation_maps` takes and returns what it
# returns; whatever enlarges, draws, boxes or scores maps works for all of them.
METHODS = {"cam": activation_maps}
