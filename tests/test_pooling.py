import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from peers import assert_close, import_peer

from sdfn_jax.models.kernels.pooling import max_pool


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (7, 10)])
def test_max_pool_equals_flax(window, stride, padding, size):
    x = jnp.asarray(np.random.default_rng(0).normal(-5, 1, (2, *size, 3)), jnp.float32)

    def plain(x):
        return nn.max_pool(x, (window, window), (stride, stride), [(padding, padding)] * 2)

    def loss(pool, x):
        return jnp.sum(jnp.sin(pool(x)))

    ours, gradient = jax.value_and_grad(lambda x: loss(lambda x: max_pool(x, window, stride, padding), x))(x)
    theirs, plain_gradient = jax.value_and_grad(lambda x: loss(plain, x))(x)
    np.testing.assert_array_equal(max_pool(x, window, stride, padding), plain(x))
    assert ours == pytest.approx(theirs)
    assert_close(gradient, plain_gradient, "gradient")


@pytest.mark.parity
def test_of_equal_values_the_same_one_gets_the_gradient_as_in_pytorch():
    torch = import_peer("torch")
    x = np.random.default_rng(0).integers(0, 3, (2, 9, 10, 4)).astype(np.float32)
    weights = np.random.default_rng(1).normal(size=(2, 5, 5, 4)).astype(np.float32)
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x, 3, 2, 1) * weights))(jnp.asarray(x))
    peer = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    (torch.nn.MaxPool2d(3, 2, 1)(peer) * torch.tensor(weights.transpose(0, 3, 1, 2))).sum().backward()
    assert_close(gradient, peer.grad.numpy().transpose(0, 2, 3, 1), "gradient")
