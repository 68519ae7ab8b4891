"""Each source's own network, saved by its own library, against ours with the weights read back: the same function."""

import os

import jax
import numpy as np
import pytest
from densenet_peers import (
    SIZES,
    SMALL,
    import_torchvision,
    our_outputs,
    random_images,
    randomise,
    torch_outputs,
    torchvision_densenet,
)
from peers import assert_close, import_peer

from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.weights import chexnet, keras, torchvision, torchxrayvision, weights_file

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras 3.15 under NumPy 2
]
DENSENET121 = {"growth_rate": 32, "block_sizes": (6, 12, 24, 16), "init_features": 64, "bottleneck": 4}
MODEL = DenseNet(**SMALL)


def assert_same_function(found, network, sizes=SIZES, model=SMALL):
    for size in sizes:
        images = random_images(size, found.preprocessing.channels)
        ours, theirs = our_outputs(found, images, model), torch_outputs(network, images)
        for name, our, their in zip(("features", "logits"), ours, theirs, strict=True):
            assert np.abs(their).max() > 0.1
            assert_close(our, their, f"{name} of {size}")


def old_names(state):
    """Returns a state dict as PyTorch 0.3 named it, from a network wrapped as the CheXNet reproductions do."""
    renamed = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue  # they did not exist then
        for kind in ("norm", "conv"):
            for number in "12":
                if ".denselayer" in name:
                    name = name.replace(f".{kind}{number}.", f".{kind}.{number}.")
        renamed["module.densenet121." + name] = tensor
    return renamed


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])
def test_torchvision_pth(tmp_path, zipped):
    torch, network = import_peer("torch"), torchvision_densenet(1000)
    torch.save(network.state_dict(), tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    found = weights_file.read(tmp_path / "w.pth", MODEL)
    assert found.source == torchvision.NAME
    assert_same_function(found, network)


def test_torchvision_densenet121(tmp_path):
    torch, network = import_peer("torch"), torchvision_densenet(1000, DENSENET121)
    torch.save(network.state_dict(), tmp_path / "w.pth")
    found = weights_file.read(tmp_path / "w.pth", DenseNet())
    assert_same_function(found, network, [(1, 65, 96)], DENSENET121)


def test_timm_safetensors(tmp_path):
    import_torchvision()  # timm imports it
    densenet, save_file = import_peer("timm.models.densenet").DenseNet, import_peer("safetensors.torch").save_file
    network = randomise(densenet(growth_rate=4, block_config=(2, 3), bn_size=2, num_classes=1000))
    save_file(network.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = SMALL | {"init_features": 8}
    found = weights_file.read(tmp_path / "model.safetensors", DenseNet(**model))
    assert found.source == torchvision.NAME
    assert_same_function(found, network, SIZES[1:], model)


def chexnet_network():
    network = torchvision_densenet(14)
    torch = import_peer("torch")
    network.classifier = torch.nn.Sequential(network.classifier, torch.nn.Sigmoid())
    return network


def test_chexnet_checkpoint_with_old_names_and_optimizer(tmp_path):
    torch, network = import_peer("torch"), chexnet_network()
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.zeros(1, 3, 64, 64)).sum().backward()
    optimizer.step()
    network.eval()
    checkpoint = {
        "epoch": 7,
        "state_dict": old_names(network.state_dict()),
        "best_loss": np.float64(0.15),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(checkpoint, tmp_path / "m.pth.tar", _use_new_zipfile_serialization=False)
    found = weights_file.read(tmp_path / "m.pth.tar", MODEL)
    assert found.source == chexnet.NAME
    for size in SIZES:
        features, logits = our_outputs(found, random_images(size))
        their_features, probabilities = torch_outputs(network, random_images(size))
        assert_close(features, their_features, "features")
        assert_close(1 / (1 + np.exp(-logits.astype(np.float64))), probabilities, "probabilities")


def test_chexnet_checkpoint_with_the_whole_network(tmp_path):
    torch, network = import_peer("torch"), chexnet_network()
    for zipped in (True, False):
        torch.save(
            {"model": network, "best_loss": 0.2, "epoch": 3, "rng_state": torch.get_rng_state(), "LR": 0.01},
            tmp_path / "checkpoint",
            _use_new_zipfile_serialization=zipped,
        )
        found = weights_file.read(tmp_path / "checkpoint", MODEL)
        assert found.source == chexnet.NAME
        _, logits = our_outputs(found, random_images(SIZES[1]))
        _, probabilities = torch_outputs(network, random_images(SIZES[1]))
        assert_close(1 / (1 + np.exp(-logits.astype(np.float64))), probabilities, "probabilities")


@pytest.mark.parametrize("whole", [True, False], ids=["network", "state_dict"])
def test_torchxrayvision(tmp_path, whole):
    import_torchvision()
    torch, xrv = import_peer("torch"), import_peer("torchxrayvision")
    network = randomise(
        xrv.models.DenseNet(
            weights=None,
            growth_rate=SMALL["growth_rate"],
            block_config=SMALL["block_sizes"],
            num_init_features=SMALL["init_features"],
            bn_size=SMALL["bottleneck"],
        )
    )
    torch.save(network if whole else network.state_dict(), tmp_path / "w.pt")
    found = weights_file.read(tmp_path / "w.pt", MODEL)
    assert found.source == torchxrayvision.NAME
    assert_same_function(found, network)

    grey = np.random.default_rng(0).integers(0, 256, (1, 64, 64)).astype(np.uint8)
    theirs = xrv.datasets.normalize(grey[0].astype(np.float32), 255)
    assert_close(found.preprocessing(grey)[0, ..., 0], theirs, "preprocessing")


def keras_densenet(*, top: bool, blocks=(1, 2, 1, 1)):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    import_peer("keras")
    densenet = import_peer("keras.src.applications.densenet").DenseNet
    options = {"classes": 5, "classifier_activation": None} if top else {"include_top": False}
    network = densenet(list(blocks), weights=None, input_shape=(None, None, 3) if not top else (64, 64, 3), **options)
    generator = np.random.default_rng(4)
    for variable in network.weights:
        shape = variable.shape
        match variable.name:
            case "gamma":
                value = generator.uniform(0.02, 0.2, shape)
            case "moving_variance":
                value = generator.uniform(1e-4, 1e-2, shape)  # so small that the epsilons differ visibly
            case "kernel":
                value = generator.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
            case _:
                value = generator.normal(0, 0.3, shape)
        variable.assign(value.astype(np.float32))
    return network


def keras_outputs(network, images):
    return jax.jit(lambda images: network(images, training=False))(images)


KERAS_MODEL = {"growth_rate": 32, "block_sizes": (1, 2, 1, 1), "init_features": 64, "bottleneck": 4}


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
def test_keras_with_top(tmp_path, suffix):
    network = keras_densenet(top=True)
    path = tmp_path / f"densenet{suffix}"
    network.save_weights(path) if suffix == ".weights.h5" else network.save(path)
    found = weights_file.read(path, DenseNet(**KERAS_MODEL))
    assert found.source == keras.NAME
    images = random_images((2, 64, 64))
    _, logits = our_outputs(found, images, KERAS_MODEL)
    assert_close(logits, keras_outputs(network, images), "logits")


def test_keras_without_top(tmp_path):
    network = keras_densenet(top=False)
    network.save(tmp_path / "densenet_notop.h5")
    found = weights_file.read(tmp_path / "densenet_notop.h5", DenseNet(**KERAS_MODEL))
    assert found.head is None
    for size in SIZES:
        images = random_images(size)
        features = jax.jit(DenseNet(**KERAS_MODEL).apply, static_argnums=2)(found.variables, images, False)
        assert_close(features, keras_outputs(network, images), f"features of {size}")


def nested_keras(form):
    """A DenseNet as a layer of another network, with a classifier of its own."""
    base = keras_densenet(top=False)  # which chooses Keras's backend
    layers = import_peer("keras").layers
    kernel = np.random.default_rng(5).normal(0, 0.1, (base.output_shape[-1], 5)).astype(np.float32)
    dense = layers.Dense(5)
    if form == "sequential":
        network = import_peer("keras").Sequential([base, layers.GlobalAveragePooling2D(), dense])
    else:
        inputs = import_peer("keras").Input((64, 64, 3))
        network = import_peer("keras").Model(inputs, dense(layers.GlobalAveragePooling2D()(base(inputs))))
    dense.set_weights([kernel, np.arange(5, dtype=np.float32)])
    return network


@pytest.mark.parametrize("suffix", [".h5", ".keras", ".weights.h5"])
@pytest.mark.parametrize("form", ["sequential", "functional"])
def test_keras_network_inside_another(tmp_path, form, suffix):
    network, path = nested_keras(form), tmp_path / f"nested{suffix}"
    network.save_weights(path) if suffix == ".weights.h5" else network.save(path)
    found = weights_file.read(path, DenseNet(**KERAS_MODEL))
    images = random_images((2, 64, 64))
    _, logits = our_outputs(found, images, KERAS_MODEL)
    assert_close(logits, keras_outputs(network, images), "logits")


def test_keras_preprocessing():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    preprocess = import_peer("keras").applications.densenet.preprocess_input
    grey = np.random.default_rng(0).integers(0, 256, (2, 8, 8)).astype(np.uint8)
    theirs = preprocess(np.repeat(grey[..., None], 3, axis=-1).astype(np.float32))
    assert_close(keras.PREPROCESSING(grey), theirs, "preprocessing")
