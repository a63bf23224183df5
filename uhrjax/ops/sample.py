"""Reading and writing feature maps at points.

All gathers and scatters are batched through `take_along_axis` and `vmap`: a map sharded
over its batch axis then needs no communication, which `x[batch_index, index]` would.
"""

import jax
import jax.numpy as jnp

from uhrjax.ops import select


def gather(x: jax.Array, index: jax.Array) -> jax.Array:
    """Reads pixels.

    Args:
        x: [B, H, W, C].
        index: [B, P] int, flat positions into H * W.

    Returns:
        [B, P, C], dtype of x.
    """
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    return jnp.take_along_axis(flat, index[..., None], axis=1)


def bilinear(x: jax.Array, points: jax.Array) -> jax.Array:
    """Reads between pixels; beyond the map's border everything is zero.

    Args:
        x: [B, H, W, C] floating point.
        points: [B, P, 2] float32 (y, x) in px; integers are pixel centres.

    Returns:
        [B, P, C], dtype of x; interpolated in float32 or wider.
    """
    _, height, width, _ = x.shape
    wide = jnp.promote_types(x.dtype, jnp.float32)
    low = jnp.floor(points)
    above = (points - low).astype(wide)  # weight of the neighbour above, [B, P, 2]
    total = 0.0
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = low[..., 0] + dy, low[..., 1] + dx
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        weight_y = above[..., 0] if dy else 1 - above[..., 0]
        weight_x = above[..., 1] if dx else 1 - above[..., 1]
        row = jnp.clip(row, 0, height - 1).astype(jnp.int32)
        column = jnp.clip(column, 0, width - 1).astype(jnp.int32)
        weight = jnp.where(inside, weight_y * weight_x, 0)[..., None]
        total += weight * gather(x, row * width + column).astype(wide)
    return total.astype(x.dtype)


def overwrite(
    x: jax.Array, index: jax.Array, values: jax.Array, *, unique: bool = False
) -> jax.Array:
    """Writes pixels; of several values for one pixel the last one stays.

    The value that stays also receives the pixel's whole gradient, the others none.

    Args:
        x: [B, H, W, C].
        index: [B, P] int, flat positions into H * W.
        values: [B, P, C].
        unique: True promises that no position repeats within an image.

    Returns:
        [B, H, W, C], dtype of x.
    """
    pixels = x.shape[1] * x.shape[2]
    if not unique:
        # A position of its own beyond the map drops a value that lost.
        count = index.shape[1]
        wins = select.last_occurrence(index, size=pixels)
        index = jnp.where(wins, index, pixels + jnp.arange(count, dtype=index.dtype))
    flat = x.reshape(x.shape[0], pixels, x.shape[-1])
    written = jax.vmap(
        lambda f, i, v: f.at[i].set(v, mode="drop", unique_indices=True)
    )(flat, index, values.astype(x.dtype))
    return written.reshape(x.shape)
