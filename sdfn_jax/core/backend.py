"""JAX's devices: a backend that fails to start is reported as such; a batch is divided among a process's devices."""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from sdfn_jax.core.errors import UserError
from sdfn_jax.core.extras import install_command


def start() -> None:
    """Makes JAX find its devices; immediate if it has already done so.

    In a run of several processes, call `processes.start` first.

    Raises:
      UserError: if JAX finds no device of the kind that is asked for.
    """
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # AssertionError: a GPU is asked for, and jax was installed without
        asked = os.environ.get("JAX_PLATFORMS") or os.environ.get("JAX_PLATFORM_NAME")
        reason = (str(error).splitlines() or ["no software for it is installed"])[0]
        if not asked:
            raise UserError(f"jax finds no device to compute on: {reason}") from error
        raise UserError(
            f"JAX_PLATFORMS={asked}: jax finds no such device here ({reason}). Unset it, and jax takes what there is; "
            f"or name one in lower case: cpu; cuda for a GPU, after {install_command('cuda')}; tpu, after "
            f"{install_command('tpu')}."
        ) from error


def describe() -> str:
    """Returns the hardware that JAX computes on, over all processes: `2 CPU cores`, `4 x NVIDIA H100`."""
    devices = jax.devices()
    if devices[0].platform == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return f"{cores} CPU cores"
    return f"{len(devices)} x {devices[0].device_kind}"


def on_local_devices(function: Callable[[Any, Any], Any], variables: Any, batch_size: int) -> Callable[[Any], Any]:
    """Compiles a function whose rows do not depend on each other, and divides its batches among the local devices.

    As many devices are used as divide the batch evenly. Each computes its rows by the program that one device would
    have for a batch of so many: on several, results differ from those on one by rounding.

    Args:
      function: (variables, tree of arrays (B, ...)) -> tree of arrays (B, ...).
      variables: its first argument; they are put on the devices once.
      batch_size: B.

    Returns:
      the function of the batch alone; it returns at once, and `np.asarray` of a result waits for it.
    """
    devices = jax.local_devices()
    count = max(each for each in range(1, len(devices) + 1) if batch_size % each == 0)
    if count == 1:
        return functools.partial(jax.jit(function), jax.device_put(variables))
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(AxisType.Auto,), devices=devices[:count])
    one, rows = PartitionSpec(), PartitionSpec("batch")
    everywhere, divided = NamedSharding(mesh, one), NamedSharding(mesh, rows)
    each_alone = jax.shard_map(function, mesh=mesh, in_specs=(one, rows), out_specs=rows, check_vma=False)
    program = jax.jit(each_alone, in_shardings=(everywhere, divided))
    return functools.partial(program, jax.device_put(variables, everywhere))
