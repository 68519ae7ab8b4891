"""Reads a pickle as data: its content, and what it would have called. Imports nothing and calls nothing.

A pickle is a program for a small machine that can call any function of any library. Python's own machine is not used
here, not even restricted: `pickletools` parses the program, and this reader keeps plain values, lists and dicts, and
records the rest. Objects become shells, which hold their stored content and cannot do anything.
"""

import dataclasses
import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable, Mapping
from typing import IO, Any

from sdfn_jax.models.weights import bounds

# DenseNet-121 takes 25,000, with an optimizer 60,000, stored as a module 70,000: a second of reading.
MOST_STEPS = 400_000

# Calls in harmless files, for objects next to the weights. Each becomes a shell.
_HARMLESS = {
    "_codecs.encode",
    "argparse.Namespace",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.getattr",  # names an enum's member or a nested class
    "builtins.range",
    "builtins.slice",
    "copyreg._reconstructor",
    "datetime.date",
    "datetime.datetime",
    "datetime.time",
    "datetime.timedelta",
    "datetime.timezone",
    "decimal.Decimal",
    "fractions.Fraction",
    "functools.partial",
    "logging.getLogger",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer",
    "numpy.dtype",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random._pickle.__generator_ctor",
    "numpy.random._pickle.__randomstate_ctor",
    "operator.attrgetter",
    "operator.itemgetter",
    "re._compile",
    "torch.device",
    "torch.dtype",
    "torch.serialization._get_layout",
    *(f"torch._utils._rebuild_{kind}_tensor" for kind in ("sparse", "sparse_csr", "nested")),
    *(f"torch._utils._rebuild_{kind}" for kind in ("qtensor", "device_tensor_from_numpy", "wrapper_subclass")),
    "torch.nn.backends.thnn._get_thnn_function_backend",
    "types.MappingProxyType",
    "types.SimpleNamespace",
    "uuid.UUID",
    "zoneinfo.ZoneInfo._unpickle",
    *(f"pathlib.{name}Path" for name in ("", "Posix", "Pure", "PurePosix", "PureWindows", "Windows")),
    *(f"pathlib._local.{name}Path" for name in ("", "Posix", "Pure", "PurePosix", "PureWindows", "Windows")),
}
_DICTS = {"builtins.dict", "collections.Counter", "collections.OrderedDict", "collections.defaultdict"}
_LISTS = {f"builtins.{name}" for name in ("list", "tuple", "set", "frozenset")} | {"collections.deque", "torch.Size"}
_PLAIN = (str, bytes, int, float, bool, type(None))


class RefusedFileError(ValueError):
    """A file that is not a whole PyTorch file, or asks for more than tensors."""


@dataclasses.dataclass(frozen=True)
class Global:
    """The name of a function or class.

    Attributes:
      module: from which it would be imported.
      name: its name there, perhaps with dots.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Shell:
    """Represents an object whose class is not loaded.

    Attributes:
      kind: its class, or the function that would have made it.
      attributes: what was stored as its attributes.
      items: what was stored as its dict items.
    """

    def __init__(self, kind: str):
        self.kind = kind
        self.attributes: dict[Any, Any] = {}
        self.items: dict[Any, Any] = {}


Call = Callable[..., Any]


def read(file: IO[bytes], known: Mapping[str, Call], reference: Call) -> Any:
    """Reads one pickle, from a file's current position to the pickle's end.

    Args:
      file: in memory, so that lengths in the pickle allocate nothing.
      known: {full name: function that replaces it}.
      reference: function for objects outside the pickle (`persistent_load`).

    Returns:
      its content: plain values, lists and tuples (also for related types and sets), dicts, `Global`, `Shell`, and the
      results of the given functions.

    Raises:
      RefusedFileError: for a pickle that calls anything else, is incomplete, or is too large.
    """
    return _Reader(known, reference).read(file)


class _Reader:
    def __init__(self, known: Mapping[str, Call], reference: Call):
        self._known = known
        self._reference = reference
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        self._spent = 0

    def read(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            self._spend(1)
            if opcode.name == "STOP":
                break
            self._step(opcode.name, argument)
        (result,) = self._pop(1)
        return result

    def _step(self, name: str, argument: Any) -> None:
        if name in _VALUES:
            self._stack.append(argument)
            return
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT" | "MEMOIZE":
                self._memo[len(self._memo) if argument is None else argument] = self._stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                self._stack.append(self._memo[argument])
            case "MARK":
                self._marks.append(len(self._stack))
            case "TUPLE":
                self._stack.append(tuple(self._pop_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self._stack.append(tuple(self._pop(int(name[-1]))))
            case "EMPTY_TUPLE":
                self._stack.append(())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self._stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "BINPERSID":
                self._stack.append(self._reference(*self._pop(1)))
            case "PERSID":
                self._stack.append(self._reference(argument))
            case "GLOBAL":
                self._stack.append(_global(*argument.split(" ", 1)))
            case "STACK_GLOBAL":
                self._stack.append(_global(*self._pop(2)))
            case "REDUCE":
                self._stack.append(self._call(*self._pop(2)))
            case "SETITEM":
                self._set_items(self._pop(2))
            case "SETITEMS":
                self._set_items(self._pop_mark())
            case "EMPTY_DICT":
                self._stack.append({})
            case "DICT":
                items = self._pop_mark()
                self._stack.append({})
                self._set_items(items)
            case "EMPTY_LIST" | "EMPTY_SET":
                self._stack.append([])
            case "LIST" | "FROZENSET":
                self._stack.append(self._pop_mark())
            case "APPEND":
                self._append(self._pop(1))
            case "APPENDS" | "ADDITEMS":
                self._append(self._pop_mark())
            case "BUILD":
                self._build(*self._pop(2))
            case "NEWOBJ":
                self._stack.append(self._new(*self._pop(2)))
            case "NEWOBJ_EX":
                self._stack.append(self._new(*self._pop(3)))
            case "INST":  # makes an object of a class, or calls a function: the pickle does not say which
                self._stack.append(self._call(_global(*argument.split(" ", 1)), tuple(self._pop_mark())))
            case "OBJ":
                kind, *arguments = self._pop_mark()
                self._stack.append(self._call(kind, tuple(arguments)))
            case "POP":
                self._pop(1)
            case "POP_MARK":
                self._pop_mark()
            case "DUP":
                self._stack.append(self._stack[-1])
            case "PROTO" | "FRAME":
                pass
            case _:
                raise RefusedFileError(f"its pickle has an instruction that weights never need: {name}")

    def _spend(self, steps: int) -> None:
        self._spent += steps
        bounds.check(self._spent, MOST_STEPS, "reading its pickle", "steps")

    def _pop(self, count: int) -> list[Any]:
        start = len(self._stack) - count
        if start < (self._marks[-1] if self._marks else 0):
            raise RefusedFileError(_DAMAGED)
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _pop_mark(self) -> list[Any]:
        taken = self._stack[self._marks[-1] :]
        del self._stack[self._marks.pop() :]
        return taken

    def _call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Shell):
            raise RefusedFileError(f"it asks to run what {function.kind} returns: refused, nothing was run")
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise RefusedFileError(_DAMAGED)
        name = str(function)
        if name in self._known:
            return self._known[name](*arguments)
        if name == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes: (function, class, arguments, ...)
            return self._call(arguments[0], arguments[2])
        if name in _DICTS:
            return self._dict(arguments)
        if name in _LISTS:
            return next((each for each in arguments if isinstance(each, list | tuple)), [])
        if name in _HARMLESS or _is_class_of_their_own(function):
            return Shell(name)
        raise RefusedFileError(f"it asks to run {name}, which weights never need: refused, nothing was run")

    def _dict(self, arguments: tuple) -> dict:
        """Returns the dict made from {...} or [(key, value), ...]; a defaultdict has a class before them."""
        for argument in arguments:
            if isinstance(argument, dict):
                return argument
            if isinstance(argument, list | tuple):
                self._spend(len(argument))
                return {key: value for key, value in argument if isinstance(key, _PLAIN)}
        return {}

    def _new(self, kind: Any, *_: Any) -> Any:
        if not isinstance(kind, Global):
            raise RefusedFileError(_DAMAGED)
        return {} if str(kind) in _DICTS else Shell(str(kind))

    def _build(self, target: Any, state: Any) -> None:
        if isinstance(target, Shell):
            # For an object with slots it is (attributes, those in slots).
            for part in state if isinstance(state, tuple) else (state,):
                if isinstance(part, dict):
                    self._spend(len(part))
                    target.attributes |= part
        self._stack.append(target)

    def _set_items(self, flat: list[Any]) -> None:
        target = self._stack[-1]
        items = target.items if isinstance(target, Shell) else target
        if not isinstance(items, dict):
            raise RefusedFileError(_DAMAGED)
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            # Nothing is looked up by an object; and hashing a deep tuple would overflow the stack.
            if isinstance(key, _PLAIN):
                items[key] = value

    def _append(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)
        elif not isinstance(self._stack[-1], Shell):
            raise RefusedFileError(_DAMAGED)


def _global(module: Any, name: Any) -> Global:
    if not isinstance(module, str) or not isinstance(name, str):
        raise RefusedFileError(_DAMAGED)
    # Older protocols use Python 2's names of library modules.
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return Global(module, name)


def _is_class_of_their_own(function: Global) -> bool:
    """Returns whether a name is that of a class in the author's own program: it has a capital letter.

    Nothing is called in any case. A file that calls a function, or anything in Python's library that is not known to be
    harmless, is treated as an attack and refused, so that its owner notices.
    """
    library = function.module.partition(".")[0]
    theirs = library == "__main__" or library not in sys.stdlib_module_names
    return theirs and function.name.rpartition(".")[2].lstrip("_")[:1].isupper()


_DAMAGED = "its pickle is damaged"
_VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
