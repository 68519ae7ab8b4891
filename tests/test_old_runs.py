"""A run that version 0.1.0 left (tiny networks, synthetic films) gives every reader of runs the same numbers."""

import json
import shutil
from pathlib import Path

import pytest

from sdfn_jax.core import checkpoint
from sdfn_jax.inference import selftest
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.lungs import box_table
from sdfn_jax.metrics import calibration
from sdfn_jax.metrics.evaluation import read_evaluation, table_of, write_evaluation
from sdfn_jax.radiographs import pixels

OLD = Path(__file__).parent / "run_0_1_0"
READINGS = json.loads((OLD / "readings.json").read_text())  # by that version, on two synthetic films
# Other processors and versions of XLA round differently.
TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A copy: reading a run may lock it."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "runs"))


@pytest.fixture(scope="module")
def predictor(runs):
    return Predictor.load(runs / "fusion")


@pytest.fixture(scope="module")
def films():
    records = {record["name"]: record for record in json.loads(selftest.FILMS_FILE.read_text())["films"]}
    return [selftest.synthetic_film_of(records[reading["film"]]) for reading in READINGS]


def test_its_networks_give_the_probabilities_and_boxes_they_gave(predictor, films):
    for film, then in zip(films, READINGS, strict=True):
        now = predictor.read(film.name, film.draw().image)
        assert now.probabilities == pytest.approx(then["probabilities"], abs=TOLERANCE)
        assert (list(now.lung_box), now.rule) == (then["lung_box"], then["rule"])


def test_its_lung_region_generator_finds_the_lungs_it_found(predictor, films):
    segmenter = predictor.lungs.segmenter
    for film, then in zip(films, READINGS, strict=True):
        resized = pixels.resize(film.draw().image, (segmenter.size,) * 2)
        assert segmenter.probabilities(resized[None]).mean() == pytest.approx(then["lung_probability"], abs=TOLERANCE)


def test_its_configs_are_read_under_the_names_of_today(runs):
    config = checkpoint.best_metadata(runs / "fusion")["config"]
    assert [config["branches"], config["entire"]["branches"], config["lung"]["branches"]] == [
        ["entire", "lung"],
        ["entire"],
        ["lung"],
    ]


def test_its_evaluations_calibration_and_box_table_are_read(runs):
    digest = checkpoint.best_metadata(runs / "fusion")["digest"]
    for split, images in (("validation", 5), ("test", 19)):
        evaluation = read_evaluation(runs / "fusion" / "evaluation" / split)
        assert (evaluation.origin.checkpoint, len(evaluation.predictions.images)) == (digest, images)
        assert table_of(runs / "fusion" / "evaluation" / split).name == "predictions.csv"
    assert calibration.of_checkpoint(runs / "fusion", digest)[0].images == 5
    assert len(box_table.read_box_table(runs / "lrg" / "lung_boxes.csv")) == 60


def test_evaluating_again_leaves_one_table(runs, tmp_path):
    """Under its new name; the old one would be of another evaluation."""
    where = Path(shutil.copytree(runs / "fusion" / "evaluation" / "test", tmp_path / "test"))
    before = read_evaluation(where)
    write_evaluation(where, before)
    assert sorted(path.name for path in where.iterdir()) == ["evaluation.json", "probabilities.csv"]
    assert read_evaluation(where).predictions.images == before.predictions.images
