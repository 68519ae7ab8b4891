"""Every benchmark still runs: its smallest form, whose numbers mean nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import record


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
    assert modules - {"__main__", "record", "films"} == benchmarks.BENCHMARKS.keys()


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


def test_medians_leave_out_the_first_round_and_sides_take_turns():
    turns = []
    found = record.medians({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, rounds=2)
    assert turns == ["a", "b"] * 3
    assert found.keys() == {"a", "b"} and all(seconds >= 0 for seconds in found.values())
