"""The data sets: one line each, in addition to the builder's folder (`tfds_builders/<name>/`). Loads no builder."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any

FOLDS = 5  # of the sets with lung masks; a film's is its official number modulo this
_CLASSIFIERS = ("entire", "lung", "fusion")


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What the job knows of a data set before it loads the builder.

    Attributes:
      stages: the stages that are trained on it.
      settings: those of its config that it is prepared with, in addition to the settings that all sets share.
      open_alternative: a set for the same stages that needs no registration; None if this one needs none.
    """

    stages: tuple[str, ...]
    settings: tuple[str, ...] = ()
    open_alternative: str | None = None


DATA_SETS = {
    "jsrt": DataSet(("lrg",), open_alternative="montgomery"),
    "montgomery": DataSet(("lrg",)),
    "own_lungs": DataSet(("lrg",)),
    "chestxray14": DataSet(_CLASSIFIERS, ("boxes", "label_version", "validation_share", "validation_seed")),
}


def serving(stage: str) -> tuple[str, ...]:
    """Returns the names of the data sets that a stage can be trained on."""
    return tuple(name for name, data_set in DATA_SETS.items() if stage in data_set.stages)


def builder(name: str) -> Any:
    """Returns the builder of a data set, a subclass of `base.RadiographBuilder`."""
    return importlib.import_module(f"tfds_builders.{name}.{name}_dataset_builder").Builder


def builder_of(directory: Path) -> Any:
    """Returns the builder that prepared a folder, `<data set>/<configuration>/<version>`."""
    return builder(directory.parts[-3])
