import numpy as np
import pytest
from sklearn.metrics import precision_score, recall_score, roc_auc_score, roc_curve

from sdfn_jax.metrics import bootstrap, operating_points


def drawn(seed=0, count=300, distinct=1000):
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.2).astype(np.uint8)
    return labels, rng.integers(0, distinct, count) / distinct + 0.3 * labels


@pytest.mark.parametrize("distinct", [7, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_thresholds_are_those_of_scikit_learns_curve(seed, distinct):
    labels, scores = drawn(seed, distinct=distinct)
    fall_out, sensitivity, thresholds = roc_curve(labels, scores, drop_intermediate=False)
    assert operating_points.youden(labels, scores) == thresholds[np.argmax(sensitivity - fall_out)]
    assert operating_points.at_sensitivity(labels, scores) == thresholds[np.flatnonzero(sensitivity >= 0.9)[0]]


def test_90_percent_is_reached_and_not_overshot():
    labels = np.array([1] * 10 + [0] * 10)
    scores = np.concatenate([np.arange(10) + 0.5, np.arange(10)]) / 10
    assert operating_points.at_sensitivity(labels, scores) == 0.15  # 9 of 10
    assert operating_points.at_sensitivity(labels, scores, least=0.95) == 0.05


def test_a_class_that_is_absent_has_no_threshold():
    for labels in (np.zeros(5), np.ones(5)):
        assert np.isnan(operating_points.youden(labels, np.arange(5.0)))
        assert np.isnan(operating_points.at_sensitivity(labels, np.arange(5.0)))


def test_a_point_is_what_scikit_learn_says_with_an_interval_around_it():
    labels, scores = drawn(5)
    resamples = bootstrap.draw(np.arange(300) // 3, 500, seed=0)
    point = operating_points.apply(labels, scores, 0.6, resamples)
    called = scores >= 0.6
    assert point.sensitivity == recall_score(labels, called)
    assert point.specificity == recall_score(1 - labels, ~called)
    assert point.predictive_value == precision_score(labels, called)
    assert (point.positives, point.negatives, point.called) == (labels.sum(), (1 - labels).sum(), called.sum())
    for value, (low, high) in (
        (point.sensitivity, point.sensitivity_interval),
        (point.specificity, point.specificity_interval),
        (point.predictive_value, point.predictive_value_interval),
    ):
        assert low < value < high
        assert high - low < 0.35


def test_a_point_that_calls_nothing_has_no_predictive_value():
    labels, scores = drawn()
    point = operating_points.apply(labels, scores, 9.0, bootstrap.draw(np.arange(300), 20, seed=0))
    assert (point.sensitivity, point.specificity, point.called) == (0, 1, 0)
    assert np.isnan([point.predictive_value, *point.predictive_value_interval]).all()


class TestUndecided:
    """Where a threshold would decide by chance, there is none."""

    def resampled(self, count, images_of_a_patient=1):
        return operating_points.resample(np.arange(count) // images_of_a_patient)

    @pytest.mark.parametrize(("positives", "negatives"), [(19, 300), (300, 19), (1, 300), (0, 300), (300, 0)])
    def test_with_fewer_than_20_of_either_kind(self, positives, negatives):
        labels = np.repeat([1, 0], [positives, negatives])
        found = operating_points.undecided(labels, labels + 0.0, self.resampled(len(labels)))
        assert found == f"{positives} positives and {negatives} negatives in validation; it takes 20 of each"

    def test_with_20_of_each_in_order_it_is_decided(self):
        labels = np.repeat([1, 0], [20, 20])
        assert operating_points.undecided(labels, labels + 0.0, self.resampled(40)) == ""

    @pytest.mark.parametrize("lift", [0, 0.03, -0.3])
    def test_where_the_interval_of_the_auc_is_not_above_one_half(self, lift):
        rng = np.random.default_rng(1)
        labels = np.repeat([1, 0], [40, 260])
        scores = rng.random(300) + lift * labels
        found = operating_points.undecided(labels, scores, self.resampled(300))
        assert found.startswith(f"no better than chance on validation: AUC {roc_auc_score(labels, scores):.2f}, 95 % ")

    def test_the_interval_is_over_patients(self):
        """Twenty films of each patient say no more than one does."""
        rng = np.random.default_rng(0)
        labels, scores = np.repeat([1, 0], [6, 20]), rng.random(26)
        scores[:6] += 0.35
        labels, scores = np.repeat(labels, 20), np.repeat(scores, 20)
        assert operating_points.undecided(labels, scores, self.resampled(520)) == ""
        assert operating_points.undecided(labels, scores, self.resampled(520, 20)) != ""

    @pytest.mark.parametrize("seed", range(6))
    def test_the_bound_is_scikit_learns_auc_over_resampled_patients(self, seed):
        rng = np.random.default_rng(seed)
        labels = (rng.random(200) < 0.3).astype(int)
        scores = rng.random(200) + 0.12 * labels
        patients = rng.integers(0, 90, 200)
        aucs = []
        for _ in range(400):
            drawn = np.concatenate([np.flatnonzero(patients == each) for each in rng.integers(0, 90, 90)])
            aucs.append(roc_auc_score(labels[drawn], scores[drawn]))
        low = np.percentile(aucs, 2.5)
        found = operating_points.undecided(labels, scores, operating_points.resample(patients))
        if abs(low - 0.5) > 0.02:  # beyond what 400 replicates leave open
            assert (found == "") == (low > 0.5)
