"""What stands in the place of point flow, against what it is made of."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.nn import propagation
from uhrjax.ops import resize


def maps(size=(3, 4), ratio=2, channels=4):
    rng = np.random.default_rng(0)
    high = rng.standard_normal((2, *size, channels), np.float32)
    fine = tuple(ratio * side for side in size)
    return high, rng.standard_normal((2, *fine, channels), np.float32)


def with_params(kind, high, low, **changed):
    """Returns the module's result for its initial weights, some of them changed."""
    module = propagation.make(kind, dtype=jnp.float32, name=None)
    init = jax.jit(functools.partial(module.init, train=False))
    variables = init(jax.random.key(0), high, low)
    params = {**variables.get("params", {}), **changed}
    apply = jax.jit(functools.partial(module.apply, train=False))
    features = apply({"params": params}, high, low).features
    return features, params


@pytest.mark.parametrize("kind", ["dcn_v1", "dcn_v2"])
def test_deformable_convolution_starts_as_a_convolution(kind):
    high, low = maps()
    found, params = with_params(kind, high, low)
    up = resize.bilinear(high, low.shape[1:3], align_corners=True)
    expected = jax.lax.conv_general_dilated(
        up, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    strength = 0.5 if kind == "dcn_v2" else 1.0  # a sigmoid of 0
    np.testing.assert_allclose(found, strength * expected, atol=1e-5)


def test_deformable_taps_move_by_their_offsets_in_fine_pixels():
    high, low = maps()
    bias = np.tile(np.array([0.0, 1.0], np.float32), 9)  # all one px to the right
    same, params = with_params("dcn_v1", high, low)
    offset = {**params["offset"], "bias": jnp.asarray(bias)}
    moved, _ = with_params("dcn_v1", high, low, offset=offset)
    np.testing.assert_allclose(moved[:, :, :-1], same[:, :, 1:], atol=1e-5)


def test_alignment_without_flow_is_upsampling_and_moves_with_it():
    high, low = maps(size=(4, 5))
    _, params = with_params("flow_alignment", high, low)
    flow = {"kernel": jnp.zeros_like(params["flow"]["kernel"])}
    still, _ = with_params("flow_alignment", high, low, flow=flow)
    up = resize.bilinear(high, low.shape[1:3], align_corners=True)
    np.testing.assert_allclose(still, up, atol=1e-5)
    moved, _ = with_params("flow_alignment", high, low)
    assert abs(moved - up).max() > 0.01


def test_dense_affinity_is_attention_of_every_fine_pixel():
    high, low = maps()
    found, params = with_params("dense_affinity", high, low)
    assert params == {}
    coarse = high.reshape(2, -1, 4)
    share = jax.nn.softmax(low.reshape(2, -1, 4) @ coarse.swapaxes(1, 2), axis=-1)
    expected = low + (share @ coarse).reshape(low.shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)
