"""What of a training step is bfloat16 with dtype=bfloat16; traced, nothing runs."""

import functools

import jax
import jax.numpy as jnp
import pytest
import small
from jax.extend import core

from uhrjax import methods

CLASSES = 5  # of small configs: a convolution to so many features or fewer is an answer
# Other answers: the first half of CascadePSP's heads, directions.
ANSWERS = {"cascadepsp": {32}, "segfix": {8}}


@functools.cache
def traced(name):
    """Returns a training step's program up to the loss, and its results' types."""
    method = methods.build(small.config(name, dtype="bfloat16"))
    batch = {
        key: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for key, array in small.batch_for(method, size=(64, 64)).items()
    }

    def step(variables, batch):
        outputs, stats = method.apply(
            variables, batch, train=True, key=jax.random.key(0)
        )
        return method.loss(outputs, batch), stats, method.logits(outputs)

    return jax.make_jaxpr(step, return_shape=True)(method.shapes(), batch)


@pytest.mark.parametrize("name", methods.METHODS)
def test_losses_statistics_and_logits_of_bfloat16_are_float32(name):
    _, (losses, stats, logits) = traced(name)
    assert losses["total"].shape == ()
    for leaf in jax.tree.leaves((losses, stats, logits)):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", methods.METHODS)
def test_all_but_the_answering_convolutions_compute_in_bfloat16(name):
    program, _ = traced(name)
    answers = set(range(1, CLASSES + 1)) | ANSWERS.get(name, set())
    sizes = []
    for images, kernel in convolutions(program.jaxpr):
        sizes.append(kernel.shape)
        one_px = images.shape[1:3] == (1, 1)
        if kernel.shape[-1] in answers or one_px:
            continue
        assert images.dtype == kernel.dtype == jnp.bfloat16, (images, kernel)
    assert sizes


def convolutions(jaxpr):
    """Yields image and kernel of every convolution of a program and those within."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            yield tuple(operand.aval for operand in equation.invars)
        for leaf in jax.tree.leaves(
            equation.params, is_leaf=lambda p: isinstance(p, core.ClosedJaxpr)
        ):
            inner = getattr(leaf, "jaxpr", leaf)
            if isinstance(inner, core.Jaxpr):
                yield from convolutions(inner)
