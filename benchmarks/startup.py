"""From the start of a process to its first reading, at full size: with nothing compiled, and then again.

python -m benchmarks.startup --output=startup.json

Two DenseNet-121 with the fusion head, and the U-Net, all of random weights, read one film of 1024 x 1024 (a radiograph
where SDFN_DATA names the folder of real data, a drawing otherwise), and then as many as a batch holds. Every start is a
process of its own; the first one finds no compiled programs, later ones those of the first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from benchmarks import films, record
from configs import fusion
from configs import lrg as lrg_config
from sdfn_jax.core import checkpoint, run_metadata
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.models.sdfn import SDFN
from sdfn_jax.models.unet import UNet

ROOT = Path(__file__).parent.parent
GOAL = 5.0  # seconds to the first reading of one film, at the second start
# Says at its end how long each part took, from the moment it was started: {part: seconds}.
START = """
import json, sys, time
marks = {"": float(sys.argv[3])}
from pathlib import Path
from sdfn_jax.core import jit_cache
from sdfn_jax.inference.predictor import Predictor
from sdfn_jax.radiographs.opening import ImageFile
marks["start Python, import"] = time.time()
folder, count = Path(sys.argv[1]), int(sys.argv[2])
jit_cache.use_cache()
predictor = Predictor.load(folder / "fusion", folder / "lrg", batch_size=count)
marks["read checkpoints"] = time.time()
paths = sorted((folder / "films" / "images").glob("*.png"))[:count]
next(predictor.readings(ImageFile(path.name, path) for path in paths))
marks["trace, compile or load, read the films"] = time.time()
times = list(marks.values())
print(json.dumps(dict(zip(list(marks)[1:], (b - a for a, b in zip(times, times[1:]))))))
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="second starts; the median one counts")
    parser.add_argument("--quick", action="store_true", help="tiny networks: shows that it runs")
    parser.add_argument("--output", default="startup.json")
    options = parser.parse_args()
    counts, rounds = ((1,), 1) if options.quick else ((1, options.batch_size), options.rounds)
    rows, parts = [], {}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        kind = prepare(folder, options)
        for count in counts:
            what = f"first reading, {count} film{'s' if count > 1 else ''}"
            first = start(folder, count)
            again = sorted((start(folder, count) for _ in range(rounds)), key=lambda taken: sum(taken.values()))
            parts[what] = {"first start": first, "second start": again[len(again) // 2]}
            rows.append(record.amount(f"{what}, first start", sum(first.values()), "s"))
            second = sum(parts[what]["second start"].values())
            rows.append(record.amount(f"{what}, second start", second, "s", at_most=GOAL if count == 1 else None))
    record.write(options.output, rows, ["jax", "flax", "orbax-checkpoint"], parts=parts, films=kind)


def prepare(folder, options):
    """Writes the checkpoints and the films; returns what the films are."""
    argument = "demo" if options.quick else ""
    config = fusion.get_config(argument)
    shape = jax.ShapeDtypeStruct((1, config.data.size, config.data.size, 3), np.float32)
    model = SDFN(shape=config.model.to_dict())
    variables = initial_variables(model, 0, dict.fromkeys(model.branches, shape), train=False)
    metadata = run_metadata.make(config, {}, data_version="random weights", drawings=False)
    checkpoint.save_best(folder / "fusion", 1, variables, metadata)

    config = lrg_config.get_config(argument or "jsrt")
    shape = jax.ShapeDtypeStruct((1, config.data.size, config.data.size, 1), np.float32)
    variables = initial_variables(UNet(tuple(config.model.filters)), 0, shape)
    normalisation = {"mean": 0.5, "std": 0.25}
    metadata = run_metadata.make(config, {}, data_version="random weights", drawings=False, normalisation=normalisation)
    checkpoint.save_best(folder / "lrg", 1, variables, metadata)
    return films.chestxray14(folder / "films", options.batch_size)[1]


def start(folder, count):
    """Returns {part: seconds} of a process that reads `count` films."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", START, str(folder), str(count), str(time.time())],
        env=environment | {"SDFN_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
