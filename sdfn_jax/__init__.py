"""SDFN (Liu et al. 2018) in JAX: 14 thoracic findings from the entire radiograph and its lung region.

`docs/api.md` shows how to use it. Names are imported when they are first used: `import sdfn_jax` alone loads neither
JAX nor NumPy.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from sdfn_jax.inference.prediction import Reading
    from sdfn_jax.inference.predictor import load
    from sdfn_jax.lungs.finder import Lungs, load_lungs
    from sdfn_jax.models.densenet import DenseNet
    from sdfn_jax.models.sdfn import SDFN
    from sdfn_jax.models.unet import UNet
    from sdfn_jax.models.weights.weights_file import load_weights
    from sdfn_jax.radiographs.findings import FINDINGS
    from sdfn_jax.radiographs.opening import Unreadable
    from sdfn_jax.radiographs.reader import read_radiograph

__all__ = [
    "FINDINGS",
    "SDFN",
    "DenseNet",
    "Lungs",
    "Reading",
    "UNet",
    "Unreadable",
    "__version__",
    "load",
    "load_lungs",
    "load_weights",
    "read_radiograph",
]
_MODULES = {
    "FINDINGS": "sdfn_jax.radiographs.findings",
    "SDFN": "sdfn_jax.models.sdfn",
    "DenseNet": "sdfn_jax.models.densenet",
    "Lungs": "sdfn_jax.lungs.finder",
    "Reading": "sdfn_jax.inference.prediction",
    "UNet": "sdfn_jax.models.unet",
    "Unreadable": "sdfn_jax.radiographs.opening",
    "load": "sdfn_jax.inference.predictor",
    "load_lungs": "sdfn_jax.lungs.finder",
    "load_weights": "sdfn_jax.models.weights.weights_file",
    "read_radiograph": "sdfn_jax.radiographs.reader",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return __all__
