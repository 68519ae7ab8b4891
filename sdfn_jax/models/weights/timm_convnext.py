"""ConvNeXt as timm publishes it: weights of ImageNet, or of one's own, with timm's names.

Our modules have the same names with `_` for the dots inside them, and the prefix and the classifier's name that all
sources share (`torchvision`): `stages.0.blocks.1.mlp.fc1.weight` is `features.stages_0_blocks_1.mlp_fc1.weight`.
"""

import re
from collections.abc import Mapping

import numpy as np

from sdfn_jax.models.weights import torchvision

NAME = "timm (ConvNeXt)"
PREPROCESSING = torchvision.PREPROCESSING

# Prefixes of the names of a network inside another one, as of a DenseNet.
_STEM = re.compile(r"(.*?)stem\.0\.weight")
_BLOCK = re.compile(r"(stages\.\d+\.blocks\.\d+)\.(.+)")
_UNDERSCORE = re.compile(r"_(?=\d|blocks|downsample|fc\d|norm\.)")  # that timm has a dot for


def recognises(tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are the weights of one of timm's ConvNeXts that normalise after pooling."""
    prefix = _prefix(tensors)
    return prefix is not None and {f"{prefix}stages.0.blocks.0.conv_dw.weight", f"{prefix}head.norm.weight"} <= {
        *tensors
    }


def to_torchvision(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights under our names."""
    prefix = _prefix(tensors)
    return {_our_name(name.removeprefix(prefix)): tensor for name, tensor in tensors.items()}


def to_timm(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Reverses `to_torchvision`: an exported extractor's weights as timm's `load_state_dict` takes them."""
    return {
        _UNDERSCORE.sub(".", name.removeprefix("features.")).replace("classifier.", "head.fc."): tensor
        for name, tensor in tensors.items()
    }


def _prefix(tensors: Mapping[str, np.ndarray]) -> str | None:
    return next((match[1] for name in tensors if (match := _STEM.fullmatch(name))), None)


def _our_name(name: str) -> str:
    modules, _, leaf = name.rpartition(".")
    if modules == "head.fc":
        return f"classifier.{leaf}"
    parts = block.groups() if (block := _BLOCK.fullmatch(modules)) else (modules,)
    return ".".join(["features", *(part.replace(".", "_") for part in parts), leaf])
