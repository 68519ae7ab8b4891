"""A trained lung region generator."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from flax import linen as nn
from numpy.typing import ArrayLike

from sdfn_jax.core import backend, checkpoint
from sdfn_jax.core.arguments import BATCH_SIZE
from sdfn_jax.core.errors import UserError
from sdfn_jax.core.parallel import in_batches, map_in_order, one_ahead
from sdfn_jax.lungs import contrast
from sdfn_jax.lungs.lung_boxes import PostProcessing
from sdfn_jax.lungs.shipped import SHIPPED
from sdfn_jax.models import unet
from sdfn_jax.radiographs import grey_levels

Item = TypeVar("Item")
Kept = TypeVar("Kept")

TRAINED_ON_SYNTHETIC = (
    "this lung region generator was trained on synthetic radiographs: its boxes on films of patients mean nothing"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Segmenter:
    """A trained lung region generator.

    Attributes:
      model: the U-Net: (B, S, S, 1) float -> logits (B, S, S).
      variables: its variables.
      mean: of the training films' pixels after the contrast normalisation.
      std: their standard deviation.
      contrast: the method of `contrast`.
      size: S, the side of the network's square input, in pixels.
      digest: of the checkpoint.
      postprocessing: the numbers of B.2.2 that its config names.
      batch_size: films at a time, over all local devices: the one shape that is compiled.
      drawings: whether it was trained on synthetic radiographs.
      mirrored_too: whether a probability is the mean of that for the radiograph and that for its mirror image.
      least_confidence: a lung region of lower confidence is flagged as doubtful; None if no such bound was chosen.
    """

    model: nn.Module
    variables: dict
    mean: float
    std: float
    contrast: str
    size: int
    digest: str
    postprocessing: PostProcessing
    batch_size: int = BATCH_SIZE
    drawings: bool = False
    mirrored_too: bool = False
    least_confidence: float | None = None

    @classmethod
    def load(cls, workdir: str | Path | None = None, batch_size: int = BATCH_SIZE) -> "Segmenter":
        """Loads the best checkpoint of a trained LRG.

        Args:
          workdir: its run folder; None stands for the one that comes with the package (`shipped`).
          batch_size: films at a time.

        Raises:
          UserError: if `workdir` holds no trained checkpoint, or one of another stage.
        """
        variables, metadata = checkpoint.read_best(SHIPPED if workdir is None else workdir)
        config = metadata["config"]
        if config["stage"] != "lrg":
            raise UserError(
                f"{workdir} holds a checkpoint of the stage {config['stage']!r}; lung boxes need a lung region "
                "generator: give the working directory of the stage lrg"
            )
        return cls(
            model=unet.from_config(config),
            variables=variables,
            mean=metadata["normalisation"]["mean"],
            std=metadata["normalisation"]["std"],
            contrast=config["contrast"],
            size=config["data"]["size"],
            digest=metadata["digest"],
            postprocessing=PostProcessing(**config["postprocessing"]),
            batch_size=batch_size,
            drawings=bool(metadata.get("drawings")),
            mirrored_too=config.get("mirrored_too", False),
            least_confidence=config.get("least_confidence"),
        )

    def probabilities(self, films: Sequence[ArrayLike] | np.ndarray) -> np.ndarray:
        """Returns each pixel's probability of being lung.

        Args:
          films: (N, S, S) uint8, any number of them; or each in any other form that `grey_levels.as_radiograph` takes.

        Returns:
          (N, S, S) float32 in [0, 1].

        Raises:
          ValueError: for what is no radiograph, or not of S x S pixels.
        """
        inputs = np.stack(
            [contrast.contrast(self._film(number, film), self.contrast) for number, film in enumerate(films)]
        )
        starts = range(0, len(inputs), self.batch_size)
        found = [self.start(inputs[start : start + self.batch_size]) for start in starts]
        return np.concatenate([np.asarray(batch) for batch in found])[: len(films)]

    def stream(
        self, items: Iterable[Item], read: Callable[[Item], tuple[Kept, np.ndarray | None]]
    ) -> Iterator[tuple[Kept, np.ndarray | None]]:
        """Finds the lungs of many radiographs, in order: threads read ahead of the network.

        An item is always in the same batch, at the same place, for the same `items`; an unreadable one leaves its place
        empty.

        Args:
          items: what `read` takes; read only as far ahead as is needed.
          read: called by threads. Returns what to keep of an item, and its radiograph, resized to (S, S) uint8; None if
            it cannot be read.

        Yields:
          (what was kept, (S, S) float32 probabilities; None if the item could not be read) for each item.
        """
        empty = np.zeros((self.size,) * 2, np.float32)

        def prepare(item: Item) -> tuple[Kept, np.ndarray | None]:
            kept, radiograph = read(item)
            return kept, None if radiograph is None else contrast.contrast(radiograph, self.contrast)

        def start(batch: Sequence[tuple[Kept, np.ndarray | None]]) -> jax.Array:
            return self.start(np.stack([empty if inputs is None else inputs for _, inputs in batch]))

        started = ((batch, start(batch)) for batch in in_batches(map_in_order(prepare, items), self.batch_size))
        for batch, found in one_ahead(started):
            for (kept, inputs), probabilities in zip(batch, np.asarray(found), strict=False):
                yield kept, None if inputs is None else probabilities

    def start(self, inputs: np.ndarray) -> jax.Array:
        """Starts the network on one batch and returns at once; `np.asarray` of the result waits for it.

        Args:
          inputs: (at most batch_size, S, S) float32, films after `contrast`.

        Returns:
          (batch_size, S, S) float32 probabilities; rows beyond `inputs` mean nothing.
        """
        missing = self.batch_size - len(inputs)
        return self._network(np.pad(inputs, ((0, missing), (0, 0), (0, 0))))

    def _film(self, number: int, film: ArrayLike) -> np.ndarray:
        """Returns a film as (S, S) uint8."""
        try:
            film = grey_levels.as_radiograph(film)
        except ValueError as error:
            raise ValueError(f"films[{number}]: {error}") from error
        if film.shape != (self.size, self.size):
            raise ValueError(
                f"films[{number}] has {film.shape[0]} x {film.shape[1]} pixels, where this network reads {self.size} x "
                f"{self.size}; pixels.resize makes them"
            )
        return film

    @functools.cached_property
    def _network(self):
        def network(variables: dict, inputs: jax.Array) -> jax.Array:
            standardised = (inputs - self.mean) / self.std
            return jax.nn.sigmoid(self.model.apply(variables, standardised[..., None]))

        def both_ways(variables: dict, inputs: jax.Array) -> jax.Array:
            return (network(variables, inputs) + network(variables, inputs[..., ::-1])[..., ::-1]) / 2

        found = both_ways if self.mirrored_too else network

        def one_by_one(variables: dict, inputs: jax.Array) -> jax.Array:
            return jax.lax.map(lambda film: found(variables, film[None])[0], inputs)

        # On a CPU film by film: what one layer leaves in the cache the next one reads there.
        chosen = one_by_one if jax.default_backend() == "cpu" else found
        return backend.on_local_devices(chosen, self.variables, self.batch_size)
