"""The preprocessing that a network expects: one record, stored with its weights, used in training and evaluation."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sdfn_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From grey levels to the input of a network.

    Black (0) becomes `low` and white (255) `high`, repeated into as many channels as `mean` has; each channel then has
    its mean subtracted and is divided by its standard deviation.

    Attributes:
      low: value of black before standardisation.
      high: value of white.
      mean: of each channel, on the scale of `low` and `high`.
      std: of each channel; as many as means, none 0.
      size: height and width of the image, in pixels.
    """

    low: float
    high: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int

    def __post_init__(self):
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        numbers = (self.low, self.high, *self.mean, *self.std)
        if not self.mean or len(self.mean) != len(self.std) or not all(map(math.isfinite, numbers)) or 0 in self.std:
            raise ValueError(
                f"not a preprocessing: {self.as_dict()}; mean and std need one finite number per channel, std not 0"
            )

    @classmethod
    def of(cls, config: ConfigDict | Mapping[str, Any]) -> "Preprocessing":
        """Reads it from a classifier's config, stored or not: `config.preprocessing` and `config.data.size`.

        Raises:
          UserError: for invalid values.
        """
        try:
            return cls(**config["preprocessing"], size=config["data"]["size"])
        except (TypeError, ValueError) as error:
            raise UserError(f"--config.preprocessing, or the one that a checkpoint stores: {error}") from error

    @property
    def channels(self) -> int:
        """Channels of the network's input."""
        return len(self.mean)

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as JSON values; `Preprocessing(**record)` reverses this."""
        return dataclasses.asdict(self) | {"mean": list(self.mean), "std": list(self.std)}

    def __call__(self, image: jax.Array) -> jax.Array:
        """Turns (B, H, W) grey levels, 0 to 255, into (B, H, W, channels) float32."""
        mean, std = np.float32(self.mean), np.float32(self.std)
        scaled = self.low + (self.high - self.low) * (image[..., None].astype(jnp.float32) / 255.0)
        return (scaled - mean) / std

    def differences(self, other: "Preprocessing") -> list[str]:
        """Returns the names of the attributes that differ."""
        names = [field.name for field in dataclasses.fields(self)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def check_same_preprocessing(stored: Preprocessing, config: ConfigDict, owner: str, any_size: bool) -> None:
    """Checks that a config prepares images as weights expect them.

    Args:
      stored: what the weights expect.
      config: of the classifier that is to use them.
      owner: the weights, for the message.
      any_size: whether the image size may differ, as it may for weights that training starts from.

    Raises:
      UserError: naming the differences, and the flags that resolve them.
    """
    differences = stored.differences(Preprocessing.of(config))
    if any_size and "size" in differences:
        differences.remove("size")
    if differences:
        flags = {name: f"--config.preprocessing.{name}" for name in differences} | {"size": "--config.data.size"}
        wanted = " ".join(
            f"{flags[name]}='{value}'" for name, value in dataclasses.asdict(stored).items() if name in differences
        )
        raise UserError(
            f"{owner} expects different preprocessing than this config has: {', '.join(differences)} "
            f"differ. For these weights, set {wanted}"
        )
