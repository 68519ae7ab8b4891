"""Thresholds chosen on validation, never on test, and their effect on test.

Labels are those of one finding, codes of `radiographs.labels`; only known ones, 0 and 1, count.
"""

import dataclasses

import numpy as np

from sdfn_jax.metrics import bootstrap
from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.radiographs.labels import known

SENSITIVITY = 0.9
# Ten events for each fitted number (Peduzzi et al., J Clin Epidemiol 1996), and calibration fits two.
MINIMUM = 20
REPLICATES = 2000  # of the bootstrap for the interval of the validation AUC
_SEED = 0


@dataclasses.dataclass(frozen=True)
class Point:
    """The effect of a threshold on a set of images.

    Attributes:
      threshold: an image with at least this score counts as positive.
      positives: images with the finding.
      negatives: images without.
      called: images called positive.
      sensitivity: share of the positives called positive; NaN without positives. The intervals are 95 %, over patients.
      sensitivity_interval: of it.
      specificity: share of the negatives not called; NaN without negatives.
      specificity_interval: of it.
      predictive_value: share of the called that are positive, at this set's prevalence; NaN if none is called.
      predictive_value_interval: of it.
    """

    threshold: float
    positives: int
    negatives: int
    called: int
    sensitivity: float
    sensitivity_interval: tuple[float, float]
    specificity: float
    specificity_interval: tuple[float, float]
    predictive_value: float
    predictive_value_interval: tuple[float, float]


def resample(patients: np.ndarray) -> bootstrap.Resamples:
    """Draws the resamples that `undecided` takes, the same ones at each call: (N,) patient of each image."""
    return bootstrap.draw(patients, REPLICATES, _SEED)


def too_few(labels: np.ndarray) -> str:
    """Returns why validation is too small for a threshold or calibration; empty if it is not: (N,) labels."""
    positives, negatives = metrics_scores.counts(labels)
    if min(positives, negatives) >= MINIMUM:
        return ""
    return f"{positives} positives and {negatives} negatives in validation; it takes {MINIMUM} of each"


def undecided(labels: np.ndarray, scores: np.ndarray, resamples: bootstrap.Resamples) -> str:
    """Returns why no threshold may call an image positive or negative; empty if one may.

    There must be 20 positives and 20 negatives, and the network must order them better than chance: the 95 % interval
    of its AUC, over patients, is above 0.5.

    Args:
      labels: (N,) of the validation split.
      scores: (N,).
      resamples: of the patients of these N images, from `resample`.
    """
    if few := too_few(labels):
        return few
    low, high = bootstrap.interval(bootstrap.ratio(*bootstrap.auc_pairs(labels, scores, resamples)))
    return no_better(metrics_scores.auc(*metrics_scores.known_only(labels, scores)), low, high)


def no_better(auc: float, low: float, high: float) -> str:
    """Returns that an AUC is no better than chance, given its 95 % interval; empty if it is better."""
    if low > 0.5:
        return ""
    return f"no better than chance on validation: AUC {auc:.2f}, 95 % interval {low:.2f} to {high:.2f}"


def youden(labels: np.ndarray, scores: np.ndarray) -> float:
    """Chooses the threshold of the largest sensitivity + specificity (Youden 1950); the highest such one.

    Args:
      labels: (N,) of the validation split.
      scores: (N,).

    Returns:
      One of the scores; NaN without positives or without negatives.
    """
    thresholds, sensitivity, fall_out = _curve(labels, scores)
    gain = sensitivity - fall_out
    return float("nan") if np.isnan(gain).any() else float(thresholds[np.argmax(gain)])


def at_sensitivity(labels: np.ndarray, scores: np.ndarray, least: float = SENSITIVITY) -> float:
    """Chooses the highest threshold that finds at least this share of the positives.

    Arguments and result as of `youden`.
    """
    thresholds, sensitivity, fall_out = _curve(labels, scores)
    if np.isnan(sensitivity - fall_out).any():
        return float("nan")
    return float(thresholds[np.argmax(sensitivity >= least)])


def apply(labels: np.ndarray, scores: np.ndarray, threshold: float, resamples: bootstrap.Resamples) -> Point:
    """Reports a threshold on other images than those it was chosen on.

    Args:
      labels: (N,) of the test split.
      scores: (N,).
      threshold: from `youden` or `at_sensitivity`; not NaN.
      resamples: of the patients of these N images.
    """
    resamples = bootstrap.subset(resamples, known(np.asarray(labels)))
    labels, scores = metrics_scores.known_only(np.asarray(labels), np.asarray(scores))
    positive, called = labels == 1, scores >= threshold

    def share(hits: np.ndarray, of: np.ndarray) -> tuple[float, tuple[float, float]]:
        value = hits.sum() / of.sum() if of.any() else float("nan")
        replicates = bootstrap.ratio(bootstrap.sums(hits, resamples), bootstrap.sums(of, resamples))
        return float(value), bootstrap.interval(replicates)

    return Point(
        threshold,
        int(positive.sum()),
        int((~positive).sum()),
        int(called.sum()),
        *share(positive & called, positive),
        *share(~positive & ~called, ~positive),
        *share(positive & called, called),
    )


def _curve(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns each distinct score, falling, with the shares of positives and of negatives at or above it."""
    labels, scores = metrics_scores.known_only(np.asarray(labels), scores)
    positive = labels == 1
    thresholds = np.unique(scores)[::-1]

    def share(group: np.ndarray) -> np.ndarray:
        above = group.size - np.searchsorted(np.sort(group), thresholds, side="left")
        return above / group.size if group.size else np.full(thresholds.shape, np.nan)

    return thresholds, share(scores[positive]), share(scores[~positive])


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A finding's operating point, chosen on validation.

    Attributes:
      probability: a radiograph with at least this probability, before calibration, counts as positive.
      sensitivity: on validation.
      specificity: on validation.
      positives: of the validation split.
      negatives: of the validation split.
    """

    probability: float
    sensitivity: float
    specificity: float
    positives: int
    negatives: int
