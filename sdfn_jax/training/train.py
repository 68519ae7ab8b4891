"""The one trainer of the four stages: train step, epoch loop, resume."""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sdfn_jax.core import checkpoint, files, processes, progress
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.stops import Stopped, StopWish
from sdfn_jax.training.input_pipeline import (
    Examples,
    Rows,
    rows_of_this_process,
    steps_per_epoch,
    to_device,
    training_batches,
)
from sdfn_jax.training.metrics_log import MetricsLog
from sdfn_jax.training.optimizer import make_plateau, schedule
from sdfn_jax.training.resume import has_diverged, standing, start
from sdfn_jax.training.steps import (
    TrainState,
    check_batch_size,
    device_mesh,
    make_evaluation_step,
    make_train_step,
    run_over_split,
    without,
)
from sdfn_jax.training.tasks import Task

# Seconds; epochs shorter than this share a checkpoint, which can take longer than the epoch of a head on kept
# features. A killed run redoes what it had not saved, bit-identically.
_SHORT_EPOCH = 10.0
_PACE_AFTER, _PACE_STEPS = 10.0, 3  # seconds and steps after which a training knows its pace


def train(
    task: Task,
    config: ConfigDict,
    *,
    training: Examples | Rows,
    validation: Examples | Rows,
    initial_variables: Callable[[], dict],
    metadata: dict,
) -> None:
    """Trains a stage into `config.workdir`, from its latest checkpoint if there is one.

    Stopped at any step and started again, it gives a checkpoint bit-identical to one made without the stop.

    Args:
      task: what to train.
      config: the stage's config.
      training: training split.
      validation: validation split; it chooses the best epoch and lowers the learning rate.
      initial_variables: variables before the first step.
      metadata: stored with the best checkpoint.

    Raises:
      UserError: if the loss is not finite or training has diverged, or the checkpoint there was made with another
        recipe.
      Stopped: after Ctrl-C or SIGTERM in any process, with the state saved.
    """
    check_batch_size(config)
    workdir = Path(config.workdir)
    files.make_folder(workdir)
    steps = steps_per_epoch(training, config.batch_size)
    found = standing(workdir)
    processes.check_agreement(f"the checkpoint to resume from in {workdir}", str(found))
    if found is not None and found["finished"]:
        return
    mesh = device_mesh()
    state, book = start(task, config, initial_variables, mesh)
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
        raise Stopped(f"stopped; {workdir} is trained, and the same command resumes from there")


class _Run:
    """The parts of one `train` call that its epochs share."""

    def __init__(self, task, config, workdir, steps, mesh, metadata, book):
        self.task, self.config, self.workdir, self.steps, self.mesh = task, config, workdir, steps, mesh
        self.metadata, self.book = metadata, book
        self.train_step = make_train_step(task, config, mesh, steps)
        self.evaluation_step = make_evaluation_step(task, mesh)
        # Compiled once: outside jit, optax's rule would be compiled again at every call.
        self.update_plateau = jax.jit(make_plateau(config).update)
        self.rate = schedule(config, steps)
        self.vote = processes.StopVote(mesh)
        self.last_saved = time.monotonic()
        self.unsaved_best = None
        self.pace = _Pace(steps * config.num_epochs, book.epochs_done * steps)

    def train_epoch(self, state: TrainState, epoch: int, training: Examples | Rows, stop: StopWish, bar) -> TrainState:
        first = int(state.step) - epoch * self.steps
        sharding = NamedSharding(self.mesh, PartitionSpec("batch"))
        rows = rows_of_this_process(sharding, self.config.batch_size)
        batches = training_batches(
            training, self.task.select, self.config.batch_size, self.config.seed, epoch, first_step=first, rows=rows
        )
        before = None  # the step before, which the next one waits for
        for batch in to_device(batches, sharding):
            state = self.train_step(state, batch)
            # One step ahead of the devices, no more: JAX would queue up to 32, minutes on a CPU, which a Ctrl-C would
            # wait for and the rate shown would count as done. A copy, as the next step takes the state's own memory.
            queued = state.step + 0
            if before is not None:
                before.block_until_ready()
            before = queued
            bar.update()
            self.pace.step(bar)
            self.stop_if_asked(state, stop)
            if self.unsaved_seconds() > 60 * self.config.checkpoint_minutes:
                self.save(state)
        self.check_finite(state)
        return state

    def stop_if_asked(self, state: TrainState, stop: StopWish) -> None:
        """Saves the state and raises `Stopped`, at the same call in all processes."""
        if self.vote.ask(stop.came):
            self.save(state)
            processes.wait_for_all()  # for process 0, which may still be writing
            raise Stopped(self.stopped_at(state))

    def finish_epoch(
        self, state: TrainState, epoch: int, validation: Examples | Rows, log: MetricsLog | None, stop: StopWish, bar
    ) -> TrainState:
        variables = state.variables
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
        scores = {"loss": _mean_loss(values), **self.task.score(values)}
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
            raise UserError(
                self.diverged(f"no epoch has a plausible validation loss, the last is {scores['loss']:.3g}")
            )
        line = {
            "epoch": epoch + 1,
            "step": int(state.step),
            "learning_rate": float(self.rate(int(state.step) - 1)) * scale,
            "train_loss": train_loss,
            **{f"validation_{name}": value for name, value in scores.items()},
            "best_epoch": book.best_epoch,
        }
        # Before the state: a line of an epoch that was not saved is dropped when the run resumes.
        if log is not None:
            log.write(line)
        if book.finished or self.unsaved_seconds() > min(_SHORT_EPOCH, 60 * self.config.checkpoint_minutes):
            self.save(state)
        findings = len(self.task.labelling.findings) if self.task.labelling is not None else 0
        bar.write(_describe_epoch(line, self.config.num_epochs, is_best, findings))
        return state

    def unsaved_seconds(self) -> float:
        return time.monotonic() - self.last_saved

    def save(self, state: TrainState) -> None:
        """Saves the best variables, if they are new, and then the state that names their epoch."""
        self.check_finite(state)
        if self.unsaved_best is not None:
            step, variables, metadata = self.unsaved_best
            checkpoint.save_best(self.workdir, step, self.task.whole(variables), metadata)
            self.unsaved_best = None
        made_by = {name: self.metadata[name] for name in ("config", "inputs")}
        changing = without(state, self.task.frozen)
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
            "the same command resumes from there"
        )


class _Pace:
    """Says once how long the job still takes, when some steps after the first, which compiles, have been made."""

    def __init__(self, total: int, done: int):
        """Takes the steps of the whole training, and how many were done before."""
        self.total, self.done, self.counted, self.begun = total, done, -1, 0.0

    def step(self, bar) -> None:
        """Counts a step."""
        self.counted += 1
        self.done += 1
        if self.counted == 0:
            self.begun = time.monotonic()
        passed = time.monotonic() - self.begun
        if self.begun and passed > _PACE_AFTER and self.counted >= _PACE_STEPS:
            self.begun = 0.0
            each = passed / self.counted
            if line := progress.time_left(each * self.total, each * (self.total - self.done)):
                bar.write(line)


def _mean_loss(values: dict[str, np.ndarray]) -> float:
    """Returns the mean loss of a split, whose films may count in part."""
    if "counted" not in values:
        return float(np.mean(values["loss"]))
    return float(np.sum(values["loss"], dtype=np.float64) / np.sum(values["counted"], dtype=np.float64))


def _describe_epoch(line: dict, num_epochs: int, is_best: bool, findings: int) -> str:
    """Returns an epoch's line for the screen, of a task with so many findings."""
    shown = {name.removeprefix("validation_"): value for name, value in line.items() if name.startswith("validation_")}
    loss, defined = shown.pop("loss"), shown.pop("classes_with_auc", 0)
    parts = [f"loss {line['train_loss']:.4f}, validation {loss:.4f}"]
    for name, value in shown.items():
        of = f" of {defined}" if 0 < defined < findings else ""
        said = "AUC" if findings == 1 else name.replace("_", " ").replace("auc", "AUC")
        parts.append(f"{said}{of} {value:.4f}")
    mark = "  best" if is_best else ""
    place = f"{line['epoch']:>{len(str(num_epochs))}}/{num_epochs}"
    return f"  epoch {place}  {'  '.join(parts)}  lr {line['learning_rate']:.1e}{mark}"
