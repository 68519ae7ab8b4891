"""DenseNet (Huang et al. 2017, arXiv:1608.06993) as torchvision builds it: the feature extractor of B.3.

Modules and variables carry torchvision's names and shapes, so that its weights convert by renaming leaves. This is the
network as the paper defines it; `kernels` has a twin with the same values and variables that is faster on a CPU.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from sdfn_jax.models.initial import KAIMING_NORMAL

EPSILON = 1e-5
MOMENTUM = 0.9  # of the running statistics; PyTorch writes 0.1 for the same
_LAYERS = {(6, 12, 24, 16): 121, (6, 12, 32, 32): 169, (6, 12, 48, 32): 201, (6, 12, 36, 24): 161}  # in its name
KAIMING_INIT = nn.initializers.variance_scaling(*KAIMING_NORMAL)


class DenseNet(nn.Module):
    """Feature maps of a radiograph; the default is DenseNet-121.

    Attributes:
      growth_rate: feature maps that a layer adds.
      block_sizes: layers of each dense block.
      init_features: feature maps of the stem.
      bottleneck: a layer's 1 x 1 convolution makes bottleneck * growth_rate maps.
      dtype: of the activations; parameters and statistics are float32.
      remat: whether the backward pass recomputes each layer instead of keeping its activations: a fraction of the
        memory, a third more arithmetic. The CPU's twin always does.
    """

    growth_rate: int = 32
    block_sizes: tuple[int, ...] = (6, 12, 24, 16)
    init_features: int = 64
    bottleneck: int = 4
    dtype: Any = jnp.float32
    remat: bool = False

    conv_scaling = KAIMING_NORMAL

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the feature maps that the global average pooling takes.

        Args:
          x: (B, H, W, 3) standardised images, at least 32 x 32 for DenseNet-121.
          train: whether to normalise by the batch and update `batch_stats`, or to normalise by `batch_stats`.

        Returns:
          (B, H / 32, W / 32, C), none negative, of `dtype`; C = 1024 in DenseNet-121.

        Raises:
          ValueError: for a smaller image, or when training on a batch with a single value per feature map.
        """
        self.check_size(x)
        dense_layer = nn.remat(DenseLayer, static_argnums=(2,)) if self.remat else DenseLayer
        x = x.astype(self.dtype)
        x = conv(self.init_features, 7, "conv0", self.dtype, strides=2)(x)
        x = nn.relu(BatchNorm(name="norm0")(x, train))
        x = nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
        for block, layers in enumerate(self.block_sizes, start=1):
            x = DenseBlock(layers, self.growth_rate, self.bottleneck, dense_layer, name=f"denseblock{block}")(x, train)
            if block < len(self.block_sizes):
                x = Transition(name=f"transition{block}")(x, train)
        return nn.relu(BatchNorm(name="norm5")(x, train))

    @classmethod
    def from_pretrained(cls, source: str | Path = "imagenet", **attributes: Any) -> tuple["DenseNet", dict[str, Any]]:
        """Returns a network and pretrained variables for it, for one's own training loop.

        `sdfn_jax.load_weights` of the same source also says which preprocessing they expect.

        Args:
          source: `imagenet` (torchvision's weights, downloaded once), or a file, as `load_weights` takes it.
          **attributes: of the network, if it is not DenseNet-121 in float32.

        Returns:
          the module, on a CPU its faster twin (`kernels.for_backend`), and `{"params": ..., "batch_stats": ...}` of
          float32 NumPy arrays for its `apply`.

        Raises:
          UserError: naming the file and what is wrong with it; a ValueError.
        """
        from sdfn_jax.models import kernels
        from sdfn_jax.models.weights import weights_file

        model = kernels.for_backend(cls)(**attributes)
        return model, weights_file.load_weights(source, model).variables

    @property
    def smallest_side(self) -> int:
        """Height and width of the smallest image that the poolings leave a pixel of."""
        return 2 ** (len(self.block_sizes) + 1)

    @property
    def title(self) -> str:
        """What messages call it."""
        blocks = tuple(self.block_sizes)
        name = f"DenseNet-{_LAYERS[blocks]}" if blocks in _LAYERS else "a DenseNet"
        return f"{name} (blocks of {', '.join(map(str, blocks))} layers)"

    @nn.nowrap
    def check_size(self, x: jax.Array) -> None:
        """Raises ValueError for images, (B, H, W, C), that are too small for the poolings."""
        if min(x.shape[1:3]) < self.smallest_side:
            raise ValueError(
                f"an image of {x.shape[1]} x {x.shape[2]}: this DenseNet needs at least {self.smallest_side} x "
                f"{self.smallest_side}"
            )


class DenseBlock(nn.Module):
    """Layers that each read the feature maps of all layers before them."""

    layers: int
    growth_rate: int
    bottleneck: int
    dense_layer: type[nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, C + layers * growth_rate)."""
        for layer in range(1, self.layers + 1):
            new = self.dense_layer(self.growth_rate, self.bottleneck, name=f"denselayer{layer}")(x, train)
            x = jnp.concatenate([x, new], axis=-1)
        return x


class DenseLayer(nn.Module):
    """Normalisation, ReLU, 1 x 1 convolution, and the same with a 3 x 3 convolution."""

    growth_rate: int
    bottleneck: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H, W, growth_rate)."""
        x = nn.relu(BatchNorm(name="norm1")(x, train))
        x = conv(self.bottleneck * self.growth_rate, 1, "conv1", x.dtype)(x)
        x = nn.relu(BatchNorm(name="norm2")(x, train))
        return conv(self.growth_rate, 3, "conv2", x.dtype)(x)


class Transition(nn.Module):
    """Halves height, width and the number of feature maps."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps (B, H, W, C) to (B, H // 2, W // 2, C // 2)."""
        x = nn.relu(BatchNorm(name="norm")(x, train))
        x = conv(x.shape[-1] // 2, 1, "conv", x.dtype)(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


class BatchNorm(nn.Module):
    """Batch normalisation with PyTorch's running variance.

    It moves towards the unbiased variance of the batch (`flax.linen.BatchNorm` takes the biased one), so that
    fine-tuning published weights updates them as PyTorch would.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises (B, H, W, C) by the batch and moves the running statistics, or normalises by these."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape)
        if train:
            values = x.astype(jnp.float32)
            mean, var = values.mean((0, 1, 2)), values.var((0, 1, 2))
            if not self.is_initializing():
                count = values_per_map(self, x)
                running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
                running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var * (count / (count - 1))
        else:
            mean, var = running_mean.value, running_var.value
        gain = scale * jax.lax.rsqrt(var + EPSILON)
        return (x * gain + (bias - mean * gain)).astype(x.dtype)


def values_per_map(layer: nn.Module, x: jax.Array) -> int:
    """Returns the number of values in each feature map of (B, H, W, C), over which a layer takes its statistics.

    Raises:
      ValueError: naming the layer, if there is only one value, which has no variance.
    """
    count = x.size // x.shape[-1]
    if count == 1:
        raise ValueError(
            f"{'/'.join(layer.path)}: one value per feature map has no variance: train on larger batches or images"
        )
    return count


def conv(features: int, size: int, name: str, dtype: Any, strides: int = 1) -> nn.Conv:
    """Returns a convolution without bias, padded by size // 2 on every side (`SAME` pads a stride of 2 otherwise)."""
    return nn.Conv(
        features,
        (size, size),
        strides,
        padding=size // 2,
        use_bias=False,
        dtype=dtype,
        kernel_init=KAIMING_INIT,
        name=name,
    )
