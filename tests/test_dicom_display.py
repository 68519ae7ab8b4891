"""Which elements of a DICOM header decide what is shown, and what becomes of a film where one cannot be used."""

import numpy as np
import pytest
from dicom_files import garble, jpeg, lut, packed_lut, write
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

from sdfn_jax.radiographs import dicom_display, dicom_identifiers, pixels, reader, synthetic_film
from sdfn_jax.radiographs.flags import FLAGS

WHOLE = {"WindowCenter": 2048, "WindowWidth": 4096}


@pytest.fixture(scope="module")
def film() -> np.ndarray:
    drawn = pixels.resize(synthetic_film.draw(np.random.default_rng(3), ("Mass",)).image, (96, 80)).copy()
    drawn[0, :2] = 0, 255
    return drawn


@pytest.fixture(scope="module")
def numbers(film) -> np.ndarray:
    """The film in 12 bits, white 4095: shown over its whole range, it is the film."""
    return film * np.uint16(16) + film // 16


def shown(path) -> np.ndarray:
    """Reads a film that carries no flag."""
    read, flags = reader.read_with_flags(path)
    assert flags == ()
    return read


class TestBits:
    """PS3.5, 8.1.1: what the bits of a pixel cell hold besides those stored is not to be looked at."""

    @pytest.mark.parametrize(
        "syntax",
        [
            uid.ExplicitVRLittleEndian,
            uid.ImplicitVRLittleEndian,
            uid.RLELossless,
            uid.JPEG2000Lossless,
            uid.JPEGLossless,
        ],
    )
    @pytest.mark.parametrize("high_bit", [11, 12, 15])
    @pytest.mark.parametrize("signed", [False, True])
    def test_overlays_around_the_bits_stored_are_not_seen(self, tmp_path, film, numbers, syntax, high_bit, signed):
        lowest = high_bit - 11
        other = np.random.default_rng(0).integers(0, 2**16, film.shape).astype(np.uint16)
        other &= np.uint16(0xFFFF & ~(0xFFF << lowest))
        cells = (numbers ^ np.uint16(2048 * signed)) << lowest | other
        cells = cells.view(np.int16) if signed and syntax != uid.JPEGLossless else cells
        bits = {"BitsStored": 12, "HighBit": high_bit}
        path = write(tmp_path / "a.dcm", cells, syntax=syntax, PixelRepresentation=int(signed), **bits)
        np.testing.assert_array_equal(shown(path), film)

    def test_a_high_bit_that_contradicts_the_bits_stored_tells_nothing(self, tmp_path, film, numbers):
        for high_bit in (0, 7, 16, 255, None):
            np.testing.assert_array_equal(shown(write(tmp_path / "a.dcm", numbers, bits=12, HighBit=high_bit)), film)
        path = write(tmp_path / "a.dcm", numbers, bits=12, syntax=uid.JPEG2000Lossless, HighBit=15, **WHOLE)
        np.testing.assert_array_equal(shown(path), film)  # of 12 bits, none is the 15th

    def test_a_compressed_image_says_itself_how_many_bits_it_has(self, tmp_path, film, numbers):
        in_16 = {"BitsAllocated": 16, "BitsStored": 8, "HighBit": 7}
        baseline = shown(write(tmp_path / "a.dcm", film, syntax=uid.JPEGBaseline8Bit))
        for more in ({}, {"BitsStored": 12, "HighBit": 11}, {"BitsStored": 16, "PixelRepresentation": 1}):
            coded = {"PixelData": encapsulate([jpeg(film)])}
            path = write(tmp_path / "a.dcm", film, syntax=uid.JPEGBaseline8Bit, **coded, **(in_16 | more))
            np.testing.assert_array_equal(shown(path), baseline)
        for syntax in (uid.JPEG2000Lossless, uid.JPEGLossless):
            np.testing.assert_array_equal(shown(write(tmp_path / "a.dcm", film, syntax=syntax, **in_16)), film)
        in_8 = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
        path = write(tmp_path / "a.dcm", numbers, bits=12, syntax=uid.JPEG2000Lossless, **in_8)
        np.testing.assert_array_equal(shown(path), film)


class TestPadding:
    """PS3.3, C.7.5.1.1.2: the value is that of a pixel cell."""

    @pytest.mark.parametrize(
        ("dtype", "bits", "padding", "vr", "value"),
        [
            (np.uint16, 16, 65535, "SS", -1),
            (np.uint16, 12, 65535, "US", 65535),  # more than the bits stored hold: the cell tells
            (np.uint16, 12, 4095, "US", 4095),
            (np.int16, 16, -2000, "US", 63536),
            (np.int16, 12, -2048, "SS", -2048),
            (np.uint8, 8, 255, "SS", -1),
        ],
    )
    def test_it_is_found_whatever_sign_its_vr_has(self, tmp_path, film, dtype, bits, padding, vr, value):
        cells = (film // 2).astype(dtype)
        cells[:7] = padding
        path = write(tmp_path / "a.dcm", cells, bits=bits, PixelPaddingValue=0)
        read = shown(garble(path, "PixelPaddingValue", (value % 2**16).to_bytes(2, "little"), vr))
        without = shown(write(tmp_path / "a.dcm", cells[7:], bits=bits))
        assert not read[:7].any()
        np.testing.assert_array_equal(read[7:], without)

    def test_a_stored_number_that_only_looks_like_padding_is_none(self, tmp_path):
        cells = np.array([[0xFFFF, 0x0FFF]], np.uint16)
        read = shown(write(tmp_path / "a.dcm", cells, bits=12, PixelPaddingValue=0xFFFF))
        assert read.tolist() == [[0, 255]]


class TestLuts:
    @pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
    def test_a_voi_lut_may_begin_below_zero(self, tmp_path, film, numbers, syntax):
        """C.11.2.1.1: the number has the sign of what comes in, which an implicit VR does not tell."""
        for rescale in ({"RescaleSlope": 1, "RescaleIntercept": -2048}, {}):
            cells = numbers if rescale else numbers.astype(np.int16) - 2048
            path = write(
                tmp_path / "a.dcm",
                cells,
                bits=12,
                syntax=syntax,
                VOILUTSequence=lut(range(4096), first=-2048, bits=12),
                **rescale,
            )
            np.testing.assert_array_equal(shown(path), film)

    def test_one_that_begins_above_32767_does_not_begin_below_zero(self, tmp_path):
        stored = np.arange(39000, 42000, dtype=np.uint16).reshape(30, 100)
        for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
            for element in ("VOILUTSequence", "ModalityLUTSequence"):
                path = write(tmp_path / "a.dcm", stored, syntax=syntax, **{element: lut(range(1024), 40000, 10)})
                expected = np.clip(stored.astype(int) - 40000, 0, 1023) / 1023 * 255
                np.testing.assert_allclose(shown(path), expected, atol=0.5 + 1e-6)

    @pytest.mark.parametrize("count", [256, 255, 4096])
    def test_entries_of_8_bits_may_be_packed_in_words(self, tmp_path, film, count):
        """C.11.1.1.1: the length of the data tells."""
        entries = np.random.default_rng(0).permutation(np.arange(count) % 256).tolist()
        for element in ("VOILUTSequence", "ModalityLUTSequence"):
            one_a_word = shown(write(tmp_path / "a.dcm", film, **{element: lut(entries, bits=8)}))
            np.testing.assert_array_equal(one_a_word, np.array(entries)[np.minimum(film.astype(int), count - 1)])
            for syntax in (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian):
                packed = write(tmp_path / "a.dcm", film, syntax=syntax, **{element: packed_lut(entries)})
                np.testing.assert_array_equal(shown(packed), one_a_word)


class TestFallingBack:
    """The pixels are whole: the next of what says how to show them, in the end the range of the stored numbers."""

    @pytest.mark.parametrize(
        ("center", "width", "function"),
        [
            ("2048", "0", None),
            ("2048", "-4096", None),
            ("2048", "0.5", None),  # C.11.2.1.2: a linear window is at least 1 wide
            ("2048", "0.5", "LINEAR"),
            ("2048", "0", "LINEAR_EXACT"),  # C.11.2.1.3: more than 0
            ("2048", "0", "SIGMOID"),
            ("2048", "-1", "SIGMOID"),
            ("2047,5", "4096", None),
            ("2048", "4.096,0", None),
            ("nan", "4096", None),
            ("2048", "NaN", None),
            ("inf", "4096", None),
            ("2048", "1e999", None),
            ("TEXT", "4096", None),
            ("2048", "", None),
            ("", "4096", None),
        ],
    )
    def test_a_window_that_cannot_be_used(self, tmp_path, film, numbers, center, width, function):
        path = write(tmp_path / "a.dcm", numbers, bits=12, VOILUTFunction=function or "", **WHOLE)
        for keyword, value in {"WindowCenter": center, "WindowWidth": width}.items():
            garble(path, keyword, (value + " " * (len(value) % 2)).encode())
        read, flags = reader.read_with_flags(path)
        assert flags == ("dicom_window",)
        np.testing.assert_array_equal(read, film)
        for keyword, value in {"WindowCenter": center, "WindowWidth": width}.items():
            two = f"{value}\\1500" if keyword == "WindowCenter" else f"{value}\\800"
            garble(path, keyword, (two + " " * (len(two) % 2)).encode())
        read, flags = reader.read_with_flags(path)
        assert flags == ("dicom_window",)
        good = write(
            tmp_path / "b.dcm", numbers, bits=12, VOILUTFunction=function or "", WindowCenter=1500, WindowWidth=800
        )
        np.testing.assert_array_equal(read, shown(good))
        assert (read != film).any()

    def test_a_window_of_a_vr_that_there_is_not(self, tmp_path, film, numbers):
        path = garble(write(tmp_path / "a.dcm", numbers, bits=12, **WHOLE), "WindowCenter", b"2048", "ZZ")
        read, flags = reader.read_with_flags(path)
        assert flags == ("dicom_window",)
        np.testing.assert_array_equal(read, film)

    def test_a_narrow_window_of_another_function_is_used(self, tmp_path, numbers):
        """C.11.2.1.3: exact and sigmoid windows may be narrower than 1, and are of use for rescaled numbers."""
        window = {"WindowCenter": 0.15, "WindowWidth": 0.08, "RescaleSlope": 1e-4, "RescaleIntercept": 0}
        x = numbers * 1e-4
        expected = {"LINEAR_EXACT": (x - 0.15) / 0.08 + 0.5, "SIGMOID": 1 / (1 + np.exp(-4 * (x - 0.15) / 0.08))}
        for function, share in expected.items():
            path = write(tmp_path / "a.dcm", numbers, bits=12, VOILUTFunction=function, **window)
            assert np.abs(shown(path) - 255 * np.clip(share, 0, 1)).max() <= 0.5 + 1e-6

    def test_a_voi_function_that_is_unknown(self, tmp_path, film, numbers):
        """C.11.2.1.3: its window is not to be taken for a linear one."""
        path = write(
            tmp_path / "a.dcm", numbers, bits=12, VOILUTFunction="LOG", WindowCenter=[1500, 5], WindowWidth=[800, 9]
        )
        read, flags = reader.read_with_flags(path)
        assert flags == ("dicom_voi_function",)
        np.testing.assert_array_equal(read, film)
        np.testing.assert_array_equal(shown(write(tmp_path / "a.dcm", numbers, bits=12, VOILUTFunction="LOG")), film)

    @pytest.mark.parametrize("broken", ["short", "empty", "no data", "no descriptor", "of two", "no sequence"])
    def test_a_voi_lut_that_cannot_be_used(self, tmp_path, film, numbers, broken):
        sequence = lut(range(4096), bits=12)
        if broken == "short":
            sequence[0].LUTData = sequence[0].LUTData[:-1]
        elif broken == "empty":
            sequence = Sequence([Dataset()])
        elif broken == "no data":
            del sequence[0].LUTData
        elif broken == "no descriptor":
            del sequence[0].LUTDescriptor
        elif broken == "of two":
            sequence[0].LUTDescriptor = [4096, 0]
        window = {"WindowCenter": 1500, "WindowWidth": 800}
        by_window = shown(write(tmp_path / "a.dcm", numbers, bits=12, **window))
        for elements, expected in ((window, by_window), ({}, film)):
            path = write(tmp_path / "a.dcm", numbers, bits=12, VOILUTSequence=sequence, **elements)
            if broken == "no sequence":
                data = path.read_bytes()
                place = data.index(b"\x28\x00\x10\x30SQ") + 12
                path.write_bytes(data[:place] + b"text" * 20 + data[place + 80 :])
            read, flags = reader.read_with_flags(path)
            assert flags == ("dicom_voi_lut",)
            np.testing.assert_array_equal(read, expected)

    def test_the_next_lut_is_taken(self, tmp_path, film, numbers):
        sequence = Sequence([Dataset(), lut(range(4096), bits=12)[0]])
        path = write(tmp_path / "a.dcm", numbers, bits=12, VOILUTSequence=sequence, WindowCenter=1500, WindowWidth=800)
        read, flags = reader.read_with_flags(path)
        assert flags == ("dicom_voi_lut",)
        np.testing.assert_array_equal(read, film)

    def test_a_broken_window_next_to_a_good_lut_is_ignored(self, tmp_path, film, numbers):
        voi = {"VOILUTSequence": lut(range(4096), bits=12), "WindowCenter": 0, "WindowWidth": 0}
        np.testing.assert_array_equal(shown(write(tmp_path / "a.dcm", numbers, bits=12, **voi)), film)

    @pytest.mark.parametrize("value", [b"0 ", b"-1", b"TEXT", b"1\\2 "])
    def test_a_number_of_frames_that_is_none(self, tmp_path, film, value):
        for syntax in (uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless):
            path = garble(write(tmp_path / "a.dcm", film, syntax=syntax, NumberOfFrames=1), "NumberOfFrames", value)
            read, flags = reader.read_with_flags(path)
            assert flags == ("dicom_frames",)
            np.testing.assert_array_equal(read, film)

    def test_padding_that_is_no_number(self, tmp_path, film):
        path = garble(write(tmp_path / "a.dcm", film, PixelPaddingValue=0), "PixelPaddingValue", b"none", "LO")
        read, flags = reader.read_with_flags(path)
        assert flags == ("dicom_padding",)
        np.testing.assert_array_equal(read, film)

    def test_who_asks_for_pixels_alone_finds_the_flag_in_the_log(self, tmp_path, film, caplog):
        path = write(tmp_path / "a.dcm", film, WindowCenter=0, WindowWidth=0)
        reader.read_radiograph(path)
        assert caplog.messages == [f"{path}: dicom_window: {FLAGS['dicom_window']}"]


class TestRefusing:
    """A rescale or modality LUT says what the numbers are; without it not even dark is known from bright."""

    @pytest.mark.parametrize(
        ("slope", "intercept"),
        [
            ("0", "0"),
            ("nan", "0"),
            ("1", "nan"),
            ("inf", "0"),
            ("1", "-inf"),
            ("1,5", "0"),
            ("1\\2", "0"),
            ("1", "1e300"),
        ],
    )
    def test_a_rescale_that_cannot_be_used(self, tmp_path, numbers, slope, intercept):
        path = write(tmp_path / "a.dcm", numbers, bits=12, RescaleSlope=1, RescaleIntercept=0)
        garble(path, "RescaleSlope", (slope + " " * (len(slope) % 2)).encode())
        garble(path, "RescaleIntercept", (intercept + " " * (len(intercept) % 2)).encode())
        with pytest.raises(
            ValueError, match=r"a\.dcm: its Rescale Slope and Intercept \(0028,1053 and 0028,1052\) can"
        ):
            reader.read_radiograph(path)

    def test_a_modality_lut_that_cannot_be_used(self, tmp_path, numbers):
        short = lut(range(4096), bits=12)
        short[0].LUTData = short[0].LUTData[:-1]
        for sequence in (short, Sequence([Dataset()])):
            path = write(tmp_path / "a.dcm", numbers, bits=12, ModalityLUTSequence=sequence, **WHOLE)
            with pytest.raises(ValueError, match=r"a\.dcm: its Modality LUT Sequence \(0028,3000\), which defines"):
                reader.read_radiograph(path)


def test_every_flag_has_a_sentence():
    source = "".join(
        module.__loader__.get_data(module.__file__).decode() for module in (dicom_display, dicom_identifiers)
    )
    raised = {name for name in FLAGS if f'"{name}"' in source}
    assert raised == {name for name in FLAGS if name.startswith("dicom_")} - {"dicom_frames"}
