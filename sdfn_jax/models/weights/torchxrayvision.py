"""DenseNet-121 of TorchXRayVision: one channel, grey levels from -1024 to 1024 without standardisation, 18 outputs.

The published files contain the whole network, not only its weights. Its outputs are logits here: TorchXRayVision's own
rescaling of the probabilities (`op_threshs`) is not applied.
"""

from collections.abc import Mapping

import numpy as np

from sdfn_jax.models.preprocessing import Preprocessing
from sdfn_jax.models.weights import torchvision

NAME = "TorchXRayVision"
# xrv.datasets.normalize: (2 * (x / 255) - 1) * 1024
PREPROCESSING = Preprocessing(low=-1024.0, high=1024.0, mean=(0.0,), std=(1.0,), size=224)
_THRESHOLDS = "op_threshs"


def recognises(tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are weights of a PyTorch DenseNet whose stem reads one channel."""
    stem = to_torchvision(tensors).get("features.conv0.weight")
    return stem is not None and stem.ndim == 4 and stem.shape[1] == 1


def to_torchvision(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the weights under torchvision's names, without the thresholds of the rescaling."""
    named = torchvision.to_torchvision(tensors)
    return {name: tensor for name, tensor in named.items() if name != _THRESHOLDS}
