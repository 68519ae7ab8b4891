"""What is saved comes back bit for bit, or is refused."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from sdfn_jax.core import checkpoint
from sdfn_jax.core.errors import UserError

METADATA = {"config": {"learning_rate": 1e-4, "branches": ["entire"], "boxes": None}, "finished": False}


@struct.dataclass
class State:
    """A train state as the trainer's: arrays, scalars and states of optax, some of them named tuples."""

    step: Any
    params: dict
    opt_state: Any
    plateau: Any
    loss_sum: Any


def make_params(seed=0):
    generator = np.random.default_rng(seed)
    return {
        "entire": {"conv0": {"kernel": generator.normal(size=(3, 3, 1, 64)).astype(np.float32)}},
        "head": {"kernel": generator.normal(size=(64, 14)).astype(np.float32), "bias": np.zeros(14, np.float32)},
    }


def make_state(seed=0):
    params = make_params(seed)
    labels = {"entire": "frozen", "head": "trained"}
    optimizer = optax.partition({"trained": optax.adam(1e-3), "frozen": optax.set_to_zero()}, labels)
    state = optimizer.init(params)
    gradients = jax.tree.map(lambda leaf: leaf + 1, params)
    _, state = optimizer.update(gradients, state, params)
    return State(
        step=jnp.int32(seed),
        params=params,
        opt_state=state,
        plateau=optax.contrib.reduce_on_plateau().init(params),
        loss_sum=jnp.float32(0.1 + seed),
    )


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def variables(seed=0):
    return {"params": make_params(seed), "batch_stats": {"entire": {"norm0": {"mean": np.full(4, seed, np.float32)}}}}


def test_a_train_state_comes_back_bit_for_bit(tmp_path):
    state = make_state()
    masked = [
        leaf
        for leaf in jax.tree.leaves(state.opt_state, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode))
        if isinstance(leaf, optax.MaskedNode)
    ]
    assert masked  # the frozen branch, which has no moments
    checkpoint.save_latest(tmp_path, 7, state, METADATA)
    found, metadata = checkpoint.read_latest(tmp_path, make_state(seed=1))
    assert_same(found, state)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))
    assert metadata == {**METADATA, "step": 7, "digest": metadata["digest"]}
    assert metadata == checkpoint.latest_metadata(tmp_path)


def test_every_dtype_and_odd_number_comes_back(tmp_path):
    tree = {
        "bfloat16": jnp.arange(3, dtype=jnp.bfloat16),
        "float32": np.float32([np.nan, np.inf, -0.0, 1e-45]),
        "int32": np.int32(-5),
        "uint8": np.arange(256, dtype=np.uint8),
        "bool": np.array([True, False]),
    }
    checkpoint.save_latest(tmp_path, 1, tree, {})
    assert_same(checkpoint.read_latest(tmp_path, tree)[0], tree)


def test_the_best_comes_back_as_plain_dictionaries(tmp_path):
    checkpoint.save_best(tmp_path, 3, variables(), METADATA)
    found, metadata = checkpoint.read_best(tmp_path)
    assert_same(found, variables())
    assert metadata["digest"] == checkpoint.tree_digest(variables())
    assert metadata == checkpoint.best_metadata(tmp_path)


def test_a_network_without_batch_norm_has_no_statistics(tmp_path):
    checkpoint.save_best(tmp_path, 3, {"params": make_params(), "batch_stats": {}}, {})
    found, _ = checkpoint.read_best(tmp_path)
    assert_same(found, {"params": make_params(), "batch_stats": {}})


def test_the_digest_is_of_names_shapes_dtypes_and_bytes():
    trees = [
        {"a": np.zeros(4, np.float32), "b": np.ones(4, np.float32)},
        {"b": np.zeros(4, np.float32), "a": np.ones(4, np.float32)},
        {"a": np.zeros((2, 2), np.float32), "b": np.ones(4, np.float32)},
        {"a": np.zeros(4, np.int32), "b": np.ones(4, np.float32)},
        {"a": np.zeros(4, np.float32), "b": np.nextafter(np.ones(4, np.float32), np.float32(2))},
    ]
    assert len({checkpoint.tree_digest(tree) for tree in trees}) == len(trees)
    assert checkpoint.tree_digest(trees[0]) == checkpoint.tree_digest(jax.tree.map(jnp.asarray, trees[0]))


def saved_steps(folder):
    return sorted(int(path.name) for path in folder.iterdir())


def test_the_two_newest_stay_and_the_best_before_the_best(tmp_path):
    for step in (10, 20, 9000):
        checkpoint.save_latest(tmp_path, step, make_state(step), METADATA)
        checkpoint.save_best(tmp_path, step, variables(step), METADATA)
    assert saved_steps(tmp_path / "latest") == [20, 9000]
    assert saved_steps(tmp_path / "best") == [20, 9000]
    assert_same(checkpoint.read_latest(tmp_path, make_state())[0], make_state(9000))
    assert_same(checkpoint.read_best(tmp_path)[0], variables(9000))


def test_a_step_saved_again_is_replaced(tmp_path):
    for seed in (1, 2):
        checkpoint.save_latest(tmp_path, 5, make_state(seed), {"attempt": seed})
        checkpoint.save_best(tmp_path, 5, variables(seed), {"attempt": seed})
    found, metadata = checkpoint.read_latest(tmp_path, make_state())
    assert_same(found, make_state(2))
    assert metadata["attempt"] == 2
    assert_same(checkpoint.read_best(tmp_path)[0], variables(2))


def test_nothing_there(tmp_path):
    assert checkpoint.read_latest(tmp_path / "run", make_state()) is None
    assert checkpoint.latest_metadata(tmp_path / "run") is None
    assert checkpoint.best_metadata(tmp_path / "run") is None
    with pytest.raises(UserError, match=r"run holds no trained checkpoint .*Train .*python -m sdfn_jax.main"):
        checkpoint.read_best(tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with two latest states, of seeds 1 and 2, and a best."""
    workdir = tmp_path_factory.mktemp("saved") / "run"
    for step in (1, 2):
        checkpoint.save_latest(workdir, step, make_state(step), {})
    checkpoint.save_best(workdir, 2, variables(2), {})
    return workdir


@pytest.fixture
def run(saved, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(saved, tmp_path / "run")


def flip_bits(workdir):
    """Flips bits in each file of the newest state in turn, and reads; the states are those of `saved`.

    Prints {file: what was said of it} as JSON. What is read must be right, from this state or from the one before.
    """
    newest = workdir / "latest" / "2"
    generator = np.random.default_rng(0)
    said = {}
    for path in [path for path in newest.rglob("*") if path.is_file() and path.stat().st_size]:
        content = path.read_bytes()
        warnings = []
        for place in {0, *map(int, generator.integers(0, len(content), 2))}:
            damaged = bytearray(content)
            damaged[place] ^= 1 << int(generator.integers(8))
            path.write_bytes(damaged)
            with mock.patch.object(logging, "warning", lambda text, *values, to=warnings: to.append(text % values)):
                checkpoint.latest_metadata(workdir)
                found, _ = checkpoint.read_latest(workdir, make_state())
            assert_same(found, make_state(int(found.step)))
            assert warnings or found.step == 2
        path.write_bytes(content)
        said[str(path.relative_to(newest))] = " ".join(warnings)
    print(json.dumps(said))


def test_flipped_bits_are_noticed(run):
    """In a process of its own, because Orbax leaves asyncio's complaints behind in threads."""
    script = "import pathlib, sys, test_checkpoint as t; t.flip_bits(pathlib.Path(sys.argv[1]))"
    places = os.pathsep.join(["tests", "."])
    ended = subprocess.run(
        [sys.executable, "-c", script, run], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": places}
    )
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert f"{run}/latest/2 is damaged: arrays/manifest.ocdbt changed or missing" in said["arrays/manifest.ocdbt"]
    assert said["sha256.json"] == ""  # the arrays are what was saved
    arrays = " ".join(text for name, text in said.items() if "/d/" in name)
    assert f"{run}/latest/2 is damaged: its content has SHA-256" in arrays  # Orbax restored it without a word


def spoil(step_folder):
    """As a flipped bit in an array: Orbax restores it, but it is not what was saved."""
    path = step_folder / "metadata" / "metadata"
    metadata = json.loads(path.read_text())
    metadata["digest"] = metadata["digest"][::-1]
    path.write_text(json.dumps(metadata))


def test_the_state_before_a_damaged_one_is_read_with_a_warning(run, caplog):
    spoil(run / "latest" / "2")
    found, metadata = checkpoint.read_latest(run, make_state())
    assert_same(found, make_state(1))
    assert metadata["step"] == 1
    assert f"{run}/latest/2 is damaged" in caplog.text and "Going back to the checkpoint before it" in caplog.text


def test_a_run_that_went_back_behind_a_damaged_state_saves(run):
    """Orbax alone saves nothing below its newest step, and does not say so."""
    for step in (10, 20):
        checkpoint.save_latest(run, step, make_state(step), {})
        checkpoint.save_best(run, step, variables(step), {})
    spoil(run / "latest" / "20")
    assert checkpoint.read_latest(run, make_state())[1]["step"] == 10
    checkpoint.save_latest(run, 15, make_state(15), {})
    checkpoint.save_best(run, 15, variables(15), {})
    assert saved_steps(run / "latest") == [10, 15]
    assert_same(checkpoint.read_latest(run, make_state())[0], make_state(15))
    assert_same(checkpoint.read_best(run)[0], variables(15))


def test_a_damaged_best_is_refused_by_name(run):
    spoil(run / "best" / "2")
    with pytest.raises(checkpoint.DamagedCheckpointError, match=f"{run}/best/2 is damaged"):
        checkpoint.read_best(run)


@pytest.mark.parametrize("folder", ["latest", "best"])
def test_metadata_that_still_can_be_read_but_are_not_those_saved_are_damage(run, folder):
    path = run / folder / "2" / "metadata" / "metadata"
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "step": 3}))
    if folder == "best":
        with pytest.raises(checkpoint.DamagedCheckpointError, match="its metadata changed after it was saved"):
            checkpoint.best_metadata(run)
    else:
        assert checkpoint.latest_metadata(run)["step"] == 1


@pytest.mark.parametrize("content", ["{", "\0" * 50, "[]", "{}"])
def test_unreadable_metadata_is_damage(run, content):
    for folder in ("latest", "best"):
        (run / folder / "2" / "metadata" / "metadata").write_text(content)
    assert_same(checkpoint.read_latest(run, make_state())[0], make_state(1))
    with pytest.raises(
        checkpoint.DamagedCheckpointError, match=f"{run}/best/2 is damaged: its metadata cannot be read"
    ):
        checkpoint.read_best(run)


def test_a_checkpoint_with_an_empty_file_counts_as_not_made(run):
    """As versions up to 0.1 left it after a power cut."""
    for folder in ("latest", "best"):
        (run / folder / "2" / "metadata" / "metadata").write_text("")
    assert_same(checkpoint.read_latest(run, make_state())[0], make_state(1))
    assert checkpoint.best_metadata(run) is None
    checkpoint.save_best(run, 1, variables(1), {})
    assert saved_steps(run / "best") == [1]


def test_where_every_state_is_damaged_nothing_is_made_up(run):
    for step in "12":
        (run / "latest" / step / "metadata" / "metadata").write_text("{")
    for read in (checkpoint.latest_metadata, lambda workdir: checkpoint.read_latest(workdir, make_state())):
        with pytest.raises(UserError, match=f"{run}/latest: no checkpoint in it can be used.*from a copy") as refused:
            read(run)
        assert "delete" not in str(refused.value)
    (run / "best" / "2" / "metadata" / "metadata").write_text("{")
    with pytest.raises(UserError, match=f"{run}/best/2 is damaged.*Restore it from a copy"):
        checkpoint.best_metadata(run)


def test_an_empty_or_half_written_folder_is_no_state(run):
    (run / "latest" / "7").mkdir()
    shutil.copytree(run / "latest" / "2", run / "latest" / "8")
    shutil.rmtree(run / "latest" / "8" / "metadata")
    shutil.copytree(run / "latest" / "2", run / "latest" / "9.orbax-checkpoint-tmp")
    (run / "best" / "7").mkdir()
    found, metadata = checkpoint.read_latest(run, make_state())
    assert metadata["step"] == checkpoint.latest_metadata(run)["step"] == 2
    assert_same(found, make_state(2))
    assert_same(checkpoint.read_best(run)[0], variables(2))
    # And training continues over them.
    checkpoint.save_latest(run, 7, make_state(7), {})
    checkpoint.save_best(run, 7, variables(7), {})
    assert_same(checkpoint.read_latest(run, make_state())[0], make_state(7))
    assert_same(checkpoint.read_best(run)[0], variables(7))


def test_a_stray_folder_does_not_take_the_place_of_a_state(run):
    (run / "latest" / "7").mkdir()
    checkpoint.save_latest(run, 9, make_state(9), {})
    assert saved_steps(run / "latest") == [2, 9]


@pytest.mark.parametrize(
    ("name", "kernel", "message"),
    [
        ("kernel", np.zeros((64, 15), np.float32), r"float32\[64, 14\] instead of float32\[64, 15\]"),
        ("kernel", np.zeros((64, 14), np.float16), r"float32\[64, 14\] instead of float16\[64, 14\]"),
        ("kernal", np.zeros((64, 14), np.float32), r"float32\[64, 14\] instead of nothing"),
    ],
)
def test_a_state_of_another_network_is_refused_by_name(run, name, kernel, message):
    like = make_state()
    like = like.replace(params={**like.params, "head": {name: kernel, "bias": np.zeros(14, np.float32)}})
    with pytest.raises(UserError, match="params/head/kernel: " + message):
        checkpoint.read_latest(run, like)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32(1), {1, 2}])
def test_metadata_that_cannot_be_stored_costs_nothing(run, value):
    before = sorted(run.rglob("*"))
    for save, tree in ((checkpoint.save_best, variables(3)), (checkpoint.save_latest, make_state(3))):
        for step in (2, 3):
            with pytest.raises((ValueError, TypeError)):
                save(run, step, tree, {"score": value})
    assert sorted(run.rglob("*")) == before
    assert_same(checkpoint.read_best(run)[0], variables(2))
    assert_same(checkpoint.read_latest(run, make_state())[0], make_state(2))


SAVING = """
import sys
import numpy as np
from sdfn_jax.core import checkpoint
for step in range(1, 10_000):
    tree = {"params": {f"array{index}": np.full((200, 200), step + index, np.float32) for index in range(8)}}
    checkpoint.save_latest(sys.argv[1], step, tree, {"made": step})
    checkpoint.save_best(sys.argv[1], step, tree, {"made": step})
    print(step, flush=True)
"""


def test_a_kill_while_saving_leaves_what_was_saved(tmp_path):
    like = {"params": {f"array{index}": np.zeros((200, 200), np.float32) for index in range(8)}}
    generator = np.random.default_rng(0)
    process = subprocess.Popen([sys.executable, "-c", SAVING, tmp_path], stdout=subprocess.PIPE, text=True)
    with process:
        for line in process.stdout:
            if int(line) == 4:
                time.sleep(generator.uniform(0, 0.2))
                process.send_signal(signal.SIGKILL)
                break
        done = [int(line), *(int(rest) for rest in process.stdout)][-1]
    assert process.returncode == -signal.SIGKILL
    found, metadata = checkpoint.read_latest(tmp_path, like)
    assert done <= metadata["step"] <= done + 1
    for index in range(8):
        assert (found["params"][f"array{index}"] == metadata["step"] + index).all()
    best, best_metadata = checkpoint.read_best(tmp_path)
    assert done <= best_metadata["step"] <= done + 1
    assert (best["params"]["array0"] == best_metadata["step"]).all()
    checkpoint.save_latest(tmp_path, done + 1, like, json.loads("{}"))
    assert {path.name for path in (tmp_path / "latest").iterdir()} <= {str(step) for step in range(done - 1, done + 3)}
