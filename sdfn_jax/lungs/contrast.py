"""Contrast normalisation of a radiograph before the U-Net."""

import numpy as np

from sdfn_jax.radiographs import pixels

CONTRASTS = ("equalize", "equalize_clipped")
# A grey value may count in `equalize_clipped` for at most this many times the median count of those that occur.
_CLIP = 4.0


def contrast(image: np.ndarray, method: str) -> np.ndarray:
    """Normalises a film's contrast by histogram equalisation: the share of pixels that are as dark or darker.

    Args:
      image: (H, W) uint8.
      method: `equalize`, as [21] (scikit-image's `equalize_hist`); or `equalize_clipped`, in which no grey value counts
        for more than 4 times the median one: a margin of whatever grey then takes up next to no contrast, and the chest
        looks as it would without the margin.

    Returns:
      (H, W) float32 in [0, 1].

    Raises:
      ValueError: for an unknown method, or an array of another kind.
    """
    pixels.check_radiograph(image)
    if method not in CONTRASTS:
        raise ValueError(f"unknown contrast normalisation {method!r}; expected one of {', '.join(CONTRASTS)}")
    counts = np.bincount(image.ravel(), minlength=256)
    if method == "equalize_clipped":
        counts = np.minimum(counts, _CLIP * np.median(counts[counts > 0]))
    shares = np.cumsum(counts)
    return (shares / shares[-1]).astype(np.float32)[image]
