"""The U-Net of reference [21] (Pazhitnykh, Petsiuk: lung-segmentation-2d): the network of the LRG (B.2).

`kernels` has a twin with the same values and variables that is faster on a CPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sdfn_jax.core import run_identity
from sdfn_jax.models import kernels
from sdfn_jax.models.initial import GLOROT_UNIFORM, INITIAL


class UNet(nn.Module):
    """Segments lungs: 3 x 3 convolutions with ReLU, 2 x 2 max pooling, nearest-neighbour upsampling, no normalisation.

    Unlike the U-Net of Ronneberger et al. it has one convolution at the bottom, and joins the skip only before the last
    of three convolutions of a step up.

    Attributes:
      filters: feature maps of each level on the way down; the last is the bottom. A step up to level k is as wide as
        level k + 2, or as the bottom.
      dtype: of the activations; parameters and logits are float32.
      conv_scaling: distribution of the initial kernels, as the arguments of `variance_scaling`; [21] has Keras's.
    """

    filters: tuple[int, ...] = (32, 64, 64, 128, 256)
    dtype: Any = jnp.float32
    conv_scaling: tuple[float, str, str] = GLOROT_UNIFORM

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
            raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]}: the U-Net needs multiples of {multiple} pixels")
        x = x.astype(self.dtype)
        skips = []
        for level, width in enumerate(levels):
            x = nn.relu(self.conv(width, f"down{level}_conv1")(x))
            x = nn.relu(self.conv(width, f"down{level}_conv2")(x))
            skips.append(x)
            x = self.pool(x)
        x = nn.relu(self.conv(bottom, "bottom_conv")(x))
        for level, skip in reversed(list(enumerate(skips))):
            width = self.filters[min(level + 2, len(levels))]
            x = nn.relu(self.upsample_conv(width, f"up{level}_conv1")(x))
            x = nn.relu(self.conv(width, f"up{level}_conv2")(x))
            x = jnp.concatenate([skip, x], axis=-1)
            x = nn.relu(self.conv(width, f"up{level}_conv3")(x))
        return self.conv(1, "output_conv")(x)[..., 0].astype(jnp.float32)

    @nn.nowrap
    def conv(self, features: int, name: str) -> Callable[[jax.Array], jax.Array]:
        """Returns a 3 x 3 convolution, (B, H, W, C) -> (B, H, W, features)."""
        kernel_init = nn.initializers.variance_scaling(*self.conv_scaling)
        return nn.Conv(features, (3, 3), dtype=self.dtype, kernel_init=kernel_init, name=name)

    @nn.nowrap
    def upsample_conv(self, features: int, name: str) -> Callable[[jax.Array], jax.Array]:
        """Returns nearest-neighbour upsampling by 2 and a 3 x 3 convolution, (B, H, W, C) -> (B, 2H, 2W, features)."""
        conv = self.conv(features, name)
        return lambda x: conv(x.repeat(2, axis=1).repeat(2, axis=2))

    @nn.nowrap
    def pool(self, x: jax.Array) -> jax.Array:
        """2 x 2 max pooling, (B, H, W, C) -> (B, H / 2, W / 2, C)."""
        return nn.max_pool(x, (2, 2), (2, 2))


def from_config(config: Mapping[str, Any]) -> UNet:
    """Builds the network of a lung region generator's config, as the backend computes it: the one place that does.

    Args:
      config: of `configs/lrg.py`, or as a checkpoint stores it.
    """
    shape = config["model"]
    return kernels.for_backend(UNet)(
        filters=tuple(shape["filters"]),
        dtype=jnp.dtype(run_identity.precision(config)),
        conv_scaling=INITIAL[shape.get("initial", "glorot_uniform")],
    )
