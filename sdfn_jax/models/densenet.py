"""DenseNet (Huang et al. 2017) as torchvision builds it, the feature extractor of B.3.

Parameters carry torchvision's names and shapes. The arithmetic differs from the plain definition where that is exact
away from rounding and pays:

* a 1 x 1 convolution is a matrix product, whose weight gradient is far cheaper on a CPU;
* a transition pools before its 1 x 1 convolution (both are linear), which then works on a quarter of the pixels;
* every later layer of a block normalises a feature map with the same batch mean and variance: they are computed once,
  when the map is made. Running statistics stay each layer's own, as in the published weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from sdfn_jax.models.initial import KAIMING_NORMAL
from sdfn_jax.models.pooling import max_pool

_EPSILON = 1e-5
_MOMENTUM = 0.9  # of the running statistics; PyTorch writes 0.1 for the same
_KERNEL_INIT = nn.initializers.variance_scaling(*KAIMING_NORMAL)


class DenseNet(nn.Module):
    """Feature maps of a radiograph; the default is DenseNet-121.

    Attributes:
      growth_rate: feature maps that a layer adds.
      block_sizes: layers of each dense block.
      init_features: feature maps of the stem.
      bottleneck: a layer's 1 x 1 convolution makes bottleneck * growth_rate maps.
      dtype: of the activations; parameters and statistics are float32.
    """

    growth_rate: int = 32
    block_sizes: tuple[int, ...] = (6, 12, 24, 16)
    init_features: int = 64
    bottleneck: int = 4
    dtype: Any = jnp.float32

    conv_scaling = KAIMING_NORMAL

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the feature maps that the global average pooling takes.

        Args:
          x: (B, H, W, 3) standardised images of any size that leaves a pixel: 32 x 32 and more in DenseNet-121.
          train: whether to normalise by the batch and update `batch_stats`, or to normalise by `batch_stats`.

        Returns:
          (B, H / 32, W / 32, C) not negative, of `dtype`; C = 1024 in DenseNet-121.

        Raises:
          ValueError: for a smaller image, or when training on a batch with a single value per feature map.
        """
        smallest = 2 ** (len(self.block_sizes) + 1)
        if min(x.shape[1:3]) < smallest:
            raise ValueError(
                f"an image of {x.shape[1]} x {x.shape[2]}: this DenseNet takes {smallest} x {smallest} and more"
            )
        x = x.astype(self.dtype)
        x = Conv(self.init_features, size=7, stride=2, name="conv0")(x)
        x = BatchNorm(name="norm0")(x, _moments(x, train))
        x = max_pool(x, window=3, stride=2, padding=1)
        for block, layers in enumerate(self.block_sizes, start=1):
            x, moments = DenseBlock(layers, self.growth_rate, self.bottleneck, name=f"denseblock{block}")(x, train)
            if block < len(self.block_sizes):
                x = Transition(x.shape[-1] // 2, name=f"transition{block}")(x, moments)
        return BatchNorm(name="norm5")(x, moments)


class DenseBlock(nn.Module):
    """Layers that each see the feature maps of all before them."""

    layers: int
    growth_rate: int
    bottleneck: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, "Moments | None"]:
        """Appends layers * growth_rate maps to (B, H, W, C); returns them with their moments for whoever is next."""
        moments = _moments(x, train)
        for layer in range(1, self.layers + 1):
            new = DenseLayer(self.growth_rate, self.bottleneck, name=f"denselayer{layer}")(x, moments, train)
            x = jnp.concatenate([x, new], axis=-1)
            if train:
                moments = Moments(*map(jnp.concatenate, zip(moments, _moments(new, train), strict=True)))
        return x, moments


class DenseLayer(nn.Module):
    """Makes growth_rate new feature maps."""

    growth_rate: int
    bottleneck: int

    @nn.compact
    def __call__(self, x: jax.Array, moments: "Moments | None", train: bool) -> jax.Array:
        """Maps (B, H, W, C) with its moments to (B, H, W, growth_rate)."""
        x = BatchNorm(name="norm1")(x, moments)
        x = Conv(self.bottleneck * self.growth_rate, size=1, name="conv1")(x)
        x = BatchNorm(name="norm2")(x, _moments(x, train))
        return Conv(self.growth_rate, size=3, name="conv2")(x)


class Transition(nn.Module):
    """Halves height and width, and the number of feature maps to `features`."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, moments: "Moments | None") -> jax.Array:
        """Maps (B, H, W, C) with its moments to (B, H // 2, W // 2, features)."""
        x = BatchNorm(name="norm")(x, moments)
        x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        return Conv(self.features, size=1, name="conv")(x)


class Conv(nn.Module):
    """A convolution without bias, padded by size // 2 on every side (`SAME` would pad the stem otherwise)."""

    features: int
    size: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, C) to (B, h, w, features), of the dtype of x."""
        kernel = self.param("kernel", _KERNEL_INIT, (self.size, self.size, x.shape[-1], self.features))
        kernel = kernel.astype(x.dtype)
        if self.size == 1:
            return x @ kernel[0, 0]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(self.size // 2, self.size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class Moments(NamedTuple):
    """Mean and (biased) variance of each feature map over batch and pixels: (C,) float32."""

    mean: jax.Array
    var: jax.Array


def _moments(x: jax.Array, train: bool) -> Moments | None:
    """Returns the moments of (B, H, W, C), or None outside training."""
    if not train:
        return None
    x = x.astype(jnp.float32)
    mean = x.mean((0, 1, 2))
    # The derivative of the variance by the mean is zero: leaving it out saves a pass.
    return Moments(mean, jnp.square(x - jax.lax.stop_gradient(mean)).mean((0, 1, 2)))


class BatchNorm(nn.Module):
    """Batch normalisation by given moments, and ReLU.

    The running variance follows PyTorch: it moves towards the unbiased variance of the batch (Flax's own layer takes
    the biased one), so that fine-tuning published weights updates them as PyTorch would.
    """

    @nn.compact
    def __call__(self, x: jax.Array, moments: Moments | None) -> jax.Array:
        """Normalises (B, H, W, C) by its moments and updates the running ones, or uses the running ones for None."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if moments is None:
            moments = Moments(running_mean.value, running_var.value)
        elif not self.is_initializing():
            values = x.size // x.shape[-1]
            if values == 1:
                raise ValueError(
                    f"{'/'.join(self.path)}: one value per feature map has no variance; train on more or larger images"
                )
            unbiased = moments.var * (values / (values - 1))
            running_mean.value = _MOMENTUM * running_mean.value + (1 - _MOMENTUM) * moments.mean
            running_var.value = _MOMENTUM * running_var.value + (1 - _MOMENTUM) * unbiased
        gain = scale * jax.lax.rsqrt(moments.var + _EPSILON)
        return nn.relu((x - moments.mean) * gain + bias).astype(x.dtype)
