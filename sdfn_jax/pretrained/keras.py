"""DenseNet-121 of `keras.applications`: `.h5` (weights or whole model) and `.keras`, with and without top.

Read with h5py alone. Layers keep their names in both (`conv2_block1_1_bn`; the files of 2018 write `conv1/bn` for
`conv1_bn`). Keras computes with an epsilon of 1.001e-5 where torchvision and we have 1e-5: the difference is added to
the variances, which gives the same function.
"""

import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sdfn_jax.pretrained import torchvision

NAME = "Keras applications"
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
    (r"predictions|fc1000", lambda m: "classifier"),
]


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads a Keras file.

    Returns:
      {"layer/variable": array}, a layer's name with `_` for `/`.

    Raises:
      ValueError: where h5py is missing, or the file is damaged or of a kind that does not name its layers.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError("reading Keras files takes h5py: pip install -e '.[convert]'") from error
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = io.BytesIO(archive.read("model.weights.h5"))
            with h5py.File(content, "r") as file:
                return _named_by_attribute(file)
        with h5py.File(path, "r") as file:
            return _named_by_attribute(file) if "layers" in file else _named_by_path(file)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a whole Keras file ({error}); perhaps a download cut short: fetch it again") from error


def recognises(tensors: Mapping[str, np.ndarray]) -> bool:
    """Tells whether these are the weights of a Keras DenseNet."""
    return any(re.match(r"conv\d_block\d+_[012]_(bn|conv)/", name) for name in tensors)


def to_torchvision(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights under torchvision's names and in its layout; a layer of no DenseNet keeps its name."""
    renamed = {}
    for name, array in tensors.items():
        layer, variable = name.split("/")
        if variable == "moving_variance":
            array = (array + np.asarray(_EPSILON_DIFFERENCE, array.dtype)).astype(array.dtype)
        renamed[_torchvision_name(layer, variable) or name] = torchvision.to_torch(array)
    return renamed


def _torchvision_name(layer: str, variable: str) -> str | None:
    for pattern, rename in _LAYERS:
        if (match := re.fullmatch(pattern, layer)) and variable in _LEAVES:
            return f"{rename(match)}.{_LEAVES[variable]}"
    return None


def _named_by_path(file) -> dict[str, np.ndarray]:
    """Reads Keras's older layout: `[model_weights/]layer/layer/gamma[:0]`, an optimizer perhaps beside it."""
    tensors = {}

    def visit(path: str, item) -> None:
        if hasattr(item, "shape"):
            parts = path.removesuffix(":0").split("/")
            layer = "_".join(parts[: (len(parts) - 1) // 2])
            tensors[f"{layer}/{parts[-1]}"] = item[()]

    file.get("model_weights", file).visititems(visit)
    return tensors


def _named_by_attribute(file) -> dict[str, np.ndarray]:
    """Reads Keras 3's layout: `layers/batch_normalization_1/vars/0`, the layer's own name an attribute of `vars`."""
    tensors = {}

    def visit(path: str, item) -> None:
        if not path.endswith("/vars") or not len(item):
            return
        if "name" not in item.attrs:
            raise ValueError("this Keras file does not name its layers: load it in Keras and save it as .h5")
        layer = item.attrs["name"].replace("/", "_")
        variables = _NUMBERED.get(len(item), tuple(item))
        tensors.update({f"{layer}/{variable}": item[str(number)][()] for number, variable in enumerate(variables)})

    file["layers"].visititems(visit)
    return tensors
