"""Decoded films as lines of a journal, from which a data set is written: when several processes divide the decoding."""

import base64
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sdfn_jax.core import parallel, sources


class Pieces:
    """What the journal keeps of each film of a data set.

    A piece has `item`, a digest of what the tables say of the film; `sources`, its files as they were read; and
    `example`, or `problem`, why there is none.
    """

    def __init__(self, items: Sequence[Any], manual_dir: Path):
        """Takes the items of a data set (`base.Inputs`), whose files are below `manual_dir` on this machine."""
        self._items = {item.name: item for item in items}
        self._manual_dir = str(manual_dir)

    def add_item(self, name: str, piece: Mapping) -> dict:
        """Returns a piece from `make` as the journal keeps it."""
        return {"item": self._digest(name), **piece}

    def is_current(self, name: str, piece: Mapping) -> bool:
        """Returns whether a piece is what would be made now."""
        if piece["item"] != self._digest(name):
            return False
        if "problem" in piece:
            return True
        files = zip(piece["sources"], self._items[name].files, strict=True)
        return all(sources.Source(**source).is_still(path) for source, path in files)

    def _digest(self, name: str) -> str:
        described = repr(self._items[name]).replace(self._manual_dir, "")
        return hashlib.sha256(described.encode("utf-8", "surrogateescape")).hexdigest()


def make(builder: Any, items: Sequence[Any]) -> Iterator[tuple[str, dict]]:
    """Decodes films by a `base.RadiographBuilder`; yields (name, piece) for each."""
    for item, (example, error) in zip(items, parallel.map_in_order(builder.try_example, items), strict=True):
        looked_at = [builder.looked_at.get(path) for path in item.files]
        found = {"problem": str(error)} if example is None else {"example": _to_json(example)}
        yield item.name, {"sources": [each and dataclasses.asdict(each) for each in looked_at], **found}


def example_of(piece: Mapping) -> tuple[dict[str, Any] | None, Exception | None]:
    """Returns (the example of a piece, None), or (None, why there is none)."""
    if "problem" in piece:
        return None, ValueError(piece["problem"])
    return _from_json(piece["example"]), None


def sources_of(piece: Mapping, files: Sequence[Path]) -> dict[Path, sources.Source]:
    """Returns a film's files as they were when it was decoded."""
    return {
        path: sources.Source(**source)
        for path, source in zip(files, piece["sources"], strict=True)
        if source is not None
    }


def _to_json(value: Any) -> Any:
    """Arrays and bytes become objects of one key, and dictionaries too, so that nothing is taken for another."""
    if isinstance(value, float) and not math.isfinite(value):  # which JSON lacks
        return {"number": str(value)}
    if isinstance(value, np.ndarray):
        return {"array": [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]}
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return {"fields": {key: _to_json(each) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_to_json(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(each) for each in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        dtype, shape, data = content
        return np.frombuffer(base64.b64decode(data), dtype).reshape(shape)
    if kind == "number":
        return float(content)
    if kind == "bytes":
        return base64.b64decode(content)
    return {key: _from_json(each) for key, each in content.items()}
