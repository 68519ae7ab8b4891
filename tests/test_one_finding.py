"""A report of one finding with unknown labels: nothing of the paper, no mean, and numbers of what is known."""

import csv
import re

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from sdfn_jax.core import run_identity
from sdfn_jax.inference import model_card
from sdfn_jax.metrics.evaluation import Evaluation, Origin, write_evaluation
from sdfn_jax.metrics.predictions import Predictions
from sdfn_jax.radiographs.findings import FINDINGS, display_name, named_in
from sdfn_jax.radiographs.labels import UNKNOWN, known
from sdfn_jax.reporting import report

FILMS = 160
LABELS = np.random.default_rng(0).integers(0, 2, (2 * FILMS, 1)).astype(np.uint8)
SCORES = {
    stage: np.clip(0.3 * LABELS + 0.7 * np.random.default_rng(seed).random(LABELS.shape), 0, 1)
    for seed, stage in enumerate(("entire", "lung", "fusion"), 1)
}
ROWS = {"validation": slice(0, FILMS), "test": slice(FILMS, None)}
GIVEN = np.where(np.arange(2 * FILMS)[:, None] % 5 == 0, UNKNOWN, LABELS).astype(np.uint8)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for stage, scores in SCORES.items():
        for split, rows in ROWS.items():
            names = tuple(f"{number}.png" for number in range(2 * FILMS)[rows])
            origin = Origin(stage, f"{stage}-digest", "own/size224/1.0.0", None, split, False, 0)
            patients = np.array([f"P{name}" for name in names])
            made = Predictions(names, patients, scores[rows], GIVEN[rows], ("COVID_19",))
            write_evaluation(folder / stage / "evaluation" / split, Evaluation(origin, made))
    return report.write_report([folder / stage for stage in SCORES], folder / "report", None, (), 20)


def table(page, name):
    with (page.parent / "tables" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_report_has_one_row_and_says_of_how_many_films(page):
    (row,) = table(page, "table_1_intervals")
    test = ROWS["test"]
    sure = known(GIVEN[test, 0])
    assert row["Finding"] == "COVID 19"
    assert int(row["of images"]) == sure.sum() and int(row["positives"]) == LABELS[test][sure].sum()
    for stage, head in (("entire", "Entire CXR"), ("fusion", "SDFN")):
        expected = roc_auc_score(LABELS[test][sure, 0], SCORES[stage][test][sure, 0])
        assert float(row[head]) == pytest.approx(expected, abs=1e-12)
    (brier,) = table(page, "calibration")
    expected = np.mean((SCORES["fusion"][test][sure] - LABELS[test][sure]) ** 2)
    assert float(brier["SDFN: Brier"]) == pytest.approx(expected, abs=1e-12)
    points = table(page, "operating_points")
    assert {int(point["positives"]) for point in points} == {LABELS[test][sure].sum()}
    assert {int(point["validation positives"]) for point in points} == {
        LABELS[ROWS["validation"]][GIVEN[ROWS["validation"], 0] < 2].sum()
    }


def test_the_report_compares_with_no_paper_and_has_no_mean_of_one(page):
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", page.read_text(), flags=re.DOTALL)
    assert "SDFN: AUC of COVID 19 " in text and "on 160 films of 160 patients" in text
    for absent in (
        "the paper's",
        "reproduce",
        "14 findings",
        "mean AUC",
        "Mean of",
        "of 1 findings",
        "Holm",
        "NIH Clinical",
    ):
        assert absent not in text.replace("The paper does not say", "")
    assert not (page.parent / "figures" / "against_the_paper.png").exists()


def test_the_model_card_has_one_row_of_the_finding(page):
    card = model_card._figure(page.parent.parent / "fusion", "test", "fusion-digest")
    assert [line.split("|")[1].strip() for line in card.splitlines() if line.startswith("| ")] == ["", "COVID 19"]
    assert "None" not in card


def test_names_of_other_class_lists_keep_their_spelling():
    assert [display_name(name) for name in ("Pleural_Thickening", "COVID_19", "old TB")] == [
        "Pleural thickening",
        "COVID 19",
        "Old TB",
    ]


def test_metadata_from_before_there_were_lists_is_of_the_14():
    assert named_in({}) == FINDINGS and named_in({"findings": ["Edema"]}) == ("Edema",)


def test_a_config_from_before_there_were_lists_is_the_same_recipe():
    old = {"data": {"size": 224}, "num_epochs": 3}
    assert run_identity.recipe({**old, "findings": [], "uncertain": "ignore"}) == run_identity.recipe(old)
    for name, value in (("findings", ["Edema"]), ("uncertain", "one")):
        assert run_identity.recipe({**old, name: value}) != run_identity.recipe(old)
