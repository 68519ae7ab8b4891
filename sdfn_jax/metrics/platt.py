"""Platt scaling of one finding's probabilities, fitted on validation (Platt 1999). No JAX."""

import dataclasses

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

CROSS_FIT_FOLDS = 5  # of the cross-fit
_SEED = 0  # of the folds
# A float64 probability closer to 0 or 1 than this has no logit.
_LEAST = 1e-15


@dataclasses.dataclass(frozen=True)
class Scaling:
    """calibrated = sigmoid(slope * logit(probability) + intercept).

    Attributes:
      slope: above 0, so that the order of images, and with it the AUC, is preserved.
      intercept: any number.
    """

    slope: float
    intercept: float

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrates probabilities, 0 to 1, of any shape."""
        return expit(self.slope * _logits(probabilities) + self.intercept)


def fit(labels: np.ndarray, probabilities: np.ndarray) -> Scaling | None:
    """Fits slope and intercept by maximum likelihood on Platt's regularised targets.

    The target of a positive is (P + 1) / (P + 2) and that of a negative 1 / (N + 2), of P positives and N negatives: a
    finding that validation separates perfectly gets no infinite slope.

    Args:
      labels: (n,) 0 and 1.
      probabilities: (n,) 0 to 1.

    Returns:
      None if the best slope is not above 0 (validation orders the images no better than chance), or without positives
      or negatives.
    """
    positive = np.asarray(labels) == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    targets = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    logits = _logits(probabilities)
    # Fitted on standardised logits, for which slope and intercept are nearly independent.
    centre, spread = logits.mean(), logits.std()
    if spread == 0:
        return None
    inputs = np.stack([(logits - centre) / spread, np.ones_like(logits)])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        scores = weights @ inputs
        # log(1 + exp(s)) - t s, the cross-entropy of sigmoid(s) and t.
        return float(np.mean(np.logaddexp(0, scores) - targets * scores)), inputs @ (expit(scores) - targets) / len(
            targets
        )

    def curvature(weights: np.ndarray) -> np.ndarray:
        share = expit(weights @ inputs)
        return (inputs * (share * (1 - share))) @ inputs.T / len(targets)

    start = np.array([1.0, logit(positives / len(targets))])
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-9})
    slope = float(found.x[0] / spread)
    return Scaling(slope, float(found.x[1] - slope * centre)) if slope > 0 else None


def cross_fit(labels: np.ndarray, probabilities: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Calibrates each image by a scaling that was fitted without its patient, to measure the effect of calibration.

    Args:
      labels: (n,) 0 and 1.
      probabilities: (n,) 0 to 1.
      patients: (n,) the patient of each image; whole patients go into one of five folds.

    Returns:
      (n,) calibrated; a fold without which no scaling can be fitted is left unchanged.
    """
    people, places = np.unique(patients, return_inverse=True)
    folds = (np.random.default_rng(_SEED).permutation(len(people)) % CROSS_FIT_FOLDS)[places]
    calibrated = np.array(probabilities, np.float64)
    for fold in range(CROSS_FIT_FOLDS):
        inside = folds == fold
        scaling = fit(labels[~inside], probabilities[~inside])
        if scaling is not None:
            calibrated[inside] = scaling(probabilities[inside])
    return calibrated


def _logits(probabilities: np.ndarray) -> np.ndarray:
    return logit(np.clip(np.asarray(probabilities, np.float64), _LEAST, 1 - _LEAST))
