"""DeLong's variance of an AUC and test of two correlated AUCs. NumPy and SciPy only.

DeLong, DeLong & Clarke-Pearson 1988, Biometrics 44:837-845, by midranks as Sun & Xu 2014, IEEE Signal Process. Lett.
21:1389-1393. It assumes independent images: if patients have several, its intervals are too narrow and its p too small.
Print it next to the bootstrap over patients, not instead of it.
"""

import dataclasses

import numpy as np
from scipy import stats

from sdfn_jax.metrics import scores as metrics_scores

DELONG_REMARK = "DeLong's test treats images as independent; they come from fewer patients, so its p is too small."


@dataclasses.dataclass(frozen=True)
class Test:
    """DeLong's test of one class.

    Attributes:
      difference: AUC of the first scores less that of the second.
      z: difference over its standard error.
      p: two-sided.
    """

    difference: float
    z: float
    p: float


def covariance(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the AUCs of several scores of the same images, and the covariance of these AUCs.

    Args:
      labels: (N,) 0 and 1.
      scores: (K, N), each row the scores of one model.

    Returns:
      AUCs (K,) and their covariance (K, K); NaN with fewer than two positives or two negatives.
    """
    positive = np.asarray(labels) == 1
    count, others = int(positive.sum()), int((~positive).sum())
    if min(count, others) < 2:
        return np.full(len(scores), np.nan), np.full((len(scores), len(scores)), np.nan)
    ranks = stats.rankdata(scores, axis=1)
    # The share of negatives below each positive, and of positives above each negative.
    of_positives = (ranks[:, positive] - stats.rankdata(scores[:, positive], axis=1)) / others
    of_negatives = 1 - (ranks[:, ~positive] - stats.rankdata(scores[:, ~positive], axis=1)) / count
    spread = np.cov(of_positives, ddof=1) / count + np.cov(of_negatives, ddof=1) / others
    return of_positives.mean(axis=1), np.atleast_2d(spread)


def compare(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> Test:
    """Tests whether two models have the same AUC on the same images.

    Args:
      labels: (N,) codes of `radiographs.labels`; only known ones count.
      first: (N,) scores of one model.
      second: (N,) scores of the other.

    Returns:
      The test; z and p are NaN where undefined, and z = 0, p = 1 for two models that order all images alike.
    """
    labels, first, second = metrics_scores.known_only(np.asarray(labels), first, second)
    aucs, spread = covariance(labels, np.stack([first, second]))
    difference = float(aucs[0] - aucs[1])
    variance = float(spread[0, 0] + spread[1, 1] - 2 * spread[0, 1])
    if np.isnan(difference):
        return Test(difference, float("nan"), float("nan"))
    if variance <= 1e-15:  # rounding of a difference that is the same for every image
        return Test(difference, 0.0, 1.0) if abs(difference) < 1e-12 else Test(difference, float("nan"), float("nan"))
    z = difference / variance**0.5
    return Test(difference, z, float(2 * stats.norm.sf(abs(z))))
