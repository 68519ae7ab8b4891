"""Checks the outer structure of JPEG, PNG, GIF, TIFF and BMP files before they are decoded.

A small file can keep a decoder busy for hours: a JPEG with thousands of scans, a PNG with comments that inflate, a TIFF
with tags that all claim the same bytes. This module counts such work in one pass over the file, without decoding, and
refuses what no camera, scanner or program writes. Comments, profiles and previews, which do not affect a radiograph's
grey levels, never reach the decoder; only the orientation is read from EXIF.
"""

import re
from collections.abc import Iterator
from typing import Literal

import numpy as np

from sdfn_jax.radiographs.limits import MAX_BYTES, MAX_PIXELS, Refused

# As in libtiff, for the same reason (tif_jpeg.c, JPEG_MAX_ALLOWED_SCAN_NUMBER); encoders write 6 to some 20.
MAX_SCANS = 100
# Pixels of one component that the scans of a JPEG cover, all scans together; a progressive colour JPEG of ten
# scans, as libjpeg writes it, has 14 for each of its pixels. That many take libjpeg 1 s, and the DICOM decoder 4 s.
_MAX_SCANNED = 20 * MAX_PIXELS
# Pieces of a file: as many as fill MAX_BYTES with a JPEG's longest segments (64 KiB) or a PNG's usual chunks (8 KiB).
_MAX_SEGMENTS = MAX_BYTES // 2**16
_MAX_CHUNKS = MAX_BYTES // 2**13
# Entries of all TIFF tags but text and bytes: offsets of strips and tiles, the smallest of which have 16 x 16 pixels.
_MAX_NUMBERS = 2**20
# Pixels and bytes of a run-length coded BMP, which Pillow decodes in Python.
_MAX_RLE = 2**24

_MARKER = re.compile(rb"\xff+([\xc0-\xcf\xd8-\xfe])")  # not stuffed zeros, restarts or what JPEG-LS has in its data
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # T.81, table B.1; T.87
_SOI, _EOI, _SOS, _EXIF = 0xD8, 0xD9, 0xDA, 0xE1
# APP1 to APP13, APP15 and comments. APP0 (JFIF) and APP14 (Adobe) define how colours are coded.
_JPEG_EXTRAS = {*range(0xE1, 0xEE), 0xEF, 0xFE}

# In either byte order, with offsets of 32 and of 64 bits.
TIFF_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes of a TIFF field by its type (TIFF 6.0; 16 to 18: BigTIFF).
_FIELD_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TEXT_OR_BYTES = (1, 2, 6, 7)
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}
_WIDTH, _LENGTH, _COMPRESSION, _ORIENTATION, _TILE_WIDTH, _TILE_LENGTH = 256, 257, 259, 274, 322, 323
_PIECES = ((273, 279), (324, 325))  # offsets and byte counts of strips, and of tiles
_DIRECTORIES = (34665, 34853, 40965)  # EXIF, GPS, interoperability: directories that Pillow reads too
_JPEG_COMPRESSIONS = (6, 7)


def essentials(data: bytes) -> tuple[bytes, int]:
    """Refuses a file that would take a decoder unreasonable time or memory, and drops everything but the image.

    Args:
      data: a file of any kind; the decoder refuses one that is damaged or not an image.

    Returns:
      the file, which decodes to the same image, and the image's EXIF orientation, 1 to 8.

    Raises:
      Refused: for such a file.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return _gif(data), 1
    if data.startswith(TIFF_BEGINNINGS):
        _check_tiff(data)  # which Pillow turns upright itself
    if data.startswith(b"BM"):
        _check_bmp(data)
    return data, 1


def check_jpeg(data: bytes) -> None:
    """Refuses a JPEG or JPEG-LS stream that would keep its decoder busy far longer than its size warrants.

    Args:
      data: from its first marker on. The decoder refuses a damaged one.

    Raises:
      Refused: for more than `MAX_SCANS` scans, or if the scans together cover too many pixels.
    """
    _check_scanned(_scanned_pixels(data))


def _check_scanned(pixels: int) -> None:
    if pixels > _MAX_SCANNED:
        raise Refused(f"its JPEG scans cover {pixels:,} pixels, more than the {_MAX_SCANNED:,} that are read")


def _scanned_pixels(data: bytes) -> int:
    """Returns how many pixels of one component all scans of a JPEG stream cover."""
    pixels = scans = scanned = 0
    for marker, start, end in _segments(data):
        if marker in _FRAMES and end - start >= 9:
            pixels = int.from_bytes(data[start + 5 : start + 7]) * int.from_bytes(data[start + 7 : start + 9])
        elif marker == _SOS and end - start >= 5:
            scans += 1
            scanned += pixels * data[start + 4]
            if scans > MAX_SCANS:
                raise Refused(f"a JPEG with over {MAX_SCANS} scans")
    return scanned


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, end) of each segment of a JPEG, without entropy-coded data."""
    place = 0
    for _ in range(_MAX_SEGMENTS):
        found = _MARKER.search(data, place)
        if found is None:
            return
        marker, start = found[1][0], found.end() - 2
        place = start + 2
        if marker == _EOI:
            return
        if marker != _SOI:
            place += int.from_bytes(data[place : place + 2])
        yield marker, start, min(place, len(data))
    raise Refused(f"a JPEG with over {_MAX_SEGMENTS:,} segments")


def _jpeg(data: bytes) -> tuple[bytes, int]:
    check_jpeg(data)
    orientation, kept = 1, []
    for marker, start, end in _segments(data):
        if marker == _SOS:
            kept.append(data[start:])
            break
        if marker == _EXIF and data[start + 4 : start + 10] == b"Exif\0\0":
            orientation = _orientation(data[start + 10 : end])
        if marker not in _JPEG_EXTRAS:
            kept.append(data[start:end])
    return b"".join(kept), orientation


def _png(data: bytes) -> tuple[bytes, int]:
    orientation, kept, place = 1, [data[:8]], 8
    for _ in range(_MAX_CHUNKS):
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        end = place + 12 + length
        if kind == b"eXIf":
            orientation = _orientation(data[place + 8 : end - 4])
        # A lower-case first letter marks a chunk that a decoder may skip. Only transparency changes the image.
        if not kind[:1].islower() or kind == b"tRNS":
            kept.append(data[place:end])
        place = end
        if kind == b"IEND" or place >= len(data):
            return b"".join(kept), orientation
    raise Refused(f"a PNG with over {_MAX_CHUNKS:,} chunks")


def _gif(data: bytes) -> bytes:
    """Drops everything before the first image except the extension with its transparent colour."""
    place = 13 + _palette_bytes(data, 10)
    kept = [data[:place]]
    blocks = 0
    while data[place : place + 1] == b"!":
        start, control = place, data[place + 1 : place + 2] == b"\xf9"
        place += 2
        while size := data[place] if place < len(data) else 0:
            place += 1 + size
            blocks += 1
            if blocks > _MAX_CHUNKS:
                raise Refused(f"a GIF with over {_MAX_CHUNKS:,} blocks of comments before its image")
        place += 1
        if control:
            kept.append(data[start:place])
    return b"".join([*kept, data[place:]])


def _palette_bytes(data: bytes, flags: int) -> int:
    if flags >= len(data) or not data[flags] & 128:
        return 0
    return 3 << (data[flags] & 7) + 1


def _check_bmp(data: bytes) -> None:
    header = data[:34]
    if int.from_bytes(header[14:18], "little") < 40 or header[30:34] not in (b"\1\0\0\0", b"\2\0\0\0"):
        return
    width, height = (int.from_bytes(header[start : start + 4], "little", signed=True) for start in (18, 22))
    if max(abs(width * height), len(data)) > _MAX_RLE:
        raise Refused(f"a run-length coded BMP of over {_MAX_RLE:,} pixels or bytes; save it as PNG")


class _Directory:
    """The fields of a TIFF directory; values are read on demand."""

    def __init__(self, data: bytes, offset: int | None = None):
        """Reads the directory at `offset`, or the first one. A missing or truncated one has fewer fields."""
        self._data = data
        self._order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        self._big = self._number(2, 2) == 43
        self._wide = 8 if self._big else 4
        count_size, field_size = (8, 20) if self._big else (2, 12)
        if offset is None:
            offset = self._number(self._wide, self._wide)
        count = self._number(offset, count_size)
        if count >= 2**16:
            raise Refused("a TIFF directory with over 65,535 tags")
        self._fields: dict[int, tuple[int, int, int, int]] = {}  # tag: type, number, place, bytes
        for place in range(offset + count_size, offset + count_size + count * field_size, field_size):
            if place + field_size > len(data):
                break
            kind, entries = self._number(place + 2, 2), self._number(place + 4, self._wide)
            size = entries * _FIELD_SIZES.get(kind, 0)
            start = place + 4 + self._wide
            if size > self._wide:
                start = self._number(start, self._wide)
            self._fields.setdefault(self._number(place, 2), (kind, entries, start, size))

    def _number(self, place: int, size: int) -> int:
        return int.from_bytes(self._data[place : place + size], self._order)

    def bytes(self) -> int:
        """Returns how many bytes of the file its values claim, counting shared bytes each time."""
        return sum(min(size, max(len(self._data) - start, 0)) for _, _, start, size in self._fields.values())

    def numbers(self) -> int:
        """Returns the count of numbers in its values."""
        return sum(entries for kind, entries, *_ in self._fields.values() if kind not in _TEXT_OR_BYTES)

    def values(self, tag: int) -> np.ndarray:
        """Returns the whole numbers of a tag, (N,) int64; empty if the tag is missing or of another type."""
        kind, entries, start, size = self._fields.get(tag, (0, 0, 0, 0))
        if kind not in _INTEGERS or start + size > len(self._data):
            return np.zeros(0, np.int64)
        order = "<" if self._order == "little" else ">"
        found = np.frombuffer(self._data, order + _INTEGERS[kind], entries, start)
        return np.minimum(found.astype(np.uint64), np.uint64(2**62)).astype(np.int64)

    def value(self, tag: int) -> int | None:
        """Returns the first number of a tag."""
        found = self.values(tag)
        return int(found[0]) if found.size else None


def _orientation(exif: bytes) -> int:
    """Returns the orientation, 1 to 8, from EXIF data, which are a small TIFF (EXIF 3.0, 4.6.5.1)."""
    if not exif.startswith(TIFF_BEGINNINGS):
        return 1
    found = _Directory(exif).value(_ORIENTATION) or 1
    return found if 1 <= found <= 8 else 1


def _check_tiff(data: bytes) -> None:
    first = _Directory(data)
    directories = [first]
    for tag in _DIRECTORIES:
        for parent in tuple(directories):
            if (offset := parent.value(tag)) is not None:
                directories.append(_Directory(data, offset))
    if sum(each.bytes() for each in directories) > 2 * len(data):
        raise Refused("a TIFF whose tags claim more bytes than it has")
    if sum(each.numbers() for each in directories) > _MAX_NUMBERS:
        raise Refused(f"a TIFF with over {_MAX_NUMBERS:,} numbers in its tags")
    width, length = first.value(_WIDTH), first.value(_LENGTH)
    tile_width, tile_length = first.value(_TILE_WIDTH), first.value(_TILE_LENGTH)
    if width and length and tile_width and tile_length:
        padded = -(-width // tile_width) * tile_width * -(-length // tile_length) * tile_length
        if padded > 2 * MAX_PIXELS:
            raise Refused(f"a TIFF whose tiles have {padded:,} pixels, more than the {2 * MAX_PIXELS:,} that are read")
    if first.value(_COMPRESSION) in _JPEG_COMPRESSIONS:
        _check_tiff_jpeg(data, first)


def _check_tiff_jpeg(data: bytes, directory: _Directory) -> None:
    """libtiff limits the scans of each strip or tile, but there can be many of these, all of the same bytes."""
    scanned = claimed = 0
    for offsets, counts in _PIECES:
        for start, size in zip(directory.values(offsets), directory.values(counts), strict=False):
            piece = data[start : start + size]
            claimed += len(piece)
            if claimed > 2 * len(data):
                raise Refused("a TIFF whose strips or tiles claim more bytes than it has")
            scanned += _scanned_pixels(piece)
            _check_scanned(scanned)


# Bytes before a DICOM file's first element: 128 of anything and the four letters DICM.
DICOM_PREFIX = 132


def is_dicom(data: bytes) -> bool:
    """Returns whether bytes, of which the first 132 are enough, begin like a DICOM file."""
    return data[DICOM_PREFIX - 4 : DICOM_PREFIX] == b"DICM"
