"""A network that was trained elsewhere, in every command that reads runs: it is named, and nothing is guessed."""

import csv
import dataclasses
import html
import json
import math

import numpy as np
import pytest
from small import DENSENET, SIZE, fusion_config
from test_imported import weights_file

from sdfn_jax import localize as localize_command
from sdfn_jax import predict as predict_command
from sdfn_jax import report as report_command
from sdfn_jax.core import checkpoint, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import film_page, formats, selftest, server
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.metrics.evaluation import read_evaluation
from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.weights import weights_file as weights_weights_file
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.training import imported
from sdfn_jax.workflow import modes, plan, results

BRANCHES = ("entire", "lung")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two imported extractors and the fusion network on them: (folder, the weights file, what the main job printed)."""
    folder = tmp_path_factory.mktemp("imported")
    found = weights_weights_file.read(weights_file(folder), DenseNet(**DENSENET), FINDINGS)
    found = dataclasses.replace(found, preprocessing=dataclasses.replace(found.preprocessing, size=SIZE))
    config = fusion_config(folder)
    for stage in plan.classifiers(config)[:2]:
        imported.write_run(stage, found)
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        patch.setattr(results, "_HEATMAPS", 2)  # each takes a second
        modes.run(config, "train", "test")
    return folder, found, "\n".join(lines)


def film(folder):
    return next((folder / "synthetic" / "chestxray14").rglob("*.png"))


def test_the_main_job_trains_the_fusion_on_them_and_says_what_their_numbers_are_worth(made):
    folder, _, printed = made
    states = {step.name: step.state for step in plan.make_plan(fusion_config(folder))}
    assert states["extractor, entire branch"] == states["extractor, lung branch"] == "there"
    assert "] extractor" not in printed  # neither was trained
    assert "The entire network was imported from a weights file" in printed.replace("\n", " ")


@pytest.mark.parametrize("stage", [*BRANCHES, "fusion"])
def test_the_metadata_name_the_weights_file_and_nothing_that_is_not_known(made, stage):
    folder, found, _ = made
    training = run_metadata.read(checkpoint.best_metadata(folder / stage))
    file = run_metadata.Imported(found.file, found.sha256, found.source)
    if stage == "fusion":
        assert training.imported == dict.fromkeys(BRANCHES, file)
        assert (training.label_version, training.drawings) == ("2017", True)  # of what the head was trained on
    else:
        assert training == run_metadata.Training(None, None, None, {stage: file})


def test_runs_of_the_first_versions_are_read(made):
    folder, found, _ = made
    metadata = checkpoint.best_metadata(folder / "entire")
    for name in ("data_version", "drawings"):
        del metadata[name]
    del metadata["imported"]["sha256"]
    assert run_metadata.read(metadata) == run_metadata.read(checkpoint.best_metadata(folder / "entire"))


@pytest.mark.parametrize("stage", BRANCHES)
def test_predict_says_where_it_comes_from_and_that_its_data_are_unknown(made, stage, tmp_path, capsys):
    folder, found, _ = made
    with pytest.raises(SystemExit) as end:
        predict_command.main([str(film(folder)), f"--checkpoint={folder / stage}", f"--output={tmp_path / 'out'}"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert film_page.ELSEWHERE in printed
    assert f"imported from weights.safetensors ({found.source}; SHA-256 {found.sha256})" in printed
    record = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert [record[name] for name in ("data_version", "label_version", "drawings")] == [None] * 3
    assert record["imported"] == {
        stage: {"file": "weights.safetensors", "sha256": found.sha256, "source": found.source}
    }
    page = (tmp_path / "out" / "index.html").read_text()
    assert film_page.ELSEWHERE in page
    assert found.sha256 in page
    assert film_page.SYNTHETIC not in page
    with (tmp_path / "out" / "predictions.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["probability_Mass"]) < 1


def test_the_viewers_page_says_the_same(made):
    folder, found, _ = made
    predictor = Predictor.load(folder / "entire")
    page = "".join(film_page.document(predictor.provenance, (), largest_upload=server.LARGEST))
    assert film_page.ELSEWHERE in page
    assert found.sha256 in page
    reading = predictor.read("", np.zeros((64, 64), np.uint8))
    assert all(map(math.isfinite, reading.probabilities.values()))


def test_evaluation_knows_no_seed_and_warns(made):
    folder, _, _ = made
    for stage in BRANCHES:
        where = folder / stage / "evaluation" / "test"
        assert read_evaluation(where).origin.seed is None
        (caveat,) = (each for each in json.loads((where / "evaluation.json").read_text())["caveats"] if stage in each)
        assert "What it was trained on is unknown" in caveat
    assert read_evaluation(folder / "fusion" / "evaluation" / "test").origin.seed == 0


def test_an_extractor_of_the_other_branch_is_refused(made):
    folder, _, _ = made
    config = fusion_config(folder)
    config.lung.workdir = config.entire.workdir
    message = "entire holds weights.safetensors, imported as an extractor of the entire branch, not of the lung branch"
    with pytest.raises(UserError, match=message):
        plan.make_plan(config)
    lung = plan.classifiers(config)[1]
    with lung.unlocked():
        lung.lrg = config.lrg  # as in a config of this extractor alone
    with pytest.raises(UserError, match="entire holds a network of the stage entire, not lung"):
        modes.run(lung, "evaluate", "test")


def test_localize_reads_them(made, tmp_path):
    folder, _, _ = made
    localize_command.main([f"--run={folder / 'entire'}", f"--output={tmp_path}"])
    record = json.loads((tmp_path / "localization.json").read_text())
    assert record["checkpoint"] == checkpoint.best_metadata(folder / "entire")["digest"]


def test_the_report_gives_the_file_instead_of_a_recipe(made, tmp_path):
    folder, found, _ = made
    report_command.main(
        [*(str(folder / stage) for stage in (*BRANCHES, "fusion")), f"--output={tmp_path}", "--replicates=20"]
    )
    with (tmp_path / "tables" / "model_card.csv").open() as file:
        card = dict(row[:2] for row in csv.reader(file))
    assert card["Entire CXR: seed"] == "unknown"
    assert card["Entire CXR: recipe"].startswith("unknown: trained elsewhere, imported from weights.safetensors")
    assert found.sha256 in card["Lung region: recipe"]
    assert "num_epochs" in card["SDFN: recipe"]
    page = (tmp_path / "index.html").read_text()
    assert "SDFN: its lung branch's weights were imported from weights.safetensors" in html.unescape(page)


@pytest.mark.parametrize("stage", ["entire", "fusion"])
def test_an_export_carries_the_file_it_was_imported_from(made, stage, tmp_path):
    folder, found, _ = made
    formats.export(folder / stage, tmp_path / "network.safetensors")
    _, record = formats.read_variables(tmp_path / "network.safetensors")
    assert record["imported"]["entire"]["sha256"] == found.sha256
    if stage == "entire":
        again = weights_weights_file.read(tmp_path / "network.safetensors", DenseNet(**DENSENET))
        np.testing.assert_array_equal(again.head["kernel"], found.head["kernel"])


def test_the_selftest_is_not_made_from_one(made):
    folder, _, _ = made
    with pytest.raises(UserError, match="made from the demo's fusion network"):
        selftest.make(folder / "entire")
