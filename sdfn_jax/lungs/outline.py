"""The outline of a lung mask, finer than the network's pixels."""

import numpy as np
from skimage import measure

from sdfn_jax.lungs.mask import THRESHOLD, decided

# Of the network's pixels; a point of the outline that is nearer to the line between its neighbours is left out.
_TOLERANCE = 0.25


def outline(probabilities: np.ndarray, kept: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, ...]:
    """Traces the border of the lungs where the probability crosses the threshold.

    Args:
      probabilities: (h, w) float32, each pixel's of being lung.
      kept: (h, w) bool, the mask that the rules left.
      size: (height, width) of the radiograph.

    Returns:
      closed lines, each (N, 2) int of (x, y) at edges between the radiograph's pixels; a hole is a line of its own.
    """
    mask = decided(probabilities, kept)
    scale = np.divide(size, kept.shape)
    lines = []
    for line in measure.find_contours(np.pad(mask, 1), THRESHOLD):  # the padding closes lines at the border
        corners = measure.approximate_polygon(line, _TOLERANCE)
        edges = np.clip((corners - 0.5) * scale, 0, size)  # from centres of padded pixels to edges
        lines.append(np.rint(edges[:, ::-1]).astype(int))
    return tuple(lines)
