import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from sdfn_jax.metrics import reliability


def drawn(count=1000, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.random(count) ** 2
    return (rng.random(count) < probabilities**1.5).astype(np.uint8), probabilities


@pytest.mark.parametrize(("bins", "decimals"), [(5, 9), (15, 9), (4, 2)])  # the last with probabilities on the edges
def test_curve_and_brier_are_scikit_learns(bins, decimals):
    labels, probabilities = drawn()
    probabilities = probabilities.round(decimals)
    curve = reliability.curve(labels, probabilities, bins)
    observed, predicted = calibration_curve(labels, probabilities, n_bins=bins)
    np.testing.assert_allclose(curve.observed, observed)
    np.testing.assert_allclose(curve.predicted, predicted)
    assert reliability.brier(labels, probabilities) == pytest.approx(brier_score_loss(labels, probabilities))


def test_error_is_the_weighted_distance_written_out():
    labels, probabilities = drawn()
    total = 0
    for low in np.arange(10) / 10:
        inside = (probabilities > low) & (probabilities <= low + 0.1)
        if inside.any():
            total += inside.sum() * abs(labels[inside].mean() - probabilities[inside].mean())
    assert reliability.curve(labels, probabilities, 10).error == pytest.approx(total / 1000)


def test_known_cases():
    right = reliability.curve(np.array([0, 0, 1, 1]), np.array([0.0, 0, 1, 1]))
    assert (right.count.tolist(), right.error) == ([2, 2], 0)
    wrong = reliability.curve(np.array([1, 1, 0, 0]), np.array([0.0, 0, 1, 1]))
    assert wrong.error == 1
    half = reliability.curve(np.array([0, 1]), np.array([0.5, 0.5]))
    assert (half.error, half.count.tolist()) == (0, [2])


def test_probabilities_that_are_right_have_a_small_error():
    rng = np.random.default_rng(0)
    probabilities = rng.random(50_000)
    labels = rng.random(50_000) < probabilities
    assert reliability.curve(labels, probabilities).error < 0.01
