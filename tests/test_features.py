"""Cached features: the head trained on them is the one that the whole network trains; they are not taken on trust."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from small import InMemory, extractor_config, two_branch_examples

from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.stops import Stopped
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import features, steps, tasks, train
from sdfn_jax.training.input_pipeline import Rows
from sdfn_jax.training.metrics_log import MetricsLog

TRAINING, VALIDATION = two_branch_examples(14, seed=1), two_branch_examples(10, seed=2)
ORIGIN = {"data": "a" * 64, "entire": "b" * 64, "lung": "c" * 64, "preprocessing": {"mean": [0.5]}, "dtype": "float32"}
WIDTH = 2 * 8  # of the small network's two branches


def fusion_config(workdir) -> ConfigDict:
    config = extractor_config("entire", workdir)
    config.stage, config.branches, config.frozen = "fusion", ("entire", "lung"), True
    return config


def network(config):
    task = tasks.classification(config)
    variables = initial_variables(task.model, config.seed, task.inputs, train=False)
    # Other statistics than those of the batch, so that using the batch's shows.
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + np.float32(0.3), variables["batch_stats"])
    return task, variables


def cache(config, folder, examples=TRAINING, mirrored=True, origin=ORIGIN, name="train") -> Rows:
    task, variables = network(config)
    extractors = features.Extractors(task, config, variables, steps.device_mesh())
    return features.cached(extractors, examples, folder / f"{name}.npy", mirrored=mirrored, origin=origin)


def run(config, folder=None, change=lambda rows: rows):
    """Trains on features in `folder`, or with the whole network where it is None."""
    task, variables = network(config)
    training, validation = TRAINING, VALIDATION
    if folder is not None:
        training = change(cache(config, folder))
        validation = cache(config, folder, VALIDATION, mirrored=False, name="validation")
        task = tasks.fusion_head(task, config, variables)
        variables = {"params": {"head": variables["params"]["head"]}}
    train.train(
        task,
        config,
        training=training,
        validation=validation,
        initial_variables=lambda: variables,
        metadata={"stage": config.stage, "config": run_identity.as_json(config), "inputs": {}},
    )


def latest(config) -> dict[str, np.ndarray]:
    """The newest state by name, read as a run on features reads it."""
    task, variables = network(config)
    head = {"params": {"head": variables["params"]["head"]}}
    state = steps.initial_state(tasks.fusion_head(task, config, variables), config, head)
    return checkpoint.flatten(checkpoint.read_latest(config.workdir, state)[0])


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """(Folder of the features, the rows)."""
    folder = tmp_path_factory.mktemp("features")
    return folder, cache(fusion_config(folder), folder)


@pytest.fixture
def copy(stored, tmp_path):
    return shutil.copytree(stored[0], tmp_path / "copy")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    config = fusion_config(tmp_path_factory.mktemp("whole"))
    run(config)
    return config


@pytest.fixture(scope="module")
def on_features(tmp_path_factory, stored):
    config = fusion_config(tmp_path_factory.mktemp("on_features"))
    run(config, stored[0])
    return config


def test_they_are_the_means_of_the_feature_maps_of_each_image_and_its_mirror_image(stored):
    config = fusion_config(stored[0])
    task, variables = network(config)
    assert stored[1][0]["features"].shape == (2, WIDTH)
    for index, film in enumerate(TRAINING):
        for variant, step in enumerate((1, -1)):
            batch = {branch: film[branch][None, :, ::step] for branch in config.branches}
            images, _ = task.prepare({**batch, "labels": film["labels"][None]}, None)
            _, maps = task.model.apply(variables, images, train=False)
            expected = np.concatenate([np.asarray(maps[branch]).mean((1, 2))[0] for branch in config.branches])
            np.testing.assert_allclose(stored[1][index]["features"][variant], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(stored[1][index]["labels"], film["labels"])


def test_the_file_is_a_plain_npy_of_the_whole_split(stored):
    table = np.load(stored[0] / "train.npy")
    assert len(table) == len(TRAINING)
    np.testing.assert_array_equal(table["labels"], [film["labels"] for film in TRAINING])


def test_a_validation_split_has_no_mirror_images(tmp_path):
    assert cache(fusion_config(tmp_path), tmp_path, VALIDATION, mirrored=False)[0]["features"].shape == (1, WIDTH)


class TestTraining:
    def test_every_epoch_is_that_of_the_whole_network(self, whole, on_features):
        """1e-5: both sum the same float32 numbers, in batches of other sizes."""
        logs = [MetricsLog.read(config.workdir) for config in (whole, on_features)]
        assert len(logs[0]) == len(logs[1]) == 2
        for mine, theirs in zip(*logs, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-5)
        states = [latest(config) for config in (whole, on_features)]
        assert states[0].keys() == states[1].keys()
        for name, leaf in states[0].items():
            np.testing.assert_allclose(leaf, states[1][name], atol=1e-5, err_msg=name)

    def test_the_best_checkpoint_is_the_whole_network_of_the_same_epoch(self, whole, on_features):
        (theirs, their_metadata), (mine, metadata) = (checkpoint.read_best(c.workdir) for c in (whole, on_features))
        assert metadata["epoch"] == their_metadata["epoch"]
        theirs, mine = checkpoint.flatten(theirs), checkpoint.flatten(mine)
        assert mine.keys() == theirs.keys()
        start = checkpoint.flatten(network(whole)[1])
        for name, leaf in mine.items():
            if "/head/" in name:
                np.testing.assert_allclose(leaf, theirs[name], atol=1e-5)
                assert np.abs(leaf - start[name]).max() > 1e-3
            else:
                np.testing.assert_array_equal(leaf, start[name])

    @pytest.mark.parametrize("row", [1, 5])
    def test_stopped_it_goes_on_to_the_same_bits(self, tmp_path, stored, on_features, row):
        config = fusion_config(tmp_path)
        with pytest.raises(Stopped):
            run(config, stored[0], change=lambda rows: Stopping(rows, row))
        run(config, stored[0])
        for found in (checkpoint.latest_metadata, checkpoint.best_metadata):
            assert found(tmp_path)["digest"] == found(on_features.workdir)["digest"]
        assert MetricsLog.read(tmp_path) == MetricsLog.read(on_features.workdir)

    def test_a_run_may_go_on_with_the_whole_network(self, tmp_path, stored, whole):
        config = fusion_config(tmp_path)
        with pytest.raises(Stopped):
            run(config, stored[0], change=lambda rows: Stopping(rows, 5))
        run(config)
        mine, theirs = latest(config), latest(whole)
        for name, leaf in mine.items():
            np.testing.assert_allclose(leaf, theirs[name], atol=1e-5, err_msg=name)

    def test_a_state_from_before_frozen_branches_were_left_out_is_refused(self, tmp_path):
        config = fusion_config(tmp_path)
        task, variables = network(config)
        checkpoint.save_latest(
            tmp_path,
            3,
            steps.initial_state(task, config, variables),
            {"finished": False, "best_epoch": 0, "config": {}, "inputs": {}},
        )
        with pytest.raises(UserError, match=r"latest/3 was saved by another .* version: .*entire.* another folder"):
            run(config)

    def test_without_flips_one_vector_an_image_is_enough(self, tmp_path):
        config = fusion_config(tmp_path)
        config.flip = False
        task, variables = network(config)
        rows = cache(config, tmp_path, mirrored=False)
        head = tasks.fusion_head(task, config, variables)
        batch = rows[np.arange(4)]
        with_key, _ = head.prepare(batch, jax.random.key(0))
        np.testing.assert_array_equal(with_key, batch["features"][:, 0])


class Stopping(Rows):
    """Sends SIGTERM to this process when the trainer asks for the n-th batch."""

    def __init__(self, rows, number):
        self.__dict__.update(rows.__dict__)
        self.countdown = number if isinstance(number, list) else [number]

    def take(self, indices):
        return Stopping(super().take(indices), self.countdown)

    def __getitem__(self, index):
        self.countdown[0] -= 1
        if self.countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__getitem__(index)


class Counted(InMemory):
    """Notes which films are read; reading more than `limit` fails."""

    def __init__(self, films, read=None, limit=10**9):
        super().__init__(films)
        self.read, self.limit = [] if read is None else read, limit

    def take(self, indices):
        return Counted((list.__getitem__(self, index) for index in indices), self.read, self.limit)

    def __getitem__(self, index):
        film = super().__getitem__(index)
        self.read.append(film["name"])
        if len(self.read) > self.limit:
            raise OSError("the disk went away")
        return film


def content(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestOnDisk:
    def test_complete_they_are_not_touched_and_no_film_is_read(self, copy):
        before = {path: path.stat().st_mtime_ns for path in copy.iterdir()}
        films = Counted(TRAINING)
        cache(fusion_config(copy), copy, films)
        assert films.read == []
        assert {path: path.stat().st_mtime_ns for path in copy.iterdir()} == before

    def test_interrupted_they_are_not_computed_twice(self, tmp_path):
        films = two_branch_examples(40, seed=3)
        whole, stopped = (tmp_path / name for name in ("whole", "stopped"))
        config = fusion_config(tmp_path)
        cache(config, whole, films)
        with pytest.raises(OSError, match="went away"):
            cache(config, stopped, Counted(films, limit=35))
        blocks = len((stopped / "train.jsonl").read_text().splitlines()) - 1
        assert 1 <= blocks < 9
        counted = Counted(films)
        cache(config, stopped, counted)
        assert set(counted.read) == {film["name"] for film in films[4 * blocks :]}
        assert content(stopped) == content(whole)

    @pytest.mark.parametrize("record", [0, 5, -100, -3, None])
    @pytest.mark.parametrize("table", [0, 7, -50, None])
    def test_killed_at_any_moment_they_become_the_same_bytes(self, copy, stored, record, table, capsys):
        for name, kept in (("train.jsonl", record), ("train.npy", table)):
            path = copy / name
            path.write_bytes(path.read_bytes()[:kept])
        cache(fusion_config(copy), copy)
        assert content(copy) == content(stored[0])

    @pytest.mark.parametrize("place", [3, 200, 300, -1, -300])
    def test_damage_is_said_and_mended(self, copy, stored, place, capsys):
        data = bytearray((copy / "train.npy").read_bytes())
        data[place] ^= 1
        (copy / "train.npy").write_bytes(data)
        films = Counted(TRAINING)
        cache(fusion_config(copy), copy, films)
        assert "train.npy is damaged: from image" in capsys.readouterr().out
        assert len(films.read) > 1
        assert content(copy) == content(stored[0])

    def test_a_damaged_record_is_not_believed(self, copy, stored):
        lines = (copy / "train.jsonl").read_text().splitlines(keepends=True)
        for wrong in (lines[1].replace("4,", "8,", 1), lines[1].replace('"rows"', '"rovs"'), "[]\n", "3\n"):
            (copy / "train.jsonl").write_text("".join([lines[0], wrong, *lines[2:]]))
            films = Counted(TRAINING)
            cache(fusion_config(copy), copy, films)
            assert set(films.read) == {film["name"] for film in TRAINING}
            assert content(copy)["train.npy"] == content(stored[0])["train.npy"]

    def test_a_record_of_an_older_version_is_not_believed(self, copy, stored, capsys):
        """It had no digests: an origin, then the rows up to the end of each block."""
        table = (copy / "train.npy").read_bytes()
        origin = {**ORIGIN, "images": len(TRAINING), "row": "any"}
        block = {"rows": len(TRAINING), "sha256": hashlib.sha256(table).hexdigest()}
        (copy / "train.jsonl").write_text(f"{json.dumps(origin)}\n{json.dumps(block)}\n")
        (copy / "train.npy").write_bytes(bytes(len(table)))
        cache(fusion_config(copy), copy)
        assert "computed from something else (its journal is damaged or of an older version)" in capsys.readouterr().out
        assert content(copy) == content(stored[0])

    def test_batches_of_another_size_go_on_where_the_last_ended(self, tmp_path, stored):
        with pytest.raises(OSError, match="went away"):
            cache(fusion_config(tmp_path), tmp_path, Counted(TRAINING, limit=12))
        config, films = fusion_config(tmp_path), Counted(TRAINING)
        config.evaluation_batch_size = 8
        rows = cache(config, tmp_path, films)
        assert 1 < len(set(films.read)) <= 11
        assert len(cache(fusion_config(tmp_path), tmp_path)) == len(TRAINING)
        for index in range(len(TRAINING)):
            np.testing.assert_allclose(rows[index]["features"], stored[1][index]["features"], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("name", "value"),
        [("entire", "d" * 64), ("lung", "d" * 64), ("data", "d" * 64), ("dtype", "bfloat16"), ("preprocessing", {})],
    )
    def test_of_other_inputs_they_are_not_used_and_why_is_said(self, copy, name, value, capsys):
        films = Counted(TRAINING)
        cache(fusion_config(copy), copy, films, origin={**ORIGIN, name: value})
        assert f"computed from something else ({name}: " in capsys.readouterr().out
        assert set(films.read) == {film["name"] for film in TRAINING}
        films = Counted(TRAINING)
        cache(fusion_config(copy), copy, films, origin={**ORIGIN, name: value})
        assert len(films.read) == 0

    def test_of_another_number_of_images_or_variants_they_are_not_used(self, copy, capsys):
        assert len(cache(fusion_config(copy), copy, TRAINING.take(range(6)))) == 6
        assert "images: 14 then, 6 now" in capsys.readouterr().out
        cache(fusion_config(copy), copy, mirrored=False)
        assert "row: " in capsys.readouterr().out

    def test_a_full_disk_is_said_before_anything_is_computed(self, tmp_path, monkeypatch):
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
        films = Counted(TRAINING)
        with pytest.raises(UserError, match="GB are free: make room.*--config.cache_features=False"):
            cache(fusion_config(tmp_path), tmp_path, films)
        assert len(films.read) == 0


_ON_DEVICES = """
import sys
sys.path[:0] = ["tests", "."]
from pathlib import Path
import jax
import test_features
assert jax.device_count() == 4, jax.devices()
test_features.run(test_features.fusion_config(sys.argv[1]), Path(sys.argv[1]))
"""


def test_four_devices_give_the_same_losses(tmp_path, on_features):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4"}
    subprocess.run([sys.executable, "-c", _ON_DEVICES, str(tmp_path)], check=True, env=environment)
    for mine, theirs in zip(MetricsLog.read(tmp_path), MetricsLog.read(on_features.workdir), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
