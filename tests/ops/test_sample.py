"""Reading and writing maps at points."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import sample


@pytest.fixture
def features():
    return jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)), jnp.float32)


def test_gather_reads_each_image_at_its_own_positions(features):
    out = sample.gather(features, jnp.array([[0, 23], [7, 7]]))
    np.testing.assert_array_equal(out[0], [features[0, 0, 0], features[0, 3, 5]])
    np.testing.assert_array_equal(out[1], [features[1, 1, 1]] * 2)


def test_bilinear_at_integers_is_the_pixel_and_between_them_the_mean(features):
    points = jnp.array([[[1.0, 2.0], [1.5, 2.5]], [[0.0, 0.5], [3.0, 5.0]]])
    out = sample.bilinear(features, points)
    np.testing.assert_allclose(out[0, 0], features[0, 1, 2], atol=1e-6)
    mean = features[0, 1:3, 2:4].mean((0, 1))
    np.testing.assert_allclose(out[0, 1], mean, atol=1e-6)
    np.testing.assert_allclose(out[1, 0], features[1, 0, :2].mean(0), atol=1e-6)
    np.testing.assert_allclose(out[1, 1], features[1, 3, 5], atol=1e-6)


def test_bilinear_fades_to_zero_beyond_the_border(features):
    points = jnp.array([[[-0.5, 0.0], [-1.0, 2.0]], [[3.25, 5.0], [9.0, 9.0]]])
    out = sample.bilinear(features, points)
    np.testing.assert_allclose(out[0, 0], features[0, 0, 0] / 2, atol=1e-6)
    np.testing.assert_allclose(out[1, 0], features[1, 3, 5] * 0.75, atol=1e-6)
    assert not out[0, 1].any() and not out[1, 1].any()


def test_overwrite_keeps_the_last_value_and_gives_it_the_whole_gradient(features):
    index = jnp.array([[5, 2, 5, 5], [0, 1, 2, 0]])
    values = jnp.arange(24, dtype=jnp.float32).reshape(2, 4, 3)
    out = sample.overwrite(features, index, values).reshape(2, 24, 3)
    np.testing.assert_array_equal(out[0, 5], values[0, 3])
    np.testing.assert_array_equal(out[0, 2], values[0, 1])
    np.testing.assert_array_equal(out[1, 0], values[1, 3])
    np.testing.assert_array_equal(out[1, 3:], features.reshape(2, 24, 3)[1, 3:])
    weight = jnp.ones_like(features)

    def loss(x, v):
        return jnp.sum(weight * sample.overwrite(x, index, v))

    into_map, into_values = jax.grad(loss, argnums=(0, 1))(features, values)
    assert into_values[:, :, 0].tolist() == [[0, 1, 0, 1], [0, 1, 1, 1]]
    assert into_map.reshape(2, 24, 3)[0, 5].tolist() == [0, 0, 0]
    assert into_map.sum() == 3 * (2 * 24 - 2 - 3)


def test_overwrite_of_unique_positions_equals_the_general_one(features):
    index = jnp.array([[3, 9, 23], [0, 22, 4]])
    values = jnp.ones((2, 3, 3))
    np.testing.assert_array_equal(
        sample.overwrite(features, index, values, unique=True),
        sample.overwrite(features, index, values),
    )
