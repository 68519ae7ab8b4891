"""Convolutions of stride 1, each in the form that suits the machine, with its derivative.

XLA's own are what a GPU or TPU wants. On a CPU three things are faster as matrix products of our own: the gradient by a
kernel (two to five times), a convolution of many feature maps on maps that fit into the cache (Winograd: a third), and
one to far fewer feature maps. All are exact away from rounding.
"""

import jax
import jax.numpy as jnp

# Rows of a map that the gradient by a kernel takes at a time.
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
    """Returns what a gradient by the result of `convolve` becomes.

    Args:
      x, kernel: as `convolve` takes them.
      gradient: of the shape and dtype of its result.

    Returns:
      the gradient by x, of its dtype, and the gradient by the kernel, float32.
    """
    # From 32 feature maps on; XLA's is the faster one for fewer.
    cpu = _backward_by_products if min(kernel.shape[2:]) >= 32 else _backward_by_xla
    return jax.lax.platform_dependent(x, kernel, gradient, cpu=cpu, default=_backward_by_xla)


def _forward(x, kernel):
    return convolve(x, kernel), (x, kernel)


def _backward(kept, gradient):
    by_x, by_kernel = convolve_backward(*kept, gradient)
    return by_x, by_kernel.astype(by_x.dtype)


convolve.defvjp(_forward, _backward)


def _by_xla(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _on_cpu(x, kernel):
    height, (*size, inputs, outputs) = x.shape[1], kernel.shape
    few = inputs >= 4 * outputs
    # In bfloat16 Winograd's sums would round too much away.
    in_fours = size == [3, 3] and height % 4 == 0 and x.dtype == jnp.float32
    if in_fours and inputs >= 128 and (few or height <= 64):
        return _by_winograd(x, kernel)
    return _by_taps(x, kernel) if few else _by_xla(x, kernel)


def _by_taps(x, kernel):
    """Multiplies every pixel by all taps at once, then adds up what falls on the same pixel."""
    rows, columns, inputs, outputs = kernel.shape
    height, width = x.shape[1] + 3 - rows, x.shape[2] + 3 - columns
    taps = _padded(x) @ kernel.transpose(2, 0, 1, 3).reshape(inputs, -1)
    places = [(i, j, outputs * (columns * i + j)) for i in range(rows) for j in range(columns)]
    return sum(taps[:, i : i + height, j : j + width, tap : tap + outputs] for i, j, tap in places)


# F(4, 3) by the points 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, section 4.3).
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
    """Makes every four rows with six products by three taps each, instead of twelve; four divides the height."""
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
    by_x, by_kernel = jax.vjp(_by_xla, x, kernel)[1](gradient)
    return by_x, by_kernel.astype(jnp.float32)


def _backward_by_products(x, kernel, gradient):
    rows, columns, inputs, outputs = kernel.shape
    # The fewer feature maps are the ones to move about: the input's one way, or the gradient's the other way.
    if inputs <= outputs:
        return _by_input(x, kernel, gradient), _correlate(_padded(x), gradient, rows, columns)
    margins = ((rows - 2, rows - 2), (columns - 2, columns - 2))
    padded = jnp.pad(gradient, ((0, 0), *margins, (0, 0)))
    if inputs >= 4 * outputs:  # so few that all taps lie side by side, and one product does for each gradient
        height, width = x.shape[1:3]
        moved = jnp.concatenate([padded[:, :, j : j + width] for j in reversed(range(columns))], axis=-1)
        taps = jnp.concatenate([moved[:, i : i + height] for i in reversed(range(rows))], axis=-1)
        by_x = taps @ kernel.transpose(0, 1, 3, 2).reshape(-1, inputs)
        by_kernel = weight_gradient(taps, x).reshape(rows, columns, outputs, inputs)
    else:
        by_x = _by_input(x, kernel, gradient)
        by_kernel = _correlate(padded, x, rows, columns)[::-1, ::-1]
    return by_x, by_kernel.transpose(0, 1, 3, 2)


def _by_input(x, kernel, gradient):
    return jax.vjp(lambda x: _by_xla(x, kernel), x)[1](gradient)[0]


def _correlate(padded, still, rows, columns):
    """Returns, for each tap, sum over batch and pixels of `padded`, moved by the tap, times `still`.

    Columns are moved by copying, all at once; then there is one product for each row of taps. Large maps are taken a
    strip at a time: the copies of whole ones would take more memory than all else.

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
