"""The losses that a classifier can be trained with, by name.

Validation always reports the cross-entropy of eq. 2: it compares runs of any loss, and shows what a loss does to the
probabilities. Evaluation calibrates them on the validation split (`metrics.calibration`) and measures both.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

_NOT_PROBABILITIES = "its outputs rank films but are no probabilities: use those that are calibrated on validation"


def bce(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross-entropy averaged over the findings (eq. 2).

    Args:
      logits: (B, 14) float32.
      labels: (B, 14) float32, 0 or 1.

    Returns:
      (B,) float32, the loss of each film, as all losses here.
    """
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels), axis=1)


def weighted(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy in which the batch's positives weigh as much as its negatives (Wang et al., CVPR 2017, eq. 1).

    With P ones and N zeros among all labels of the batch, ones weigh (P + N) / P and zeros (P + N) / N.
    MISCALIBRATED: probabilities of rare findings come out far too high.
    """
    count = labels.size
    positives = jnp.sum(labels)
    of_ones, of_zeros = count / jnp.maximum(positives, 1.0), count / jnp.maximum(count - positives, 1.0)
    weights = jnp.where(labels == 1.0, of_ones, of_zeros)
    return jnp.mean(weights * optax.sigmoid_binary_cross_entropy(logits, labels), axis=1)


def focal(logits: jax.Array, labels: jax.Array, gamma: float = 2.0) -> jax.Array:
    """Cross-entropy times (1 - p of the truth) ** gamma (Lin et al., ICCV 2017, eq. 4, with their gamma).

    Without their balancing factor alpha. MISCALIBRATED: probabilities are drawn towards 1/2.
    """
    return jnp.mean(optax.losses.sigmoid_focal_loss(logits, labels, gamma=gamma), axis=1)


def asymmetric(
    logits: jax.Array, labels: jax.Array, gamma_positive: float = 1.0, gamma_negative: float = 4.0, margin: float = 0.05
) -> jax.Array:
    """The asymmetric loss (Ridnik et al., ICCV 2021, eq. 7, with the numbers of their code).

    A focal loss with an exponent of its own for zeros, whose probability is first lowered by `margin`, so that the
    easiest of them count for nothing. MISCALIBRATED: probabilities come out far too high.
    """
    yes, no = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    of_ones = no**gamma_positive * jax.nn.log_sigmoid(logits)
    of_zeros = jnp.maximum(yes - margin, 0.0) ** gamma_negative * jnp.log(jnp.minimum(no + margin, 1.0))
    return -jnp.mean(labels * of_ones + (1.0 - labels) * of_zeros, axis=1)


class Loss(NamedTuple):
    """A loss and what a user of the trained network must know of it.

    Attributes:
      function: (logits, labels) -> (B,).
      warning: a sentence for the plan; empty if the network gives probabilities.
    """

    function: Callable[[jax.Array, jax.Array], jax.Array]
    warning: str = ""


# {value of `config.loss`: the loss}
LOSSES = {
    "bce": Loss(bce),
    "weighted": Loss(weighted, _NOT_PROBABILITIES),
    "focal": Loss(focal, _NOT_PROBABILITIES),
    "asymmetric": Loss(asymmetric, _NOT_PROBABILITIES),
}
