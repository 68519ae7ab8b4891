"""Compiled programs outlive the process that compiled them."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from small import lrg_config

from sdfn_jax.core import checkpoint, jit_cache
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.unet import UNet

# A command, and then what jax says it did with its cache.
COUNTED = """
import collections, json, sys
import jax
from sdfn_jax import lrg

events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
lrg.main(sys.argv[1:])
print(json.dumps(events))
"""


def box_table(cache: Path, folder: Path, name: str) -> dict[str, int]:
    """Runs the box table's command in a process of its own; returns how often its programs were found and kept."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    arguments = [str(folder / "films"), f"--checkpoint={folder / 'lrg'}", f"--output={folder / name}"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COUNTED, *arguments],
        env=environment | {"SDFN_CACHE": str(cache)},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]) | {"said": done.stderr}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("box_table")
    config = lrg_config(folder / "lrg")
    side = config.data.size
    variables = initial_variables(
        UNet(filters=config.model.filters), 0, jax.ShapeDtypeStruct((1, side, side, 1), np.float32)
    )
    normalisation = {"mean": 0.5, "std": 0.25}
    checkpoint.save_best(
        config.workdir, 1, variables, {"config": json.loads(config.to_json()), "normalisation": normalisation}
    )
    (folder / "films").mkdir()
    film = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(film).save(folder / "films" / "a.png")
    return folder


def test_a_second_process_compiles_nothing(folder, tmp_path):
    first = box_table(tmp_path / "cache", folder, "first.csv")
    kept = sorted(path.name for path in (tmp_path / "cache" / "compiled").glob("*-cache"))
    assert first["cache_misses"] == len(kept) > 0
    assert (tmp_path / "cache" / "compiled").stat().st_mode & 0o077 == 0  # others could have us run their programs

    second = box_table(tmp_path / "cache", folder, "second.csv")
    assert (second.get("cache_misses", 0), second["cache_hits"]) == (0, first["cache_misses"])
    assert (folder / "second.csv").read_bytes() == (folder / "first.csv").read_bytes()


def test_damaged_programs_are_compiled_again_and_replaced(folder, tmp_path):
    cache = tmp_path / "cache"
    first = box_table(cache, folder, "first.csv")
    entry = max((cache / "compiled").glob("*-cache"), key=lambda path: path.stat().st_size)
    sound = entry.read_bytes()
    middle = len(sound) // 2
    flipped = sound[:middle] + bytes([sound[middle] ^ 1]) + sound[middle + 1 :]
    for damaged in (b"", sound[:-20], flipped):
        entry.write_bytes(damaged)
        again = box_table(cache, folder, "again.csv")
        assert again["said"].count(f"a compiled program in {cache / 'compiled'} was damaged; it is compiled again") == 1
        assert "Error reading" not in again["said"]
        assert (folder / "again.csv").read_bytes() == (folder / "first.csv").read_bytes()

    last = box_table(cache, folder, "last.csv")
    assert (last.get("cache_misses", 0), last["cache_hits"]) == (0, first["cache_misses"])
    assert "damaged" not in last["said"]


def test_a_cache_that_cannot_be_written_is_said_and_the_command_works(folder, tmp_path):
    (tmp_path / "file").touch()
    found = box_table(tmp_path / "file", folder, "without.csv")
    assert "compiled programs are not kept" in found["said"] and "SDFN_CACHE" in found["said"]
    assert (folder / "without.csv").is_file() and "cache_misses" not in found


@pytest.fixture
def jax_config():
    """Puts jax's settings back."""
    names = [
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    ]
    before = {name: getattr(jax.config, name) for name in names}
    with warnings.catch_warnings():
        yield jax.config
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_cache_that_the_user_chose_stays_as_it_is(jax_config, monkeypatch, tmp_path):
    monkeypatch.setenv("SDFN_CACHE", str(tmp_path))
    jax_config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    jit_cache.use_cache()
    assert jax_config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert jax_config.jax_compilation_cache_max_size == -1
    assert list(tmp_path.iterdir()) == []


def test_the_cache_has_a_limit(jax_config, monkeypatch, tmp_path):
    monkeypatch.setenv("SDFN_CACHE", str(tmp_path))
    jax_config.update("jax_compilation_cache_dir", None)
    jit_cache.use_cache()
    assert jax_config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    assert 0 < jax_config.jax_compilation_cache_max_size <= 2**30
