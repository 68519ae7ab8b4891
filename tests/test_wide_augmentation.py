"""Wide changes of radiographs and lung masks: each alone, and what it may not do."""

import jax
import numpy as np
import pytest

from configs import lungs
from sdfn_jax.training import wide_augmentation

SIDE = 32
NOTHING = dict.fromkeys(lungs.get_config().wide_augmentation, 0.0)
FILMS = 24


@pytest.fixture(scope="module")
def films() -> tuple[np.ndarray, np.ndarray]:
    """Grey values and a mask without any symmetry."""
    image = np.random.default_rng(0).uniform(0.2, 0.6, (FILMS, SIDE, SIDE)).astype(np.float32)
    mask = np.zeros((FILMS, SIDE, SIDE), np.float32)
    mask[:, 4:20, 3:12] = 1
    mask[:, 6:12, 20:28] = 1
    return image, mask


def changed(films, **ranges) -> tuple[np.ndarray, np.ndarray]:
    image, mask = wide_augmentation.change(jax.random.key(3), *films, **{**NOTHING, **ranges})
    return np.asarray(image), np.asarray(mask)


def test_nothing_asked_for_changes_nothing(films):
    image, mask = changed(films)
    np.testing.assert_allclose(image, films[0], atol=1e-6)
    np.testing.assert_array_equal(mask, films[1])


def test_turns_and_mirror_images_take_the_mask_along(films):
    image, mask = changed(films, quarter_turns=1.0, mirrored=0.5)
    seen = set()
    for number in range(FILMS):
        forms = {
            (turns, mirrored): (np.rot90(films[0][number], turns), np.rot90(films[1][number], turns))
            for turns in range(4)
            for mirrored in (False, True)
        }
        forms = {key: (a[:, ::-1], b[:, ::-1]) if key[1] else (a, b) for key, (a, b) in forms.items()}
        (form,) = (key for key, (a, _) in forms.items() if np.allclose(a, image[number], atol=1e-6))
        np.testing.assert_array_equal(mask[number], forms[form][1])
        seen.add(form)
    assert {turns for turns, _ in seen} == {1, 2, 3}
    assert {mirrored for _, mirrored in seen} == {False, True}


def test_a_negative_is_one(films):
    image, mask = changed(films, inverted=1.0)
    np.testing.assert_allclose(image, 1 - films[0], atol=1e-6)
    np.testing.assert_array_equal(mask, films[1])


def test_whitened_lungs_stay_in_the_mask_and_nothing_gets_darker(films):
    image, mask = changed(films, whitened=1.0)
    np.testing.assert_array_equal(mask, films[1])
    assert (image >= films[0] - 1e-6).all()
    assert (np.abs(image - films[0]).max(axis=(1, 2)) > 0.05).mean() > 0.9


def test_gas_is_dark_and_outside_the_lungs(films):
    image, mask = changed(films, gas=1.0)
    np.testing.assert_array_equal(mask, films[1])
    assert (image <= films[0] + 1e-6).all()
    np.testing.assert_allclose(image[mask > 0], films[0][mask > 0], atol=1e-6)
    assert (np.abs(image - films[0]).max(axis=(1, 2)) > 0.05).mean() > 0.9


def test_what_a_border_covers_leaves_the_mask(films):
    image, mask = changed(films, collimated=1.0)
    same = np.isclose(image, films[0], atol=1e-6)
    np.testing.assert_array_equal(mask, np.where(same, films[1], 0))
    assert same.mean() > 0.6
    for number in range(FILMS):
        assert np.unique(image[number][~same[number]]).size <= 1


def test_a_wire_and_a_marker_leave_the_mask(films):
    image, mask = changed(films, foreign=1.0)
    np.testing.assert_array_equal(mask, films[1])
    assert 0.002 < (np.abs(image - films[0]) > 1e-6).mean() < 0.2


@pytest.mark.parametrize(("what", "size"), [("shading", 0.1), ("gamma", 0.4), ("blur", 1.0), ("noise", 0.08)])
def test_grey_values_alone_change(films, what, size):
    image, mask = changed(films, **{what: size})
    np.testing.assert_array_equal(mask, films[1])
    assert 1e-3 < np.abs(image - films[0]).mean() < 0.2
    assert image.min() >= 0 and image.max() <= 1


def test_each_film_and_each_step_has_its_own_changes_and_the_same_key_the_same(films):
    ranges = dict(lungs.get_config().wide_augmentation)
    alike = tuple(np.repeat(array[:1], FILMS, axis=0) for array in films)
    first, _ = wide_augmentation.change(jax.random.key(0), *alike, **ranges)
    again, _ = wide_augmentation.change(jax.random.key(0), *alike, **ranges)
    other, _ = wide_augmentation.change(jax.random.key(1), *alike, **ranges)
    np.testing.assert_array_equal(first, again)
    assert len(np.unique(np.asarray(first).reshape(FILMS, -1), axis=0)) == FILMS
    assert not np.array_equal(first, other)
    assert np.isfinite(first).all()
