"""DenseNet-121 of `keras.applications`: `.h5` (weights or whole model) and `.keras`, with and without top.

Read with h5py alone. Layers keep their names in both (`conv2_block1_1_bn`; the files of 2018 write `conv1/bn` for
`conv1_bn`), also where the network is a layer of another one. Keras computes with an epsilon of 1.001e-5,
torchvision and this project with 1e-5: the difference is added to the variances, which gives the same function.
"""

import io
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdfn_jax.core.extras import install_command
from sdfn_jax.models.weights import bounds, torchvision

NAME = "Keras applications"
WEIGHTS_ENTRY, _CONFIG_ENTRY = "model.weights.h5", "config.json"  # of a `.keras` archive
PREPROCESSING = torchvision.PREPROCESSING  # keras.applications.densenet.preprocess_input: mode "torch"

_EPSILON_DIFFERENCE = 1.001e-5 - 1e-5
_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "bias": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# In `.keras` and `.weights.h5` files variables have numbers, in the order in which these layers make them.
_NUMBERED = {4: ("gamma", "beta", "moving_mean", "moving_variance"), 2: ("kernel", "bias"), 1: ("kernel",)}
# Class and default names of Keras's global max pooling; `max_pool` is its name in keras.applications.
_MAX_POOLING = re.compile(r"GlobalMaxPool|(?:^|/)(?:global_max_pool\w*|max_pool)(?:/|$)")
_LAYERS = [
    (r"conv1_(bn|conv)", lambda m: "features." + {"bn": "norm0", "conv": "conv0"}[m[1]]),
    (
        r"conv(\d)_block(\d+)_([012])_(bn|conv)",
        # The layers of a block: 0_bn, 1_conv, 1_bn, 2_conv; torchvision counts norm1, conv1, norm2, conv2.
        lambda m: (
            f"features.denseblock{int(m[1]) - 1}.denselayer{m[2]}."
            + (f"norm{int(m[3]) + 1}" if m[4] == "bn" else f"conv{m[3]}")
        ),
    ),
    (r"pool(\d)_(bn|conv)", lambda m: f"features.transition{int(m[1]) - 1}." + {"bn": "norm", "conv": "conv"}[m[2]]),
    (r"bn", lambda m: "features.norm5"),
    (r"predictions|fc1000|dense(_\d+)?", lambda m: "classifier"),
]


class RefusedLayoutError(ValueError):
    """A complete Keras file without the layout of a DenseNet."""


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads a Keras file.

    Returns:
      {"layer/variable": array}, with `_` for `/` in a layer's name.

    Raises:
      ValueError: if h5py is missing, or the file is damaged, too large, or does not name its layers.
      OSError: if it cannot be opened.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"reading Keras files needs h5py: {install_command('convert')}") from error
    bounds.check_file(path)
    try:
        content: Path | io.BytesIO = path
        description = b""
        if zipfile.is_zipfile(path):
            with path.open("rb") as opened, bounds.open_zip(opened) as archive:
                content = io.BytesIO(bounds.read_entry(archive, WEIGHTS_ENTRY, bounds.LARGEST_CONTENT))
                if _CONFIG_ENTRY in archive.namelist():
                    description = bounds.read_entry(archive, _CONFIG_ENTRY, bounds.LARGEST_HEADER)
        with h5py.File(content, "r") as file:
            found = _named_by_attribute(file) if "layers" in file else _named_by_path(file)
            _check_pooling(file, description, found)
            return _read_all(found, file.filename)
    except (RefusedLayoutError, bounds.TooLargeError, MemoryError):
        raise
    except Exception as error:  # h5py and zipfile raise whatever the damage leads to
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(
            f"not a whole Keras file ({reason}); perhaps an interrupted download: fetch it again"
        ) from error


def recognises(tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are the weights of a Keras DenseNet."""
    return any(re.match(r"conv\d_block\d+_[012]_(bn|conv)/", name) for name in tensors)


def to_torchvision(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights under torchvision's names and in its layout; other layers keep their names."""
    renamed: dict[str, np.ndarray] = {}
    for name, array in tensors.items():
        layer, _, variable = name.rpartition("/")
        if variable == "moving_variance":
            array = (array + np.asarray(_EPSILON_DIFFERENCE, array.dtype)).astype(array.dtype)
        _add(renamed, _torchvision_name(layer, variable) or name, torchvision.to_torch(array))
    return renamed


def _torchvision_name(layer: str, variable: str) -> str | None:
    for pattern, rename in _LAYERS:
        if (match := re.fullmatch(pattern, layer)) and variable in _LEAVES:
            return f"{rename(match)}.{_LEAVES[variable]}"
    return None


def _named_by_path(file) -> dict[str, Any]:
    """Finds the variables in Keras's older layout: `[model_weights/][model/]layer/layer/gamma[:0]`.

    An optimizer may be next to `model_weights`.
    """
    found: dict[str, Any] = {}
    for path, item in _items(file.get("model_weights", file)):
        if _is_array(item):
            *parts, variable = path.removesuffix(":0").split("/")
            _add(found, f"{_layer(parts, variable)}/{variable}", item)
    return found


def _layer(parts: Sequence[str], variable: str) -> str:
    """Returns the layer that a path leads to: the longest end of it that names a layer of a DenseNet.

    The path names the layer twice, and a network that is a layer itself before it: densenet121/conv1/bn/conv1/bn.
    """
    for start in range(len(parts)):
        layer = "_".join(parts[start:])
        if _torchvision_name(layer, variable) is not None:
            return layer
    return "_".join(parts)


def _named_by_attribute(file) -> dict[str, Any]:
    """Finds them in Keras 3's: `layers/batch_normalization_1/vars/0`, the layer's own name an attribute of `vars`."""
    found: dict[str, Any] = {}
    items = dict(_items(file["layers"]))
    for path, item in items.items():
        if _is_array(item) or not path.endswith("/vars") or not len(item):
            continue
        layer = _text(item, "name").replace("/", "_")
        for number, variable in enumerate(_NUMBERED.get(len(item), tuple(item))):
            _add(found, f"{layer}/{variable}", items[f"{path}/{number}"])
    return found


def _check_pooling(file, description: bytes, found: Mapping[str, Any]) -> None:
    """Refuses a classifier that reads maxima of the feature maps, if the file describes it so: ours reads means."""
    heads = (name for name in found if re.fullmatch(_LAYERS[-1][0], name.rpartition("/")[0]))
    if next(heads, None) is None:
        return
    described = (description.decode(), str(file.attrs.get("model_config", "")), *(path for path, _ in _items(file)))
    if any(map(_MAX_POOLING.search, described)):
        raise RefusedLayoutError(
            "its classifier reads the maximum of each feature map (GlobalMaxPooling2D); only average pooling is read"
        )


def _items(group) -> list[tuple[str, Any]]:
    """Returns (path, array or group) for everything in a group, once each; external links are not followed."""
    found: list[tuple[str, Any]] = []

    def visit(path: str, item) -> None:
        found.append((path, item))
        bounds.check(len(found), bounds.MOST_TENSORS, "the file", "arrays and groups")

    group.visititems(visit)
    return found


def _is_array(item) -> bool:
    return hasattr(item, "shape")


def _text(item, attribute: str) -> str:
    if attribute not in item.attrs:
        raise RefusedLayoutError("this Keras file does not name its layers: load it in Keras and save it as .h5")
    written = item.attrs.get_id(attribute)
    if written.shape != () or not isinstance(text := item.attrs[attribute], str):
        raise RefusedLayoutError("this Keras file has a layer whose name is not text")
    return text


def _add(found: dict[str, Any], name: str, item: Any) -> None:
    if name in found:
        raise RefusedLayoutError(f"it holds several networks, or a classifier of several layers: {name} appears twice")
    found[name] = item


def _read_all(found: Mapping[str, Any], file: str) -> dict[str, np.ndarray]:
    """Reads the arrays of a file, if they are small enough together: a few kB can declare any size."""
    content = 0
    for name, item in found.items():
        if not _is_array(item) or item.shape is None or item.dtype.kind not in "fiub":
            raise RefusedLayoutError(f"{name} is not an array of numbers")
        if item.is_virtual or item.external or item.file.filename != file:
            raise RefusedLayoutError(f"the numbers of {name} are in another file")
        # A chunk is unpacked whole, and may be larger than its array.
        for shape in (item.shape, item.chunks or ()):
            content += math.prod(shape) * item.dtype.itemsize
            bounds.check(content, 2 * bounds.LARGEST_CONTENT, "all its arrays together")
    return {name: item[()] for name, item in found.items()}
