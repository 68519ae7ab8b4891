"""One reader for every file format, and ONE resize, shared by the data set builders, training and prediction.

A radiograph is an (H, W) uint8 array: 0 is black (air), 255 is white (bone), as on a film viewer.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

# JSRT's headerless files: 2048 x 2048 big-endian 16-bit numbers, 12 bits used, a high value is dark.
JSRT_SIDE = 2048
JSRT_MAXIMUM = 4095
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".img")


def read_radiograph(path: str | Path) -> np.ndarray:
    """Reads a radiograph of any supported kind.

    PNG, JPEG, TIFF, BMP, GIF (8 or 16 bits, greyscale, palette, RGB or RGBA) and JSRT's `.IMG`. Colour becomes
    luminance, transparency is dropped (ChestX-ray14 has RGBA files with three equal channels). Numbers of over 8 bits
    are scaled by the smallest of 10, 12, 14 or 16 bits that holds the largest one, because a 16-bit file often carries
    12-bit pixels.

    Returns:
      (H, W) uint8, bones bright.

    Raises:
      ValueError: for a file that cannot be decoded, naming it; `.IMG` files must have exactly 8,388,608 bytes.
      OSError: for a file that cannot be opened.
    """
    path = Path(path)
    if path.suffix.lower() == ".img":
        return _read_jsrt(path)
    try:
        return decode(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def decode(data: bytes) -> np.ndarray:
    """Decodes the bytes of an image file, as `read_radiograph` does.

    Returns:
      (H, W) uint8.

    Raises:
      ValueError: for bytes that cannot be decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return _to_grey(image)
    except UnidentifiedImageError as error:
        raise ValueError("cannot be decoded (not an image file)") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot be decoded ({error})") from error


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a radiograph or a soft mask; each new pixel averages all the old ones it covers.

    Args:
      image: (H, W) uint8.
      size: (height, width) of the result.

    Returns:
      (height, width) uint8.
    """
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _to_grey(image: Image.Image) -> np.ndarray:
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in ("RGBA", "RGBX", "LA"):
        image = image.convert("RGB" if image.mode != "LA" else "L")
    elif image.mode in ("P", "PA"):
        image = image.convert("RGB")  # through the palette: circulating JSRT copies have a reversed one
    if image.mode == "RGB":
        image = image.convert("L")
    if image.mode == "L":
        return np.asarray(image)
    pixels = np.asarray(image)
    if pixels.ndim != 2:
        raise ValueError(f"unsupported pixel format {image.mode!r}")
    return _to_8_bits(pixels)


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > 65535:
        raise ValueError("pixels outside the range of 16-bit numbers")
    largest = int(pixels.max())
    full_scale = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if largest <= 2**bits - 1)
    return np.rint(pixels.astype(np.float32) * (255.0 / full_scale)).astype(np.uint8)


def _read_jsrt(path: Path) -> np.ndarray:
    expected = JSRT_SIDE * JSRT_SIDE * 2
    size = path.stat().st_size
    if size != expected:
        raise ValueError(f"{path}: {size} bytes, where a JSRT .IMG has {expected} (2048 x 2048 x 16 bits)")
    pixels = np.fromfile(path, ">u2").reshape(JSRT_SIDE, JSRT_SIDE)
    # The official files use 12 bits; anything above is clipped to "dark" rather than wrapped.
    grey = JSRT_MAXIMUM - np.minimum(pixels, JSRT_MAXIMUM)
    return np.rint(grey.astype(np.float32) * (255.0 / JSRT_MAXIMUM)).astype(np.uint8)
