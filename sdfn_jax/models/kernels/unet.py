"""The U-Net for a CPU: the network of `models.unet`, equal up to rounding and faster."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sdfn_jax.models import unet
from sdfn_jax.models.kernels.convolution import convolve
from sdfn_jax.models.kernels.pooling import max_pool


class CpuUNet(unet.UNet):
    """The twin: same attributes, variables and values."""

    @nn.nowrap
    def conv(self, features: int, name: str) -> nn.Module:
        """A 3 x 3 convolution, computed by `convolution`."""
        return CpuUNetConv(features, convolve, self.dtype, self.conv_scaling, name=name)

    @nn.nowrap
    def upsample_conv(self, features: int, name: str) -> nn.Module:
        """A 3 x 3 convolution after upsampling by 2."""
        return CpuUNetConv(features, upsample_convolve, self.dtype, self.conv_scaling, name=name)

    @nn.nowrap
    def pool(self, x: jax.Array) -> jax.Array:
        """2 x 2 max pooling."""
        return max_pool(x, window=2, stride=2, padding=0)


class CpuUNetConv(nn.Module):
    """A 3 x 3 convolution with a bias, computed by a function of maps and kernel."""

    features: int
    function: Callable[[jax.Array, jax.Array], jax.Array]
    dtype: Any
    conv_scaling: tuple[float, str, str]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, features), or (B, 2H, 2W, features) by `upsample_convolve`."""
        kernel_init = nn.initializers.variance_scaling(*self.conv_scaling)
        kernel = self.param("kernel", kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return self.function(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


def upsample_convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Upsamples by 2 and convolves, computed on the small map: exact up to rounding, with 4/9 of the arithmetic.

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
    """Returns the sums of an axis's 3 taps on 2 pixels of the small map, for even and odd outputs."""
    first, middle, last = jnp.split(kernel, 3, axis)
    return jnp.stack([jnp.concatenate([first, middle + last], axis), jnp.concatenate([first + middle, last], axis)])
