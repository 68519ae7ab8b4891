"""How far a run has come: what it resumes from, whether it has finished, whether it has diverged."""

import dataclasses
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, processes
from sdfn_jax.training.metrics_log import MetricsLog
from sdfn_jax.training.steps import TrainState, initial_state, replicate, without
from sdfn_jax.training.tasks import Task

# Nats. A mean cross-entropy above this gives the truth, on average, a probability that is 0 in float32.
_DIVERGED = -math.log(np.finfo(np.float32).tiny)


@dataclasses.dataclass
class Bookkeeping:
    """What the epoch loop knows besides the arrays; stored as the checkpoint's metadata."""

    epochs_done: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    finished: bool = False


def start(
    task: Task, config: ConfigDict, initial_variables: Callable[[], dict], mesh: Mesh
) -> tuple[TrainState, Bookkeeping]:
    """Returns the state on the devices and the bookkeeping to start from: the latest saved, or the first.

    Args:
      task: what is trained.
      config: the stage's config.
      initial_variables: variables before the first step, of the whole network; the frozen ones always come from here.
      mesh: the devices.

    Raises:
      UserError: if every saved state is damaged or unusable, or none fits the network.
    """
    state = initial_state(task, config, initial_variables())
    book = Bookkeeping()
    found = checkpoint.read_latest(
        config.workdir,
        without(state, task.frozen),
        usable=lambda metadata: checkpoint.has_best_since(config.workdir, metadata["best_epoch"]),
    )
    processes.check_agreement(f"the state to resume from in {config.workdir}", str(found and found[1]))
    if found is not None:
        changing, saved = found
        state = changing.replace(
            params={**state.params, **changing.params}, batch_stats={**state.batch_stats, **changing.batch_stats}
        )
        book = Bookkeeping(**{field.name: saved[field.name] for field in dataclasses.fields(Bookkeeping)})
        logging.info("%s: resuming from step %d", config.workdir, int(state.step))
    return replicate(state, mesh), book


def standing(workdir: str | Path) -> dict | None:
    """Returns the metadata of the state that the run in a folder resumes from; None if nothing was saved.

    A finished run counts as finished even if its last state is damaged: its log and its best checkpoint prove it.

    Raises:
      UserError: if it has not finished, and every state is damaged.
      OSError: if the folder cannot be read.
    """
    try:
        found, damage = checkpoint.latest_metadata(workdir), None
    except checkpoint.DamagedCheckpointError as error:
        found, damage = None, error
    if found is not None and found["finished"]:
        return found
    finished = _finished_by_its_log(workdir)
    if finished is not None:
        return finished
    if damage is not None:
        raise damage
    return found


def _finished_by_its_log(workdir: str | Path) -> dict | None:
    """Returns what `standing` does for a run whose log holds every epoch, if its best checkpoint exists."""
    log = MetricsLog.read(workdir)
    if not log:
        return None
    try:
        best = checkpoint.best_metadata(workdir)
    except checkpoint.DamagedCheckpointError:
        return None
    last = log[-1]
    if best is None or (last["epoch"], last["best_epoch"]) != (best["config"]["num_epochs"], best["epoch"]):
        return None
    return {**best, "epochs_done": last["epoch"], "finished": True}


def has_diverged(loss: float) -> bool:
    """Returns whether a mean loss, in nats, is absurd for a network that learns, even if it is finite."""
    return not loss < _DIVERGED
