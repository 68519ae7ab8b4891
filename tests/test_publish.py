"""A run as one file for people: it comes back bit for bit, its card says what is known, and damage is a sentence."""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load
from small import extractor_config

import sdfn_jax
from sdfn_jax import export
from sdfn_jax.core import checkpoint, run_metadata
from sdfn_jax.core.errors import UserError
from sdfn_jax.inference import publish
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import tasks

OLD = Path(__file__).parent / "run_0_1_0"  # a fusion network with all that belongs to it


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A copy: reading a run may lock it."""
    return Path(shutil.copytree(OLD, tmp_path_factory.mktemp("old") / "runs"))


@pytest.fixture(scope="module")
def file(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "sdfn.zip"
    export.main([f"--run={runs / 'fusion'}", f"--output={path}"])
    return path


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_it_is_the_run_bit_for_bit(runs, file):
    ours, theirs = sdfn_jax.load(file), sdfn_jax.load(runs / "fusion")
    for of in (lambda p: p.classifier.members[0], lambda p: p.lungs.segmenter.variables):
        jax.tree.map(np.testing.assert_array_equal, of(ours), of(theirs))
    assert (ours.provenance, ours.calibration) == (theirs.provenance, theirs.calibration)
    assert ours.lungs.postprocessing == theirs.lungs.postprocessing
    film = np.random.default_rng(0).integers(0, 256, (60, 50)).astype(np.uint8)
    assert ours(film).probabilities == theirs(film).probabilities


def test_anybody_can_look_into_it(file, runs):
    inside = contents(file)
    assert (
        {*json.loads(inside["sha256.json"])}
        == {*inside} - {"sha256.json"}
        == {*("MODEL_CARD.md", "fusion.safetensors", "fusion.json", "lrg.safetensors", "lrg.json", "calibration.json")}
    )
    head = checkpoint.read_best(runs / "fusion")[0]["params"]["head"]["kernel"]
    np.testing.assert_array_equal(load(inside["fusion.safetensors"])["classifier.weight"], head.T)


def test_its_card_says_what_is_known(file):
    card = contents(file)["MODEL_CARD.md"].decode()
    assert "**For research, not for diagnosis.**" in card
    for said in (
        *("| synthetic radiographs | yes |", "chestxray14/size48_labels2017/1.0.0", "| label version | 2017 |"),
        *("| learning_rate | 0.003 |", "| seed | 0 |", "AUC on test:", "19 films of 8 patients", "AUC on validation:"),
        *("| mean of 14 findings | 0.429 | ", "| Cardiomegaly | 0.812 | ", "SYNTHETIC", "SMALL SAMPLE"),
        *("Pleural thickening", "densenet, block_sizes", "lung region generator | a U-Net"),
    ):
        assert said in card, said


def test_what_is_not_known_is_not_claimed_and_no_folder_of_the_machine_is_named(tmp_path):
    config = extractor_config("entire", tmp_path / "jane" / "entire")
    config.data.manual_dir = "/home/jane/films"
    task = tasks.classification(config)
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    imported = run_metadata.Imported("mine.pth", "ab" * 32, "torchvision")
    metadata = run_metadata.make(
        config, {"pretrained": "ab" * 32}, data_version=None, drawings=None, **run_metadata.of_import(imported)
    )
    checkpoint.save_best(config.workdir, 0, variables, metadata)
    publish.publish(config.workdir, tmp_path / "entire.zip")
    inside = contents(tmp_path / "entire.zip")
    card = inside["MODEL_CARD.md"].decode()
    assert "unknown: the network was imported from a weights file" in card and "None: this checkpoint was not" in card
    assert "lrg.json" not in inside and b"jane" not in b"".join(inside.values())
    assert sdfn_jax.load(tmp_path / "entire.zip").provenance.imported["entire"] == imported


@pytest.mark.parametrize("what", ["cut", "bit", "edited", "swapped", "other", "empty", "no archive", "hostile name"])
def test_a_damaged_file_is_a_sentence(file, tmp_path, what):
    damaged, data, inside = tmp_path / "sdfn.zip", bytearray(file.read_bytes()), contents(file)
    if what == "bit":
        data[len(data) // 2] ^= 1
    elif what == "edited":
        inside["MODEL_CARD.md"] += b"For diagnosis."
    elif what == "swapped":  # each file is whole, but the network is another's
        network = bytearray(inside["fusion.safetensors"])
        network[-1] ^= 1
        inside["fusion.safetensors"] = bytes(network)
        digests = {name: hashlib.sha256(each).hexdigest() for name, each in inside.items() if name != "sha256.json"}
        inside["sha256.json"] = json.dumps(digests).encode()
    elif what == "other":
        inside = {"notes.txt": b"hello"}
    elif what == "hostile name":
        inside["../escaped.json"] = b"{}"
        inside["sha256.json"] = json.dumps({**json.loads(inside["sha256.json"]), "../escaped.json": "x"}).encode()
    damaged.write_bytes(
        {"cut": bytes(data[:-500]), "empty": b"", "no archive": b"not a zip archive"}.get(what, bytes(data))
    )
    if what in ("edited", "swapped", "other", "hostile name"):
        with zipfile.ZipFile(damaged, "w") as archive:
            for name, each in inside.items():
                archive.writestr(name, each)
    with pytest.raises(UserError, match=r"sdfn.zip: not a whole file of `sdfn export .*download or copy it again"):
        sdfn_jax.load(damaged)
    assert not (tmp_path.parent / "escaped.json").exists()


def test_a_lung_region_generator_has_its_own_format(runs, tmp_path):
    with pytest.raises(UserError, match="is a lung region generator: it exports to .safetensors, not to .zip"):
        publish.publish(runs / "lrg", tmp_path / "lrg.zip")
