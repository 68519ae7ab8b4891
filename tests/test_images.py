import io
import re

import numpy as np
import pytest
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
