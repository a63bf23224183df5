"""Shapes, names and options of the high-resolution networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.backbones import hrnet
from uhrjax.nn import initial

KEY = jax.random.key(0)
IMAGE = jax.ShapeDtypeStruct((1, 64, 96, 3), jnp.float32)


def trace(image=IMAGE, **fields):
    """Returns the shape of the features and of the parameters, without computing."""
    net = hrnet.HRNet(**fields)
    features, variables = jax.eval_shape(
        lambda x: net.init_with_output(jax.random.key(0), x, train=False), image
    )
    return features.shape, variables["params"]


def count(params):
    return sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def test_parameter_counts_are_those_of_the_published_networks():
    assert count(trace()[1]) == 65_325_120
    # ImageNet's HRNet-W18 and W18-small-v2 without what only their classifiers have.
    assert count(trace(size="w18")[1]) == pytest.approx(9.56e6, rel=0.01)
    assert count(trace(size="w18_small_v2")[1]) == pytest.approx(3.9e6, rel=0.05)


@pytest.mark.parametrize(("size", "width"), [("w48", 48), ("w18_small_v2", 18)])
def test_all_branches_are_joined_at_a_quarter_of_the_size(size, width):
    assert trace(size=size)[0] == (1, 16, 24, 15 * width)


def test_a_stem_without_stride_keeps_full_resolution_and_all_shapes():
    shape, params = trace(size="w18_small_v2", stem_stride=1)
    assert shape == (1, 64, 96, 270)
    strided = trace(size="w18_small_v2")[1]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, strided)


def test_odd_sizes_are_rounded_up_at_every_stride():
    image = jax.ShapeDtypeStruct((1, 275, 1, 3), jnp.float32)
    assert trace(image, size="w18_small_v2", width=2)[0] == (1, 69, 1, 30)


def test_names_are_the_published_ones():
    _, params = trace(size="w18_small_v2", width=2)
    known = set(params)
    assert {"conv2", "bn2", "layer1_1", "transition1_0_0", "transition1_1_0_1"} <= known
    assert {"transition3_3_0_0", "stage4_1_branches_3_1"} <= known
    assert {"stage4_0_fuse_layers_0_3_0", "stage4_0_fuse_layers_3_0_2_1"} <= known
    assert "stage4_0_fuse_layers_0_0_0" not in known  # identity
    kernel = params["stage4_0_fuse_layers_3_0_1_0"]["kernel"]
    assert kernel.shape == (3, 3, 2, 2)  # all but the last keep their channels
    assert params["stage4_0_fuse_layers_3_0_2_0"]["kernel"].shape == (3, 3, 2, 16)


def test_aligned_corners_change_what_is_upsampled():
    x = jax.random.normal(jax.random.key(0), (1, 32, 32, 3))
    small = {"size": "w18_small_v2", "width": 2, "stem_width": 2}
    image = jax.ShapeDtypeStruct(x.shape, x.dtype)
    plain, aligned = (hrnet.HRNet(**small, align_corners=a) for a in (False, True))
    shapes = jax.eval_shape(
        lambda x: plain.init(jax.random.key(0), x, train=False), image
    )
    variables = initial.draw({k: {"backbone": v} for k, v in shapes.items()}, KEY)
    variables = {k: v["backbone"] for k, v in variables.items()}
    found = [
        jax.jit(lambda v, net=net: net.apply(v, x, train=False))(variables)
        for net in (plain, aligned)
    ]
    assert abs(found[0] - found[1]).max() > 0.01 * abs(found[0]).max()
