"""Random changes of radiographs and lung masks beyond those of [21], inside the jitted step.

A lung region generator that is to work on films of any hospital has to see what one collection does not show: films on
their side, inverted ones, black borders, wires, markers, lungs that are lost in whiteness, and dark gas below the
diaphragm. The whitened lung stays in the mask, so that the network learns to complete its shape; gas stays out of it.

Radiographs are those that `lungs.contrast` gives: histograms are equalised, so a change of exposure alone is none, and
0 is the darkest and 1 the brightest grey.
"""

import jax
import jax.numpy as jnp

from sdfn_jax.training.augmentation import pixel_grid

# Nodes a side of the smooth random fields.
_NODES = 4


def change(key: jax.Array, image: jax.Array, mask: jax.Array, **ranges: float) -> tuple[jax.Array, jax.Array]:
    """Changes each radiograph of a batch, and its mask, in its own random way.

    Args:
      key: of this step.
      image: (B, S, S) float in [0, 1], after the contrast normalisation.
      mask: (B, S, S) float in [0, 1].
      ranges: the parameters of `change_one`.

    Returns:
      The changed radiographs and masks, of the same shapes and ranges.
    """
    keys = jax.random.split(key, len(image))
    return jax.vmap(lambda *one: change_one(*one, **ranges))(keys, image, mask)


def change_one(
    key: jax.Array,
    image: jax.Array,
    mask: jax.Array,
    *,
    quarter_turns: float,
    mirrored: float,
    inverted: float,
    whitened: float,
    gas: float,
    collimated: float,
    foreign: float,
    shading: float,
    gamma: float,
    blur: float,
    noise: float,
) -> tuple[jax.Array, jax.Array]:
    """Changes one radiograph and its mask.

    Args:
      key: of this radiograph and step.
      image: (S, S) float in [0, 1].
      mask: (S, S) float in [0, 1].
      quarter_turns: probability of a turn by 90, 180 or 270 degrees.
      mirrored: probability of a mirror image.
      inverted: probability of a negative.
      whitened: probability of up to three bright clouds; the lungs below them stay in the mask.
      gas: probability of up to three dark clouds outside the lungs, as air in stomach and bowel gives them.
      collimated: probability of a border of one grey over the film's edges; what it covers leaves the mask.
      foreign: probability of a wire, and that of a marker.
      shading: standard deviation of a smooth field that is added.
      gamma: the greys are taken to a power of exp(-gamma) to exp(gamma).
      blur: largest share of the blurred radiograph that is mixed in, or taken away, which sharpens.
      noise: largest standard deviation of the noise of a pixel.
    """
    keys = jax.random.split(key, 9)
    image, mask = _turn(keys[0], image, mask, quarter_turns, mirrored)
    image = _whiten(keys[1], image, whitened)
    image = _add_gas(keys[8], image, mask, gas)
    image = image + shading * _smooth(keys[2], image.shape[0])
    exponent = jnp.exp(jax.random.uniform(keys[3], minval=-gamma, maxval=gamma))
    image = jnp.clip(image, 0.0, 1.0) ** exponent
    image = _add_foreign(keys[4], image, foreign)
    image = _blur_and_noise(keys[5], image, blur, noise)
    image, mask = _collimate(keys[6], image, mask, collimated)
    image = jnp.where(jax.random.bernoulli(keys[7], inverted), 1.0 - image, image)
    return jnp.clip(image, 0.0, 1.0), mask


def _turn(key, image, mask, quarter_turns, mirrored):
    turned_key, count_key, mirror_key = jax.random.split(key, 3)
    turned = jax.random.bernoulli(turned_key, quarter_turns)
    count = jnp.where(turned, jax.random.randint(count_key, (), 1, 4), 0)
    mirror = jax.random.bernoulli(mirror_key, mirrored)

    def turn(array):
        array = jax.lax.switch(count, [lambda x, k=k: jnp.rot90(x, k) for k in range(4)], array)
        return jnp.where(mirror, array[:, ::-1], array)

    return turn(image), turn(mask)


def _whiten(key, image, whitened):
    """Lays bright clouds over the film, from a nodule's size to that of a lung."""
    return _lay_clouds(key, image, whitened, (0.6, 1.0), jnp.maximum, 1.0)


def _add_gas(key, image, mask, gas):
    """Lays dark clouds over the film, outside the lungs and the wall between them and the gas."""
    wall = image.shape[0] // 64
    window = (2 * wall + 1, 2 * wall + 1)
    near = jax.lax.reduce_window(mask, 0.0, jax.lax.max, window, (1, 1), "SAME")
    return _lay_clouds(key, image, gas, (0.0, 0.4), jnp.minimum, 1.0 - near)


def _lay_clouds(key, image, probability, greys, brighter_or_darker, where):
    """Draws up to three soft clouds of a grey in a range; `jnp.maximum` only brightens, `jnp.minimum` only darkens."""
    any_key, *cloud_keys = jax.random.split(key, 4)
    present = jax.random.bernoulli(any_key, probability) * where
    for cloud_key in cloud_keys:
        grey_key, shape_key = jax.random.split(cloud_key)
        grey = jax.random.uniform(grey_key, minval=greys[0], maxval=greys[1])
        image = image + present * _cloud(shape_key, image.shape[0]) * brighter_or_darker(grey - image, 0.0)
    return image


def _cloud(key, side):
    """A soft spot of random place, size, shape and strength, (side, side) in [0, 1]."""
    keys = jax.random.split(key, 5)
    centre = jax.random.uniform(keys[0], (2,), minval=0.15, maxval=0.85) * side
    width = jax.random.uniform(keys[1], (2,), minval=0.05, maxval=0.22) * side
    # A power above 2 gives a cloud with a flat middle and a steeper edge, as an effusion has.
    power = jax.random.uniform(keys[2], minval=2.0, maxval=6.0)
    strength = jax.random.uniform(keys[3], minval=0.2, maxval=1.0)
    distance = jnp.sum(((pixel_grid(side, side) - centre[:, None, None]) / width[:, None, None]) ** 2, axis=0)
    distance = distance * jnp.exp(0.5 * _smooth(keys[4], side))  # no perfect ellipse
    return strength * jnp.exp(-0.5 * (distance + 1e-6) ** (power / 2))


def _add_foreign(key, image, foreign):
    """Draws a wire (a bright arc) and a marker (a bright or dark rectangle)."""
    keys = jax.random.split(key, 9)
    side = image.shape[0]
    rows, columns = pixel_grid(side, side) / side
    centre = jax.random.uniform(keys[0], (2,), minval=-0.5, maxval=1.5)
    radius = jax.random.uniform(keys[1], minval=0.2, maxval=1.5)
    width = jax.random.uniform(keys[2], minval=0.3, maxval=1.2) / side
    away = jnp.abs(jnp.hypot(rows - centre[0], columns - centre[1]) - radius)
    wire = (away < width) & jax.random.bernoulli(keys[3], foreign)
    image = jnp.where(wire, jnp.maximum(image, jax.random.uniform(keys[4], minval=0.7, maxval=1.0)), image)
    corner = jax.random.uniform(keys[5], (2,))
    extent = jax.random.uniform(keys[6], (2,), minval=0.02, maxval=0.12)
    inside = (jnp.abs(rows - corner[0]) < extent[0] / 2) & (jnp.abs(columns - corner[1]) < extent[1])
    marker = inside & jax.random.bernoulli(keys[7], foreign)
    return jnp.where(marker, jax.random.uniform(keys[8]), image)


def _blur_and_noise(key, image, blur, noise):
    blur_key, strength_key, noise_key = jax.random.split(key, 3)
    padded = jnp.pad(image, 1, mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    blurred = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    image = image + jax.random.uniform(blur_key, minval=-blur, maxval=blur) * (blurred - image)
    strength = jax.random.uniform(strength_key, maxval=noise)
    return image + strength * jax.random.normal(noise_key, image.shape)


def _collimate(key, image, mask, collimated):
    any_key, width_key, grey_key, black_key = jax.random.split(key, 4)
    side = image.shape[0]
    # The cube of a uniform number: mostly narrow, now and then wide.
    widths = 0.2 * jax.random.uniform(width_key, (4,)) ** 3 * jax.random.bernoulli(any_key, collimated)
    rows, columns = (pixel_grid(side, side) + 0.5) / side
    inside = (rows >= widths[0]) & (rows <= 1 - widths[1]) & (columns >= widths[2]) & (columns <= 1 - widths[3])
    grey = jnp.where(jax.random.bernoulli(black_key, 0.7), 0.0, jax.random.uniform(grey_key))
    return jnp.where(inside, image, grey), jnp.where(inside, mask, 0.0)


def _smooth(key, side):
    """A smooth random field, (S, S), of variance 1 at its nodes."""
    return jax.image.resize(jax.random.normal(key, (_NODES, _NODES)), (side, side), "cubic")
