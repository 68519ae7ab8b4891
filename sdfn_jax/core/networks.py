"""The trained network in a folder: that of a run, or the members of an ensemble (`ensemble`), which counts as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sdfn_jax.core import checkpoint, ensemble, run_identity
from sdfn_jax.core.errors import UserError

MEMBERS = "members"  # an ensemble's own entry in its metadata: [{seed, checkpoint}]
_OF_DATA = ("data", "films")  # the inputs that all members share; each has extractors of its own
_AGAIN = "the main job trains what is missing and makes the ensemble again (--config.seeds=N)"


def metadata(folder: str | Path) -> dict[str, Any] | None:
    """Returns the metadata of the network in a folder; None if nothing has been trained there.

    Those of an ensemble are its first member's, with the ensemble's `digest`, and `members`: each one's `seed` and
    `checkpoint`.

    Raises:
      UserError: for a damaged checkpoint, or an ensemble of which a member is missing or does not fit the others.
    """
    found = ensemble.read(folder)
    return checkpoint.best_metadata(folder) if found is None else _of_ensemble(folder, found)


def read(folder: str | Path) -> tuple[list[dict], dict[str, Any]]:
    """Reads the network in a folder.

    Returns:
      (the variables of each member, or of the one network, as `checkpoint.read_best`; metadata, as `metadata`).

    Raises:
      UserError: as `metadata`, and if nothing has been trained there.
    """
    found = ensemble.read(folder)
    if found is None:
        variables, of_run = checkpoint.read_best(folder)
        return [variables], of_run
    of_all = _of_ensemble(folder, found)
    return [checkpoint.read_best(member.run)[0] for member in found.members], of_all


def make_ensemble(folder: str | Path, runs: Sequence[str | Path]) -> None:
    """Writes the record of an ensemble of trained runs.

    Raises:
      UserError: if a run has not been trained, or does not fit the others.
    """
    missing: dict[str, Any] = {"digest": "", "stage": "", "config": {"seed": 0}}
    found = [checkpoint.best_metadata(run) or missing for run in runs]
    members = tuple(
        ensemble.Member(Path(run), each["digest"], each["config"]["seed"])
        for run, each in zip(runs, found, strict=True)
    )
    _of_ensemble(folder, ensemble.Ensemble(found[0]["stage"], members))
    ensemble.write(folder, found[0]["stage"], members)


def _of_ensemble(folder: str | Path, found: ensemble.Ensemble) -> dict[str, Any]:
    """Returns an ensemble's metadata, if its members are there and fit each other."""
    of_members: list[dict[str, Any]] = []
    for member in found.members:
        own = checkpoint.best_metadata(member.run)
        if own is None:
            raise UserError(f"{folder}: its member {member.run} holds no trained checkpoint: {_AGAIN}")
        if own["digest"] != member.checkpoint:
            raise UserError(f"{folder}: its member {member.run} has been trained again since: {_AGAIN}")
        if of_members and (differs := _difference(of_members[0], own)):
            raise UserError(
                f"{folder}: its members {found.members[0].run} and {member.run} do not make an ensemble, which is of "
                f"one recipe with several seeds: {differs}"
            )
        of_members.append(own)
    seeds_and_checkpoints = [{"seed": member.seed, "checkpoint": member.checkpoint} for member in found.members]
    return {**of_members[0], "digest": found.digest, MEMBERS: seeds_and_checkpoints}


def _difference(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Returns what of two members' recipes differs besides the seed, as a phrase; empty if nothing does."""
    seeds = [each["config"]["seed"] for each in (one, other)]
    if seeds[0] == seeds[1]:
        return f"both have the seed {seeds[0]}"
    for name in ("stage", "findings"):  # earlier versions did not store the findings, which were always the same
        mine, its = one.get(name), other.get(name)
        if mine != its and None not in (mine, its):
            return f"{name}: {json.dumps(mine)} and {json.dumps(its)}"
    recipes = [run_identity.recipe(each["config"]) | {"seed": None} for each in (one, other)]
    if changed := run_identity.differences(recipes[0], recipes[1]):
        return "; ".join(changed[:5])
    data = [{name: each["inputs"].get(name) for name in _OF_DATA} for each in (one, other)]
    return "the data that they were trained on" if data[0] != data[1] else ""
