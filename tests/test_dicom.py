import io
import logging
import re
import sys
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import jpeg, lut, write
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from sdfn_jax.core.errors import MissingPackageError
from sdfn_jax.core.extras import install_command
from sdfn_jax.lungs import make_box_table
from sdfn_jax.radiographs import dicom_header, pixels, reader, synthetic_film

# Those of pydicom's own files, all in its wheel, that are single and grey, and that pydicom itself decodes: from CT and
# MR, uncompressed in every byte order, deflated, RLE, JPEG extended (12 bits), JPEG-LS and JPEG 2000.
PYDICOM_FILES = (
    "693_J2KI.dcm",
    "CT_small.dcm",
    "examples_overlay.dcm",
    "image_dfl.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "JPEG2000.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm",
    "liver_1frame.dcm",
    "liver_expb_1frame.dcm",
    "MR_small.dcm",
    "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
)
NAME = "DOE^JANE"


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    """A drawing, small and with every level up to white."""
    drawn = pixels.resize(synthetic_film.draw(np.random.default_rng(3), ("Mass",)).image, (96, 80)).copy()
    drawn[0, :2] = 0, 255
    return drawn


def pydicoms_display(path: str) -> np.ndarray:
    """The pixels as pydicom's documentation says to make them, then as 8 bits of its output range."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(path)
        stored = header.pixel_array
        shown = apply_voi_lut(apply_modality_lut(stored, header), header).astype(np.float64)
    signed, bits = header.PixelRepresentation, header.BitsStored
    if header.get("WindowWidth") is None:
        padding = stored == header.get("PixelPaddingValue", 10**6)
        if stored[~padding].min() < 0:
            low, high = shown[~padding].min(), shown[~padding].max()
        else:
            depth = next(depth for depth in (8, 10, 12, 14, 16) if stored.max() < 2**depth)
            low, high = np.array([0, 2 ** min(depth, bits) - 1]) * header.get("RescaleSlope", 1) + header.get(
                "RescaleIntercept", 0
            )
        shown[padding] = low
    else:
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        slope, intercept = header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)
        low, high = low * slope + intercept, high * slope + intercept
    return np.rint(np.clip((shown - low) / (high - low), 0, 1) * 255)


@pytest.mark.parametrize("name", PYDICOM_FILES)
def test_pydicoms_files_are_shown_as_pydicom_shows_them(name):
    path = get_testdata_file(name, download=False)
    read = reader.read_radiograph(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, pydicoms_display(path))


def test_a_film_is_the_same_in_every_coding(tmp_path, film):
    """Depths, inversions, rescales, windows and LUTs that change nothing: the bits of the 8-bit PNG."""
    Image.fromarray(film).save(tmp_path / "8.png")
    Image.fromarray(film * np.uint16(257)).save(tmp_path / "16.png")
    deep = film * np.uint16(16) + film // 16  # 12 bits: white is 4095
    deepest = film * np.uint16(257)
    window = {"WindowCenter": 2048, "WindowWidth": 4096}
    write(tmp_path / "8.dcm", film)
    write(tmp_path / "8_inverted.dcm", 255 - film, photometric="MONOCHROME1")
    write(tmp_path / "8_window.dcm", film, WindowCenter=128, WindowWidth=256)
    write(tmp_path / "12.dcm", deep, bits=12)
    write(tmp_path / "12_in_16.dcm", deep)
    write(tmp_path / "12_inverted.dcm", 4095 - deep, bits=12, photometric="MONOCHROME1")
    write(
        tmp_path / "12_inverted_twice_told.dcm", 4095 - deep, photometric="MONOCHROME1", PresentationLUTShape="INVERSE"
    )
    write(tmp_path / "12_shape.dcm", 4095 - deep, bits=12, PresentationLUTShape="INVERSE")
    write(tmp_path / "12_identity.dcm", deep, bits=12, PresentationLUTShape="IDENTITY", **window)
    write(tmp_path / "12_inverted_window.dcm", 4095 - deep, bits=12, photometric="MONOCHROME1", **window)
    write(
        tmp_path / "12_exact.dcm", deep, bits=12, WindowCenter=2047.5, WindowWidth=4095, VOILUTFunction="LINEAR_EXACT"
    )
    write(tmp_path / "12_first_window.dcm", deep, bits=12, WindowCenter=[2048, 100], WindowWidth=[4096, 10])
    write(tmp_path / "12_empty_window.dcm", deep, bits=12, WindowCenter="", WindowWidth="", VOILUTFunction="")
    write(tmp_path / "12_rescaled.dcm", deep, bits=12, RescaleSlope=0.5, RescaleIntercept=-1024)
    write(tmp_path / "12_turned.dcm", 4095 - deep, bits=12, RescaleSlope=-1, RescaleIntercept=0)
    write(tmp_path / "12_lut.dcm", deep, bits=12, VOILUTSequence=lut(range(4096), bits=12))
    write(tmp_path / "12_lut_16.dcm", deep, bits=12, VOILUTSequence=lut(range(4096), bits=16), **window)
    write(tmp_path / "12_modality.dcm", deep, bits=12, ModalityLUTSequence=lut(range(4096), bits=12))
    write(tmp_path / "12_modality_window.dcm", deep, bits=12, ModalityLUTSequence=lut(range(4096), bits=12), **window)
    write(tmp_path / "16.dcm", deepest)
    write(tmp_path / "16_inverted.dcm", 65535 - deepest, photometric="MONOCHROME1")
    write(tmp_path / "16_implicit.dcm", deepest, syntax=uid.ImplicitVRLittleEndian)
    write(tmp_path / "signed.dcm", (deep.astype(np.int16) - 2048), bits=12)
    write(tmp_path / "signed_window.dcm", (deep.astype(np.int16) - 2048), bits=12, WindowCenter=0, WindowWidth=4096)
    for syntax in (uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLossless):
        write(tmp_path / f"{syntax.keyword}_8.dcm", film, syntax=syntax)
        write(tmp_path / f"{syntax.keyword}_16.dcm", deepest, syntax=syntax)
        write(tmp_path / f"{syntax.keyword}_inverted.dcm", 255 - film, syntax=syntax, photometric="MONOCHROME1")
    files = sorted(tmp_path.iterdir())
    assert len(files) == 35
    for path in files:
        np.testing.assert_array_equal(reader.read_radiograph(path), film, err_msg=path.name)
    write(tmp_path / "baseline.dcm", film, syntax=uid.JPEGBaseline8Bit)
    assert np.abs(reader.read_radiograph(tmp_path / "baseline.dcm").astype(int) - film).max() <= 3  # JPEG's loss


def test_a_window_is_that_of_the_standard(tmp_path):
    """PS3.3, C.11.2.1.2: linear, linear exact, and sigmoid."""
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    window = {"WindowCenter": 1500, "WindowWidth": 800}
    x = stored.astype(float)
    expected = {
        "LINEAR": (x - 1499.5) / 799 + 0.5,
        "LINEAR_EXACT": (x - 1500) / 800 + 0.5,
        "SIGMOID": 1 / (1 + np.exp(-4 * (x - 1500) / 800)),
    }
    for function, share in expected.items():
        path = write(tmp_path / "a.dcm", stored, bits=12, VOILUTFunction=function, **window)
        difference = reader.read_radiograph(path) - 255 * np.clip(share, 0, 1)
        assert np.abs(difference).max() <= 0.5 + 1e-6, function


@pytest.mark.parametrize("bits", range(8, 17))
def test_a_lut_of_any_depth_is_looked_up(tmp_path, bits):
    rng = np.random.default_rng(bits)
    stored = rng.integers(0, 4096, (20, 30)).astype(np.uint16)
    table = rng.permutation(np.linspace(0, 2**bits - 1, 1000).astype(int))
    expected = table[np.clip(stored.astype(int) - 500, 0, 999)] / (2**bits - 1) * 255
    for element in ("VOILUTSequence", "ModalityLUTSequence"):
        path = write(tmp_path / "a.dcm", stored, bits=12, **{element: lut(table, first=500, bits=bits)})
        np.testing.assert_allclose(reader.read_radiograph(path), expected, atol=0.5 + 1e-6, err_msg=element)


def test_padding_is_black_and_counts_in_no_range(tmp_path):
    stored = np.full((6, 8), 300, np.uint16)
    stored[:, :3] = 65535
    stored[:, 3] = 60000
    stored[0, 4] = 0
    padding = {"PixelPaddingValue": 65535, "PixelPaddingRangeLimit": 60000}
    for photometric, grey, dark in (("MONOCHROME2", 75, 0), ("MONOCHROME1", 180, 255)):
        read = reader.read_radiograph(write(tmp_path / "a.dcm", stored, photometric=photometric, **padding))
        assert (read[:, :4] == 0).all()
        assert (read[1:, 4:] == grey).all()  # 300 of 1023
        assert read[0, 4] == dark
    assert not reader.read_radiograph(write(tmp_path / "a.dcm", stored[:, :4], **padding)).any()


def test_content_decides_and_the_suffix_helps(tmp_path, film):
    write(tmp_path / "a.png", film)
    write(tmp_path / "1.2.840.10008", film)
    write(tmp_path / "IM0001", film)
    (tmp_path / "bare.DCM").write_bytes((tmp_path / "a.png").read_bytes()[132:])
    Image.fromarray(film).save(tmp_path / "b.dcm", "PNG")
    for name in ("DICOMDIR", "dicomdir", ".IM0002"):
        write(tmp_path / name, film)
    (tmp_path / "README").write_text("no image")
    found = make_box_table.find_radiographs(tmp_path).films
    assert [path.name for path in found] == ["1.2.840.10008", "IM0001", "a.png", "b.dcm", "bare.DCM"]
    for path in found:
        np.testing.assert_array_equal(reader.read_radiograph(path), film, err_msg=path.name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("rtplan.dcm", r"a DICOM object without an image \(RT Plan Storage\)"),
        ("test-SR.dcm", r"a DICOM object without an image \(Comprehensive SR Storage\)"),
        ("waveform_ecg.dcm", r"a DICOM object without an image \(12-lead ECG Waveform Storage\)"),
        ("examples_ybr_color.dcm", r"30 frames \(Ultrasound Multi-frame Image Storage\); a radiograph has one"),
        ("examples_rgb_color.dcm", r"a colour image \(RGB; Ultrasound Image Storage\)"),
        ("examples_palette.dcm", r"a colour image \(PALETTE COLOR; Ultrasound Image Storage\)"),
        ("rtdose_1frame.dcm", r"32 bits per pixel \(RT Dose Storage\)"),
        ("MR_truncated.dcm", "truncated: 8,130 bytes of pixel data; expected 8,192"),
        ("nested_priv_SQ.dcm", "its DICOM header lacks SamplesPerPixel, PhotometricInterpretation, Rows"),
    ],
)
def test_what_is_no_radiograph_is_refused_by_name(name, message):
    path = get_testdata_file(name, download=False)
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        reader.read_radiograph(path)


def test_what_only_its_name_says_is_dicom_is_none(tmp_path):
    for content in (b"dear diary", b"text " * 100):
        (tmp_path / "a.dcm").write_bytes(content)
        with pytest.raises(ValueError, match=r"named like a DICOM file, but without any element of a DICOM image"):
            reader.read_radiograph(tmp_path / "a.dcm")


def test_every_other_file_of_pydicom_is_read_or_refused_in_one_line():
    folder = Path(get_testdata_file("CT_small.dcm", download=False)).parent
    refused = 0
    for path in sorted(folder.glob("*.*")):
        try:
            reader.read_radiograph(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert refused > 40


def test_no_text_of_a_header_gets_out(tmp_path, film, monkeypatch, caplog, recwarn, capfd):
    """Files with a name in every element that may hold one, and in those that must not: nothing repeats it."""
    root = io.StringIO()
    monkeypatch.setattr(logging.getLogger(), "handlers", [*logging.getLogger().handlers, logging.StreamHandler(root)])
    caplog.set_level(logging.DEBUG)
    names = ("PatientName", "PatientID", "InstitutionName", "StudyDescription", "ImageComments", "BurnedInAnnotation")
    texts = {name: NAME for name in names}
    good = write(tmp_path / "good.dcm", film, **texts)
    window = {"NumberOfFrames": 1, "VOILUTFunction": "LINEAR_EXACT", "WindowCenter": "123456", "WindowWidth": "654321"}
    whole = write(tmp_path / "whole.dcm", film, **texts, **window).read_bytes()
    recwarn.clear()  # of what the writer said of the names
    np.testing.assert_array_equal(reader.read_radiograph(good), film)
    for old, told in (
        (b"LINEAR_EXACT", ("dicom_voi_function",)),
        (b"IS\x02\x001 ", ("dicom_frames",)),
        (b"123456", ("dicom_window",)),
        (b"654321", ("dicom_window",)),
        (b"MONOCHROME2 ", None),
    ):
        assert whole.count(old) == 1
        kept = 4 if old.startswith(b"IS") else 0
        (tmp_path / "bad.dcm").write_bytes(whole.replace(old, old[:kept] + NAME.encode().ljust(12)[: len(old) - kept]))
        if told:
            assert reader.read_with_flags(tmp_path / "bad.dcm")[1] == told
    with pytest.raises(ValueError) as caught:
        reader.read_radiograph(tmp_path / "bad.dcm")
    told = "".join(traceback.format_exception(caught.value))
    assert "bad.dcm: " in told and "DOE" not in told and "DO'" not in told, told
    with pytest.raises(ValueError):
        reader.read_radiograph(get_testdata_file("badVR.dcm", download=False))
    assert not recwarn.list and not root.getvalue() and not caplog.records and capfd.readouterr() == ("", "")


def test_only_the_elements_that_are_needed_are_read(tmp_path, film):
    header = dicom_header.read(write(tmp_path / "a.dcm", film, PatientName=NAME, PatientID=NAME).read_bytes())
    assert "PatientName" not in header and "PatientID" not in header
    assert NAME not in str(header)


def test_sizes_that_would_take_all_memory_are_refused_before_decoding(tmp_path, film, monkeypatch):
    path = write(tmp_path / "a.dcm", film, Rows=60000, Columns=60000)
    with pytest.raises(ValueError, match=r"a\.dcm: 60,000 x 60,000 pixels, more than the 67,108,864 that are read"):
        reader.read_radiograph(path)
    path = write(tmp_path / "a.dcm", film, Rows=0)
    with pytest.raises(ValueError, match="0 x 80 pixels: an empty image"):
        reader.read_radiograph(path)
    for syntax in (uid.JPEG2000Lossless, uid.JPEGLossless, uid.JPEGBaseline8Bit):
        path = write(tmp_path / "a.dcm", film, syntax=syntax, Rows=97)
        with pytest.raises(ValueError, match="the compressed image is 96 x 80 x 1, but its header says 97 x 80 x 1"):
            reader.read_radiograph(path)
    path = write(tmp_path / "a.dcm", film, syntax=uid.RLELossless, Rows=1, Columns=1)
    with pytest.raises(ValueError, match="more pixel data than its rows and columns hold"):
        reader.read_radiograph(path)
    colour = jpeg(np.dstack([film] * 3))
    path = write(tmp_path / "a.dcm", film, syntax=uid.JPEGBaseline8Bit, PixelData=encapsulate([colour]))
    with pytest.raises(ValueError, match="the compressed image is 96 x 80 x 3"):
        reader.read_radiograph(path)
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain = write(tmp_path / "a.dcm", film).read_bytes()
    end = plain.index(b"\x08\x00\x16\x00")
    meta = plain[:end].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"\x14\x001.2.840.10008.1.2.1.99", b"\x16\x001.2.840.10008.1.2.1.99")
    path.write_bytes(meta + deflater.compress(plain[end:]) + deflater.flush())
    np.testing.assert_array_equal(reader.read_radiograph(path), film)
    monkeypatch.setattr(dicom_header, "_MOST_INFLATED", 5000)
    with pytest.raises(ValueError, match="inflates to over 5,000 bytes"):
        reader.read_radiograph(path)


def test_without_the_extra_the_command_that_installs_it_is_named(tmp_path, film, monkeypatch):
    path = write(tmp_path / "a.dcm", film)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.delitem(sys.modules, "sdfn_jax.radiographs.dicom", raising=False)
    monkeypatch.delattr("sdfn_jax.radiographs.dicom", raising=False)
    with pytest.raises(MissingPackageError, match=re.escape(install_command("dicom"))):
        reader.read_radiograph(path)


def test_without_a_decoder_the_command_that_installs_it_is_named(tmp_path, film, monkeypatch):
    path = write(tmp_path / "a.dcm", film, syntax=uid.JPEGLossless)
    monkeypatch.setattr(type(pydicom.pixels.get_decoder(uid.JPEGLossless)), "available_plugins", ("gdcm",))
    with pytest.raises(MissingPackageError, match=r"JPEG Lossless.* needs more packages: pip install .*\[dicom\]"):
        reader.read_radiograph(path)
