"""Reads what `torch.save` wrote, without PyTorch and without running what is in it.

A `.pth` file is a pickle, and a pickle may call any function of any library. This reader calls none: it knows the few
functions that make up a tensor, and takes classes of PyTorch's modules for empty shells that only hold what was stored
in them. A file that asks for a call of anything else is refused with the name of what it asked for.

Both layouts are read: the zip archive (since PyTorch 1.6, 2020) and the plain stream before it, which the published
torchvision and CheXNet files still are. See `torch/serialization.py`.
"""

import collections
import functools
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # first pickle of the older layout
_PROTOCOL_VERSION = 1001  # the second one
_DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
# Called by harmless files for numbers beside the weights (a best loss, a random state): the result is not looked at.
_WITHOUT_EFFECT = {
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "torch.device",
    "torch.nn.backends.thnn._get_thnn_function_backend",
}
_SETS = {"builtins.set", "__builtin__.set"}


class RefusedFileError(ValueError):
    """A file that is not a whole PyTorch file, or asks for more than tensors."""


class Tensor(NamedTuple):
    """A tensor whose numbers may come later in the file.

    Attributes:
      storage: key of the numbers.
      offset: first number.
      shape: of the tensor.
      strides: in numbers.
    """

    storage: "_Storage"
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Storage(NamedTuple):
    key: str
    dtype: str
    count: int


class Shell:
    """Stands for an object of a class that is not loaded: it holds the stored attributes and can do nothing."""

    def __init__(self, *_):
        self.attributes = {}

    def __setstate__(self, state: Any) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _NotCallable(type):
    """Of a shell's class: `cls.__new__` (an object is made) passes, `cls(...)` (a function is called) does not."""

    def __call__(cls, *_):
        raise RefusedFileError(
            f"it asks to run {cls.__module__}.{cls.__qualname__}, which no weights need: refused, nothing was run"
        )


def _shell_class(module: str, name: str) -> type:
    def new(cls, *_):
        shell = object.__new__(cls)
        shell.attributes = {}
        return shell

    # Some modules are pickled as subclasses of dict or list: the shell takes items, too, and forgets them.
    ignored = {method: lambda *_: None for method in ("__setitem__", "append", "extend", "add", "update")}
    return _NotCallable(name, (Shell,), {"__module__": module, "__new__": new, **ignored})


def read_objects(path: str | Path) -> Any:
    """Reads a PyTorch file.

    Args:
      path: either layout.

    Returns:
      The stored object: dicts, lists and numbers as they are, tensors as NumPy arrays, objects of other classes as
      `Shell`.

    Raises:
      RefusedFileError: for anything else; the message does not name the file.
      OSError: where it cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_archive(file)
            file.seek(0)
            return _read_stream(file)
    except (RefusedFileError, OSError):
        raise
    except Exception as error:  # a broken pickle raises whatever its last instruction ran into
        raise RefusedFileError(f"not a whole PyTorch file ({type(error).__name__}: {error})") from error


def _read_archive(file: io.BufferedIOBase) -> Any:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise RefusedFileError(
                "not a PyTorch file: a zip archive without a data.pkl (TorchScript has others beside)"
            )
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in archive.namelist():
            raise RefusedFileError("a TorchScript archive (torch.jit.save): save the network's state_dict instead")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise RefusedFileError("written on a big-endian machine")
        stored = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        numbers: dict[str, bytes] = {}

        def content(key: str) -> bytes:
            if key not in numbers:
                numbers[key] = archive.read(f"{folder}data/{key}")  # zipfile checks its CRC-32
            return numbers[key]

        return _with_numbers(stored, content)


def _read_stream(file: io.BufferedIOBase) -> Any:
    if _Unpickler(file).load() != _MAGIC_NUMBER or _Unpickler(file).load() != _PROTOCOL_VERSION:
        raise RefusedFileError("not a PyTorch file")
    machine = _Unpickler(file).load()
    if not machine["little_endian"]:
        raise RefusedFileError("written on a big-endian machine")
    unpickler = _Unpickler(file)
    stored = unpickler.load()
    numbers = {}
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        size = storage.count * np.dtype(storage.dtype).itemsize
        if int.from_bytes(file.read(8), "little") != storage.count or len(content := file.read(size)) != size:
            raise RefusedFileError("cut short or damaged: it ends before its last tensor")
        numbers[key] = content
    return _with_numbers(stored, numbers.__getitem__)


def state_dict(stored: Any) -> dict[str, np.ndarray]:
    """Finds the weights in what `read_objects` returned.

    They are the whole of it, or lie beside other things (`state_dict` beside an optimizer), as a dict of tensors or as
    a network stored with all its modules.

    Returns:
      {name: array}, named as the network's `state_dict()` names them.

    Raises:
      RefusedFileError: where there are none, or several.
    """
    places = {"": stored}
    if isinstance(stored, dict) and not _is_state_dict(stored):
        places = stored
    found = {name: _module_tensors(value) if isinstance(value, Shell) else value for name, value in places.items()}
    found = {name: tensors for name, tensors in found.items() if _is_state_dict(tensors)}
    if len(found) != 1:
        inside = ", ".join(map(str, places)) if isinstance(stored, dict) else type(stored).__name__
        which = f"several sets of weights ({', '.join(map(str, found))})" if found else f"no weights, only {inside}"
        raise RefusedFileError(f"it holds {which}: save one network's state_dict() alone")
    return next(iter(found.values()))


def _is_state_dict(value: Any) -> bool:
    if not isinstance(value, dict) or not value:
        return False
    return all(isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in value.items())


def _module_tensors(module: Shell, prefix: str = "") -> dict[str, np.ndarray]:
    own = module.attributes.get("_parameters", {}) | module.attributes.get("_buffers", {})
    tensors = {prefix + name: tensor for name, tensor in own.items() if tensor is not None}
    for name, child in module.attributes.get("_modules", {}).items():
        if isinstance(child, Shell):
            tensors |= _module_tensors(child, f"{prefix}{name}.")
    return tensors


class _Unpickler(pickle.Unpickler):
    """Unpickles tensors without their numbers."""

    def __init__(self, file: io.BufferedIOBase):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        # A pickle may set attributes of what it is given here: everything is made anew, or cannot be changed.
        full = f"{module}.{name}"
        if full in _SETS:
            return set
        if full == "collections.OrderedDict":
            return collections.OrderedDict
        if full in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return functools.partial(_rebuild_tensor)
        if full in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return lambda tensor, *_: tensor
        if full in _WITHOUT_EFFECT:
            return type(name, (Shell,), {})
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return _DTYPES[name]
        return _shell_class(module, name)

    def persistent_load(self, reference: tuple) -> _Storage:
        if reference[0] == "module":  # the class of a network, with its source code
            return reference[1]
        kind, dtype, key, _, count, *view = reference
        if kind != "storage" or not isinstance(dtype, str) or any(part is not None for part in view):
            raise RefusedFileError(f"a tensor of a kind this reader does not know ({reference})")
        self.storages[key] = _Storage(key, dtype, count)
        return self.storages[key]


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _with_numbers(stored: Any, content: Any) -> Any:
    """Returns `stored` with every `Tensor` as an array of its own; what occurs twice is read twice."""
    if isinstance(stored, Tensor):
        return _array(stored, content(stored.storage.key))
    if isinstance(stored, Shell):
        stored.attributes = _with_numbers(stored.attributes, content)
        return stored
    if isinstance(stored, dict):
        return {key: _with_numbers(value, content) for key, value in stored.items()}
    if isinstance(stored, list | tuple):
        return [_with_numbers(value, content) for value in stored]
    return stored


def _array(tensor: Tensor, content: bytes) -> np.ndarray:
    numbers = np.frombuffer(content, tensor.storage.dtype)
    inside = len(tensor.shape) == len(tensor.strides) and min((tensor.offset, *tensor.shape, *tensor.strides)) >= 0
    if inside and 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    if inside:
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if not inside or last >= len(numbers):
        raise RefusedFileError(f"a tensor of shape {tensor.shape} reaches beyond its {len(numbers)} numbers")
    steps = [step * numbers.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, steps).copy()
