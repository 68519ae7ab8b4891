"""Adam, learning-rate rules, plateau rule and freezing (paper B.2, B.3, B.5)."""

from collections.abc import Callable, Sequence

import jax
import optax
from ml_collections import ConfigDict
from optax import contrib

from sdfn_jax.core import run_identity

Schedule = Callable[[int | jax.Array], float | jax.Array]


def _inverse_time(config: ConfigDict) -> Schedule:
    """lr / (1 + decay * updates): "a decay of 1.0e-5 over each update" (B.3)."""
    rate, decay = config.learning_rate, config.learning_rate_decay
    return lambda updates: rate / (1.0 + decay * updates)


# {value of `config.learning_rate_rule`: config -> schedule}
LEARNING_RATE_RULES: dict[str, Callable[[ConfigDict], Schedule]] = {"inverse_time": _inverse_time}


def schedule(config: ConfigDict) -> Schedule:
    """Returns a stage's learning rate as a function of the number of past updates, without the plateau rule's factor.

    Args:
      config: the stage's config; `learning_rate_rule` names the rule, which reads `learning_rate` and whatever else
        it needs.
    """
    return LEARNING_RATE_RULES[run_identity.learning_rate_rule(config)](config)


def make_optimizer(config: ConfigDict, frozen: Sequence[str] = ()) -> optax.GradientTransformation:
    """Returns Adam at the rate of the config's rule; branches named in `frozen` get zero updates and no moments.

    The plateau rule's factor is not included: it changes once an epoch, so the train step multiplies it in.

    Args:
      config: the stage's config; `adam` and what `schedule` needs are read.
      frozen: first-level names of the parameter tree.
    """
    adam = optax.chain(
        optax.scale_by_adam(b1=config.adam.b1, b2=config.adam.b2, eps=config.adam.epsilon),
        optax.scale_by_learning_rate(schedule(config)),
    )
    # Not optax.masked: it would pass the raw gradient of every frozen leaf through as that leaf's update.
    return optax.partition({"trained": adam, "frozen": optax.set_to_zero()}, lambda tree: _labels(tree, frozen))


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
