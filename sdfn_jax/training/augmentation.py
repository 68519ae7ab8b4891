"""Random changes of the training images, inside the jitted step; a function of (seed, step) alone."""

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


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
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")).astype(jnp.float32)

    def change(film, film_mask, angle, offset, scale):
        rotated = jnp.array([[jnp.cos(angle), -jnp.sin(angle)], [jnp.sin(angle), jnp.cos(angle)]]) * scale[None]
        places = jnp.einsum("ij,jhw->ihw", rotated, grid - centre[:, None, None]) + (centre + offset)[:, None, None]
        return tuple(map_coordinates(array, list(places), order=1, mode="nearest") for array in (film, film_mask))

    return jax.vmap(change)(image, mask, angles, shifts, zooms)
