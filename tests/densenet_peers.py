"""DenseNets of other libraries, with weights far from any initial ones."""

import functools
import sys
from types import ModuleType

import jax
import numpy as np
from flax.core import FrozenDict
from peers import import_peer

from sdfn_jax.models.sdfn import SDFN

SMALL = {"growth_rate": 4, "block_sizes": (2, 3), "init_features": 6, "bottleneck": 2}
SIZES = [(2, 64, 64), (3, 75, 51)]


def import_torchvision() -> ModuleType:
    """Imports torchvision with a PyTorch for CPUs, for which no build with its C++ operators exists.

    DenseNet needs none of them; the module that would describe their shapes to PyTorch is left out.
    """
    import_peer("torch")
    sys.modules.setdefault("torchvision._meta_registrations", ModuleType("torchvision._meta_registrations"))
    return import_peer("torchvision")


def torchvision_densenet(classes: int, model: dict = SMALL):
    """Returns torchvision's network in inference mode, with random weights."""
    densenet = import_torchvision().models.densenet.DenseNet
    sizes = (model["growth_rate"], model["block_sizes"], model["init_features"], model["bottleneck"])
    return randomise(densenet(*sizes, num_classes=classes))


def randomise(network, seed: int = 3):
    """Draws affine parameters and running statistics of a torch network; kernels keep their random initial values."""
    torch = import_peer("torch")
    generator = np.random.default_rng(seed)

    def draw(name, shape):
        if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            return generator.uniform(0.5, 2, shape)
        if len(shape) == 1:
            return generator.normal(0, 0.3, shape)
        return generator.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)

    state = network.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(draw(name, tensor.shape), dtype=torch.float32)
    network.load_state_dict(state)
    return network.eval()


def torch_outputs(network, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (feature maps (B, h, w, C) after the last ReLU, outputs (B, classes)) for (B, H, W, C) images."""
    torch = import_peer("torch")
    with torch.no_grad():
        tensor = torch.tensor(images.transpose(0, 3, 1, 2))
        features = torch.relu(network.features(tensor))
        return features.numpy().transpose(0, 2, 3, 1), network(tensor).numpy()


def our_outputs(weights, images: np.ndarray, model: dict = SMALL) -> tuple[np.ndarray, np.ndarray]:
    """Returns the same of our network, with the weights and the classifier of a file."""
    variables = {
        "params": {"entire": weights.variables["params"], "head": weights.head},
        "batch_stats": {"entire": weights.variables["batch_stats"]},
    }
    apply = _compiled(FrozenDict(model), weights.head["bias"].size)
    logits, features = apply(variables, {"entire": images})
    return np.asarray(features["entire"]), np.asarray(logits)


@functools.cache
def _compiled(model: FrozenDict, classes: int):
    """Returns our network as a function of variables and images, compiled once for all tests."""
    return jax.jit(functools.partial(SDFN(branches=("entire",), shape=model, classes=classes).apply, train=False))


def random_images(size: tuple[int, int, int], channels: int = 3) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(*size, channels)).astype(np.float32)
