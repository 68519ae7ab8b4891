from collections.abc import Callable
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util
from peers import assert_close, import_peer
from plain_densenet import PlainDenseNet, dotted

from sdfn_jax.models import kernels
from sdfn_jax.models.densenet import DenseNet
from sdfn_jax.models.initial import initial_variables, variable_shapes
from sdfn_jax.models.kernels.densenet import CpuDenseNet as Twin

SMALL = {"growth_rate": 4, "block_sizes": (2, 3), "init_features": 6, "bottleneck": 2}
SIZES = [(2, 64, 64), (3, 75, 51)]
# The network as the paper writes it, and the CPU's.
NETWORKS = pytest.mark.parametrize("network", [DenseNet, Twin], ids=["plain", "twin"])


def random_variables(model: DenseNet, seed: int) -> dict:
    """Draws weights with affine parameters and running statistics far from 0 and 1."""
    variables = initial_variables(model, seed, jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32), train=False)
    rng = np.random.default_rng(seed)
    draw: dict[str, Callable] = {
        "scale": lambda shape: rng.uniform(0.5, 1.5, shape),
        "bias": lambda shape: rng.normal(0, 0.3, shape),
        "mean": lambda shape: rng.normal(0, 0.3, shape),
        "var": lambda shape: rng.uniform(0.5, 2, shape),
    }
    flat = traverse_util.flatten_dict(variables)
    for path, array in flat.items():
        if path[-1] in draw:
            flat[path] = draw[path[-1]](array.shape).astype(np.float32)
    return traverse_util.unflatten_dict(flat)


def random_images(size: tuple[int, int, int]) -> np.ndarray:
    return np.random.default_rng(9).normal(size=(*size, 3)).astype(np.float32)


def infer(model: nn.Module, variables: dict, images: np.ndarray) -> jax.Array:
    return jax.jit(lambda variables, images: model.apply(variables, images, False))(variables, images)


def train_step(model: nn.Module, variables: dict, images: np.ndarray):
    """Returns the features, the new statistics and the gradients of a loss by every parameter and the images."""

    def loss(params, images):
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        features, updates = model.apply(both, images, True, mutable=["batch_stats"])
        return jnp.mean(jnp.square(features) * loss_weights(features.shape)), (features, updates["batch_stats"])

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables["params"], images)


@cache
def our_train_step(network: type[DenseNet], size: tuple[int, int, int]):
    """Returns the `train_step` of a small network, compiled once for all tests."""
    model = network(**SMALL)
    return train_step(model, random_variables(model, 0), random_images(size))


def loss_weights(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


def largest(gradients) -> float:
    """Returns the largest value of any gradient.

    That is the scale at which float32 rounds them all: some are small only because large terms cancel (those of norm0,
    whose scale the next normalisation undoes), in every library alike.
    """
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradients))


def values_per_feature(name: str, size: tuple[int, int, int]) -> int:
    """Returns over how many values a layer of SMALL takes its statistics."""
    batch, height, width = size
    halvings = 1 if name == "norm0" else 3 if name.startswith(("denseblock2", "norm5")) else 2
    for halving in range(halvings):  # the stem and the max pooling round up, the transition rounds down
        height, width = ((n + (halving < 2)) // 2 for n in (height, width))
    return batch * height * width


def test_published_size_and_names():
    model = DenseNet()
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    shapes = variable_shapes(model, images, train=False)
    assert sum(int(np.prod(shape)) for path, shape in shapes.items() if path[0] == "params") == 6_953_856
    assert len([path for path in shapes if path[-1] == "kernel"]) == 120
    assert shapes["params", "conv0", "kernel"] == (7, 7, 3, 64)
    assert shapes["params", "denseblock1", "denselayer1", "norm1", "scale"] == (64,)
    assert shapes["params", "denseblock4", "denselayer16", "conv1", "kernel"] == (1, 1, 992, 128)
    assert shapes["params", "denseblock4", "denselayer16", "conv2", "kernel"] == (3, 3, 128, 32)
    assert shapes["params", "transition3", "conv", "kernel"] == (1, 1, 1024, 512)
    assert shapes["batch_stats", "transition3", "norm", "mean"] == (1024,)
    assert shapes["batch_stats", "norm5", "var"] == (1024,)
    features = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x, train=False)[0], images)
    assert features.shape == (2, 7, 7, 1024)


@NETWORKS
@pytest.mark.parametrize("size", SIZES)
def test_inference_equals_the_plain_definition(network, size):
    variables, images = random_variables(DenseNet(**SMALL), 0), random_images(size)
    ours = infer(network(**SMALL), variables, images)
    plain = infer(PlainDenseNet(**SMALL), {k: dotted(v) for k, v in variables.items()}, images)
    assert_close(ours, plain, "features")


@NETWORKS
@pytest.mark.parametrize("size", SIZES)
def test_training_equals_the_plain_definition(network, size):
    variables, images = random_variables(DenseNet(**SMALL), 0), random_images(size)
    (gradients, by_image), (features, statistics) = our_train_step(network, size)
    plain_variables = {k: dotted(v) for k, v in variables.items()}
    (plain_gradients, plain_by_image), (plain_features, plain_statistics) = train_step(
        PlainDenseNet(**SMALL), plain_variables, images
    )
    assert_close(features, plain_features, "features")
    assert_close(by_image, plain_by_image, "gradient by the images")
    scale = largest(plain_gradients)
    for name, leaves in dotted(gradients).items():
        for leaf, gradient in leaves.items():
            assert_close(gradient, plain_gradients[name][leaf], f"gradient by {name} {leaf}", scale=scale)
    for name, leaves in dotted(statistics).items():
        assert_close(leaves["mean"], plain_statistics[name]["mean"], f"{name} mean")
        # Flax moves towards the biased variance of the batch, PyTorch and we towards the unbiased one.
        old, biased = (0.9 * plain_variables["batch_stats"][name]["var"], plain_statistics[name]["var"])
        values = values_per_feature(name, size)
        assert_close(leaves["var"], old + (biased - old) * values / (values - 1), f"{name} var")


def monai_densenet(variables: dict, settings: dict):
    """Returns MONAI's network with the weights of `variables`, and the path of each of its parameters in ours."""
    torch, nets = import_peer("torch"), import_peer("monai.networks.nets")
    network = nets.DenseNet(
        2,
        in_channels=3,
        out_channels=14,
        init_features=settings["init_features"],
        growth_rate=settings["growth_rate"],
        block_config=settings["block_sizes"],
        bn_size=settings["bottleneck"],
    )
    leaves = {"bias": "bias", "running_mean": "mean", "running_var": "var"}
    state, paths = network.state_dict(), {}
    for name, tensor in state.items():
        root, *modules, last = name.replace(".layers.", ".").split(".")
        if root != "features" or last == "num_batches_tracked":
            continue
        leaf = leaves.get(last, "kernel" if tensor.ndim == 4 else "scale")
        paths[name] = ("batch_stats" if last.startswith("running") else "params", *modules, leaf)
    flat = traverse_util.flatten_dict(variables)
    assert set(paths.values()) == flat.keys()
    for name, path in paths.items():
        array = flat[path]
        state[name] = torch.tensor(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
    network.load_state_dict(state)
    return network, paths


def ours_to_torch(images: np.ndarray):
    return import_peer("torch").tensor(images.transpose(0, 3, 1, 2))


def torch_to_ours(tensor) -> np.ndarray:
    array = tensor.detach().numpy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


@pytest.mark.parity
@NETWORKS
@pytest.mark.parametrize("size", SIZES)
def test_training_equals_monai(network, size):
    variables, images = random_variables(DenseNet(**SMALL), 0), random_images(size)
    torch_network, paths = monai_densenet(variables, SMALL)
    (gradients, _), (features, statistics) = our_train_step(network, size)

    torch_network.train()
    peer = torch_network.features(ours_to_torch(images)).relu()
    weights = import_peer("torch").tensor(loss_weights(features.shape).transpose(0, 3, 1, 2))
    (peer.square() * weights).mean().backward()

    assert_close(features, peer.detach().numpy().transpose(0, 2, 3, 1), "features")
    ours = traverse_util.flatten_dict({"params": gradients, "batch_stats": statistics})
    parameters, buffers = dict(torch_network.named_parameters()), dict(torch_network.named_buffers())
    for name, path in paths.items():
        if name in parameters:
            assert_close(
                ours[path], torch_to_ours(parameters[name].grad), f"gradient by {name}", scale=largest(gradients)
            )
        else:
            assert_close(ours[path], torch_to_ours(buffers[name]), name)


@pytest.mark.parity
@NETWORKS
def test_densenet121_equals_monai(network):
    settings = {"growth_rate": 32, "block_sizes": (6, 12, 24, 16), "init_features": 64, "bottleneck": 4}
    variables = random_variables(DenseNet(), 0)
    torch_network, _ = monai_densenet(variables, settings)
    torch_network.eval()
    apply = jax.jit(lambda images: network().apply(variables, images, False))
    images = random_images(SIZES[1])  # as it does not halve evenly; the small networks have both sizes
    peer = torch_network.features(ours_to_torch(images)).relu()
    assert_close(apply(images), peer.detach().numpy().transpose(0, 2, 3, 1), "features")


def relative_error(tree, exact) -> float:
    """Returns the root mean square of all differences over that of all exact values."""
    ours, exact = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float32)) for leaf in jax.tree.leaves(each)])
        for each in (tree, exact)
    )
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


@NETWORKS
def test_bfloat16_stays_near_float32(network):
    """The bounds: 8 bits are 0.4 % a rounding, over some 14 in a row; PyTorch's autocast is 1.5 % off the features."""
    variables, images = random_variables(DenseNet(**SMALL), 0), random_images(SIZES[0])
    half = network(**SMALL, dtype=jnp.bfloat16)
    (gradients, _), (features, statistics) = train_step(half, variables, images)
    (exact_gradients, _), (exact, exact_statistics) = our_train_step(network, SIZES[0])
    inferred = infer(half, variables, images)
    assert features.dtype == inferred.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, statistics))} == {np.dtype(np.float32)}
    assert 1e-3 < relative_error(inferred, infer(network(**SMALL), variables, images)) < 0.02
    assert 1e-3 < relative_error(features, exact) < 0.02
    assert relative_error(statistics, exact_statistics) < 0.002
    # A ReLU near 0 passes a gradient or does not.
    assert relative_error(gradients, exact_gradients) < 0.2


@NETWORKS
def test_impossible_images_are_refused(network):
    model = network(**SMALL)
    variables = random_variables(model, 0)
    with pytest.raises(ValueError, match="7 x 64.*8 x 8"):
        model.apply(variables, jnp.zeros((1, 7, 64, 3)), False)
    with pytest.raises(ValueError, match="denseblock2/denselayer1/norm1: one value per feature map"):
        model.apply(variables, jnp.zeros((1, 8, 8, 3)), True, mutable=["batch_stats"])


@NETWORKS
def test_training_without_room_for_statistics_is_refused(network):
    variables, images = random_variables(DenseNet(**SMALL), 0), random_images(SIZES[0])
    with pytest.raises(Exception, match="batch_stats"):
        network(**SMALL).apply(variables, images, True)


def test_the_twin_has_the_same_variables_and_serves_on_a_cpu():
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    assert variable_shapes(Twin(), images, train=False) == variable_shapes(DenseNet(), images, train=False)
    assert kernels.for_backend(DenseNet, "cpu") is Twin
    assert kernels.for_backend(DenseNet, "gpu") is kernels.for_backend(DenseNet, "tpu") is DenseNet
    assert kernels.for_backend(DenseNet) is Twin  # the tests' backend


def test_remat_keeps_less_and_changes_nothing():
    variables, images = random_variables(DenseNet(**SMALL), 0), random_images(SIZES[0])

    def lowered(model):
        def loss(params):
            both = {"params": params, "batch_stats": variables["batch_stats"]}
            return jnp.sum(model.apply(both, images, True, mutable=["batch_stats"])[0])

        return jax.jit(jax.grad(loss)).lower(variables["params"]).as_text()

    texts = [lowered(DenseNet(**SMALL, remat=remat)) for remat in (False, True)]
    assert texts[1].count("stablehlo.convolution") > texts[0].count("stablehlo.convolution")
    gradients = [our_train_step(DenseNet, SIZES[0])[0], train_step(DenseNet(**SMALL, remat=True), variables, images)[0]]
    scale = largest(gradients[0])
    jax.tree.map(lambda a, b: assert_close(a, b, "gradient", scale=scale), *gradients)
