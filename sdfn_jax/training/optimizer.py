"""Optimizers, learning-rate rules, plateau rule and freezing (paper B.2, B.3, B.5)."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict
from optax import contrib

from sdfn_jax.core import run_identity

Schedule = Callable[[int | jax.Array], float | jax.Array]


def _inverse_time(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    """lr / (1 + decay * updates): "a decay of 1.0e-5 over each update" (B.3)."""
    del steps_per_epoch
    rate, decay = config.learning_rate, config.learning_rate_decay
    return lambda updates: rate / (1.0 + decay * updates)


def _cosine(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    """From 0 up to lr in a straight line over `warmup_share` of all updates, then down to 0 along half a cosine.

    The cosine is that of SGDR without restarts (Loshchilov and Hutter, ICLR 2017, eq. 5).
    """
    updates = config.num_epochs * steps_per_epoch
    warmup = round(run_identity.setting(config, "warmup_share") * updates)
    return optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, updates)


# {value of `config.learning_rate_rule`: (config, updates an epoch) -> schedule}
LEARNING_RATE_RULES: dict[str, Callable[[ConfigDict, int], Schedule]] = {
    "inverse_time": _inverse_time,
    "cosine": _cosine,
}


def _adam(config: ConfigDict, rate: Schedule) -> optax.GradientTransformation:
    """Adam (Kingma and Ba, ICLR 2015), the paper's."""
    return optax.adam(rate, b1=config.adam.b1, b2=config.adam.b2, eps=config.adam.epsilon)


def _adamw(config: ConfigDict, rate: Schedule) -> optax.GradientTransformation:
    """Adam with decoupled decay (Loshchilov and Hutter, ICLR 2019): each update also takes away lr * decay * weight.

    Kernels decay; biases, and scales and shifts of BatchNorm, do not (He et al., CVPR 2019, section 3.1).
    """
    adam, decay = config.adam, run_identity.setting(config, "weight_decay")
    return optax.adamw(rate, b1=adam.b1, b2=adam.b2, eps=adam.epsilon, weight_decay=decay, mask=_kernels)


# {value of `config.optimizer`: (config, schedule) -> optimizer}
OPTIMIZERS: dict[str, Callable[[ConfigDict, Schedule], optax.GradientTransformation]] = {"adam": _adam, "adamw": _adamw}


def schedule(config: ConfigDict, steps_per_epoch: int) -> Schedule:
    """Returns a stage's learning rate as a function of the number of past updates, without the plateau rule's factor.

    Args:
      config: the stage's config; `learning_rate_rule` names the rule, which reads `learning_rate` and whatever else
        it needs.
      steps_per_epoch: updates an epoch, as the trainer counts them.
    """
    return LEARNING_RATE_RULES[run_identity.setting(config, "learning_rate_rule")](config, steps_per_epoch)


def make_optimizer(
    config: ConfigDict, steps_per_epoch: int, frozen: Sequence[str] = ()
) -> optax.GradientTransformation:
    """Returns the config's optimizer at its rule's rate; branches named in `frozen` get zero updates and no moments.

    The plateau rule's factor is not included: it changes once an epoch, so the train step multiplies it in.

    Args:
      config: the stage's config; `optimizer`, `adam` and what `schedule` needs are read.
      steps_per_epoch: as in `schedule`.
      frozen: first-level names of the parameter tree.
    """
    optimizer = OPTIMIZERS[run_identity.setting(config, "optimizer")](config, schedule(config, steps_per_epoch))
    # Not optax.masked: it would pass the raw gradient of every frozen leaf through as that leaf's update.
    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, lambda tree: _labels(tree, frozen))


def make_plateau(config: ConfigDict) -> optax.GradientTransformationExtraArgs:
    """Returns the rule "times `factor` when the validation loss has not fallen for `patience` epochs" (B.3).

    Called once an epoch with `value=` the validation loss; its state's `scale` multiplies the learning rate. As in
    Keras's ReduceLROnPlateau, a fall of less than `minimum_fall` does not count.
    """
    return contrib.reduce_on_plateau(
        factor=config.plateau.factor, patience=config.plateau.patience, rtol=0.0, atol=config.plateau.minimum_fall
    )


def _labels(tree: dict, frozen: Sequence[str]) -> dict:
    return {
        name: jax.tree.map(lambda _, label=("frozen" if name in frozen else "trained"): label, branch)
        for name, branch in tree.items()
    }


def _kernels(params: Any) -> Any:
    """Returns which leaves of a parameter tree are kernels."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)
