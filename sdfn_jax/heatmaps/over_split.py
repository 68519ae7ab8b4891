"""A network's heatmaps of any number of images, a batch in memory at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core.parallel import one_ahead
from sdfn_jax.heatmaps import cam
from sdfn_jax.training import tasks
from sdfn_jax.training.input_pipeline import Examples, evaluation_batches


def stream(
    config: ConfigDict, variables: Mapping[str, dict], examples: Examples, method: str = cam.DEFAULT_METHOD
) -> Iterator[dict[str, np.ndarray]]:
    """Yields {branch: (h, w, K) float32} for each example, in order.

    Args:
      config: of an extractor or the fusion network.
      variables: its trained variables.
      examples: of a prepared data set, whatever it labels.
      method: of `cam.METHODS`.
    """
    task, kernel = tasks.classification(config), variables["params"]["head"]["kernel"]
    network = task.model.clone(classes=kernel.shape[1])

    @jax.jit
    def features_of(variables: Mapping[str, dict], batch: dict) -> Mapping[str, Any]:
        images, _ = task.prepare(batch, None)
        return network.apply(variables, images, train=False)[1]

    on_device = jax.device_put(variables)
    batches = evaluation_batches(examples, task.select, config.evaluation_batch_size)
    # The device works on a batch while the maps of the previous one are used.
    for features, count in one_ahead((features_of(on_device, batch), count) for batch, count in batches):
        maps = cam.METHODS[method](jax.device_get(features), kernel, task.model.branches)
        for row in range(count):
            yield {branch: each[row] for branch, each in maps.items()}


def stream_mean(
    config: ConfigDict,
    members: Sequence[Mapping[str, dict]],
    examples: Examples,
    method: str = cam.DEFAULT_METHOD,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the mean of the maps of an ensemble's members, or of one network, as `stream` does."""
    streams = [stream(config, variables, examples, method) for variables in members]
    for maps in zip(*streams, strict=True):
        yield {branch: np.mean([each[branch] for each in maps], axis=0) for branch in maps[0]}
