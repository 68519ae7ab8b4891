"""Evaluations of ensembles: the mean of the members' probabilities, and how far the members are apart. No JAX."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sdfn_jax.core import ensemble
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics.evaluation import Evaluation, evaluation_folder, read_evaluation


def mean(probabilities: np.ndarray) -> np.ndarray:
    """Returns an ensemble's probabilities: (M, ...) of its M members -> (...) float64."""
    return np.asarray(probabilities).mean(axis=0, dtype=np.float64)


def spread(probabilities: np.ndarray) -> np.ndarray:
    """Returns the members' sample standard deviation, a measure of the ensemble's uncertainty: (M, ...) -> (...).

    NaN for one member.
    """
    if len(probabilities) < 2:
        return np.full(np.shape(probabilities)[1:], np.nan)
    return np.std(probabilities, axis=0, dtype=np.float64, ddof=1)


def combine(whole: ensemble.Ensemble, members: Sequence[Evaluation]) -> Evaluation:
    """Returns the evaluation of an ensemble.

    Args:
      whole: the ensemble.
      members: its members' evaluations, of the same images in one order.

    Raises:
      UserError: if they are not of the same images, labels, data set and split.
    """
    first = members[0]
    for other in members[1:]:
        _check_same(first, other)
    probabilities = mean(np.stack([each.predictions.probabilities for each in members]))
    return Evaluation(
        dataclasses.replace(first.origin, checkpoint=whole.digest, seeds=whole.seeds),
        dataclasses.replace(first.predictions, probabilities=probabilities),
        tuple(members),
    )


def read(run: str | Path, split: str) -> Evaluation:
    """Reads the evaluation of a run on a split; that of an ensemble with its members'.

    Raises:
      UserError: if a member's evaluation is not of the checkpoint that the ensemble was made of.
      DamagedError, OSError: as `read_evaluation`.
    """
    found, evaluation = ensemble.read(run), read_evaluation(evaluation_folder(run, split))
    if found is None:
        return evaluation
    members = []
    for member in found.members:
        own = read_evaluation(evaluation_folder(member.run, split))
        if own.origin.checkpoint != member.checkpoint:
            raise UserError(
                f"{evaluation_folder(member.run, split)} is of another checkpoint than that in the ensemble {run}; "
                "evaluate the ensemble again"
            )
        _check_same(evaluation, own)
        members.append(own)
    return dataclasses.replace(evaluation, members=tuple(members))


def _check_same(first: Evaluation, other: Evaluation) -> None:
    for name in ("stage", "data_version", "label_version", "split"):
        mine, its = getattr(first.origin, name), getattr(other.origin, name)
        if mine != its:
            raise UserError(f"evaluations of one ensemble differ in {name}: {mine} and {its}; evaluate it again")
    if first.predictions.findings != other.predictions.findings:
        raise UserError("evaluations of one ensemble are of different findings; evaluate it again")
    if first.predictions.images != other.predictions.images or not np.array_equal(
        first.predictions.labels, other.predictions.labels
    ):
        raise UserError(
            f"evaluations of one ensemble on {first.origin.split} are of different images or labels; evaluate it again"
        )
