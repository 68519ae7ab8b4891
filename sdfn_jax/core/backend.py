"""Starts JAX's backend, so that a backend that fails to start is reported as such."""

import os

import jax

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
