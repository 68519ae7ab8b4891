"""DenseNet-121 fine-tuned on radiographs in the manner of the CheXNet reproductions (arnoweng, zoogzog, jrzech).

torchvision's network with a classifier of its own (mostly 14 outputs before a sigmoid), under the names of the PyTorch
of 2017, often wrapped twice, with an optimizer next to it. All three standardise as for ImageNet. The file does not say
which output is which finding: a class list does.
"""

from collections.abc import Mapping

import numpy as np

from sdfn_jax.models.weights import torchvision

NAME = "CheXNet-style (torchvision's DenseNet with a classifier of its own)"
PREPROCESSING = torchvision.PREPROCESSING

to_torchvision = torchvision.to_torchvision


def recognises(tensors: Mapping[str, np.ndarray]) -> bool:
    """Returns whether these are weights of torchvision's DenseNet with a classifier that is not ImageNet's."""
    names = torchvision.modern_names(tensors)
    return torchvision.is_densenet(names.values()) and torchvision.outputs(tensors) not in (
        None,
        torchvision.IMAGENET_CLASSES,
    )
