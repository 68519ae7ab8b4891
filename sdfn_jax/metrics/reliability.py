"""How well probabilities are calibrated: reliability curve, expected calibration error, Brier score. NumPy only."""

import dataclasses

import numpy as np

BINS = 15


@dataclasses.dataclass(frozen=True)
class Curve:
    """Images grouped by predicted probability into bins of equal width, without empty bins.

    Attributes:
      count: (K,) images in each bin.
      predicted: (K,) their mean probability.
      observed: (K,) their share of positives.
    """

    count: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of observed and predicted, weighted by the images; NaN for none."""
        if not self.count.size:
            return float("nan")
        return float(np.average(np.abs(self.observed - self.predicted), weights=self.count))


def curve(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> Curve:
    """Groups images into bins (k / bins, (k + 1) / bins], the first with 0 (Guo et al., ICML 2017).

    Args:
      labels: (N,) 0 and 1.
      probabilities: (N,) 0 to 1.
      bins: number of bins.
    """
    edges = np.arange(1, bins) / bins
    places = np.searchsorted(edges, probabilities, side="left")
    count = np.bincount(places, minlength=bins)
    held = count > 0
    means = [np.bincount(places, values, bins)[held] / count[held] for values in (probabilities, labels)]
    return Curve(count[held], *means)


def brier(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Computes the mean squared distance of probability and label (Brier 1950): (N,), (N,) -> 0 (best) to 1."""
    squares = (np.asarray(probabilities, np.float64) - labels) ** 2
    return float(np.mean(squares)) if squares.size else float("nan")
