"""A trained lung region generator."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from numpy.typing import ArrayLike

from sdfn_jax.core import checkpoint, run_identity
from sdfn_jax.core.errors import UserError
from sdfn_jax.lungs.contrast import contrast
from sdfn_jax.lungs.lung_boxes import PostProcessing
from sdfn_jax.models import kernels
from sdfn_jax.models.unet import UNet
from sdfn_jax.radiographs import reader

# A pixel is lung where its probability is above this ([21]).
THRESHOLD = 0.5
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
      batch_size: films at a time, the one shape that is compiled.
      drawings: whether it was trained on synthetic radiographs.
    """

    model: nn.Module
    variables: dict
    mean: float
    std: float
    contrast: str
    size: int
    digest: str
    postprocessing: PostProcessing
    batch_size: int = 8
    drawings: bool = False

    @classmethod
    def load(cls, workdir: str | Path, batch_size: int = 8) -> "Segmenter":
        """Loads the best checkpoint of a trained LRG.

        Raises:
          UserError: where `workdir` holds no trained checkpoint, or one of another stage.
        """
        variables, metadata = checkpoint.read_best(workdir)
        config = metadata["config"]
        if config["stage"] != "lrg":
            raise UserError(
                f"{workdir} holds a checkpoint of the stage {config['stage']!r}; lung boxes need a lung region "
                "generator: give the working directory of the stage lrg"
            )
        network = kernels.for_backend(UNet)
        return cls(
            model=network(filters=tuple(config["model"]["filters"]), dtype=jnp.dtype(run_identity.precision(config))),
            variables=variables,
            mean=metadata["normalisation"]["mean"],
            std=metadata["normalisation"]["std"],
            contrast=config["contrast"],
            size=config["data"]["size"],
            digest=metadata["digest"],
            postprocessing=PostProcessing(**config["postprocessing"]),
            batch_size=batch_size,
            drawings=bool(metadata.get("drawings")),
        )

    def probabilities(self, films: Sequence[ArrayLike]) -> np.ndarray:
        """Returns each pixel's probability of being lung.

        Args:
          films: (N, S, S) uint8, any number of them; or each in any other form that `images.as_radiograph` takes.

        Returns:
          (N, S, S) float32 in [0, 1].

        Raises:
          ValueError: for a film that is none, or not of S x S pixels.
        """
        inputs = np.stack([contrast(self._film(number, film), self.contrast) for number, film in enumerate(films)])
        starts = range(0, len(inputs), self.batch_size)
        found = [self.start(inputs[start : start + self.batch_size]) for start in starts]
        return np.concatenate([np.asarray(batch) for batch in found])[: len(films)]

    def start(self, inputs: np.ndarray) -> jax.Array:
        """Starts the network on one batch and returns at once; `np.asarray` of the result waits for it.

        Args:
          inputs: (at most batch_size, S, S) float32, films after `contrast`.

        Returns:
          (batch_size, S, S) float32 probabilities; what `inputs` lacks is filled up and means nothing.
        """
        missing = self.batch_size - len(inputs)
        return self._network(self._on_device, np.pad(inputs, ((0, missing), (0, 0), (0, 0))))

    def _film(self, number: int, film: ArrayLike) -> np.ndarray:
        """Returns a film as (S, S) uint8."""
        try:
            film = reader.as_radiograph(film)
        except ValueError as error:
            raise ValueError(f"films[{number}]: {error}") from error
        if film.shape != (self.size, self.size):
            raise ValueError(
                f"films[{number}] has {film.shape[0]} x {film.shape[1]} pixels, where this network reads {self.size} x "
                f"{self.size}; images.resize makes them"
            )
        return film

    @functools.cached_property
    def _on_device(self) -> dict:
        return jax.device_put(self.variables)

    @functools.cached_property
    def _network(self):
        def network(variables: dict, inputs: jax.Array) -> jax.Array:
            standardised = (inputs - self.mean) / self.std
            return jax.nn.sigmoid(self.model.apply(variables, standardised[..., None]))

        def one_by_one(variables: dict, inputs: jax.Array) -> jax.Array:
            return jax.lax.map(lambda film: network(variables, film[None])[0], inputs)

        # On a CPU film by film: what one layer leaves in the cache the next one reads there.
        return jax.jit(one_by_one if jax.default_backend() == "cpu" else network)
