"""DICOM radiographs (CR, DX, secondary capture): from the bytes of a file to grey levels, by way of `dicom_display`.

pydicom decodes; `dicom_header` and `dicom_frame` bound its time and memory. Only the elements that are used are read: a
patient's name never enters the program. Messages, warnings and logs of pydicom and its decoders are dropped, because
they may quote the header.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
from pydicom import pixels, uid
from pydicom.dataset import Dataset

from sdfn_jax.core.errors import MissingPackageError
from sdfn_jax.core.extras import install_command
from sdfn_jax.radiographs import dicom_display, dicom_frame, dicom_header
from sdfn_jax.radiographs.dicom_header import numbers_of, text
from sdfn_jax.radiographs.flags import FLAGS
from sdfn_jax.radiographs.limits import Refused, check_size
from sdfn_jax.radiographs.quiet import silenced

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
# Of the decoders that pydicom may find, always these: the same pixels everywhere, and none known to crash on a damaged
# file (pylibjpeg-rle 2.2 panics).
_DECODER = "pylibjpeg"
_RLE_DECODER = "pydicom"
_TOO_DEEP = "its DICOM header has sequences that are nested too deeply"


def decode(data: bytes) -> tuple[np.ndarray, tuple[str, ...]]:
    """Decodes the bytes of a DICOM file to grey levels, by the rules of `dicom_display.show`.

    Returns:
      (H, W) uint8, bones bright; and names from `flags.FLAGS`, in its order, of the elements that could not be used.

    Raises:
      ValueError: for anything but one greyscale image, or if it cannot be decoded. The message quotes no header text.
      MissingPackageError: if the decoder of a compressed file is not installed.
    """
    with silenced():
        with _errors_named("its DICOM header cannot be read"):
            header = dicom_header.read(data)
            flags = _check_is_radiograph(header)
        with _errors_named("its pixel data cannot be decoded"):
            cells = _cells(header)
        with _errors_named("its pixels cannot be shown"):
            shown, more = dicom_display.show(cells, header)
    return shown, tuple(name for name in FLAGS if name in flags | more)


@contextlib.contextmanager
def _errors_named(what: str) -> Iterator[None]:
    """Replaces the errors of pydicom and its decoders, which are of any kind and quote the header."""
    try:
        yield
    except (Refused, MissingPackageError):
        raise
    except MemoryError:
        raise Refused("needs more memory than there is") from None
    except RecursionError:
        raise Refused(_TOO_DEEP) from None
    except Exception as error:
        # Raised by `dicom_header.Counted` or by Python: pydicom turns either into an OSError.
        if isinstance(error.__context__, Refused):
            raise error.__context__ from None
        if isinstance(error.__context__, RecursionError):
            raise Refused(_TOO_DEEP) from None
        raise Refused(f"{what} ({type(error).__name__})") from None


def _check_is_radiograph(header: Dataset) -> set[str]:
    """Refuses anything but one greyscale image; returns flags."""
    kind = _name(text(header, "SOPClassUID"))
    if "PixelData" not in header:
        raise Refused(f"a DICOM object without an image ({kind})")
    missing = [name for name in _NEEDED if not _has(header, name)]
    if missing:
        raise Refused(f"its DICOM header lacks {', '.join(missing)}")
    flags = set()
    frames = numbers_of(header, "NumberOfFrames")
    if frames and (len(frames) > 1 or not frames[0] >= 1):
        flags.add("dicom_frames")
        del header.NumberOfFrames
    elif frames and frames[0] != 1:
        raise Refused(f"{int(frames[0])} frames ({kind}); a radiograph has one")
    photometric = header.PhotometricInterpretation
    if header.SamplesPerPixel != 1 or photometric not in _GREY:
        known = photometric if photometric in list(pixels.common.PhotometricInterpretation) else "of an unknown kind"
        raise Refused(f"a colour image ({known}; {kind}); a radiograph is grey (MONOCHROME1 or MONOCHROME2)")
    if header.BitsAllocated > 16:
        raise Refused(f"{header.BitsAllocated} bits per pixel ({kind}); at most 16 are read")
    check_size((header.Rows, header.Columns))
    return flags


def _has(header: Dataset, name: str) -> bool:
    """Returns whether an element has a usable value (a number, except for one); converts it to its VR."""
    if name == "PhotometricInterpretation":
        header.add_new(name, "CS", text(header, name))
        return header.PhotometricInterpretation != ""
    found = numbers_of(header, name)
    if len(found) != 1 or not 0 <= found[0] < 2**16 or not found[0].is_integer():
        return False
    header.add_new(name, "US", int(found[0]))
    return True


def _cells(header: Dataset) -> np.ndarray:
    """Returns the pixel cells, (H, W), 8 or 16 bits, signed or not, with everything in their bits."""
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = pixels.get_decoder(syntax)
    except NotImplementedError:
        raise Refused(f"its transfer syntax ({_name(syntax)}) is not supported") from None
    plugin = "" if not syntax.is_encapsulated else _RLE_DECODER if syntax == uid.RLELossless else _DECODER
    if plugin and plugin not in decoder.available_plugins:
        raise MissingPackageError(
            f"reading DICOM files in {_name(syntax)} needs more packages: {install_command('dicom')}"
        )
    if syntax.is_encapsulated:
        dicom_frame.check(header)
    else:
        # whole bytes, except for single bits packed by eight
        expected = -(-header.Rows * header.Columns * header.BitsAllocated // 8)
        if len(header.PixelData) < expected:
            raise Refused(f"truncated: {len(header.PixelData):,} bytes of pixel data; expected {expected:,}")
    return decoder.as_array(header, index=0, raw=True, decoding_plugin=plugin, correct_unused_bits=False)[0]


def _name(identifier: str) -> str:
    return uid.UID_dictionary[identifier][0] if identifier in uid.UID_dictionary else "of an unknown class"
