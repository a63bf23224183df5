"""Batch normalisation: values, statistics and gradients are those of Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.nn import conv


def both(x, slope, *, unbiased=False):
    """Returns what Flax and we make of a map: values, statistics, gradients."""
    theirs = nn.BatchNorm(use_running_average=False, momentum=0.8, epsilon=1e-5)
    ours = conv.BatchNorm(use_running_average=False, momentum=0.8, unbiased=unbiased)
    rng = np.random.default_rng(1)
    draw = lambda *low_high: jnp.asarray(  # noqa: E731
        rng.uniform(*low_high, x.shape[-1]), jnp.float32
    )
    variables = {
        "params": {"scale": draw(0.5, 2), "bias": draw(-1, 1)},
        "batch_stats": {"mean": draw(-1, 1), "var": draw(0.5, 2)},
    }
    found = []
    for module in (theirs, ours):

        def run(params, x, module=module):
            given = {**variables, "params": params}
            return module.apply(given, x, mutable="batch_stats")

        (y, new), back = jax.vjp(run, variables["params"], x)
        of_params, of_x = back(
            (slope.astype(y.dtype), jax.tree.map(jnp.zeros_like, new))
        )
        found.append((y, new["batch_stats"], of_params, of_x))
    return found


@pytest.mark.parametrize(
    "shape, shift",
    [((3, 5, 4, 6), 0.0), ((3, 5, 4, 6), 30.0), ((2, 1, 1, 3), 0.0), ((7, 2), 0.0)],
)
def test_values_statistics_and_gradients_are_those_of_flax(shape, shift):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=shape) + shift, jnp.float32)
    slope = jnp.asarray(rng.normal(size=shape), jnp.float32)
    theirs, ours = both(x, slope)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6, atol=1e-6)
    for a, b in zip(jax.tree.leaves(ours[1]), jax.tree.leaves(theirs[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    atol = 1e-5 if shift == 0 else 1e-3  # both lose digits of the variance there
    for a, b in zip(
        jax.tree.leaves(ours[2:]), jax.tree.leaves(theirs[2:]), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)


def test_the_gradient_is_that_of_the_values():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 3, 2, 2)), jnp.float32)
    slope = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    module = conv.BatchNorm(use_running_average=False)
    variables = module.init(jax.random.key(0), x)

    def total(x):
        y, _ = module.apply(variables, x, mutable="batch_stats")
        return jnp.vdot(y, slope)

    found = jax.grad(total)(x)
    for place in [(0, 0, 0, 0), (1, 2, 1, 1)]:
        step = jnp.zeros_like(x).at[place].set(1e-2)
        expected = (total(x + step) - total(x - step)) / 2e-2
        assert float(found[place]) == pytest.approx(float(expected), abs=2e-3)


def test_the_unbiased_variance_is_stored_and_the_running_one_used():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 2, 1, 3)), jnp.float32)
    theirs, ours = both(x, x, unbiased=True)
    np.testing.assert_array_equal(ours[0], theirs[0])
    gain = (ours[1]["var"] - theirs[1]["var"]) / (0.2 * jnp.var(x, (0, 1, 2)))
    np.testing.assert_allclose(gain, 4 / 3 - 1, rtol=1e-4)
    running = conv.BatchNorm(use_running_average=True)
    known = nn.BatchNorm(use_running_average=True, epsilon=1e-5)
    variables = {"params": {"scale": x[0, 0, 0], "bias": x[1, 0, 0]}}
    variables["batch_stats"] = {"mean": x[0, 1, 0], "var": jnp.abs(x[1, 1, 0])}
    np.testing.assert_allclose(
        running.apply(variables, x), known.apply(variables, x), rtol=1e-6, atol=1e-7
    )


def test_bfloat16_maps_have_float32_statistics_and_bfloat16_gradients():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4, 2)), jnp.bfloat16)
    module = conv.BatchNorm(use_running_average=False, dtype=jnp.bfloat16)
    variables = module.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}

    def total(x):
        y, new = module.apply(variables, x, mutable="batch_stats")
        assert y.dtype == jnp.bfloat16
        assert new["batch_stats"]["var"].dtype == jnp.float32
        return jnp.sum(y.astype(jnp.float32) ** 3)

    assert jax.grad(total)(x).dtype == jnp.bfloat16
