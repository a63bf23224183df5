"""Object-contextual representations: regions, attention, dropout."""

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.nn import ocr


def test_a_region_is_the_mean_of_the_pixels_that_look_like_its_class():
    features = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    scores = np.full((2, 4, 6, 2), -50.0, np.float32)
    scores[:, :2, :, 0] = scores[:, 3, :2, 1] = 0.0
    found = ocr.gather_regions(jnp.asarray(features), jnp.asarray(scores))
    np.testing.assert_allclose(found[:, 0], features[:, :2].mean((1, 2)), atol=1e-6)
    np.testing.assert_allclose(found[:, 1], features[:, 3, :2].mean(1), atol=1e-6)


def test_a_pixel_sees_others_through_the_regions_only():
    net = ocr.ObjectContext(features=6, hidden=4, dropout=0.5)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (1, 5, 5, 6))
    regions = jax.random.normal(keys[1], (1, 3, 6))
    variables = net.init(keys[2], x, regions, train=False)
    found = net.apply(variables, x, regions, train=False)
    assert found.shape == (1, 5, 5, 6)
    moved = net.apply(variables, x.at[0, 2, 2].add(1.0), regions, train=False)
    differs = np.asarray(abs(moved - found).max(-1)[0] > 1e-6)
    assert differs[2, 2] and differs.sum() == 1
    other = net.apply(variables, x, regions + 1.0, train=False)
    assert (abs(other - found).max(-1) > 1e-6).mean() > 0.8
    dropped, _ = net.apply(
        variables, x, regions, train=True, rngs={"dropout": keys[0]},
        mutable="batch_stats",
    )  # fmt: skip
    gone = (np.asarray(dropped) == 0).all((1, 2))  # whole channels
    assert 0 < gone.sum() < 6
