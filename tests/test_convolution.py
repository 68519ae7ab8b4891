"""Our convolutions on a CPU beside XLA's, with XLA's own derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from peers import assert_close

from sdfn_jax.models.kernels.convolution import convolve, convolve_backward

# (height, width, rows, columns, inputs, outputs) of each way on a CPU, by what its arithmetic is made of.
FORWARD = {
    "convolution": [
        (5, 7, 3, 3, 3, 4),
        (8, 5, 2, 2, 6, 8),
        (1, 1, 3, 3, 2, 2),
        (8, 8, 3, 3, 64, 32),
        (68, 3, 3, 3, 128, 40),
    ],
    "dot_general": [
        (5, 7, 3, 3, 8, 2),  # by taps
        (1, 1, 3, 3, 4, 1),
        (4, 6, 2, 2, 9, 2),
        (4, 3, 3, 3, 128, 33),  # by Winograd's algorithm
        (12, 5, 3, 3, 130, 8),
        (68, 3, 3, 3, 128, 32),
    ],
}
BACKWARD = {
    "convolution": [(5, 7, 3, 3, 31, 40), (5, 7, 3, 3, 40, 31), (5, 7, 2, 2, 3, 12)],
    "dot_general": [
        (5, 7, 3, 3, 32, 33),  # the input is moved about
        (4, 6, 2, 2, 32, 128),
        (5, 7, 3, 3, 40, 32),  # the gradient is
        (4, 6, 2, 2, 35, 32),
        (1, 1, 3, 3, 36, 33),
        (70, 3, 3, 3, 32, 33),  # in strips
        (65, 2, 2, 2, 32, 40),
        (64, 2, 3, 3, 40, 32),
        (5, 7, 3, 3, 128, 32),  # all its taps at once
        (3, 2, 2, 2, 130, 32),
        (1, 1, 3, 3, 128, 32),
    ],
}


def cases(table):
    return [(way, shape) for way, shapes in table.items() for shape in shapes]


def draw(height, width, rows, columns, inputs, outputs, dtype=jnp.float32):
    rng = np.random.default_rng(height + width + inputs)
    shapes = [
        (2, height, width, inputs),
        (rows, columns, inputs, outputs),
        (2, height + 3 - rows, width + 3 - columns, outputs),
    ]
    return [jnp.asarray(rng.standard_normal(shape, np.float32), dtype) for shape in shapes]


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))


def plain_backward(x, kernel, gradient):
    return jax.vjp(plain, x, kernel)[1](gradient)


@pytest.mark.parametrize(("way", "shape"), cases(FORWARD))
def test_values(way, shape):
    x, kernel, _ = draw(*shape)
    assert f"stablehlo.{way}" in jax.jit(convolve).lower(x, kernel).as_text()
    # Winograd's sums round a little more.
    assert_close(jax.jit(convolve)(x, kernel), plain(x, kernel), "convolution", tolerance=3e-6)


@pytest.mark.parametrize(("way", "shape"), cases(BACKWARD))
def test_gradients(way, shape):
    operands = draw(*shape)
    lowered = jax.jit(lambda *operands: convolve_backward(*operands)[1]).lower(*operands)
    assert f"stablehlo.{way}" in lowered.as_text()
    for ours in (convolve_backward(*operands), jax.vjp(convolve, *operands[:2])[1](operands[2])):
        for each, theirs, what in zip(ours, plain_backward(*operands), ("x", "the kernel"), strict=True):
            assert_close(each, theirs, f"gradient by {what}", tolerance=1e-6)


def test_another_platform_gets_its_own_convolutions(monkeypatch):
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *operands, cpu, default: default(*operands))
    operands = draw(12, 5, 3, 3, 128, 32)
    text = jax.jit(lambda *operands: (convolve(*operands[:2]), convolve_backward(*operands))).lower(*operands).as_text()
    assert text.count("stablehlo.convolution") == 3 and "dot_general" not in text
    assert_close(convolve(*operands[:2]), plain(*operands[:2]), "convolution", tolerance=1e-6)
    for ours, theirs in zip(convolve_backward(*operands), plain_backward(*operands), strict=True):
        assert_close(ours, theirs, "gradient", tolerance=1e-6)


@pytest.mark.parametrize("shape", [(12, 5, 3, 3, 128, 32), (5, 7, 3, 3, 40, 32), (5, 7, 3, 3, 3, 4)])
def test_bfloat16_keeps_the_gradient_by_the_kernel_in_float32(shape):
    exact, halved = draw(*shape), draw(*shape, dtype=jnp.bfloat16)
    values = convolve(*halved[:2])
    assert values.dtype == jnp.bfloat16
    assert_close(values.astype(jnp.float32), convolve(*exact[:2]), "convolution", tolerance=0.02)
    grad_x, grad_kernel = convolve_backward(*halved)
    assert (grad_x.dtype, grad_kernel.dtype) == (jnp.bfloat16, jnp.float32)
    assert_close(grad_kernel, convolve_backward(*exact)[1], "gradient by the kernel", tolerance=0.02)
    gradients = jax.vjp(convolve, *halved[:2])[1](halved[2])
    assert {gradient.dtype for gradient in gradients} == {jnp.dtype(jnp.bfloat16)}
