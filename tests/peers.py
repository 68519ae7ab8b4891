"""Networks of other libraries, to compare with."""

import importlib
import os
import warnings
from types import ModuleType

import numpy as np
import pytest


def import_peer(name: str) -> ModuleType:
    """Imports a peer; where it is not installed, the test is skipped, but in CI it fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer warns of while it is imported is its own affair
        return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


def assert_close(ours, theirs, what: str, tolerance: float = 1e-5, scale: float | None = None) -> None:
    """Asserts equality within a tolerance relative to a scale: the array's largest value if None."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: {ours.shape} against {theirs.shape}"
    difference = np.abs(ours - theirs).max()
    if scale is None:
        scale = np.abs(theirs).max()
    assert difference <= tolerance * scale, f"{what}: off by {difference:.3g} at a scale of {scale:.3g}"
