"""Twins of the networks for a CPU: the same variables and values, computed faster there.

Each twin is a subclass of the network that it replaces. `for_backend` is the one place that chooses. A GPU or TPU runs
the plain networks, until a measurement there shows a faster form.
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
    # Imported here, because the twins import the networks.
    from sdfn_jax.models.kernels.densenet import CpuDenseNet
    from sdfn_jax.models.kernels.unet import CpuUNet

    (twin,) = (each for each in (CpuDenseNet, CpuUNet) if issubclass(each, network))
    return twin
