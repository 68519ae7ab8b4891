"""DICOM radiographs (CR, DX, secondary capture) as a viewing station shows them: pydicom decodes, this file decides.

The order is the standard's (PS3.4, N.2): modality rescale or LUT, VOI LUT or window, inversion. Only the elements that
this takes are read (`_ELEMENTS`): a patient's name never enters the program, and what pydicom and the decoders say of a
file, in messages, warnings or logs, goes no further, because it may quote its header.
"""

import io
import logging
import re
import zlib

import numpy as np
import pydicom
from pydicom import encaps, filereader, pixels, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

from sdfn_jax.errors import UserError
from sdfn_jax.images import DICOM_PREFIX, MAX_BYTES, Refused, check_size, full_scale, is_dicom
from sdfn_jax.silence import silenced

_ELEMENTS = tuple(
    tag_for_keyword(name)
    for name in (
        "SOPClassUID",
        "NumberOfFrames",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "ModalityLUTSequence",
        "RescaleSlope",
        "RescaleIntercept",
        "VOILUTSequence",
        "VOILUTFunction",
        "WindowCenter",
        "WindowWidth",
        "PresentationLUTShape",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
        "PixelData",
    )
)
_NEEDED = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
_GREY = ("MONOCHROME1", "MONOCHROME2")
# Of the decoders that pydicom may find, always these: the same pixels everywhere, and none that a damaged file was seen
# to bring down (pylibjpeg-rle 2.2 panics).
_DECODER = "pylibjpeg"
_RLE_DECODER = "pydicom"
# Frame headers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87): all of FFC0 to FFCF but FFC4, FFC8, FFCC; FFF7.
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]")
_JPEG_2000_SIZE = b"\xff\x4f\xff\x51"

# pydicom logs what it warns of, values and all; its decoders' loggers are below this one.
logging.getLogger("pydicom").disabled = True
logging.getLogger("pydicom").propagate = False


def decode(data: bytes) -> np.ndarray:
    """Decodes the bytes of a DICOM file.

    Of several windows the first is taken, and a VOI LUT before a window. Its output range is the display's. Without
    either, the range is that of the stored numbers: 0 up to the smallest of 8, 10, 12, 14 or 16 bits (and at most Bits
    Stored) that holds the largest one, as for a PNG, and smallest to largest where some are negative; a rescale does
    not change that. A LUT's range is found in the same way from its own entries. MONOCHROME1 and the presentation shape
    INVERSE are two ways to say one thing (PS3.3, C.8.11.1.1.2): either, or both, invert once. Pixel padding counts in
    no range and is black.

    Returns:
      (H, W) uint8, bones bright.

    Raises:
      ValueError: for what is not one greyscale image, or cannot be decoded. The message holds no text of the header.
      UserError: where the decoder of a compressed file is not installed.
    """
    with silenced():
        try:
            return _to_8_bits(_read(data))
        except (Refused, UserError):
            raise
        except Exception as error:  # pydicom and decoders raise anything for a damaged file, and quote the header in it
            kind = type(error).__name__
            raise ValueError(f"cannot be decoded (DICOM header or pixel data damaged: {kind})") from None


def _read(data: bytes) -> Dataset:
    """Returns the elements we take, those without a value left out."""
    _check_inflated(data, DICOM_PREFIX if is_dicom(data) else 0)
    header = pydicom.dcmread(io.BytesIO(data), force=True, specific_tags=list(_ELEMENTS))
    for element in list(header):
        if element.is_empty:
            del header[element.tag]
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = {
            (True, True): uid.ImplicitVRLittleEndian,
            (False, True): uid.ExplicitVRLittleEndian,
            (False, False): uid.ExplicitVRBigEndian,
        }[header.original_encoding]
    return header


def _check_inflated(data: bytes, start: int) -> None:
    """pydicom inflates a deflated file whole, however large it becomes."""
    stream = io.BytesIO(data)
    stream.seek(start)
    meta = filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") == uid.DeflatedExplicitVRLittleEndian:
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        inflater.decompress(stream.read(), MAX_BYTES)
        if inflater.unconsumed_tail:
            raise Refused(f"inflates to over {MAX_BYTES:,} bytes")


def _to_8_bits(header: Dataset) -> np.ndarray:
    stored = _stored(header)
    # All that follows looks at each pixel by itself: done once for each of the 65,536 numbers there can be, at most.
    smallest = int(stored.min())
    places = stored.astype(np.int32) - smallest
    numbers = np.arange(smallest, int(stored.max()) + 1, dtype=np.int32)
    padding = _is_padding(numbers, header)
    occurs = np.bincount(places.ravel(), minlength=len(numbers)) > 0
    shown, black, white = _display_values(numbers, numbers[occurs & ~padding], header)
    grey = np.clip((shown - black) / (white - black), 0, 1)
    if header.PhotometricInterpretation == "MONOCHROME1" or header.get("PresentationLUTShape") == "INVERSE":
        grey = 1 - grey
    grey[padding] = 0
    return np.rint(grey * 255).astype(np.uint8)[places]


def _stored(header: Dataset) -> np.ndarray:
    """Returns the stored numbers, (H, W), 8 or 16 bits, signed or not."""
    _check_is_radiograph(header)
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        raise Refused(f"its transfer syntax ({_name(syntax)}) is not one of those read") from None
    plugin = "" if not syntax.is_encapsulated else _RLE_DECODER if syntax == uid.RLELossless else _DECODER
    if plugin and plugin not in decoder.available_plugins:
        raise UserError(f"reading DICOM files in {_name(syntax)} takes more packages: pip install -e '.[dicom]'")
    if syntax.is_encapsulated:
        _check_frame(header)
    else:
        # at least 8 bits a pixel, but for bits packed by eight
        expected = -(-header.Rows * header.Columns * header.BitsAllocated // 8)
        if len(header.PixelData) < expected:
            raise Refused(f"truncated: {len(header.PixelData):,} bytes of pixel data where {expected:,} belong")
    return decoder.as_array(header, index=0, raw=True, decoding_plugin=plugin)[0]


def _check_is_radiograph(header: Dataset) -> None:
    kind = _name(header.get("SOPClassUID", ""))
    if "PixelData" not in header:
        raise Refused(f"a DICOM object without an image ({kind})")
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise Refused(f"its DICOM header lacks {', '.join(missing)}")
    frames = header.get("NumberOfFrames", 1)
    if frames != 1:
        raise Refused(f"{int(frames)} frames ({kind}), where a radiograph is one")
    photometric = header.PhotometricInterpretation
    if header.SamplesPerPixel != 1 or photometric not in _GREY:
        known = photometric if photometric in list(pixels.common.PhotometricInterpretation) else "of an unknown kind"
        raise Refused(f"a colour image ({known}; {kind}), where a radiograph is grey (MONOCHROME1 or MONOCHROME2)")
    if header.BitsAllocated > 16:
        raise Refused(f"{int(header.BitsAllocated)} bits a pixel ({kind}), where at most 16 are read")
    check_size((int(header.Rows), int(header.Columns)))


def _name(identifier: str) -> str:
    return uid.UID_dictionary[identifier][0] if identifier in uid.UID_dictionary else "of no known class"


def _check_frame(header: Dataset) -> None:
    """Refuses a compressed image that is not of the size its header says, before a decoder makes room for it."""
    offsets = None
    if "ExtendedOffsetTable" in header:
        offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths)
    frame = encaps.get_frame(header.PixelData, 0, number_of_frames=1, extended_offsets=offsets)
    syntax = header.file_meta.TransferSyntaxUID
    expected = (header.Rows, header.Columns, 1)
    if syntax == uid.RLELossless:
        # Two bytes grow to at most 128, and what does not shrink grows by one in 128.
        if len(frame) > 2 * header.Rows * header.Columns * header.BitsAllocated // 8 + 1024:
            raise Refused("more pixel data than its rows and columns hold")
        return
    found = _jpeg_2000_size(frame) if frame.find(_JPEG_2000_SIZE, 0, 1024) >= 0 else _jpeg_size(frame)
    if found != expected:
        sizes = ["nothing readable" if size is None else "{} x {} x {}".format(*size) for size in (found, expected)]
        raise Refused("cannot be decoded (the compressed image is {}, where its header says {})".format(*sizes))


def _jpeg_size(frame: bytes) -> tuple[int, int, int] | None:
    """Returns (height, width, components) as a JPEG or JPEG-LS stream states them."""
    place = 2
    while (marker := frame[place : place + 2]) and len(marker) == 2 and marker[0] == 0xFF:
        if marker[1] == 0xFF:  # fill
            place += 1
            continue
        if _JPEG_FRAME.match(marker):
            size = frame[place + 5 : place + 10]
            if len(size) < 5:
                return None
            return int.from_bytes(size[:2]), int.from_bytes(size[2:4]), size[4]
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int] | None:
    """Returns (height, width, components) as a JPEG 2000 code stream states them (ITU-T T.800, A.5.1)."""
    start = frame.find(_JPEG_2000_SIZE) + 8
    right, bottom, left, top = (int.from_bytes(frame[start + 4 * i : start + 4 * i + 4]) for i in range(4))
    return bottom - top, right - left, int.from_bytes(frame[start + 32 : start + 34])


def _is_padding(numbers: np.ndarray, header: Dataset) -> np.ndarray:
    """Returns which stored numbers, (N,), stand for what lies outside the image proper (PS3.3, C.7.5.1.1.2)."""
    if "PixelPaddingValue" not in header:
        return np.zeros(numbers.shape, bool)
    first = header.PixelPaddingValue
    first, last = sorted((first, header.get("PixelPaddingRangeLimit", first)))
    return (numbers >= first) & (numbers <= last)


def _display_values(numbers: np.ndarray, used: np.ndarray, header: Dataset) -> tuple[np.ndarray, float, float]:
    """Returns the values of stored numbers, (N,), after modality and VOI, and which of these are black and white.

    `used` are the numbers that occur in the image proper, in order.
    """
    if "ModalityLUTSequence" in header:
        _widen(header.ModalityLUTSequence)
    values = apply_modality_lut(numbers, header)
    if "VOILUTSequence" in header:
        _widen(header.VOILUTSequence)
        every = _every_index(header.VOILUTSequence)
        # What lies beyond the table has the value of its end, here as in pydicom, whose 16 bits it would not fit.
        indices = np.clip(np.rint(values), every[0], every[-1]).astype(np.int32)
        return apply_voi(indices, header), 0, full_scale(int(apply_voi(every, header).max()))
    if "WindowCenter" in header and "WindowWidth" in header:
        return apply_windowing(values, header), *apply_windowing(np.array([-np.inf, np.inf]), header)
    if "ModalityLUTSequence" in header:
        every = _every_index(header.ModalityLUTSequence)
        return values, 0, full_scale(int(apply_modality_lut(every, header).max()))
    ends = apply_modality_lut(np.array(_stored_range(used, header)), header)
    return values, ends.min(), ends.max()


def _widen(sequence: list[Dataset]) -> None:
    """Lets pydicom hold a LUT's entries and its indices in 16 bits.

    It takes both in the bits of the descriptor's third value: for 12 it finds no type, and for 8 it counts the entries
    modulo 256. Nothing else hangs on that value, except a window's output range, which we ask pydicom for.
    """
    descriptor = sequence[0].LUTDescriptor
    sequence[0].LUTDescriptor = [descriptor[0], descriptor[1], 16]


def _every_index(sequence: list[Dataset]) -> np.ndarray:
    """Returns all the numbers that a LUT can tell apart, (65536,) int32."""
    return sequence[0].LUTDescriptor[1] + np.arange(2**16, dtype=np.int32)


def _stored_range(used: np.ndarray, header: Dataset) -> tuple[int, int]:
    if used.size == 0:
        return 0, 1  # nothing but padding
    smallest, largest = int(used[0]), int(used[-1])
    if smallest >= 0:
        return 0, min(full_scale(largest), max(2**header.BitsStored - 1, largest))
    return smallest, max(largest, smallest + 1)
