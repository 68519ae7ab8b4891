"""Steps of inference and training compiled for TPUs ahead of time, without a TPU: what they cost, by XLA's own count.

pip install -e '.[tpu]'
python -m benchmarks.tpu --output=tpu.json
python -m benchmarks.tpu --output=tpu.json --chips=v6e --stages=lrg --what=training --batch=256 --dtype=float32

Nothing runs: for each step, memory, operations, HBM traffic and collectives of one chip of a slice of four, among which
the batch is divided, and the time that the chip needs at least, the longest of

    operations / peak in bfloat16 (XLA multiplies float32 in bfloat16, too), traffic / HBM bandwidth,
    2 (n - 1) / n * bytes summed over the n chips / bandwidth of a link (a ring).

The steps are those of `training.steps`, by the paper's configs, with the plain networks (`plain`) and with their twins
of `models.kernels` (`kernels`). Inference is the evaluation step; the fusion network trains without kept features.
`--level=O1` has XLA look for good programs in minutes; its default, `UNKNOWN`, did not end within 39 minutes for
DenseNet-121's training step. The record is written after each step, and the same command resumes; another one may write
another record at the same time. Each compilation is a process of its own, which `--minutes` limits; `--blocks=2` keeps
the first two dense blocks alone.
"""

import argparse
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
GB = 1e9
# {chip: (slice of four, its name in the environment, peak FLOP/s in bfloat16, HBM in bytes, HBM bytes/s, bytes/s of a
# link in one direction)}: Austin et al., "How to Scale Your Model", 2025, the table of its chapter on TPUs.
CHIPS = {
    "v5e": ("v5e:2x2", "v5litepod-4", 1.97e14, 16e9, 8.1e11, 4.5e10),
    "v5p": ("v5p:2x2x1", "v5p-8", 4.59e14, 96e9, 2.8e12, 9e10),
    "v6e": ("v6e:2x2", "v6e-4", 9.20e14, 32e9, 1.6e12, 9e10),
}
STAGES, FORMS = ("lrg", "entire", "fusion"), ("plain", "kernels")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_COLLECTIVE = re.compile(r"= (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")


def compiled(setting: dict):
    """Returns the executable of one step; the device is described by the environment, not there."""
    import jax
    from jax.experimental import topologies

    from sdfn_jax.models import kernels
    from sdfn_jax.training import steps

    jax.config.update("jax_optimization_level", setting["level"])
    mesh = steps.device_mesh(topologies.get_topology_desc(CHIPS[setting["chip"]][0], "tpu").devices)
    with mock.patch.dict(kernels._TWINS, clear=setting["form"] == "plain"):  # this process's own backend is the CPU
        config, task, batch, options = stage(setting)
        variables = jax.eval_shape(functools.partial(task.model.init, **options), jax.random.key(0), task.inputs)
        if setting["what"] == "inference":
            return steps.make_evaluation_step(task, mesh).lower(variables, batch).compile()
        state = jax.eval_shape(lambda variables: steps.initial_state(task, config, variables), variables)
        return steps.make_train_step(task, config, mesh, steps_per_epoch=1000).lower(state, batch).compile()


def stage(setting: dict) -> tuple:
    """Returns (config, task, a batch as shapes, arguments of the network besides its input) of a stage."""
    import jax

    from configs import classifier, fusion, lrg
    from sdfn_jax.training import tasks

    configs = {"lrg": lrg.get_config, "entire": lambda: classifier.get_config("entire"), "fusion": fusion.get_config}
    config = configs[setting["stage"]]()
    config.batch_size, config.dtype = setting["batch"], setting["dtype"]
    image = (setting["batch"], config.data.size, config.data.size)
    if setting["stage"] == "lrg":
        task = tasks.segmentation(config, {"mean": 0.0, "std": 1.0})
        batch = {"image": jax.ShapeDtypeStruct(image, np.float32), "mask": jax.ShapeDtypeStruct(image, np.uint8)}
        numbers = jax.ShapeDtypeStruct((setting["batch"],), np.float32)
        return config, task, batch | {"mean": numbers, "std": numbers}, {}
    config.model.block_sizes = config.model.block_sizes[: setting["blocks"]]
    task = tasks.classification(config)
    batch = {branch: jax.ShapeDtypeStruct(image, np.uint8) for branch in config.branches}
    labels = jax.ShapeDtypeStruct((setting["batch"], task.model.classes), np.uint8)
    return config, task, batch | {"labels": labels}, {"train": False}


def facts(setting: dict) -> dict:
    """Compiles one step and returns what XLA counts, for one chip."""
    begun = time.perf_counter()
    executable = compiled(setting)
    _, _, peak, capacity, bandwidth, link = CHIPS[setting["chip"]]
    cost, memory = executable.cost_analysis(), executable.memory_analysis()
    collectives = list(collectives_of(executable.as_text()))
    summed = sum(size for _, size in collectives)
    seconds = {
        "arithmetic": cost["flops"] / peak,
        "traffic": cost["bytes accessed"] / bandwidth,
        "collectives": 2 * 3 / 4 * summed / link,
    }
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    held += memory.temp_size_in_bytes + memory.generated_code_size_in_bytes
    return {
        "gflop": cost["flops"] / GB,
        "traffic_gb": cost["bytes accessed"] / GB,
        "memory_gb": held / GB,
        "temporaries_gb": memory.temp_size_in_bytes / GB,
        "fits": held < capacity,
        "collectives": len(collectives),
        "collective_mb": summed / 1e6,
        "least_ms": 1e3 * max(seconds.values()),
        "bound_by": max(seconds, key=seconds.get),
        "compile_seconds": time.perf_counter() - begun,
    }


def collectives_of(hlo: str) -> Iterator[tuple[str, int]]:
    """Yields (operation, bytes of its result on one chip) for each collective of a compiled program."""
    for shapes, operation in _COLLECTIVE.findall(hlo):
        arrays = re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        yield (
            operation,
            sum(_BYTES.get(kind, 0) * int(np.prod([int(n) for n in size.split(",") if n])) for kind, size in arrays),
        )


def compile_apart(setting: dict, minutes: float) -> dict:
    """Returns `facts` from a process of its own, or `{"failed": why}`."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "JAX_PLATFORMS": "cpu",
        "JAX_TRACEBACK_FILTERING": "off",  # the last line is then the error
        "TPU_SKIP_MDS_QUERY": "1",  # there is no machine to ask what it is
        "TPU_WORKER_HOSTNAMES": "localhost",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip, so nobody to share it with
        "TPU_ACCELERATOR_TYPE": CHIPS[setting["chip"]][1],
    }
    command = [sys.executable, "-m", "benchmarks.tpu", "--one", json.dumps(setting)]
    try:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return {"failed": f"not compiled within {minutes:g} minutes"}
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return json.loads(lines[-1]) if done.returncode == 0 else {"failed": lines[-1][:300] if lines else "no message"}


def row(measured: dict) -> str:
    what = "{chip} {stage:<7} {blocks} {what:<10} {batch:>4} {dtype:<9} {form:<8} {level}".format(**measured)
    if "failed" in measured:
        return f"{what} {measured['failed']}"
    memory = f"{measured['memory_gb']:7.2f}{' ' if measured['fits'] else '!'}"
    return f"{what} {memory} {measured['gflop']:9.0f} {measured['traffic_gb']:9.2f} {measured['collectives']:6d} " + (
        f"{measured['collective_mb']:9.1f} {measured['least_ms']:9.2f} {measured['bound_by']}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    listed = {
        "what": ("inference", "training"),
        "batch": ("64", "16", "256"),
        "stages": STAGES,
        "chips": tuple(CHIPS),
        "dtype": ("bfloat16",),
        "forms": FORMS,
        "level": ("O1",),
    }
    for name, values in listed.items():
        parser.add_argument(
            f"--{name}", default=",".join(values), help="one or several, by commas; default %(default)s"
        )
    parser.add_argument("--blocks", type=int, default=4, help="dense blocks of each branch; default %(default)s")
    parser.add_argument("--minutes", type=float, default=60, help="that a compilation may take; default %(default)s")
    parser.add_argument("--output", default="tpu.json")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(facts(options.one)))
        return

    from benchmarks.densenet import installed
    from sdfn_jax.core.files import appears_when_complete

    output = Path(options.output)
    before = json.loads(output.read_text())["measured"] if output.is_file() else []
    measured = [each for each in before if "failed" not in each]
    for each in measured:
        print(row(each))
    for what, batch, stage, chip, dtype, form, level in itertools.product(
        *(getattr(options, name).split(",") for name in listed)
    ):
        setting = {"what": what, "batch": int(batch), "stage": stage, "chip": chip, "dtype": dtype, "form": form}
        setting |= {"level": level, "blocks": options.blocks}
        if any(setting.items() <= each.items() for each in measured):
            continue
        measured.append(setting | compile_apart(setting, options.minutes))
        print(row(measured[-1]), flush=True)
        software = installed(("jax", "jaxlib", "libtpu", "flax"))
        with appears_when_complete(output) as path:
            path.write_text(json.dumps({"software": software, "measured": measured}, indent=2) + "\n")


if __name__ == "__main__":
    main()
