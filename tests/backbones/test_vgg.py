"""VGG16's sizes, poolings and names."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.backbones import vgg


@pytest.mark.parametrize("size", [(1, 508), (60, 76), (33, 40), (2, 3)])
def test_maps_have_the_sizes_that_fcn8_crops(size):
    net = vgg.VGG16(width=2)
    x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    maps = jax.eval_shape(lambda x: net.init_with_output(jax.random.key(0), x)[0], x)
    expected = [side + 198 for side in size]
    for _ in range(3):
        expected = [-(-side // 2) for side in expected]
    for level, channels in enumerate((8, 16, 16)):
        assert maps[level].shape == (1, *expected, channels)
        expected = [-(-side // 2) for side in expected]


def test_recomputing_the_blocks_changes_nothing_but_memory():
    x = jax.random.uniform(jax.random.key(1), (1, 2, 3, 3))
    variables = vgg.VGG16(width=1).init(jax.random.key(0), x)

    def gradient(remat):
        net = vgg.VGG16(width=1, remat=remat)
        run = jax.grad(lambda v: net.apply(v, x)[-1].sum())
        return jax.jit(run)(variables), str(jax.make_jaxpr(run)(variables))

    plain, program = gradient(remat=False)
    again, rematerialised = gradient(remat=True)
    assert "remat" not in program and "remat" in rematerialised
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        plain,
        again,
    )


def test_every_convolution_has_one_published_name_of_either_kind():
    shapes = jax.eval_shape(
        lambda x: vgg.VGG16().init(jax.random.key(0), x),
        jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.float32),
    )
    ours = {
        f"backbone.{block}.{conv}."
        for block, convs in shapes["params"].items()
        for conv in convs
    }
    assert len(ours) == 13
    assert {new for _, new in vgg.TORCH_NAMES} == ours
    given = [f"backbone.pool3.{i}." for i in (0, 2, 5, 7, 10, 12, 14)]
    given += [f"backbone.pool{p}.{i}." for p in (4, 5) for i in (0, 2, 4)]
    renamed = set()
    for name in given:
        for pattern, new in vgg.FCTL_NAMES:
            name = re.sub(pattern, new, name)
        renamed.add(name)
    assert renamed == ours


def test_a_classifier_becomes_convolutions_of_the_same_result():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 4 * 49))
    found = vgg.as_convolutions(
        {
            "module.classifier.0.weight": first,
            "classifier.0.bias": np.zeros(3),
            "classifier.3.weight": np.ones((5, 3)),
            "classifier.6.weight": np.ones((9, 5)),
        }
    )
    maps = rng.normal(size=(4, 7, 7))  # PyTorch flattens channel, row, column
    kernel = found["classifier.0.weight"]
    assert set(found) == {
        "classifier.0.weight",
        "classifier.0.bias",
        "classifier.3.weight",
    }
    assert kernel.shape == (3, 4, 7, 7)
    assert found["classifier.3.weight"].shape == (5, 3, 1, 1)
    np.testing.assert_allclose(
        np.einsum("oijk,ijk->o", kernel, maps), first @ maps.ravel()
    )
