"""Pooling against direct loops over windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import pool

SIZES = [((7, 10), (3, 4)), ((4, 4), (6, 6)), ((1, 1), (3, 2)), ((12, 12), (4, 6))]


def loop(x, size, reduce):
    """Applies reduce(window, top, left) to every adaptive window of [H, W]."""
    out = np.empty(size)
    for i, (top, bottom) in enumerate(pool.adaptive_windows(x.shape[0], size[0])):
        for j, (left, right) in enumerate(pool.adaptive_windows(x.shape[1], size[1])):
            out[i, j] = reduce(x[top:bottom, left:right], top, left)
    return out


def test_adaptive_windows_cover_all_and_overlap_where_sizes_do_not_divide():
    assert pool.adaptive_windows(7, 3) == [(0, 3), (2, 5), (4, 7)]
    assert pool.adaptive_windows(2, 4) == [(0, 1), (0, 1), (1, 2), (1, 2)]


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_adaptive_average_equals_window_means(before, after):
    x = np.random.default_rng(0).normal(size=(2, *before, 3)).astype(np.float32)
    out = pool.adaptive_average(jnp.asarray(x), after)
    expected = loop(x[1, :, :, 2], after, lambda window, *_: window.mean())
    np.testing.assert_allclose(out[1, :, :, 2], expected, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_adaptive_max_index_is_the_first_maximum_in_row_major_order(before, after):
    # Few distinct values: ties in nearly every window.
    x = np.random.default_rng(0).integers(0, 3, (2, *before)).astype(np.float32)

    def position(window, top, left):
        row, column = np.unravel_index(np.argmax(window), window.shape)
        return (top + row) * before[1] + left + column

    out = pool.adaptive_max_index(jnp.asarray(x), after)
    for image, found in zip(x, out, strict=True):
        np.testing.assert_array_equal(found, loop(image, after, position))


def test_adaptive_max_index_stays_inside_windows_of_negative_values():
    x = -1 - jnp.arange(35, dtype=jnp.float32).reshape(1, 5, 7)
    out = pool.adaptive_max_index(x, (2, 3))
    assert out[0, 0, 0] == 0 and out[0, 1, 2] == 2 * 7 + 4


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 2)])
@pytest.mark.parametrize(("max_pool", "reach"), [
    (pool.max_3x3_stride_2, 1), (pool.max_2x2, 0),
])  # fmt: skip
def test_max_pool_gives_values_and_gradient_to_the_first_maximum(max_pool, reach, size):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 4, (1, *size, 2)).astype(np.float32)
    out, pullback = jax.vjp(max_pool, jnp.asarray(x))
    assert out.shape[1:3] == tuple(-(-side // 2) for side in size)
    g = rng.normal(size=out.shape).astype(np.float32)
    expected, gradient = np.zeros(out.shape), np.zeros(x.shape)
    for i, j, c in np.ndindex(out.shape[1:]):
        top, left = max(2 * i - reach, 0), max(2 * j - reach, 0)
        window = x[0, top : 2 * i + 2, left : 2 * j + 2, c]
        row, column = np.unravel_index(np.argmax(window), window.shape)
        expected[0, i, j, c] = window.max()
        gradient[0, top + row, left + column, c] += g[0, i, j, c]
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(pullback(jnp.asarray(g))[0], gradient, atol=1e-6)


@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1)])
def test_unpooling_puts_maxima_back_where_they_lay(size):
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    x[0] = 1.0  # ties: the first of a window
    pooled, places = pool.max_2x2_with_places(x)
    np.testing.assert_array_equal(pooled, pool.max_2x2(x))
    back = np.array(pool.unpool_2x2(pooled, places, size))
    kept = back != 0
    assert back.shape == x.shape and kept.sum() == pooled.size
    np.testing.assert_array_equal(back[kept], x[kept])
    assert kept[0, ::2, ::2].all()
    gradient = jax.grad(lambda x: pool.max_2x2_with_places(x)[0].sum())(x)
    np.testing.assert_array_equal(gradient, kept)
