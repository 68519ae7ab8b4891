"""What a training step pays for its data: a pair of images from disk to device, next to decoding image files.

python -m benchmarks.input --output=input.json                  (the demo's small network: short steps, a hard case)
python -m benchmarks.input --output=input.json --network=full   (DenseNet-121; minutes of compiling on a CPU)

Drawings of 1024 x 1024 pixels are prepared by the real builder, in a temporary folder. Costs are CPU time of the whole
process, all threads and workers, in milliseconds of one core for each pair (entire and lung, 224 x 224, and
labels): medians of rounds in which all ways take turns. Files are in the system's cache.
"""

import argparse
import importlib.metadata
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict, FieldReference
from PIL import Image

from configs import classifier
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.lungs import box_table
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.radiographs import pixels, reader, synthetic_dataset
from sdfn_jax.training import steps, tasks
from sdfn_jax.training.input_pipeline import Examples, put, to_device, training_batches
from tfds_builders import prepare

SIZE, BATCH = 224, 16
BOX = (150, 120, 880, 900)  # left, top, right, bottom


def prepared_drawings(folder: Path, films: int) -> tuple[Examples, list[Path]]:
    """Draws and prepares; returns the training split and the drawings' files."""
    synthetic_dataset.write_chestxray14(folder / "films", films=films, seed=0, test_share=0.1)
    paths = sorted((folder / "films").rglob("*.png"))
    rows = [box_table.BoxRow(path.name, 1024, 1024, *BOX, "none", 0.3, "drawn") for path in paths]
    box_table.write_box_table(folder / "boxes.csv", rows)
    data = prepare.prepare(
        "chestxray14",
        manual_dir=folder / "films",
        data_dir=folder / "tfds",
        size=SIZE,
        boxes=folder / "boxes.csv",
        validation_share=0.1,
    )
    return Examples(data, ["train"]), paths


def pair_of(path: Path) -> np.ndarray:
    """Decodes a film as it is published and resizes it and its lung region: (2, S, S)."""
    film = reader.read_radiograph(path)
    left, top, right, bottom = BOX
    return np.stack([pixels.resize(each, (SIZE, SIZE)) for each in (film, film[top:bottom, left:right])])


def write_small_files(folder: Path, paths: list[Path]) -> list[Path]:
    """Writes both images of each film, resized, as one PNG of 2S x S; returns the files."""
    folder.mkdir()
    for path in paths:
        Image.fromarray(np.concatenate(pair_of(path))).save(folder / path.name)
    return [folder / path.name for path in paths]


def pillow(paths: list[Path]):
    for start in range(0, len(paths) - BATCH + 1, BATCH):
        yield np.stack([np.asarray(Image.open(path)) for path in paths[start : start + BATCH]])


def published(paths: list[Path]):
    for start in range(0, len(paths) - BATCH + 1, BATCH):
        yield np.stack([pair_of(path) for path in paths[start : start + BATCH]])


def torch_loader(paths: list[Path]):
    """Returns a maker of PyTorch's DataLoader with two worker processes; None if PyTorch is not installed."""
    try:
        from torch.utils.data import DataLoader, Dataset
    except ImportError:
        return None

    class Films(Dataset):
        def __len__(self):
            return len(paths)

        def __getitem__(self, index):
            return np.array(Image.open(paths[index]))

    return lambda: DataLoader(Films(), batch_size=BATCH, num_workers=2, drop_last=True, persistent_workers=False)


def cost(batches) -> tuple[float, float]:
    """Goes through batches; returns (CPU ms, wall ms) of a pair, worker processes included."""
    cpu, wall = cpu_time(), time.perf_counter()
    count = sum(1 for _ in batches())
    return (cpu_time() - cpu) / (count * BATCH) * 1e3, (time.perf_counter() - wall) / (count * BATCH) * 1e3


def cpu_time() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def step_times(examples: Examples, network: str, count: int) -> dict:
    """Times training steps with batches from disk and with one batch that is on the device already."""
    config = classifier.recipe("entire", network == "demo", FieldReference("runs"))
    config.batch_size = BATCH
    config.data = ConfigDict({"size": SIZE})
    task = tasks.classification(config)
    mesh = steps.device_mesh()
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    state = steps.replicate(steps.initial_state(task, config, variables), mesh)
    step = steps.make_train_step(task, config, mesh, count)
    one = put(next(training_batches(examples, task.select, BATCH, 0, 0)), sharding)
    state = jax.block_until_ready(step(state, one))  # compiles

    begun = time.perf_counter()
    for _ in range(count):
        state = step(state, one)
    jax.block_until_ready(state)
    without = (time.perf_counter() - begun) / count

    repeated = examples.take(np.arange((count + 1) * BATCH) % len(examples))
    batches = to_device(training_batches(repeated, task.select, BATCH, 0, 0), sharding)
    next(batches)  # the threads have begun, as in the middle of an epoch
    waited, begun = 0.0, time.perf_counter()
    for _ in range(count):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        state = step(state, batch)
    jax.block_until_ready(state)
    with_data = (time.perf_counter() - begun) / count
    return {
        "step_ms_data_on_device": round(without * 1e3, 2),
        "step_ms_data_from_disk": round(with_data * 1e3, 2),
        "step_slower_by": round(with_data / without - 1, 4),
        "host_ms_of_a_step_for_data": round(waited / count * 1e3, 3),
        "host_share_of_a_step": round(waited / count / with_data, 4),
        "pairs_per_s_consumed": round(BATCH / with_data, 1),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--films", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps timed")
    parser.add_argument("--network", choices=("demo", "full"), default="demo")
    parser.add_argument("--output", default="input.json")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        examples, paths = prepared_drawings(Path(folder), options.films)
        small = write_small_files(Path(folder) / "small", paths)
        load_before = os.getloadavg()[0]

        def select(example):
            return {name: example[name] for name in ("entire", "lung", "labels")}

        many = examples.take(np.arange(1024) % len(examples))

        def one_by_one():
            for start in range(0, len(many) - BATCH + 1, BATCH):
                rows = [select(many[index]) for index in range(start, start + BATCH)]
                yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}

        ways = {
            "read_one_by_one": one_by_one,
            "pipeline": lambda: training_batches(many, select, BATCH, 0, 0),
            "pillow_small_png": lambda: pillow(small * 4),
            "pillow_published_png": lambda: published(paths),
        }
        if loader := torch_loader(small * 4):
            ways["torch_dataloader_small_png"] = loader
        found = {name: [] for name in ways}
        for _ in range(options.rounds):
            for name, way in ways.items():
                found[name].append(cost(way))
        steps = step_times(examples, options.network, options.steps)

    costs = {}
    for name, rounds in found.items():
        cpu, wall = (statistics.median(values) for values in zip(*rounds, strict=True))
        costs[name] = {"cpu_ms_a_pair": round(cpu, 3), "pairs_per_s": round(1e3 / wall, 1)}
    ours = costs["pipeline"]["cpu_ms_a_pair"]
    record = {
        "costs": {name: {**each, "times_ours": round(each["cpu_ms_a_pair"] / ours, 2)} for name, each in costs.items()},
        "step": {"network": options.network, "device": jax.devices()[0].device_kind, "batch": BATCH, **steps},
        "pipeline_rate_over_consumption": round(costs["pipeline"]["pairs_per_s"] / steps["pairs_per_s_consumed"], 2),
        "rounds": options.rounds,
        "films": options.films,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": load_before,
        "software": {name: importlib.metadata.version(name) for name in ("jax", "grain", "array_record", "pillow")},
    }
    print(f"{'way':<30}{'CPU ms a pair':>15}{'times ours':>12}{'pairs/s':>10}")
    for name, each in record["costs"].items():
        print(f"{name:<30}{each['cpu_ms_a_pair']:>15}{each['times_ours']:>12}{each['pairs_per_s']:>10}")
    for name, value in {**record["step"], **record}.items():
        if name not in ("costs", "step"):
            print(f"{name:<34}{value}")
    with appears_when_complete(options.output) as path:
        path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
