"""The segmentation-based deep fusion network (B.4), and with one branch the fine-tuned extractor of B.3."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core import FrozenDict

from sdfn_jax.core import run_identity
from sdfn_jax.models import backbones
from sdfn_jax.models.initial import LINEAR_UNIFORM
from sdfn_jax.radiographs.findings import FINDINGS


class SDFN(nn.Module):
    """One backbone per branch, global average pools, one linear layer over all of them.

    Attributes:
      branches: their names, in the order in which the head reads their feature maps.
      backbone: of every branch, a name of `backbones.BACKBONES`; the paper's is DenseNet-121.
      shape: the backbone's attributes, where they differ from its defaults.
      frozen: whether the branches are fixed: no gradient, no update of their statistics (B.5, stage 3).
      classes: outputs.
      dtype: of the branches' activations; parameters, statistics, pools and logits are float32.
      test_time_flip: whether an image's features are, except in training, the mean of its own and those of its mirror
        image, mirrored back. The head is linear: logits, and class activation maps, are the means of both.
      remat: see `DenseNet`.
      backend: selects the arithmetic (`kernels.for_backend`); JAX's default backend if None.
    """

    branches: tuple[str, ...] = ("entire", "lung")
    backbone: str = backbones.PAPERS
    shape: Mapping[str, Any] = FrozenDict()
    frozen: bool = False
    classes: int = len(FINDINGS)
    dtype: Any = jnp.float32
    test_time_flip: bool = False
    remat: bool = False
    backend: str | None = None

    def __post_init__(self):
        # Flax compares and hashes a module by its attributes; a plain dict cannot be hashed.
        object.__setattr__(self, "shape", FrozenDict(self.shape))
        super().__post_init__()

    @property
    def conv_scaling(self) -> tuple[float, str, str]:
        """The distribution of its backbone's initial kernels (`models.initial`)."""
        return backbones.named(self.backbone).load().conv_scaling

    @nn.compact
    def __call__(self, images: Mapping[str, jax.Array], train: bool) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the logits of the findings and the feature maps that were pooled.

        Args:
          images: {branch: (B, H, W, 3) standardised} for each of `branches`; others are ignored.
          train: see `DenseNet`; has no effect on frozen branches.

        Returns:
          logits: (B, classes) float32.
          features: {branch: (B, h, w, C)} of `dtype`; float32 if they are means.

        Raises:
          ValueError: if a branch has no image.
        """
        if missing := [branch for branch in self.branches if branch not in images]:
            raise ValueError(f"no image for the branch {', '.join(missing)}; got {', '.join(images) or 'none'}")
        features = {}
        for branch in self.branches:
            extractor = self.extractor(branch)
            if self.test_time_flip and not train:
                features[branch] = _flip_averaged(extractor, images[branch])
            else:
                features[branch] = extractor(images[branch], train and not self.frozen)
        if self.frozen:
            features = jax.lax.stop_gradient(features)
        pools = [pool(features[branch]) for branch in self.branches]
        return linear_head(self.classes, name="head")(jnp.concatenate(pools, axis=-1)), features

    @nn.nowrap
    def extractor(self, name: str | None = None) -> nn.Module:
        """Returns the network of a branch."""
        return backbones.build(
            self.backbone, self.shape, backend=self.backend, dtype=self.dtype, remat=self.remat, name=name
        )


def from_config(config: Mapping[str, Any], classes: int = len(FINDINGS)) -> SDFN:
    """Builds the network of a classifier's config: the one place that does.

    Args:
      config: of `configs/classifier.py` or `configs/fusion.py`, or as a checkpoint stores it.
      classes: outputs, one for each finding of the run (`findings.named_in` its checkpoint's metadata).
    """
    return SDFN(
        branches=tuple(config["branches"]),
        backbone=run_identity.backbone(config),
        shape=backbones.shape_of(config),
        frozen=bool(config.get("frozen")),
        classes=classes,
        dtype=jnp.dtype(run_identity.precision(config)),
        test_time_flip=run_identity.setting(config, "test_time_flip"),
        remat=config.get("remat", False),  # runs of version 0.1.0 do not store it
    )


def _flip_averaged(extractor: nn.Module, images: jax.Array) -> jax.Array:
    """Returns the mean of the feature maps of images (B, H, W, C) and of their mirror images, mirrored back."""
    # Both in one pass, neighbours in the batch: where it is divided among devices, they stay on one.
    pairs = jnp.stack([images, images[:, :, ::-1]], axis=1)
    features = extractor(pairs.reshape(-1, *images.shape[1:]), False)
    features = features.reshape(-1, 2, *features.shape[1:]).astype(jnp.float32)
    return (features[:, 0] + features[:, 1, :, ::-1]) / 2


def branch_variables(variables: Mapping[str, Mapping], branch: str) -> dict[str, Any]:
    """Returns the variables of one branch's backbone, `{"params": ..., "batch_stats": ...}`, from an `SDFN`'s.

    A backbone without running statistics has no `batch_stats`.
    """
    return {kind: tree[branch] for kind, tree in variables.items() if branch in tree}


def pool(features: jax.Array) -> jax.Array:
    """Global average pooling: (B, h, w, C) -> (B, C) float32."""
    return features.astype(jnp.float32).mean((1, 2))


def linear_head(classes: int, name: str | None = None) -> nn.Dense:
    """Returns the fusion layer: from pools to logits (B.4)."""
    return nn.Dense(classes, name=name, kernel_init=nn.initializers.variance_scaling(*LINEAR_UNIFORM))
