"""Steps of training and evaluation on any number of devices, and the state that they change."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sdfn_jax.core import progress, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.parallel import one_ahead
from sdfn_jax.training import averaging
from sdfn_jax.training.input_pipeline import Examples, evaluation_batches, put, rows_of_this_process
from sdfn_jax.training.optimizer import make_optimizer, make_plateau
from sdfn_jax.training.programs import Branches, Program
from sdfn_jax.training.tasks import Task


@struct.dataclass
class TrainState:
    """Everything that training changes and a checkpoint keeps (which leaves out what is frozen).

    Attributes:
      step: updates so far, int32.
      params: parameters.
      batch_stats: BatchNorm's running statistics.
      opt_state: the optimizer's moments, of the trained leaves only.
      plateau: state of the plateau rule; its `scale` multiplies the learning rate.
      loss_sum: sum of this epoch's batch losses so far, float32.
      bad_step: the first step whose loss was not finite; -1 while there is none.
      average: moving average of the trained `params` and `batch_stats`; None without `config.ema_decay`.
    """

    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: optax.OptState
    plateau: optax.OptState
    loss_sum: jax.Array
    bad_step: jax.Array
    average: dict | None = None

    @property
    def variables(self) -> dict:
        """What is validated and saved as the best: the network's variables, averaged if there is an average."""
        variables = {"params": self.params, "batch_stats": self.batch_stats}
        return {kind: {**tree, **(self.average or {}).get(kind, {})} for kind, tree in variables.items()}


def initial_state(task: Task, config: ConfigDict, variables: dict) -> TrainState:
    """Returns the state before the first step, from the given variables."""
    kept = {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}
    averages = run_identity.setting(config, "ema_decay") > 0
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        **kept,
        # The length of an epoch decides the rate, not the state.
        opt_state=make_optimizer(config, 1, task.frozen).init(variables["params"]),
        plateau=make_plateau(config).init(variables["params"]),
        loss_sum=jnp.zeros((), jnp.float32),
        bad_step=jnp.full((), -1, jnp.int32),
        average=averaging.begin(kept, task.frozen) if averages else None,
    )


def without(state: TrainState, frozen: Sequence[str]) -> TrainState:
    """Returns the part of a state that changes; what is frozen is read again from where it came from."""
    params, batch_stats = (
        {name: branch for name, branch in tree.items() if name not in frozen}
        for tree in (state.params, state.batch_stats)
    )
    return dataclasses.replace(state, params=params, batch_stats=batch_stats)


def device_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns devices in a row; a batch is divided among them, everything else is on each.

    By default those of all processes; a process's own are neighbours, so that its rows of a batch are contiguous.
    """
    devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
    return jax.make_mesh((len(devices),), ("batch",), axis_types=(AxisType.Auto,), devices=devices)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies a tree of arrays, equal in all processes, to each device."""
    everywhere = NamedSharding(mesh, PartitionSpec())
    # Not jax.device_put: with several processes it sends every leaf around to compare them.
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(everywhere, np.asarray(leaf)), tree)


def make_train_step(task: Task, config: ConfigDict, mesh: Mesh, steps_per_epoch: int) -> Program:
    """Returns the jitted step (state, batch) -> state; the old state's memory is donated.

    The batch is global: its loss and its BatchNorm statistics are those of all its films, on however many devices.
    Steps with another seed, or of another branch, are the same program.
    """
    branches = Branches(task.branches)
    optimizer = make_optimizer(config, steps_per_epoch, tuple(branches.by_place(dict.fromkeys(task.frozen))))
    decay = run_identity.setting(config, "ema_decay")
    everywhere, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    def train_step(state: TrainState, batch: dict, seed: jax.Array) -> TrainState:
        of_step = jax.random.fold_in(jax.random.key(seed), state.step)
        inputs, targets = task.prepare(branches.by_name(batch), of_step)
        of_network = jax.random.fold_in(of_step, 2)  # `prepare` takes it itself, and 1

        def mean_loss(params: dict):
            variables = branches.by_name({"params": params, "batch_stats": state.batch_stats})
            outputs, batch_stats = task.apply(variables, inputs, True, of_network)
            return _mean(task, task.training_loss(outputs, targets), targets), branches.by_place(batch_stats)

        (loss, batch_stats), gradients = jax.value_and_grad(mean_loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        updates = jax.tree.map(lambda update: state.plateau.scale * update, updates)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if average is not None:
            changed = {"params": params, "batch_stats": batch_stats}
            average = averaging.update(average, changed, state.step, decay)
        first_bad = (state.bad_step < 0) & ~jnp.isfinite(loss)
        return TrainState(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            plateau=state.plateau,
            loss_sum=state.loss_sum + loss,
            bad_step=jnp.where(first_bad, state.step, state.bad_step),
            average=average,
        )

    return branches.jit(
        train_step,
        last=[np.uint32(config.seed)],
        donate_argnums=0,
        in_shardings=(everywhere, shared, everywhere),
        out_shardings=everywhere,
    )


def _mean(task: Task, losses: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean of the losses of films, (B,); 0 if none of them counts."""
    if task.counted is None:
        return jnp.mean(losses)
    return jnp.sum(losses) / jnp.maximum(jnp.sum(task.counted(targets)), jnp.finfo(jnp.float32).tiny)


def make_evaluation_step(task: Task, mesh: Mesh) -> Program:
    """Returns the jitted step (variables, batch) -> {"loss": (B,), the task's results, and "counted" if it has it}."""
    branches = Branches(task.branches)
    everywhere, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))

    def evaluation_step(variables: dict, batch: dict) -> dict[str, jax.Array]:
        batch = branches.by_name(batch)
        inputs, targets = task.prepare(batch, None)
        outputs, _ = task.apply(branches.by_name(variables), inputs, False)
        counted = {} if task.counted is None else {"counted": task.counted(targets)}
        return {"loss": task.loss(outputs, targets), **counted, **task.results(outputs, targets, batch)}

    return branches.jit(evaluation_step, in_shardings=(everywhere, shared), out_shardings=everywhere)


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

    The devices work on a batch while the results of the previous one are fetched. Every process gets all results.

    Args:
      step: of `make_evaluation_step`.
      variables: of the network.
      examples: of the split.
      task: of the network.
      batch_size: examples at a time, over all devices.
      mesh: the devices.
      what: names the work next to the progress bar.
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


def check_batch_size(config: ConfigDict) -> None:
    """Raises UserError if a batch does not divide by the number of devices."""
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
