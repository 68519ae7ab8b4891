"""Resampling patients, against the same replicates written out image by image and scored by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sdfn_jax.metrics import bootstrap
from sdfn_jax.metrics import scores as metrics_scores


def sample(count=400, patients=60, classes=3, distinct=30, seed=0):
    rng = np.random.default_rng(seed)
    owners = rng.integers(0, patients, count) * 7 + 1000
    labels = (rng.random((count, classes)) < (0.3, 0.1, 0.5)[:classes]).astype(np.uint8)
    scores = rng.integers(0, distinct, (count, classes)) / distinct + 0.2 * labels
    return owners, labels, scores


def written_out(owners, resamples, replicate):
    """The images of a replicate, each as often as its patient was drawn."""
    names = np.unique(owners)
    drawn = dict(zip(names, resamples.counts[:, replicate].astype(int), strict=True))
    return np.concatenate([np.repeat(index, drawn[owner]) for index, owner in enumerate(owners)])


@pytest.mark.parametrize("distinct", [4, 10**6])
def test_replicates_are_scikit_learns_on_the_written_out_images(distinct):
    owners, labels, scores = sample(distinct=distinct)
    resamples = bootstrap.draw(owners, 25, seed=1)
    found = bootstrap.auc_replicates(labels, scores, resamples)
    for replicate in range(25):
        rows = written_out(owners, resamples, replicate)
        expected = roc_auc_score(labels[rows], scores[rows], average=None)
        np.testing.assert_allclose(found[:, replicate], expected, rtol=0, atol=1e-12)


def test_many_images_of_one_patient_are_counted_exactly():
    # 2 * 12000 * 8000 pairs exceed what float32 counts; the rows of patients exceed one block.
    rng = np.random.default_rng(0)
    owners = np.concatenate([np.zeros(20_000, int), np.arange(1, 1201)])
    labels = np.concatenate([np.arange(20_000) < 12_000, np.arange(1200) % 2 == 0])[:, None]
    scores = rng.random((len(owners), 1))
    resamples = bootstrap.draw(owners, 8, seed=2)
    found = bootstrap.auc_replicates(labels, scores, resamples)
    for replicate in range(8):
        rows = written_out(owners, resamples, replicate)
        assert found[0, replicate] == pytest.approx(metrics_scores.auc(labels[rows, 0], scores[rows, 0]), abs=1e-15)


def test_patients_are_drawn_whole_and_as_many_as_there_are():
    owners = np.repeat(["b", "a", "c"], [5, 1, 2])
    resamples = bootstrap.draw(owners, 2000, seed=0)
    assert resamples.patients.tolist() == [1] * 5 + [0] + [2] * 2
    assert (resamples.counts.sum(axis=0) == 3).all()
    np.testing.assert_allclose(resamples.counts.mean(axis=1), 1, atol=0.06)
    np.testing.assert_allclose(resamples.counts.var(axis=1), 2 / 3, atol=0.06)
    assert (resamples.images == np.array([1, 5, 2]) @ resamples.counts).all()
    assert (bootstrap.draw(owners, 5, seed=3).counts == bootstrap.draw(owners, 5, seed=3).counts).all()


def test_the_interval_knows_that_images_of_a_patient_are_alike():
    # 50 patients of 20 equal images each: as uncertain as 50 images, not as 1,000.
    rng = np.random.default_rng(0)
    one = np.arange(50) % 2
    scores = rng.normal(size=50) + one
    owners = np.repeat(np.arange(50), 20)
    labels, many = one[owners][:, None], scores[owners][:, None]
    by_patient = bootstrap.auc_replicates(labels, many, bootstrap.draw(owners, 500, seed=0))[0]
    single = bootstrap.auc_replicates(one[:, None], scores[:, None], bootstrap.draw(np.arange(50), 500, seed=0))[0]
    by_image = bootstrap.auc_replicates(labels, many, bootstrap.draw(np.arange(1000), 500, seed=0))[0]
    assert np.nanstd(by_patient) == pytest.approx(np.nanstd(single), rel=1e-6)
    assert np.nanstd(by_patient) > 3 * np.nanstd(by_image)


def test_a_replicate_without_positives_is_undefined_and_left_out():
    owners, labels, scores = sample()
    labels[:, 1] = 0
    labels[7, 1] = 1
    resamples = bootstrap.draw(owners, 200, seed=0)
    aucs = bootstrap.auc_replicates(labels, scores, resamples)
    absent = resamples.counts[resamples.patients[7]] == 0
    assert (np.isnan(aucs[1]) == absent).all()
    assert absent.any()
    np.testing.assert_allclose(bootstrap.mean_replicates(aucs), np.nanmean(aucs, axis=0))
    low, high = bootstrap.interval(aucs[1])
    assert (low, high) == tuple(np.nanpercentile(aucs[1], (2.5, 97.5)))
    labels[:] = 0
    nothing = bootstrap.auc_replicates(labels, scores, resamples)
    assert np.isnan(nothing).all()
    assert np.isnan(bootstrap.interval(nothing[0])).all()
    assert np.isnan(bootstrap.mean_replicates(nothing)).all()
    assert np.isnan(bootstrap.p_value(nothing[0]))


def test_sums_over_replicates():
    owners, labels, _ = sample()
    resamples = bootstrap.draw(owners, 10, seed=0)
    values = np.random.default_rng(0).random(len(owners))
    for replicate, total in enumerate(bootstrap.sums(values, resamples)):
        assert total == pytest.approx(values[written_out(owners, resamples, replicate)].sum())


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        (np.arange(1, 100), 2 / 100),  # never 0
        (np.arange(-3, 96), 2 * 5 / 100),  # -3, -2, -1, 0 and the sample itself
        (-np.arange(-3, 96), 2 * 5 / 100),
        (np.zeros(99), 1.0),
        (np.append(np.arange(1, 100), np.nan), 2 / 100),
    ],
)
def test_p_of_no_difference(differences, expected):
    assert bootstrap.p_value(differences) == pytest.approx(expected)


def test_p_is_uniform_where_there_is_no_difference():
    rng = np.random.default_rng(0)
    p = [
        bootstrap.p_value(sums / 40)
        for values in rng.normal(size=(300, 40))
        for sums in [bootstrap.sums(values, bootstrap.draw(np.arange(40), 200, seed=1))]
    ]
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(np.array(p) < 0.5) == pytest.approx(0.5, abs=0.08)


def test_holm_as_published():
    # The worked example of R's p.adjust(c(0.01, 0.02, 0.03, 0.04), "holm") and of Holm's step-down rule.
    np.testing.assert_allclose(bootstrap.holm([0.01, 0.04, 0.03, 0.02]), [0.04, 0.06, 0.06, 0.06])
    np.testing.assert_allclose(bootstrap.holm([0.2, np.nan, 0.001]), [0.2, np.nan, 0.002])
    np.testing.assert_allclose(bootstrap.holm([0.9, 0.8]), [1, 1])
