"""Filters against sorting and against a loop."""

import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import smooth


@pytest.mark.parametrize("side", [1, 3, 5])
def test_the_median_equals_sorting_with_zeros_around(side):
    x = np.random.default_rng(0).normal(size=(2, 9, 7)).astype(np.float32)
    x[0, :3] = 0.0
    x[1, 4] = [-0.0, 1e-30, -1e30, 1e30, 0.5, 0.5, 0.5]
    reach = side // 2
    padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), (1, 2))
    expected = np.median(windows, axis=(3, 4))
    np.testing.assert_array_equal(smooth.median(jnp.asarray(x), side), expected)


@pytest.mark.parametrize("side", [0, 4, -1])
def test_a_median_without_centre_is_refused(side):
    with pytest.raises(ValueError, match="has no centre"):
        smooth.median(jnp.zeros((1, 4, 4)), side)


def test_a_gaussian_mean_keeps_a_constant_inside():
    x = jnp.ones((1, 11, 13))
    found = smooth.gaussian(x, (3, 5), (0.8, 2.0))[0]
    np.testing.assert_allclose(found[1:-1, 2:-2], 1.0, rtol=1e-6)
    assert found[0, 0] < 0.7  # zeros around
    with pytest.raises(ValueError, match="use odd sides"):
        smooth.gaussian(x, (2, 5), (1.0, 1.0))
