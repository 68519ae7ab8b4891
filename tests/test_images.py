import io
import os
import re
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.transform import resize as skimage_resize

from sdfn_jax import images

GREY = np.random.default_rng(0).integers(0, 256, (30, 50)).astype(np.uint8)


def save(path, pixels, mode=None, **kwargs):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **kwargs)
    return path


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_grey_in_any_pixel_format_is_the_same_radiograph(tmp_path, mode):
    read = images.read_radiograph(save(tmp_path / "a.png", GREY, mode))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, GREY)


@pytest.mark.parametrize("suffix", [".tif", ".bmp", ".gif", ".TIFF"])
def test_lossless_formats_agree(tmp_path, suffix):
    np.testing.assert_array_equal(images.read_radiograph(save(tmp_path / f"a{suffix}", GREY)), GREY)


def test_jpeg_is_read(tmp_path):
    smooth = np.tile(np.arange(0, 200, 4, dtype=np.uint8), (30, 1))
    read = images.read_radiograph(save(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(read.astype(int) - smooth).max() < 8


def test_a_reversed_palette_is_looked_up(tmp_path):
    indices = Image.fromarray(255 - GREY)
    indices.putpalette([255 - level for level in range(256) for _ in range(3)])
    assert indices.mode == "P"
    np.testing.assert_array_equal(images.read_radiograph(save(tmp_path / "a.png", indices)), GREY)


def test_one_bit_is_black_and_white(tmp_path):
    read = images.read_radiograph(save(tmp_path / "a.png", GREY, "1"))
    assert set(np.unique(read)) == {0, 255}


@pytest.mark.parametrize(("bits", "largest"), [(12, 4095), (12, 3000), (16, 65535), (16, 40000), (10, 1023)])
def test_deep_pixels_are_scaled_by_their_own_depth(tmp_path, bits, largest):
    deep = np.linspace(0, largest, 600).round().astype(np.uint16).reshape(20, 30)
    read = images.read_radiograph(save(tmp_path / "a.png", deep))
    np.testing.assert_array_equal(read, np.rint(deep * (255 / (2**bits - 1))))


def test_a_jsrt_file_is_inverted_and_scaled(tmp_path):
    pixels = np.zeros((2048, 2048), ">u2")  # 0 is bright in these files
    pixels[0, 1], pixels[5, 3], pixels[7, 0] = 4095, 2048, 5000
    (tmp_path / "JPCLN001.IMG").write_bytes(pixels.tobytes())
    read = images.read_radiograph(tmp_path / "JPCLN001.IMG")
    assert read.shape == (2048, 2048)
    assert (read[0, 0], read[0, 1], read[5, 3], read[7, 0]) == (255, 0, 127, 0)


def test_a_jsrt_file_of_another_size_is_named(tmp_path):
    path = tmp_path / "JPCLN001.IMG"
    path.write_bytes(bytes(1000))
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: 1000 bytes, where a JSRT .IMG has 8388608"):
        images.read_radiograph(path)


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
            images.read_radiograph(path)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: cannot be decoded")
    assert refused > 200
    path.write_bytes(good[:-40])
    with pytest.raises(ValueError, match="truncated"):
        images.read_radiograph(path)


def test_what_is_no_image_is_said(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("<html>404</html>")
    with pytest.raises(ValueError, match=r"a\.png: cannot be decoded \(not an image file\)"):
        images.read_radiograph(path)


def test_content_decides_what_a_file_is(tmp_path):
    for name in ("a.jpg", "a.img", "a.dcm", "a"):
        path = tmp_path / name
        Image.fromarray(GREY).save(path, "PNG")
        np.testing.assert_array_equal(images.read_radiograph(path), GREY)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_in_which_white_is_zero_is_turned_round(tmp_path, kind):
    scale = np.iinfo(kind).max // 255
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, (255 - GREY).astype(kind) * kind(scale), photometric="miniswhite")
    np.testing.assert_array_equal(images.read_radiograph(path), GREY)


def test_fractions_are_scaled_by_one_and_whole_numbers_by_their_bits(tmp_path):
    path = tmp_path / "a.tif"
    for pixels in (GREY / np.float32(255), GREY.astype(np.float32), GREY * np.float32(257)):
        tifffile.imwrite(path, pixels)
        np.testing.assert_array_equal(images.read_radiograph(path), GREY)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1, 70000])
def test_numbers_that_are_no_grey_are_refused(tmp_path, value):
    pixels = GREY.astype(np.float32)
    pixels[3, 4] = value
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with pytest.raises(ValueError, match=r"a\.tif: pixels outside the range of 16-bit numbers"):
        images.read_radiograph(tmp_path / "a.tif")


def test_a_picture_too_large_for_memory_is_refused_before_decoding(tmp_path):
    def chunk(kind, body):
        return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)

    for side in (9000, 12000, 60000):  # below, about and far above Pillow's own limits
        header = side.to_bytes(4) * 2 + bytes([8, 0, 0, 0, 0])
        chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
        with pytest.raises(ValueError, match=r"a\.png: .*(more than the 67,108,864 that are read|decompression bomb)"):
            images.read_radiograph(tmp_path / "a.png")


def test_a_file_too_large_for_memory_is_not_read(tmp_path):
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)  # takes no place on the disk
    with pytest.raises(ValueError, match=r"a\.img: 536,870,913 bytes, where 1 to 536,870,912 are read"):
        images.read_radiograph(tmp_path / "a.img")


def test_what_is_no_file_is_said_at_once(tmp_path):
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"empty\.png: 0 bytes"):
        images.read_radiograph(tmp_path / "empty.png")
    with pytest.raises(ValueError, match=r"pipe\.png: not a file"):
        images.read_radiograph(tmp_path / "pipe.png")
    for name in ("folder.png", "nowhere.png"):
        with pytest.raises(OSError, match=name):
            images.read_radiograph(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_one_may_not_read_is_named(tmp_path):
    path = save(tmp_path / "a.png", GREY)
    path.chmod(0)
    with pytest.raises(PermissionError, match=r"a\.png"):
        images.read_radiograph(path)


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
            list(threads.map(images.read_radiograph, [path] * 40))
        assert not shown and warnings.filters == before


def test_resizing_agrees_with_scikit_image():
    y, x = np.mgrid[:120, :200]
    smooth = (127 + 60 * np.sin(x / 15) + 60 * np.cos(y / 11)).astype(np.uint8)
    resized = images.resize(smooth, (30, 60))
    assert resized.shape == (30, 60) and resized.dtype == np.uint8
    peer = skimage_resize(smooth.astype(float), (30, 60), order=1, anti_aliasing=True)
    # the two differ in how they mirror the border
    assert np.abs(resized - peer)[2:-2, 2:-2].max() < 4


def test_resizing_keeps_the_mean_of_noise():
    assert abs(images.resize(GREY, (15, 25)).mean() - GREY.mean()) < 1
    np.testing.assert_array_equal(images.resize(GREY, GREY.shape), GREY)
