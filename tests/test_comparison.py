"""DeLong's test against pROC and published figures, the paper's t-test against its formula."""

import numpy as np
import pytest
from scipy import stats

from sdfn_jax.metrics import bootstrap, comparison, delong
from sdfn_jax.metrics import scores as metrics_scores


def numbers():
    places = np.arange(60)
    labels = (places % 3 == 0).astype(int)
    return labels, (7 * places) % 11 + 3 * labels, (5 * places) % 13 + 2 * labels


def test_delong_is_that_of_proc():
    # R: roc.test(roc(y, a), roc(y, b), method = "delong", paired = TRUE), var and cov of pROC 1.18.0
    labels, first, second = numbers()
    aucs, spread = delong.covariance(labels, np.stack([first, second]))
    np.testing.assert_allclose(aucs, [0.7725, 0.63875], atol=1e-12)
    np.testing.assert_allclose(
        spread,
        [[0.003920964068826, -0.000280710188934], [-0.000280710188934, 0.005880086032389]],
        atol=1e-14,
    )
    test = delong.compare(labels, first, second)
    assert (test.difference, test.z, test.p) == pytest.approx((0.13375, 1.313899470238, 0.188880037022), abs=1e-11)


def test_delong_of_the_published_ct_ratings():
    # Hanley & McNeil 1982, Table I, 58 normal and 51 abnormal CT images; DeLong's standard error as in Stata's manual
    # of roctab: area 0.8932, 0.0307.
    ratings = np.repeat([1, 2, 3, 4, 5] * 2, [33, 6, 6, 11, 2, 3, 2, 2, 11, 33])
    aucs, spread = delong.covariance(np.arange(109) >= 58, ratings[None])
    assert round(aucs[0], 4) == 0.8932
    assert round(spread[0, 0] ** 0.5, 4) == 0.0307


def test_delong_of_equal_perfect_and_absent():
    labels, first, _ = numbers()
    assert delong.compare(labels, first, first) == delong.Test(0.0, 0.0, 1.0)
    assert delong.compare(labels, first, 3 * first + 1) == delong.Test(0.0, 0.0, 1.0)
    perfect_against_reverse = delong.compare(labels, labels, -labels)
    assert perfect_against_reverse.difference == 1
    assert np.isnan(perfect_against_reverse.p)
    assert np.isnan(delong.compare(np.zeros(60), first, first).p)


def two_models(count=600, seed=0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 14)) < 0.3).astype(np.uint8)
    shared = rng.normal(size=(count, 14))
    better = shared + 1.2 * labels + 0.5 * rng.normal(size=(count, 14))
    worse = shared + 0.6 * labels + 0.5 * rng.normal(size=(count, 14))
    return np.arange(count) // 2, labels, better, worse


def test_two_models_are_compared_on_the_same_resamples():
    patients, labels, better, worse = two_models()
    resamples = bootstrap.draw(patients, 400, seed=0)
    replicates = [bootstrap.auc_replicates(labels, scores, resamples) for scores in (better, worse)]
    result = comparison.compare(labels, better, worse, tuple(replicates))
    aucs = [metrics_scores.class_aucs(labels, scores) for scores in (better, worse)]
    assert [one.value for one in result.classes] == pytest.approx(list(aucs[0] - aucs[1]))
    assert result.mean.value == pytest.approx((aucs[0] - aucs[1]).mean())
    for row, one in enumerate(result.classes):
        assert one.interval == pytest.approx(np.percentile(replicates[0][row] - replicates[1][row], (2.5, 97.5)))
        assert one.p <= one.holm <= 14 * one.p
        assert one.delong.difference == pytest.approx(one.value)
    # Images independent but for pairs: both tests see much the same spread.
    spread = np.array([np.diff(one.interval)[0] / 3.92 for one in result.classes])
    delongs = np.array([one.delong.difference / one.delong.z for one in result.classes])
    np.testing.assert_allclose(spread, delongs, rtol=0.25)
    # Paired: the shared part of the scores cancels.
    unpaired = np.hypot(replicates[0].std(axis=1), replicates[1].std(axis=1))
    assert (spread < 0.85 * unpaired).all()
    assert np.diff(result.mean.interval) < spread.min() * 3.92


def test_the_papers_t_test_is_over_the_fourteen_aucs():
    # Table I of the paper, SDFN against the entire CXR: the t-test over its own columns.
    from sdfn_jax.metrics import published

    first, second = (np.array(published.TABLE_ONE[stage]) for stage in ("fusion", "entire"))
    d = first - second
    t = d.mean() / (d.std(ddof=1) / 14**0.5)
    assert comparison.paper_t_test(first, second) == pytest.approx((t, 2 * stats.t.sf(t, 13)))
    assert comparison.paper_t_test(first, second)[1] < 0.01  # as the paper says
    first[3] = np.nan
    kept = np.delete(d, 3)
    assert comparison.paper_t_test(first, second) == pytest.approx(tuple(stats.ttest_1samp(kept, 0)))


def test_no_t_test_without_spread():
    aucs = np.linspace(0.5, 0.9, 14)
    assert np.isnan(comparison.paper_t_test(aucs, aucs)).all()
    assert np.isnan(comparison.paper_t_test(aucs[:1], aucs[:1] / 2)).all()
