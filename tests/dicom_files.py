"""Writes DICOM radiographs for tests."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence


def write(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    bits: int | None = None,
    syntax: uid.UID = uid.ExplicitVRLittleEndian,
    sop_class: uid.UID = uid.DigitalXRayImageStorageForPresentation,
    **elements,
) -> Path:
    """Writes a file of stored numbers.

    Args:
      path: of the file.
      pixels: (H, W) uint8, uint16 or int16, stored as they are.
      photometric: MONOCHROME1, MONOCHROME2, ...
      bits: Bits Stored; those of the type if None.
      syntax: also RLELossless, JPEG2000Lossless, JPEGLossless, and JPEGBaseline8Bit for uint8.
      sop_class: what the file says it is.
      **elements: {keyword: value}; None leaves an element out.
    """
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntax if not syntax.is_encapsulated else uid.ExplicitVRLittleEndian
    header.SOPClassUID = sop_class
    header.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    header.SamplesPerPixel = 1
    header.PhotometricInterpretation = photometric
    header.Rows, header.Columns = pixels.shape
    header.BitsAllocated = 8 * pixels.dtype.itemsize
    header.BitsStored = bits or header.BitsAllocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(pixels.dtype.kind == "i")
    header.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    if syntax in (uid.RLELossless, uid.JPEG2000Lossless):
        header.compress(syntax, generate_instance_uid=False)
    elif syntax.is_encapsulated:
        coded = jpeg_lossless(pixels) if syntax == uid.JPEGLossless else jpeg(pixels)
        header.PixelData = encapsulate([coded])
        header["PixelData"].VR = "OB"
        header.file_meta.TransferSyntaxUID = syntax
    for name, value in elements.items():
        if value is None:
            del header[name]
        else:
            setattr(header, name, value)
    header.save_as(path, enforce_file_format=True, implicit_vr=syntax.is_implicit_VR, little_endian=True)
    return path


def garble(path: Path, keyword: str, value: bytes, vr: str | None = None) -> Path:
    """Puts bytes in the place of an element's value, and a VR of two letters, where given, in the place of its own.

    The file is explicit little-endian, the VR one with a length of 16 bits; the bytes may be what no writer writes.
    """
    data = path.read_bytes()
    tag = tag_for_keyword(keyword)
    start = data.index((tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")) + 4
    length = int.from_bytes(data[start + 2 : start + 4], "little")
    kind = data[start : start + 2] if vr is None else vr.encode()
    head = data[:start] + kind + len(value).to_bytes(2, "little")
    path.write_bytes(head + value + data[start + 4 + length :])
    return path


def packed_lut(entries, first: int = 0) -> Sequence:
    """Returns a LUT of 8 bits with two entries in a word."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 2**16, first, 8])
    item.add_new("LUTData", "OW", bytes(entries) + b"\0" * (len(entries) % 2))
    return Sequence([item])


def lut(entries, first: int = 0, bits: int = 16) -> Sequence:
    """Returns a modality or VOI LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return Sequence([item])


def jpeg(pixels: np.ndarray) -> bytes:
    """Returns the film as baseline JPEG, next to lossless."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100)
    return buffer.getvalue()


def jpeg_lossless(pixels: np.ndarray) -> bytes:
    """Returns the film as lossless JPEG (ITU-T T.81, annex H): each pixel less its left neighbour, in Huffman codes.

    Every category has a code of five bits, which is not short but allowed.
    """
    bits = 8 * pixels.dtype.itemsize
    predicted = np.roll(pixels.astype(int), 1, axis=1)
    predicted[1:, 0] = pixels[:-1, 0]
    predicted[0, 0] = 2 ** (bits - 1)
    coded = []
    for difference in ((pixels - predicted + 2**15 - 1) % 2**16 - 2**15 + 1).ravel():
        category = int(abs(difference)).bit_length()
        coded.append(f"{category:05b}")
        if 0 < category < 16:
            extra = difference if difference > 0 else difference + 2**category - 1
            coded.append(f"{extra:0{category}b}")
    text = "".join(coded)
    text += "1" * (-len(text) % 8)
    scan = int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")
    frame = bytes([bits, *pixels.shape[0].to_bytes(2), *pixels.shape[1].to_bytes(2), 1, 1, 0x11, 0])
    codes = bytes([0, *(17 if length == 5 else 0 for length in range(1, 17)), *range(17)])
    segments = ((0xC3, frame), (0xC4, codes), (0xDA, bytes([1, 1, 0, 1, 0, 0])))
    headers = b"".join(bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2) + body for marker, body in segments)
    return b"\xff\xd8" + headers + scan + b"\xff\xd9"
