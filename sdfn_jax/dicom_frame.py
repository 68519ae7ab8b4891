"""What a compressed image in a DICOM file says of itself, looked at before a decoder makes room for it."""

import dataclasses
import re

from pydicom import encaps, uid
from pydicom.dataset import Dataset

from sdfn_jax import picture_files
from sdfn_jax.dicom_header import Counted, numbers_of
from sdfn_jax.limits import Refused

# Frame headers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87): all of FFC0 to FFCF but FFC4, FFC8, FFCC; FFF7.
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]")
_JPEG_2000_SIZE = b"\xff\x4f\xff\x51"


def check(header: Dataset) -> None:
    """Looks at a compressed image before a decoder makes room for it, and has the header say of its bits what it does.

    Raises:
      Refused: for an image that is not of the size its header says, or that would take its decoder too long.
    """
    offsets = None
    if "ExtendedOffsetTable" in header:
        offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths)
    frame = encaps.get_frame(Counted(header.PixelData), 0, number_of_frames=1, extended_offsets=offsets)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax == uid.RLELossless:
        # Two bytes grow to at most 128, and what does not shrink grows by one in 128.
        if len(frame) > 2 * header.Rows * header.Columns * header.BitsAllocated // 8 + 1024:
            raise Refused("more pixel data than its rows and columns hold")
        return
    is_2000 = frame.find(_JPEG_2000_SIZE, 0, 1024) >= 0
    if not is_2000:
        picture_files.check_jpeg(frame)
    found = _jpeg_2000_frame(frame) if is_2000 else _jpeg_frame(frame)
    expected = (header.Rows, header.Columns, 1)
    size = None if found is None else (found.height, found.width, found.components)
    if found is None or size != expected:
        sizes = ["nothing readable" if each is None else "{} x {} x {}".format(*each) for each in (size, expected)]
        raise Refused("cannot be decoded (the compressed image is {}, where its header says {})".format(*sizes))
    _take_bits(header, found)


def _take_bits(header: Dataset, frame: "_Frame") -> None:
    """Has the header say of a pixel's bits what the compressed image says, where they differ.

    Decoders give bytes for up to 8 bits, whatever the header says, and pydicom takes them for the header's.
    """
    if frame.bits > 16:
        raise Refused(f"{frame.bits} bits a pixel, where at most 16 are read")
    if (frame.bits > 8) != (header.BitsAllocated > 8):
        if header.BitsStored > frame.bits and not frame.signed:
            header.PixelRepresentation = 0  # the sign would be in a bit that is not there
        header.BitsAllocated = 8 if frame.bits <= 8 else 16
        header.BitsStored = frame.bits
    if frame.bits <= max(numbers_of(header, "HighBit"), default=0):
        header.HighBit = header.BitsStored - 1


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What a compressed image says of itself.

    Attributes:
      height: pixels.
      width: pixels.
      components: 1 for grey.
      bits: of a number.
      signed: whether numbers may be negative; only JPEG 2000 says it.
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
    start = data.find(_JPEG_2000_SIZE) + 8
    if len(found := data[start : start + 35]) < 35:
        return None
    right, bottom, left, top = (int.from_bytes(found[4 * i : 4 * i + 4]) for i in range(4))
    bits = found[34]
    return _Frame(bottom - top, right - left, int.from_bytes(found[32:34]), (bits & 0x7F) + 1, bits >= 0x80)
