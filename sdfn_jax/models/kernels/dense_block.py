"""The arithmetic of a dense block, with its derivative written by hand.

A dense block is bound by memory traffic, and its plain definition, with concatenations and automatic differentiation,
moves several times as much data as is needed. Here, exact up to rounding:

* all feature maps of a block share one buffer, into which each layer writes its own; so do their gradients;
* every layer of a block normalises a feature map by the same batch mean and variance: they are computed once, when the
  map is made, and differentiated once, when the gradients of all later layers have been added;
* the backward pass recomputes the normalised activations; only the block's feature maps and the output of each layer's
  1 x 1 convolution are kept;
* a 1 x 1 convolution is a matrix product; a 3 x 3 convolution is computed by `convolution`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import dynamic_update_slice_in_dim as write

from sdfn_jax.models.densenet import EPSILON
from sdfn_jax.models.kernels.convolution import convolve, convolve_backward, weight_gradient


class Moments(NamedTuple):
    """Mean and (biased) variance of each feature map over batch and pixels: (C,) float32."""

    mean: jax.Array
    var: jax.Array


class Affine(NamedTuple):
    """What a batch normalisation multiplies by and adds: (C,) float32."""

    scale: jax.Array
    bias: jax.Array


class Layer(NamedTuple):
    """Weights of a dense layer: C features -> M -> G; float32.

    Attributes:
      norm1: of C.
      conv1: (C, M), a 1 x 1 convolution.
      norm2: of M.
      conv2: (3, 3, M, G).
    """

    norm1: Affine
    conv1: jax.Array
    norm2: Affine
    conv2: jax.Array


def moments_of(x: jax.Array) -> Moments:
    """Returns the moments of (B, H, W, C) of any float type."""
    x = x.astype(jnp.float32)
    mean = x.mean((0, 1, 2))
    # The variance's derivative with respect to the mean is zero: omitting it saves a pass.
    return Moments(mean, jnp.square(x - jax.lax.stop_gradient(mean)).mean((0, 1, 2)))


def normalise(x: jax.Array, moments: Moments, affine: Affine) -> jax.Array:
    """Returns ReLU of the batch normalisation of (B, H, W, C), of the dtype of x."""
    gain = affine.scale * jax.lax.rsqrt(moments.var + EPSILON)
    return jax.nn.relu(x * gain + (affine.bias - moments.mean * gain)).astype(x.dtype)


def infer_block(x: jax.Array, layers: Sequence[Layer], running: Sequence[tuple[Moments, Moments]]) -> jax.Array:
    """Runs a dense block, normalising by running statistics.

    Args:
      x: (B, H, W, C) of any float type.
      layers: each takes what x and all layers before it made.
      running: moments for norm1 and norm2 of each layer.

    Returns:
      (B, H, W, C + len(layers) * G), x first, of the dtype of x.
    """
    features, channels = _buffer(x, layers), x.shape[-1]
    for layer, (seen, inner) in zip(layers, running, strict=True):
        squeezed = _squeeze(features[..., :channels], seen, layer)
        new = _make(squeezed, inner, layer)
        features = write(features, new, channels, axis=-1)
        channels += new.shape[-1]
    return features


@jax.custom_vjp
def train_block(x: jax.Array, layers: tuple[Layer, ...]) -> tuple[jax.Array, Moments, tuple[Moments, ...]]:
    """Runs a dense block, normalising by the batch.

    Args:
      x: (B, H, W, C) of any float type.
      layers: each takes what x and all layers before it made.

    Returns:
      features: (B, H, W, C + len(layers) * G), x first, of the dtype of x.
      moments: of the features.
      inner: moments of the input of each layer's norm2; they have no derivative.
    """
    return _forward(x, layers)[0]


def _forward(x, layers):
    features, channels = _buffer(x, layers), x.shape[-1]
    moments, kept = moments_of(x), []
    for layer in layers:
        squeezed = _squeeze(features[..., :channels], moments, layer)
        inner = moments_of(squeezed)
        new = _make(squeezed, inner, layer)
        features = write(features, new, channels, axis=-1)
        moments = Moments(*map(jnp.concatenate, zip(moments, moments_of(new), strict=True)))
        kept.append((layer, squeezed, inner))
        channels += new.shape[-1]
    return (features, moments, tuple(inner for _, _, inner in kept)), (features, moments, kept)


def _buffer(x, layers):
    """Returns room for all feature maps of a block, with x in it."""
    channels = x.shape[-1] + sum(layer.conv2.shape[-1] for layer in layers)
    return write(jnp.zeros((*x.shape[:-1], channels), x.dtype), x, 0, axis=-1)


def _squeeze(x, moments, layer):
    return normalise(x, moments, layer.norm1) @ layer.conv1.astype(x.dtype)


def _make(squeezed, moments, layer):
    return convolve(normalise(squeezed, moments, layer.norm2), layer.conv2.astype(squeezed.dtype))


def _backward(kept, gradients):
    features, moments, kept = kept
    grad_features, grad_moments, _ = gradients
    channels = features.shape[-1]
    grad_layers = []
    for layer, squeezed, inner in reversed(kept):
        # All later layers have added their share: only the gradient through the moments is missing.
        new = slice(channels - layer.conv2.shape[-1], channels)
        channels = new.start
        grad_new = _with_moments(*(_take(tree, new) for tree in (grad_features, grad_moments, features, moments)))

        active, standard = _standardised(squeezed, inner, layer.norm2)
        grad_active, grad_conv2 = convolve_backward(active, layer.conv2.astype(active.dtype), grad_new)
        grad_squeezed, grad_norm2, grad_inner = _norm_backward(grad_active, active, standard, inner, layer.norm2)
        grad_squeezed = _with_moments(grad_squeezed, grad_inner, squeezed, inner)

        before = slice(0, channels)
        seen = _take(moments, before)
        active, standard = _standardised(features[..., before], seen, layer.norm1)
        grad_conv1 = weight_gradient(active, grad_squeezed)
        grad_active = grad_squeezed @ layer.conv1.astype(active.dtype).T
        grad_seen, grad_norm1, grad_seen_moments = _norm_backward(grad_active, active, standard, seen, layer.norm1)
        grad_features = write(grad_features, grad_features[..., before] + grad_seen, 0, axis=-1)
        grad_moments = jax.tree.map(
            lambda total, part: total.at[: part.size].add(part), grad_moments, grad_seen_moments
        )
        grad_layers.append(Layer(grad_norm1, grad_conv1, grad_norm2, grad_conv2))
    x = slice(0, channels)
    grad_x = _with_moments(*(_take(tree, x) for tree in (grad_features, grad_moments, features, moments)))
    return grad_x, tuple(reversed(grad_layers))


train_block.defvjp(_forward, _backward)


def _take(tree, channels: slice):
    return jax.tree.map(lambda leaf: leaf[..., channels], tree)


def _standardised(x: jax.Array, moments: Moments, affine: Affine) -> tuple[jax.Array, jax.Array]:
    """Returns `normalise`, in another order of operations so that XLA recomputes it; and standardised x, float32."""
    standard = (x - moments.mean) * jax.lax.rsqrt(moments.var + EPSILON)
    return jax.nn.relu(standard * affine.scale + affine.bias).astype(x.dtype), standard


def _norm_backward(grad_active, active, standard, moments: Moments, affine: Affine):
    """Returns the gradients of the input (at fixed moments), of the affine parameters and of the moments."""
    grad_affine = jnp.where(active > 0, grad_active, 0).astype(jnp.float32)
    grad_scale, grad_bias = (grad_affine * standard).sum((0, 1, 2)), grad_affine.sum((0, 1, 2))
    inverse = jax.lax.rsqrt(moments.var + EPSILON)
    gain = affine.scale * inverse
    grad_moments = Moments(-gain * grad_bias, -0.5 * gain * inverse * grad_scale)
    return (grad_affine * gain).astype(active.dtype), Affine(grad_scale, grad_bias), grad_moments


def _with_moments(gradient, grad_moments: Moments, x, moments: Moments):
    """Adds to the gradient of x its part through the moments."""
    values = x.size // x.shape[-1]
    through = grad_moments.mean / values + (2 / values) * grad_moments.var * (x - moments.mean)
    return (gradient + through).astype(x.dtype)
