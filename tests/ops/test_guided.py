"""The guided filter against its definition, px by px."""

import jax.numpy as jnp
import numpy as np

from uhrjax.ops import guided


def by_hand(x, guide, radius, epsilon):
    """The filter of one channel [H, W] in float64."""
    height, width = x.shape
    slope, offset = np.zeros((2, height, width))

    def square(i, j):
        return np.s_[max(i - radius, 0) : i + radius + 1,
                     max(j - radius, 0) : j + radius + 1]  # fmt: skip

    for i, j in np.ndindex(height, width):
        a, b = guide[square(i, j)], x[square(i, j)]
        covariance = (a * b).mean() - a.mean() * b.mean()
        slope[i, j] = covariance / (a.var() + epsilon)
        offset[i, j] = b.mean() - slope[i, j] * a.mean()
    found = np.zeros((height, width))
    for i, j in np.ndindex(height, width):
        found[i, j] = slope[square(i, j)].mean() * guide[i, j]
        found[i, j] += offset[square(i, j)].mean()
    return found


def test_every_px_is_the_mean_of_the_fits_around_it():
    x, guide = np.random.default_rng(0).normal(size=(2, 2, 9, 6, 3))
    found = guided.guided_filter(
        jnp.asarray(x, jnp.float32), jnp.asarray(guide, jnp.float32), radius=2,
        epsilon=0.1,
    )  # fmt: skip
    for b in range(2):
        for c in range(3):
            expected = by_hand(x[b, ..., c], guide[b, ..., c], 2, 0.1)
            np.testing.assert_allclose(found[b, ..., c], expected, atol=2e-5)


def test_a_blurred_edge_becomes_the_guides_edge():
    guide = jnp.zeros((1, 16, 16, 1)).at[:, :, 8:].set(1.0)
    blurred = jnp.broadcast_to(jnp.clip((jnp.arange(16) - 4.0) / 8, 0, 1), (16, 16))
    found = guided.guided_filter(
        blurred[None, ..., None], guide, radius=6, epsilon=1e-3
    )[0, 8, :, 0]
    assert found[8] - found[7] > 3 * (blurred[8, 8] - blurred[8, 7])
