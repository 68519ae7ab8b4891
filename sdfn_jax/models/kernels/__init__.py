"""Twins of the networks for a CPU: the same variables and values, by arithmetic that is faster there.

Each twin is a subclass of the network it stands in for. `for_backend` is the one place that chooses. On a GPU or TPU
the plain networks are used, until a measurement there speaks for others.
"""

import jax
from flax import linen as nn


def for_backend(network: type[nn.Module], backend: str | None = None) -> type[nn.Module]:
    """Returns the class that computes a network on a backend.

    Args:
      network: `models.densenet.DenseNet` or `models.unet.UNet`.
      backend: `cpu`, `gpu`, `tpu` or `cuda`; JAX's default backend if None.
    """
    if (backend or jax.default_backend()) != "cpu":
        return network
    # Here, because the twins import the networks.
    from sdfn_jax.models.kernels.densenet import DenseNet
    from sdfn_jax.models.kernels.unet import UNet

    (twin,) = (each for each in (DenseNet, UNet) if issubclass(each, network))
    return twin
