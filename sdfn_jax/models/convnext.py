"""ConvNeXt (Liu et al., CVPR 2022, arXiv:2201.03545) as timm builds it: a feature extractor newer than the paper's.

Modules carry timm's names with `_` for the dots (`stages_0_blocks_1/conv_dw` is `stages.0.blocks.1.conv_dw`). It has no
running statistics.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from sdfn_jax.models.initial import LAYER_SCALE, NORMAL_002

LAYER_NORM_EPSILON = 1e-6
PATCH = 4  # pixels, the side of the squares that the first convolution reads
DROP_PATH = "drop_path"  # the random numbers that training needs
_INIT = nn.initializers.normal(NORMAL_002[0] ** 0.5)


class ConvNeXt(nn.Module):
    """Feature maps of a radiograph.

    timm pools, normalises the pooled features, and classifies. Here the maps are normalised by the mean and variance of
    their pools: the mean of the result is the same vector, and class activation maps stay exact (eq. 5).

    Attributes:
      depths: blocks of each stage.
      widths: feature maps of each stage; every stage after the first halves height and width.
      drop_path: the last block's chance to be left out for an image in training (stochastic depth, Huang et al. 2016);
        that of the others falls linearly to 0 at the first.
      dtype: of the activations; parameters are float32.
      remat: see `DenseNet`.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    drop_path: float = 0.0
    dtype: Any = jnp.float32
    remat: bool = False

    conv_scaling = NORMAL_002

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the feature maps that the global average pooling takes.

        Args:
          x: (B, H, W, channels) standardised images, at least `smallest_side` high and wide.
          train: whether to leave out blocks; then the rng `drop_path` is needed, unless the attribute is 0.

        Returns:
          (B, h, w, widths[-1]) of `dtype`, of either sign; h = H // 32 with four stages.

        Raises:
          ValueError: for a smaller image.
        """
        if min(x.shape[1:3]) < self.smallest_side:
            side = self.smallest_side
            raise ValueError(f"an image of {x.shape[1]} x {x.shape[2]}: this ConvNeXt needs at least {side} x {side}")
        block = nn.remat(Block, static_argnums=(2,)) if self.remat else Block
        chances = iter(np.linspace(0, self.drop_path, sum(self.depths)).tolist())
        x = layer_norm("stem_1", self.dtype)(conv(self.widths[0], PATCH, "stem_0", self.dtype)(x.astype(self.dtype)))
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            if stage:
                x = layer_norm(f"stages_{stage}_downsample_0", self.dtype)(x)
                x = conv(width, 2, f"stages_{stage}_downsample_1", self.dtype)(x)
            for number in range(depth):
                x = block(next(chances), name=f"stages_{stage}_blocks_{number}")(x, train)
        return PooledNorm(name="head_norm")(x)

    @property
    def smallest_side(self) -> int:
        """Height and width of the smallest image of which the last stage has a pixel."""
        return PATCH * 2 ** (len(self.depths) - 1)

    @property
    def title(self) -> str:
        """What messages call it."""
        depths, widths = (", ".join(map(str, each)) for each in (self.depths, self.widths))
        return f"{type(self).__name__} (stages of {depths} blocks, {widths} maps)"


class ConvNeXtTiny(ConvNeXt):
    """ConvNeXt-Tiny: 28 million parameters."""

    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)


class ConvNeXtBase(ConvNeXt):
    """ConvNeXt-Base: 88 million parameters."""

    depths: tuple[int, ...] = (3, 3, 27, 3)
    widths: tuple[int, ...] = (128, 256, 512, 1024)


class Block(nn.Module):
    """A depthwise 7 x 7 convolution, and two dense layers at each pixel, added to the input.

    Attributes:
      chance: of being left out for an image in training.
    """

    chance: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to the same shape."""
        width = x.shape[-1]
        y = nn.Conv(
            width, (7, 7), padding=3, feature_group_count=width, dtype=x.dtype, kernel_init=_INIT, name="conv_dw"
        )(x)
        y = layer_norm("norm", x.dtype)(y)
        y = nn.Dense(4 * width, dtype=x.dtype, kernel_init=_INIT, name="mlp_fc1")(y)
        y = nn.Dense(width, dtype=x.dtype, kernel_init=_INIT, name="mlp_fc2")(nn.gelu(y, approximate=False))
        y = y * self.param("gamma", nn.initializers.constant(LAYER_SCALE), (width,)).astype(x.dtype)
        if train and self.chance:
            kept = jax.random.bernoulli(self.make_rng(DROP_PATH), 1 - self.chance, (len(x), 1, 1, 1))
            y = y * kept / np.asarray(1 - self.chance, x.dtype)
        return x + y


class PooledNorm(nn.Module):
    """Layer normalisation of feature maps by mean and variance of their pooled values, over the maps of an image."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to the same shape and dtype; the means over H and W are those that `nn.LayerNorm` gives."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        values = x.astype(jnp.float32)
        pooled = values.mean((1, 2), keepdims=True)
        mean, var = pooled.mean(-1, keepdims=True), pooled.var(-1, keepdims=True)
        return ((values - mean) * jax.lax.rsqrt(var + LAYER_NORM_EPSILON) * scale + bias).astype(x.dtype)


def layer_norm(name: str, dtype: Any) -> nn.LayerNorm:
    """Returns a layer normalisation over the maps of each pixel."""
    return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=dtype, use_fast_variance=False, name=name)


def conv(features: int, size: int, name: str, dtype: Any) -> nn.Conv:
    """Returns a convolution that reads squares of size x size pixels next to each other; a rest is not read."""
    return nn.Conv(features, (size, size), size, padding="VALID", dtype=dtype, kernel_init=_INIT, name=name)
