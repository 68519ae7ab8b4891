"""Masks of whatever grey levels -> lungs, or a refusal."""

import io

import numpy as np
import official_files as official
import pytest
from PIL import Image

from tfds_builders import levels

# Off the blocks of JPEG.
LEFT, RIGHT = (np.roll(mask > 0, 3, (0, 1)) for mask in official.lung_masks(128, 128))
BOTH = LEFT | RIGHT


def of(*values, regions=(LEFT, RIGHT)):
    mask = np.full(BOTH.shape, values[0], np.uint8)
    for value, region in zip(values[1:], regions, strict=True):
        mask[region] = value
    return mask


def as_jpeg(mask, quality=75):
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def through(mask, side):
    """Made smaller and large again, as copies are."""
    small = Image.fromarray(mask).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(small.resize(mask.shape, Image.Resampling.BICUBIC))


@pytest.mark.parametrize("values", [(0, 255, 255), (0, 1, 1), (3, 250, 250)])
def test_one_level_is_lung(values):
    np.testing.assert_array_equal(levels.lungs(of(*values), both=True), BOTH)
    assert not levels.lungs(of(*values[:2], regions=[LEFT]), both=False)[RIGHT].any()


@pytest.mark.parametrize("values", [(0, 1, 2), (0, 2, 1), (0, 128, 255), (0, 255, 100), (0, 76, 150)])
def test_a_level_for_each_lung(values):
    np.testing.assert_array_equal(levels.lungs(of(*values), both=True), BOTH)
    blurred = levels.lungs(as_jpeg(of(*values)) if max(values) > 2 else of(*values), both=True)
    assert (blurred != BOTH).mean() < 0.01


@pytest.mark.parametrize("blur", [as_jpeg, lambda mask: as_jpeg(mask, 30), lambda mask: through(mask, 48)])
def test_soft_edges_are_cut_in_their_middle(blur):
    mask = blur(of(0, 255, 255))
    assert len(np.unique(mask)) > 2
    np.testing.assert_array_equal(levels.lungs(mask, both=True), mask > mask.max() // 2)


HEART = np.zeros_like(BOTH)
HEART[60:100, 50:84] = True


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (of(0, 0, 0), "an empty mask"),
        (
            of(0, 1, 2, 3, regions=(LEFT, RIGHT, HEART)),
            "a mask of the levels 0, 1, 2, 3: it is unclear which of them are lung",
        ),
        (of(0, 1, 2, regions=(BOTH, HEART)), "a mask of the levels 0, 1, 2: it is unclear which of them are lung"),
        (of(0, 85, 170, 255, regions=(LEFT, RIGHT, HEART)), "0, 85, 170, 255: it is unclear which of them are lung"),
        (of(255, 0, 0), "lung on 100% of the image's border: an inverted mask"),
        (of(1, 0, 0), "an inverted mask|no lungs on a dark background"),
        (of(255, 255, 255), "one level, 255: no lungs on a dark background"),
        (np.tile(np.arange(128, dtype=np.uint8) * 2, (128, 1)), "0 to 254: no lungs on a dark background"),
        (official.picture(0, 128, 128), "no lungs on a dark background"),
    ],
)
def test_other_levels_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        levels.lungs(mask, both=True)


def test_two_levels_in_the_mask_of_one_lung_are_refused():
    with pytest.raises(ValueError, match="a mask of the levels 0, 1, 2: it is unclear which of them are lung"):
        levels.lungs(of(0, 1, 2), both=False)


def test_a_speck_of_another_value_decides_nothing():
    mask = of(0, 1, 1)
    mask[3, 3] = 255
    with pytest.raises(ValueError, match="no lungs on a dark background"):
        levels.lungs(mask, both=True)
    mask[3, 3] = 0
    mask[60, 60] = 1
    assert levels.lungs(mask, both=True).sum() == BOTH.sum() + 1


@pytest.mark.parametrize("blur", [np.array, as_jpeg, lambda mask: through(mask, 64)])
def test_masks_are_distinguished_from_radiographs(blur):
    assert levels.is_mask(blur(of(0, 255, 255)))
    assert levels.is_mask(blur(of(0, 255, regions=[HEART])))


def test_radiographs_are_no_masks():
    assert not levels.is_mask(official.picture(0))


@pytest.mark.real
def test_real_films_are_no_masks_and_real_masks_are_read(real_data):
    from sdfn_jax.radiographs import reader

    root = real_data / "montgomery" / "MontgomerySet"
    for film in sorted((root / "CXR_png").glob("*.png")):
        assert not levels.is_mask(reader.read_radiograph(film)), film.name
        left, right = (
            reader.read_radiograph(root / "ManualMask" / side / film.name) for side in ("leftMask", "rightMask")
        )
        for mask in (left, right):
            np.testing.assert_array_equal(levels.lungs(mask, both=False), mask > mask.max() // 2)
        each = np.where(left > 0, 128, np.where(right > 0, 255, 0)).astype(np.uint8)
        np.testing.assert_array_equal(levels.lungs(each, both=True), (left > 0) | (right > 0))
