"""DenseNet-121 with a head of 14 outputs: inference and a training step (BCE, Adam), next to other libraries.

python -m benchmarks.densenet --output=densenet.json
python -m benchmarks.densenet --output=densenet.json --device=gpu --what=inference,training --batch=16,64,256 \\
    --size=224,448 --dtype=float32,bfloat16 --sides=plain,kernels,torch,torch_compile

Random images and labels: nothing is read. Needs jax, flax, optax; a side whose package is not installed is left out and
named. Sides:

    ours           the SDFN with one branch, by the arithmetic that `models.kernels` chooses for the device
    plain          the same by the plain network, which GPUs and TPUs get
    kernels        the same by the twin in `models.kernels`, which CPUs get
    torch          torchvision's (or else MONAI's) network, eager, channels_last; bfloat16 is its autocast
    torch_compile  the same through torch.compile
    keras          keras.applications on JAX; inference only

Each side is a process of its own, all with the same environment. On a CPU all get `record.ALLOCATOR`: otherwise
page faults decide, for each side differently (XLA allocates its temporaries in each call). The sides start and
compile together and then take turns, so all of them must fit into a GPU's memory. A ratio over 1: ours is faster.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.record import ALLOCATOR

REPOSITORY = Path(__file__).resolve().parents[1]
CLASSES = 14
LEARNING_RATE = 1e-3
PACKAGES = {
    "ours": ("jax",),
    "plain": ("jax",),
    "kernels": ("jax",),
    "torch": ("torch",),
    "torch_compile": ("torch",),
    "keras": ("keras", "jax"),
}


def images_and_labels(setting: dict) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((setting["batch"], setting["size"], setting["size"], 3), np.float32)
    return images, (rng.random((setting["batch"], CLASSES)) < 0.1).astype(np.float32)


# Each side returns what to call once per turn, and what else is known of it.


def ours(setting: dict, backend: str | None = None) -> tuple[Callable[[], None], dict]:
    import jax
    import jax.numpy as jnp

    from sdfn_jax.models.initial import initial_variables
    from sdfn_jax.models.sdfn import SDFN

    model = SDFN(branches=("entire",), dtype=jnp.dtype(setting["dtype"]), backend=backend)

    def apply(variables, images, train):
        (logits, _), changed = model.apply(variables, {"entire": images}, train, mutable=["batch_stats"])
        return logits, changed["batch_stats"]

    images = jax.ShapeDtypeStruct((1, setting["size"], setting["size"], 3), np.float32)
    return in_jax(setting, apply, initial_variables(model, 0, {"entire": images}, train=False))


def in_jax(setting: dict, apply: Callable, variables: dict) -> tuple[Callable[[], None], dict]:
    """Compiles inference or a training step of `apply(variables, images, train) -> (logits, batch_stats)`."""
    import jax
    import optax

    images, labels = jax.device_put(images_and_labels(setting))
    optimizer = optax.adam(LEARNING_RATE)

    def infer(variables, images):
        return apply(variables, images, False)[0]

    def train(state, images, labels):
        def loss(params):
            logits, batch_stats = apply({"params": params, "batch_stats": state["batch_stats"]}, images, True)
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean(), batch_stats

        (_, batch_stats), gradients = jax.value_and_grad(loss, has_aux=True)(state["params"])
        updates, adam = optimizer.update(gradients, state["adam"])
        return {"params": optax.apply_updates(state["params"], updates), "batch_stats": batch_stats, "adam": adam}

    variables = jax.device_put(variables)
    begun = time.perf_counter()
    if setting["what"] == "inference":
        compiled = jax.jit(infer).lower(variables, images).compile()
    else:
        variables["adam"] = optimizer.init(variables["params"])
        begun = time.perf_counter()
        compiled = jax.jit(train, donate_argnums=0).lower(variables, images, labels).compile()
    facts = {"compile_seconds": time.perf_counter() - begun}
    cost = compiled.cost_analysis() or {}
    facts |= {"gflop": cost.get("flops", 0) / 1e9, "traffic_gb": cost.get("bytes accessed", 0) / 1e9}
    if setting["device"] == "gpu":
        facts["copy_gb_per_second"] = copy_bandwidth()
    state = [variables]

    def turn():
        for _ in range(setting["calls"]):
            if setting["what"] == "inference":
                result = compiled(state[0], images)
            else:
                result = state[0] = compiled(state[0], images, labels)
        jax.block_until_ready(result)

    def peak_memory() -> float:
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] / 1e9

    return turn, facts | {"peak_memory": peak_memory}


def copy_bandwidth() -> float:
    """Returns GB/s that a copy of 1 GB reads and writes on the device."""
    import jax
    import jax.numpy as jnp

    array, copy = jnp.zeros(2**28, jnp.float32), jax.jit(lambda array: array + 1)
    jax.block_until_ready(copy(array))
    begun = time.perf_counter()
    for _ in range(20):
        copied = copy(array)
    jax.block_until_ready(copied)
    return 20 * 2 * array.nbytes / 1e9 / (time.perf_counter() - begun)


def torch(setting: dict, through_compile: bool = False) -> tuple[Callable[[], None], dict]:
    import torch

    device = {"cpu": "cpu", "gpu": "cuda"}[setting["device"]]
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as in JAX
    network = torch_network().to(device, memory_format=torch.channels_last)
    images, labels = images_and_labels(setting)
    images = torch.tensor(images.transpose(0, 3, 1, 2)).to(device, memory_format=torch.channels_last)
    labels = torch.tensor(labels).to(device)
    training = setting["what"] == "training"
    network.train(training)
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE)
    forward = torch.compile(network) if through_compile else network
    half = setting["dtype"] == "bfloat16"

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=half), torch.set_grad_enabled(training):
            logits = forward(images)
        if training:
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
            optimizer.step()

    def turn():
        for _ in range(setting["calls"]):
            step()
        if device == "cuda":
            torch.cuda.synchronize()

    begun = time.perf_counter()
    if through_compile:
        turn()
    facts = {"compile_seconds": time.perf_counter() - begun if through_compile else None}
    return turn, facts | {"peak_memory": lambda: torch.cuda.max_memory_allocated() / 1e9}


def torch_network():
    """Returns torchvision's DenseNet-121, even with a PyTorch without its C++ operators; or else MONAI's."""
    from types import ModuleType

    if importlib.util.find_spec("torchvision"):
        sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
        from torchvision.models import densenet121

        return densenet121(num_classes=CLASSES)
    from monai.networks.nets import DenseNet121

    return DenseNet121(2, 3, CLASSES)


def keras(setting: dict) -> tuple[Callable[[], None], dict]:
    if setting["what"] != "inference" or setting["dtype"] != "float32":
        raise LookupError("Keras is measured in float32 inference only")
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    side = setting["size"]
    model = keras.applications.DenseNet121(weights=None, input_shape=(side, side, 3), classes=CLASSES)
    variables = {
        "params": [variable.value for variable in model.trainable_variables],
        "batch_stats": [variable.value for variable in model.non_trainable_variables],
    }

    def apply(variables, images, train):
        return model.stateless_call(variables["params"], variables["batch_stats"], images, training=train)

    return in_jax(setting, apply, variables)


SIDES = {
    "ours": ours,
    "plain": functools.partial(ours, backend="gpu"),
    "kernels": functools.partial(ours, backend="cpu"),
    "torch": torch,
    "torch_compile": functools.partial(torch, through_compile=True),
    "keras": keras,
}


def serve(setting: dict) -> None:
    """Runs one side: says what is known of it, then the seconds of a turn for every line it is sent."""
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print stays out of the answers

    def answer(value) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        turn, facts = SIDES[setting["side"]](setting)
        turn()
        turn()
    except Exception as error:  # what one side cannot do must not end the others
        return answer({"failed": f"{type(error).__name__}: {error}"[:300]})
    peak_memory = facts.pop("peak_memory")
    answer(facts)
    for _ in sys.stdin:
        begun = time.perf_counter()
        turn()
        answer((time.perf_counter() - begun) / setting["calls"])
    on_cpu = setting["device"] == "cpu"
    answer(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9 if on_cpu else peak_memory())


class Side:
    """A side's process as its parent sees it."""

    def __init__(self, setting: dict):
        self.name, self.facts, self.seconds = setting["side"], {}, []
        paths = os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))
        environment = os.environ | {"PYTHONPATH": paths, "JAX_ENABLE_COMPILATION_CACHE": "0"}
        if setting["device"] == "cpu":
            environment |= {"GLIBC_TUNABLES": ALLOCATOR, "JAX_PLATFORMS": "cpu"}
        else:
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # or the first side takes three quarters of the GPU
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"failed": f"ended with {self.process.wait()}"}

    def take_turn(self) -> None:
        print("turn", file=self.process.stdin, flush=True)
        self.seconds.append(self.hear())

    def end(self) -> None:
        if "failed" not in self.facts:
            self.process.stdin.close()
            self.facts["peak_memory_gb"] = self.hear()
        self.process.stdin.close()
        self.process.wait()


def compare(setting: dict, names: list[str], rounds: int) -> dict[str, dict]:
    """Returns the facts of every side at one setting, with the median seconds of a call."""
    sides = [Side(setting | {"side": name}) for name in names]
    for side in sides:
        side.facts = side.hear()
    for _, side in itertools.product(range(rounds), sides):
        if "failed" not in side.facts:
            side.take_turn()
    for side in sides:
        side.end()
    results = {}
    for side in sides:
        results[side.name] = side.facts
        if side.seconds:
            seconds = statistics.median(side.seconds)
            side.facts |= {"seconds": seconds, "images_per_second": setting["batch"] / seconds}
            if "copy_gb_per_second" in side.facts:
                least = side.facts["traffic_gb"] / side.facts["copy_gb_per_second"]
                side.facts["share_of_bandwidth"] = least / seconds
    if "seconds" in results.get("ours", {}):
        for facts in results.values():
            if "seconds" in facts:
                facts["ours_is_faster_by"] = facts["seconds"] / results["ours"]["seconds"]
    return results


def show(setting: dict, results: dict[str, dict]) -> None:
    columns = {
        "seconds": ("s a call", ".3f"),
        "images_per_second": ("images/s", ".1f"),
        "ours_is_faster_by": ("ours faster", ".2f"),
        "compile_seconds": ("compile, s", ".1f"),
        "peak_memory_gb": ("peak, GB", ".2f"),
        "traffic_gb": ("traffic, GB", ".1f"),
        "share_of_bandwidth": ("of bandwidth", ".2f"),
    }
    print("\n{what}, batch {batch}, {size} x {size}, {dtype}".format(**setting))
    print(f"{'':<16}" + "".join(f"{title:>13}" for title, _ in columns.values()))
    for name, facts in results.items():
        cells = [f"{facts[key]:{form}}" if facts.get(key) else "-" for key, (_, form) in columns.items()]
        print(f"{name:<16}" + "".join(f"{cell:>13}" for cell in cells) + f"  {facts.get('failed', '')}", flush=True)


def machine(device: str) -> dict:
    described = {"cores": len(os.sched_getaffinity(0)), "processor": platform.processor() or platform.machine()}
    with open("/proc/cpuinfo") as lines:
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    described["processor"] = names[0] if names else described["processor"]
    if device == "gpu":
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        described["gpu"] = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    return described


def installed(names) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    listed = {"what": "inference,training", "batch": "16", "size": "224", "dtype": "float32"}
    for name, values in listed.items():
        parser.add_argument(f"--{name}", default=values, help=f"one or several, by commas; default {values}")
    parser.add_argument("--sides", default="ours,plain,torch,keras", help="of " + ", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=7, help="turns of each side")
    parser.add_argument("--output", default="densenet.json")
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve)

    from sdfn_jax.core.files import appears_when_complete

    names = options.sides.split(",")
    missing = {name for name in names for package in PACKAGES[name] if importlib.util.find_spec(package) is None}
    if missing:
        print("left out, not installed:", ", ".join(sorted(missing)))
    record = {
        "machine": machine(options.device),
        "software": installed(("jax", "jaxlib", "flax", "torch", "torchvision", "monai", "keras", "numpy")),
        "python": platform.python_version(),
        "environment": {"GLIBC_TUNABLES": ALLOCATOR} if options.device == "cpu" else {},
        "rounds": options.rounds,
        "left_out": sorted(missing),
        "measured": [],
    }
    values = [getattr(options, name).split(",") for name in listed]
    for what, batch, size, dtype in itertools.product(*values):
        setting = {"what": what, "batch": int(batch), "size": int(size), "dtype": dtype}
        setting |= {"device": options.device, "calls": 1 if options.device == "cpu" else 10}
        load = os.getloadavg()[0]
        results = compare(setting, [name for name in names if name not in missing], options.rounds)
        show(setting, results)
        record["measured"].append(setting | {"load_before": load, "load_after": os.getloadavg()[0], "sides": results})
    with appears_when_complete(options.output) as path:
        path.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
