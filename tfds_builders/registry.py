"""The data sets: one line each, in addition to the builder's folder (`tfds_builders/<name>/`). Loads no builder."""

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDS = 5  # of the sets with lung masks; a film's is its official number modulo this
_CLASSIFIERS = ("entire", "lung", "fusion", "finetuned")
# {setting of a data set with findings: its default}.
SPLIT: dict[str, Any] = {
    "boxes": None,  # your own box table; without it the LRG's is made and used
    # Share of the patients of the official train_val in validation. The paper does not say how many.
    "validation_share": 0.1,
    "validation_seed": 0,
}
TABLE_SPLIT = SPLIT | {"test_share": 0.2}  # of all patients, where the tables name no test films


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What the job knows of a data set before it loads the builder.

    Attributes:
      stages: the stages that are trained on it.
      settings: {setting: default}, those of its config that it is prepared with besides those that all sets share.
      split_lists: what its films for training and validation, and those for test, are named in.
      open_alternative: a set for the same stages that needs no registration; None if this one needs none.
    """

    stages: tuple[str, ...]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    split_lists: tuple[str, str] = ("its training split", "its test split")
    open_alternative: str | None = None


DATA_SETS = {
    "jsrt": DataSet(("lrg",), open_alternative="montgomery"),
    "montgomery": DataSet(("lrg",)),
    "own_lungs": DataSet(("lrg",)),
    "chestxray14": DataSet(
        _CLASSIFIERS, SPLIT | {"label_version": "2017"}, split_lists=("train_val_list.txt", "test_list.txt")
    ),
    "chexpert": DataSet(_CLASSIFIERS, TABLE_SPLIT),
    "mimic_cxr": DataSet(_CLASSIFIERS, TABLE_SPLIT | {"labeler": "chexpert"}),
    "brax": DataSet(_CLASSIFIERS, TABLE_SPLIT),
    "padchest": DataSet(_CLASSIFIERS, TABLE_SPLIT),
    "vindr_cxr": DataSet(_CLASSIFIERS, TABLE_SPLIT),
    "rsna_pneumonia": DataSet(_CLASSIFIERS, TABLE_SPLIT),
    "siim_pneumothorax": DataSet(_CLASSIFIERS, TABLE_SPLIT),
    "own": DataSet(_CLASSIFIERS, TABLE_SPLIT | {"table": None}),
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
