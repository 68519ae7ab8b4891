"""Numbers with their uncertainty, which the sections pass to the page."""

import dataclasses

import numpy as np

from sdfn_jax.metrics import bootstrap
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.metrics.evaluation import SMALL_SAMPLE

_NOTHING = float("nan")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
      value: NaN if it is undefined.
      low: end of the interval; NaN if none was computed.
      high: the other end.
      few: whether it is from too small a sample.
      signed: whether it is a difference, and shown with its sign.
    """

    value: float
    low: float
    high: float
    few: bool = False
    signed: bool = False


@dataclasses.dataclass(frozen=True)
class P:
    """A p-value."""

    value: float


def number(estimate: Estimate, *, interval: bool = False) -> str:
    """Returns a number as a table shows it, with its sign if it is a difference: `0.812`, `+0.010 [-0.001, +0.021]`."""
    form = "+.3f" if estimate.signed else ".3f"
    if np.isnan(estimate.value):
        return "undefined"
    around = f" [{estimate.low:{form}}, {estimate.high:{form}}]" if interval and not np.isnan(estimate.low) else ""
    return f"{estimate.value:{form}}{around}"


def few(labels: np.ndarray) -> np.ndarray:
    """Returns (C,) bool for (N, C) labels: fewer than `SMALL_SAMPLE` positives or negatives."""
    return np.minimum(*metrics_scores.counts(labels)) < SMALL_SAMPLE


def mean_is_few(rare: np.ndarray) -> bool:
    """Returns whether more than half of the findings, (C,) bool, are rare, and their mean as uncertain as they are."""
    return bool(rare.mean() > 0.5)


def estimate(value: float, interval: tuple[float, float], rare: bool) -> Estimate:
    """Returns a number as an estimate; an undefined one has no interval and is not marked."""
    undefined = np.isnan(value)
    return Estimate(float(value), *((_NOTHING, _NOTHING) if undefined else interval), bool(rare and not undefined))


def without_interval(value: float, rare: bool) -> Estimate:
    """Returns a number without an interval."""
    return estimate(value, (_NOTHING, _NOTHING), rare)


def with_mean(values: np.ndarray, replicates: np.ndarray, rare: np.ndarray) -> list[Estimate]:
    """Returns an estimate of each finding, and if there are several, last their mean over the defined ones.

    Args:
      values: (C,) float64; NaN if undefined.
      replicates: (C, B), the same numbers on B resamples.
      rare: (C,) bool.
    """
    each = [
        estimate(value, bootstrap.interval(row), few) for value, row, few in zip(values, replicates, rare, strict=True)
    ]
    if len(each) == 1:
        return each
    mean = bootstrap.interval(bootstrap.mean_replicates(replicates))
    return [*each, estimate(metrics_scores.mean_auc(values)[0], mean, mean_is_few(rare))]


def aucs(labels: np.ndarray, scores: np.ndarray, replicates: np.ndarray | None = None) -> list[Estimate]:
    """Returns the AUC of each finding, and if there are several, last their mean.

    Args:
      labels: (N, C) uint8 codes of `radiographs.labels`.
      scores: (N, C) float.
      replicates: (C, B), the AUCs on B resamples; None for estimates without intervals.
    """
    if replicates is None:
        replicates = np.full((labels.shape[1], 1), np.nan)
    return with_mean(metrics_scores.class_aucs(labels, scores), replicates, few(labels))
