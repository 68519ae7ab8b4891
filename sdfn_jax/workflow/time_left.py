"""Roughly how long a job still takes, once a network has made its first training steps.

The speed of that training, in operations a second, is taken for that of everything after it. Networks differ in how
well they use a machine, and preparing data is not counted: the figure may be wrong by a factor of two, which is enough
to tell an evening from a week.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence

import jax
from ml_collections import ConfigDict

from sdfn_jax.core import progress
from sdfn_jax.training import tasks

TRAINING = 5  # a training step takes as long as so many passes forward (docs/speed.md: 4.6 to 5.6)


def film_work(config: ConfigDict) -> float:
    """Returns the floating-point operations of a stage's network for one film, forward."""
    branches = len(config.branches) if config.stage != "lrg" else 1
    one = config.copy_and_resolve_references()
    with one.unlocked():
        one.branches = ("entire",)
    return branches * _forward(config.stage == "lrg", _Shape(one))


def training_work(config: ConfigDict, training: int, validation: int) -> float:
    """Returns the operations of a stage's whole training on so many films."""
    return config.num_epochs * (TRAINING * training + validation) * film_work(config)


@contextlib.contextmanager
def told(works: Sequence[Callable[[], float]]) -> Iterator[None]:
    """Within the block, training says how long the job still takes.

    Args:
      works: returns the operations of the step that runs in the block, and of each step after it.
    """

    def estimate(whole: float, left: float) -> str:
        first, *later = (work() for work in works)
        if not first:
            return ""  # JAX does not count operations on every backend
        in_all = left + sum(later) * whole / first
        return f"  about {progress.roughly(left)} left for this training, {progress.roughly(in_all)} for the whole job"

    with progress.estimating(estimate):
        yield


class _Shape:
    """A config, equal to others of the same network."""

    def __init__(self, config: ConfigDict):
        self.config = config
        self._key = (str(config.model), config.data.size, config.get("backbone"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shape) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


@functools.lru_cache(maxsize=8)  # tracing DenseNet-121 takes seconds, and both extractors have the same network
def _forward(is_lrg: bool, shape: _Shape) -> float:
    config = shape.config
    task = tasks.segmentation(config, {"mean": 0.0, "std": 1.0}) if is_lrg else tasks.classification(config)
    options = {} if is_lrg else {"train": False}
    variables = jax.eval_shape(functools.partial(task.model.init, **options), jax.random.key(0), task.inputs)
    network = jax.jit(lambda variables, images: task.apply(variables, images, False)[0])
    return float((network.lower(variables, task.inputs).cost_analysis() or {}).get("flops", 0.0))
