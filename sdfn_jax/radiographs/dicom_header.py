"""Reads the elements of a DICOM header that are used, and no others, within bounds of time and memory.

pydicom has no bounds: it reads zeros as millions of elements and inflates a deflated file whole. It also logs and
quotes what it reads, and raises nearly any error for a value that does not fit its VR.
"""

import contextlib
import io
import logging
import math
import zlib
from collections.abc import Sequence

from pydicom import filereader, uid
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from sdfn_jax.radiographs.limits import MAX_PIXELS, Refused
from sdfn_jax.radiographs.picture_files import DICOM_PREFIX, is_dicom

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
_SEQUENCES = (tag_for_keyword("ModalityLUTSequence"), tag_for_keyword("VOILUTSequence"))
_CHARACTER_SET = tag_for_keyword("SpecificCharacterSet")
# The longest elements, in bytes, that pydicom converts: a few LUTs of the largest size; the limit of most explicit VRs.
_LONGEST = {tag: 2**20 if tag in _SEQUENCES else 2**16 for tag in (*_ELEMENTS, _CHARACTER_SET)}
del _LONGEST[tag_for_keyword("PixelData")]
_UNDEFINED_LENGTH = 2**32 - 1
# The header of a radiograph has some hundred elements and is read in as many steps; this many take a second or two.
_MOST_STEPS = 100_000
# Bytes of a deflated file, inflated: pixels of 16 bits, and a header.
_MOST_INFLATED = 2 * MAX_PIXELS + 2**24

# pydicom logs its warnings, including values; its decoders' loggers are children of this one.
logging.getLogger("pydicom").disabled = True
logging.getLogger("pydicom").propagate = False


def read(data: bytes) -> Dataset:
    """Returns the used elements that have a value."""
    header = filereader.read_partial(
        Counted(_inflated(data)), stop_when=_check_element, force=True, specific_tags=list(_ELEMENTS)
    )
    if not is_dicom(data) and not header:
        raise Refused("cannot be decoded (named like a DICOM file, but without any element of a DICOM image)")
    for tag in list(header.keys()):
        if tag in _SEQUENCES:
            header.add_new(tag, "SQ", _items(header.get_item(tag)))
        with contextlib.suppress(Exception):  # an unreadable element is handled where it is used
            if header[tag].is_empty:
                del header[tag]
    if "TransferSyntaxUID" not in header.file_meta:
        header.file_meta.TransferSyntaxUID = {
            (True, True): uid.ImplicitVRLittleEndian,
            (False, True): uid.ExplicitVRLittleEndian,
            (False, False): uid.ExplicitVRBigEndian,
        }[header.original_encoding]
    return header


def numbers_of(header: Dataset, keyword: str) -> list[float]:
    """Returns the values of an element: NaN for anything but a finite number, none for a missing element."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom raises many kinds of errors for a value that does not fit its VR
        return [math.nan]
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, str | bytes) or not hasattr(value, "__iter__") else value
    return [_finite(each) for each in values]


def text(header: Dataset, keyword: str) -> str:
    """Returns the value of an element as text; empty if it is missing or cannot be read."""
    try:
        return str(header.get(keyword) or "").strip()
    except Exception:
        return ""


def _finite(value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


class Counted(io.BytesIO):
    """Bytes of a file from which pydicom may read a limited number of times; it takes up to three per element."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self._steps = 0
        self._at_character_set = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as any file does."""
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise Refused("its DICOM header has more elements than any radiograph's")
        data = super().read(size)
        # The one element whose value pydicom reads within sequences. For some VRs the length is read separately.
        if self._at_character_set and len(data) > _LONGEST[_CHARACTER_SET]:
            raise Refused(f"its element SpecificCharacterSet has {len(data):,} bytes")
        if size != 4:
            self._at_character_set = size == 8 and data[:4] in (b"\x08\x00\x05\x00", b"\x00\x08\x00\x05")
        return data


def _items(element: DataElement | RawDataElement) -> Sequence[Dataset]:
    """Returns the items of a sequence, read like the header; one empty item for bytes that are not a sequence."""
    if isinstance(element, DataElement):  # of undefined length: already read
        return element.value
    implicit = element.is_implicit_VR or element.VR == "UN"  # PS3.5, 6.2.2, note 4
    try:
        return filereader.read_sequence(
            Counted(element.value or b""), implicit, element.is_little_endian, element.length, "iso8859"
        )
    except Exception:  # also of too many steps
        return [Dataset()]


def _check_element(tag: int, vr: str | None, length: int) -> bool:
    """Refuses an element that is longer than any sound one: pydicom takes long to convert it."""
    if tag in _LONGEST and _LONGEST[tag] < length < _UNDEFINED_LENGTH:
        raise Refused(f"its element {keyword_for_tag(tag)} has {length:,} bytes")
    return False


def _inflated(data: bytes) -> bytes:
    """Returns a file as it is; a deflated one (PS3.5, A.5) inflated, up to a limit, which pydicom does not have."""
    stream = Counted(data)
    stream.seek(DICOM_PREFIX if is_dicom(data) else 0)
    meta = filereader.read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag.group != 2)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return data
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(stream.read(), _MOST_INFLATED)
    if inflater.unconsumed_tail:
        raise Refused(f"inflates to over {_MOST_INFLATED:,} bytes")
    return inflated
