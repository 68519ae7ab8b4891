"""Convolutions of stride 1 and their derivatives, each in the form that is fastest on the machine.

On a GPU or TPU that is XLA's own. On a CPU three cases are faster as our own matrix products: the gradient with respect
to the kernel (two to five times faster), a convolution of many feature maps that fit into the cache (Winograd, a third
faster), and one to far fewer feature maps. All are exact up to rounding.
"""

import jax
import jax.numpy as jnp

# Rows of a feature map that the kernel's gradient processes at a time.
_STRIP = 32


@jax.custom_vjp
def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves maps that are padded by 1 on every side.

    Args:
      x: (B, H, W, I) of any float type.
      kernel: (K, L, I, O), of the dtype of x.

    Returns:
      (B, H + 3 - K, W + 3 - L, O), of the dtype of x: as large as x for a 3 x 3 kernel.
    """
    return jax.lax.platform_dependent(x, kernel, cpu=_on_cpu, default=_by_xla)


def convolve_backward(x: jax.Array, kernel: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the vector-Jacobian product of `convolve`.

    Args:
      x, kernel: as `convolve` takes them.
      gradient: with respect to the result, of its shape and dtype.

    Returns:
      the gradient with respect to x, of its dtype, and with respect to the kernel, float32.
    """
    # From 32 feature maps on; with fewer, XLA's is faster.
    cpu = _backward_by_products if min(kernel.shape[2:]) >= 32 else _backward_by_xla
    return jax.lax.platform_dependent(x, kernel, gradient, cpu=cpu, default=_backward_by_xla)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(kept, gradient):
    grad_x, grad_kernel = convolve_backward(*kept, gradient)
    return grad_x, grad_kernel.astype(grad_x.dtype)


convolve.defvjp(_forward, _backward)


def _by_xla(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _on_cpu(x, kernel):
    height, (*size, inputs, outputs) = x.shape[1], kernel.shape
    few = inputs >= 4 * outputs
    # In bfloat16, Winograd's sums lose too much to rounding.
    in_fours = size == [3, 3] and height % 4 == 0 and x.dtype == jnp.float32
    if in_fours and inputs >= 128 and (few or height <= 64):
        return _by_winograd(x, kernel)
    return _by_taps(x, kernel) if few else _by_xla(x, kernel)


def _by_taps(x, kernel):
    """Multiplies every pixel by all taps at once, then sums what falls on the same pixel."""
    rows, columns, inputs, outputs = kernel.shape
    height, width = x.shape[1] + 3 - rows, x.shape[2] + 3 - columns
    taps = _padded(x) @ kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
    places = [(i, j, outputs * (columns * i + j)) for i in range(rows) for j in range(columns)]
    return sum(taps[:, i : i + height, j : j + width, tap : tap + outputs] for i, j, tap in places)


# F(4, 3) at the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, section 4.3).
_WINOGRAD_ROWS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_WINOGRAD_TAPS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
_WINOGRAD_PRODUCTS = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)


def _by_winograd(x, kernel):
    """Computes each four rows with six products of three taps, not twelve; the height is a multiple of four."""
    batch, height, width, inputs = x.shape
    outputs = kernel.shape[-1]
    x = _padded(x)
    rows = [x[:, i : i + height - 3 : 4] for i in range(6)]
    products = [
        _combined(of_rows, rows) @ _combined(of_taps, kernel).transpose(1, 0, 2).reshape(inputs, 3 * outputs)
        for of_rows, of_taps in zip(_WINOGRAD_ROWS, _WINOGRAD_TAPS, strict=True)
    ]
    made = [_combined(of_products, products) for of_products in _WINOGRAD_PRODUCTS]
    made = [sum(each[:, :, j : j + width, outputs * j : outputs * (j + 1)] for j in range(3)) for each in made]
    return jnp.stack(made, axis=2).reshape(batch, height, width, outputs)


def _combined(weights, parts):
    return sum(weight * part for weight, part in zip(weights, parts, strict=True) if weight)


def _backward_by_xla(x, kernel, gradient):
    grad_x, grad_kernel = jax.vjp(_by_xla, x, kernel)[1](gradient)
    return grad_x, grad_kernel.astype(jnp.float32)


def _backward_by_products(x, kernel, gradient):
    rows, columns, inputs, outputs = kernel.shape
    # Shift whichever has fewer feature maps: the input one way, or the gradient the other way.
    if inputs <= outputs:
        return _grad_x(x, kernel, gradient), _correlate(_padded(x), gradient, rows, columns)
    margins = ((rows - 2, rows - 2), (columns - 2, columns - 2))
    padded = jnp.pad(gradient, ((0, 0), *margins, (0, 0)))
    if inputs >= 4 * outputs:  # so few that all taps fit next to each other, and one product computes each gradient
        height, width = x.shape[1:3]
        moved = jnp.concatenate([padded[:, :, j : j + width] for j in reversed(range(columns))], axis=-1)
        taps = jnp.concatenate([moved[:, i : i + height] for i in reversed(range(rows))], axis=-1)
        grad_x = taps @ kernel.transpose(0, 1, 3, 2).reshape(-1, inputs)
        grad_kernel = weight_gradient(taps, x).reshape(rows, columns, outputs, inputs)
    else:
        grad_x = _grad_x(x, kernel, gradient)
        grad_kernel = _correlate(padded, x, rows, columns)[::-1, ::-1]
    return grad_x, grad_kernel.transpose(0, 1, 3, 2)


def _grad_x(x, kernel, gradient):
    return jax.vjp(lambda x: _by_xla(x, kernel), x)[1](gradient)[0]


def _correlate(padded, still, rows, columns):
    """Returns, for each tap, sum over batch and pixels of `padded`, moved by the tap, times `still`.

    All column shifts are copied at once; then there is one product for each row of taps. Large maps are processed in
    strips: shifted copies of whole maps would take more memory than everything else.

    Args:
      padded: (B, H + rows - 1, W + columns - 1, C).
      still: (B, H, W, D).

    Returns:
      (rows, columns, C, D) float32.
    """
    _, height, width, features = still.shape
    strips = -(-height // _STRIP)
    strip = -(-height // strips)
    below = ((0, 0), (0, strips * strip - height), (0, 0), (0, 0))
    padded, still = jnp.pad(padded, below), jnp.pad(still, below)

    def add_strip(total, first):
        there = jax.lax.dynamic_slice_in_dim(padded, first, strip + rows - 1, axis=1)
        moved = jnp.concatenate([there[:, :, j : j + width] for j in range(columns)], axis=-1)
        here = jax.lax.dynamic_slice_in_dim(still, first, strip, axis=1)
        products = [weight_gradient(moved[:, i : i + strip], here) for i in range(rows)]
        return total + jnp.stack(products), None

    total = jnp.zeros((rows, columns * padded.shape[-1], features), jnp.float32)
    total, _ = jax.lax.scan(add_strip, total, strip * jnp.arange(strips))
    return total.reshape(rows, columns, -1, features)


def weight_gradient(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Returns sum over batch and pixels of x (..., I) times gradient (..., O): (I, O) float32."""
    x, gradient = (array.reshape(-1, array.shape[-1]) for array in (x, gradient))
    return jnp.dot(gradient.T, x, preferred_element_type=jnp.float32).T


def _padded(x):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
