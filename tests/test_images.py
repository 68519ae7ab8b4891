import contextlib
import io
import os
import re
import struct
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.transform import resize as skimage_resize

from sdfn_jax.radiographs import grey_levels, picture_files, reader
from sdfn_jax.radiographs import pixels as radiographs_pixels
from sdfn_jax.radiographs.limits import MAX_PIXELS
from tests import picture_bytes
from tests.picture_bytes import COLOUR, COLOUR_ALPHA, GREY_ALPHA, chunk, deep_png, encoded

GREY = np.random.default_rng(0).integers(0, 256, (30, 50)).astype(np.uint8)


def save(path, pixels, mode=None, **kwargs):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **kwargs)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_grey_in_any_pixel_format_is_the_same_radiograph(tmp_path, mode):
    read = reader.read_radiograph(save(tmp_path / "a.png", GREY, mode))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, GREY)


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".gif", ".TIFF"])
def test_lossless_formats_agree(tmp_path, suffix):
    np.testing.assert_array_equal(reader.read_radiograph(save(tmp_path / f"a{suffix}", GREY)), GREY)


def test_jpeg_is_read(tmp_path):
    smooth = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (30, 1))
    read = reader.read_radiograph(save(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(read.astype(int) - smooth).max() < 8


def test_a_reversed_palette_is_looked_up(tmp_path):
    indices = Image.fromarray(255 - GREY)
    indices.putpalette([255 - level for level in range(256) for _ in range(3)])
    assert indices.mode == "P"
    np.testing.assert_array_equal(reader.read_radiograph(save(tmp_path / "a.png", indices)), GREY)


def test_one_bit_is_black_and_white(tmp_path):
    read = reader.read_radiograph(save(tmp_path / "a.png", GREY, "1"))
    assert set(np.unique(read)) == {0, 255}


@pytest.mark.parametrize(("bits", "largest"), [(12, 4095), (12, 3000), (16, 65535), (16, 40000), (10, 1023)])
def test_deep_pixels_are_scaled_by_their_own_depth(tmp_path, bits, largest):
    deep = np.linspace(0, largest, 600).round().astype(np.uint16).reshape(20, 30)
    read = reader.read_radiograph(save(tmp_path / "a.png", deep))
    np.testing.assert_array_equal(read, np.rint(deep * (255 / (2**bits - 1))))


def test_a_jsrt_file_is_inverted_and_scaled(tmp_path):
    pixels = np.zeros((2048, 2048), ">u2")  # 0 is bright in these files
    pixels[0, 1], pixels[5, 3], pixels[7, 0] = 4095, 2048, 5000
    (tmp_path / "JPCLN001.IMG").write_bytes(pixels.tobytes())
    read = reader.read_radiograph(tmp_path / "JPCLN001.IMG")
    assert read.shape == (2048, 2048)
    assert (read[0, 0], read[0, 1], read[5, 3], read[7, 0]) == (255, 0, 127, 0)


def test_a_jsrt_file_of_the_other_byte_order_is_read(tmp_path):
    pixels = np.tile(np.arange(2048) * 2, (2048, 1))
    (tmp_path / "big.IMG").write_bytes(pixels.astype(">u2").tobytes())
    (tmp_path / "little.IMG").write_bytes(pixels.astype("<u2").tobytes())
    read = reader.read_radiograph(tmp_path / "little.IMG")
    np.testing.assert_array_equal(read, reader.read_radiograph(tmp_path / "big.IMG"))
    assert (read[0, 0], read[0, -1]) == (255, 0)


def test_a_jsrt_file_of_other_numbers_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2**16, (2048, 2048)).astype("<u2")
    (tmp_path / "a.IMG").write_bytes(pixels.tobytes())
    with pytest.raises(ValueError, match=r"a\.IMG: numbers over 4,095 in either byte order"):
        reader.read_radiograph(tmp_path / "a.IMG")


def test_a_jsrt_file_of_another_size_is_named(tmp_path):
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: 1000 bytes; a JSRT .IMG has 8388608"):
        reader.read_radiograph(path)


def test_damaged_files_raise_one_kind_of_error_that_names_the_file(tmp_path):
    """Cut anywhere, or a byte changed anywhere: a ValueError with the name, or a readable image, and nothing else."""
    path = tmp_path / "a.png"
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "PNG")
    good = buffer.getvalue()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(300):
        damaged = bytearray(good[: rng.integers(len(good))] if rng.random() < 0.5 else good)
        if len(damaged) == len(good):
            damaged[rng.integers(len(good))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            reader.read_radiograph(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: cannot be decoded")
    assert refused > 200
    path.write_bytes(good[:-40])
    with pytest.raises(ValueError, match="truncated"):
        reader.read_radiograph(path)


def test_what_is_no_image_is_said(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("404 Not Found")
    with pytest.raises(ValueError, match=r"a\.png: cannot be decoded \(not an image file\)"):
        reader.read_radiograph(path)


def test_content_decides_what_a_file_is(tmp_path):
    for name in ("a.jpg", "a.img", "a.dcm", "a"):
        path = tmp_path / name
        Image.fromarray(GREY).save(path, "PNG")
        np.testing.assert_array_equal(reader.read_radiograph(path), GREY)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_in_which_white_is_zero_is_turned_round(tmp_path, kind):
    scale = np.iinfo(kind).max // 255
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (255 - GREY).astype(kind) * kind(scale), photometric="miniswhite")
    np.testing.assert_array_equal(reader.read_radiograph(path), GREY)


def test_fractions_are_scaled_by_one_and_whole_numbers_by_their_bits(tmp_path):
    path = tmp_path / "a.tif"
    for pixels in (GREY / np.float32(255), GREY.astype(np.float32), GREY * np.float32(257)):
        tifffile.imwrite(path, pixels)
        np.testing.assert_array_equal(reader.read_radiograph(path), GREY)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 70000])
def test_numbers_that_are_no_grey_are_refused(tmp_path, value):
    pixels = GREY.astype(np.float32)
    pixels[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(ValueError, match=r"a\.tif: pixels outside the range of 16-bit numbers"):
        reader.read_radiograph(tmp_path / "a.tif")


def test_a_picture_too_large_for_memory_is_refused_before_decoding(tmp_path):
    def chunk(kind, body):
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    for side in (9000, 12000, 60000):  # below, about and far above Pillow's own limits
        header = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        with pytest.raises(ValueError, match=r"a\.png: .*(more than the 67,108,864 that are read|decompression bomb)"):
            reader.read_radiograph(tmp_path / "a.png")


def test_a_file_too_large_for_memory_is_not_read(tmp_path):
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate(reader.MAX_BYTES + 1)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"a\.img: 536,870,913 bytes; expected 1 to 536,870,912"):
        reader.read_radiograph(tmp_path / "a.img")


def test_what_is_no_file_is_said_at_once(tmp_path):
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"empty\.png: 0 bytes"):
        reader.read_radiograph(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"pipe\.png: not a file"):
        reader.read_radiograph(tmp_path / "pipe.png")
    for name in ("folder.png", "nowhere.png"):
        with pytest.raises(OSError, match=name):
            reader.read_radiograph(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_one_may_not_read_is_named(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"a\.png"):
        reader.read_radiograph(path)


def test_warnings_of_decoders_stay_inside_whatever_the_threads(tmp_path):
    """A TIFF that Pillow warns of, read by several threads: no warning, and the filters as they were."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GREY)
    data = bytearray(path.read_bytes())
    data[data.index(struct.pack("<HHI", 256, 4, 1)) + 4] = 2  # two widths
    path.write_bytes(data)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        Image.open(path).close()
        assert shown, "Pillow no longer warns of this file: find another"
        before, shown[:] = list(warnings.filters), []
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(reader.read_radiograph, [path] * 40))
        assert not shown and warnings.filters == before


def test_resizing_agrees_with_scikit_image():
    y, x = np.mgrid[:120, :200]
    smooth = (127 + 60 * np.sin(x / 15) + 60 * np.cos(y / 11)).astype(np.uint8)
    resized = radiographs_pixels.resize(smooth, (30, 60))
    assert resized.shape == (30, 60) and resized.dtype == np.uint8
    peer = skimage_resize(smooth.astype(float), (30, 60), order=1, anti_aliasing=True)
    # the two differ in how they mirror the border
    assert np.abs(resized - peer)[2:-2, 2:-2].max() < 4


def test_resizing_keeps_the_mean_of_noise():
    assert abs(radiographs_pixels.resize(GREY, (15, 25)).mean() - GREY.mean()) < 1
    np.testing.assert_array_equal(radiographs_pixels.resize(GREY, GREY.shape), GREY)


class TestOrientation:
    """A camera stores what its sensor gave and a tag that turns it upright, as every viewer does."""

    # How Pillow has to store an upright picture for the tag to put it right.
    STORED = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }

    def stored(self, orientation, pixels=GREY):
        turn, image = self.STORED[orientation], Image.fromarray(pixels)
        return image if turn is None else image.transpose(turn)

    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("kind", ["PNG", "TIFF"])
    def test_the_film_is_upright(self, orientation, kind):
        exif = Image.Exif()
        exif[274] = orientation
        options = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
        data = encoded(self.stored(orientation), kind, **options)
        np.testing.assert_array_equal(reader.decode(data), GREY)

    @pytest.mark.parametrize("orientation", STORED)
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_of_a_jpeg_too_in_either_byte_order(self, orientation, order):
        smooth = np.add.outer(np.arange(32), 3 * np.arange(48)).astype(np.uint8)
        exif = struct.pack(
            f"{order}2sHLHHHLHHL", b"II" if order == "<" else b"MM", 42, 8, 1, 274, 3, 1, orientation, 0, 0
        )
        jpeg = encoded(self.stored(orientation, smooth), "JPEG", quality=95)
        read = reader.decode(picture_bytes.with_segments(jpeg, [b"\xff\xe1Exif\0\0" + exif]))
        assert read.shape == smooth.shape
        assert np.abs(read.astype(int) - smooth).max() < 4

    def test_deep_colour_is_turned_too(self):
        turned = np.asarray(self.stored(6)).astype(np.uint16)
        png = deep_png(np.stack([turned * 16] * 3, axis=-1), COLOUR)
        exif = b"MM\0*" + struct.pack(">LHHHLHH", 8, 1, 274, 3, 1, 6, 0)
        read = reader.decode(picture_bytes.with_chunks(png, [chunk(b"eXIf", exif)]))
        np.testing.assert_array_equal(read, np.rint(GREY * (16 * 255 / 4095)))

    @pytest.mark.parametrize("exif", [b"", b"II", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"dear diary", bytes(100)])
    def test_exif_without_sense_changes_nothing(self, exif):
        png = encoded(GREY, "PNG")
        np.testing.assert_array_equal(reader.decode(picture_bytes.with_chunks(png, [chunk(b"eXIf", exif)])), GREY)


class TestDeepColour:
    """16 bits per channel: 12-bit numbers in it are as bright as the same numbers in grey."""

    DEEP = np.linspace(0, 4095, 600).round().astype(np.uint16).reshape(20, 30)
    SHOWN = np.rint(DEEP * (255 / 4095)).astype(np.uint8)

    @pytest.mark.parametrize("largest", [4095, 65535])
    @pytest.mark.parametrize(("colour", "channels"), [(COLOUR, 3), (GREY_ALPHA, 1), (COLOUR_ALPHA, 3)])
    def test_a_png(self, largest, colour, channels):
        deep = np.linspace(0, largest, 600).round().astype(np.uint16).reshape(20, 30)
        opaque = [] if colour == COLOUR else [np.full_like(deep, 65535)]
        read = reader.decode(deep_png(np.stack([deep] * channels + opaque, axis=-1), colour))
        np.testing.assert_array_equal(read, np.rint(deep * (255 / largest)))

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    @pytest.mark.parametrize("alpha", [False, True])
    def test_a_tiff(self, tmp_path, byteorder, compression, alpha):
        pixels = np.stack([self.DEEP] * 3 + [np.full_like(self.DEEP, 65535)] * alpha, axis=-1)
        options = {"extrasamples": ["unassalpha"]} if alpha else {}
        tifffile.imwrite(
            tmp_path / "a.tif",
            pixels,
            photometric="rgb",
            byteorder=byteorder,
            compression=compression,
            rowsperstrip=7,
            **options,
        )
        np.testing.assert_array_equal(reader.read_radiograph(tmp_path / "a.tif"), self.SHOWN)

    def test_colour_becomes_luminance(self):
        colours = np.random.default_rng(3).integers(0, 65536, (20, 30, 3)).astype(np.uint16)
        expected = (colours @ np.array([0.299, 0.587, 0.114])) * (255 / 65535)
        assert np.abs(reader.decode(deep_png(colours, COLOUR)) - expected).max() < 0.51

    def test_one_colour_after_the_other_is_refused(self, tmp_path):
        tifffile.imwrite(tmp_path / "a.tif", np.stack([self.DEEP] * 3), photometric="rgb", planarconfig="separate")
        with pytest.raises(ValueError, match="in separate colour planes; save it interleaved, or as grey"):
            reader.read_radiograph(tmp_path / "a.tif")

    @pytest.mark.parametrize("byteorder", ["<", ">"])
    def test_grey_in_either_byte_order(self, tmp_path, byteorder):
        tifffile.imwrite(tmp_path / "a.tif", self.DEEP, photometric="minisblack", byteorder=byteorder)
        np.testing.assert_array_equal(reader.read_radiograph(tmp_path / "a.tif"), self.SHOWN)


class TestTransparency:
    """What is not opaque lies on black, as the outside of a film; what is the same everywhere says nothing."""

    LEFT = np.arange(50) < 20

    def alpha(self, inside, outside):
        return np.broadcast_to(np.where(self.LEFT, outside, inside), GREY.shape)

    @pytest.mark.parametrize("mode", ["LA", "RGBA"])
    def test_what_is_cut_out_is_black(self, mode):
        image = Image.fromarray(GREY).convert(mode)
        image.putalpha(Image.fromarray(self.alpha(255, 0).astype(np.uint8)))
        np.testing.assert_array_equal(reader.decode(encoded(image, "PNG")), np.where(self.LEFT, 0, GREY))

    @pytest.mark.parametrize("opacity", [255, 128, 0])
    def test_the_same_opacity_everywhere_changes_nothing(self, opacity):
        image = Image.fromarray(GREY).convert("RGBA")
        image.putalpha(opacity)
        np.testing.assert_array_equal(reader.decode(encoded(image, "PNG")), GREY)

    def test_half_opaque_is_half_as_bright(self):
        image = Image.fromarray(np.full_like(GREY, 200)).convert("LA")
        image.putalpha(Image.fromarray(self.alpha(254, 127).astype(np.uint8)))
        np.testing.assert_array_equal(reader.decode(encoded(image, "PNG"))[0], np.where(self.LEFT, 100, 200))

    def test_alpha_of_12_bits_is_opaque_at_its_largest(self):
        deep, alpha = GREY.astype(np.uint16) * 16, self.alpha(4095, 0).astype(np.uint16)
        read = reader.decode(deep_png(np.stack([deep, alpha], axis=-1), GREY_ALPHA))
        np.testing.assert_array_equal(read, np.where(self.LEFT, 0, np.rint(deep * (255 / 4095))))

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_a_transparent_grey_or_palette_entry(self, kind, mode):
        image = Image.fromarray(GREY)
        if mode == "P":
            image = image.convert("P")
        transparent = int(GREY[3, 4])
        read = reader.decode(encoded(image, kind, transparency=transparent))
        np.testing.assert_array_equal(read, np.where(transparent == GREY, 0, GREY))

    def test_a_transparent_grey_of_16_bits(self):
        deep = GREY.astype(np.uint16) * 16
        png = picture_bytes.with_chunks(deep_png(deep, 0), [chunk(b"tRNS", struct.pack(">H", deep[3, 4]))])
        np.testing.assert_array_equal(reader.decode(png), np.where(deep == deep[3, 4], 0, np.rint(deep * (255 / 4095))))


def test_cmyk_is_read_as_grey():
    smooth = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (30, 1))
    read = reader.decode(encoded(Image.fromarray(smooth).convert("CMYK"), "JPEG", quality=95))
    assert np.abs(read.astype(int) - smooth).max() < 8


def test_gamma_and_significant_bits_change_nothing():
    chunks = [chunk(b"gAMA", struct.pack(">L", 100000)), chunk(b"sBIT", b"\x05")]
    np.testing.assert_array_equal(reader.decode(picture_bytes.with_chunks(encoded(GREY, "PNG"), chunks)), GREY)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (encoded(GREY, "WEBP"), "a WebP picture; PNG, JPEG, TIFF, BMP, GIF, DICOM and JSRT's .IMG are read"),
        (encoded(GREY, "JPEG2000"), "a JPEG 2000 picture"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"II*\0" + bytes(100), "a TIFF file, but damaged or of an unsupported kind"),
        (b"MMORPG, a film?", "not an image file"),
    ],
)
def test_what_is_refused_is_called_by_its_kind(data, told):
    with pytest.raises(ValueError, match=re.escape(f"cannot be decoded ({told}")):
        reader.decode(data)


class TestBudget:
    """Files of a few kilobytes that would keep a decoder busy for minutes or hours are refused in a moment."""

    def refused(self, data, told):
        start = time.process_time()
        with pytest.raises(ValueError, match=told):
            reader.decode(data)
        assert time.process_time() - start < 2

    def progressive(self, side=64, mode="L"):
        return encoded(Image.new(mode, (side, side)), "JPEG", progressive=True)

    def test_a_jpeg_of_many_scans(self):
        reader.decode(picture_bytes.with_scans(self.progressive(), 90))
        self.refused(picture_bytes.with_scans(self.progressive(), 400), "a JPEG with over 100 scans")

    def test_a_large_jpeg_of_fewer_scans(self):
        self.refused(picture_bytes.with_scans(self.progressive(8000), 60), "its JPEG scans cover 4,224,000,000 pixels")

    def test_the_largest_progressive_jpeg_of_an_honest_writer_is_within_it(self):
        header = self.progressive(64, "RGB")
        data = bytearray(header)
        frame = data.index(b"\xff\xc2")
        data[frame + 5 : frame + 9] = struct.pack(">HH", 8192, 8192)
        assert picture_files._scanned_pixels(bytes(data)) == 14 * MAX_PIXELS
        picture_files.check_jpeg(bytes(data))

    def test_scans_of_a_jpeg_that_is_not_progressive(self):
        """Three colours, each in a scan of its own, and then again and again."""
        jpeg = encoded(Image.new("RGB", (64, 64)), "JPEG")
        start = jpeg.index(b"\xff\xda")
        alone = b"\xff\xda\0\x08\x01" + jpeg[start + 5 : start + 7] + jpeg[-20:-2].replace(b"\xff", b"")
        self.refused(jpeg[:start] + alone * 500 + jpeg[-2:], "a JPEG with over 100 scans")

    def test_a_jpeg_of_a_million_segments(self):
        self.refused(picture_bytes.with_segments(self.progressive(), [b"\xff\xfe"] * 10**6), "over 8,192 segments")

    def test_rubbish_before_a_jpegs_image_takes_no_time(self):
        jpeg = self.progressive()
        for rubbish in (b"\0" * 10**7, b"\xff" * 10**7):
            start = time.process_time()
            assert not reader.decode(jpeg[:20] + rubbish + jpeg[20:]).any()  # between its first two segments
            assert time.process_time() - start < 2

    def test_exif_whose_tags_all_claim_the_same_bytes(self):
        """64 KiB that Pillow, reading all tags, would make hundreds of MiB of."""
        exif = picture_bytes.directory([(number, 7, 60000, 8) for number in range(1000, 6000)])
        jpeg = picture_bytes.with_segments(encoded(GREY, "JPEG"), [b"\xff\xe1Exif\0\0" + exif])
        tracemalloc.start()
        try:
            assert reader.decode(jpeg).shape == GREY.shape
            assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
        finally:
            tracemalloc.stop()

    def test_what_says_nothing_of_the_grey_levels_does_not_reach_the_decoder(self):
        jpeg, png, gif = (encoded(GREY, kind) for kind in ("JPEG", "PNG", "GIF"))
        exif = picture_bytes.directory([(274, 3, 1, 6)])
        extras = [
            b"\xff\xe1Exif\0\0" + exif,
            b"\xff\xe2ICC_PROFILE\0" + bytes(99),
            b"\xff\xedPhotoshop",
            b"\xff\xfename",
        ]
        assert picture_files.essentials(picture_bytes.with_segments(jpeg, extras)) == (jpeg, 6)
        chunks = [chunk(b"eXIf", exif), chunk(b"iCCP", bytes(99)), chunk(b"tEXt", b"name")]
        assert picture_files.essentials(picture_bytes.with_chunks(png, chunks)) == (png, 6)
        image = picture_files._palette_bytes(gif, 10) + 13
        assert picture_files.essentials(gif[:image] + b"!\xfe\4name\0" + gif[image:]) == (gif, 1)

    def test_a_png_whose_comments_and_profiles_inflate_takes_no_time(self):
        bomb = zlib.compress(bytes(2**20 - 100), 9)
        chunks = [chunk(b"zTXt", b"a\0\0" + bomb), chunk(b"iCCP", b"a\0\0" + bomb)] * 5000
        start = time.process_time()
        np.testing.assert_array_equal(reader.decode(picture_bytes.with_chunks(encoded(GREY, "PNG"), chunks)), GREY)
        assert time.process_time() - start < 1

    def test_a_png_of_a_million_chunks(self):
        self.refused(
            picture_bytes.with_chunks(encoded(GREY, "PNG"), [chunk(b"IDAT", b"")] * 10**6), "over 65,536 chunks"
        )

    def test_a_gif_with_an_endless_comment(self):
        gif = encoded(GREY, "GIF")
        image = picture_files._palette_bytes(gif, 10) + 13
        comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 10**5 + b"\0"
        self.refused(gif[:image] + comment + gif[image:], "a GIF with over 65,536 blocks of comments")
        np.testing.assert_array_equal(reader.decode(gif[:image] + b"!\xfe\x01a\0" * 1000 + gif[image:]), GREY)

    @pytest.mark.parametrize(
        ("fields", "told"),
        [
            ([(number, 7, 400000, 8) for number in range(1000, 40000)], "claim more bytes than it has"),
            ([(273, 4, 150000, 8), *[(n, 4, 100000, 8) for n in range(1000, 1010)]], "over 1,048,576 numbers"),
            ([(256, 4, 1, 1), (257, 4, 1, 10**6), (322, 4, 1, 2**22), (323, 4, 1, 16)], "tiles have .* pixels"),
        ],
    )
    def test_a_tiff_of_tags_without_measure(self, fields, told):
        room = bytes(6 * 10**6 if "numbers" in told else 0)
        self.refused(picture_bytes.directory(fields) + room, told)

    def test_a_tiff_of_many_strips_that_are_one_jpeg_of_many_scans(self, tmp_path):
        scans = picture_bytes.with_scans(self.progressive(4096), 80)
        data = picture_bytes.directory(
            [
                *((256, 4, 1, 4096), (257, 4, 1, 4096 * 4), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 1)),
                *((273, 4, 2, 200), (277, 3, 1, 1), (278, 4, 1, 4096), (279, 4, 2, 208)),
            ]
        ).ljust(200, b"\0")
        start = 216
        data += struct.pack("<LLLL", start, start, len(scans), len(scans)) + scans
        self.refused(data, "its JPEG scans cover")

    def test_a_run_length_coded_bmp(self):
        header = struct.pack("<2sLLLLllHHLLLLLL", b"BM", 0, 0, 1078, 40, 8000, 8000, 1, 8, 1, 0, 0, 0, 256, 0)
        self.refused(header.ljust(2000, b"\0"), "a run-length coded BMP of over 16,777,216 pixels")

    def test_damaged_pictures_of_every_kind_are_left_to_the_decoder(self):
        rng = np.random.default_rng(5)
        goods = [encoded(GREY, kind) for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP")]
        for _ in range(300):
            for good in goods:
                damaged = bytearray(good[: rng.integers(len(good))] if rng.random() < 0.5 else good)
                for place in rng.integers(min(len(damaged), 100), size=3) if damaged else ():
                    damaged[place] = rng.integers(256)
                with contextlib.suppress(reader.Refused):
                    picture_files.essentials(bytes(damaged))


class TestArrays:
    """What a caller passes in is read by the rules for pictures, or refused in a sentence."""

    DEEP = GREY.astype(np.uint16) * 16

    def test_a_radiograph_is_itself(self):
        assert grey_levels.as_radiograph(GREY) is GREY

    @pytest.mark.parametrize(
        "same",
        [
            GREY.astype(np.int64),
            GREY.astype(np.float32),
            GREY / 255,
            (GREY / 255).astype(np.float16),
            jnp.asarray(GREY),
            jnp.asarray(GREY, jnp.bfloat16),
            GREY.tolist(),
            Image.fromarray(GREY),
            Image.fromarray(GREY).convert("P"),
            GREY[None],
            GREY[..., None],
            GREY[None, None],
            GREY[None, ..., None],
            np.stack([GREY] * 3, axis=-1),
            np.stack([GREY] * 3),
            np.stack([GREY] * 3)[None] / 255,
            np.stack([GREY] * 3 + [np.full_like(GREY, 255)], axis=-1),
            np.stack([GREY] * 3 + [np.full_like(GREY, 255)]),
            np.asfortranarray(GREY.astype(">u2")),
        ],
        ids=lambda each: f"{type(each).__name__} {getattr(each, 'dtype', '')} {getattr(each, 'shape', '')}",
    )
    def test_the_usual_forms_of_one_film_are_one_film(self, same):
        read = grey_levels.as_radiograph(same)
        assert (read.dtype, read.shape) == (np.uint8, GREY.shape)
        # bfloat16 keeps 8 bits of a number, half precision 11
        assert np.abs(read.astype(int) - GREY).max() <= (getattr(same, "dtype", "") == jnp.bfloat16)

    @pytest.mark.parametrize("scale", [np.uint16(1), np.float32(1), 1 / 4095])
    def test_12_bits_in_16_are_as_bright_as_in_a_file(self, scale, tmp_path):
        from_file = reader.read_radiograph(save(tmp_path / "a.png", self.DEEP))
        np.testing.assert_array_equal(grey_levels.as_radiograph(self.DEEP * scale), from_file)

    def test_black_and_white_is_black_and_white(self):
        for mask in (GREY > 100, (GREY > 100).astype(np.float32)):
            np.testing.assert_array_equal(grey_levels.as_radiograph(mask), np.where(GREY > 100, 255, 0))

    def test_colour_and_alpha_as_in_a_file(self):
        pixels = np.random.default_rng(2).integers(0, 256, (20, 30, 4)).astype(np.uint8)
        for channels in (3, 4):
            some = np.ascontiguousarray(pixels[..., :channels])
            np.testing.assert_array_equal(grey_levels.as_radiograph(some), reader.decode(encoded(some, "PNG")))

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            (GREY[0], r"an array of shape \(50,\); expected one radiograph: \(H, W\), \(1, H, W\)"),
            (np.stack([GREY] * 8), r"an array of shape \(8, 30, 50\)"),
            (np.stack([GREY] * 3)[:, None], r"an array of shape \(3, 1, 30, 50\)"),
            (np.stack([GREY, GREY, 255 - GREY]), "first axis may be colours or films; give colours as"),
            (GREY[:0], "0 x 50 pixels: an empty image"),
            (GREY - 1000.0, "pixels outside the range of 16-bit numbers"),
            (GREY.astype(np.int16) - 300, "pixels outside the range"),
            (GREY * 1000.0, "pixels outside the range"),
            (np.where(GREY > 5, GREY, np.nan), "pixels outside the range"),
            (GREY * (1.02 / 255), "fractions from 0 to 1.02, on a scale neither of 0 to 1 nor of 0 to 255"),
            (GREY * 1j, "an array of complex128"),
            ("film.png", "str; expected a radiograph's pixels, an array of numbers"),
            (None, "NoneType; expected"),
        ],
    )
    def test_others_are_refused_in_a_sentence(self, wrong, told):
        with pytest.raises(ValueError, match=told):
            grey_levels.as_radiograph(wrong)

    @pytest.mark.parametrize("wrong", [DEEP, GREY / 255, GREY[None], GREY[:0], GREY.tolist()])
    def test_inside_nothing_else_is_computed_with(self, wrong):
        with pytest.raises(ValueError, match="expected .H, W. uint8|an empty image"):
            radiographs_pixels.resize(wrong, (10, 10))


@pytest.mark.parametrize("name", ["a.png", "a.dcm", "a.IMG", "a"])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n  "])
def test_a_web_page_is_called_one_whatever_its_name(tmp_path, name, mark):
    (tmp_path / name).write_text(mark + "<!DOCTYPE html><html><body>Sign in</body></html>" * 20)
    with pytest.raises(ValueError, match=rf"{name}: a web page, not an image; download the file itself again"):
        reader.read_radiograph(tmp_path / name)


def test_a_git_lfs_pointer_is_called_one(tmp_path):
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    with pytest.raises(ValueError, match="a Git LFS pointer instead of the file itself"):
        reader.read_radiograph(tmp_path / "a.png")
