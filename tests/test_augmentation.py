"""Flips and affine changes, against SciPy with the same drawn numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from densenet_peers import import_torchvision
from peers import import_peer

from sdfn_jax.core.run_identity import NO_AUGMENTATION
from sdfn_jax.training.augmentation import change_together, draw_crops, flip_together, random_affine

RANGES = {"rotation": 10.0, "shift": 0.1, "zoom": 0.2}  # [21]
change = jax.jit(lambda key, image, mask: random_affine(key, image, mask, **RANGES))


def make_films(count=4, height=24, width=32):
    generator = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(generator.normal(size=(count, height, width)), (0, 2, 2))
    rows, columns = np.mgrid[:height, :width]
    mask = (rows - height / 2) ** 2 + (columns - width / 3) ** 2 < 36
    return smooth.astype(np.float32), np.tile(mask, (count, 1, 1)).astype(np.float32)


def test_all_images_of_a_radiograph_flip_alike_about_half_of_the_time():
    generator = np.random.default_rng(0)
    shapes = {"entire": (400, 4, 6), "lung": (400, 3, 5, 2)}
    images = {name: generator.integers(0, 256, shape, np.uint8) for name, shape in shapes.items()}
    flipped = jax.jit(flip_together)(jax.random.key(3), images)
    assert {array.dtype for array in flipped.values()} == {np.dtype(np.uint8)}
    mirrored = []
    for index in range(400):
        unchanged = [np.array_equal(flipped[name][index], images[name][index]) for name in images]
        mirror = [np.array_equal(flipped[name][index], images[name][index][:, ::-1]) for name in images]
        assert (unchanged, mirror) in (([True, True], [False, False]), ([False, False], [True, True]))
        mirrored.append(mirror[0])
    assert 160 <= sum(mirrored) <= 240  # four standard deviations about a half


def test_flips_depend_on_the_key_alone():
    images = {"entire": np.arange(64 * 6, dtype=np.float32).reshape(64, 2, 3)}
    first, again, other = (flip_together(jax.random.key(seed), images)["entire"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_zero_ranges_change_nothing():
    image, mask = make_films()
    changed, changed_mask = random_affine(jax.random.key(0), image, mask, rotation=0.0, shift=0.0, zoom=0.0)
    np.testing.assert_array_equal(changed, image)
    np.testing.assert_array_equal(changed_mask, mask)


def test_a_film_and_its_mask_change_alike():
    image, _ = make_films()
    changed, changed_mask = change(jax.random.key(1), image, image)
    np.testing.assert_array_equal(changed, changed_mask)
    assert all(not np.allclose(a, b, atol=0.05) for a, b in zip(changed, image, strict=True))


def test_a_fixed_key_gives_the_same_change_and_every_film_its_own():
    image, mask = make_films(count=1)
    image, mask = np.repeat(image, 4, axis=0), np.repeat(mask, 4, axis=0)
    first, again = (change(jax.random.key(2), image, mask) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(first[0][0], first[0][1], atol=0.05)
    other, _ = change(jax.random.key(3), image, mask)
    assert not np.allclose(first[0], other, atol=0.05)


def drawn(key, count):
    """The numbers behind a key, as the docstring states their ranges: degrees, shares of the sides, factors."""
    angle_key, shift_key, zoom_key = jax.random.split(key, 3)
    degrees = jax.random.uniform(angle_key, (count,), minval=-RANGES["rotation"], maxval=RANGES["rotation"])
    shifts = jax.random.uniform(shift_key, (count, 2), minval=-RANGES["shift"], maxval=RANGES["shift"])
    zooms = jax.random.uniform(zoom_key, (count, 2), minval=1 - RANGES["zoom"], maxval=1 + RANGES["zoom"])
    return np.asarray(degrees, np.float64), np.asarray(shifts, np.float64), np.asarray(zooms, np.float64)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_scipys_affine_transform(seed):
    image, mask = make_films()
    key = jax.random.key(seed)
    changed, changed_mask = change(key, image, mask)
    centre = (np.array(image.shape[1:]) - 1) / 2
    for index, (degrees, shift, zoom) in enumerate(zip(*drawn(key, len(image)), strict=True)):
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        matrix = np.array([[cosine, -sine], [sine, cosine]]) @ np.diag(zoom)  # output place -> input place
        offset = centre + shift * image.shape[1:] - matrix @ centre
        for found, film in ((changed[index], image[index]), (changed_mask[index], mask[index])):
            expected = scipy.ndimage.affine_transform(film.astype(float), matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_drawn_numbers_fill_their_ranges():
    """A film of its own coordinates says where each pixel came from: how far shifted, turned and zoomed."""
    rows, columns = np.meshgrid(np.arange(32.0), np.arange(32.0), indexing="ij")
    ramps = jnp.tile(jnp.float32([rows, columns])[:, None], (1, 300, 1, 1))
    row, column = change(jax.random.key(5), *ramps)
    shifts = np.stack([row, column])[:, :, 15:17, 15:17].mean(axis=(2, 3)) - 15.5
    assert 0.9 * 3.2 < np.abs(shifts).max() <= 3.2 + 1e-3
    # The map's derivative at the centre: rotation times zoom.
    down = np.stack([row[:, 16, 15] - row[:, 15, 15], column[:, 16, 15] - column[:, 15, 15]])
    angles = np.degrees(np.arctan2(down[1], down[0]))
    assert 9.0 < angles.max() <= 10.01
    assert -10.01 <= angles.min() < -9.0
    zooms = np.hypot(*down)
    assert 0.799 <= zooms.min() < 0.81
    assert 1.19 < zooms.max() <= 1.201


def two_branches(count=3, side=24):
    grey = np.random.default_rng(0).integers(0, 256, (2, count, side, side))
    smooth = scipy.ndimage.gaussian_filter(grey.astype(float), (0, 0, 1, 1))
    return dict(zip(("entire", "lung"), smooth.clip(0, 255).astype(np.uint8), strict=True))


def changed(images, key=0, **ranges):
    change = jax.jit(functools.partial(change_together, **{**NO_AUGMENTATION, **ranges}))
    return {name: np.asarray(each) for name, each in change(jax.random.key(key), images).items()}


def test_without_ranges_the_very_images_come_back():
    images = two_branches()
    found = change_together(jax.random.key(0), images, **NO_AUGMENTATION)
    assert all(found[name] is images[name] for name in images)


@pytest.mark.parametrize("smallest", [0.08, 0.9])
def test_crops_are_the_first_of_torchvisions_ten_tries_that_fits(smallest):
    """Its `RandomResizedCrop.get_params`, written out, without rounding to pixels, on the same drawn numbers."""
    key, count = jax.random.key(4), 300
    corners, sides = (np.asarray(each) for each in jax.jit(lambda: draw_crops(key, count, smallest))())
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    areas = np.asarray(jax.random.uniform(area_key, (count, 10), minval=smallest, maxval=1.0), np.float64)
    logarithms = np.asarray(jax.random.uniform(aspect_key, (count, 10), minval=-np.log(4 / 3), maxval=np.log(4 / 3)))
    places = np.asarray(jax.random.uniform(place_key, (count, 2)))
    tries = []
    for index in range(count):
        height = width = 1.0
        for number in range(10):
            area, logarithm = areas[index, number], logarithms[index, number]
            aspect = np.exp(logarithm)
            if np.sqrt(area * aspect) <= 1 and np.sqrt(area / aspect) <= 1:
                width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
                break
        tries.append(number)
        np.testing.assert_allclose(sides[index], [height, width], rtol=1e-5)
        np.testing.assert_allclose(corners[index], places[index] * (1 - np.array([height, width])), atol=1e-6)
    assert max(tries) >= 2  # some did not fit at first
    shares = np.prod(np.asarray(sides), axis=1)
    assert smallest - 1e-6 <= shares.min() < smallest + 0.02 and shares.max() <= 1


def test_a_crop_is_enlarged_linearly_with_half_pixel_centres_as_torch_does():
    torch = import_peer("torch")
    images, key = two_branches(count=8), jax.random.key(0)
    found = changed(images, crop=0.3)
    corners, sides = draw_crops(jax.random.split(key, 4)[0], 8, 0.3)
    for name, grey in images.items():
        for index, film in enumerate(grey):
            (top, left), (height, width) = np.asarray(corners[index]) * 24, np.asarray(sides[index]) * 24
            rows, columns = (
                first + (np.arange(24) + 0.5) * side / 24 for first, side in ((top, height), (left, width))
            )
            points = np.stack(np.meshgrid(columns, rows)) / 12 - 1  # torch's coordinates: -1 to 1 from edge to edge
            grid = torch.tensor(points.transpose(1, 2, 0)[None], dtype=torch.float32)
            there = torch.tensor(film[None, None].astype(np.float32))
            expected = torch.nn.functional.grid_sample(there, grid, padding_mode="border", align_corners=False)
            np.testing.assert_allclose(found[name][index], expected[0, 0].numpy(), atol=2e-2)


def test_a_turn_is_scipys_about_the_centre():
    images = two_branches()
    angles = jax.random.uniform(jax.random.split(jax.random.key(0), 4)[1], (3,), minval=-20.0, maxval=20.0)
    found = changed(images, rotation=20.0)
    for name, grey in images.items():
        for index, film in enumerate(grey):
            cosine, sine = np.cos(np.radians(float(angles[index]))), np.sin(np.radians(float(angles[index])))
            matrix = np.array([[cosine, -sine], [sine, cosine]])
            offset = 11.5 - matrix @ [11.5, 11.5]
            expected = scipy.ndimage.affine_transform(film.astype(float), matrix, offset, order=1, mode="nearest")
            np.testing.assert_allclose(found[name][index], expected, atol=1e-2)


def test_brightness_and_contrast_are_torchvisions():
    torch, functional = import_peer("torch"), import_torchvision().transforms.functional
    images = two_branches()
    keys = jax.random.split(jax.random.key(0), 4)
    brightness, contrast = (
        np.asarray(jax.random.uniform(key, (3, 1, 1), minval=0.4, maxval=1.6)).ravel() for key in keys[2:]
    )
    found = changed(images, brightness=0.6, contrast=0.6)
    for name, grey in images.items():
        for index, film in enumerate(grey):
            scaled = torch.tensor(film[None].astype(np.float32) / 255)
            bright = functional.adjust_brightness(scaled, float(brightness[index]))
            expected = functional.adjust_contrast(bright, float(contrast[index]))
            np.testing.assert_allclose(found[name][index] / 255, expected[0].numpy(), atol=1e-5)
    assert max(float(each.max()) for each in found.values()) == 255.0  # some were clipped


def test_both_images_of_a_radiograph_change_alike_and_every_radiograph_in_its_own_way():
    film = two_branches(count=1)["entire"]
    images = {"entire": np.repeat(film, 4, axis=0), "lung": np.repeat(film, 4, axis=0)}
    found = changed(images, crop=0.5, rotation=10.0, brightness=0.3, contrast=0.3)
    np.testing.assert_array_equal(found["entire"], found["lung"])
    assert all(not np.allclose(found["entire"][0], found["entire"][index], atol=1.0) for index in (1, 2, 3))
