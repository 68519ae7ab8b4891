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


def bce(logits: jax.Array, labels: jax.Array, known: jax.Array | None = None) -> jax.Array:
    """Binary cross-entropy (eq. 2).

    Args:
      logits: (B, K) float32.
      labels: (B, K) float32, 0 to 1.
      known: (B, K) bool, which of them count; None if all do.

    Returns:
      (B, K) float32, as all losses here; whatever for labels that do not count.
    """
    del known
    return optax.sigmoid_binary_cross_entropy(logits, labels)


def weighted(logits: jax.Array, labels: jax.Array, known: jax.Array | None = None) -> jax.Array:
    """Cross-entropy in which the batch's positives weigh as much as its negatives (Wang et al., CVPR 2017, eq. 1).

    With P ones and N zeros among all known labels of the batch, ones weigh (P + N) / P and zeros (P + N) / N; a label
    between 0 and 1 is a part of either. MISCALIBRATED: probabilities of rare findings come out far too high.
    """
    count = labels.size if known is None else jnp.sum(known)
    positives = jnp.sum(labels)
    of_ones, of_zeros = count / jnp.maximum(positives, 1.0), count / jnp.maximum(count - positives, 1.0)
    weights = labels * of_ones + (1.0 - labels) * of_zeros
    return weights * optax.sigmoid_binary_cross_entropy(logits, labels)


def focal(logits: jax.Array, labels: jax.Array, known: jax.Array | None = None, gamma: float = 2.0) -> jax.Array:
    """Cross-entropy times (1 - p of the truth) ** gamma (Lin et al., ICCV 2017, eq. 4, with their gamma).

    Without their balancing factor alpha. MISCALIBRATED: probabilities are drawn towards 1/2.
    """
    del known
    return optax.losses.sigmoid_focal_loss(logits, labels, gamma=gamma)


def asymmetric(
    logits: jax.Array,
    labels: jax.Array,
    known: jax.Array | None = None,
    gamma_positive: float = 1.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> jax.Array:
    """The asymmetric loss (Ridnik et al., ICCV 2021, eq. 7, with the numbers of their code).

    A focal loss with an exponent of its own for zeros, whose probability is first lowered by `margin`, so that the
    easiest of them count for nothing. MISCALIBRATED: probabilities come out far too high.
    """
    del known
    yes, no = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    of_ones = no**gamma_positive * jax.nn.log_sigmoid(logits)
    of_zeros = jnp.maximum(yes - margin, 0.0) ** gamma_negative * jnp.log(jnp.minimum(no + margin, 1.0))
    return -(labels * of_ones + (1.0 - labels) * of_zeros)


class Loss(NamedTuple):
    """A loss and what a user of the trained network must know of it.

    Attributes:
      each: (logits, labels, known) -> (B, K), as `bce`.
      warning: a sentence for the plan; empty if the network gives probabilities.
    """

    each: Callable[..., jax.Array]
    warning: str = ""

    def function(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Returns the mean over the findings: (B, K), (B, K) of 0 and 1 -> (B,)."""
        return jnp.mean(self.each(logits, labels), axis=1)

    def of_known(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        """Returns the same where an unknown label's loss is 0: (B, K), (B, K) of 0 to 1 or NaN -> (B,).

        Its sum over films, divided by that of `known_share`, is the mean over the known labels.
        """
        known = ~jnp.isnan(targets)
        losses = self.each(logits, jnp.where(known, targets, 0.0), known)
        return jnp.mean(jnp.where(known, losses, 0.0), axis=1)


def known_share(targets: jax.Array) -> jax.Array:
    """Returns which share of each film's labels is known: (B, K) -> (B,)."""
    return jnp.mean(~jnp.isnan(targets), axis=1, dtype=jnp.float32)


# {value of `config.loss`: the loss}
LOSSES = {
    "bce": Loss(bce),
    "weighted": Loss(weighted, _NOT_PROBABILITIES),
    "focal": Loss(focal, _NOT_PROBABILITIES),
    "asymmetric": Loss(asymmetric, _NOT_PROBABILITIES),
}
