"""Lung masks: what counts as lung, and a small mask at a radiograph's size. No JAX."""

import numpy as np

from sdfn_jax.radiographs import pixels

# A pixel whose probability is above this is lung ([21]).
THRESHOLD = 0.5
_LEAST = 1e-3  # from the threshold, of a pixel that was decided otherwise


def decided(probabilities: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Moves the probabilities of pixels that the post-processing decided otherwise just across the threshold.

    Enlarged, or traced, the result has the outline of `kept`, but finer than its pixels.

    Args:
      probabilities: (h, w) float32.
      kept: (h, w) bool.

    Returns:
      (h, w) float32: above `THRESHOLD` where `kept`, below it elsewhere.
    """
    return np.where(kept, np.maximum(probabilities, THRESHOLD + _LEAST), np.minimum(probabilities, THRESHOLD - _LEAST))


def enlarge(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a mask at a radiograph's size.

    Args:
      mask: (h, w) float32, as `decided` returns it.
      size: (height, width) of the radiograph.

    Returns:
      (H, W) bool.
    """
    return pixels.resize(np.rint(255 * mask).astype(np.uint8), size) > 127
