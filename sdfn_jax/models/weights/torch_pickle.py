"""Reads files of `torch.save`, without PyTorch and without executing their content.

A `.pth` file is a pickle with the tensors' numbers next to it. `pickled` reads the pickle as data; this module has the
few functions that build a tensor. Only the tensors of one network are unpacked, within bounds.

Both layouts are read: the zip archive (since PyTorch 1.6, 2020) and the plain stream before it, which the published
torchvision and CheXNet files still are. See `torch/serialization.py`.
"""

import io
import math
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from sdfn_jax.models.weights import averages, bounds, pickled
from sdfn_jax.models.weights.pickled import Global, RefusedFileError, Shell

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # first pickle of the older layout
_PROTOCOL_VERSION = 1001  # the second one
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_STORAGES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
    "UntypedStorage": np.dtype("<u1"),
}
_LEVELS = 2  # {"checkpoint": {"model": weights}}
# For a network that was stored whole; DenseNet-121 has 431 modules with 727 parameters and buffers.
_MOST_PARTS, _LONGEST_PREFIX = 20_000, 1_000
_MOST_AXES = 8


class Tensor(NamedTuple):
    """A tensor whose numbers are elsewhere in the file.

    Attributes:
      storage: of its numbers.
      offset: of its first number.
      shape: of the tensor.
      strides: in numbers.
    """

    storage: "_Storage"
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Storage(NamedTuple):
    """Numbers of one type; `dtype` is None for a type that is not read."""

    key: str
    kind: str
    dtype: np.dtype | None
    length: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.length * self.dtype.itemsize


Numbers = Callable[[_Storage], bytes | memoryview]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the weights that `read_set` finds."""
    return read_set(path)[0]


def read_set(path: str | Path) -> tuple[dict[str, np.ndarray], str]:
    """Reads the weights in a PyTorch file.

    They may be the whole content, or next to other objects (`state_dict` next to an optimizer), or one level deeper: a
    dict of tensors, or a network that was stored with all its modules. Of several sets the moving average is read
    (`averages`).

    Args:
      path: either layout.

    Returns:
      {name: array}, named as the network's `state_dict()` names them; the place of the moving average, if it was chosen
      among several sets, or empty.

    Raises:
      RefusedFileError: for a file that is incomplete, calls functions, or has no weights or several sets of them
        without one moving average.
      bounds.TooLargeError: for one that exceeds the bounds.
      OSError: if it cannot be opened.
    """
    try:
        bounds.check_file(Path(path))
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_archive(file)
            file.seek(0)
            return _read_stream(file)
    except (RefusedFileError, bounds.TooLargeError, OSError, MemoryError):
        raise
    except Exception as error:  # a broken pickle raises any error
        raise RefusedFileError(f"not a whole PyTorch file ({type(error).__name__}: {error})") from error


def _read_archive(file: io.BufferedIOBase) -> tuple[dict[str, np.ndarray], str]:
    with bounds.open_zip(file) as archive:
        names = set(archive.namelist())
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedFileError(
                "not a PyTorch file: a zip archive without a data.pkl (TorchScript has others next to it)"
            )
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise RefusedFileError("a TorchScript archive (torch.jit.save): save the network's state_dict instead")
        order = f"{folder}byteorder"
        if order in names and bounds.read_entry(archive, order, 100) != b"little":
            raise RefusedFileError("written on a big-endian machine")
        stored = _unpickle(io.BytesIO(bounds.read_entry(archive, pickles[0], bounds.LARGEST_PICKLE)))

        def numbers(storage: _Storage) -> bytes:
            return bounds.read_entry(archive, f"{folder}data/{storage.key}", storage.size)

        tensors, average = _weights(stored)
        return _unpack(tensors, numbers), average


def _read_stream(file: io.BufferedIOBase) -> tuple[dict[str, np.ndarray], str]:
    content = io.BytesIO(file.read())
    if _unpickle(content) != _MAGIC_NUMBER or _unpickle(content) != _PROTOCOL_VERSION:
        raise RefusedFileError("not a PyTorch file")
    if not _unpickle(content)["little_endian"]:
        raise RefusedFileError("written on a big-endian machine")
    storages: dict[str, _Storage] = {}
    stored = _unpickle(content, storages)
    places: dict[str, memoryview] = {}
    whole = content.getbuffer()
    for key in _unpickle(content):
        storage = storages[key]
        if storage.dtype is None:
            raise RefusedFileError(f"it holds numbers of an unsupported type: {storage.kind}")
        start = content.tell() + 8
        end = start + storage.size
        if int.from_bytes(content.read(8), "little") != storage.length or not start <= end <= len(whole):
            raise RefusedFileError("truncated or damaged: it ends before its last tensor")
        places[key] = whole[start:end]
        content.seek(end)
    tensors, average = _weights(stored)
    return _unpack(tensors, lambda storage: places[storage.key]), average


def _unpickle(file: io.BytesIO, storages: dict[str, _Storage] | None = None) -> Any:
    def reference(named: Any) -> Any:
        if named[0] == "module":  # the class of a network, with its source code
            return named[1]
        kind, storage_type, key, _, count, *view = named
        if kind != "storage" or not isinstance(storage_type, Global) or any(part is not None for part in view):
            raise RefusedFileError("its pickle refers to something other than a tensor's numbers")
        storage = _Storage(str(key), storage_type.name, _STORAGES.get(storage_type.name), count)
        if storages is not None:
            storages[storage.key] = storage
        return storage

    return pickled.read(file, _KNOWN, reference)


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    return Tensor(storage, offset, shape, strides)


def _rebuild_tensor_v3(storage: _Storage, offset: int, shape: tuple, strides: tuple, *more: Any) -> Tensor:
    """For types without a storage of their own (float8): `more` are gradient, hooks, type, ..."""
    return Tensor(storage._replace(kind=str(more[2]), dtype=None), offset, shape, strides)


def _rebuild_parameter(tensor: Tensor, *_: Any) -> Tensor:
    return tensor


_KNOWN: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}


def _weights(stored: Any) -> tuple[dict[str, Tensor], str]:
    """Finds the set of weights in a file, at the highest level that has any, and the place of a chosen moving average.

    Raises:
      RefusedFileError: if there are none, or several without one moving average.
    """
    level, seen = {"": stored}, {id(stored)}
    for _ in range(_LEVELS + 1):
        found = {place: tensors for place, value in level.items() if (tensors := _state_dict(value))}
        if len(found) == 1:
            return next(iter(found.values())), ""
        if found:
            if (average := averages.chosen(found)) is not None:
                return found[average], average
            raise RefusedFileError(
                f"it holds several sets of weights ({_listed(found)}): save one network's state_dict() alone"
            )
        below = {}
        for place, value in level.items():
            for key, inner in _dict(value).items():
                if isinstance(inner, dict | Shell) and id(inner) not in seen:  # once, however often it is referenced
                    seen.add(id(inner))
                    below[f"{place}.{key}".lstrip(".")] = inner
        level = below
    inside = _listed(_dict(stored)) or type(stored).__name__
    raise RefusedFileError(f"it holds no weights, only {inside}: save one network's state_dict() alone")


def _listed(names: Iterable[Any]) -> str:
    names = list(map(str, names))
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _dict(value: Any) -> dict[Any, Any]:
    """Returns the items of a dict, or of an object with dict items."""
    if isinstance(value, Shell):
        return value.items
    return value if isinstance(value, dict) else {}


def _state_dict(value: Any) -> dict[str, Tensor]:
    """Returns the tensors of a `state_dict()` or of a stored network; empty for anything else."""
    if isinstance(value, Shell) and "_modules" in value.attributes:
        return dict(_module_tensors(value))
    inside = _dict(value)
    all_tensors = all(isinstance(name, str) and isinstance(each, Tensor) for name, each in inside.items())
    return inside if all_tensors else {}


def _module_tensors(network: Shell) -> Iterator[tuple[str, Tensor]]:
    """Yields a stored network's tensors under the names of its `state_dict()`."""
    waiting, seen = [("", network)], 0
    while waiting:
        prefix, module = waiting.pop()
        parts = {kind: _dict(module.attributes.get(kind)) for kind in ("_parameters", "_buffers", "_modules")}
        seen += 1 + sum(map(len, parts.values()))
        bounds.check(seen, _MOST_PARTS, "the network in it", "modules and parameters")
        bounds.check(len(prefix), _LONGEST_PREFIX, "a name in it", "characters")
        for name, tensor in (parts["_parameters"] | parts["_buffers"]).items():
            if isinstance(tensor, Tensor):
                yield f"{prefix}{name}", tensor
        children = [(f"{prefix}{name}.", child) for name, child in parts["_modules"].items()]
        waiting += [(name, child) for name, child in reversed(children) if isinstance(child, Shell)]


def _unpack(tensors: dict[str, Tensor], numbers: Numbers) -> dict[str, np.ndarray]:
    """Returns the tensors as arrays of their own, if all of them together are small enough."""
    bounds.check(len(tensors), bounds.MOST_TENSORS, "the file", "tensors")
    sharing: dict[_Storage, list[str]] = {}
    content = 0
    for name, tensor in tensors.items():
        _check_inside(name, tensor)
        if tensor.storage not in sharing:
            content += tensor.storage.size
        content += math.prod(tensor.shape) * tensor.storage.dtype.itemsize
        bounds.check(content, 2 * bounds.LARGEST_CONTENT, "all its tensors together")
        sharing.setdefault(tensor.storage, []).append(name)
    arrays = {}
    for storage, names in sharing.items():
        values = np.frombuffer(numbers(storage), np.uint8)
        if values.size != storage.size:
            raise RefusedFileError(f"the numbers of the tensor {names[0]} are truncated")
        for name in names:
            arrays[name] = _array(tensors[name], values.view(storage.dtype))
    return {name: arrays[name] for name in tensors}


def _check_inside(name: str, tensor: Tensor) -> None:
    storage = tensor.storage
    if storage.dtype is None:
        raise RefusedFileError(f"the tensor {name} has numbers of an unsupported type: {storage.kind}")
    whole = (storage.length, tensor.offset, *tensor.shape, *tensor.strides)
    inside = len(tensor.shape) == len(tensor.strides) <= _MOST_AXES
    inside = inside and all(type(number) is int and 0 <= number < 2**48 for number in whole)
    if inside and 0 not in tensor.shape:
        steps = ((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        inside = tensor.offset + sum(steps) < storage.length
    if not inside:
        raise RefusedFileError(f"the tensor {name} of shape {tensor.shape} reaches beyond its {storage.length} numbers")


def _array(tensor: Tensor, values: np.ndarray) -> np.ndarray:
    if 0 in tensor.shape:
        return np.empty(tensor.shape, values.dtype)
    steps = [step * values.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, steps).copy()
