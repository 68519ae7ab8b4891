"""Class activation maps of one network or of the fusion (eq. 5), and their sum on the radiograph (eq. 6); no JAX.

Equation 6 adds the lung region's map at the lung box and does not say what it counts as elsewhere: `OUTSIDE` holds the
possible rules. Every heatmap is rescaled before use, so only differences between places matter.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from sdfn_jax.core.errors import UserError

CROPPED = ("lung",)  # branches that see the lung box alone; the others see the whole radiograph

# What a cropped branch's map counts as outside its box, by name: (h, w, ...) -> (...). All are our readings.
# mean     the branch prefers no place outside. The mean is what the branch adds to the logit of the whole radiograph
#          (eq. 5), so only the rest of the map says where. Moving a constant between map and bias changes nothing.
# minimum  the box is brighter everywhere than its surroundings, whatever the weights are.
# zero     the surroundings are brighter than the box if the map is mostly negative, darker if it is mostly positive.
OUTSIDE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mean": lambda heatmap: heatmap.mean((0, 1)),
    "minimum": lambda heatmap: heatmap.min((0, 1)),
    "zero": lambda heatmap: np.zeros_like(heatmap[0, 0]),
}
DEFAULT_OUTSIDE = "mean"


def activation_maps(
    features: Mapping[str, np.ndarray], kernel: np.ndarray, branches: Sequence[str]
) -> dict[str, np.ndarray]:
    """Computes how much each place of a branch adds to each finding's logit (eq. 5; Zhou et al., CVPR 2016).

    The map of finding c is sum_j w[c, j] f_j over the branch's own features f_j and its own rows of the head's kernel.
    The features are those that the head averages, so for every image and finding

        sum over the branches of mean(map) + bias = logit.

    Args:
      features: {branch: (B, h, w, C) float}, as the network pools them.
      kernel: (sum of the C, K) float, the head's weights.
      branches: the branches in the order of the kernel's rows, `SDFN.branches`. Needed because JAX sorts
        the keys of a dictionary that leaves a jitted function.

    Returns:
      {branch: (B, h, w, K) float32}, neither clipped nor scaled.

    Raises:
      ValueError: if the kernel does not have one row for each feature of these branches.
    """
    return {branch: own @ part for branch, own, part in _with_weights(features, kernel, branches)}


def grad_cam_plus_plus(
    features: Mapping[str, np.ndarray], kernel: np.ndarray, branches: Sequence[str]
) -> dict[str, np.ndarray]:
    """Computes Grad-CAM++ (Chattopadhay et al., WACV 2018) of exp(logit), up to the factor exp(logit).

    Our head is linear in the features' means. Its second and third derivatives are then those of an exponential, and
    the paper's weight of a feature map becomes max(w, 0) / (2 + w * mean(f)): a class activation map of the positive
    weights alone, in which a feature that adds much to the logit counts less than its weight. (Grad-CAM reduces to
    max(map, 0) of `activation_maps`.) The maps are not negative and do not sum to the logit.

    Arguments, result and errors are those of `activation_maps`; a UserError for features below 0, whose derivation is
    another.
    """
    maps = {}
    for branch, own, part in _with_weights(features, kernel, branches):
        if own.min() < 0:
            raise UserError(
                f"Grad-CAM++ needs features that are never negative, as after a ReLU; those of the branch {branch} are "
                f"(down to {own.min():.3g}): use the method cam"
            )
        positive = np.maximum(part, 0)
        weights = positive / (2 + own.mean((1, 2))[..., None] * positive)  # (B, C, K)
        maps[branch] = np.einsum("bhwc,bck->bhwk", own, weights)
    return maps


def _with_weights(
    features: Mapping[str, np.ndarray], kernel: np.ndarray, branches: Sequence[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields each branch, its features and its rows of the kernel, both float32."""
    channels = [features[branch].shape[-1] for branch in branches]
    if sum(channels) != len(kernel):
        raise ValueError(f"a head of {len(kernel)} rows does not fit branches {tuple(branches)} of {channels} features")
    parts = np.split(np.asarray(kernel, np.float32), np.cumsum(channels)[:-1])
    for branch, part in zip(branches, parts, strict=True):
        yield branch, np.asarray(features[branch], np.float32), part


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
    maps: Mapping[str, np.ndarray],
    lung_box: tuple[int, int, int, int] | None,
    size: tuple[int, int],
    outside: str = DEFAULT_OUTSIDE,
) -> np.ndarray:
    """Places a network's maps of one finding on the radiograph, each where its branch looks, and adds them.

    Inside the lung box this is eq. 6; outside it the paper is silent, and `outside` decides.

    Args:
      maps: {branch: (h, w) float}, at least one.
      lung_box: (left, top, right, bottom) in the radiograph's pixels, half-open; None if no branch needs it.
      size: (height, width) of the radiograph.
      outside: of `OUTSIDE`.

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
        layer = np.full(size, OUTSIDE[outside](heatmap), np.float32)
        layer[top:bottom, left:right] = resize_map(heatmap, (bottom - top, right - left))
        placed += layer
    return placed


def relative_to_outside(maps: Mapping[str, np.ndarray], outside: str = DEFAULT_OUTSIDE) -> dict[str, np.ndarray]:
    """Subtracts from each cropped branch's maps what they count as outside the lung box.

    The result, placed with 0 outside, differs from `on_radiograph` by a constant: the browser draws it so.

    Args:
      maps: {branch: (h, w, ...) float}.
      outside: of `OUTSIDE`.
    """
    return {
        branch: each - OUTSIDE[outside](each) if branch in CROPPED else np.asarray(each)
        for branch, each in maps.items()
    }


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
METHODS = {"cam": activation_maps, "grad-cam++": grad_cam_plus_plus}
DEFAULT_METHOD = "cam"
