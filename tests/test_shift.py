"""One run on several data sets: what changes, how certain it is, and what is refused."""

import csv
import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sdfn_jax import report as report_command
from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import calibration, people, reliability
from sdfn_jax.metrics.evaluation import Evaluation, Origin, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.reporting import material, report, shift

HERE, THERE = "chestxray14/size224_labels2017/1.0.0", "elsewhere/size224/1.0.0"


def evaluation(split="test", data=HERE, count=240, first=0, prevalence=0.4, gain=0.3, stage="fusion", **origin):
    """Two films a patient; the higher the gain, the better the network."""
    rng = np.random.default_rng([len(split), first, len(data)])
    labels = (rng.random((count, 14)) < prevalence).astype(np.uint8)
    labels[:, 13] = 0  # no hernia anywhere
    probabilities = np.clip(0.6 * rng.random((count, 14)) + gain * labels, 0, 1)
    images = tuple(f"{data[:4]}{first + index // 2:05d}_{index % 2}.png" for index in range(count))
    said = Origin(stage, f"{stage}-digest", data, "2017", split, False, 3)
    values = Predictions(images, first + np.arange(count) // 2, probabilities, labels)
    return Evaluation(dataclasses.replace(said, **origin), values)


def who(count, male):
    """Of every ten films, that many of men; half from above; the last without an age."""
    sexes = ["M" if index % 10 < male else "F" for index in range(count)]
    return people.People(sexes, [*[50.0] * (count - 1), float("nan")], ["PA", "AP"] * (count // 2))


def write(folder, values, male=None):
    write_evaluation(folder, values)
    if male is not None:
        people.write(folder, values.predictions.images, who(len(values.predictions.images), male))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A run, and its network elsewhere: fewer ill people, worse separated."""
    folder = tmp_path_factory.mktemp("shift")
    write(folder / "run/evaluation/test", evaluation(), 5)
    write(folder / "run/evaluation/validation", evaluation("validation", first=500))
    write(folder / "elsewhere/fusion", evaluation(data=THERE, prevalence=0.2, gain=0.15, count=200), 8)
    return folder


@pytest.fixture(scope="module")
def found(folders):
    gathered = material.gather([folders / "run"], None, (), 400, None, [folders / "elsewhere"])
    (elsewhere,) = gathered.elsewhere
    changes = shift.changes(elsewhere, gathered.resamples)
    return gathered, elsewhere, {(change.measure, change.finding): change for change in changes}


def test_auc_and_prevalence_are_those_of_either_set(found):
    _, elsewhere, changes = found
    means = []
    for values, side in ((evaluation().predictions, "here"), (elsewhere.evaluation.predictions, "there")):
        expected = [roc_auc_score(values.labels[:, c], values.probabilities[:, c]) for c in range(13)]
        np.testing.assert_allclose([getattr(changes[shift.AUC, c], side).value for c in range(13)], expected)
        assert getattr(changes[shift.PREVALENCE, 0], side).value == pytest.approx(values.labels[:, 0].mean())
        means.append(np.mean(expected))
    mean = changes[shift.AUC, None]
    assert mean.difference.value == pytest.approx(means[1] - means[0])
    assert mean.difference.high < 0 and mean.difference.signed
    assert np.isnan(changes[shift.AUC, 13].difference.value)


def test_the_interval_is_that_of_independent_samples(found):
    _, _, changes = found
    for finding in range(5):
        here, there, difference = (
            getattr(changes[shift.AUC, finding], side) for side in ("here", "there", "difference")
        )
        widths = [each.high - each.low for each in (here, there, difference)]
        assert widths[2] == pytest.approx(np.hypot(*widths[:2]), rel=0.15)  # variances add up


def test_the_operating_point_is_carried_over_from_validation(found):
    _, elsewhere, changes = found
    record = calibration.make(evaluation("validation", first=500))
    threshold = record.thresholds()["Atelectasis"].probability
    for values, side in ((evaluation().predictions, "here"), (elsewhere.evaluation.predictions, "there")):
        called, ill = values.probabilities[:, 0] >= threshold, values.labels[:, 0] == 1
        assert getattr(changes["sensitivity", 0], side).value == pytest.approx(called[ill].mean())
        assert getattr(changes["specificity", 0], side).value == pytest.approx((~called)[~ill].mean())
    assert np.isnan(changes["sensitivity", 13].here.value)  # nothing is decided on hernias


def test_the_calibration_is_carried_over_from_validation(found):
    _, elsewhere, changes = found
    scaling = calibration.make(evaluation("validation", first=500)).findings["Edema"].scaling
    values = elsewhere.evaluation.predictions
    calibrated, labels = scaling(values.probabilities[:, 9]), values.labels[:, 9]
    expected = reliability.brier(labels, calibrated)
    assert changes[shift.BRIER, 9].there.value == pytest.approx(expected)
    assert changes[shift.EXCESS, 9].there.value == pytest.approx((calibrated - labels).mean())
    assert changes[shift.EXCESS, None].difference.low > 0  # fewer are ill there than it was calibrated for


def test_shares_of_sex_age_and_view(found):
    gathered, elsewhere, _ = found
    shares = {
        change.measure: change for change in shift.mix(gathered.people, elsewhere.people, elsewhere, gathered.resamples)
    }
    assert list(shares) == [
        *("share of sex female", "share of sex male", "share of age 40-59", "share of age unknown"),
        *("share of view PA", "share of view AP"),
    ]
    male = shares["share of sex male"]
    assert (male.here.value, male.there.value) == (0.5, 0.8)
    assert male.difference.value == pytest.approx(0.3) and male.difference.low > 0.1
    assert shares["share of age unknown"].there.value == 1 / 200


def test_people_are_read_as_they_were_written_in_any_order_of_images(tmp_path):
    images, said = (
        ["a.png", "b.png", "c.png"],
        people.People(["M", "F", ""], [1.5, float("nan"), 90.0], ["PA", "", "AP"]),
    )
    people.write(tmp_path, images, said)
    found = people.read(tmp_path, ["c.png", "a.png"])
    assert (found.sexes, found.ages, found.views) == (["", "M"], [90.0, 1.5], ["AP", "PA"])
    assert people.read(tmp_path / "none", images) is None
    with pytest.raises(ValueError, match=r"people.csv: 1 images are missing, such as d.png; evaluate again"):
        people.read(tmp_path, ["d.png"])
    (tmp_path / "people.csv").write_text("image,sex,age,view\na.png,M,old,PA\n")
    with pytest.raises(ValueError, match="could not convert string to float: 'old'; evaluate again"):
        people.read(tmp_path, ["a.png"])


def test_the_report_has_a_table_a_figure_and_every_finding(folders, monkeypatch, tmp_path):
    monkeypatch.setattr(report.page, "_picture", lambda *_: "")
    options = [f"--output={tmp_path}", f"--external={folders / 'elsewhere'}", "--replicates=20"]
    report_command.main([str(folders / "run"), *options])
    with (tmp_path / "tables/shift_1.csv").open() as file:
        rows = {row["Measure"]: row for row in csv.DictReader(file)}
    assert (rows["images"]["test split"], rows["images"]["there"]) == ("240", "200")
    assert float(rows["AUC, mean"]["difference"]) < 0 < float(rows["predicted less observed, mean"]["difference_low"])
    assert "share of sex male" in rows
    with (tmp_path / "tables/shift_1_findings.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 14 * 6
    page = (tmp_path / "index.html").read_text()
    assert "elsewhere/size224/1.0.0, test, less the test split" in page
    assert "independent samples" in page


class TestRefused:
    def refused(self, folders, external, message):
        with pytest.raises(UserError, match=message):
            material.gather([folders / "run"], None, (), 5, None, external)

    def test_a_folder_without_an_evaluation(self, folders, tmp_path):
        self.refused(folders, [tmp_path], "no evaluation.json in it or in a folder of it; sdfn evaluate --output=")

    def test_another_network(self, folders, tmp_path):
        write(tmp_path, evaluation(data=THERE, checkpoint="another-digest"))
        self.refused(folders, [tmp_path], "of checkpoint another-dige.*which is that of none of the runs .*run")

    def test_the_same_images(self, folders, tmp_path):
        write(tmp_path, evaluation(data=HERE, first=100))
        said = (
            "40 of its images are in the test split too, such as ches00100_0.png, .*; the samples must be independent"
        )
        self.refused(folders, [tmp_path], said)

    def test_one_set_twice(self, folders, tmp_path):
        write(tmp_path, evaluation(data=THERE))
        self.refused(
            folders, [tmp_path, folders / "elsewhere"], "2 evaluations of stage 'fusion' on elsewhere/.*; give one"
        )

    def test_a_damaged_evaluation(self, folders, tmp_path):
        write(tmp_path, evaluation(data=THERE))
        (tmp_path / "probabilities.csv").write_text("image\n")
        self.refused(folders, [tmp_path], "probabilities.csv: no column patient.*evaluate again")
