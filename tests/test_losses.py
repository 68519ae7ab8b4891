"""The losses of the classifiers, each against another library's code or its formula in float64."""

import jax
import numpy as np
import pytest
from densenet_peers import import_torchvision
from peers import import_peer
from sklearn.metrics import log_loss

from sdfn_jax.training.losses import LOSSES

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(scale=3.0, size=(6, 14)).astype(np.float32)
LABELS = (GENERATOR.uniform(size=(6, 14)) < 0.2).astype(np.float32)
P = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))


def of(name, logits=LOGITS, labels=LABELS):
    return np.asarray(jax.jit(LOSSES[name].function)(logits, labels))


def test_cross_entropy_is_scikit_learns():
    expected = [log_loss(labels, p) for labels, p in zip(LABELS, P, strict=True)]
    np.testing.assert_allclose(of("bce"), expected, rtol=1e-5)


def test_the_weighted_cross_entropy_weighs_ones_and_zeros_of_the_batch_alike():
    labels, p = LABELS.ravel(), P.ravel()
    weights = np.where(labels == 1, len(labels) / labels.sum(), len(labels) / (1 - labels).sum())
    expected = log_loss(labels, p, sample_weight=weights, normalize=False) / len(labels)
    assert of("weighted").mean() == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(-np.log(p[labels == 1]).mean() - np.log(1 - p[labels == 0]).mean())


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_weighted_cross_entropy_of_a_batch_of_one_kind_is_finite(label):
    labels = np.full_like(LABELS, label)
    np.testing.assert_allclose(of("weighted", labels=labels), of("bce", labels=labels), rtol=1e-6)


def test_the_focal_loss_is_torchvisions():
    torchvision, torch = import_torchvision(), import_peer("torch")
    theirs = torchvision.ops.sigmoid_focal_loss(torch.tensor(LOGITS), torch.tensor(LABELS), alpha=-1, gamma=2.0)
    np.testing.assert_allclose(of("focal"), theirs.numpy().mean(axis=1), rtol=1e-4)


def test_the_asymmetric_loss_is_its_formula():
    """Of the article; timm 1.0.31's AsymmetricLossMultiLabel gives the same on these numbers."""
    shifted = np.maximum(P - 0.05, 0)
    ones, zeros = (1 - P) * np.log(P), shifted**4 * np.log(1 - shifted)
    expected = -(LABELS * ones + (1 - LABELS) * zeros).mean(axis=1)
    np.testing.assert_allclose(of("asymmetric"), expected, rtol=1e-4)


@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_have_a_finite_loss_and_gradient_and_the_truth_the_smallest(name):
    logits = np.full((2, 14), 80.0, np.float32) * np.where(LABELS[:2] == 1, 1, -1).astype(np.float32)
    loss, gradient = jax.value_and_grad(lambda x: LOSSES[name].function(x, LABELS[:2]).mean())(logits)
    wrong, steep = jax.value_and_grad(lambda x: LOSSES[name].function(x, LABELS[:2]).mean())(-logits)
    assert np.isfinite([loss, wrong]).all() and np.isfinite(gradient).all() and np.isfinite(steep).all()
    assert 0 <= loss < 1e-6 < wrong


def best_constant(name, share):
    """The probability that lowers the mean loss most where a share of the films has the finding."""
    labels = np.zeros((1000, 1), np.float32)
    labels[: round(1000 * share)] = 1
    logits = np.linspace(-6, 6, 481, dtype=np.float32)
    means = jax.vmap(lambda x: LOSSES[name].function(np.ones((1000, 1), np.float32) * x, labels).mean())(logits)
    return 1 / (1 + np.exp(-float(logits[int(np.argmin(means))])))


@pytest.mark.parametrize(("name", "found"), [("bce", 0.1), ("weighted", 0.5), ("focal", 0.3), ("asymmetric", 0.47)])
def test_a_loss_without_a_warning_gives_probabilities_and_one_with_it_does_not(name, found):
    assert best_constant(name, 0.1) == pytest.approx(found, abs=0.02)
    assert bool(LOSSES[name].warning) == (abs(best_constant(name, 0.1) - 0.1) > 0.02)
