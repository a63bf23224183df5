"""Multiply-accumulates counted from shapes."""

import jax
import jax.numpy as jnp
import pytest

from uhrjax import cost


def test_convolutions_count_every_tap_of_every_output():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    found = cost.multiply_accumulates(
        convolve, jnp.zeros((2, 8, 5, 3)), jnp.zeros((3, 3, 3, 7))
    )
    assert found == 2 * 4 * 5 * 7 * 27


def test_products_count_within_jit_loops_and_recomputed_parts():
    def repeated(x):
        step = jax.checkpoint(lambda x, _: (jax.jit(jnp.matmul)(x, x), None))
        return jax.lax.scan(step, x, None, length=5)[0]

    assert cost.multiply_accumulates(repeated, jnp.zeros((4, 4))) == 5 * 4**3


@pytest.mark.parametrize("batch", [1, 3])
def test_batched_products_count_each(batch):
    shape = jax.ShapeDtypeStruct((batch, 4, 6), jnp.float32)
    found = cost.multiply_accumulates(lambda a: jnp.einsum("bij,bkj->bik", a, a), shape)
    assert found == batch * 4 * 4 * 6


def test_gradients_of_strides_count_no_zeros():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    given = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 4))
    forward = cost.multiply_accumulates(convolve, *given)
    gradient = jax.grad(lambda *x: convolve(*x).sum(), argnums=(0, 1))
    # The value, and as much for either gradient.
    assert cost.multiply_accumulates(gradient, *given) == 3 * forward
