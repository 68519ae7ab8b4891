"""DenseNet for a CPU: the network of `models.densenet`, equal up to rounding and faster.

Dense blocks are computed by `dense_block`. Transitions pool before their 1 x 1 convolution (both are linear), which
then has a quarter of the pixels. The batch moments, which all later layers of a block share, are computed once.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from sdfn_jax.models import densenet
from sdfn_jax.models.densenet import KAIMING_INIT, MOMENTUM
from sdfn_jax.models.kernels.dense_block import Affine, Layer, Moments, infer_block, moments_of, normalise, train_block
from sdfn_jax.models.kernels.pooling import max_pool


class CpuDenseNet(densenet.DenseNet):
    """The twin: same attributes, variables and values."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """See `models.densenet.DenseNet`."""
        self.check_size(x)
        x = x.astype(self.dtype)
        x = CpuConv(x.shape[-1], self.init_features, size=7, stride=2, name="conv0")(x)
        x = CpuBatchNorm(self.init_features, name="norm0")(x, moments_of(x) if train else None)
        x = max_pool(x, window=3, stride=2, padding=1)
        for block, layers in enumerate(self.block_sizes, start=1):
            x, moments = CpuDenseBlock(layers, self.growth_rate, self.bottleneck, name=f"denseblock{block}")(x, train)
            if block < len(self.block_sizes):
                x = CpuTransition(x.shape[-1], name=f"transition{block}")(x, moments)
        return CpuBatchNorm(x.shape[-1], name="norm5")(x, moments)


class CpuDenseBlock(nn.Module):
    """Layers that each read the feature maps of all layers before them."""

    layers: int
    growth_rate: int
    bottleneck: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, Moments | None]:
        """Appends layers * growth_rate maps to (B, H, W, C); returns all maps and their moments."""
        inputs = [x.shape[-1] + layer * self.growth_rate for layer in range(self.layers)]
        layers = [
            CpuDenseLayer(channels, self.bottleneck * self.growth_rate, self.growth_rate, name=f"denselayer{layer}")
            for layer, channels in enumerate(inputs, start=1)
        ]
        weights = tuple(layer.weights() for layer in layers)
        if not train:
            return infer_block(x, weights, [layer.running() for layer in layers]), None
        x, moments, inner = train_block(x, weights)
        for layer, channels, squeezed in zip(layers, inputs, inner, strict=True):
            layer.norm1.follow(Moments(moments.mean[:channels], moments.var[:channels]), x)
            layer.norm2.follow(squeezed, x)
        return x, moments


class CpuDenseLayer(nn.Module):
    """Weights of a layer from `inputs` maps through `squeezed` maps to `features` maps."""

    inputs: int
    squeezed: int
    features: int

    def setup(self):
        """Declares the variables."""
        self.norm1 = CpuBatchNorm(self.inputs)
        self.conv1 = CpuConv(self.inputs, self.squeezed, size=1)
        self.norm2 = CpuBatchNorm(self.squeezed)
        self.conv2 = CpuConv(self.squeezed, self.features, size=3)

    def weights(self) -> Layer:
        """Returns the parameters."""
        return Layer(self.norm1.affine(), self.conv1.kernel[0, 0], self.norm2.affine(), self.conv2.kernel)

    def running(self) -> tuple[Moments, Moments]:
        """Returns the running statistics of norm1 and of norm2."""
        return self.norm1.running(), self.norm2.running()


class CpuTransition(nn.Module):
    """Halves height, width and the number of feature maps."""

    inputs: int

    def setup(self):
        """Declares the variables."""
        self.norm = CpuBatchNorm(self.inputs)
        self.conv = CpuConv(self.inputs, self.inputs // 2, size=1)

    def __call__(self, x: jax.Array, moments: Moments | None) -> jax.Array:
        """Maps (B, H, W, C) with its moments to (B, H // 2, W // 2, C // 2)."""
        x = self.norm(x, moments)
        height, width = (size // 2 * 2 for size in x.shape[1:3])
        # Slices, which XLA sums in the same pass as the normalisation.
        return self.conv(sum(x[:, i:height:2, j:width:2] for i in range(2) for j in range(2)) / 4)


class CpuConv(nn.Module):
    """A convolution without bias, padded by size // 2 on every side; a 1 x 1 one is a matrix product."""

    inputs: int
    features: int
    size: int
    stride: int = 1

    def setup(self):
        """Declares the variables."""
        self.kernel = self.param("kernel", KAIMING_INIT, (self.size, self.size, self.inputs, self.features))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps (B, H, W, inputs) to (B, h, w, features), of the dtype of x."""
        kernel = self.kernel.astype(x.dtype)
        if self.size == 1:
            return x @ kernel[0, 0]
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(self.size // 2, self.size // 2)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class CpuBatchNorm(nn.Module):
    """Batch normalisation by given moments, and ReLU."""

    features: int

    def setup(self):
        """Declares the variables."""
        shape = (self.features,)
        self.scale = self.param("scale", nn.initializers.ones, shape)
        self.bias = self.param("bias", nn.initializers.zeros, shape)
        self.mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        self.var = self.variable("batch_stats", "var", jnp.ones, shape)

    def affine(self) -> Affine:
        """Returns the parameters."""
        return Affine(self.scale, self.bias)

    def running(self) -> Moments:
        """Returns the running statistics."""
        return Moments(self.mean.value, self.var.value)

    def follow(self, moments: Moments, x: jax.Array) -> None:
        """Moves the running statistics towards the moments of a batch (B, H, W, any number of maps)."""
        if self.is_initializing():
            return
        count = densenet.values_per_map(self, x)
        self.mean.value = MOMENTUM * self.mean.value + (1 - MOMENTUM) * moments.mean
        self.var.value = MOMENTUM * self.var.value + (1 - MOMENTUM) * moments.var * (count / (count - 1))

    def __call__(self, x: jax.Array, moments: Moments | None) -> jax.Array:
        """Normalises (B, H, W, C) by its moments and updates the running ones, or uses the running ones for None."""
        if moments is None:
            moments = self.running()
        else:
            self.follow(moments, x)
        return normalise(x, moments, self.affine())
