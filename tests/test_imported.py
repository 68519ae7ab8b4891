"""From a weights file to a run that evaluates: no data, no training."""

import os
from pathlib import Path

import jax
import numpy as np
import other_process
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import save_file
from small import DENSENET, extractor_config
from test_weights import variables_of

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.files import file_digest
from sdfn_jax.models import backbones
from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.weights import torchxrayvision
from sdfn_jax.models.weights import weights_file as weights_weights_file
from sdfn_jax.radiographs import findings
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.training import evaluate, imported, tasks
from sdfn_jax.workflow import planning, stages, starting_weights
from sdfn_jax.workflow.classifier_stages import PublishedWeights

MODEL = DenseNet(**DENSENET)
CLASSES = tuple(reversed(FINDINGS))


def weights_file(folder, channels=3, outputs=14):
    tensors = weights_weights_file.branch_tensors(variables_of(MODEL, channels))
    generator = np.random.default_rng(1)
    features = tensors["features.norm5.weight"].size
    tensors["classifier.0.weight"] = generator.normal(size=(outputs, features)).astype(np.float32)
    tensors["classifier.0.bias"] = generator.normal(size=outputs).astype(np.float32)
    save_file(tensors, folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.fixture
def config(tmp_path) -> ConfigDict:
    config = extractor_config("entire", tmp_path / "run")
    config.data.size = 224
    return config


def test_the_run_computes_the_files_function_in_the_order_of_the_findings(tmp_path, config):
    found = weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES)
    imported.write_run(config, found)
    variables, metadata = checkpoint.read_best(config.workdir)
    assert metadata["imported"]["source"] == found.source
    assert metadata["inputs"]["pretrained"] == found.sha256

    task = tasks.classification(config)
    grey = np.random.default_rng(0).integers(0, 256, (2, 224, 224)).astype(np.uint8)
    images, _ = task.prepare({"entire": grey, "labels": np.zeros((2, 14))}, None)
    logits, _ = task.apply(variables, images, False)
    pixels = (grey[..., None] / np.float32(255) - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    pools = np.asarray(MODEL.apply(found.variables, pixels, False)).mean((1, 2))
    theirs = pools @ found.head["kernel"] + found.head["bias"]
    np.testing.assert_allclose(logits, theirs[:, ::-1], rtol=1e-4, atol=1e-5)


def test_training_takes_the_run_as_it_is(tmp_path, config):
    assert planning.training_state(config, {}) == "to do"
    imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES))
    assert planning.training_state(config, {"data": "any"}) == "there"
    config.pretrained = "imagenet"
    assert PublishedWeights.where_needed([config]) == []  # nothing starts from it
    config.model.growth_rate = 5
    with pytest.raises(UserError, match="weights.safetensors, another network than --config.model"):
        planning.training_state(config, {})


def test_an_old_workdir_is_refused_and_left_alone(tmp_path, config):
    found = weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES)
    imported.write_run(config, found)
    before = checkpoint.best_metadata(config.workdir)
    with pytest.raises(UserError, match="holds a run already"):
        imported.write_run(config, found)
    assert checkpoint.best_metadata(config.workdir) == before


def test_two_commands_do_not_write_into_one_workdir(tmp_path, config):
    found = weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES)
    lock = Path(config.workdir) / ".lock"
    lock.parent.mkdir()
    with other_process.holding(lock), pytest.raises(UserError, match="is being written by another command"):
        imported.write_run(config, found)
    assert checkpoint.best_metadata(config.workdir) is None
    imported.write_run(config, found)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.preprocessing.update(mean=(0.5, 0.5, 0.5)), "mean differ.*--config.preprocessing.mean="),
        (lambda config: config.data.update(size=96), "size differ.*--config.data.size='224'"),
        (lambda config: config.model.update(growth_rate=5), "not the network of --config.model"),
        (lambda config: config.update(stage="fusion"), "make an extractor, not the stage fusion"),
    ],
)
def test_what_does_not_fit_writes_nothing(tmp_path, config, change, message):
    found = weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES)
    change(config)
    with pytest.raises(UserError, match=message):
        imported.write_run(config, found)
    assert not (tmp_path / "run").exists()


def test_a_head_without_class_list_is_refused(tmp_path, config):
    with pytest.raises(UserError, match="does not say what its outputs are.*--classes"):
        imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL))


def test_torchxrayvision_reads_one_channel_of_its_own_range(tmp_path, config):
    names = [*FINDINGS, "Lung Lesion", "Fracture", "Lung Opacity", "Enlarged Cardiomediastinum"]
    found = weights_weights_file.read(weights_file(tmp_path, channels=1, outputs=18), MODEL, names)
    with pytest.raises(UserError, match="low, high, mean, std differ"):
        imported.write_run(config, found)
    config.preprocessing = {"low": -1024.0, "high": 1024.0, "mean": (0.0,), "std": (1.0,)}
    imported.write_run(config, found)
    image = tasks.classification(config).prepare(
        {"entire": np.full((1, 224, 224), 255, np.uint8), "labels": np.zeros((1, 14))}, None
    )[0]["entire"]
    assert image.shape == (1, 224, 224, 1)
    assert float(image.max()) == torchxrayvision.PREPROCESSING.high


def test_a_preprocessing_without_a_range_is_said(config):
    del config.preprocessing.low
    with pytest.raises(UserError, match="--config.preprocessing, .*missing.*low"):
        tasks.classification(config)


def test_evaluation_refuses_another_preprocessing_than_the_checkpoints(tmp_path, config):
    imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES))
    config.preprocessing.std = (1.0, 1.0, 1.0)
    with pytest.raises(UserError, match="run expects different preprocessing.*std differ"):
        evaluate.evaluate_classifier(config, tmp_path / "no-data", {}, "test")


def test_fusion_refuses_an_extractor_of_another_preprocessing(tmp_path, config):
    imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES))
    config.preprocessing.low = -1.0
    with pytest.raises(UserError, match="run expects different preprocessing.*low differ"):
        stages._starts(config, {"entire": config.workdir}, FINDINGS)


def test_fusion_refuses_an_extractor_of_other_findings(tmp_path, config):
    config.findings = ("Mass", "Edema")
    imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES))
    assert findings.named_in(checkpoint.best_metadata(config.workdir)) == ("Mass", "Edema")
    with pytest.raises(UserError, match="this network finds Mass, Edema, but the stage entire is to find Mass:"):
        stages._starts(config, {"entire": config.workdir}, ("Mass",))


class TestStart:
    """`config.pretrained` of a training run."""

    def test_a_foreign_file_is_loaded_and_named(self, tmp_path, config, capsys):
        config.pretrained = str(weights_file(tmp_path))
        config.data.size = 96  # another size is a choice of the recipe
        branches, recorded = stages._starts(config, {}, FINDINGS)
        jax.tree.map(np.testing.assert_array_equal, branches["entire"], variables_of(MODEL))
        assert recorded["pretrained"]["sha256"] == file_digest(config.pretrained)
        assert "CheXNet-style" in capsys.readouterr().out

    def test_the_file_is_read_once_and_again_if_it_was_rewritten(self, tmp_path, config, monkeypatch):
        config.pretrained, read, original = str(weights_file(tmp_path)), [], weights_weights_file.read
        monkeypatch.setattr(weights_weights_file, "read", lambda *asked: read.append(asked) or original(*asked))
        first = starting_weights.load(config)
        assert starting_weights.load(config) is first and len(read) == 1
        os.utime(config.pretrained, ns=(0, 0))
        starting_weights.load(config)
        assert len(read) == 2

    def test_a_run_is_started_from_by_its_branch_of_the_name_or_its_only_one(self, tmp_path, config):
        imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES))
        again = config.copy_and_resolve_references()
        again.pretrained, again.workdir, again.branches = config.workdir, str(tmp_path / "again"), ("lung",)
        branches, recorded = stages._starts(again, {}, FINDINGS)
        jax.tree.map(np.testing.assert_array_equal, branches["lung"], variables_of(MODEL))
        digest = checkpoint.best_metadata(config.workdir)["digest"]
        assert recorded["pretrained"] == {
            "source": "the entire branch of a run of the stage entire",
            "file": config.workdir,
            "sha256": digest,
        }
        assert stages.starting_points(again, {}) == {"pretrained": digest}

    def test_a_run_of_another_network_is_refused(self, tmp_path, config):
        imported.write_run(config, weights_weights_file.read(weights_file(tmp_path), MODEL, CLASSES))
        config.pretrained = config.workdir
        config.model.growth_rate += 1
        with pytest.raises(UserError, match="holds another network: its shape is .*was requested"):
            starting_weights.load(config)

    def test_another_preprocessing_is_refused(self, tmp_path, config):
        config.pretrained = str(weights_file(tmp_path, channels=1))
        with pytest.raises(UserError, match="low, high, mean, std differ"):
            starting_weights.load(config)

    def test_imagenet_is_the_first_step_of_the_plan_until_it_is_there(self, tmp_path, config, monkeypatch):
        monkeypatch.setenv("SDFN_CACHE", str(tmp_path / "cache"))
        config.pretrained = "imagenet"
        (stage,) = PublishedWeights.where_needed([config])
        url = backbones.BACKBONES["densenet"].imagenet.url
        assert (stage.name, stage.status.state, stage.reads) == ("published weights", "to do", url)
        assert stages.starting_points(config, {}) == {}
        (tmp_path / "cache").mkdir()
        stage.writes.write_bytes(b"x")
        assert PublishedWeights.where_needed([config])[0].there
        config.pretrained = "random"
        assert PublishedWeights.where_needed([config]) == []
