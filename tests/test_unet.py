from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from peers import assert_close, import_peer

from sdfn_jax.models.initial import GLOROT_UNIFORM, initial_variables, variable_shapes
from sdfn_jax.models.kernels.unet import CpuUNet as Twin
from sdfn_jax.models.kernels.unet import CpuUNetConv, upsample_convolve
from sdfn_jax.models.unet import UNet

FILTERS = (4, 6, 6, 10, 12)
# The network as [21] writes it, and the CPU's.
NETWORKS = pytest.mark.parametrize("network", [UNet, Twin], ids=["plain", "twin"])


@pytest.fixture(scope="module")
def narrow():
    """A narrow U-Net with random biases, two images, and one soft mask for each."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 48, 32, 1)).astype(np.float32)
    params = initial_variables(UNet(FILTERS), 0, images)["params"]
    for layer in params.values():
        layer["bias"] = rng.normal(0, 0.1, layer["bias"].shape).astype(np.float32)
    return params, images, rng.random((2, 48, 32)).astype(np.float32)


@NETWORKS
def test_published_size_and_widths(network):
    shapes = variable_shapes(network(), jax.ShapeDtypeStruct((1, 256, 256, 1), jnp.float32))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 5_468_897
    widths = [shape for path, shape in shapes.items() if path[-1] == "kernel"]
    assert len(widths) == 22
    assert {shape[:2] for shape in widths} == {(3, 3)}
    # (inputs, outputs) of the convolution after each joined skip: skip + x -> x
    joined = [shapes["params", f"up{level}_conv3", "kernel"][2:] for level in (3, 2, 1, 0)]
    assert joined == [(128 + 256, 256), (64 + 256, 256), (64 + 128, 128), (32 + 64, 64)]


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_upsample_conv_equals_upsampling_then_convolution(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, *size, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 2 * size[0], 2 * size[1], 5)), jnp.float32)
    params = {"kernel": jnp.asarray(rng.normal(size=(3, 3, 3, 5)), jnp.float32), "bias": jnp.arange(5.0)}

    def ours(params, x):
        return CpuUNetConv(5, upsample_convolve, jnp.float32, GLOROT_UNIFORM).apply({"params": params}, x)

    def plain(params, x):
        return nn.Conv(5, (3, 3)).apply({"params": params}, x.repeat(2, axis=1).repeat(2, axis=2))

    @partial(jax.jit, static_argnums=0)
    def values_and_gradients(function, params, x):
        values, pull_back = jax.vjp(function, params, x)
        return values, pull_back(weights)

    jax.tree.map(
        lambda a, b: assert_close(a, b, "values and gradients"),
        values_and_gradients(ours, params, x),
        values_and_gradients(plain, params, x),
    )


@pytest.mark.parity
@NETWORKS
def test_equals_a_torch_network_in_plain_layers(network, narrow):
    params, images, masks = narrow
    torch = import_peer("torch")

    def loss(params):
        logits = network(FILTERS).apply({"params": params}, images)
        return jnp.mean(jax.nn.softplus(logits) - masks * logits), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    weights = {
        name: [
            torch.tensor(layer["kernel"].transpose(3, 2, 0, 1), requires_grad=True),
            torch.tensor(layer["bias"], requires_grad=True),
        ]
        for name, layer in params.items()
    }

    def conv(x, name):
        return torch.nn.functional.conv2d(x, *weights[name], padding=1)

    x = torch.tensor(images.transpose(0, 3, 1, 2))
    skips = []
    for level in range(4):
        x = conv(conv(x, f"down{level}_conv1").relu(), f"down{level}_conv2").relu()
        skips.append(x)
        x = torch.nn.functional.max_pool2d(x, 2)
    x = conv(x, "bottom_conv").relu()
    for level in (3, 2, 1, 0):
        x = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
        x = conv(conv(x, f"up{level}_conv1").relu(), f"up{level}_conv2").relu()
        x = conv(torch.cat([skips[level], x], dim=1), f"up{level}_conv3").relu()
    peer = conv(x, "output_conv")[:, 0]
    peer_loss = torch.nn.functional.binary_cross_entropy_with_logits(peer, torch.tensor(masks))
    peer_loss.backward()

    assert float(value) == pytest.approx(peer_loss.item(), rel=1e-5)
    assert_close(logits, peer.detach().numpy(), "logits")
    for name, (kernel, bias) in weights.items():
        assert_close(gradients[name]["kernel"], kernel.grad.numpy().transpose(2, 3, 1, 0), f"{name} kernel gradient")
        assert_close(gradients[name]["bias"], bias.grad.numpy(), f"{name} bias gradient")


@NETWORKS
def test_bfloat16_keeps_float32_logits_and_parameters(network, narrow):
    params, images, _ = narrow
    exact = jax.jit(network(FILTERS).apply)({"params": params}, images)
    logits = jax.jit(network(FILTERS, dtype=jnp.bfloat16).apply)({"params": params}, images)
    assert logits.dtype == jnp.float32
    assert_close(logits, exact, "logits", tolerance=0.05)
    assert not np.array_equal(logits, exact)


@NETWORKS
def test_an_image_that_does_not_divide_is_refused(network, narrow):
    params, _, _ = narrow
    with pytest.raises(ValueError, match="40 x 32.*multiples of 16"):
        network(FILTERS).apply({"params": params}, jnp.zeros((1, 40, 32, 1)))
