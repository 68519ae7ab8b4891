"""The stages as data: what the one trainer needs to know of the LRG, the extractors and the fusion network."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from sdfn_jax.core import run_identity
from sdfn_jax.lungs import contrast as lungs_contrast
from sdfn_jax.metrics import scores
from sdfn_jax.models import sdfn, unet
from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.training import augmentation, losses, wide_augmentation
from sdfn_jax.training.labelling import Labelling

Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """One stage as the trainer sees it. B is the batch size.

    Attributes:
      model: the Flax module.
      inputs: model input for one film, as shapes (for initial variables).
      select: example of the data set -> arrays of one batch row (on the host).
      prepare: (batch, key or None) -> (model input, targets); augments if there is a key (in the jitted step).
      apply: (variables, model input, train, key of the network's own random numbers in training) -> (outputs, new batch
        statistics).
      loss: (outputs, targets) -> (B,), the cross-entropy of each film, which validation reports.
      training_loss: the same of what training lowers the mean of.
      results: (outputs, targets, batch) -> {name: (B, ...)}, what `score` needs of each film.
      score: {name: (N, ...)} over a whole split -> {metric: number}.
      best: the metric the best epoch is chosen by; "loss" is the mean loss of the validation split.
      higher_is_better: its direction.
      counted: targets -> (B,), by which the losses of films are weighed in a mean; None for the plain mean.
      branches: of the network, in its order; none for the LRG.
      labelling: of the findings; None for a task that has none.
      frozen: first-level names of parameters that do not train.
      whole: variables of the task's model -> those of the stage's network, which a checkpoint is to hold; another tree
        only if the task is a part of that network.
    """

    model: nn.Module
    inputs: Any
    select: Callable[[dict], dict]
    prepare: Callable[[Batch, jax.Array | None], tuple[Any, jax.Array]]
    apply: Callable[..., tuple[Any, dict]]
    loss: Callable[[Any, jax.Array], jax.Array]
    training_loss: Callable[[Any, jax.Array], jax.Array]
    results: Callable[[Any, jax.Array, Batch], dict[str, jax.Array]]
    score: Callable[[dict[str, np.ndarray]], dict[str, float]]
    best: str
    higher_is_better: bool
    counted: Callable[[jax.Array], jax.Array] | None = None
    branches: tuple[str, ...] = ()
    labelling: Labelling | None = None
    frozen: tuple[str, ...] = ()
    whole: Callable[[dict], dict] = lambda variables: variables


def segmentation(config: ConfigDict, normalisation: Mapping[str, float]) -> Task:
    """Returns the LRG's task: the U-Net of [21], pixel-wise cross-entropy, smallest validation loss (B.2).

    Args:
      config: of `configs/lrg.py`.
      normalisation: `mean` and `std` of the training films after the contrast normalisation.
    """
    model = unet.from_config(config)
    size = config.data.size
    # Plain numbers: the functions below are traced, and must not hold on to the config.
    ranges, wide = dict(config.augmentation), dict(config.get("wide_augmentation", {}))
    contrast = config.contrast
    # With each film, and not in the program: that would be compiled for each fold of a cross-validation.
    numbers = {name: np.float32(normalisation[name]) for name in ("mean", "std")}

    def select(example: dict) -> dict:
        return {"image": lungs_contrast.contrast(example["image"], contrast), "mask": example["mask"], **numbers}

    def prepare(batch: Batch, key: jax.Array | None):
        image, mask = batch["image"], batch["mask"].astype(jnp.float32) / 255.0
        if key is not None and wide:
            image, mask = wide_augmentation.change(jax.random.fold_in(key, 1), image, mask, **wide)
        mean, std = (batch[name][:, None, None] for name in ("mean", "std"))
        image = (image - mean) / std
        if key is not None:
            image, mask = augmentation.random_affine(key, image, mask, **ranges)
        return image[..., None], mask

    def apply(variables: dict, image: jax.Array, train: bool, key: jax.Array | None = None):
        del train, key  # the network of [21] has neither normalisation nor dropout
        return model.apply(variables, image), {}

    def results(logits: jax.Array, mask: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        del batch
        found, truth = logits > 0, mask > 0.5
        overlap = jnp.sum(found & truth, axis=(1, 2))
        return {"dice": 2 * overlap / jnp.maximum(jnp.sum(found, axis=(1, 2)) + jnp.sum(truth, axis=(1, 2)), 1)}

    def loss(logits: jax.Array, mask: jax.Array) -> jax.Array:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, mask), axis=(1, 2))

    return Task(
        model=model,
        inputs=jax.ShapeDtypeStruct((1, size, size, 1), jnp.float32),
        select=select,
        prepare=prepare,
        apply=apply,
        loss=loss,
        training_loss=loss,
        results=results,
        score=lambda values: {"dice": float(np.mean(values["dice"]))},
        best="loss",
        higher_is_better=False,
    )


def classification(config: ConfigDict, labelling: Labelling | None = None) -> Task:
    """Returns the task of an extractor (one branch) or of the fusion network (two frozen branches) (B.3, B.4).

    The paper's loss is the binary cross-entropy averaged over the findings (eq. 2); best is the highest mean
    validation AUC.

    Args:
      config: of `configs/classifier.py` or `configs/fusion.py`.
      labelling: of the run on its data set; None for the 14 findings, each present or absent.
    """
    labelling = labelling or Labelling()
    loss = losses.LOSSES[run_identity.setting(config, "loss")]
    masked = labelling.table is not None
    branches = tuple(config.branches)
    frozen = branches if config.frozen else ()
    model = sdfn.from_config(config, len(labelling.findings))
    preprocessing = Preprocessing.of(config)
    image = (1, preprocessing.size, preprocessing.size, preprocessing.channels)
    flip, changes = config.flip, dict(run_identity.setting(config, "augmentation"))

    def select(example: dict) -> dict:
        return {name: example[name] for name in branches} | {"labels": labelling.codes(example["labels"])}

    def prepare(batch: Batch, key: jax.Array | None):
        images = {branch: batch[branch] for branch in branches}
        if key is not None and flip:
            images = augmentation.flip_together(key, images)
        if key is not None:
            images = augmentation.change_together(jax.random.fold_in(key, 1), images, **changes)
        images = {branch: preprocessing(image) for branch, image in images.items()}
        return images, labelling.targets(batch["labels"])

    def apply(variables: dict, images: dict[str, jax.Array], train: bool, key: jax.Array | None = None):
        rngs = None if key is None else {"drop_path": key}
        (logits, _), changed = model.apply(variables, images, train=train, rngs=rngs, mutable=["batch_stats"])
        return logits, changed.get("batch_stats", {})

    def score(values: dict[str, np.ndarray]) -> dict[str, float]:
        aucs = scores.class_aucs(values["labels"], values["logits"])
        mean_auc, defined = scores.mean_auc(aucs)
        return {"mean_auc": mean_auc, "classes_with_auc": defined}

    return Task(
        model=model,
        inputs={branch: jax.ShapeDtypeStruct(image, jnp.float32) for branch in branches},
        select=select,
        prepare=prepare,
        apply=apply,
        loss=losses.LOSSES["bce"].of_known if masked else losses.LOSSES["bce"].function,
        training_loss=loss.of_known if masked else loss.function,
        results=lambda logits, targets, batch: {"logits": logits, "labels": batch["labels"]},
        score=score,
        best="mean_auc",
        higher_is_better=True,
        counted=losses.known_share if masked else None,
        branches=branches,
        labelling=labelling,
        frozen=frozen,
    )


def fusion_head(network: Task, config: ConfigDict, variables: Mapping[str, dict]) -> Task:
    """Returns the fusion network's task with its frozen extractors left out: the head alone, on `features.cached`.

    The same keys draw the same flips, so that a step is the whole network's step.

    Args:
      network: `classification` of the same config.
      config: of `configs/fusion.py`.
      variables: of the whole network; all but the head's stay as they are.
    """
    head = sdfn.linear_head(len(network.labelling.findings))
    width = variables["params"]["head"]["kernel"].shape[0]
    flip, test_time_flip = config.flip, run_identity.setting(config, "test_time_flip")

    def prepare(batch: Batch, key: jax.Array | None):
        variants, labels = batch["features"], network.labelling.targets(batch["labels"])
        if key is None and test_time_flip:
            return jnp.mean(variants, axis=1), labels
        variant = jnp.zeros(len(variants), jnp.int32)
        if key is not None and flip:
            variant = augmentation.draw_flips(key, len(variants)).astype(jnp.int32)
        features = jnp.take_along_axis(variants, variant[:, None, None], axis=1)[:, 0]
        return features, labels

    def whole(trained: dict) -> dict:
        return {**variables, "params": {**variables["params"], **trained["params"]}}

    return dataclasses.replace(
        network,
        model=head,
        inputs=jax.ShapeDtypeStruct((1, width), jnp.float32),
        select=lambda rows: rows,
        prepare=prepare,
        apply=lambda variables, features, *_: (head.apply({"params": variables["params"]["head"]}, features), {}),
        frozen=(),
        whole=whole,
    )
