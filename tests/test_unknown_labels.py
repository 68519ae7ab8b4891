"""Unknown and uncertain labels: every number is that of the images of which a finding is known, dropped by hand."""

import dataclasses

import jax
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from small import extractor_config, two_branch_examples

from sdfn_jax.core import checkpoint, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import (
    bootstrap,
    calibration,
    comparison,
    delong,
    operating_points,
    predictions,
    reliability,
    scores,
)
from sdfn_jax.metrics.evaluation import Evaluation, Origin, caveats, read_evaluation, read_record, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.radiographs.labels import ABSENT, PRESENT, UNCERTAIN, UNKNOWN, known, target_table
from sdfn_jax.reporting import estimates
from sdfn_jax.reporting.table_one import TableOne, text
from sdfn_jax.training import labelling, losses, tasks, train
from sdfn_jax.training.labelling import Labelling

NAMES = ("Tuberculosis", "Nodule", "Scar")
FILMS = 240
RNG = np.random.default_rng(0)
PATIENTS = np.arange(FILMS) // 2  # two films each
TRUTH = RNG.integers(0, 2, (FILMS, 3)).astype(np.uint8)
FIRST, SECOND = (np.clip(0.3 * TRUTH + 0.7 * RNG.random((FILMS, 3)), 0, 1) for _ in range(2))
# Of each patient one film at least is known: then the same patients are drawn with and without the others.
LABELS = TRUTH.copy()
LABELS[::2, 1] = np.where(RNG.random(FILMS // 2) < 0.6, UNKNOWN, LABELS[::2, 1])
LABELS[1::2, 2] = np.where(RNG.random(FILMS // 2) < 0.5, UNCERTAIN, LABELS[1::2, 2])
COLUMNS = range(3)


def dropped(column):
    """What is known of a finding: labels, scores of two networks, patients."""
    rows = known(LABELS[:, column])
    return TRUTH[rows, column], FIRST[rows, column], SECOND[rows, column], PATIENTS[rows]


def evaluation(labels=LABELS, names=NAMES, rows=slice(None), split="validation"):
    images = tuple(f"{number}.png" for number in range(FILMS))[rows]
    origin = Origin("fusion", "c0ffee", "own/size224/1.0.0", None, split, False, 0)
    return Evaluation(origin, Predictions(images, PATIENTS[rows], FIRST[rows][:, : len(names)], labels[rows], names))


def test_an_auc_is_scikit_learns_on_what_is_known():
    expected = [roc_auc_score(*dropped(column)[:2]) for column in COLUMNS]
    np.testing.assert_allclose(scores.class_aucs(LABELS, FIRST), expected, rtol=1e-12)


def test_the_bootstrap_is_that_of_what_is_known():
    found = bootstrap.auc_replicates(LABELS, FIRST, bootstrap.draw(PATIENTS, 20, 0))
    for column in COLUMNS:
        labels, mine, _, patients = dropped(column)
        counts = bootstrap.draw(PATIENTS, 20, 0).counts.astype(int)
        for replicate in range(20):
            weights = counts[patients, replicate]
            expected = roc_auc_score(np.repeat(labels, weights), np.repeat(mine, weights))
            assert found[column, replicate] == pytest.approx(expected, abs=1e-12)


def test_the_comparison_of_two_networks_is_that_of_what_is_known():
    resamples = bootstrap.draw(PATIENTS, 200, 0)
    replicates = tuple(bootstrap.auc_replicates(LABELS, each, resamples) for each in (FIRST, SECOND))
    found = comparison.compare(LABELS, FIRST, SECOND, replicates)
    for column in COLUMNS:
        labels, first, second, patients = dropped(column)
        alone = bootstrap.draw(patients, 200, 0)
        rows = [bootstrap.auc_replicates(labels[:, None], each[:, None], alone) for each in (first, second)]
        expected = comparison.compare(labels[:, None], first[:, None], second[:, None], tuple(rows)).classes[0]
        assert dataclasses.replace(found.classes[column], holm=expected.holm) == expected
        assert found.classes[column].delong == delong.compare(labels, first, second)


@pytest.mark.parametrize("column", COLUMNS)
def test_calibration_and_operating_points_are_those_of_what_is_known(column):
    whole = calibration.make(evaluation())
    rows = np.flatnonzero(known(LABELS[:, column]))
    alone = dataclasses.replace(
        evaluation(),
        predictions=Predictions(
            tuple(map(str, rows)), PATIENTS[rows], FIRST[rows, column][:, None], TRUTH[rows, column][:, None], ("A",)
        ),
    )
    assert whole.findings[NAMES[column]] == calibration.make(alone).findings["A"]
    labels, mine, _, patients = dropped(column)
    threshold = operating_points.youden(LABELS[:, column], FIRST[:, column])
    assert threshold == operating_points.youden(labels, mine)
    found, expected = (
        operating_points.apply(*columns, threshold, bootstrap.draw(people, 100, 0))
        for *columns, people in ((LABELS[:, column], FIRST[:, column], PATIENTS), (labels, mine, patients))
    )
    assert found == expected


def test_a_finding_of_which_nothing_is_known_has_no_numbers_and_breaks_nothing():
    labels = LABELS.copy()
    labels[:, 0] = UNKNOWN
    record = calibration.make(evaluation(labels)).findings["Tuberculosis"]
    assert (record.positives, record.negatives, record.auc, record.scaling, record.threshold) == (
        0,
        0,
        None,
        None,
        None,
    )
    assert np.isnan(reliability.curve(*scores.known_only(labels[:, 0], FIRST[:, 0])).error)
    assert list(estimates.few(labels)) == [True, False, False]
    assert "undefined (no positive or no negative image)" in " ".join(caveats(evaluation(labels)))


def test_a_table_of_predictions_keeps_what_is_unknown_and_patients_that_are_no_numbers(tmp_path):
    mine = evaluation()
    mine = dataclasses.replace(
        mine, predictions=dataclasses.replace(mine.predictions, patients=np.array([f"P{n:03d}" for n in PATIENTS]))
    )
    write_evaluation(tmp_path, mine)
    found = read_evaluation(tmp_path)
    assert found.origin == mine.origin and found.predictions.findings == NAMES
    for field in ("patients", "probabilities", "labels"):
        np.testing.assert_array_equal(getattr(found.predictions, field), getattr(mine.predictions, field))
    record = read_record(tmp_path)
    for column, name in enumerate(NAMES):
        positives, negatives = record["positives"][name], record["negatives"][name]
        assert (positives, negatives) == tuple(np.bincount(dropped(column)[0], minlength=2)[::-1])


@pytest.mark.parametrize(
    ("patients", "kind"),
    [(["7", "12"], np.int64), (["007", "12"], str), (["a", "12"], str), (["9" * 30, "1"], str), ([3, 4], np.int64)],
)
def test_patients_are_numbers_only_if_nothing_is_lost(patients, kind):
    found = predictions.patient_array(patients)
    assert np.issubdtype(found.dtype, kind) and [str(each) for each in found.tolist()] == [str(p) for p in patients]


def test_the_table_of_one_finding_has_no_mean_and_nothing_of_the_paper():
    one = evaluation(LABELS[:, :1], NAMES[:1], split="test")
    lines = text(TableOne.of([one])).splitlines()
    head = next(line for line in lines if line.startswith("AUC"))
    assert head.split() == ["AUC", "positives", "SDFN"]
    assert not any(line.startswith("Mean") or "paper" in line for line in lines)


def test_the_table_counts_the_films_of_which_a_finding_is_known():
    lines = text(TableOne.of([evaluation(split="test")])).splitlines()
    (row,) = (line.split() for line in lines if line.startswith("Nodule"))
    assert row[1:3] == [str(dropped(1)[0].sum()), str(len(dropped(1)[0]))]
    assert any(line.startswith("Mean of 3 findings") for line in lines)


LOGITS = RNG.normal(size=(6, 3)).astype(np.float32)
TARGETS = RNG.random((6, 3)).round().astype(np.float32)
UNSEEN = np.array([[0, 0, 1], [1, 1, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0]], bool)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_the_loss_and_its_gradient_are_those_of_the_known_labels(name):
    masked = np.where(UNSEEN, np.nan, TARGETS).astype(np.float32)

    def of_all(logits):
        loss = losses.LOSSES[name]
        return loss.of_known(logits, masked).sum() / losses.known_share(masked).sum()

    def of_known(known_logits):  # one row of the known labels alone
        return losses.LOSSES[name].function(known_logits[None], TARGETS[~UNSEEN][None])[0]

    value, gradient = jax.jit(jax.value_and_grad(of_all))(LOGITS)
    expected, slopes = jax.jit(jax.value_and_grad(of_known))(LOGITS[~UNSEEN])
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient[~UNSEEN], slopes, rtol=1e-4, atol=1e-7)
    assert (gradient[UNSEEN] == 0).all()


class Described(list):
    """Examples as `of_training` reads them."""

    def fields(self, *names):
        return ({name: each[name] for name in names} for each in self)


def training_of(labels, tmp_path, validation=None, **settings):
    """The labels of a training whose training split has these, and its validation split too or others."""
    config = extractor_config("entire", tmp_path)
    for name, value in settings.items():
        config[name] = value
    splits = (
        Described({"labels": row} for row in np.asarray(each, np.uint8))
        for each in (labels, labels if validation is None else validation)
    )
    return labelling.of_training(config, {"findings": list(NAMES)}, *splits)


def test_with_nothing_unknown_the_loss_is_the_one_without_a_mask(tmp_path):
    """So no number of a data set like ChestX-ray14 changes by a bit."""
    plain = training_of(TRUTH, tmp_path)
    assert plain.table is None
    task = tasks.classification(extractor_config("entire", tmp_path), plain)
    assert task.counted is None
    assert (task.loss, task.training_loss) == (losses.LOSSES["bce"].function,) * 2
    masked = tasks.classification(extractor_config("entire", tmp_path), training_of(LABELS, tmp_path))
    assert (masked.loss, masked.counted) == (losses.LOSSES["bce"].of_known, losses.known_share)


@pytest.mark.parametrize(("training", "validation"), [(TRUTH, LABELS), (LABELS, TRUTH), (LABELS, LABELS)])
def test_one_unknown_label_in_either_split_is_masked(tmp_path, training, validation):
    assert training_of(training, tmp_path, validation).table is not None


def test_training_sees_the_chosen_findings_and_the_rule_for_uncertain_labels(tmp_path):
    found = training_of(LABELS, tmp_path, findings=("Scar", "Tuberculosis"), uncertain="0.25,Scar=one")
    assert found.findings == ("Scar", "Tuberculosis")
    np.testing.assert_array_equal(
        found.targets(found.codes(np.array([[ABSENT, UNKNOWN, UNCERTAIN], [UNCERTAIN, PRESENT, UNKNOWN]], np.uint8))),
        np.array([[1, 0], [np.nan, 0.25]], np.float32),
    )


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        (
            TRUTH,
            {"findings": ("Mass",)},
            "--config.findings names 'Mass', which the data set does not label; it labels Tub",
        ),
        (TRUTH, {"uncertain": "one,Mass=zero"}, "a rule for 'Mass', which is no finding of this run"),
        (TRUTH * 0, {"findings": ("Nodule",)}, "among the 240 training films, Nodule: no film is known to be with it"),
        (TRUTH * 0 + UNKNOWN, {}, "nothing can be learned"),
    ],
)
def test_labels_that_no_training_can_use_are_refused_before_it(tmp_path, labels, settings, message):
    with pytest.raises(UserError, match=message):
        training_of(labels, tmp_path, **settings)


def test_a_finding_without_a_positive_among_others_is_said(tmp_path, capsys):
    labels = TRUTH.copy()
    labels[:, 2] = np.where(labels[:, 2] == PRESENT, UNKNOWN, ABSENT)
    training_of(labels, tmp_path)
    assert "NOTE: among the 240 training films, Scar: no film is known to be with it." in capsys.readouterr().out


def test_a_data_set_that_labels_some_of_a_network_s_findings_scores_those(capsys):
    found = labelling.of_evaluation(("Nodule", "Mass"), {"findings": list(NAMES)}, "own")
    assert "own does not label Mass" in capsys.readouterr().out
    np.testing.assert_array_equal(found.codes(TRUTH[:5]), np.stack([TRUTH[:5, 1], [UNKNOWN] * 5], axis=1))
    with pytest.raises(UserError, match="own labels none of the network's findings"):
        labelling.of_evaluation(("Mass",), {"findings": list(NAMES)}, "own")


def test_a_training_reports_the_loss_and_the_auc_of_what_is_known(tmp_path):
    config = extractor_config("entire", tmp_path)
    config.num_epochs = 1
    task = tasks.classification(config, Labelling(NAMES, NAMES, target_table(NAMES, "0.5")))
    training, validation = two_branch_examples(8, 0), two_branch_examples(12, 1)
    for example, row in zip([*training, *validation], LABELS[:20], strict=True):
        example["labels"] = row
    train.train(
        task,
        config,
        training=training,
        validation=validation,
        initial_variables=lambda: initial_variables(task.model, 0, task.inputs, train=False),
        metadata=run_metadata.make(config, {}, data_version="in memory", drawings=True, findings=list(NAMES)),
    )
    variables, metadata = checkpoint.read_best(tmp_path)
    rows = [task.select(example) for example in validation]
    images, targets = task.prepare({name: np.stack([row[name] for row in rows]) for name in rows[0]}, None)
    logits = np.asarray(task.apply(variables, images, False)[0], np.float64)
    counted = ~np.isnan(targets)
    y, p = np.asarray(targets, np.float64)[counted], 1 / (1 + np.exp(-logits[counted]))
    assert not counted.all() and (y == 0.5).any()
    expected = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert metadata["validation"]["loss"] == pytest.approx(expected, rel=1e-5)
    aucs = [
        roc_auc_score(labels[known(labels)], column[known(labels)])
        for labels, column in zip(LABELS[8:20].T, logits.T, strict=True)
    ]
    assert metadata["validation"]["mean_auc"] == pytest.approx(np.mean(aucs), abs=1e-6)
