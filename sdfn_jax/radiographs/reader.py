"""The one reader of every file format, shared by the data set builders, training and prediction.

A radiograph is an (H, W) uint8 array: 0 is black (air), 255 is white (bone), as on a film viewer.
"""

import io
import logging
import os
import stat
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from sdfn_jax.core import files
from sdfn_jax.core.errors import MissingPackageError
from sdfn_jax.core.extras import install_command
from sdfn_jax.radiographs import grey_levels, picture_files
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.radiographs.limits import MAX_BYTES, Refused, check_size
from sdfn_jax.radiographs.picture_files import is_dicom
from sdfn_jax.radiographs.quiet import silenced

# JSRT's headerless files: 2048 x 2048 big-endian 16-bit numbers, 12 bits used, a high value is dark.
JSRT_SIDE = 2048
JSRT_MAXIMUM = 4095
DICOM_SUFFIXES = (".dcm", ".dicom")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".img", *DICOM_SUFFIXES)

# Pillow logs what it finds in a file: invalid numbers, and at debug level the text in it.
logging.getLogger("PIL").addHandler(logging.NullHandler())
logging.getLogger("PIL").propagate = False

_log = logging.getLogger(__name__)
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
_PLANES = 2
# Colours of 16 bits per channel, and the byte order at the end of Pillow's layout names.
_DEEP_COLOURS = ("RGB", "RGBA", "RGBX")
_BYTE_ORDERS = {"B": "B", "L": "L", "N": "L" if sys.byteorder == "little" else "B"}
# How an image with the EXIF orientation 2 to 8 is turned upright (EXIF 3.0, 4.6.5.1).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Beginnings of files that are not read: offset, bytes, and name.
_KINDS = (
    (8, b"WEBP", "a WebP picture"),
    (4, b"ftyp", "an AVIF or HEIC picture, or a video"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (0, b"%PDF", "a PDF document"),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the file itself (git lfs pull fetches it)"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
)
_FORMAT_BEGINNINGS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF8": "GIF"} | dict.fromkeys(
    picture_files.TIFF_BEGINNINGS, "TIFF"
)
# Share of pixels above `JSRT_MAXIMUM` that a slightly damaged file may have.
_JSRT_OUTSIDE = 0.01
_JSRT_BYTES = JSRT_SIDE * JSRT_SIDE * 2


def read_radiograph(path: str | Path) -> np.ndarray:
    """Reads a radiograph as `read_with_flags` does, and logs its flags.

    Returns:
      (H, W) uint8, bones bright.
    """
    radiograph, flags = read_with_flags(path)
    for name in flags:
        _log.warning("%s: %s: %s", path, name, FLAGS[name])
    return radiograph


def read_with_flags(path: str | Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads a radiograph of any supported kind, recognised by its content.

    DICOM (`dicom`); PNG, JPEG, TIFF, BMP, GIF (8 or 16 bits, greyscale, palette, RGB or CMYK, with or
    without alpha), the first picture of several; and JSRT's `.IMG`, recognised by its suffix alone, as is a DICOM
    file without the letters DICM. A picture is turned upright by its EXIF orientation. Colour,
    transparency and more than 8 bits become grey levels by the rules of `grey_levels.as_radiograph`; gamma and colour
    profiles are not applied. A picture that would take a decoder unreasonable time or memory is refused
    (`picture_files`).

    Returns:
      (H, W) uint8, bones bright; and names from `flags.FLAGS` for unusable elements of a DICOM header, whose pixels are
      nevertheless sound.

    Raises:
      ValueError: in one line that begins with the file's path, for a file that cannot be decoded, has over `MAX_PIXELS`
        pixels or `MAX_BYTES` bytes, or no pixels; `.IMG` files must have exactly 8,388,608 bytes.
      OSError: for a file that cannot be opened.
      MissingPackageError: if DICOM needs packages that are not installed; an ImportError.
    """
    path = Path(path)
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("not a file")
            if not 0 < status.st_size <= MAX_BYTES:
                raise ValueError(f"{status.st_size:,} bytes; expected 1 to {MAX_BYTES:,}")
            return decode_with_flags(file.read(), path.suffix)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def decode(data: bytes, suffix: str = "") -> np.ndarray:
    """Decodes the bytes of an image file as `decode_with_flags` does, (H, W) uint8, without flags."""
    return decode_with_flags(data, suffix)[0]


def decode_with_flags(data: bytes, suffix: str = "") -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes the bytes of an image file, as `read_with_flags` does.

    Args:
      data: all of it.
      suffix: of the file's name, for kinds that only it identifies.

    Returns:
      (H, W) uint8; and names from `flags.FLAGS`.

    Raises:
      ValueError: in one line, for bytes that cannot be decoded.
      MissingPackageError: if DICOM needs packages that are not installed; an ImportError.
    """
    suffix = suffix.lower()
    if is_dicom(data):
        return _decode_dicom(data)
    if suffix == ".img" and len(data) == _JSRT_BYTES:
        return _decode_jsrt(data), ()
    try:
        with silenced():
            return _decode_picture(data), ()
    except UnidentifiedImageError:
        if files.is_web_page(data):
            raise Refused("a web page, not an image; download the file itself again") from None
        if suffix in DICOM_SUFFIXES:
            return _decode_dicom(data)
        if suffix == ".img":
            expected = f"a JSRT .IMG has {_JSRT_BYTES} ({JSRT_SIDE} x {JSRT_SIDE} x 16 bits)"
            raise Refused(f"{len(data)} bytes; {expected}") from None
        raise Refused(f"cannot be decoded ({_kind_of(data)})") from None
    except Refused:
        raise
    except Exception as error:  # Pillow raises nearly any error for a damaged file
        raise ValueError(f"cannot be decoded ({' '.join(str(error).split()) or type(error).__name__})") from error


def _decode_picture(data: bytes) -> np.ndarray:
    data, orientation = picture_files.essentials(data)
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        check_size((image.height, image.width))
        layouts = _deep_layouts(image)
        if layouts is None:
            image.load()
            grey = grey_levels.of_picture(image)
        else:
            grey = grey_levels.as_radiograph(_deep_channels(data, *layouts))
    if orientation == 1:
        return grey
    return np.asarray(Image.fromarray(grey).transpose(_TURNS[orientation]))


def _deep_layouts(image: ImageFile.ImageFile) -> tuple[str, str] | None:
    """Returns how to read all 16 bits per channel of a colour picture, or of grey with alpha; None for any other.

    Pillow has no such images and keeps only the upper byte of each number, located by the name of the file's layout.
    Reading the picture twice, once in each byte order, gives both bytes.

    Returns:
      the layouts that give the upper and the lower bytes; the second is empty if the first gives both.
    """
    tags = getattr(image, "tag_v2", {})
    depths = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
    if len(depths) > 1 and max(depths) > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == _PLANES:
        raise Refused("a TIFF of over 8 bits per channel in separate colour planes; save it interleaved, or as grey")
    layout = _layout(image.tile[0]) if image.tile else ""
    channels, _, order = layout.partition(";16")
    if order not in _BYTE_ORDERS or image.mode not in ("RGB", "RGBA", "CMYK"):
        return None
    if channels == "LA":
        return "RGBA", ""  # the four bytes as they are
    if channels not in _DEEP_COLOURS:
        raise Refused(f"unsupported pixel format {layout!r}")
    upper = _BYTE_ORDERS[order]
    return f"{channels};16{upper}", f"{channels};16{'B' if upper == 'L' else 'L'}"


def _layout(tile: ImageFile._Tile) -> str:
    """Returns Pillow's name for the layout of a part of a picture."""
    arguments = tile.args or ("",)
    return arguments if isinstance(arguments, str) else str(arguments[0])


def _deep_channels(data: bytes, upper: str, lower: str) -> np.ndarray:
    """Returns (H, W, C) uint16 of a picture, as `_deep_layouts` says it is read."""

    def read(layout: str) -> np.ndarray:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.tile = [
                tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
                for tile in image.tile
            ]
            image.load()
            return np.asarray(image)

    found = read(upper)
    if not lower:
        return found.view(">u2").astype(np.uint16)
    return found.astype(np.uint16) << 8 | read(lower)


def _kind_of(data: bytes) -> str:
    """Describes a file that Pillow does not recognise."""
    for start, magic, name in _KINDS:
        if data[start : start + len(magic)] == magic:
            return f"{name}; PNG, JPEG, TIFF, BMP, GIF, DICOM and JSRT's .IMG are read"
    for magic, name in _FORMAT_BEGINNINGS.items():
        if data.startswith(magic):
            return f"a {name} file, but damaged or of an unsupported kind"
    return "not an image file"


def _decode_dicom(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    try:
        from sdfn_jax.radiographs import dicom
    except ImportError as error:
        raise MissingPackageError(
            f"reading DICOM files needs more packages ({error}): {install_command('dicom')}"
        ) from error
    return dicom.decode(data)


def _decode_jsrt(data: bytes) -> np.ndarray:
    pixels = _jsrt_pixels(data)
    # A few numbers above 12 bits are clipped to "dark" rather than wrapped.
    grey = JSRT_MAXIMUM - np.minimum(pixels, JSRT_MAXIMUM)
    return np.rint(grey.astype(np.float32) * (255.0 / JSRT_MAXIMUM)).astype(np.uint8)


def _jsrt_pixels(data: bytes) -> np.ndarray:
    """Returns (2048, 2048) numbers in the byte order that gives 12-bit ones: JSRT's big-endian, or little-endian.

    Raises:
      Refused: if neither does.
    """
    for order in (">u2", "<u2"):
        pixels = np.frombuffer(data, order).reshape(JSRT_SIDE, JSRT_SIDE)
        if np.count_nonzero(pixels > JSRT_MAXIMUM) <= _JSRT_OUTSIDE * pixels.size:
            return pixels
    raise Refused(f"numbers over {JSRT_MAXIMUM:,} in either byte order; those of a JSRT .IMG have 12 bits")


def _open_at_once(path: str, flags: int) -> int:
    """Opens a file without waiting for the other end of a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
