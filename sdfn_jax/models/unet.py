"""The U-Net of reference [21] (Pazhitnykh, Petsiuk: lung-segmentation-2d): the network of the LRG (B.2)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sdfn_jax.models.convolution import convolve
from sdfn_jax.models.initial import GLOROT_UNIFORM
from sdfn_jax.models.pooling import max_pool


class UNet(nn.Module):
    """Segments lungs: 3 x 3 convolutions with ReLU, 2 x 2 max pooling, nearest-neighbour upsampling, no normalisation.

    Unlike the U-Net of Ronneberger et al. it has one convolution at the bottom, and joins the skip only before the last
    of three convolutions of a step up.

    Attributes:
      filters: width of each level on the way down, the last one being the bottom. A step up to level k is as wide as
        level k + 2, or as the bottom.
      dtype: of the activations; parameters and logits are float32.
    """

    filters: tuple[int, ...] = (32, 64, 64, 128, 256)
    dtype: Any = jnp.float32

    conv_scaling = GLOROT_UNIFORM

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the logit of every pixel being lung.

        Args:
          x: (B, H, W, 1) normalised radiographs; H and W multiples of 2 ** (len(filters) - 1).

        Returns:
          (B, H, W) float32 logits.

        Raises:
          ValueError: for another height or width.
        """
        *levels, bottom = self.filters
        multiple = 2 ** len(levels)
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]}: the U-Net takes multiples of {multiple} pixels")
        kernel_init = nn.initializers.variance_scaling(*self.conv_scaling)
        conv = partial(Conv, kernel_init=kernel_init, dtype=self.dtype)
        upsample_conv = partial(Conv, kernel_init=kernel_init, dtype=self.dtype, upsample=True)

        x = x.astype(self.dtype)
        skips = []
        for level, width in enumerate(levels):
            x = nn.relu(conv(width, name=f"down{level}_conv1")(x))
            x = nn.relu(conv(width, name=f"down{level}_conv2")(x))
            skips.append(x)
            x = max_pool(x, window=2, stride=2, padding=0)
        x = nn.relu(conv(bottom, name="bottom_conv")(x))
        for level, skip in reversed(list(enumerate(skips))):
            width = self.filters[min(level + 2, len(levels))]
            x = nn.relu(upsample_conv(width, name=f"up{level}_conv1")(x))
            x = nn.relu(conv(width, name=f"up{level}_conv2")(x))
            x = jnp.concatenate([skip, x], axis=-1)
            x = nn.relu(conv(width, name=f"up{level}_conv3")(x))
        return conv(1, name="output_conv")(x)[..., 0].astype(jnp.float32)


class Conv(nn.Module):
    """A 3 x 3 convolution, of maps that are first upsampled by 2 (nearest neighbour) or not."""

    features: int
    kernel_init: nn.initializers.Initializer
    dtype: Any
    upsample: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, features), or with `upsample` to (B, 2H, 2W, features)."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        function = upsample_convolve if self.upsample else convolve
        return function(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


def upsample_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Upsamples by 2 and convolves, working on the small map: exact away from rounding, at 4/9 of the arithmetic.

    An output pixel sees only 2 x 2 pixels of the small map. Which ones, and which rows and columns of the kernel fall
    together on each, depends on whether its row and column are even or odd.

    Args:
      x: (B, H, W, C).
      kernel: (3, 3, C, F).

    Returns:
      (B, 2H, 2W, F).
    """
    batch, height, width, channels = x.shape
    features = kernel.shape[-1]
    # Even rows of the output see (row 0 | rows 1 + 2) of the kernel, odd rows (rows 0 + 1 | row 2); so do columns.
    kernels = _fold(_fold(kernel, axis=0), axis=2)  # column of the output, row of the output, 2, 2, C, F
    kernels = kernels.transpose(2, 3, 4, 1, 0, 5).reshape(2, 2, channels, 4 * features)
    maps = convolve(x, kernels).reshape(batch, height + 1, width + 1, 2, 2, features)
    rows = [
        jnp.stack([maps[:, y : y + height, x : x + width, y, x] for x in (0, 1)], axis=3)  # (B, H, W, 2, F)
        for y in (0, 1)
    ]
    return jnp.stack(rows, axis=2).reshape(batch, 2 * height, 2 * width, features)


def _fold(kernel: jax.Array, axis: int) -> jax.Array:
    """Returns what the 3 taps of an axis add up to on 2 pixels of the small map, for even and odd outputs."""
    first, middle, last = jnp.split(kernel, 3, axis)
    return jnp.stack([jnp.concatenate([first, middle + last], axis), jnp.concatenate([first + middle, last], axis)])
