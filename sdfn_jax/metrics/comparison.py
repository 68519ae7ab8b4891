"""Two models on the same images: differences of AUC with interval and p, DeLong's test, the paper's t-test."""

import dataclasses

import numpy as np
from scipy import stats

from sdfn_jax.metrics import bootstrap
from sdfn_jax.metrics import delong as metrics_delong
from sdfn_jax.metrics import scores as metrics_scores


@dataclasses.dataclass(frozen=True)
class AucDifference:
    """A difference of AUC, first model less second.

    Attributes:
      value: on the sample.
      interval: 95 %, over patients.
      p: two-sided, over patients.
      holm: p adjusted for the number of classes; NaN for the mean, which is one test.
      delong: DeLong's test; None for the mean.
    """

    value: float
    interval: tuple[float, float]
    p: float
    holm: float
    delong: metrics_delong.Test | None


@dataclasses.dataclass(frozen=True)
class ModelComparison:
    """Two models compared.

    Attributes:
      classes: one `AucDifference` a class.
      mean: that of the mean AUC.
      paper_t: t of the paper's paired t-test.
      paper_p: its two-tailed p.
    """

    classes: tuple[AucDifference, ...]
    mean: AucDifference
    paper_t: float
    paper_p: float


def compare(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    replicates: tuple[np.ndarray, np.ndarray],
) -> ModelComparison:
    """Compares two models.

    Args:
      labels: (N, C) codes of `radiographs.labels`; only known ones count.
      first: (N, C) scores of one model.
      second: (N, C) scores of the other.
      replicates: `bootstrap.auc_replicates` of the two, (C, B) each, on the same resamples.
    """
    aucs = [metrics_scores.class_aucs(labels, scores) for scores in (first, second)]
    differences = replicates[0] - replicates[1]
    p_values = np.array([bootstrap.p_value(row) for row in differences])
    classes = tuple(
        AucDifference(
            float(value), bootstrap.interval(row), float(p), float(adjusted), metrics_delong.compare(*columns)
        )
        for value, row, p, adjusted, *columns in zip(
            aucs[0] - aucs[1],
            differences,
            p_values,
            bootstrap.holm(p_values),
            labels.T,
            first.T,
            second.T,
            strict=True,
        )
    )
    mean = bootstrap.mean_replicates(replicates[0]) - bootstrap.mean_replicates(replicates[1])
    value = metrics_scores.mean_auc(aucs[0])[0] - metrics_scores.mean_auc(aucs[1])[0]
    return ModelComparison(
        classes,
        AucDifference(value, bootstrap.interval(mean), bootstrap.p_value(mean), float("nan"), None),
        *paper_t_test(*aucs),
    )


def paper_t_test(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Returns t and two-tailed p of the paired t-test over the class AUCs of two models (section C).

    The paper does not say what it paired; over AUCs, this is the only paired t-test. It treats the classes as
    the sample: it asks whether another finding would show the same, not whether another patient would.

    Args:
      first: (C,) AUCs, NaN where undefined.
      second: (C,).
    """
    both = ~(np.isnan(first) | np.isnan(second))
    # Without two differences, or with equal ones, there is no spread to test against.
    if both.sum() < 2 or np.ptp((first - second)[both]) == 0:
        return float("nan"), float("nan")
    result = stats.ttest_rel(first[both], second[both])
    return float(result.statistic), float(result.pvalue)
