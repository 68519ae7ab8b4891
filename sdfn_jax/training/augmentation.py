"""Random changes of the training images, inside the jitted step; a function of (seed, step) alone."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

_TRIES = 10  # torchvision's


def flip_together(key: jax.Array, images: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Mirrors each radiograph left to right with probability 1/2; all images of one radiograph alike (B.3, B.4).

    Args:
      key: of this step.
      images: {branch: (B, H, W) or (B, H, W, C)}.
    """
    flipped = draw_flips(key, next(iter(images.values())).shape[0])

    def flip(images: jax.Array) -> jax.Array:
        return jnp.where(flipped.reshape((-1,) + (1,) * (images.ndim - 1)), images[:, :, ::-1], images)

    return {branch: flip(image) for branch, image in images.items()}


def draw_flips(key: jax.Array, count: int) -> jax.Array:
    """Returns for each of `count` radiographs whether it is mirrored: (count,) bool, true with probability 1/2."""
    return jax.random.bernoulli(key, 0.5, (count,))


def change_together(
    key: jax.Array, images: dict[str, jax.Array], *, crop: float, rotation: float, brightness: float, contrast: float
) -> dict[str, jax.Array]:
    """Crops, turns and re-exposes each radiograph; all images of one radiograph alike.

    Crop and turn are one interpolation. A change whose range is empty is not computed.

    Args:
      key: of this step.
      images: {branch: (B, S, S) grey levels, 0 to 255}, of one size.
      crop: smallest share of the area that a crop keeps (`draw_crops`); 1 keeps all of it.
      rotation: largest angle either way, in degrees.
      brightness: grey levels are multiplied by 1 - brightness to 1 + brightness.
      contrast: then their distances from the image's mean by 1 - contrast to 1 + contrast.

    Returns:
      The images, float32 if anything was computed; grey levels stay in 0 to 255.
    """
    crop_key, angle_key, brightness_key, contrast_key = jax.random.split(key, 4)
    count = next(iter(images.values())).shape[0]
    if crop < 1.0 or rotation > 0.0:
        corners, sides = draw_crops(crop_key, count, crop)
        angles = jnp.deg2rad(jax.random.uniform(angle_key, (count,), minval=-rotation, maxval=rotation))
        images = {branch: jax.vmap(_crop_and_turn)(each, corners, sides, angles) for branch, each in images.items()}
    if brightness > 0.0:
        factors = _factors(brightness_key, count, brightness)
        images = {branch: jnp.clip(factors * each, 0.0, 255.0) for branch, each in images.items()}
    if contrast > 0.0:
        factors = _factors(contrast_key, count, contrast)
        images = {branch: _with_contrast(each, factors) for branch, each in images.items()}
    return images


def draw_crops(key: jax.Array, count: int, smallest: float) -> tuple[jax.Array, jax.Array]:
    """Draws crops as torchvision's RandomResizedCrop does, but not rounded to pixels (Szegedy et al., CVPR 2015).

    The area's share is uniform in [smallest, 1], width / height log-uniform in [3/4, 4/3], the place uniform. The first
    of ten such crops that fits into the image is taken, or else the whole image.

    Returns:
      corners: (count, 2) float32, top and left edge as a share of the side.
      sides: (count, 2) float32, height and width as a share of the side.
    """
    area_key, aspect_key, place_key = jax.random.split(key, 3)
    areas = jax.random.uniform(area_key, (count, _TRIES), minval=smallest, maxval=1.0)
    logarithm = jnp.log(4 / 3)
    aspects = jnp.exp(jax.random.uniform(aspect_key, (count, _TRIES), minval=-logarithm, maxval=logarithm))
    tried = jnp.sqrt(jnp.stack([areas / aspects, areas * aspects], axis=-1))
    fits = jnp.all(tried <= 1.0, axis=-1)
    first = jnp.argmax(fits, axis=1)
    sides = jnp.where(fits.any(axis=1)[:, None], tried[jnp.arange(count), first], 1.0)
    return jax.random.uniform(place_key, (count, 2)) * (1.0 - sides), sides


def _crop_and_turn(image: jax.Array, corner: jax.Array, sides: jax.Array, angle: jax.Array) -> jax.Array:
    """Enlarges a crop of (S, S) to (S, S) and turns it about its centre, linearly between pixels.

    Outside the image the nearest pixel is repeated.
    """
    side = image.shape[0]
    grid = pixel_grid(side, side)
    turn = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]])
    from_centre = jnp.einsum("ij,jhw->ihw", turn * sides[:, None], (grid + 0.5) / side - 0.5)
    places = (from_centre + (corner + sides / 2)[:, None, None]) * side - 0.5
    return map_coordinates(image.astype(jnp.float32), list(places), order=1, mode="nearest")


def _factors(key: jax.Array, count: int, largest: float) -> jax.Array:
    """Draws a factor for each image, (count, 1, 1)."""
    return jax.random.uniform(key, (count, 1, 1), minval=1.0 - largest, maxval=1.0 + largest)


def _with_contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
    means = jnp.mean(images.astype(jnp.float32), axis=(1, 2), keepdims=True)
    return jnp.clip(means + factors * (images - means), 0.0, 255.0)


def random_affine(
    key: jax.Array, image: jax.Array, mask: jax.Array, rotation: float, shift: float, zoom: float
) -> tuple[jax.Array, jax.Array]:
    """Rotates, shifts and zooms films and their masks alike (B.2.1; the ranges are those of [21]).

    Outside the film the nearest pixel is repeated; between pixels both are interpolated linearly.

    Args:
      key: of this step.
      image: (B, H, W) float.
      mask: (B, H, W) float in [0, 1].
      rotation: largest angle either way, in degrees.
      shift: largest shift either way, as a share of the height and of the width.
      zoom: the two axes are scaled independently by 1 - zoom to 1 + zoom.

    Returns:
      The changed films and masks.
    """
    count, height, width = image.shape
    angle_key, shift_key, zoom_key = jax.random.split(key, 3)
    angles = jnp.deg2rad(jax.random.uniform(angle_key, (count,), minval=-rotation, maxval=rotation))
    size = jnp.array([height, width], jnp.float32)
    shifts = jax.random.uniform(shift_key, (count, 2), minval=-shift, maxval=shift) * size
    zooms = jax.random.uniform(zoom_key, (count, 2), minval=1.0 - zoom, maxval=1.0 + zoom)
    centre = (size - 1) / 2
    grid = pixel_grid(height, width)

    def change(film, film_mask, angle, offset, scale):
        rotated = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]]) * scale[None]
        places = jnp.einsum("ij,jhw->ihw", rotated, grid - centre[:, None, None]) + (centre + offset)[:, None, None]
        return tuple(map_coordinates(array, list(places), order=1, mode="nearest") for array in (film, film_mask))

    return jax.vmap(change)(image, mask, angles, shifts, zooms)


def pixel_grid(height: int, width: int) -> jax.Array:
    """Returns the row and the column of every pixel, (2, height, width) float32."""
    return jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")).astype(jnp.float32)
