"""The one trainer of the four stages: train step, epoch loop, resume."""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, files, processes, progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.parallel import one_ahead
from sdfn_jax.core.stops import Stopped, StopWish
from sdfn_jax.training.input_pipeline import (
    Examples,
    Rows,
    evaluation_batches,
    put,
    rows_of_this_process,
    steps_per_epoch,
    to_device,
    training_batches,
)
from sdfn_jax.training.metrics_log import MetricsLog
from sdfn_jax.training.optimizer import learning_rate_schedule, make_optimizer, make_plateau
from sdfn_jax.training.tasks import Task

# Nats. A mean cross-entropy above it gives the truth, on average, a probability that float32 cannot tell from 0.
_DIVERGED = -math.log(np.finfo(np.float32).tiny)
# Seconds; epochs shorter than this share a checkpoint, which can take longer than the epoch of a head on kept
# features. A killed run makes again what it had not saved, to the same bits.
_SHORT_EPOCH = 10.0


@struct.dataclass
class TrainState:
    """Everything that training changes and a checkpoint keeps (which leaves out what is frozen).

    Attributes:
      step: updates so far, int32.
      params: parameters.
      batch_stats: BatchNorm's running statistics.
      opt_state: Adam's moments, of the trained leaves only.
      plateau: state of the plateau rule; its `scale` multiplies the learning rate.
      loss_sum: sum of this epoch's batch losses so far, float32.
      bad_step: the first step whose loss was not finite; -1 while there is none.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    plateau: optax.OptState
    loss_sum: jax.Array
    bad_step: jax.Array


@dataclasses.dataclass
class _Bookkeeping:
    """What the epoch loop knows beside the arrays; stored as the checkpoint's metadata."""

    epochs_done: int = 0
    best_score: float | None = None
    best_epoch: int = 0
    finished: bool = False


def device_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns devices in a row; a batch is shared out over them, everything else is on each.

    Without any named they are those of all processes; one's own stand together, so that its rows of a batch do too.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Returns a tree of arrays, the same in every process, on each device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    # Not jax.device_put: with several processes it sends every leaf around to compare them.
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), tree)


def make_train_step(task: Task, config: ConfigDict, mesh: Mesh) -> Callable[[TrainState, dict], TrainState]:
    """Returns the jitted step (state, batch) -> state; the old state's memory is given up.

    The batch is global: its loss and its BatchNorm statistics are those of all its films, on however many devices.
    """
    optimizer = make_optimizer(config, task.frozen)
    key = jax.random.key(config.seed)
    everywhere, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    def train_step(state: TrainState, batch: dict) -> TrainState:
        inputs, targets = task.prepare(batch, jax.random.fold_in(key, state.step))

        def mean_loss(params: dict):
            variables = {"params": params, "batch_stats": state.batch_stats}
            outputs, batch_stats = task.apply(variables, inputs, True)
            return jnp.mean(task.loss(outputs, targets)), batch_stats

        (loss, batch_stats), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: state.plateau.scale * update, updates)
        first_bad = (state.bad_step < 0) & ~jnp.isfinite(loss)
        return TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            plateau=state.plateau,
            loss_sum=state.loss_sum + loss,
            bad_step=jnp.where(first_bad, state.step, state.bad_step),
        )

    return jax.jit(train_step, donate_argnums=0, in_shardings=(everywhere, shared), out_shardings=everywhere)


def make_evaluation_step(task: Task, mesh: Mesh) -> Callable[[dict, dict], dict[str, jax.Array]]:
    """Returns the jitted step (variables, batch) -> {"loss": (B,), and the task's results}."""
    everywhere, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    def evaluation_step(variables: dict, batch: dict) -> dict[str, jax.Array]:
        inputs, targets = task.prepare(batch, None)
        outputs, _ = task.apply(variables, inputs, False)
        return {"loss": task.loss(outputs, targets), **task.results(outputs, targets)}

    return jax.jit(evaluation_step, in_shardings=(everywhere, shared), out_shardings=everywhere)


def run_over_split(
    step: Callable,
    variables: dict,
    examples: Examples,
    task: Task,
    batch_size: int,
    mesh: Mesh,
    what: str,
    after_batch: Callable[[], None] = lambda: None,
) -> dict[str, np.ndarray]:
    """Runs an evaluation step over every example of a split, the last partial batch included.

    The devices work on a batch while the results of the one before are fetched. Every process gets all results.

    Args:
      step: of `make_evaluation_step`.
      variables: of the network.
      examples: of the split.
      task: what the network is for.
      batch_size: examples at a time, over all devices.
      mesh: the devices.
      what: names the work beside the progress bar.
      after_batch: is called after each batch, in every process; what it raises ends the work.

    Returns:
      {name: (N, ...)} for "loss" and the task's results, in the order of the examples.
    """
    variables = replicate(variables, mesh)
    shared = NamedSharding(mesh, PartitionSpec("batch"))
    batches = evaluation_batches(examples, task.select, batch_size, rows_of_this_process(shared, batch_size))
    parts = []
    with progress.bar(what=what, unit="image", total=len(examples), stays=False) as bar:
        for results, count in one_ahead((step(variables, put(batch, shared)), count) for batch, count in batches):
            parts.append({name: array[:count] for name, array in jax.device_get(results).items()})
            bar.update(count)
            after_batch()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def initial_state(task: Task, config: ConfigDict, variables: dict) -> TrainState:
    """Returns the state before the first step, from the given variables."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables.get("batch_stats", {}),
        opt_state=make_optimizer(config, task.frozen).init(variables["params"]),
        plateau=make_plateau(config).init(variables["params"]),
        loss_sum=jnp.zeros((), jnp.float32),
        bad_step=jnp.full((), -1, jnp.int32),
    )


def has_diverged(loss: float) -> bool:
    """Returns whether a mean loss, in nats, is not that of a network which learns: finite perhaps, and absurd."""
    return not loss < _DIVERGED


def check_batch_size(config: ConfigDict) -> None:
    """Raises UserError where a batch does not divide by the number of devices."""
    if problems := batch_size_problems(config, "--config"):
        raise UserError("; ".join(problems))


def batch_size_problems(config: ConfigDict, flag: str) -> list[str]:
    """Returns which batches of a stage do not divide by the number of devices.

    Args:
      config: of the stage.
      flag: how the command line names this config.
    """
    devices = jax.device_count()
    return [
        f"{flag}.{name}={config[name]} does not divide by the {devices} devices; give a multiple"
        for name in ("batch_size", "evaluation_batch_size")
        if config[name] % devices
    ]


def train(
    task: Task,
    config: ConfigDict,
    *,
    training: Examples | Rows,
    validation: Examples | Rows,
    initial_variables: Callable[[], dict],
    metadata: dict,
) -> None:
    """Trains a stage into `config.workdir`, from its latest checkpoint where there is one.

    Stopped at any step and started again, it gives the same checkpoint bit for bit as without the stop.

    Args:
      task: what to train.
      config: the stage's config.
      training: training split.
      validation: validation split; it chooses the best epoch and lowers the learning rate.
      initial_variables: variables before the first step.
      metadata: stored with the best checkpoint.

    Raises:
      UserError: where the loss is not finite or training has diverged, or the checkpoint there was made by another
        recipe.
      Stopped: after Ctrl-C or SIGTERM in any process, with the state saved.
    """
    check_batch_size(config)
    workdir = Path(config.workdir)
    files.make_folder(workdir)
    steps = steps_per_epoch(training, config.batch_size)
    found = standing(workdir)
    processes.check_agreement(f"the checkpoint to go on from in {workdir}", str(found))
    if found is not None and found["finished"]:
        return
    mesh = device_mesh()
    state, book = _start(task, config, initial_variables, mesh)
    run = _Run(task, config, workdir, steps, mesh, metadata, book)
    log = MetricsLog(workdir, book.epochs_done, config.tensorboard) if processes.is_first() else None
    total = steps * config.num_epochs
    with (
        StopWish() as stop,
        progress.bar(what=f"train {config.stage}", unit="step", total=total, initial=int(state.step)) as bar,
    ):
        for epoch in range(book.epochs_done, config.num_epochs):
            state = run.train_epoch(state, epoch, training, stop, bar)
            state = run.finish_epoch(state, epoch, validation, log, stop, bar)
        stopping = run.vote.settle(stop.came)
    processes.wait_for_all()  # whatever reads the checkpoint now finds it there
    if stopping:
        raise Stopped(f"stopped; {workdir} is trained, and the same command goes on from there")


def standing(workdir: str | Path) -> dict | None:
    """Returns the metadata of the state that the run in a folder resumes from; None where nothing was saved.

    A run that has finished stays so without an undamaged state of its end: its log and its best checkpoint say so.

    Raises:
      UserError: where it has not finished, and every state is damaged.
      OSError: where the folder cannot be read.
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
    """Returns what `standing` does of a run whose log tells of every epoch, where the best of them is there."""
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


class _Run:
    """The parts of one `train` call that its epochs share."""

    def __init__(self, task, config, workdir, steps, mesh, metadata, book):
        self.task, self.config, self.workdir, self.steps, self.mesh = task, config, workdir, steps, mesh
        self.metadata, self.book = metadata, book
        self.train_step = make_train_step(task, config, mesh)
        self.evaluation_step = make_evaluation_step(task, mesh)
        # Compiled once: outside jit, optax's rule is compiled anew at every call.
        self.update_plateau = jax.jit(make_plateau(config).update)
        self.rate = learning_rate_schedule(config.learning_rate, config.learning_rate_decay)
        self.vote = processes.StopVote(mesh)
        self.last_saved = time.monotonic()
        self.unsaved_best = None

    def train_epoch(self, state: TrainState, epoch: int, training: Examples, stop: StopWish, bar) -> TrainState:
        first = int(state.step) - epoch * self.steps
        sharding = NamedSharding(self.mesh, PartitionSpec("batch"))
        rows = rows_of_this_process(sharding, self.config.batch_size)
        batches = training_batches(
            training, self.task.select, self.config.batch_size, self.config.seed, epoch, first_step=first, rows=rows
        )
        for batch in to_device(batches, sharding):
            state = self.train_step(state, batch)
            bar.update()
            self.stop_if_asked(state, stop)
            if self.unsaved_seconds() > 60 * self.config.checkpoint_minutes:
                self.save(state)
        self.check_finite(state)
        return state

    def stop_if_asked(self, state: TrainState, stop: StopWish) -> None:
        """Saves the state and raises `Stopped`, at the same call in all processes."""
        if self.vote.ask(stop.came):
            self.save(state)
            processes.wait_for_all()  # for the first, which may still write
            raise Stopped(self.stopped_at(state))

    def finish_epoch(
        self, state: TrainState, epoch: int, validation: Examples, log: MetricsLog | None, stop: StopWish, bar
    ) -> TrainState:
        variables = {"params": state.params, "batch_stats": state.batch_stats}
        values = run_over_split(
            self.evaluation_step,
            variables,
            validation,
            self.task,
            self.config.evaluation_batch_size,
            self.mesh,
            f"validate {self.config.stage}",
            # The state is that of the epoch's last step: whoever resumes from it validates first. Several processes
            # would have to vote; they do so at the next step, and at the end.
            after_batch=lambda: None if processes.several() else self.stop_if_asked(state, stop),
        )
        scores = {"loss": float(np.mean(values.pop("loss"))), **self.task.score(values)}
        score = scores[self.task.best]
        if not (math.isfinite(score) and math.isfinite(scores["loss"])):
            raise UserError(
                f"epoch {epoch + 1}: the validation {self.task.best} is {score} and the loss {scores['loss']}; "
                f"last good checkpoint: {self.last_good()}"
            )
        train_loss = float(state.loss_sum) / self.steps
        if has_diverged(train_loss):
            raise UserError(self.diverged(f"epoch {epoch + 1}: the training loss is {train_loss:.3g}"))
        scale = float(state.plateau.scale)
        _, plateau = self.update_plateau({}, state.plateau, value=jnp.float32(scores["loss"]))
        state = state.replace(plateau=plateau, loss_sum=jnp.zeros_like(state.loss_sum))
        book, sign = self.book, 1 if self.task.higher_is_better else -1
        book.epochs_done = epoch + 1
        is_better = book.best_score is None or sign * score > sign * book.best_score
        is_best = is_better and not has_diverged(scores["loss"])
        if is_best:
            book.best_score, book.best_epoch = score, epoch + 1
            found = {"epoch": epoch + 1, "validation": scores, "best_metric": self.task.best}
            # Copies: the next step takes the arrays' memory.
            copied = jax.tree.map(np.array, jax.device_get(variables))
            self.unsaved_best = int(state.step), copied, {**self.metadata, **found}
        book.finished = epoch + 1 == self.config.num_epochs
        if book.finished and book.best_score is None:
            raise UserError(self.diverged(f"no epoch has a believable validation loss, the last {scores['loss']:.3g}"))
        line = {
            "epoch": epoch + 1,
            "step": int(state.step),
            "learning_rate": float(self.rate(int(state.step) - 1)) * scale,
            "train_loss": train_loss,
            **{f"validation_{name}": value for name, value in scores.items()},
            "best_epoch": book.best_epoch,
        }
        # Before the state: a line of an epoch that was not saved is dropped when the run goes on.
        if log is not None:
            log.write(line)
        if book.finished or self.unsaved_seconds() > min(_SHORT_EPOCH, 60 * self.config.checkpoint_minutes):
            self.save(state)
        bar.write(_describe_epoch(line, self.config.num_epochs, self.task.best, is_best))
        return state

    def unsaved_seconds(self) -> float:
        return time.monotonic() - self.last_saved

    def save(self, state: TrainState) -> None:
        """Saves the best variables, where they are new, and then the state that names their epoch."""
        self.check_finite(state)
        if self.unsaved_best is not None:
            step, variables, metadata = self.unsaved_best
            checkpoint.save_best(self.workdir, step, self.task.whole(variables), metadata)
            self.unsaved_best = None
        made_by = {name: self.metadata[name] for name in ("config", "inputs")}
        changing = _without(state, self.task.frozen)
        checkpoint.save_latest(self.workdir, int(state.step), changing, {**dataclasses.asdict(self.book), **made_by})
        self.last_saved = time.monotonic()

    def check_finite(self, state: TrainState) -> None:
        bad_step = int(state.bad_step)
        if bad_step >= 0:
            raise UserError(
                f"the training loss of step {bad_step + 1} is not finite; last good checkpoint: {self.last_good()}. "
                "A smaller --config.learning_rate often helps."
            )

    def diverged(self, what: str) -> str:
        return (
            f"{what}: training has diverged. Delete {self.workdir} and train with a smaller --config.learning_rate "
            f"(now {self.config.learning_rate:g})"
        )

    def last_good(self) -> str:
        found = checkpoint.latest_metadata(self.workdir)
        return "none yet" if found is None else f"{self.workdir / 'latest' / str(found['step'])}"

    def stopped_at(self, state: TrainState) -> str:
        return (
            f"stopped at step {int(state.step)} of {self.steps * self.config.num_epochs}, saved in {self.workdir}; "
            "the same command goes on from there"
        )


def _start(
    task: Task, config: ConfigDict, initial_variables: Callable[[], dict], mesh
) -> tuple[TrainState, _Bookkeeping]:
    state = initial_state(task, config, initial_variables())
    book = _Bookkeeping()
    found = checkpoint.read_latest(
        config.workdir,
        _without(state, task.frozen),
        usable=lambda metadata: checkpoint.has_best_since(config.workdir, metadata["best_epoch"]),
    )
    processes.check_agreement(f"the state to resume from in {config.workdir}", str(found and found[1]))
    if found is not None:
        changing, found = found
        state = changing.replace(
            params={**state.params, **changing.params}, batch_stats={**state.batch_stats, **changing.batch_stats}
        )
        book = _Bookkeeping(**{field.name: found[field.name] for field in dataclasses.fields(_Bookkeeping)})
        logging.info("%s: resuming from step %d", config.workdir, int(state.step))
    return replicate(state, mesh), book


def _without(state: TrainState, frozen: Sequence[str]) -> TrainState:
    """Returns the part of a state that changes: what is frozen comes from where it came from at the start."""
    params, batch_stats = (
        {name: branch for name, branch in tree.items() if name not in frozen}
        for tree in (state.params, state.batch_stats)
    )
    return state.replace(params=params, batch_stats=batch_stats)


def _describe_epoch(line: dict, num_epochs: int, best: str, is_best: bool) -> str:
    names = [name for name in line if name.startswith("validation_")]
    shown = ", ".join(f"{name.removeprefix('validation_').replace('_', ' ')} {line[name]:.4g}" for name in names)
    mark = f"  (best {best.replace('_', ' ')} so far)" if is_best else ""
    return (
        f"  epoch {line['epoch']}/{num_epochs}: training loss {line['train_loss']:.4f}; validation {shown}; "
        f"learning rate {line['learning_rate']:.2e}{mark}"
    )
