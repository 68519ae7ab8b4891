"""ImageNet weights of DenseNet-121 as torchvision and timm publish them, and the names used for every source.

Our modules have torchvision's names, so a name turns into a path by renaming its last part:
`features.denseblock1.denselayer1.conv1.weight` is `params/denseblock1/denselayer1/conv1/kernel`.
"""

import collections
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sdfn_jax.models.preprocessing import Preprocessing

NAME = "torchvision / timm (ImageNet)"
PREPROCESSING = Preprocessing(low=0.0, high=1.0, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), size=224)
HEAD = ("classifier.weight", "classifier.bias")
IMAGENET_CLASSES = 1000

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# Prefixes of the names of a network inside another one: `module.` (DataParallel), `_orig_mod.` (compile),
# `model.` (Lightning), `densenet121.` (the CheXNet reproductions), or several of them.
_PREFIX = re.compile(r"(.*?)features\.(?:conv0|norm0|denseblock\d+|transition\d+|norm5)\.")
# A classifier after a dropout or before a sigmoid is numbered.
_NUMBERED_HEAD = re.compile(r"^classifier\.\d+\.")
# PyTorch before 0.4 allowed dots in a module's name; the published files still have them.
_OLD_NAME = re.compile(r"\b(norm|conv)\.([12])\.")


def recognises(tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are DenseNet weights with ImageNet's classifier or none."""
    names = modern_names(tensors)
    return is_densenet(names.values()) and outputs(tensors) in (None, IMAGENET_CLASSES)


def to_torchvision(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames the tensors of any PyTorch DenseNet as today's torchvision names them.

    Raises:
      ValueError: if two tensors would get the same name.
    """
    names = modern_names(tensors)
    counts = collections.Counter(names.values())
    if twice := sorted(name for name, modern in names.items() if counts[modern] > 1):
        raise ValueError(f"the same tensor under several names: {listed(twice)}")
    return {names[name]: tensor for name, tensor in tensors.items()}


def modern_names(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns {name: today's torchvision name}, without the common prefix of the network's names.

    A `classifier.0` (before a sigmoid) or `classifier.1` (after a dropout) becomes `classifier`.

    Raises:
      ValueError: if there are several networks.
    """
    examples = {match[1]: name for name in sorted(tensors, reverse=True) if (match := _PREFIX.match(name))}
    if len(examples) > 1:
        raise ValueError(
            f"it holds several networks ({listed(sorted(examples.values()))}): save one network's weights alone"
        )
    prefix = next(iter(examples), "")
    return {
        name: _NUMBERED_HEAD.sub("classifier.", _OLD_NAME.sub(r"\1\2.", name.removeprefix(prefix))) for name in tensors
    }


def listed(names: Sequence[str], shown: int = 3) -> str:
    """Returns the first few names of a list, and how many more there are."""
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more:,} more" if more > 0 else "")


def is_densenet(names) -> bool:
    """Returns whether modern names are those of some DenseNet."""
    return any(name.startswith("features.denseblock") for name in names)


def block_sizes(names: Iterable[str]) -> tuple[int, ...]:
    """Returns how many layers each dense block has, by the modern names; empty for another network."""
    layers = {tuple(name.split(".")[1:3]) for name in names if name.startswith("features.denseblock")}
    blocks = sorted({block for block, _ in layers})
    return tuple(sum(block == other for other, _ in layers) for block in blocks)


def outputs(tensors: Mapping[str, np.ndarray]) -> int | None:
    """Returns the number of classes of the classifier, or None if there is none."""
    heads = [tensors[name] for name, modern in modern_names(tensors).items() if modern == HEAD[0]]
    return heads[0].shape[0] if heads and heads[0].ndim == 2 else None


def torch_name(variable: tuple[str, ...], prefix: str = "features.") -> str:
    """Turns ("params", "denseblock1", ..., "kernel") into "features.denseblock1. ... .weight"."""
    _, *modules, leaf = variable
    return prefix + ".".join([*modules, _LEAVES.get(leaf, leaf)])


def variable_of(name: str, tensor: np.ndarray) -> tuple[str, ...]:
    """Reverses `torch_name` without a prefix."""
    *modules, last = name.split(".")
    leaf = {"bias": "bias", "running_mean": "mean", "running_var": "var"}.get(last, last)
    if last == "weight":
        leaf = "scale" if tensor.ndim == 1 else "kernel"
    return ("batch_stats" if last.startswith("running_") else "params", *modules, leaf)


def to_ours(tensor: np.ndarray) -> np.ndarray:
    """Turns a kernel's (out, in, height, width) into (height, width, in, out), (out, in) into (in, out)."""
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim)
    return np.ascontiguousarray(tensor.transpose(order)) if order else tensor


def to_torch(array: np.ndarray) -> np.ndarray:
    """Reverses `to_ours`; contiguous, because safetensors writes memory in its order."""
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(array.ndim)
    return np.ascontiguousarray(array.transpose(order)) if order else np.ascontiguousarray(array)
