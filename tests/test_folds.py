import itertools

import numpy as np
import pytest

from sdfn_jax.core.errors import UserError
from sdfn_jax.metrics import predictions
from sdfn_jax.metrics.evaluation import Evaluation, Origin, evaluation_folder, table_of, write_evaluation
from tools import folds

FINDINGS = ("Tuberculosis",)


def write_fold(folder, number, count=24, first=0):
    """Three networks, each better than the one before, whose scores are on another scale in every fold."""
    generator = np.random.default_rng(number)
    labels = (np.arange(count) % 3 == 0).astype(np.uint8)[:, None]
    images = tuple(f"{first + index}.png" for index in range(count))
    for better, stage in enumerate(folds.NETWORKS):
        noise = generator.random((count, 1))
        probabilities = (0.2 + 0.1 * better) * labels + 0.3 * noise + 0.2 * (number % 2)
        origin = Origin(stage, "0" * 64, "1.0.0", None, "test", False, 0)
        found = predictions.Predictions(images, np.arange(count), probabilities, labels, FINDINGS)
        write_evaluation(evaluation_folder(folder / stage, "test"), Evaluation(origin, found))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [write_fold(tmp_path / f"fold_{number}", number, first=100 * number) for number in range(3)]


def test_the_auc_counts_pairs_of_films_that_one_network_read(runs):
    found = folds.read(runs)
    for network in folds.NETWORKS:
        won = pairs = 0
        for fold in found:
            labels, scores = fold[network].labels[:, 0], fold[network].probabilities[:, 0]
            for positive, negative in itertools.product(scores[labels == 1], scores[labels == 0]):
                won, pairs = won + (positive > negative) + 0.5 * (positive == negative), pairs + 1
        replicates = folds.auc_replicates(found, network, 0)
        assert replicates[0] == won / pairs
        assert abs(np.mean(replicates[1:]) - replicates[0]) < 0.01
        together = [
            np.concatenate([getattr(fold[network], name)[:, 0] for fold in found])
            for name in ("labels", "probabilities")
        ]
        assert folds.scores.auc(*together) != replicates[0]  # scores of different networks are not on one scale


def test_the_tables_name_networks_differences_and_each_fold(runs):
    text = "\n".join(folds.lines(folds.read(runs)))
    assert "Tuberculosis: 24 present, 48 absent; folds: 3" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    of_networks = {row[0]: row for row in rows if row[0] in folds.NETWORKS}
    assert all(len(row[2].split(",")) == 3 for row in of_networks.values())
    of_differences = {row[0]: row for row in rows if " less " in row[0]}
    assert list(of_differences) == ["lung less entire", "fusion less entire", "fusion less lung"]
    found = folds.read(runs)
    value = folds.auc_replicates(found, "fusion", 0)[0] - folds.auc_replicates(found, "entire", 0)[0]
    assert of_differences["fusion less entire"][1].startswith(f"{value:+.3f} (")


def test_a_film_tested_twice_or_an_evaluation_that_is_missing_is_named(runs, tmp_path):
    with pytest.raises(UserError, match=r"100.png is a test film of .*fold_1 and of .*again: folds share no films"):
        folds.read([*runs, write_fold(tmp_path / "again", 7, first=100)])
    with pytest.raises(
        UserError, match=r"nowhere/entire/evaluation/test/evaluation.json is missing; train and evaluate"
    ):
        folds.read([*runs, tmp_path / "nowhere"])
    table_of(evaluation_folder(runs[1] / "lung", "test")).unlink()
    with pytest.raises(UserError, match="fold_1"):
        folds.read(runs)


def test_networks_of_a_fold_must_have_been_tested_on_the_same_films(runs, tmp_path):
    other = write_fold(tmp_path / "other", 1, first=500)
    (runs[1] / "lung").rename(tmp_path / "old")
    (other / "lung").rename(runs[1] / "lung")
    with pytest.raises(UserError, match="fold_1: entire and lung were tested on different films"):
        folds.read(runs)
