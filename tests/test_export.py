"""Trained stages leave this project exactly, and run elsewhere."""

import json
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import other_process
import pytest
from densenet_peers import SMALL, import_torchvision, our_outputs, random_images, torch_outputs
from peers import assert_close, import_peer
from small import extractor_config, fusion_config, lrg_config
from test_densenet import random_variables

from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import formats
from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.weights import weights_file
from sdfn_jax.radiographs.findings import FINDINGS
from sdfn_jax.training import tasks

SIZES = {"entire": 75, "fusion": 64}  # odd (75, 38, 19, 9 on the way down) and even


def save_run(config, variables, **extra):
    metadata = {"stage": config.stage, "config": run_identity.as_json(config), "inputs": {}, **extra}
    checkpoint.save_best(config.workdir, 3, variables, metadata)
    return config.workdir


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of an extractor, a fusion network and an LRG with random, far from initial, weights."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for config in (extractor_config("entire", folder / "entire"), fusion_config(folder)):
        config.model = dict(SMALL)
        config.data.size = SIZES[config.stage]
        task = tasks.classification(config)
        variables = initial_variables(task.model, 1, task.inputs, train=False)
        for seed, name in enumerate(config.branches):
            branch = random_variables(DenseNet(**SMALL), seed)
            for kind in ("params", "batch_stats"):
                variables[kind][name] = branch[kind]
        head = variables["params"]["head"]
        variables["params"]["head"] = {name: 4 * array + 0.1 for name, array in head.items()}
        found[config.stage] = save_run(config, variables)
    config = lrg_config(folder / "lrg")
    task = tasks.segmentation(config, {"mean": 0.5, "std": 0.2})
    variables = initial_variables(task.model, 1, task.inputs)
    found["lrg"] = save_run(config, variables, normalisation={"mean": 0.5, "std": 0.2})
    return found


def grey_images(record: dict, count: int) -> list[np.ndarray]:
    side = record["preprocessing"]["size"]
    return list(
        np.random.default_rng(8).integers(0, 256, (len(record["branches"]), count, side, side)).astype(np.uint8)
    )


def checkpoint_probabilities(workdir, images):
    """The evaluation's own road: task.prepare, task.apply."""
    variables, metadata = checkpoint.read_best(workdir)
    config = fusion_config(Path(workdir)) if metadata["stage"] == "fusion" else extractor_config("entire", workdir)
    config.model = dict(SMALL)
    config.data.size = SIZES[config.stage]
    task = tasks.classification(config)
    batch = dict(zip(config.branches, images, strict=True)) | {"labels": np.zeros((len(images[0]), 14))}
    logits, _ = task.apply(variables, task.prepare(batch, None)[0], False)
    return 1 / (1 + np.exp(-np.asarray(logits, np.float64)))


@pytest.mark.parametrize("stage", ["entire", "fusion", "lrg"])
def test_safetensors_come_back_bit_for_bit(runs, tmp_path, stage):
    said = formats.export(runs[stage], tmp_path / "out.safetensors")
    variables, metadata = checkpoint.read_best(runs[stage])
    again, record = formats.read_variables(tmp_path / "out.safetensors")
    again, variables = checkpoint.flatten(again), checkpoint.flatten(variables)
    assert again.keys() == variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    assert record["checkpoint"] == metadata["digest"]
    assert metadata["digest"][:12] in said
    if stage == "lrg":
        assert record["normalisation"] == {"mean": 0.5, "std": 0.2}
    else:
        assert record["classes"] == list(FINDINGS)
        assert record["preprocessing"]["size"] == SIZES[stage]


def test_an_export_from_before_branches_had_their_name_is_read(runs, tmp_path):
    file, archive = tmp_path / "out.safetensors", tmp_path / "out.stablehlo"
    for output in (file, archive):
        formats.export(runs["fusion"], output)
    file.write_bytes(file.read_bytes().replace(rb"\"branches\":", rb"\"views\":   "))  # as long as it was
    with zipfile.ZipFile(archive) as whole:
        content = {name: whole.read(name).replace(b'"branches"', b'"views"') for name in whole.namelist()}
    with zipfile.ZipFile(archive, "w") as whole:
        for name, part in content.items():
            whole.writestr(name, part)
    assert "views" in file.read_bytes()[:4096].decode(errors="replace") and b'"views"' in content["record.json"]
    variables, record = formats.read_variables(file)
    assert checkpoint.tree_digest(variables) == record["checkpoint"]
    assert record["branches"] == formats.read_stablehlo(archive)[1]["branches"] == ["entire", "lung"]


def test_an_exported_extractor_is_a_weights_file(runs, tmp_path):
    formats.export(runs["entire"], tmp_path / "out.safetensors")
    found = weights_file.read(tmp_path / "out.safetensors", DenseNet(**SMALL))
    variables, metadata = checkpoint.read_best(runs["entire"])
    jax.tree.map(np.testing.assert_array_equal, found.variables["params"], variables["params"]["entire"])
    jax.tree.map(np.testing.assert_array_equal, found.findings_head(), variables["params"]["head"])
    assert found.sha256 == metadata["digest"]


@pytest.mark.parametrize("stage", ["fusion", "lrg"])
def test_other_exported_networks_are_no_weights_file(runs, tmp_path, stage):
    formats.export(runs[stage], tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=f"an exported network of the stage {stage}, not the weights of one"):
        weights_file.read(tmp_path / "out.safetensors", DenseNet())


@pytest.mark.parity
def test_torchvision_loads_the_extractor_and_computes_the_same(runs, tmp_path):
    formats.export(runs["entire"], tmp_path / "out.safetensors")
    network = import_torchvision().models.densenet.DenseNet(*SMALL.values(), num_classes=14).eval()
    network.load_state_dict(import_peer("safetensors.torch").load_file(tmp_path / "out.safetensors"), strict=True)
    found = weights_file.read(tmp_path / "out.safetensors", DenseNet(**SMALL))
    images = random_images((2, 75, 51))
    for name, ours, theirs in zip(
        ("features", "logits"), our_outputs(found, images), torch_outputs(network, images), strict=True
    ):
        assert_close(ours, theirs, name)


@pytest.mark.parametrize("stage", ["entire", "fusion"])
def test_stablehlo_computes_the_checkpoints_function(runs, tmp_path, stage):
    said = formats.export(runs[stage], tmp_path / "out.stablehlo")
    call, record = formats.read_stablehlo(tmp_path / "out.stablehlo")
    images = grey_images(record, 2)
    np.testing.assert_allclose(call(*images), checkpoint_probabilities(runs[stage], images), atol=1e-5)
    assert record["classes"] == list(FINDINGS)
    assert "within" in said
    assert call(*grey_images(record, 5)).shape == (5, 14)  # any batch


@pytest.mark.parity
@pytest.mark.parametrize("stage", ["entire", "fusion"])
def test_onnxruntime_computes_the_checkpoints_function(runs, tmp_path, stage):
    runtime = import_peer("onnxruntime")
    formats.export(runs[stage], tmp_path / "out.onnx")
    session = runtime.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    record = session.get_modelmeta().custom_metadata_map
    record = {name: json.loads(record[name]) for name in ("branches", "classes", "preprocessing")}
    images = grey_images(record, 5)
    (found,) = session.run(None, dict(zip(record["branches"], images, strict=True)))
    expected = checkpoint_probabilities(runs[stage], images)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert record["classes"] == list(FINDINGS)
    assert record["preprocessing"]["mean"] == [0.485, 0.456, 0.406]


@pytest.mark.parametrize("name", ["out.onnx", "out.stablehlo"])
def test_a_network_with_test_time_flips_keeps_them(runs, tmp_path, name):
    variables, metadata = checkpoint.read_best(runs["entire"])
    metadata["config"]["test_time_flip"] = True
    checkpoint.save_best(tmp_path, 3, variables, metadata)
    formats.export(tmp_path, tmp_path / name)
    (images,) = grey_images(formats.record_of(metadata), 2)
    if name.endswith("onnx"):
        session = import_peer("onnxruntime").InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        found, mirrored = (session.run(None, {"entire": each})[0] for each in (images, images[:, :, ::-1].copy()))
    else:
        call, _ = formats.read_stablehlo(tmp_path / name)
        found, mirrored = (call(each) for each in (images, images[:, :, ::-1]))
    np.testing.assert_allclose(found, mirrored, atol=1e-5)
    once = checkpoint_probabilities(runs["entire"], [images])
    assert not np.allclose(found, once, atol=1e-3)


def test_what_does_not_agree_is_not_written(runs, tmp_path, monkeypatch):
    right = formats.probabilities

    def wrong(variables, metadata):
        return lambda *images: right([variables], metadata)(*images) + 2e-4

    real = formats._compare
    monkeypatch.setattr(formats, "_compare", lambda exported, _, metadata: real(exported, wrong(*read), metadata))
    read = checkpoint.read_best(runs["entire"])
    with pytest.raises(UserError, match="probabilities differ from the checkpoint.s .by 0.0002"):
        formats.export(runs["entire"], tmp_path / "out.stablehlo")
    assert list(tmp_path.iterdir()) == []


def test_two_commands_do_not_write_one_file(runs, tmp_path):
    output = tmp_path / "out.safetensors"
    with (
        other_process.holding(tmp_path / ".out.safetensors.lock"),
        pytest.raises(UserError, match="out.safetensors is being written by another command"),
    ):
        formats.export(runs["lrg"], output)
    formats.export(runs["lrg"], output)
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("stage", "name", "message"),
    [
        ("entire", "out.pb", "must end with one of .safetensors, .stablehlo, .onnx"),
        ("lrg", "out.onnx", "exports to .safetensors, not to .onnx"),
    ],
)
def test_what_cannot_be_written_is_said(runs, tmp_path, stage, name, message):
    with pytest.raises(UserError, match=message):
        formats.export(runs[stage], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "package"), [("x.onnx", "onnxruntime"), ("x.stablehlo", "flatbuffers")])
def test_a_missing_package_is_said(runs, tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "jax._src.export.serialization", raising=False)
    with pytest.raises(UserError, match=r"needs more packages .*\[export\]"):
        formats.export(runs["entire"], tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_run_is_said(tmp_path):
    with pytest.raises(UserError, match="holds no trained checkpoint"):
        formats.export(tmp_path, tmp_path / "out.onnx")
