"""What a stranger's DICOM file may cost: elements, sequences, fragments, inflated bytes and scans are counted."""

import struct
import zlib

import numpy as np
import pydicom
import pytest
from dicom_files import jpeg, write
from pydicom import uid
from pydicom.encaps import encapsulate, get_frame

from sdfn_jax.radiographs import dicom_frame, dicom_header, picture_files, reader

ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HHL", 0xFFFE, element, 0) for element in (0xE000, 0xE00D, 0xE0DD))
OPEN_ITEM = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
OPEN_SEQUENCE = struct.pack("<HH2sHL", 0x40, 0x275, b"SQ", 0, 0xFFFFFFFF)
ELEMENT = struct.pack("<HH2sH", 0x9, 0x10, b"LO", 0)
FIRST = b"\x08\x00\x16\x00"  # SOP Class UID, the first element behind the meta information
STEPS = 3000
TOO_MANY = "its DICOM header has more elements than any radiograph's"


@pytest.fixture
def few_steps(monkeypatch):
    """The budget, small enough for small files."""
    monkeypatch.setattr(dicom_header, "_MOST_STEPS", STEPS)


@pytest.fixture
def film() -> np.ndarray:
    return np.arange(48 * 40, dtype=np.uint16).reshape(48, 40)


def insert(path, more: bytes, place: int | None = None):
    """Puts bytes before the first element, or at another place."""
    data = path.read_bytes()
    place = data.index(FIRST) if place is None else place
    path.write_bytes(data[:place] + more + data[place:])
    return path


def deflated(path, elements: bytes):
    """Makes a film's file one that deflates its elements, and others before them."""
    data = path.read_bytes()
    start = data.index(FIRST)
    plain, long = b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99"
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    body = deflater.compress(elements + data[start:]) + deflater.flush()
    path.write_bytes(data[:start].replace(plain, long) + body)
    return path


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (ELEMENT * STEPS, TOO_MANY),
        (OPEN_SEQUENCE + ITEM * STEPS + SEQUENCE_END, TOO_MANY),
        (OPEN_SEQUENCE + OPEN_ITEM + ELEMENT * STEPS + ITEM_END + SEQUENCE_END, TOO_MANY),
        ((OPEN_SEQUENCE + OPEN_ITEM) * 1000, "its DICOM header has sequences that are nested too deeply"),
    ],
    ids=["elements", "items", "elements of an item", "sequences in sequences"],
)
def test_a_header_without_end_is_refused(tmp_path, film, few_steps, more, message):
    path = insert(write(tmp_path / "a.dcm", film), more)
    with pytest.raises(ValueError, match=rf"a\.dcm: {message}"):
        reader.read_radiograph(path)


def test_sequences_in_sequences_are_refused_wherever_python_ends_the_reading(tmp_path, film):
    def called(depth):
        return called(depth - 1) if depth else reader.read_radiograph(path)

    path = insert(write(tmp_path / "a.dcm", film), (OPEN_SEQUENCE + OPEN_ITEM) * 1000)
    for depth in range(20):
        with pytest.raises(ValueError, match="sequences that are nested too deeply"):
            called(depth)


def test_elements_before_the_header_proper_count(tmp_path, film, few_steps):
    path = insert(write(tmp_path / "a.dcm", film), struct.pack("<HH2sH", 2, 0x100, b"LO", 0) * STEPS, place=132)
    with pytest.raises(ValueError, match=TOO_MANY):
        reader.read_radiograph(path)


def test_zeros_are_no_film(tmp_path, few_steps):
    (tmp_path / "a.dcm").write_bytes(bytes(8 * STEPS))
    with pytest.raises(ValueError, match=TOO_MANY):
        reader.read_radiograph(tmp_path / "a.dcm")


def test_elements_that_were_deflated_count(tmp_path, film, few_steps):
    path = deflated(write(tmp_path / "a.dcm", film), ELEMENT * STEPS)
    assert path.stat().st_size < 2 * film.nbytes
    with pytest.raises(ValueError, match=TOO_MANY):
        reader.read_radiograph(path)


def test_fragments_of_pixel_data_count(tmp_path, film, few_steps):
    path = write(tmp_path / "a.dcm", film, syntax=uid.JPEG2000Lossless)
    insert(path, ITEM * STEPS, place=path.read_bytes().index(b"OB\0\0\xff\xff\xff\xff") + 8)
    with pytest.raises(ValueError, match=TOO_MANY):
        reader.read_radiograph(path)


def test_many_luts_are_none_that_can_be_used(tmp_path, film, few_steps):
    items = ITEM * STEPS
    path = write(tmp_path / "a.dcm", film)
    expected = reader.read_radiograph(path)
    pixels = b"\xe0\x7f\x10\x00"
    insert(
        path,
        struct.pack("<HH2sHL", 0x28, 0x3010, b"SQ", 0, len(items)) + items,
        place=path.read_bytes().index(pixels),
    )
    read, flags = reader.read_with_flags(path)
    assert flags == ("dicom_voi_lut",)
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize(
    ("tag", "keyword", "length"),
    [
        ((0x28, 0x1050), "WindowCenter", 2**17),
        ((0x28, 0x3010), "VOILUTSequence", 2**21),
        ((0x8, 0x5), "SpecificCharacterSet", 2**17),
    ],
)
def test_values_that_take_long_to_make_are_refused_by_their_length(tmp_path, film, tag, keyword, length):
    path = write(tmp_path / "a.dcm", film, syntax=uid.ImplicitVRLittleEndian)
    long = struct.pack("<HHL", *tag, length) + b"1\\" * (length // 2)
    with pytest.raises(ValueError, match=rf"a\.dcm: its element {keyword} has {length:,} bytes"):
        reader.read_radiograph(insert(path, long))
    if keyword == "SpecificCharacterSet":  # which pydicom makes a value of at once, even within sequences
        sequence = struct.pack("<HHL", 0x40, 0x275, 0xFFFFFFFF) + OPEN_ITEM
        insert(path, sequence, place=path.read_bytes().index(long))
        with pytest.raises(ValueError, match=f"its element SpecificCharacterSet has {length:,} bytes"):
            reader.read_radiograph(path)


def test_the_scans_of_a_compressed_image_count(tmp_path):
    film = np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)
    coded = jpeg(film)
    scan = coded[coded.index(b"\xff\xda") : -2]
    many = coded[:-2] + scan * picture_files.MAX_SCANS + coded[-2:]
    path = write(tmp_path / "a.dcm", film, syntax=uid.JPEGBaseline8Bit, PixelData=encapsulate([many]))
    with pytest.raises(ValueError, match=rf"a\.dcm: a JPEG with over {picture_files.MAX_SCANS} scans"):
        reader.read_radiograph(path)


@pytest.mark.parametrize("place", ["main header", "tile-part header", "of one component"])
def test_code_blocks_of_a_jpeg_2000_image_count(tmp_path, monkeypatch, place):
    """150 bytes may ask for a block per pixel, and 500 bytes of memory for each."""
    monkeypatch.setattr(dicom_frame, "_MOST_BLOCKS", 500)
    film = np.arange(48 * 40, dtype=np.uint8).reshape(48, 40)
    path = write(tmp_path / "a.dcm", film, syntax=uid.JPEG2000Lossless)
    np.testing.assert_array_equal(reader.read_radiograph(path), film)
    stream = get_frame(pydicom.dcmread(path).PixelData, 0, number_of_frames=1)
    start = stream.index(b"\xff\x52")
    style = stream[start + 9 : start + 14]  # levels, width and height of blocks, their style, the wavelet
    tiny = style[:1] + b"\0\0" + style[3:]  # blocks of 4 x 4
    if place == "main header":
        changed = stream[: start + 9] + tiny + stream[start + 14 :]
    else:
        segment = stream[start : start + 9] + tiny
        if place == "of one component":
            segment = b"\xff\x53" + (4 + len(tiny)).to_bytes(2) + b"\0\0" + tiny
        tile = stream.index(b"\xff\x90")
        length = int.from_bytes(stream[tile + 6 : tile + 10]) + len(segment)
        head = stream[: tile + 6] + length.to_bytes(4) + stream[tile + 10 : tile + 12]
        changed = head + segment + stream[tile + 12 :]
    write(path, film, syntax=uid.JPEG2000Lossless, PixelData=encapsulate([changed]))
    monkeypatch.setattr(dicom_frame, "_MOST_BLOCKS", 100)
    with pytest.raises(ValueError, match=r"a\.dcm: a JPEG 2000 image with over 100 code-blocks"):
        reader.read_radiograph(path)
    precincts = b"\xff\x52\0\x12\1" + stream[start + 5 : start + 14] + b"\x11" * 6  # of 2 x 2 pixels
    changed = stream[:start] + precincts + stream[start + 14 :]
    write(path, film, syntax=uid.JPEG2000Lossless, PixelData=encapsulate([changed]))
    with pytest.raises(ValueError, match=r"a\.dcm: a JPEG 2000 image with over 100 code-blocks"):
        reader.read_radiograph(path)


def test_large_headers_that_there_are_are_read(tmp_path, film):
    """10,000 private elements, a thousand items: more than any radiograph was seen to have."""
    path = write(tmp_path / "a.dcm", film)
    expected = reader.read_radiograph(path)
    insert(path, ELEMENT * 10_000 + OPEN_SEQUENCE + ITEM * 1000 + SEQUENCE_END)
    np.testing.assert_array_equal(reader.read_radiograph(path), expected)
    long = deflated(write(tmp_path / "b.dcm", film), ELEMENT * 10_000)
    np.testing.assert_array_equal(reader.read_radiograph(long), expected)
