"""Checks whether a stored run is the one that a config describes."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from sdfn_jax.core.errors import UserError

# Settings that do not change the trained network: folders, other stages, how and when files are written.
_NOT_RECIPE = {
    "runs",
    "workdir",
    "seeds",
    "lrg",
    "entire",
    "lung",
    "fusion",
    "extractors",
    "synthetic",
    "postprocessing",
    "mirrored_too",
    "least_confidence",
    "evaluation_batch_size",
    "cache_features",
    "remat",
    "checkpoint_minutes",
    "tensorboard",
}
# The classifiers' changes of an image besides the flip, each with the range in which nothing changes.
NO_AUGMENTATION = {"crop": 1.0, "rotation": 0.0, "brightness": 0.0, "contrast": 0.0}
# Settings that were added later, and the values that earlier runs had.
_LATER = {
    "dtype": "float32",
    "backbone": "densenet",
    "optimizer": "adam",
    "weight_decay": 0.0,
    "learning_rate_rule": "inverse_time",
    "warmup_share": 0.0,
    "loss": "bce",
    "ema_decay": 0.0,
    "test_time_flip": False,
    "augmentation": NO_AUGMENTATION,
    "findings": [],
    "uncertain": "ignore",
}
# Inputs that earlier runs did not record.
_LATER_INPUTS = {"films"}
# {a field's name up to version 0.1.0: its name now}
_RENAMED = {"views": "branches", "phantom": "synthetic"}
_NOT_DATA = {"manual_dir", "data_dir", "boxes", "table", "require_complete", "skip_bad_files"}


def under_present_names(stored: Any) -> Any:
    """Returns a stored config, or whatever contains one, with the fields' former names replaced by today's."""
    if isinstance(stored, dict):
        return {_RENAMED.get(name, name): under_present_names(value) for name, value in stored.items()}
    return stored


def as_json(config: ConfigDict) -> dict:
    """Returns a stage's config as a checkpoint's metadata stores it, with lists for tuples."""
    return json.loads(json.dumps(config.to_dict()))


def setting(config: ConfigDict | dict, name: str) -> Any:
    """Returns a setting that was added later, from a stage's config or the stored one: what earlier runs had without.

    Args:
      config: of a stage.
      name: one of `_LATER`.
    """
    return config.get(name, _LATER[name])


def precision(config: ConfigDict | dict) -> str:
    """Returns the dtype of a stage's activations, from its config or the stored one."""
    return setting(config, "dtype")


def backbone(config: ConfigDict | dict) -> str:
    """Returns the name of a classifier's backbone, from its config or from what its checkpoint stores of it."""
    return setting(config, "backbone")


def recipe(config: dict) -> dict:
    """Returns the part of a stored config that determines the trained network."""
    kept = {name: value for name, value in {**_LATER, **config}.items() if name not in _NOT_RECIPE}
    kept["data"] = {name: value for name, value in kept["data"].items() if name not in _NOT_DATA}
    if kept.get("pretrained", "random") != "random":
        kept["pretrained"] = "file"  # compared by content, as one of the inputs
    return kept


def check_same_run(workdir: str | Path, stored: dict, config: ConfigDict, inputs: dict[str, str]) -> None:
    """Checks that the run in a folder is the one that a config describes.

    Args:
      workdir: the folder, for the message.
      stored: metadata of the checkpoint there.
      config: of the requested run.
      inputs: {input: digest}, for the inputs known now.

    Raises:
      UserError: naming up to five differing settings or inputs.
    """
    changed = differences(recipe(stored["config"]), recipe(as_json(config)), "{} is {} there, but {} was requested")
    changed += [
        f"its {name} has changed since (digest {stored['inputs'].get(name, 'none')[:12]} then, {digest[:12]} now)"
        for name, digest in inputs.items()
        if stored["inputs"].get(name) != digest and not (name in _LATER_INPUTS and name not in stored["inputs"])
    ]
    if changed:
        raise UserError(
            f"{workdir} holds a run with other settings or inputs: {'; '.join(changed[:5])}. "
            f"Train in other folders (--config.runs=FOLDER for all stages, --config.workdir=... for this one, "
            f"--config.<stage>.workdir=... for an earlier one), or use the settings and inputs that {workdir} was "
            "trained with."
        )


def differences(one: dict, other: dict, said: str = "{} is {} and {}") -> list[str]:
    """Returns the settings in which two recipes differ, in the order of their names.

    Args:
      one: of `recipe`.
      other: of `recipe`.
      said: how a difference is put, with places for the name and both values.
    """
    mine, its = _leaves(one), _leaves(other)
    return [
        said.format(name, json.dumps(mine.get(name)), json.dumps(its.get(name)))
        for name in sorted({*mine, *its})
        if mine.get(name) != its.get(name)
    ]


def _leaves(tree: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves |= _leaves(value, f"{path}.{key}" if path else key)
    return leaves
