"""One reader for every file format, and ONE resize, shared by the data set builders, training and prediction.

A radiograph is an (H, W) uint8 array: 0 is black (air), 255 is white (bone), as on a film viewer.
"""

import io
import logging
import os
import stat
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from sdfn_jax.errors import UserError
from sdfn_jax.silence import silenced

# JSRT's headerless files: 2048 x 2048 big-endian 16-bit numbers, 12 bits used, a high value is dark.
JSRT_SIDE = 2048
JSRT_MAXIMUM = 4095
DICOM_SUFFIXES = (".dcm", ".dicom")
# Bytes before a DICOM file's first element: 128 of anything and the four letters DICM.
DICOM_PREFIX = 132
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".img", *DICOM_SUFFIXES)
# What an image may have. Today's detectors have a quarter of it; decoding one of this size as DICOM takes some 2 GiB.
MAX_PIXELS = 2**26
# What a file may have: 8 bytes for each of so many pixels.
MAX_BYTES = 8 * MAX_PIXELS

# Pillow logs what it finds in a file: numbers that make no sense, and for those who listen closely the text in it.
logging.getLogger("PIL").addHandler(logging.NullHandler())
logging.getLogger("PIL").propagate = False

_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
_WHITE_IS_ZERO = 0
_JSRT_BYTES = JSRT_SIDE * JSRT_SIDE * 2


class Refused(ValueError):
    """What is wrong with a file, in one line of our own words: it quotes nothing of the file."""


def is_radiograph(path: str | Path) -> bool:
    """Tells whether a file is one to read, of a folder's many: by its suffix, or as DICOM by its content.

    DICOM files often have no suffix, or an identifier of dots and numbers as their name. A DICOMDIR, the table of
    contents of a disc, is none.

    Raises:
      OSError: for a file without a suffix that cannot be opened.
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.name == "DICOMDIR" or (path.suffix and not path.suffix[1:].isdigit()) or not path.is_file():
        return False
    with path.open("rb") as file:
        return is_dicom(file.read(DICOM_PREFIX))


def read_radiograph(path: str | Path) -> np.ndarray:
    """Reads a radiograph of any supported kind, which its content tells.

    DICOM (`sdfn_jax/dicom.py`); PNG, JPEG, TIFF, BMP, GIF (8 or 16 bits, greyscale, palette, RGB or RGBA), the first
    picture of several; and JSRT's `.IMG`, which only the suffix tells, as it does a DICOM file without the four letters
    of its beginning. Colour becomes luminance, transparency is dropped (ChestX-ray14 has RGBA files with three equal
    channels). Numbers of over 8 bits are scaled by the smallest of 10, 12, 14 or 16 bits that holds the largest one,
    because a 16-bit file often carries 12-bit pixels; fractions of 0 to 1 are scaled by 1.

    Returns:
      (H, W) uint8, bones bright.

    Raises:
      ValueError: in one line that begins with the file's path, for a file that cannot be decoded, has over `MAX_PIXELS`
        pixels or `MAX_BYTES` bytes, or no pixel; `.IMG` files must have exactly 8,388,608 bytes.
      OSError: for a file that cannot be opened.
      UserError: where DICOM takes packages that are not installed.
    """
    path = Path(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a file")
            if not 0 < status.st_size <= MAX_BYTES:
                raise ValueError(f"{status.st_size:,} bytes, where 1 to {MAX_BYTES:,} are read")
            return decode(file.read(), path.suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def decode(data: bytes, suffix: str = "") -> np.ndarray:
    """Decodes the bytes of an image file, as `read_radiograph` does.

    Args:
      data: all of it.
      suffix: of the file's name, for the kinds that only it can tell.

    Returns:
      (H, W) uint8.

    Raises:
      ValueError: in one line, for bytes that cannot be decoded.
      UserError: where DICOM takes packages that are not installed.
    """
    suffix = suffix.lower()
    if is_dicom(data):
        return _decode_dicom(data)
    if suffix == ".img" and len(data) == _JSRT_BYTES:
        return _decode_jsrt(data)
    try:
        with silenced(), Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            check_size((image.height, image.width))
            image.load()
            return _to_grey(image)
    except UnidentifiedImageError:
        if suffix in DICOM_SUFFIXES:
            return _decode_dicom(data)
        if suffix == ".img":
            expected = f"a JSRT .IMG has {_JSRT_BYTES} ({JSRT_SIDE} x {JSRT_SIDE} x 16 bits)"
            raise Refused(f"{len(data)} bytes, where {expected}") from None
        raise Refused("cannot be decoded (not an image file)") from None
    except Refused:
        raise
    except Exception as error:  # Pillow raises nearly anything for a damaged file
        raise ValueError(f"cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from error


def is_dicom(data: bytes) -> bool:
    """Tells whether a file's bytes, of which the first 132 are enough, begin as DICOM files do."""
    return data[DICOM_PREFIX - 4 : DICOM_PREFIX] == b"DICM"


def check_size(size: tuple[int, int]) -> None:
    """Refuses an image without pixels, and one so large that decoding it could take all memory.

    Args:
      size: (height, width), as its header says.

    Raises:
      Refused: for what is refused.
    """
    height, width = size
    if height <= 0 or width <= 0:
        raise Refused(f"{height} x {width} pixels: no image")
    if height * width > MAX_PIXELS:
        raise Refused(f"{height:,} x {width:,} pixels, more than the {MAX_PIXELS:,} that are read")


def full_scale(largest: int) -> int:
    """Returns the largest number of the smallest of 8, 10, 12, 14 or 16 bits that holds `largest`.

    Raises:
      Refused: for one that needs more.
    """
    for bits in (8, 10, 12, 14, 16):
        if largest < 2**bits:
            return 2**bits - 1
    raise Refused("pixels outside the range of 16-bit numbers")


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
        raise Refused(f"unsupported pixel format {image.mode!r}")
    grey = _to_8_bits(pixels)
    # Pillow turns such a file round when it has 8 bits or fewer, and not when it has 16.
    tags = getattr(image, "tag_v2", {})
    return 255 - grey if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO else grey


def _to_8_bits(pixels: np.ndarray) -> np.ndarray:
    if not np.isfinite(pixels).all() or pixels.min() < 0:
        raise Refused("pixels outside the range of 16-bit numbers")
    largest = pixels.max()
    fractions = largest <= 1 and (pixels % 1 != 0).any()
    white = 1 if fractions else full_scale(round(float(largest)))
    return np.rint(pixels.astype(np.float32) * (255.0 / white)).astype(np.uint8)


def _decode_dicom(data: bytes) -> np.ndarray:
    try:
        from sdfn_jax import dicom
    except ImportError as error:
        raise UserError(f"reading DICOM files takes more packages ({error}): pip install -e '.[dicom]'") from error
    return dicom.decode(data)


def _decode_jsrt(data: bytes) -> np.ndarray:
    pixels = np.frombuffer(data, ">u2").reshape(JSRT_SIDE, JSRT_SIDE)
    # The official files use 12 bits; anything above is clipped to "dark" rather than wrapped.
    grey = JSRT_MAXIMUM - np.minimum(pixels, JSRT_MAXIMUM)
    return np.rint(grey.astype(np.float32) * (255.0 / JSRT_MAXIMUM)).astype(np.uint8)


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file; of a pipe it does not wait for the other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
