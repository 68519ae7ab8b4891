"""A network's activation maps over any number of images, a batch in memory at a time (eq. 5)."""

from collections.abc import Iterator, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from sdfn_jax import cam, tasks
from sdfn_jax.input_pipeline import Examples, evaluation_batches


def stream(config: ConfigDict, variables: Mapping[str, dict], examples: Examples) -> Iterator[dict[str, np.ndarray]]:
    """Yields {view: (h, w, 14) float32} for each example, in order, as `cam.activation_maps` says.

    Args:
      config: of an extractor or the fusion network.
      variables: its trained variables.
      examples: of a prepared chestxray14.
    """
    task = tasks.classification(config)
    features_of = jax.jit(lambda variables, images: task.model.apply(variables, images, train=False)[1])
    kernel = variables["params"]["head"]["kernel"]
    on_device = jax.device_put(variables)
    for batch, count in evaluation_batches(examples, task.select, config.evaluation_batch_size):
        features = jax.device_get(features_of(on_device, task.prepare(batch, None)[0]))
        maps = cam.activation_maps(features, kernel, task.model.branches)
        for row in range(count):
            yield {view: each[row] for view, each in maps.items()}
