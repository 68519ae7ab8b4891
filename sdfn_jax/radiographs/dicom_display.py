"""From the stored numbers of a DICOM radiograph to grey levels, by the display elements of its header.

The order is the standard's (PS3.4, N.2): modality rescale or LUT, VOI LUT or window, inversion. A VOI LUT or window
only selects what is shown: an unusable one is flagged and the next is used, or finally the range of the stored
numbers. A rescale or modality LUT defines what the numbers mean; without it not even dark and bright are known, so that
a file with an unusable one is refused. No error quotes the header.
"""

import dataclasses
import math

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from sdfn_jax.radiographs.dicom_header import numbers_of, text
from sdfn_jax.radiographs.limits import Refused
from sdfn_jax.radiographs.pixels import full_scale

# The smallest Window Width of each VOI LUT Function (PS3.3, C.11.2.1.2 and C.11.2.1.3); of the latter two, none is 0.
_LEAST_WIDTH = {"LINEAR": 1.0, "LINEAR_EXACT": math.ulp(0.0), "SIGMOID": math.ulp(0.0)}
_NO_RESCALE = (
    "its Rescale Slope and Intercept (0028,1053 and 0028,1052) cannot be used: not numbers, or all pixels become equal"
)


@dataclasses.dataclass(frozen=True, eq=False)
class _Lut:
    """A lookup table.

    Attributes:
      first: the number that maps to the first entry.
      entries: (N,) uint16.
      white: the largest number of its output range.
    """

    first: int
    entries: np.ndarray
    white: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Looks up values, (M,); others get the first or last entry (PS3.3, C.11.1.1 and C.11.2.1.1)."""
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[places.astype(np.int32)]


@dataclasses.dataclass(frozen=True)
class _Rescale:
    """Rescale Slope and Intercept; 1 and 0 unless a header has both."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        """Rescales numbers, (M,), to float64 (PS3.3, C.11.1.1.2)."""
        return numbers * self.slope + self.intercept

    def ends(self, ends: tuple[int, int]) -> np.ndarray:
        """Returns the rescaled ends of a range, (2,) float64; refuses an unusable rescale."""
        found = self(np.array(ends))
        if not np.isfinite(found).all() or found[0] == found[1]:
            raise Refused(_NO_RESCALE)
        return found


def show(cells: np.ndarray, header: Dataset) -> tuple[np.ndarray, set[str]]:
    """Converts pixels to grey levels as a viewing station does.

    A VOI LUT has priority over a window, and the first usable window is used. Its output range is the display's.
    Without either, the range is that of the stored numbers: 0 up to the smallest of 8, 10, 12, 14 or 16 bits (and at
    most Bits Stored) that holds the largest one, as for a PNG, and smallest to largest where some are negative; a
    rescale does not change that. A LUT's range is found in the same way, from its own entries and the bits that its
    descriptor states. MONOCHROME1 and the presentation shape INVERSE mean the same (PS3.3,
    C.8.11.1.1.2): either, or both, invert once. Pixel padding is excluded from ranges and black.

    Args:
      cells: (H, W), 8 or 16 bits, signed as Pixel Representation says: the pixel cells as they are in the file,
        including the bits next to those stored.
      header: has PhotometricInterpretation, BitsAllocated, BitsStored and PixelRepresentation, all of them sound.

    Returns:
      (H, W) uint8, bones bright; and names from `flags.FLAGS`.

    Raises:
      Refused: if a modality LUT or rescale cannot be used.
    """
    flags: set[str] = set()
    # Everything below treats pixels independently: it is done once per distinct cell, at most 65,536 times.
    smallest = int(cells.min())
    places = cells.astype(np.int32) - smallest
    different = np.arange(smallest, int(cells.max()) + 1, dtype=np.int32)
    occurs = np.bincount(places.ravel(), minlength=len(different)) > 0
    numbers = _stored_numbers(different, header)
    padding = _is_padding(different, numbers, header, flags)
    shown, black, white = _display_values(numbers, numbers[occurs & ~padding], header, flags)
    grey = np.clip((shown - black) / (white - black), 0, 1)
    if header.PhotometricInterpretation == "MONOCHROME1" or text(header, "PresentationLUTShape") == "INVERSE":
        grey = 1 - grey
    grey[padding] = 0
    return np.rint(grey * 255).astype(np.uint8)[places], flags


def _lowest_bit(header: Dataset) -> int:
    """Returns the position of a number's lowest bit in its pixel cell.

    High Bit is one less than Bits Stored today; in older files the numbers may lie higher (PS3.5, 8.1.1).
    """
    stored, high = header.BitsStored, numbers_of(header, "HighBit")
    return int(high[0]) + 1 - stored if len(high) == 1 and stored <= high[0] < header.BitsAllocated else 0


def _stored_numbers(cells: np.ndarray, header: Dataset) -> np.ndarray:
    """Returns the numbers in pixel cells, (N,) int32, without the other bits, such as overlays."""
    stored = header.BitsStored
    numbers = (cells >> _lowest_bit(header)) & (2**stored - 1)
    return numbers - ((numbers >> (stored - 1)) << stored) if header.PixelRepresentation else numbers


def _possible_range(header: Dataset) -> tuple[int, int]:
    bits = header.BitsStored
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (0, 2**bits - 1)


def _is_padding(cells: np.ndarray, numbers: np.ndarray, header: Dataset, flags: set[str]) -> np.ndarray:
    """Returns which pixel cells, (N,), are padding around the image proper (PS3.3, C.7.5.1.1.2)."""
    value, limit = numbers_of(header, "PixelPaddingValue"), numbers_of(header, "PixelPaddingRangeLimit")
    if not value:
        return np.zeros(numbers.shape, bool)
    if len(value) != 1 or len(limit) > 1 or not all(end.is_integer() for end in value + limit):
        flags.add("dicom_padding")
        return np.zeros(numbers.shape, bool)
    # Its bits are those of a pixel cell, even if its VR does not have the pixels' sign.
    size, signed = 2**header.BitsAllocated, header.PixelRepresentation
    ends = [
        end - size if signed and end >= size // 2 else end + size if not signed and end < 0 else end
        for end in value + limit
    ]
    found = (numbers >= min(ends)) & (numbers <= max(ends))
    if _lowest_bit(header) == 0:  # it may exceed the stored bits: then the whole cell is compared
        found |= (cells >= min(ends)) & (cells <= max(ends))
    return found


def _display_values(
    numbers: np.ndarray, used: np.ndarray, header: Dataset, flags: set[str]
) -> tuple[np.ndarray, float, float]:
    """Returns the values of stored numbers, (N,), after modality and VOI, and the values of black and white.

    `used` are the numbers that occur in the image proper.
    """
    modality = _modality(header)
    values = modality(numbers)
    if lut := _voi_lut(header, modality, flags):
        return lut(values), 0, lut.white
    if window := _window(header, modality, flags):
        return apply_windowing(values, window), *apply_windowing(np.array([-np.inf, np.inf]), window)
    if isinstance(modality, _Lut):
        return values, 0, modality.white
    ends = modality.ends(_stored_range(used, header))
    return values, ends.min(), ends.max()


def _stored_range(used: np.ndarray, header: Dataset) -> tuple[int, int]:
    if used.size == 0:
        return 0, 1  # nothing but padding
    smallest, largest = int(used.min()), int(used.max())
    if smallest >= 0:
        return 0, min(full_scale(largest), max(2**header.BitsStored - 1, largest))
    return smallest, max(largest, smallest + 1)


def _modality(header: Dataset) -> _Lut | _Rescale:
    if "ModalityLUTSequence" in header:
        lut, _ = _first_lut(header, "ModalityLUTSequence", signed=bool(header.PixelRepresentation))
        if lut is None:
            raise Refused("its Modality LUT Sequence (0028,3000), which defines its numbers, cannot be used")
        return lut
    slope, intercept = (numbers_of(header, keyword) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if len(slope) > 1 or len(intercept) > 1:
        raise Refused(_NO_RESCALE)
    rescale = _Rescale(slope[0], intercept[0]) if slope and intercept else _Rescale()
    rescale.ends(_possible_range(header))
    return rescale


def _voi_lut(header: Dataset, modality: _Lut | _Rescale, flags: set[str]) -> _Lut | None:
    if "VOILUTSequence" not in header:
        return None
    # The number that maps to the first entry is signed if the input numbers are (PS3.3, C.11.2.1.1).
    signed = isinstance(modality, _Rescale) and modality.ends(_possible_range(header)).min() < 0
    lut, place = _first_lut(header, "VOILUTSequence", signed)
    if place != 0:
        flags.add("dicom_voi_lut")
    return lut


def _first_lut(header: Dataset, keyword: str, signed: bool) -> tuple[_Lut | None, int | None]:
    """Returns the first usable LUT of a sequence and its index; None and None if there is none."""
    try:
        items = header[keyword].value
    except Exception:  # pydicom raises many kinds of errors for bytes that are not a sequence
        items = ()
    for place, item in enumerate(items):
        lut = _lut(item, signed) if isinstance(item, Dataset) else None
        if lut is not None:
            return lut, place
    return None, None


def _lut(item: Dataset, signed: bool) -> _Lut | None:
    """Returns a LUT, or None if it is incomplete (PS3.3, C.11.1.1 and C.11.2.1.1).

    `signed` is whether the number that maps to the first entry may be negative; an explicit VR of SS means that too.
    Entries may be packed, two of 8 bits in one word. The output range is that of the bits that hold all entries, but at
    most the descriptor's: some descriptors state 16 for entries of 12 bits.
    """
    descriptor, data = (item.get_item(tag_for_keyword(keyword)) for keyword in ("LUTDescriptor", "LUTData"))
    if descriptor is None or data is None or len(descriptor.value or b"") != 6:
        return None
    words = [_words(each.value or b"", each.is_little_endian) for each in (descriptor, data)]
    count, first, bits = words[0].tolist()
    count = count or 2**16
    if signed or descriptor.VR == "SS":
        first -= 2**16 * (first >= 2**15)
    entries = words[1][:count]
    if len(entries) < count and bits <= 8:
        entries = words[1].view(np.uint8)[:count]
    if len(entries) < count:
        return None
    largest = int(entries.max())
    stated = 2**bits - 1 if 1 <= bits <= 16 else 0
    return _Lut(first, entries, min(full_scale(largest), max(stated, largest)))


def _words(data: bytes, little_endian: bool) -> np.ndarray:
    """Returns bytes as numbers of 16 bits, (N,) little-endian uint16."""
    return np.frombuffer(data + b"\0" * (len(data) % 2), "<u2" if little_endian else ">u2").astype("<u2")


def _window(header: Dataset, modality: _Lut | _Rescale, flags: set[str]) -> Dataset | None:
    """Returns the first usable window, in the form that pydicom takes."""
    centers, widths = (numbers_of(header, keyword) for keyword in ("WindowCenter", "WindowWidth"))
    if not centers and not widths:
        return None
    function = text(header, "VOILUTFunction").upper() or "LINEAR"
    if function not in _LEAST_WIDTH:
        # Its use of center and width is unknown, and treating it as linear is forbidden (PS3.3, C.11.2.1.3).
        flags.add("dicom_voi_function")
        return None
    least = _LEAST_WIDTH[function]
    usable = [not math.isnan(center) and width >= least for center, width in zip(centers, widths, strict=False)]
    if not usable or not usable[0]:
        flags.add("dicom_window")
    if not any(usable):
        return None
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.VOILUTFunction = function
    if isinstance(modality, _Lut):
        window.BitsStored, window.PixelRepresentation = 16, 0
    else:
        window.BitsStored, window.PixelRepresentation = header.BitsStored, header.PixelRepresentation
        window.add_new("RescaleSlope", "FD", modality.slope)
        window.add_new("RescaleIntercept", "FD", modality.intercept)
    window.add_new("WindowCenter", "FD", centers[usable.index(True)])
    window.add_new("WindowWidth", "FD", widths[usable.index(True)])
    return window
