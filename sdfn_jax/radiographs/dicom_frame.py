"""Checks the headers of a compressed image in a DICOM file before a decoder allocates memory for it."""

import dataclasses
import re
from collections.abc import Iterator

from pydicom import encaps, uid
from pydicom.dataset import Dataset

from sdfn_jax.radiographs import picture_files
from sdfn_jax.radiographs.dicom_header import Counted, numbers_of
from sdfn_jax.radiographs.limits import Refused

# Frame headers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87): all of FFC0 to FFCF but FFC4, FFC8, FFCC; FFF7.
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]")
# Markers of JPEG 2000 (ITU-T T.800, table A.2).
_JPEG_2000_SIZE = b"\xff\x4f\xff\x51"
_START_OF_TILE_PART, _START_OF_DATA, _END_OF_STREAM = b"\xff\x90", b"\xff\x93", b"\xff\xd9"
# COD and COC, and bytes of what they begin with; for at most 256 components, of which one is read.
_CODING_STYLES = {b"\xff\x52": 5, b"\xff\x53": 2}
# Of an image of MAX_PIXELS, blocks of 8 x 8; and as many tile-parts as there can be tiles, with two segments each.
_MOST_BLOCKS = 2**20 + 2**14
_MOST_SEGMENTS = 2**18


def check(header: Dataset) -> None:
    """Checks a compressed image before it is decoded, and adjusts the DICOM header to the bits of the image.

    Raises:
      Refused: for an image whose size differs from the DICOM header's, or that would take its decoder too long.
    """
    offsets = None
    if "ExtendedOffsetTable" in header:
        offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths)
    frame = encaps.get_frame(Counted(header.PixelData), 0, number_of_frames=1, extended_offsets=offsets)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == uid.RLELossless:
        # Two bytes expand to at most 128, and incompressible data grow by one byte in 128.
        if len(frame) > 2 * header.Rows * header.Columns * header.BitsAllocated // 8 + 1024:
            raise Refused("more pixel data than its rows and columns hold")
        return
    start = frame.find(_JPEG_2000_SIZE, 0, 1024)
    if start < 0:
        picture_files.check_jpeg(frame)
    found = _jpeg_frame(frame) if start < 0 else _jpeg_2000_frame(frame[start:])
    expected = (header.Rows, header.Columns, 1)
    size = None if found is None else (found.height, found.width, found.components)
    if found is None or size != expected:
        sizes = ["nothing readable" if each is None else "{} x {} x {}".format(*each) for each in (size, expected)]
        raise Refused("cannot be decoded (the compressed image is {}, but its header says {})".format(*sizes))
    if start >= 0:
        _check_blocks(frame[start:], found)
    _take_bits(header, found)


def _take_bits(header: Dataset, frame: "_Frame") -> None:
    """Adjusts the header's bits per pixel to those of the compressed image, if they differ.

    Decoders return bytes for up to 8 bits, whatever the header says, and pydicom interprets them by the header.
    """
    if frame.bits > 16:
        raise Refused(f"{frame.bits} bits per pixel; at most 16 are read")
    if (frame.bits > 8) != (header.BitsAllocated > 8):
        if header.BitsStored > frame.bits and not frame.signed:
            header.PixelRepresentation = 0  # the sign bit does not exist
        header.BitsAllocated = 8 if frame.bits <= 8 else 16
        header.BitsStored = frame.bits
    if frame.bits <= max(numbers_of(header, "HighBit"), default=0):
        header.HighBit = header.BitsStored - 1


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The header of a compressed image.

    Attributes:
      height: pixels.
      width: pixels.
      components: 1 for grey.
      bits: of a number.
      signed: whether numbers may be negative; only JPEG 2000 states it.
    """

    height: int
    width: int
    components: int
    bits: int
    signed: bool = False


def _jpeg_frame(data: bytes) -> _Frame | None:
    """Reads the frame header of a JPEG or JPEG-LS stream (ITU-T T.81, B.2.2)."""
    place = 2
    while (marker := data[place : place + 2]) and len(marker) == 2 and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # fill
            place += 1
            continue
        if _JPEG_FRAME.match(marker):
            if len(found := data[place + 4 : place + 10]) < 6:
                return None
            return _Frame(int.from_bytes(found[1:3]), int.from_bytes(found[3:5]), found[5], bits=found[0])
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return None


def _jpeg_2000_frame(data: bytes) -> _Frame | None:
    """Reads the SIZ segment of a JPEG 2000 code stream (ITU-T T.800, A.5.1)."""
    if len(found := data[8:43]) < 35:
        return None
    right, bottom, left, top = (int.from_bytes(found[4 * i : 4 * i + 4]) for i in range(4))
    bits = found[34]
    return _Frame(bottom - top, right - left, int.from_bytes(found[32:34]), (bits & 0x7F) + 1, bits >= 0x80)


def _check_blocks(data: bytes, frame: _Frame) -> None:
    """Refuses a JPEG 2000 code stream of more code-blocks or precincts than a decoder has memory for.

    Encoders write blocks of 64 x 64 or 32 x 32 pixels. A block of 1 x 1 takes 500 bytes of memory and none of the file.
    """
    for style in _coding_styles(data):
        levels, width, height = style[0], (style[1] & 15) + 2, (style[2] & 15) + 2
        # of each resolution, the smallest first: width and height of its precincts, as powers of two
        precincts = [(size & 15, size >> 4) for size in style[5 : 6 + levels]] or [(15, 15)]
        smallest = [min(max(sizes[axis] - 1, 0) for sizes in precincts) for axis in (0, 1)]
        across, down = min(width, smallest[0]), min(height, smallest[1])
        blocks = (2 + (frame.width >> across)) * (2 + (frame.height >> down))
        if blocks > _MOST_BLOCKS:
            raise Refused(f"a JPEG 2000 image with over {_MOST_BLOCKS:,} code-blocks")


def _coding_styles(data: bytes) -> Iterator[bytes]:
    """Yields the COD and COC segments of a JPEG 2000 code stream, from the number of levels on (T.800, A.6).

    They are in the main header and in the headers of tile-parts, each of which states its length.
    """
    place, end = 2, 0
    for _ in range(_MOST_SEGMENTS):
        marker, length = data[place : place + 2], int.from_bytes(data[place + 2 : place + 4])
        if marker == _START_OF_TILE_PART:
            tile_part = int.from_bytes(data[place + 6 : place + 10])
            end = place + tile_part if tile_part else len(data)
        elif marker == _START_OF_DATA:
            place = max(end, place + 2)
            continue
        elif marker in _CODING_STYLES:
            # After the length: in COD its style and four bytes for all components; in COC the component and its style.
            body = data[place + 4 : place + 2 + length][_CODING_STYLES[marker] :]
            if len(body) >= 5:
                yield body
        if len(marker) < 2 or marker[0] != 0xFF or marker == _END_OF_STREAM:
            return
        place += 2 + length
    raise Refused(f"a JPEG 2000 image with over {_MOST_SEGMENTS:,} segments")
