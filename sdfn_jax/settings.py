"""Checks of the numbers and names in a config, before anything reads them."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from sdfn_jax.errors import UserError
from sdfn_jax.lrg import CONTRASTS
from tfds_builders.chestxray14.nih_tables import LABEL_TABLES

_POSITIVE = (lambda value: value > 0, "more than 0")
_NOT_NEGATIVE = (lambda value: value >= 0, "0 or more")
_SHARE = (lambda value: 0 < value < 1, "between 0 and 1")


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in names, "one of " + ", ".join(names)


# {setting: (what holds for it, in words)}; a setting that a stage does not have is passed over.
_RULES = {
    "seed": _NOT_NEGATIVE,
    "batch_size": _POSITIVE,
    "evaluation_batch_size": _POSITIVE,
    "num_epochs": _POSITIVE,
    "learning_rate": _POSITIVE,
    "learning_rate_decay": _NOT_NEGATIVE,
    "checkpoint_minutes": _POSITIVE,
    "dtype": _one_of("float32", "bfloat16"),
    "plateau.factor": _SHARE,
    "plateau.patience": _POSITIVE,
    "plateau.minimum_fall": _POSITIVE,
    "contrast": _one_of(*CONTRASTS),
    "validation_share": _SHARE,
    "test_fold": (lambda value: value is None or value in range(5), "0 to 4, or left out"),
    "augmentation.rotation": _NOT_NEGATIVE,
    "augmentation.shift": _NOT_NEGATIVE,
    "augmentation.zoom": (lambda value: 0 <= value < 1, "0 or more and under 1"),
    "data.size": _POSITIVE,
    "data.validation_share": _SHARE,
    "data.label_version": _one_of(*LABEL_TABLES),
}
_DATA_SETS = {"lrg": ("jsrt", "montgomery"), "entire": ("chestxray14",), "lung": ("chestxray14",)}
_DATA_SETS["fusion"] = _DATA_SETS["entire"]


def check(config: ConfigDict, flag: str = "--config") -> None:
    """Checks a stage's config and those of the stages inside it.

    Args:
      config: from `configs/`, perhaps with settings from the command line.
      flag: how the command line names this config.

    Raises:
      UserError: listing every setting that is out of range, by its flag, with what is expected.
    """
    faults = _faults(config, flag)
    if faults:
        raise UserError("\n".join(["settings out of range:", *(f"  * {fault}" for fault in faults)]))


def _faults(config: ConfigDict, flag: str) -> list[str]:
    faults = []
    rules = dict(_RULES)
    if "data" in config:
        rules["data.name"] = _one_of(*_DATA_SETS[config.stage])
    if config.stage == "lrg":
        multiple = 2 ** (len(config.model.filters) - 1)
        rules["data.size"] = (lambda size: size > 0 and size % multiple == 0, f"a multiple of {multiple}")
    if config.stage == "fusion" and not config.frozen:
        rules["cache_features"] = (
            lambda cached: not cached,
            f"False, as {flag}.frozen=False trains the extractors",
        )
    for name, (holds, expected) in rules.items():
        *parents, last = name.split(".")
        place = config
        for parent in parents:
            place = place.get(parent, {})
        if last in place and not holds(place[last]):
            faults.append(f"{flag}.{name}={place[last]}: expected {expected}")
    for stage in ("lrg", "entire", "lung"):
        if stage in config:
            faults += _faults(config[stage], f"{flag}.{stage}")
    return faults
