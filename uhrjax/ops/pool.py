"""Pooling over windows that depend only on the input's and the output's size."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


def adaptive_windows(n: int, m: int) -> list[tuple[int, int]]:
    """Returns m half-open windows over n: floor(i n / m) to ceil((i + 1) n / m).

    They overlap where m does not divide n, and repeat samples where n < m.
    """
    return [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]


def adaptive_average(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Averages over size[0] x size[1] windows.

    Args:
        x: [B, H, W, C] floating point.
        size: (rows, columns) of the result.

    Returns:
        [B, size[0], size[1], C], dtype of x; accumulated in float32 or wider.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    rows, columns = (
        jnp.asarray(_averaging_matrix(n, m), wide)
        for n, m in zip(x.shape[1:3], size, strict=True)
    )
    highest = jax.lax.Precision.HIGHEST
    pooled = jnp.einsum("ih,bhwc->biwc", rows, x.astype(wide), precision=highest)
    pooled = jnp.einsum("jw,biwc->bijc", columns, pooled, precision=highest)
    return pooled.astype(x.dtype)


def adaptive_max_index(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Returns where the maximum of every window lies.

    Only positions: read the values back with a gather, so that the gradient is that of
    the gather and needs no select-and-scatter.

    Args:
        x: [B, H, W].
        size: (rows, columns) of the result.

    Returns:
        [B, size[0], size[1]] int32, flat positions into H * W; among equal values the
        first in row-major order. Windows overlap, so positions may repeat.
    """
    _, height, width = x.shape
    rows, row_used = _window_table(height, size[0])  # [P, k]
    columns, column_used = _window_table(width, size[1])
    flat = rows[:, None, :, None] * width + columns[None, :, None, :]  # [P, Q, k, l]
    used = row_used[:, None, :, None] & column_used[None, :, None, :]
    flat, used = (a.reshape(*size, -1) for a in (flat, used))
    values = jnp.take(x.reshape(x.shape[0], -1), flat, axis=1)  # [B, P, Q, k * l]
    best = jnp.argmax(jnp.where(used, values, -jnp.inf), axis=-1)  # [B, P, Q]
    table = jnp.asarray(flat, jnp.int32)[None]
    return jnp.take_along_axis(table, best[..., None], axis=-1)[..., 0]


def _averaging_matrix(n: int, m: int) -> np.ndarray:
    matrix = np.zeros((m, n), np.float32)
    for i, (start, stop) in enumerate(adaptive_windows(n, m)):
        matrix[i, start:stop] = 1 / (stop - start)
    return matrix


def _window_table(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices [m, longest window] and which of them belong to the window."""
    windows = adaptive_windows(n, m)
    longest = max(stop - start for start, stop in windows)
    starts, stops = (np.array(side)[:, None] for side in zip(*windows, strict=True))
    index = starts + np.arange(longest)
    return np.minimum(index, n - 1).astype(np.int32), index < stops


@jax.custom_vjp
def max_3x3_stride_2(x: jax.Array) -> jax.Array:
    """3x3 max pooling with stride 2 and padding 1, [B, H, W, C] -> half the size, up.

    The gradient goes to the first maximum of a window in row-major order. It is written
    as nine masked sums: XLA's select-and-scatter takes tens of times the forward pass.
    """
    return jax.lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        jax.lax.max,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), (1, 1), (1, 1), (0, 0)),
    )


def _max_forward(x):
    pooled = max_3x3_stride_2(x)
    return pooled, (x, pooled)


def _max_backward(residuals, gradient):
    x, pooled = residuals
    _, rows, columns, _ = pooled.shape
    tall, wide = 2 * rows + 1, 2 * columns + 1  # padded by 1 before, 0 to 1 after
    after = (tall - 1 - x.shape[1], wide - 1 - x.shape[2])
    border = ((0, 0), (1, after[0]), (1, after[1]), (0, 0))
    padded = jnp.pad(x, border, constant_values=-jnp.inf)
    taken = jnp.zeros(pooled.shape, bool)
    total = jnp.zeros(padded.shape, gradient.dtype)
    for dy, dx in itertools.product(range(3), range(3)):
        shifted = padded[:, dy : dy + tall - 2 : 2, dx : dx + wide - 2 : 2]
        chosen = (shifted == pooled) & ~taken
        taken |= chosen
        spread = ((0, 0, 0), (dy, 2 - dy, 1), (dx, 2 - dx, 1), (0, 0, 0))
        part = jnp.where(chosen, gradient, 0)
        total += jax.lax.pad(part, np.array(0, gradient.dtype), spread)
    return (total[:, 1 : 1 + x.shape[1], 1 : 1 + x.shape[2]],)


max_3x3_stride_2.defvjp(_max_forward, _max_backward)


@jax.custom_vjp
def max_2x2(x: jax.Array) -> jax.Array:
    """2x2 max pooling with stride 2, [B, H, W, C] -> half the size, rounded up.

    A last odd row or column is pooled by itself. The gradient goes to the first maximum
    of a window in row-major order, see `max_3x3_stride_2`.
    """
    return jax.lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        jax.lax.max,
        window_dimensions=(1, 2, 2, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)),
    )


def _max_2x2_forward(x):
    pooled = max_2x2(x)
    return pooled, (x, pooled)


def _max_2x2_backward(residuals, gradient):
    x, pooled = residuals
    batch, height, width, channels = x.shape
    border = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    padded = jnp.pad(x, border, constant_values=-jnp.inf)
    taken = jnp.zeros(pooled.shape, bool)
    parts = []
    for dy, dx in itertools.product(range(2), range(2)):
        chosen = (padded[:, dy::2, dx::2] == pooled) & ~taken
        taken |= chosen
        parts.append(jnp.where(chosen, gradient, 0))
    rows, columns = pooled.shape[1:3]
    spread = jnp.stack(parts, axis=3).reshape(batch, rows, columns, 2, 2, channels)
    spread = spread.transpose(0, 1, 3, 2, 4, 5).reshape(padded.shape)
    return (spread[:, :height, :width],)


max_2x2.defvjp(_max_2x2_forward, _max_2x2_backward)


def max_2x2_with_places(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """2x2 max pooling with stride 2 that remembers where its maxima lay.

    Args:
        x: [B, H, W, C] floating point; odd sides are rounded up.

    Returns:
        [B, h, w, C], and bool [B, h, w, 2, 2, C], true at the first maximum of each
        window in row-major order. The gradient goes there.
    """
    batch, height, width, channels = x.shape
    border = ((0, 0), (0, height % 2), (0, width % 2), (0, 0))
    padded = jnp.pad(x, border, constant_values=-jnp.inf)
    rows, columns = padded.shape[1] // 2, padded.shape[2] // 2
    windows = padded.reshape(batch, rows, 2, columns, 2, channels).swapaxes(2, 3)
    flat = windows.reshape(batch, rows, columns, 4, channels)
    best = jnp.argmax(jax.lax.stop_gradient(flat), axis=3, keepdims=True)
    pooled = jnp.take_along_axis(flat, best, axis=3)[:, :, :, 0]
    places = best == jnp.arange(4)[:, None]
    return pooled, places.reshape(windows.shape)


def unpool_2x2(x: jax.Array, places: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Puts values back to where the maxima of a pooling lay, 0 elsewhere.

    Args:
        x: [B, h, w, C].
        places: of `max_2x2_with_places`, [B, h, w, 2, 2, C].
        size: (height, width) before that pooling, px.

    Returns:
        [B, *size, C].
    """
    batch, rows, columns, channels = x.shape
    spread = jnp.where(places, x[:, :, :, None, None], 0).swapaxes(2, 3)
    whole = spread.reshape(batch, 2 * rows, 2 * columns, channels)
    return whole[:, : size[0], : size[1]]
