"""1x1 convolution: values and gradients are those of the general one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import cost
from uhrjax.ops import pointwise

SHAPES = [(2, 5, 7, 3, 4), (1, 1, 1, 6, 2), (3, 8, 8, 1, 1)]


def general(x, kernel):
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def gradients(function, x, kernel, slope):
    return jax.vjp(function, x, kernel)[1](slope)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_a_convolution(shape):
    *size, channels, features = shape
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(*size, channels)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(1, 1, channels, features)), jnp.float32)
    slope = jnp.asarray(rng.normal(size=(*size, features)), jnp.float32)
    np.testing.assert_allclose(
        pointwise.convolve(x, kernel), general(x, kernel), rtol=1e-6, atol=1e-6
    )
    ours = gradients(pointwise.convolve, x, kernel, slope)
    for found, expected in zip(ours, gradients(general, x, kernel, slope), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_it_stays_in_bfloat16_and_costs_as_much():
    x, kernel = (
        jnp.ones((2, 4, 4, 3), jnp.bfloat16),
        jnp.ones((1, 1, 3, 5), jnp.bfloat16),
    )
    slope = jnp.ones((2, 4, 4, 5), jnp.bfloat16)
    found = gradients(pointwise.convolve, x, kernel, slope)
    assert {part.dtype for part in found} == {jnp.dtype(jnp.bfloat16)}
    assert [part.shape for part in found] == [x.shape, kernel.shape]
    for function in (pointwise.convolve, general):
        step = lambda *given, f=function: gradients(f, *given)  # noqa: E731
        count = cost.multiply_accumulates(step, x, kernel, slope)
        assert count == 3 * slope.size * 3
        assert cost.multiply_accumulates(function, x, kernel) == slope.size * 3
