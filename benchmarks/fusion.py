"""The fusion stage on features that are computed once, next to the whole network at every step.

python -m benchmarks.fusion --output=fusion.json
python -m benchmarks.fusion --data=data/tfds/chestxray14/size224_labels2017/1.0.0

The stage is the paper's (DenseNet-121 twice, 224 x 224, batches of 16, 100 epochs) with random weights, on a prepared
data set or on random images, as many as train and validate of the public sample of 324 films. All 100 epochs of the
head are run, with their checkpoints. Of the whole network a few steps and a batch of validation are timed and
multiplied by those of an epoch (its checkpoints and data are left out); of the features a few blocks, by their number.
"""

import argparse
import contextlib
import io
import json
import math
import os
import tempfile
import time
from unittest import mock

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from configs import fusion
from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.core.files import appears_when_complete
from sdfn_jax.models.initial import initial_variables
from sdfn_jax.training import features, steps, tasks, train
from sdfn_jax.training.input_pipeline import Examples, Rows, evaluation_batches, put, training_batches

EPOCHS = 100  # of the paper


class RandomImages(list):
    """As many as asked for; `take` as of `Examples`."""

    def __init__(self, count, size, seed):
        rng = np.random.default_rng(seed)
        for _ in range(count):
            images = {branch: rng.integers(0, 256, (size, size), np.uint8) for branch in ("entire", "lung")}
            self.append({**images, "labels": (rng.random(14) < 0.2).astype(np.uint8)})

    def take(self, indices):
        chosen = RandomImages(0, 1, 0)
        chosen.extend(self[index] for index in indices)
        return chosen


def timed(call, times):
    """(Median seconds of a call, seconds to compile it)."""
    found = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        found.append(time.perf_counter() - begun)
    return float(np.median(found[1:])), max(0.0, found[0] - float(np.median(found[1:])))


def whole_network(config, task, variables, training, validation, count):
    """Seconds of a training step and of a batch of validation, and to compile both."""
    mesh = steps.device_mesh()
    shared = NamedSharding(mesh, PartitionSpec("batch"))
    step, evaluate = steps.make_train_step(task, config, mesh, count), steps.make_evaluation_step(task, mesh)
    state = steps.replicate(steps.initial_state(task, config, variables), mesh)
    batch = put(next(training_batches(training, task.select, config.batch_size, 0, 0)), shared)

    def one_step():
        nonlocal state
        state = step(state, batch)
        return state.loss_sum

    step_seconds, compile_step = timed(one_step, count)
    kept = {"params": state.params, "batch_stats": state.batch_stats}
    batch = put(next(iter(evaluation_batches(validation, task.select, config.evaluation_batch_size)))[0], shared)
    validation_seconds, compile_validation = timed(lambda: evaluate(kept, batch), 1)
    return step_seconds, validation_seconds, compile_step + compile_validation


def extraction(config, task, variables, examples, blocks):
    """Seconds to compute a block of features with mirror images, and to compile the extractors."""
    extractors = features.Extractors(task, config, variables, steps.device_mesh())
    row = table_row(2, extractors.width)
    few = examples.take(np.arange(min(len(examples), (blocks + 3) * config.evaluation_batch_size)))
    found, begun = [], time.perf_counter()
    for _, _ in zip(extractors.blocks(few, row), range(blocks + 2), strict=False):
        found.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    # The first block waits for the program and for its neighbour, which is started before it is handed out.
    block = float(np.median(found[1:]))
    return block, max(0.0, found[0] - 2 * block)


def head(config, task, variables, images, validation_images):
    """Seconds of all epochs of the head with their checkpoints, on features that are there; and how many were best."""
    rng = np.random.default_rng(0)
    width = variables["params"]["head"]["kernel"].shape[0]

    def rows(count, variants):
        table = np.zeros(count, table_row(variants, width))
        table["features"] = rng.random(table["features"].shape)
        table["labels"] = rng.random(table["labels"].shape) < 0.2
        # Something to learn, so that the best epoch comes late and its checkpoint is written often.
        table["features"][..., :14] += 3 * table["labels"][:, None]
        return Rows(table)

    training, validation = rows(images, 2), rows(validation_images, 1)
    bests = []
    save_best = checkpoint.save_best

    def counted(*arguments):
        bests.append(arguments[1])
        save_best(*arguments)

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(checkpoint, "save_best", counted),
        contextlib.redirect_stdout(io.StringIO()),  # a line an epoch
    ):
        config.workdir = folder
        begun = time.perf_counter()
        train.train(
            tasks.fusion_head(task, config, variables),
            config,
            training=training,
            validation=validation,
            initial_variables=lambda: {"params": {"head": variables["params"]["head"]}},
            metadata={"stage": config.stage, "config": run_identity.as_json(config), "inputs": {}},
        )
        return time.perf_counter() - begun, len(bests)


def table_row(variants, width):
    fields = [("features", np.float32, (variants, width)), ("labels", np.uint8, (14,))]
    return np.dtype(fields, align=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="a prepared chestxray14; random images if left out")
    parser.add_argument("--images", type=int, default=249, help="random training images")
    parser.add_argument("--validation_images", type=int, default=28, help="random validation images")
    parser.add_argument("--steps", type=int, default=3, help="training steps of the whole network that are timed")
    parser.add_argument("--blocks", type=int, default=2, help="blocks of features that are timed")
    parser.add_argument("--small", action="store_true", help="the demo's network and size, to try this program")
    parser.add_argument("--output", default="fusion.json")
    options = parser.parse_args()

    config = fusion.get_config("demo" if options.small else "")
    config.num_epochs, config.learning_rate = EPOCHS, 1e-4
    task = tasks.classification(config)
    variables = initial_variables(task.model, 0, task.inputs, train=False)
    if options.data:
        training, validation = Examples(options.data, ["train"]), Examples(options.data, ["validation"])
    else:
        size = config.data.size
        training, validation = RandomImages(options.images, size, 1), RandomImages(options.validation_images, size, 2)

    load = os.getloadavg()[0]
    steps = len(training) // config.batch_size
    blocks, validation_blocks = (math.ceil(len(each) / config.evaluation_batch_size) for each in (training, validation))
    block_seconds, extractors_compile = extraction(config, task, variables, training, options.blocks)
    head_seconds, bests = head(config, task, variables, len(training), len(validation))
    step_seconds, validation_seconds, whole_compile = whole_network(
        config, task, variables, training, validation, options.steps
    )

    whole_epoch = steps * step_seconds + validation_blocks * validation_seconds
    features_once = blocks * block_seconds + validation_blocks * block_seconds / 2
    head_epoch = head_seconds / EPOCHS
    record = {
        "images": "random" if options.data is None else options.data,
        "training_images": len(training),
        "validation_images": len(validation),
        "epochs": EPOCHS,
        "whole_step_seconds": step_seconds,
        "whole_validation_batch_seconds": validation_seconds,
        "whole_epoch_seconds": whole_epoch,
        "features_block_seconds": block_seconds,
        "features_seconds": features_once,
        "head_epoch_seconds": head_epoch,
        "head_best_checkpoints": bests,
        "whole_compile_seconds": whole_compile,
        "features_compile_seconds": extractors_compile,
        "whole_seconds": EPOCHS * whole_epoch,
        "on_features_seconds": features_once + head_seconds,
        "times_faster": EPOCHS * whole_epoch / (features_once + head_seconds),
        "times_faster_with_compilation": (whole_compile + EPOCHS * whole_epoch)
        / (extractors_compile + features_once + head_seconds),
        "break_even_epoch": math.ceil(features_once / (whole_epoch - head_epoch)),
        "devices": f"{jax.device_count()} {jax.devices()[0].device_kind}",
        "cores": len(os.sched_getaffinity(0)),
        "load_before": load,
        "software": {"jax": jax.__version__, "numpy": np.__version__},
    }
    for name, value in record.items():
        print(f"{name:<34}{value:.4g}" if isinstance(value, float) else f"{name:<34}{value}")
    with appears_when_complete(options.output) as path:
        path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
