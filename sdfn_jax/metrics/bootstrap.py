"""Confidence intervals and tests that resample patients, not images: the images of one patient are not independent.

NumPy only. Every statistic here is a ratio of sums over images, or (AUC) over pairs of images, so a replicate needs
nothing but how often each patient was drawn: thousands of replicates are one matrix product.
"""

import dataclasses
import functools

import numpy as np

from sdfn_jax.metrics import scores as metrics_scores
from sdfn_jax.radiographs.labels import known

# float32 holds whole numbers up to here; sums that stay below it are exact in any order.
_EXACT_IN_FLOAT32 = 2**24
_PATIENTS_AT_A_TIME = 512


@dataclasses.dataclass(frozen=True)
class Resamples:
    """Bootstrap resamples of patients; use the same ones for all that is compared.

    Attributes:
      patients: (N,) the index in `counts` of each image's patient, 0 to P - 1.
      counts: (P, B) float32 of whole numbers: how often each of the P patients was drawn in each of B replicates.
    """

    patients: np.ndarray
    counts: np.ndarray

    @functools.cached_property
    def images(self) -> np.ndarray:
        """The number of images in each replicate, (B,) float64."""
        return np.bincount(self.patients, minlength=len(self.counts)) @ self.counts


def draw(patients: np.ndarray, replicates: int, seed: int) -> Resamples:
    """Draws as many patients as there are, with replacement, B times.

    Args:
      patients: (N,) the patient of each image, of any kind that can be sorted.
      replicates: B.
      seed: of the draws.
    """
    names, places = np.unique(patients, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = np.empty((len(names), replicates), np.float32)
    for replicate in range(replicates):
        counts[:, replicate] = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))
    return Resamples(places, counts)


def with_itself(resamples: Resamples) -> Resamples:
    """Puts the sample itself, in which everyone is drawn once, before the resamples."""
    once = np.ones((len(resamples.counts), 1), resamples.counts.dtype)
    return Resamples(resamples.patients, np.hstack([once, resamples.counts]))


def subset(resamples: Resamples, chosen: np.ndarray) -> Resamples:
    """Returns the same draws of patients, with only the chosen images: (N,) bool."""
    return resamples if chosen.all() else Resamples(resamples.patients[chosen], resamples.counts)


def auc_pairs(labels: np.ndarray, scores: np.ndarray, resamples: Resamples) -> tuple[np.ndarray, np.ndarray]:
    """Counts the pairs behind the AUC in every replicate, exactly.

    The number of ordered (positive, negative) pairs is a bilinear form in the patients' counts: sum over patients p
    and q of count[p] count[q] K[p, q], where K[p, q] counts the ordered pairs of a positive of p and a negative of q.

    Args:
      labels: (N,) codes of `radiographs.labels`; only known ones count.
      scores: (N,) without NaN.
      resamples: of the patients of these N images.

    Returns:
      Ordered pairs, a tie counting one half, and all pairs; (B,) float64 each. Their ratio is the AUC. Both may be
      added over strata before they are divided (an AUC within strata).
    """
    resamples = subset(resamples, known(np.asarray(labels)))
    labels, scores = metrics_scores.known_only(np.asarray(labels), np.asarray(scores))
    positive = labels == 1
    counts, size = resamples.counts, len(resamples.counts)
    positives = np.bincount(resamples.patients[positive], minlength=size)
    with_positives = np.flatnonzero(positives)
    drawn_positives = positives[with_positives] @ counts[with_positives]
    drawn_negatives = resamples.images - drawn_positives
    kernel = _doubled_pairs(positive, scores, resamples.patients, with_positives, size)
    largest = 2 * positives.max(initial=0) * drawn_negatives.max(initial=0)
    kind: type[np.floating] = np.float32 if largest < _EXACT_IN_FLOAT32 else np.float64
    draws = counts.astype(kind, copy=False)
    doubled = np.zeros(counts.shape[1])
    for start in range(0, len(with_positives), _PATIENTS_AT_A_TIME):
        rows = slice(start, start + _PATIENTS_AT_A_TIME)
        of_patients = kernel[rows].astype(kind) @ draws
        doubled += np.einsum("pb,pb->b", of_patients, draws[with_positives[rows]], dtype=np.float64)
    return doubled / 2, drawn_positives * drawn_negatives


def auc_replicates(labels: np.ndarray, scores: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Returns the AUC of every class in every replicate.

    Args:
      labels: (N, C) codes of `radiographs.labels`; only known ones count.
      scores: (N, C).
      resamples: of the patients of these N images.

    Returns:
      (C, B) float64; NaN where a replicate has no positive or no negative of the class.
    """
    return np.stack(
        [ratio(*auc_pairs(*columns, resamples)) for columns in zip(np.asarray(labels).T, scores.T, strict=True)]
    )


def mean_replicates(aucs: np.ndarray) -> np.ndarray:
    """Returns the mean over the classes that are defined in a replicate: (C, B) -> (B,), as `scores.mean_auc`."""
    defined = ~np.isnan(aucs)
    return ratio(np.where(defined, aucs, 0).sum(axis=0), defined.sum(axis=0))


def sums(values: np.ndarray, resamples: Resamples) -> np.ndarray:
    """Returns the sum of an image's value over every replicate: (N,) -> (B,) float64.

    A mean, a share or a sensitivity is the `ratio` of two of them.
    """
    of_patients = np.bincount(resamples.patients, np.asarray(values, np.float64), len(resamples.counts))
    return of_patients @ resamples.counts


def ratio(numerators: np.ndarray, denominators: np.ndarray) -> np.ndarray:
    """Divides; NaN where the denominator is 0."""
    return np.divide(
        numerators, denominators, out=np.full(np.shape(numerators), np.nan), where=np.asarray(denominators) != 0
    )


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % percentile interval of (B,) replicates; those that are NaN are left out, (NaN, NaN) if all."""
    defined = replicates[~np.isnan(replicates)]
    if not defined.size:
        return float("nan"), float("nan")
    low, high = np.percentile(defined, (2.5, 97.5))
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """Returns the two-sided bootstrap p of no difference, from (B,) replicates of a difference.

    Twice the smaller share of replicates on one side of 0 (those at 0 are on both), counting the sample itself as one
    more on either side: never 0, at least 2 / (B + 1). NaN without a defined replicate.
    """
    defined = differences[~np.isnan(differences)]
    if not defined.size:
        return float("nan")
    below, above = np.sum(defined <= 0), np.sum(defined >= 0)
    return float(min(1.0, 2 * (1 + min(below, above)) / (1 + defined.size)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusts p-values for their number (Holm 1979, Scand. J. Statist. 6:65-70): (K,) -> (K,).

    A NaN stays NaN and does not count.
    """
    p_values = np.asarray(p_values, np.float64)
    adjusted = np.full(p_values.shape, np.nan)
    order = np.argsort(p_values)[: np.sum(~np.isnan(p_values))]
    steps = p_values[order] * np.arange(order.size, 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def _doubled_pairs(
    positive: np.ndarray, scores: np.ndarray, patients: np.ndarray, with_positives: np.ndarray, size: int
) -> np.ndarray:
    """Returns twice the ordered pairs of each patient with positives and each patient: (len(with_positives), P)."""
    order = np.argsort(scores[~positive])
    below, owners = scores[~positive][order], patients[~positive][order]
    kernel = np.zeros((len(with_positives), size), np.int32)
    row = np.full(size, -1)
    row[with_positives] = np.arange(len(with_positives))
    rising = np.flatnonzero(positive)[np.argsort(scores[positive])]
    for side in ("left", "right"):  # negatives below the positive, then those not above it: a tie counts in one of them
        ends = np.searchsorted(below, scores[rising], side)
        passed = np.zeros(size, np.int32)
        start = 0
        for end, place in zip(ends.tolist(), row[patients[rising]].tolist(), strict=True):
            if end > start:
                passed += np.bincount(owners[start:end], minlength=size).astype(np.int32)
                start = end
            kernel[place] += passed
    return kernel
