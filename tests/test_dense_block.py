"""The dense block beside the plain definition and automatic differentiation of it."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import assert_close

from sdfn_jax.models.kernels import dense_block
from sdfn_jax.models.kernels.dense_block import Affine, Layer, Moments

BATCH, HEIGHT, WIDTH, CHANNELS, GROWN, SQUEEZED = 4, 7, 5, 6, 4, 8


def draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(sum(shape)).standard_normal(shape, np.float32))


def layer(inputs: int) -> Layer:
    affine = [Affine(1 + 0.2 * draw(count), 0.2 * draw(count)) for count in (inputs, SQUEEZED)]
    return Layer(affine[0], draw(inputs, SQUEEZED), affine[1], draw(3, 3, SQUEEZED, GROWN))


def plain_block(x, layers):
    """Concatenates, normalises all that there is for every layer, and leaves the derivative to JAX."""

    def norm(x, affine):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return jax.nn.relu((x - mean) / jnp.sqrt(var + 1e-5) * affine.scale + affine.bias)

    for each in layers:
        new = jnp.einsum("bhwc,cm->bhwm", norm(x, each.norm1), each.conv1)
        new = jax.lax.conv_general_dilated(
            norm(new, each.norm2), each.conv2, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jnp.concatenate([x, new], axis=-1)
    return x, Moments(x.mean((0, 1, 2)), x.var((0, 1, 2)))


def results(block, x, layers):
    """Returns features, moments, and the gradients of a loss that looks at all of them."""

    def loss(x, layers):
        features, moments = block(x, layers)
        weighted = [draw(*leaf.shape) * leaf for leaf in (features / features.size, *moments)]
        return sum(leaf.sum() for leaf in weighted), (features, moments)

    return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(x, layers)


def on_another_platform(*operands, cpu, default):
    return default(*operands)


@pytest.mark.parametrize("platform", ["cpu", "another"])
def test_training_block_equals_the_plain_one(platform, monkeypatch):
    if platform == "another":
        monkeypatch.setattr(jax.lax, "platform_dependent", on_another_platform)
    x = 3 + 2 * draw(BATCH, HEIGHT, WIDTH, CHANNELS)
    layers = tuple(layer(CHANNELS + GROWN * before) for before in range(3))
    gradients, values = results(lambda x, layers: dense_block.train_block(x, layers)[:2], x, layers)
    plain_gradients, plain_values = results(plain_block, x, layers)
    for ours, plain in zip(jax.tree.leaves(values), jax.tree.leaves(plain_values), strict=True):
        assert_close(ours, plain, "values")
    # Float32 rounds every gradient at the scale of the largest: some are small only because large terms cancel.
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain_gradients))
    plain_leaves = jax.tree.leaves(plain_gradients)
    for (path, ours), plain in zip(jax.tree_util.tree_leaves_with_path(gradients), plain_leaves, strict=True):
        assert_close(ours, plain, f"gradient by {jax.tree_util.keystr(path)}", scale=scale)


def two_devices():
    """Trains on a batch shared by two devices as on one; run in a process of its own, which has two."""
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from sdfn_jax.models.densenet import DenseNet
    from sdfn_jax.models.initial import initial_variables

    assert jax.device_count() == 2
    model = DenseNet(growth_rate=4, block_sizes=(2, 3), init_features=6, bottleneck=2)
    images = 1 + draw(BATCH, 32, 32, 3)
    variables = initial_variables(model, 0, images, train=False)

    def step(variables, images):
        def loss(params):
            features, changed = model.apply({**variables, "params": params}, images, True, mutable=["batch_stats"])
            return jnp.square(features).mean(), changed

        return jax.grad(loss, has_aux=True)(variables["params"])

    mesh = jax.make_mesh((2,), ("batch",), axis_types=(AxisType.Auto,))
    everywhere, shared = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("batch"))
    compiled = jax.jit(step, in_shardings=(everywhere, shared), out_shardings=everywhere).lower(variables, images)
    compiled = compiled.compile()
    # Devices exchange sums over their films, never the films' feature maps.
    text = compiled.as_text()
    assert "all-reduce" in text
    assert not {word for word in ("all-gather", "all-to-all", "collective-permute") if word in text}
    together = compiled(*jax.device_put((variables, images), (everywhere, shared)))
    alone = jax.jit(step)(variables, images)
    (gradients, statistics), (plain_gradients, plain_statistics) = jax.device_get((together, alone))
    scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(plain_gradients))
    jax.tree.map(partial(assert_close, what="gradients", scale=scale), gradients, plain_gradients)
    jax.tree.map(partial(assert_close, what="statistics"), statistics, plain_statistics)


def test_a_batch_shared_by_two_devices():
    tests = Path(__file__).parent
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "PYTHONPATH": os.pathsep.join(map(str, (tests, tests.parent))),
    }
    command = [sys.executable, "-c", "import test_dense_block; test_dense_block.two_devices()"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
