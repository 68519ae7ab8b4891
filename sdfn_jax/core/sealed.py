"""JSON that later steps rely on: written with a digest of its content, which is checked when it is read.

The last key of a sealed record, `sha256`, is the digest of everything else in it. Any changed value is noticed; layout
does not matter. Older records without a seal are read if every value has its type and range, and a note says so once.
"""

import dataclasses
import functools
import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sdfn_jax.core import terminal
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import appears_when_complete

SEAL = "sha256"


class DamagedError(UserError):
    """A file whose content has changed since it was written."""


class OlderError(DamagedError):
    """A file without a seal, if one is required."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of value.

    Attributes:
      name: for messages.
      fits: whether a value is of this kind.
    """

    name: str
    fits: Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class Maybe:
    """A shape or null."""

    shape: "Shape"


@dataclasses.dataclass(frozen=True)
class Later:
    """A shape, for a key that records of older versions lack."""

    shape: "Shape"


@dataclasses.dataclass(frozen=True)
class Each:
    """An object of any keys, whose values have one shape."""

    shape: "Shape"


# A value of a kind, or an object with at least these keys.
Shape = Kind | Maybe | Later | Each | Mapping[str, "Shape"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


TEXT = Kind("text", lambda value: isinstance(value, str))
BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
WHOLE = Kind("a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool))
COUNT = Kind("a whole number, 0 or more", lambda value: WHOLE.fits(value) and value >= 0)
NUMBER = Kind("a number", _is_number)
POSITIVE = Kind("a number above 0", lambda value: _is_number(value) and value > 0)
SHARE = Kind("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def several(kind: Kind, count: int | None = None) -> Kind:
    """Returns the kind of a list whose values are of one kind: `count` of them, or any number."""
    return Kind(
        f"a list of {'' if count is None else f'{count} '}items, each {kind.name}",
        lambda value: isinstance(value, list) and count in (None, len(value)) and all(map(kind.fits, value)),
    )


def parse(text: str | bytes) -> Any:
    """Parses JSON as strictly as this module writes it.

    Raises:
      ValueError: for text that is not UTF-8 or JSON, a repeated key, NaN or infinity, or nesting that is too deep.
    """
    try:
        return json.loads(
            text.decode() if isinstance(text, bytes) else text,  # as UTF-8 only
            object_pairs_hook=_without_doubles,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None


def seal(record: Mapping) -> dict:
    """Returns a record with its digest as the last key."""
    return {**record, SEAL: _digest(record)}


def line(record: Mapping) -> str:
    """Returns a sealed record as one line of text, its newline included."""
    return json.dumps(seal(record), allow_nan=False) + "\n"


def read_line(text: str | bytes) -> dict:
    """Reads what `line` returned.

    Raises:
      ValueError: for a line that has changed, or has no seal.
    """
    record = parse(text)
    if not isinstance(record, dict) or SEAL not in record:
        raise ValueError("not a sealed record")
    return _unsealed(record)


def write(path: str | Path, record: Mapping) -> None:
    """Writes a sealed record, complete or not at all."""
    with appears_when_complete(path) as unfinished:
        unfinished.write_text(json.dumps(seal(record), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read(path: str | Path, shape: Mapping[str, Shape], what: str, mend: str, *, older: bool = True) -> dict:
    """Reads what `write` wrote, or an older record of the same shape without a seal.

    Args:
      path: of the file.
      shape: the keys that the record must have; others are kept.
      what: description of the file, for the message: `the record of an evaluation`.
      mend: advice for the message: `evaluate again`.
      older: whether a record without a seal is read.

    Returns:
      the record, without its seal.

    Raises:
      DamagedError: naming file and key, for changed content, a missing key, or a value of the wrong kind; `OlderError`
        for a missing seal if `older` is false.
      OSError: for a file that cannot be opened.
    """
    data = Path(path).read_bytes()
    try:
        record = parse(data)
        if not isinstance(record, dict):
            raise ValueError("not an object")
        is_sealed = SEAL in record
        if is_sealed:
            record = _unsealed(record)
        elif not older:
            raise OlderError(f"{path}: no digest: written by an older version, or not {what}; {mend}")
        check(record, shape)
    except OlderError:
        raise
    except ValueError as error:
        raise DamagedError(f"{path}: not {what} ({error}); {mend}") from error
    if not is_sealed:
        say(
            f"{Path(path).name} was written by an older version without a digest; "
            "it is used, as its values are in range"
        )
    return record


def check(value: Any, shape: Shape, place: str = "") -> None:
    """Checks a value, and everything in it, against a shape.

    Raises:
      ValueError: naming the first key that is missing, or whose value is of the wrong kind.
    """
    if isinstance(shape, Later):
        check(value, shape.shape, place)
        return
    if isinstance(shape, Maybe):
        if value is not None:
            check(value, shape.shape, place)
        return
    if isinstance(shape, Kind):
        if not shape.fits(value):
            raise ValueError(f"{place} is {_shortened(value)}, not {shape.name}")
        return
    if not isinstance(value, dict):
        raise ValueError(f"{place} is {_shortened(value)}, not {OBJECT.name}")
    if isinstance(shape, Each):
        shape = dict.fromkeys(value, shape.shape)
    for key, each in shape.items():
        inside = f"{place}.{key}" if place else key
        if key not in value:
            if isinstance(each, Later):
                continue
            raise ValueError(f"{inside} is missing")
        check(value[key], each, inside)


@functools.cache
def say(sentence: str) -> None:
    """Prints a note on standard error, once per process."""
    print(f"{terminal.speaker}note: {terminal.printable(sentence)}", file=sys.stderr, flush=True)


def _unsealed(record: dict) -> dict:
    content = {key: value for key, value in record.items() if key != SEAL}
    if _digest(content) != record[SEAL]:
        raise ValueError("changed since it was written: its SHA-256 does not match")
    return content


def _digest(record: Mapping) -> str:
    text = json.dumps(record, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{double} appears twice")
    return found


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _bounded(text: str) -> int:
    value = int(text) if len(text) < 21 else 2**64
    if abs(value) >= 2**64:
        raise ValueError(f"{text[:20]}... does not fit in 64 bits")
    return value


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
