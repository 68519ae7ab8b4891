"""Exponential moving average of what trains: weights and BatchNorm statistics.

With it, the average is what is validated, saved as the best and so evaluated; training itself goes on from the last
update (Polyak and Juditsky, 1992; Tan and Le, ICML 2019, train EfficientNet so).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

Variables = dict[str, Any]


def begin(variables: Mapping[str, Any], frozen: Sequence[str]) -> Variables:
    """Returns the average before the first update: a copy of what trains.

    Args:
      variables: `params` and `batch_stats`, each a tree by first-level name.
      frozen: first-level names that do not train; a mean of equal numbers may differ from them in the last bit.
    """
    # Copies: the train step gives up the memory of both.
    return {
        kind: {name: jax.tree.map(np.array, leaves) for name, leaves in tree.items() if name not in frozen}
        for kind, tree in variables.items()
    }


def update(average: Variables, variables: Mapping[str, Any], updates: jax.Array, decay: float) -> Variables:
    """Returns the average after one more update: d * average + (1 - d) * variables.

    d = min(decay, (1 + updates) / (10 + updates)), as TensorFlow's ExponentialMovingAverage has it: the start of a run
    is forgotten however short the run is.

    Args:
      average: of `begin` or an earlier call.
      variables: after the update.
      updates: number of updates before this one, int32.
      decay: of the config, `ema_decay`.
    """
    weight = 1.0 - jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))
    trained = {kind: {name: variables[kind][name] for name in tree} for kind, tree in average.items()}
    return optax.incremental_update(trained, average, weight)
