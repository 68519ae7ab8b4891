"""Checks of the numbers and names in a config, before anything reads them."""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from sdfn_jax.core import run_identity
from sdfn_jax.core.arguments import LARGEST_COUNT, LARGEST_SEED, LARGEST_SIZE
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs.contrast import CONTRASTS
from sdfn_jax.models import backbones
from sdfn_jax.models.initial import INITIAL
from sdfn_jax.radiographs import labels
from sdfn_jax.radiographs.nih_tables import LABEL_TABLES
from sdfn_jax.training import losses, optimizer
from tfds_builders import registry

_POSITIVE = (lambda value: 0 < value < math.inf, "more than 0, and finite")
_NOT_NEGATIVE = (lambda value: 0 <= value < math.inf, "0 or more, and finite")
_SHARE = (lambda value: 0 < value < 1, "between 0 and 1")
_SHARE_OR_ALL = (lambda value: 0 <= value <= 1, "0 to 1")
_DECAY = (lambda value: 0 <= value < 1, "0 or more and under 1")
_COUNT = (lambda value: 0 < value <= LARGEST_COUNT, f"1 to {LARGEST_COUNT}")
_SEED = (lambda value: 0 <= value <= LARGEST_SEED, f"0 to {LARGEST_SEED}")
# The optimizer computes in float32: a smaller one would be 0, and nothing would be learned.
_FLOAT32 = (lambda value: 2**-126 <= value < 2**128, "more than 0, as a float32 (1.2e-38 to 3.4e38)")


def _one_of(*names: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: value in names, "one of " + ", ".join(names)


def _is_rule(uncertain: str) -> bool:
    try:
        labels.rules(uncertain)
    except UserError:
        return False
    return True


_COUNTS = (lambda values: len(values) > 0 and all(map(_COUNT[0], values)), "one or more whole numbers of at least 1")
_MOST_SEEDS = 100
_SIDES = ("top", "left", "right", "bottom")
_CHANCES = ("quarter_turns", "mirrored", "inverted", "whitened", "gas", "collimated", "foreign")

# {setting: (what holds for it, in words)}; settings that a stage does not have are skipped.
_RULES = {
    "seed": _SEED,
    "seeds": (lambda value: 0 < value <= _MOST_SEEDS, f"1 to {_MOST_SEEDS}"),
    "batch_size": _COUNT,
    "evaluation_batch_size": _COUNT,
    "num_epochs": _COUNT,
    "learning_rate": _FLOAT32,
    "model.drop_path": _DECAY,
    "model.initial": _one_of(*INITIAL),
    "learning_rate_rule": _one_of(*optimizer.LEARNING_RATE_RULES),
    "learning_rate_decay": _NOT_NEGATIVE,
    "warmup_share": _DECAY,
    "optimizer": _one_of(*optimizer.OPTIMIZERS),
    "weight_decay": _NOT_NEGATIVE,
    "ema_decay": _DECAY,
    "loss": _one_of(*losses.LOSSES),
    "findings": (lambda names: len({*names}) == len(names), "each name once"),
    "uncertain": (_is_rule, labels.UNCERTAIN_RULES),
    "adam.b1": _DECAY,
    "adam.b2": _DECAY,
    "adam.epsilon": _FLOAT32,
    "checkpoint_minutes": _POSITIVE,
    "dtype": _one_of("float32", "bfloat16"),
    "plateau.factor": _SHARE,
    "plateau.patience": _COUNT,
    "plateau.minimum_fall": _POSITIVE,
    "contrast": _one_of(*CONTRASTS),
    "validation_share": _SHARE,
    "test_fold": (
        lambda value: value is None or value in range(registry.FOLDS),
        f"0 to {registry.FOLDS - 1}, or left out",
    ),
    "augmentation.crop": (lambda value: 0 < value <= 1, "more than 0, at most 1"),
    "augmentation.rotation": _NOT_NEGATIVE,
    "augmentation.brightness": _SHARE_OR_ALL,
    "augmentation.contrast": _SHARE_OR_ALL,
    "augmentation.shift": _NOT_NEGATIVE,
    "augmentation.zoom": (lambda value: 0 <= value < 1, "0 or more and under 1"),
    **{f"wide_augmentation.{name}": _SHARE_OR_ALL for name in _CHANCES},
    **{f"wide_augmentation.{name}": _NOT_NEGATIVE for name in ("shading", "gamma", "blur", "noise")},
    "least_confidence": _SHARE_OR_ALL,
    "postprocessing.minimum_area": _SHARE_OR_ALL,
    "postprocessing.small_lung": _SHARE_OR_ALL,
    "postprocessing.smallest_side": _SHARE_OR_ALL,
    **{f"postprocessing.margin_{side}": (lambda value: 0 <= value <= 256, "0 to 256") for side in _SIDES},
    "synthetic.seed": _SEED,
    "synthetic.jsrt_films": _COUNT,
    "synthetic.chestxray14_films": _COUNT,
    "synthetic.test_share": _SHARE,
    "data.validation_seed": _SEED,
    "data.size": (lambda value: 0 < value <= LARGEST_SIZE, f"1 to {LARGEST_SIZE}"),
    "data.validation_share": _SHARE,
    "data.test_share": _SHARE,
    "data.label_version": _one_of(*LABEL_TABLES),
    "data.labeler": _one_of("chexpert", "negbio"),
}


def check(config: ConfigDict, flag: str = "--config") -> None:
    """Checks a stage's config and those of the stages inside it.

    Args:
      config: from `configs/`, perhaps with settings from the command line.
      flag: how the command line names this config.

    Raises:
      UserError: listing every setting that is out of range, by its flag, with what is expected.
    """
    faults = _faults(config, flag, config.get("seeds", 1))
    if faults:
        raise UserError("\n".join(["settings out of range:", *(f"  * {fault}" for fault in faults)]))


def _faults(config: ConfigDict, flag: str, seeds: int = 1) -> list[str]:
    faults = []
    rules = dict(_RULES)
    if seeds > 1:
        largest = LARGEST_SEED - seeds + 1
        rules["seed"] = (lambda value: 0 <= value <= largest, f"0 to {largest}, as {seeds} seeds follow each other")
    # A network's shape: numbers of feature maps and layers.
    rules |= {
        f"model.{name}": _COUNTS if isinstance(value, tuple) else _COUNT
        for name, value in config.model.items()
        if f"model.{name}" not in rules
    }
    if "data" in config:
        rules["data.name"] = _one_of(*registry.serving(config.stage))
    if config.stage == "lrg":
        multiple = 2 ** (len(config.model.filters) - 1)
        rules["data.size"] = (
            lambda size: 0 < size <= LARGEST_SIZE and size % multiple == 0,
            f"a multiple of {multiple}, at most {LARGEST_SIZE}",
        )
    else:
        try:
            smallest = backbones.from_config(config).smallest_side
        except UserError as error:
            return [f"{flag}.backbone={run_identity.backbone(config)}: {error}"]
        rules["data.size"] = (lambda size: smallest <= size <= LARGEST_SIZE, f"{smallest} to {LARGEST_SIZE}")
    if config.stage == "fusion" and not config.frozen:
        rules["cache_features"] = (
            lambda cached: not cached,
            f"False, as {flag}.frozen=False trains the extractors",
        )
    if config.stage == "fusion" and config.cache_features:
        # The features of an image that is changed at random are others at every step.
        for name, neutral in run_identity.NO_AUGMENTATION.items():
            rules[f"augmentation.{name}"] = (
                functools.partial(operator.eq, neutral),
                f"{neutral:g}, as {flag}.cache_features=True computes the features once",
            )
    for name, (holds, expected) in rules.items():
        *parents, last = name.split(".")
        place = config
        for parent in parents:
            place = place.get(parent, {})
        if last in place and not holds(place[last]):
            faults.append(f"{flag}.{name}={place[last]}: expected {expected}")
    if "data" in config and config.data.name in registry.serving(config.stage):
        name = config.data.name
        if lacks := [each for each in registry.DATA_SETS[name].settings if each not in config.data]:
            faults.append(
                f"{flag}.data.name={name}: this config lacks its settings {', '.join(lacks)}; name the data "
                f"set after the file instead: --config=configs/fusion.py:{name}, configs/classifier.py:entire,{name}"
            )
    for stage in ("lrg", "entire", "lung", "fusion"):
        if stage in config:
            faults += _faults(config[stage], f"{flag}.{stage}", 1 if stage == "lrg" else seeds)
    return faults
