"""Writes the files of this folder with the libraries themselves (the extra `parity`).

Tiny networks with random weights as each source stores them, and their outputs for one image of odd size.
KERAS_BACKEND=jax PYTHONPATH=tests python tests/golden/make.py
"""

from pathlib import Path

import keras
import numpy as np
import torch
from densenet_peers import SMALL, randomise, torch_outputs, torchvision_densenet
from keras.src.applications.densenet import conv_block, transition_block
from test_weights_parity import old_names

HERE = Path(__file__).parent
SIZE = (1, 75, 51)


def image(channels: int) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(*SIZE, channels)).astype(np.float32)


def chexnet() -> tuple[np.ndarray, np.ndarray]:
    network = torchvision_densenet(14)
    network.classifier = torch.nn.Sequential(network.classifier)  # theirs has a sigmoid behind; logits tell more
    checkpoint = {
        "epoch": 2,
        "state_dict": old_names(network.state_dict()),
        "best_loss": np.float64(0.15),
        "optimizer": torch.optim.Adam(network.parameters()).state_dict(),
    }
    torch.save(checkpoint, HERE / "chexnet.pth.tar", _use_new_zipfile_serialization=False)
    return torch_outputs(network, image(3))


def torchxrayvision() -> tuple[np.ndarray, np.ndarray]:
    import torchxrayvision as xrv

    sizes = {"block_config": SMALL["block_sizes"], "num_init_features": SMALL["init_features"]}
    network = xrv.models.DenseNet(weights=None, growth_rate=SMALL["growth_rate"], bn_size=SMALL["bottleneck"], **sizes)
    torch.save(randomise(network), HERE / "torchxrayvision.pt")
    return torch_outputs(network, image(1))


def keras_network() -> tuple[np.ndarray, np.ndarray]:
    """Keras's own blocks, fewer and narrower than in its smallest DenseNet."""
    layers = keras.layers
    inputs = layers.Input((*SIZE[1:], 3))
    x = layers.Conv2D(6, 7, strides=2, use_bias=False, name="conv1_conv")(layers.ZeroPadding2D(3)(inputs))
    x = layers.Activation("relu")(layers.BatchNormalization(epsilon=1.001e-5, name="conv1_bn")(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    x = transition_block(conv_block(x, 4, "conv2_block1"), 0.5, "pool2")
    x = conv_block(conv_block(x, 4, "conv3_block1"), 4, "conv3_block2")
    features = layers.Activation("relu")(layers.BatchNormalization(epsilon=1.001e-5, name="bn")(x))
    outputs = layers.Dense(14, name="predictions")(layers.GlobalAveragePooling2D()(features))
    network = keras.Model(inputs, [features, outputs])
    generator = np.random.default_rng(4)
    for variable in network.weights:
        low, high = (1e-4, 1e-2) if variable.name == "moving_variance" else (-0.5, 0.5)
        variable.assign(generator.uniform(low, high, variable.shape).astype(np.float32))
    network.save(HERE / "keras.h5")
    return tuple(np.asarray(output) for output in network(image(3), training=False))


if __name__ == "__main__":
    outputs = {}
    for name, make in (("chexnet", chexnet), ("torchxrayvision", torchxrayvision), ("keras", keras_network)):
        outputs[f"{name}_features"], outputs[f"{name}_logits"] = make()
    np.savez_compressed(HERE / "outputs.npz", **outputs)
