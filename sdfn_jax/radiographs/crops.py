"""The images that the classifiers' two branches read: the entire radiograph and its lung region."""

import numpy as np

from sdfn_jax.radiographs import pixels


def cut(radiograph: np.ndarray, lung_box: tuple[int, int, int, int] | None, size: int) -> dict[str, np.ndarray]:
    """Crops and resizes a radiograph for the two branches, in data sets and prediction alike.

    Args:
      radiograph: (H, W) uint8, bones bright.
      lung_box: (left, top, right, bottom) in its pixels, half-open; None if no lung region is known.
      size: height and width of each image, in pixels.

    Returns:
      {`entire`: (size, size) uint8, and with a box `lung`: (size, size) uint8, cropped at full resolution}.
    """
    images = {"entire": pixels.resize(radiograph, (size, size))}
    if lung_box is not None:
        left, top, right, bottom = lung_box
        images["lung"] = pixels.resize(radiograph[top:bottom, left:right], (size, size))
    return images
