"""Max pooling with a gradient that is cheap on a CPU."""

import jax.numpy as jnp


def max_pool(x: jnp.ndarray, window: int, stride: int, padding: int) -> jnp.ndarray:
    """Takes the maximum of square windows, as `torch.nn.MaxPool2d(window, stride, padding)`.

    Written as maxima of strided slices: XLA's gradient of a pooling (select and scatter) is slow on a CPU. Of equal
    values, the first in the window receives the gradient, as in PyTorch.

    Args:
      x: (B, H, W, C).

    Returns:
      (B, h, w, C) with h = (H + 2 * padding - window) // stride + 1, w likewise; padding is never the maximum.
    """
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)), constant_values=-jnp.inf)
    # Columns, then rows: of equal values, the first in row-major order is kept.
    for axis in (2, 1):
        count = (x.shape[axis] - window) // stride + 1
        best = None
        for offset in range(window):
            index = [slice(None)] * 4
            index[axis] = slice(offset, offset + (count - 1) * stride + 1, stride)
            taps = x[tuple(index)]
            best = taps if best is None else jnp.where(best >= taps, best, taps)
        x = best
    return x
