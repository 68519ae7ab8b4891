"""Twins of networks for a CPU: the same variables and values, computed faster there.

Each twin is a subclass of the network that it replaces. `for_backend` is the one place that chooses. A GPU or TPU runs
the plain networks; docs/speed.md has what was measured for them.
"""

import importlib
from typing import TypeVar

import jax
from flax import linen as nn

# {network: module and class of its twin}; loaded when needed, because twins import the networks.
_TWINS = {
    "DenseNet": ("sdfn_jax.models.kernels.densenet", "CpuDenseNet"),
    "UNet": ("sdfn_jax.models.kernels.unet", "CpuUNet"),
}
_Network = TypeVar("_Network", bound=nn.Module)


def for_backend(network: type[_Network], backend: str | None = None) -> type[_Network]:
    """Returns the class that computes a network on a backend.

    Args:
      network: `models.unet.UNet`, or a backbone's. One without a twin is computed as it is.
      backend: `cpu`, `gpu`, `tpu` or `cuda`; JAX's default backend if None.
    """
    if (backend or jax.default_backend()) != "cpu" or network.__name__ not in _TWINS:
        return network
    module, name = _TWINS[network.__name__]
    return getattr(importlib.import_module(module), name)
