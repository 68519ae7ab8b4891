"""The backbones: one line each, in addition to the network's own file. Loads no network.

A backbone is a Flax module that turns images into the feature maps that are pooled for the head. Training, heatmaps,
fusion, features and export rely on:

* attributes: its shape, which is `config.model`; `dtype` of the activations; `remat` (see `DenseNet`).
* `__call__(images, train)`: (B, H, W, channels) standardised -> (B, h, w, C) of `dtype`. The head reads their mean over
  h and w, and nothing else: that makes class activation maps exact (eq. 5). In training it may draw random numbers from
  the rng `drop_path`.
* `conv_scaling`: the distribution of its initial kernels (`models.initial`).
* `smallest_side`: of the images that it takes, in pixels.
* `title`: its name in messages.

Its variables are `params`, and `batch_stats` if it has running statistics. Under the names of its modules, with
torchvision's for the leaves, they are exported and read again. `kernels` may have a twin for a CPU, and
`inference.onnx_graph.GRAPHS` its graph for ONNX.
"""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flax import linen as nn

from sdfn_jax.core import run_identity
from sdfn_jax.core.arguments import nearest
from sdfn_jax.core.errors import UserError
from sdfn_jax.models import kernels
from sdfn_jax.models.weights.download import Published
from sdfn_jax.models.weights.hub import HubFile


@dataclasses.dataclass(frozen=True)
class Backbone:
    """Where a backbone's network is, and its published weights.

    Attributes:
      network: `module:class`.
      sources: the modules that read other libraries' weights files for it; the first that recognises a file does.
      imagenet: the weights that `config.pretrained = "imagenet"` stands for; None if there are none.
    """

    network: str
    sources: tuple[str, ...] = ()
    imagenet: Published | HubFile | None = None

    def published(self) -> Published | HubFile:
        """Returns its ImageNet weights; a UserError says that there are none."""
        if self.imagenet is None:
            raise UserError(
                f"no ImageNet weights are known for the backbone {self.network}: give a weights file "
                "(--config.pretrained=FILE), or train from random weights (--config.pretrained=random)"
            )
        return self.imagenet

    def load(self) -> Any:
        """Returns the network's class."""
        module, _, name = self.network.partition(":")
        return getattr(importlib.import_module(module), name)

    def load_sources(self) -> tuple[ModuleType, ...]:
        """Returns the modules that read weights files."""
        return tuple(importlib.import_module(source) for source in self.sources)


PAPERS = "densenet"
_COMMON = ("dtype", "remat", "name", "parent")  # attributes that are not part of a shape
_WEIGHTS = "sdfn_jax.models.weights"
BACKBONES = {
    PAPERS: Backbone(
        "sdfn_jax.models.densenet:DenseNet",
        tuple(f"{_WEIGHTS}.{source}" for source in ("keras", "torchxrayvision", "chexnet", "torchvision")),
        Published("https://download.pytorch.org/models/densenet121-a639ec97.pth", "a639ec97"),
    ),
    "convnext_tiny": Backbone(
        "sdfn_jax.models.convnext:ConvNeXtTiny",
        (f"{_WEIGHTS}.timm_convnext",),
        HubFile("timm/convnext_tiny.fb_in1k", "model.safetensors"),
    ),
    "convnext_base": Backbone(
        "sdfn_jax.models.convnext:ConvNeXtBase",
        (f"{_WEIGHTS}.timm_convnext",),
        HubFile("timm/convnext_base.fb_in1k", "model.safetensors"),
    ),
}


def named(name: str) -> Backbone:
    """Returns a backbone by its name; for an unknown one, a UserError lists all names."""
    if name not in BACKBONES:
        raise UserError(f"no backbone {name!r} (there are: {', '.join(BACKBONES)}){nearest(name, list(BACKBONES))}")
    return BACKBONES[name]


def build(name: str, shape: Mapping[str, Any], /, *, backend: str | None = None, **attributes: Any) -> nn.Module:
    """Returns a backbone's network, as a backend computes it (`kernels.for_backend`).

    Args:
      name: of `BACKBONES`.
      shape: the network's own attributes, where they differ from its defaults.
      backend: JAX's default backend if None.
      **attributes: those that all backbones have: `dtype`, `remat`, `name`.

    Raises:
      UserError: for an unknown name, or a shape with an attribute that this network does not have.
    """
    network = named(name).load()
    known = [field.name for field in dataclasses.fields(network) if field.name not in _COMMON]
    if unknown := [each for each in shape if each not in known]:
        raise UserError(f"the backbone {name} has no {', '.join(unknown)} (in config.model); it has {', '.join(known)}")
    return kernels.for_backend(network, backend)(**shape, **attributes)


def from_config(config: Mapping[str, Any], **attributes: Any) -> nn.Module:
    """Returns the network of one branch of a classifier's config, or of the config that a checkpoint stores."""
    return build(run_identity.backbone(config), shape_of(config), **attributes)


def shape_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `config.model`; lists, as checkpoints store them, become tuples, because a module is hashed."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in config["model"].items()}


def of(model: nn.Module) -> Backbone:
    """Returns the backbone that a network, or its twin, is of; a TypeError for another network."""
    for backbone in BACKBONES.values():
        if isinstance(model, backbone.load()):
            return backbone
    raise TypeError(f"{type(model).__name__} is not a backbone; known are: {', '.join(BACKBONES)}")
