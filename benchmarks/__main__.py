"""All benchmarks, one after the other, each in its own process: one table, one JSON file.

python -m benchmarks --output=benchmarks.json
python -m benchmarks --only=lrg,startup --output=benchmarks.json

A peer that is not installed is left out of its benchmark and listed; a benchmark that fails is listed with its last
line, and the others continue. With SDFN_DATA naming the folder of real data, films are radiographs.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import record
from sdfn_jax.core.files import appears_when_complete

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A module of this folder, and how to read it.

    Attributes:
      quick: arguments of its smallest form, which shows that it runs.
      rows: from its record to rows of the table (`record.rate`, `record.amount`).
    """

    quick: tuple[str, ...] = ("--quick",)
    rows: Callable[[dict], list[dict]] = lambda found: found["rows"]


def bootstrap_rows(found):
    peers = {"scikit-learn": found["replicates"] / found["scikit_learn_seconds"]}
    return record.rate("bootstrap of 14 AUCs", found["replicates"] / found["seconds"], "replicates/s", peers)


def densenet_rows(found):
    rows = []
    for measured in found["measured"]:
        rates = {side: facts["images_per_second"] for side, facts in measured["sides"].items() if "seconds" in facts}
        what = "DenseNet-121, {what}, batch {batch}, {size} x {size}, {dtype}".format(**measured)
        goal = 1.0 if measured["what"] == "inference" else 0.6
        rows += record.rate(what, rates.pop("ours"), "images/s", rates, goal)
    return rows


def fusion_rows(found):
    epochs = {name: found["epochs"] / found[f"{name}_seconds"] for name in ("on_features", "whole")}
    what = f"fusion stage, {found['epochs']} epochs of {found['training_images']} images"
    return record.rate(what, epochs["on_features"], "epochs/s", {"the whole network": epochs["whole"]}, goal=40)


def input_rows(found):
    ours = found["costs"]["pipeline"]
    cost = record.amount("a pair of images, disk to device", ours["cpu_ms_a_pair"], "ms", at_most=1)
    step = {f"a training step, {found['step']['network']} network": found["step"]["pairs_per_s_consumed"]}
    return [cost, *record.rate("input pipeline", ours["pairs_per_s"], "pairs/s", step, goal=1.0)]


BENCHMARKS = {
    "bootstrap": Benchmark(("--replicates=20", "--peer_replicates=1"), bootstrap_rows),
    "densenet": Benchmark(
        ("--what=inference", "--batch=1", "--size=32", "--rounds=1", "--sides=ours,torch"), densenet_rows
    ),
    "fusion": Benchmark(("--small", "--images=64", "--steps=1", "--blocks=1"), fusion_rows),
    "input": Benchmark(("--films=24", "--rounds=1", "--steps=2"), input_rows),
    "lrg": Benchmark(),
    "preparation": Benchmark(),
    "startup": Benchmark(),
}


def main():
    parser = argparse.ArgumentParser(
        "python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="names separated by commas; all if left out")
    parser.add_argument("--quick", action="store_true", help="the smallest form of each: shows that it runs")
    parser.add_argument("--output", default="benchmarks.json")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"--only: no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    rows, records, not_run = [], {}, {}
    for name in names:
        print(f"\n{name}", flush=True)
        found, problem = run(name, options.quick)
        if problem:
            not_run[name] = problem
            continue
        records[name] = found
        rows += BENCHMARKS[name].rows(found)
        left_out = found.get("not_run", {}) | dict.fromkeys(found.get("left_out", ()), "not installed")
        not_run |= {f"{peer} in {name}": reason for peer, reason in left_out.items()}
    print("\n" + record.table(rows))
    for what, reason in not_run.items():
        print(f"not run: {what}: {reason}")
    with appears_when_complete(options.output) as path:
        path.write_text(json.dumps({"rows": rows, "not_run": not_run, "records": records}, indent=2) + "\n")
    if not_run.keys() & set(names):
        sys.exit(1)


def run(name, quick):
    """Runs one benchmark; returns its record, or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "record.json"
        arguments = BENCHMARKS[name].quick if quick else ()
        done = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *arguments, f"--output={output}"],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        if done.returncode == 0:
            return json.loads(output.read_text()), None
        return None, (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]


if __name__ == "__main__":
    main()
