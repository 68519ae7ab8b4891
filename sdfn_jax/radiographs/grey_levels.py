"""From the pixels of a picture or array, in any usual form, to a radiograph: one rule for files and arrays."""

import contextlib

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, TiffImagePlugin

from sdfn_jax.radiographs.limits import Refused, check_size
from sdfn_jax.radiographs.pixels import full_scale

_WHITE_IS_ZERO = 0
_CHANNELS = (1, 2, 3, 4)
# ITU-R BT.601: 0.299, 0.587 and 0.114 in units of 2**-16, as Pillow rounds them.
_LUMINANCE = (19595, 38470, 7471)
# A film of numbers up to 255 whose brightest fraction is below this would be black.
_LEAST_WHITE = 10


def as_radiograph(pixels: ArrayLike | Image.Image) -> np.ndarray:
    """Turns an array or picture of any usual form into a radiograph.

    Shapes: (H, W); (H, W, C) with C of 1 (grey), 2 (grey, alpha), 3 (red, green, blue) or 4 (and alpha); (1, H, W); (3,
    H, W) and (4, H, W) if the first three channels are equal, since they could also be three films; any of these with
    more leading axes of length 1. Colour becomes luminance (ITU-R BT.601), transparency becomes black: alpha counts
    relative to its maximum, so that constant alpha, even 0, changes nothing.

    Numbers: uint8 is used as it is, True is white. For other integers, and floating-point numbers above 1, white is the
    maximum of the smallest depth of 8, 10, 12, 14 or 16 bits that holds the largest number, because a 16-bit array
    often has 12-bit pixels. Floating-point numbers of at most 1 are fractions, and 1 is white.

    Args:
      pixels: an array, or anything that NumPy turns into one; or a Pillow image. Bones bright, not normalised.

    Returns:
      (H, W) uint8, bones bright; `pixels` itself if it already is that.

    Raises:
      ValueError: in one line, for any other shape; for numbers that are negative, not finite or above 65,535; for
        fractions with a maximum between 1 and 10, whose white is unknown.
    """
    if isinstance(pixels, Image.Image):
        return of_picture(pixels)
    array = _numbers(pixels)
    if array.ndim != 2:
        array = _channels_last(array)
    check_size(array.shape[:2])
    if array.dtype == np.uint8:
        return array if array.ndim == 2 else _merge_channels(array)
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 2**16 - 1:
        found = f"{array.min():.4g} to {array.max():.4g}"
        raise Refused(f"pixels outside the range of 16-bit numbers ({found}): a radiograph is not normalised")
    return _to_8_bits(array if array.ndim == 2 else _merge_channels(array))


def of_picture(image: Image.Image) -> np.ndarray:
    """Returns (H, W) uint8 of a picture of up to 8 bits per channel, or of grey of any depth."""
    key = image.info.get("transparency")
    if image.mode in ("P", "PA"):  # through the palette: circulating JSRT copies have a reversed one
        image = image.convert("RGB" if key is None and image.mode == "P" else "RGBA")
    elif image.mode in ("1", "L", "RGB") and key is not None:
        image = image.convert("RGBA" if image.mode == "RGB" else "LA")
    elif image.mode in ("La", "RGBa"):
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    alpha = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    if alpha is not None or image.mode in ("RGBX", "CMYK", "YCbCr"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode in ("1", "RGB"):
        image = image.convert("L")
    pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise Refused(f"unsupported pixel format {image.mode!r}")
    if image.mode == "L":
        return pixels if alpha is None else _on_black(pixels, np.asarray(alpha))
    if isinstance(key, int):  # grey of 16 bits, one of which is transparent
        pixels = np.stack([pixels, pixels != key], axis=-1)
    grey = as_radiograph(pixels)
    # Pillow inverts such a file if it has at most 8 bits, but not if it has 16.
    tags = getattr(image, "tag_v2", {})
    return 255 - grey if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else grey


def _numbers(pixels: ArrayLike) -> np.ndarray:
    """Returns an array of whole or floating-point numbers; True becomes 255."""
    array = np.asarray(pixels)
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype == np.float16 or (array.dtype.kind == "V" and array.dtype.names is None):
        with contextlib.suppress(TypeError, ValueError):
            array = array.astype(np.float32)  # half precision ends at 65,504; bfloat16 is not a NumPy type
    if array.dtype.kind not in "uif":
        what = f"an array of {array.dtype}" if array.ndim else f"{type(pixels).__name__}"
        raise Refused(f"{what}; expected a radiograph's pixels, an array of numbers")
    return array


def _channels_last(array: np.ndarray) -> np.ndarray:
    """Returns (H, W, C) of an array of three or more axes, or (H, W) if C is 1."""
    shape = array.shape
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    if array.ndim == 3 and array.shape[-1] not in _CHANNELS and array.shape[0] in (1, 3, 4):
        if (array[:3] != array[0]).any():
            raise Refused(
                f"an array of shape {shape}, whose first axis may be colours or films; give colours as (H, W, 3), and "
                "films one at a time"
            )
        array = array[[0, *range(3, len(array))]]
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] not in _CHANNELS:
        raise Refused(
            f"an array of shape {shape}; expected one radiograph: (H, W), (1, H, W) or (H, W, 1 to 4 channels)"
        )
    return array[..., 0] if array.shape[-1] == 1 else array


def _merge_channels(array: np.ndarray) -> np.ndarray:
    """Returns (H, W) of (H, W, 2 to 4) numbers from 0 to 65,535, in their dtype and range."""
    colours, alpha = (array, None) if array.shape[-1] == 3 else (array[..., :-1], array[..., -1])
    if colours.shape[-1] == 1:
        grey = colours[..., 0]
    elif array.dtype.kind == "f":
        grey = colours @ (np.array(_LUMINANCE) / 2**16)
    else:  # exactly as Pillow
        total = np.full(array.shape[:2], 2**15, np.uint32)
        for channel, weight in enumerate(_LUMINANCE):
            total += colours[..., channel].astype(np.uint32) * np.uint32(weight)
        grey = total >> np.uint32(16)
    grey = grey.astype(array.dtype, copy=False)
    return grey if alpha is None else _on_black(grey, alpha)


def _on_black(grey: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Puts a transparent image on black, (H, W) both; alpha counts relative to its maximum."""
    opaque = alpha.max()
    if alpha.min() == opaque:
        return grey
    shown = grey * (alpha.astype(np.float64) / float(opaque))
    return (shown if grey.dtype.kind == "f" else np.rint(shown)).astype(grey.dtype)


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Scales (H, W) numbers from 0 to 65,535 by their white."""
    largest = pixels.max()
    if pixels.dtype.kind == "f" and largest <= 1:
        white = 1
    elif 1 < largest < _LEAST_WHITE and (pixels % 1 != 0).any():
        raise Refused(f"fractions from 0 to {largest:.4g}, on a scale neither of 0 to 1 nor of 0 to 255")
    else:
        white = full_scale(round(float(largest)))
    return np.rint(pixels.astype(np.float32) * (255.0 / white)).astype(np.uint8)
