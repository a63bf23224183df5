"""Shapes, names and options of the residual networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.backbones import resnet
from uhrjax.nn import initial

IMAGE = jax.ShapeDtypeStruct((1, 70, 96, 3), jnp.float32)


def trace(**fields):
    """Returns the shapes of the maps and of the parameters, without computing."""
    net = resnet.ResNet(**fields)
    maps, variables = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x, train=False), IMAGE
    )
    return [x.shape[1:] for x in maps], variables["params"]


@pytest.mark.parametrize(
    ("dilation", "sides"),
    [
        ("none", [(18, 24), (9, 12), (5, 6), (3, 3)]),
        ("keep_stride", [(18, 24), (9, 12), (5, 6), (3, 3)]),
        ("os8", [(18, 24), (9, 12), (9, 12), (9, 12)]),
        ("os8_late", [(18, 24), (9, 12), (9, 12), (9, 12)]),
        ("os16", [(18, 24), (9, 12), (5, 6), (5, 6)]),
    ],
)
@pytest.mark.parametrize("depth", [18, 50])
def test_output_strides_follow_the_dilation(depth, dilation, sides):
    shapes, _ = trace(depth=depth, dilation=dilation, width=8)
    factor = 4 if depth == 50 else 1
    assert [shape[:2] for shape in shapes] == sides
    assert [shape[2] for shape in shapes] == [8 * factor * k for k in (1, 2, 4, 8)]


@pytest.mark.parametrize(
    ("depth", "millions"), [(18, 11.18), (34, 21.28), (50, 23.51), (101, 42.50)]
)
def test_parameter_counts_are_those_of_the_published_classic_networks(depth, millions):
    _, params = trace(depth=depth)
    count = sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params)) / 1e6
    assert count == pytest.approx(millions, abs=0.005)


def test_names_are_the_published_ones():
    _, classic = trace(depth=18, width=4)
    assert {"conv1", "bn1", "layer1_0", "layer4_1"} <= set(classic)
    assert "downsample_0" not in classic["layer1_0"]  # same width, no shortcut conv
    assert classic["conv1"]["kernel"].shape == (7, 7, 3, 4)
    _, deep = trace(depth=50, stem="deep", width=4)
    assert {"conv1_0", "conv1_1", "conv1_3", "conv1_4", "conv1_6", "bn1"} <= set(deep)
    assert deep["conv1_6"]["kernel"].shape == (3, 3, 4, 8)
    assert deep["layer1_0"]["downsample_0"]["kernel"].shape == (1, 1, 8, 16)


def test_recomputing_blocks_changes_neither_result_nor_gradient():
    x = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))
    plain = resnet.ResNet(depth=18, width=4)
    shapes = jax.eval_shape(lambda x: plain.init(jax.random.key(0), x, train=False), x)
    variables = initial.draw(shapes, jax.random.key(0))

    def loss(net, params):
        maps, _ = net.apply(
            {**variables, "params": params}, x, train=True, mutable="batch_stats"
        )
        return sum(jnp.mean(m**2) for m in maps)

    results = [
        jax.jit(jax.value_and_grad(lambda p, net=net: loss(net, p)))(
            variables["params"]
        )
        for net in (plain, plain.clone(remat=True))
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *results
    )


@pytest.mark.parametrize("stem", ["classic", "deep"])
def test_the_first_convolution_comes_first_where_it_is_asked_for(stem):
    plain, _ = trace(depth=18, stem=stem, width=4)
    shapes, _ = trace(depth=18, stem=stem, width=4, with_stem=True)
    assert shapes == [(35, 48, 4), *plain]
