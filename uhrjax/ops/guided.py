"""The guided filter (https://arxiv.org/abs/1803.05619): a map takes on a guide's edges.

Around every px the map is a linear function of the guide, fitted over a square; a px is
the mean of what the squares that hold it say.
"""

import jax
import jax.numpy as jnp


def guided_filter(
    x: jax.Array, guide: jax.Array, *, radius: int, epsilon: float
) -> jax.Array:
    """Filters every channel by its own guide.

    Args:
        x: [B, H, W, C] float32.
        guide: [B, H, W, C] float32.
        radius: of the square, 2 radius + 1 px wide; at the border it is smaller.
        epsilon: variance of the guide that counts as flat.

    Returns:
        [B, H, W, C] float32.
    """

    def mean(values: jax.Array) -> jax.Array:
        return box_sum(values, radius) / counts

    counts = box_sum(jnp.ones((1, *x.shape[1:3], 1), jnp.float32), radius)
    mean_guide, mean_x = mean(guide), mean(x)
    covariance = mean(guide * x) - mean_guide * mean_x
    variance = mean(guide * guide) - mean_guide * mean_guide
    slope = covariance / (variance + epsilon)
    offset = mean_x - slope * mean_guide
    return mean(slope) * guide + mean(offset)


def box_sum(x: jax.Array, radius: int) -> jax.Array:
    """Returns the sums over squares around all px of [B, H, W, C], zeros beyond."""
    side, ends = 2 * radius + 1, (radius, radius)
    none = (0, 0)
    for axis in (1, 2):
        window = tuple(side if k == axis else 1 for k in range(4))
        padding = tuple(ends if k == axis else none for k in range(4))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, window, (1,) * 4, padding)
    return x
