"""Initial weights drawn by NumPy from the shapes of a network.

Compiling the initialisation of a full-size network takes up to a minute; tracing its shapes takes about a second.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util

# Distributions of kernels, as the arguments (scale, mode, distribution) of `nn.initializers.variance_scaling`; in the
# mode `fixed`, which that lacks, `scale` is the variance.
KAIMING_NORMAL = (2.0, "fan_in", "normal")  # torchvision's convolutions
GLOROT_UNIFORM = (1.0, "fan_avg", "uniform")  # Keras's convolutions
KAIMING_UNIFORM = (2.0, "fan_in", "uniform")  # keeps the variance through layers with ReLU, as GLOROT_UNIFORM does not
LINEAR_UNIFORM = (1 / 3, "fan_in", "uniform")  # torch.nn.Linear: within 1 / sqrt(inputs) of 0
NORMAL_002 = (0.02**2, "fixed", "normal")  # timm's ConvNeXt: a standard deviation of 0.02, whatever the shape
LAYER_SCALE = 1e-6  # ConvNeXt's `gamma`: what a block adds to its input at first

# {value of the U-Net's `config.model.initial`: its convolutions' distribution}
INITIAL = {"glorot_uniform": GLOROT_UNIFORM, "kaiming_uniform": KAIMING_UNIFORM}


def initial_variables(model: nn.Module, seed: int | Sequence[int], *inputs: Any, **options: Any) -> dict[str, Any]:
    """Draws the initial variables of one of our networks without compiling anything.

    The distributions are those of `model.init`: kernels follow `model.conv_scaling`, the `head`'s `LINEAR_UNIFORM`;
    scales and variances are 1, biases and means 0, `gamma` is `LAYER_SCALE`.

    Args:
      model: a `UNet`, a backbone or an `SDFN`.
      seed: the same seed gives the same variables, bit for bit.
      *inputs: the model's arguments; only shapes and dtypes matter, so `jax.ShapeDtypeStruct` works.
      **options: the model's keyword arguments (`train=False`).

    Returns:
      `{"params": ..., "batch_stats": ...}`, nested dicts of float32 NumPy arrays.

    Raises:
      ValueError: for a variable of another name.
    """
    generator = np.random.default_rng(seed)
    variables = {}
    for path, shape in sorted(variable_shapes(model, *inputs, **options).items()):
        match path[-1]:
            case "kernel":
                scaling = LINEAR_UNIFORM if path[-2] == "head" else model.conv_scaling
                variables[path] = _draw_kernel(generator, shape, *scaling)
            case "scale" | "var":
                variables[path] = np.ones(shape, np.float32)
            case "bias" | "mean":
                variables[path] = np.zeros(shape, np.float32)
            case "gamma":
                variables[path] = np.full(shape, LAYER_SCALE, np.float32)
            case _:
                raise ValueError(f"{'/'.join(path)}: no rule for the initial value of this variable")
    return traverse_util.unflatten_dict(variables)


def variable_shapes(model: nn.Module, *inputs: Any, **options: Any) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Returns {path: shape} of a network's variables, traced from the arguments of `initial_variables`."""
    return traced_shapes(model, *inputs, **options)[1]


def traced_shapes(model: nn.Module, *inputs: Any, **options: Any) -> tuple[Any, dict[tuple[str, ...], tuple[int, ...]]]:
    """Returns a network's outputs, as shapes, and {path: shape} of its variables, traced as by `variable_shapes`."""
    outputs, variables = jax.eval_shape(
        lambda *args: model.init_with_output(jax.random.key(0), *args, **options), *inputs
    )
    return outputs, {path: leaf.shape for path, leaf in traverse_util.flatten_dict(variables).items()}


def _draw_kernel(
    generator: np.random.Generator, shape: tuple[int, ...], scale: float, mode: str, distribution: str
) -> np.ndarray:
    """Draws a (..., inputs, outputs) kernel; the arguments are those of `variance_scaling`, and the mode `fixed`."""
    fan_in, fan_out = (int(np.prod(shape[:-2])) * channels for channels in shape[-2:])
    variance = scale / {"fan_in": fan_in, "fan_avg": (fan_in + fan_out) / 2, "fixed": 1}[mode]
    if distribution == "normal":
        return generator.standard_normal(shape, np.float32) * np.float32(np.sqrt(variance))
    limit = np.float32(np.sqrt(3 * variance))
    return (2 * generator.random(shape, np.float32) - 1) * limit
