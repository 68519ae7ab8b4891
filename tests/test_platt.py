"""Platt scaling and `calibration.json`, beside scikit-learn."""

import contextlib
import dataclasses
import json
import re

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sdfn_jax.core import sealed
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import calibration as metrics_calibration
from sdfn_jax.metrics import platt, reliability
from sdfn_jax.metrics.evaluation import Evaluation, Origin, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.radiographs.findings import FINDINGS


def overconfident(count=2000, seed=0, slope=0.5, intercept=-1.0):
    """Labels, and probabilities that Platt scaling with this slope and intercept makes right."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(-2, 3, count)
    return (generator.random(count) < expit(slope * logits + intercept)).astype(np.uint8), expit(logits)


def passing_logits_on():
    """A fitted classifier in scikit-learn's eyes, whose decision function is its input."""
    classifier = LogisticRegression()
    classifier.coef_, classifier.intercept_, classifier.classes_ = np.ones((1, 1)), np.zeros(1), np.arange(2)
    return FrozenEstimator(classifier)


@pytest.mark.parametrize(("count", "slope", "intercept"), [(2000, 0.5, -1.0), (150, 2.0, 0.5), (9000, 1.0, -3.0)])
def test_the_fit_is_scikit_learns_sigmoid_calibration(count, slope, intercept):
    labels, probabilities = overconfident(count, 1, slope, intercept)
    inputs = logit(probabilities)[:, None]
    peer = CalibratedClassifierCV(passing_logits_on(), method="sigmoid", ensemble=False).fit(inputs, labels)
    found = platt.fit(labels, probabilities)
    # scikit-learn's L-BFGS stops somewhat earlier than ours.
    np.testing.assert_allclose(found(probabilities), peer.predict_proba(inputs)[:, 1], atol=2e-4)


def test_of_many_images_it_is_logistic_regression():
    labels, probabilities = overconfident(20_000)
    peer = LogisticRegression(C=np.inf).fit(logit(probabilities)[:, None], labels)
    found = platt.fit(labels, probabilities)
    # Platt's targets differ from 0 and 1 by one image in so many.
    assert found.slope == pytest.approx(peer.coef_[0, 0], rel=5e-3)
    assert found.intercept == pytest.approx(peer.intercept_[0], rel=5e-3)


def test_it_finds_the_distortion_and_mends_it():
    labels, probabilities = overconfident(50_000, slope=0.4, intercept=0.7)
    found = platt.fit(labels, probabilities)
    assert (found.slope, found.intercept) == pytest.approx((0.4, 0.7), abs=0.03)
    others, raw = overconfident(20_000, seed=5, slope=0.4, intercept=0.7)
    assert reliability.curve(others, raw).error > 0.1
    assert reliability.curve(others, found(raw)).error < 0.02


def test_images_never_change_places():
    labels, probabilities = overconfident()
    found = platt.fit(labels, probabilities)
    assert found.slope > 0
    assert (np.argsort(found(probabilities), kind="stable") == np.argsort(probabilities, kind="stable")).all()


def test_what_separates_perfectly_gets_a_finite_slope():
    probabilities = np.linspace(0.01, 0.99, 100)
    found = platt.fit(probabilities > 0.5, probabilities)
    assert 0 < found.slope < 100
    assert (found(probabilities) < 1).all()


def test_certainty_has_a_logit_too():
    labels, probabilities = overconfident()
    probabilities[:3], probabilities[3:6] = 0, 1
    assert np.isfinite(platt.fit(labels, probabilities)(probabilities)).all()


def test_an_order_worse_than_chance_is_not_turned_round():
    labels, probabilities = overconfident()
    assert platt.fit(labels, 1 - probabilities) is None
    assert platt.fit(np.ones(9), np.linspace(0, 1, 9)) is None
    assert platt.fit(np.arange(9) % 2, np.full(9, 0.3)) is None


def test_cross_fitting_leaves_a_patient_out():
    labels, probabilities = overconfident(400)
    patients = np.arange(400) // 4
    found = platt.cross_fit(labels, probabilities, patients)
    turned = labels.copy()
    turned[:4] = 1 - turned[:4]  # the first patient's; whoever saw him is calibrated otherwise now
    other = platt.cross_fit(turned, probabilities, patients)
    same = np.isclose(found, other, rtol=1e-9)
    assert same[:4].all()
    assert 60 <= same.sum() <= 100  # his fold, a fifth of the patients


def evaluation(images=400, split="validation", **origin):
    labels, probabilities = zip(*(overconfident(images, seed) for seed in range(len(FINDINGS))), strict=True)
    labels, probabilities = np.stack(labels, axis=1), np.stack(probabilities, axis=1)
    labels[:, 13] = 0  # nobody has a hernia
    labels[:, 12] = 0
    labels[:19, 12] = 1
    probabilities[:, 11] = 1 - probabilities[:, 11]
    given = {"stage": "entire", "checkpoint": "c0ffee", "data_version": "d", "label_version": "2017", "drawings": True}
    return Evaluation(
        Origin(**given | origin, split=split, seed=0),
        Predictions(tuple(map(str, range(images))), np.arange(images) // 2, probabilities, labels),
    )


class TestFile:
    def test_it_is_read_as_it_was_written(self, tmp_path):
        record = metrics_calibration.make(evaluation())
        metrics_calibration.write(tmp_path, record)
        assert metrics_calibration.read(tmp_path) == record
        assert [path.name for path in tmp_path.iterdir()] == [metrics_calibration.CALIBRATION_FILE]
        assert metrics_calibration.read(tmp_path / "elsewhere") is None

    def test_what_cannot_be_calibrated_says_why(self):
        record = metrics_calibration.make(evaluation())
        assert record.calibrated() == FINDINGS[:11]
        reasons = [each.reason for each in record.findings.values()]
        assert reasons[:11] == [""] * 11
        assert reasons[11] == "validation is ordered no better than by chance"
        assert reasons[12] == "19 positives and 381 negatives in validation; it takes 20 of each"
        assert reasons[13] == "0 positives and 400 negatives in validation; it takes 20 of each"

    def test_what_has_no_operating_point_says_why_and_all_of_it_in_one_line(self):
        record = metrics_calibration.make(evaluation())
        assert list(record.thresholds()) == list(FINDINGS[:11])
        assert list(record.undecided()) == list(FINDINGS[11:])
        reasons = list(record.undecided().values())
        assert re.fullmatch("no better than chance on validation: AUC 0.16, 95 % interval 0.1. to 0.2.", reasons[0])
        assert reasons[1] == "19 positives and 381 negatives in validation; it takes 20 of each"
        assert record.gaps() == (
            "no decision and no calibration (no better than chance on validation): Fibrosis; no decision and no "
            "calibration (fewer than 20 positives or negatives in validation): Pleural thickening, Hernia"
        )

    def test_it_has_the_auc_of_each_finding_with_its_interval(self):
        given = evaluation()
        record, labels = metrics_calibration.make(given), given.predictions.labels
        for index, (name, each) in enumerate(record.findings.items()):
            if name == "Hernia":  # no film has it
                assert each.auc is None
                continue
            value = roc_auc_score(labels[:, index], given.predictions.probabilities[:, index])
            assert each.auc.value == pytest.approx(value, abs=1e-12)
            assert each.auc.low < value < each.auc.high
        known = [each.auc.value for each in record.findings.values() if each.auc is not None]
        assert record.mean_auc.value == pytest.approx(np.mean(known), abs=1e-12)
        assert record.mean_auc.low < record.mean_auc.value < record.mean_auc.high
        assert record.no_better_than_chance() == ""

    def test_a_file_of_before_there_were_aucs_is_read(self, tmp_path):
        record = metrics_calibration.make(evaluation())
        written = dataclasses.asdict(record)
        del written["mean_auc"]
        for each in written["findings"].values():
            del each["auc"]
        sealed.write(tmp_path / metrics_calibration.CALIBRATION_FILE, written)
        found = metrics_calibration.read(tmp_path)
        assert found.thresholds() == record.thresholds()
        assert (found.mean_auc, found.findings["Mass"].auc, found.no_better_than_chance()) == (None, None, "")

    def test_what_is_missing_is_printed_in_one_line_where_it_is_made(self, tmp_path, capsys):
        metrics_calibration.calibrate(tmp_path, evaluation())
        record = metrics_calibration.read(tmp_path)
        assert record == metrics_calibration.make(evaluation())
        assert capsys.readouterr().out == f"{tmp_path / 'calibration.json'}: {record.gaps()}\n"

    def test_nothing_is_called_by_a_network_that_guesses(self):
        given = evaluation(images=2000)
        guesses = np.random.default_rng(3).random(given.predictions.probabilities.shape)
        guessed = dataclasses.replace(given.predictions, probabilities=guesses)
        record = metrics_calibration.make(dataclasses.replace(given, predictions=guessed))
        # Each interval misses 0.5 above in one of 40 draws of a guessing network.
        assert len(record.thresholds()) <= 1
        assert record.no_better_than_chance().startswith(
            "Validation does not show this network to be better than chance: mean AUC"
        )
        assert record.undecided()["Atelectasis"].startswith("no better than chance on validation: AUC 0.")

    def test_applied_to_probabilities(self):
        given = evaluation()
        record = metrics_calibration.make(given)
        found = record.apply(given.predictions.probabilities)
        for index in range(11):
            scaling = platt.fit(given.predictions.labels[:, index], given.predictions.probabilities[:, index])
            np.testing.assert_allclose(found[:, index], scaling(given.predictions.probabilities[:, index]))
        assert np.isnan(found[:, 11:]).all()

    def test_its_effect_is_cross_fitted(self):
        given = evaluation()
        labels, scores = given.predictions.labels[:, 0], given.predictions.probabilities[:, 0]
        effect = metrics_calibration.make(given).findings["Atelectasis"].effect
        after = platt.cross_fit(labels, scores, given.predictions.patients)
        assert effect.brier == (reliability.brier(labels, scores), reliability.brier(labels, after))
        assert effect.brier[1] < effect.brier[0]
        assert effect.error[1] < effect.error[0]

    def test_operating_points_count_what_they_call(self):
        given = evaluation()
        point = metrics_calibration.make(given).findings["Mass"].threshold
        labels, scores = given.predictions.labels[:, 4], given.predictions.probabilities[:, 4]
        called = scores >= point.probability
        assert point.sensitivity == pytest.approx((called & (labels == 1)).sum() / labels.sum())
        assert point.specificity == pytest.approx((~called & (labels == 0)).sum() / (labels == 0).sum())
        assert (point.positives, point.negatives) == (labels.sum(), 400 - labels.sum())

    def test_never_of_test(self):
        with pytest.raises(ValueError, match="fitted on validation, not on test"):
            metrics_calibration.make(evaluation(split="test"))

    @pytest.mark.parametrize("damage", ["", "{}", "[]", '{"findings": {}}', "cut"])
    def test_a_damaged_file_is_named(self, tmp_path, damage):
        metrics_calibration.write(tmp_path, metrics_calibration.make(evaluation()))
        path = tmp_path / metrics_calibration.CALIBRATION_FILE
        path.write_text(path.read_text()[:-200] if damage == "cut" else damage)
        with pytest.raises(UserError, match=r"calibration\.json: .*not the calibration of a run"):
            metrics_calibration.read(tmp_path)

    def test_a_field_of_another_version_is_refused(self, tmp_path):
        metrics_calibration.write(tmp_path, metrics_calibration.make(evaluation()))
        path = tmp_path / metrics_calibration.CALIBRATION_FILE
        path.write_text(json.dumps(json.loads(path.read_text()) | {"new": 1}))
        with pytest.raises(UserError, match="not the calibration of a run .changed since it was written"):
            metrics_calibration.read(tmp_path)

    def test_no_flipped_bit_is_taken_for_a_decision(self, tmp_path):
        record = metrics_calibration.make(evaluation())
        metrics_calibration.write(tmp_path, record)
        path = tmp_path / metrics_calibration.CALIBRATION_FILE
        whole = path.read_bytes()
        for place in np.random.default_rng(0).choice(len(whole) * 8, 400, replace=False).tolist():
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            path.write_bytes(flipped)
            with contextlib.suppress(sealed.DamagedError):
                assert metrics_calibration.read(tmp_path) == record  # the flip changed no value

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ({"threshold": {"probability": 5.0}}, "threshold.probability is 5.0, not a number from 0 to 1"),
            ({"scaling": {"slope": -1.0}}, "scaling.slope is -1.0, not a number above 0"),
            ({"scaling": {"intercept": "0"}}, 'scaling.intercept is "0", not a number'),
            ({"positives": True}, "positives is true, not a whole number"),
            ({"auc": {"low": 2.0}}, "auc.low is 2.0, not a number from 0 to 1"),
        ],
    )
    def test_values_out_of_range_are_refused_under_any_digest(self, tmp_path, values, said):
        written = dataclasses.asdict(metrics_calibration.make(evaluation()))
        finding = written["findings"]["Mass"]
        for name, value in values.items():
            finding[name] = finding[name] | value if isinstance(value, dict) else value
        sealed.write(tmp_path / metrics_calibration.CALIBRATION_FILE, written)
        with pytest.raises(UserError, match=rf"calibration\.json: .*findings\.Mass\.{re.escape(said)}"):
            metrics_calibration.read(tmp_path)


class TestOfCheckpoint:
    """The calibration of a run as `predict` asks for it."""

    @pytest.fixture
    def run(self, tmp_path):
        write_evaluation(tmp_path / "evaluation" / "validation", evaluation())
        metrics_calibration.write(tmp_path, metrics_calibration.make(evaluation()))
        sealed.say.cache_clear()
        return tmp_path

    def older(self, run):
        """Writes the file as it was before there were digests and reasons."""
        path = run / metrics_calibration.CALIBRATION_FILE
        record = json.loads(path.read_text())
        del record["sha256"]
        for each in record["findings"].values():
            del each["undecided"]
        path.write_text(json.dumps(record, indent=2))

    def cut(self, run):
        path = run / metrics_calibration.CALIBRATION_FILE
        path.write_text(path.read_text()[:-200])

    @pytest.mark.parametrize(("harm", "state"), [("older", "was written by an older version"), ("cut", "is damaged")])
    def test_what_cannot_be_used_is_made_from_the_evaluation_and_said_once(self, run, capsys, harm, state):
        getattr(self, harm)(run)
        for _ in range(2):
            assert metrics_calibration.of_checkpoint(run, "c0ffee") == (metrics_calibration.make(evaluation()), "")
        assert capsys.readouterr().err == (
            f"note: {run}/calibration.json {state}; it is computed again from {run}/evaluation/validation\n"
        )

    def test_without_the_evaluation_a_damaged_one_is_refused_and_an_older_one_not_used(self, run):
        (run / "evaluation" / "validation" / "probabilities.csv").unlink()
        self.older(run)
        assert metrics_calibration.of_checkpoint(run, "c0ffee") == (None, "was written by an older version")
        self.cut(run)
        with pytest.raises(UserError, match=r"calibration\.json: not the calibration of a run"):
            metrics_calibration.of_checkpoint(run, "c0ffee")

    def test_an_evaluation_of_another_checkpoint_serves_nobody(self, run):
        self.older(run)
        assert metrics_calibration.of_checkpoint(run, "another") == (None, "was written by an older version")


def test_thresholds_are_chosen_before_calibration():
    """Calibrating moves no image across its operating point."""
    given = evaluation()
    record = metrics_calibration.make(given)
    point, scaling = record.findings["Mass"].threshold, record.findings["Mass"].scaling
    scores = given.predictions.probabilities[:, 4]
    calls = scores >= point.probability
    np.testing.assert_array_equal(scaling(scores) >= scaling(np.array(point.probability)), calls)
    assert dataclasses.asdict(point)["probability"] in scores
