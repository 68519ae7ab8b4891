"""A trained classifier at work on batches of radiographs: one network, or an ensemble of several of one recipe."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from sdfn_jax.core import backend
from sdfn_jax.heatmaps import cam
from sdfn_jax.models import sdfn
from sdfn_jax.models.preprocessing import Preprocessing

# Of each member: logits (B, K) float32, and features {branch: (B, h, w, C)} of the same pass.
Outputs = tuple[tuple[np.ndarray, dict[str, np.ndarray]], ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A trained extractor or fusion network, or an ensemble of M of them.

    Attributes:
      model: {branch: (B, S, S, channels) float32} -> logits (B, K), features {branch: (B, h, w, C)}.
      members: the variables of each network; of one alone, M = 1.
      preprocessing: from grey levels to its input.
      batch_size: films at a time, over all local devices: the one shape that is compiled.
    """

    model: sdfn.SDFN
    members: Sequence[dict]
    preprocessing: Preprocessing
    batch_size: int

    def start(self, batch: Sequence[Mapping[str, np.ndarray]]) -> list[tuple[jax.Array, dict[str, jax.Array]]]:
        """Starts the networks on at most `batch_size` radiographs and returns at once.

        Args:
          batch: {branch: (S, S) uint8} of each.

        Returns:
          `Outputs` on the device, for `jax.device_get`; rows beyond `batch` mean nothing.
        """
        missing = self.batch_size - len(batch)
        stacked = {
            branch: np.pad(np.stack([each[branch] for each in batch]), ((0, missing), (0, 0), (0, 0)))
            for branch in self.model.branches
        }
        return [network(stacked) for network in self._networks]

    def activation_maps(self, outputs: Outputs) -> dict[str, np.ndarray]:
        """Returns the class activation maps {branch: (B, h, w, K) float32} of a batch (eq. 5), the members' mean.

        They are parts of the mean of the members' logits.
        """
        maps = [
            cam.activation_maps(features, variables["params"]["head"]["kernel"], self.model.branches)
            for (_, features), variables in zip(outputs, self.members, strict=True)
        ]
        return {branch: np.mean([each[branch] for each in maps], axis=0) for branch in self.model.branches}

    def pool(self, outputs: Outputs) -> np.ndarray:
        """Returns what the heads see of a batch: (B, sum of the C) float32, the branches in order, member by member."""
        pools = [
            features[branch].astype(np.float32).mean((1, 2))
            for _, features in outputs
            for branch in self.model.branches
        ]
        return np.concatenate(pools, axis=-1)

    @property
    def width(self) -> int:
        """Features that the heads see."""
        return sum(len(variables["params"]["head"]["kernel"]) for variables in self.members)

    @functools.cached_property
    def _networks(self) -> list[Callable[[dict[str, np.ndarray]], tuple[jax.Array, dict[str, jax.Array]]]]:
        def network(variables: dict, batch: dict[str, jax.Array]):
            prepared = {branch: self.preprocessing(grey) for branch, grey in batch.items()}
            return self.model.apply(variables, prepared, train=False)

        # One function, and so one program, for all members.
        return [backend.on_local_devices(network, variables, self.batch_size) for variables in self.members]
