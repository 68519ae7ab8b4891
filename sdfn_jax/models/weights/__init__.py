"""Weights from other libraries: recognised, checked, converted."""

from collections.abc import Sequence
from pathlib import Path

from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.weights import weights_file
from sdfn_jax.models.weights.weights_file import Weights


def load_weights(source: str | Path, model: DenseNet | None = None, classes: Sequence[str] | None = None) -> Weights:
    """Reads a DenseNet's weights: `weights_file.load`, for DenseNet-121 if no other network is given.

    Args:
      source: `imagenet` (torchvision's, downloaded once), or a file of torchvision, timm, a CheXNet reproduction,
        TorchXRayVision or Keras, or one that this project wrote.
      model: the network that the weights must fill.
      classes: names of the classifier's outputs, in the file's order, if it has a classifier and does not name them.

    Returns:
      variables, classifier, and the preprocessing that the weights expect.

    Raises:
      UserError: naming the file and what is wrong with it; a ValueError.
    """
    return weights_file.load(source, model or DenseNet(), classes)
