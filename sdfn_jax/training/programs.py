"""Jitted steps whose compiled program does not depend on what the network's branches are called.

JAX lays out a tree's arrays, and what is computed for each of them, in the order of their names: the head of a network
comes after a branch called `entire` and before one called `lung`. The same extractor would be two programs, and each
takes minutes to compile on a GPU, longer on a TPU. In a program a branch is called by its place, so that the second
extractor finds the program of the first where compiled programs are kept (`core.jit_cache`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax


class Branches:
    """The names of a network's branches, and those that a program has for them."""

    def __init__(self, names: Sequence[str]):
        """Takes the branches' names, in the network's order."""
        self._places = {name: f"branch_{place}" for place, name in enumerate(names)}
        self._names = {place: name for name, place in self._places.items()}

    def by_place(self, tree: Any) -> Any:
        """Returns a tree with the places for the names."""
        return _renamed(tree, self._places)

    def by_name(self, tree: Any) -> Any:
        """Returns a tree with the names for the places."""
        return _renamed(tree, self._names)

    def jit(self, function: Callable, *, last: Sequence = (), **options: Any) -> "Program":
        """Jits a function of trees that have the places for keys.

        Args:
          function: of trees.
          last: its last arguments in every call; the program is not compiled for their values.
          **options: of `jax.jit`.
        """
        return Program(jax.jit(function, **options), self, last)


class Program:
    """A jitted function, called with trees that have the branches' names for keys and without its last arguments."""

    def __init__(self, jitted: Any, branches: Branches, last: Sequence):
        self._jitted, self._branches, self._last = jitted, branches, tuple(last)

    def __call__(self, *trees: Any) -> Any:
        """Runs it."""
        return self._branches.by_name(self._jitted(*map(self._branches.by_place, trees), *self._last))

    def lower(self, *trees: Any) -> jax.stages.Lowered:
        """Returns the program before it is compiled, for trees of arrays or of their shapes."""
        return self._jitted.lower(*map(self._branches.by_place, trees), *self._last)


def _renamed(tree: Any, names: Mapping[str, str]) -> Any:
    """Returns a tree with other keys in its dictionaries; below a renamed key everything stays."""
    if isinstance(tree, dict):
        return {names.get(key, key): value if key in names else _renamed(value, names) for key, value in tree.items()}
    if isinstance(tree, tuple):
        children = [_renamed(child, names) for child in tree]
        return type(tree)(*children) if hasattr(tree, "_fields") else tuple(children)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = (field.name for field in dataclasses.fields(tree))
        return dataclasses.replace(tree, **{name: _renamed(getattr(tree, name), names) for name in fields})
    return tree
