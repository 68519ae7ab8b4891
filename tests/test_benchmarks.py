"""Every benchmark still runs: its smallest form, whose numbers mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import lrg, record, tpu
from sdfn_jax.models import kernels, unet


@pytest.mark.long
@pytest.mark.parametrize("name", benchmarks.BENCHMARKS)
def test_its_smallest_form_runs(name, tmp_path):
    command = [sys.executable, "-m", "benchmarks", f"--only={name}", "--quick", f"--output={tmp_path / 'found.json'}"]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["rows"] and all(row["ours"] > 0 and row["what"] in done.stdout for row in found["rows"])
    assert list(found["records"]) == [name]


def test_none_is_forgotten():
    modules = {path.stem for path in (Path(__file__).parent.parent / "benchmarks").glob("*.py")}
    assert modules - {"__main__", "record", "films", "tpu"} == benchmarks.BENCHMARKS.keys()  # tpu needs libtpu


def test_one_that_fails_is_listed_and_the_others_go_on(tmp_path, monkeypatch, capfd):
    argv = ["benchmarks", "--only=lrg,bootstrap", "--quick", f"--output={tmp_path / 'found.json'}"]
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setitem(benchmarks.BENCHMARKS, "lrg", benchmarks.Benchmark(("--no_such_flag",)))
    with pytest.raises(SystemExit) as ended:
        benchmarks.main()
    assert ended.value.code == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert "--no_such_flag" in found["not_run"]["lrg"] and list(found["records"]) == ["bootstrap"]
    assert "not run: lrg" in capfd.readouterr().out


def test_a_compiled_programs_collectives_are_counted_in_bytes():
    hlo = """
      %all-reduce.1 = f32[512]{0:T(512)} all-reduce(%x), channel_id=1, to_apply=%add
      %start = (bf16[8,4]{1,0:T(8,128)}, f32[]{:T(128)}) all-reduce-start(%y, %z), channel_id=2
      %done = (bf16[8,4]{1,0}, f32[]) all-reduce-done(%start)
      ROOT %gather = u8[2,3,5]{2,1,0} all-gather(%w), dimensions={0}
      %fusion = f32[512]{0} fusion(%all-reduce.1), kind=kLoop"""
    assert list(tpu.collectives_of(hlo)) == [("all-reduce", 2048), ("all-reduce", 68), ("all-gather", 30)]


@pytest.mark.parametrize("stage", tpu.STAGES)
def test_the_steps_that_are_compiled_for_tpus_have_the_shapes_of_training(stage):
    setting = {"stage": stage, "batch": 8, "dtype": "bfloat16", "form": "plain", "blocks": 2}
    config, task, batch, _ = tpu.stage(setting)
    assert (config.batch_size, config.dtype, task.model.dtype) == (8, "bfloat16", jnp.bfloat16)
    images, targets = jax.eval_shape(lambda batch: task.prepare(batch, None), batch)
    assert {leaf.shape[1:] for leaf in jax.tree.leaves(images)} == {
        leaf.shape[1:] for leaf in jax.tree.leaves(task.inputs)
    }
    assert len(targets) == 8


def test_the_lungs_are_timed_with_the_network_that_this_machine_gets():
    assert type(lrg.with_random_weights((2, 2, 3), 32, 2).model) is kernels.for_backend(unet.UNet)


def test_medians_leave_out_the_first_round_and_sides_take_turns():
    turns = []
    found = record.medians({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=2)
    assert turns == ["a", "b"] * 3
    assert found.keys() == {"a", "b"} and all(seconds >= 0 for seconds in found.values())
