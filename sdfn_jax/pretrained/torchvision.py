"""DenseNet weights in `.safetensors` files under torchvision's names, as torchvision and timm publish them.

Our modules have torchvision's names, so a name turns into a path by renaming its last part:
`features.denseblock1.denselayer1.conv1.weight` is `params/denseblock1/denselayer1/conv1/kernel`.
"""

import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import variable_shapes

_PREFIX = "features."
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
# The 1000 classes of ImageNet are not ours; the counter only serves torch's momentum=None.
_DROPPED = ("classifier.weight", "classifier.bias", ".num_batches_tracked")


def load_densenet(path: str | os.PathLike, model: DenseNet | None = None) -> dict[str, Any]:
    """Reads the weights of a DenseNet.

    Args:
      path: a `.safetensors` file in torchvision's names.
      model: the network that the weights must fill; DenseNet-121 if None.

    Returns:
      `{"params": ..., "batch_stats": ...}`, nested dicts of float32 NumPy arrays: one branch of an `SDFN`.

    Raises:
      ValueError: naming the file, when it cannot be read, or with the list of every tensor that is missing, not
        expected, of another shape, not float32, or not finite.
    """
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    shapes = variable_shapes(model or DenseNet(), image, train=False)
    expected = {_torch_name(variable): (variable, shape) for variable, shape in shapes.items()}
    tensors = {name: tensor for name, tensor in _read_tensors(path).items() if not name.endswith(_DROPPED)}

    faults = [f"missing: {name}" for name in expected.keys() - tensors.keys()]
    faults += [f"not expected: {name}" for name in tensors.keys() - expected.keys()]
    variables = {}
    for name in expected.keys() & tensors.keys():
        variable, shape = expected[name]
        tensor = tensors[name]
        array = _to_ours(tensor)
        if array.shape != shape:
            faults.append(f"shape: {name} is {tensor.shape}, expected {_to_torch(np.empty(shape)).shape}")
        elif array.dtype != np.float32:
            faults.append(f"dtype: {name} is {array.dtype}, expected float32")
        elif not np.isfinite(array).all():
            faults.append(f"not finite: {name}")
        variables[variable] = array
    if faults:
        raise ValueError(
            f"{path}: not the weights of this DenseNet; {len(faults)} of its tensors are at fault:\n  "
            + "\n  ".join(sorted(faults))
        )
    return traverse_util.unflatten_dict(variables)


def save_densenet(path: str | os.PathLike, variables: dict[str, Any]) -> None:
    """Writes the weights of a DenseNet, without a classifier, for `load_densenet` or torchvision's network.

    Args:
      path: the `.safetensors` file; it appears whole or not at all.
      variables: `{"params": ..., "batch_stats": ...}` of a `DenseNet`, float32.
    """
    path = Path(path)
    tensors = {
        _torch_name(variable): _to_torch(np.asarray(array))
        for variable, array in traverse_util.flatten_dict(variables).items()
    }
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _torch_name(variable: tuple[str, ...]) -> str:
    """Turns ("params", "denseblock1", ..., "kernel") into "features.denseblock1. ... .weight"."""
    _, *modules, leaf = variable
    return _PREFIX + ".".join([*modules, _LEAVES[leaf]])


def _to_ours(tensor: np.ndarray) -> np.ndarray:
    """Turns a convolution's (out, in, height, width) into (height, width, in, out); leaves others."""
    return np.ascontiguousarray(tensor.transpose(2, 3, 1, 0)) if tensor.ndim == 4 else tensor


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Undoes `_to_ours`; contiguous, because safetensors writes the memory as it lies."""
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array


def _read_tensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads every tensor of a safetensors file by name; ValueError when it is none."""
    try:
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
    except SafetensorError as error:
        raise ValueError(
            f"{path}: not a whole .safetensors file ({error}); perhaps a web page or a download cut short: "
            f"download it again"
        ) from error
