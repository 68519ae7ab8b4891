"""Arrays of pixels: checks, grey levels, and the one resize of the project."""

import numpy as np
from PIL import Image

from sdfn_jax.radiographs.limits import Refused, check_size


def check_radiograph(radiograph: np.ndarray) -> None:
    """Refuses an array that does not have the form of this project's radiographs and masks.

    Raises:
      Refused: unless it is (H, W) uint8 with at least one pixel.
    """
    if not isinstance(radiograph, np.ndarray) or radiograph.dtype != np.uint8 or radiograph.ndim != 2:
        found = f"{getattr(radiograph, 'dtype', type(radiograph).__name__)} of shape {np.shape(radiograph)}"
        raise Refused(f"an array of {found}; expected (H, W) uint8. grey_levels.as_radiograph converts other forms")
    check_size(radiograph.shape)


def full_scale(largest: int) -> int:
    """Returns the maximum of the smallest depth of 8, 10, 12, 14 or 16 bits that holds `largest`.

    Raises:
      Refused: if it needs more than 16 bits.
    """
    for bits in (8, 10, 12, 14, 16):
        if largest < 2**bits:
            return 2**bits - 1
    raise Refused("pixels outside the range of 16-bit numbers")


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a radiograph or a soft mask; each new pixel averages all pixels that it covers.

    Args:
      image: (H, W) uint8.
      size: (height, width) of the result.

    Returns:
      (height, width) uint8.

    Raises:
      ValueError: for an array of another form.
    """
    check_radiograph(image)
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))
