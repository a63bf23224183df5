"""The FCN-8s head: sizes, fixed upsampling, dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.backbones import vgg
from uhrjax.nn import fcn8

TAPS_4 = np.array([1, 3, 3, 1]) / 4
TAPS_16 = np.array([*range(1, 16, 2), *range(15, 0, -2)]) / 16


@pytest.mark.parametrize(("taps", "stride"), [(TAPS_4, 2), (TAPS_16, 8)])
def test_upsampling_is_a_transposed_convolution_with_the_bilinear_kernel(taps, stride):
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 4))
    side = len(taps)
    expected = np.zeros((2, 2 * stride + side, 4 * stride + side, 4))
    kernel = np.outer(taps, taps)[:, :, None]
    for i in range(3):
        for j in range(5):
            rows = slice(i * stride, i * stride + side)
            columns = slice(j * stride, j * stride + side)
            expected[:, rows, columns] += x[:, i, j][:, None, None] * kernel
    x = jnp.asarray(x, jnp.float32)
    full = fcn8.upsample(x, kernel=side, stride=stride)
    np.testing.assert_allclose(full, expected, atol=1e-5)
    part = fcn8.upsample(x, kernel=side, stride=stride, offset=2, size=(4, 3))
    np.testing.assert_allclose(part, expected[:, 2:6, 2:5], atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (64, 50), (508, 508)])
def test_logits_have_the_images_size_whatever_it_is(size):
    net, head = vgg.VGG16(width=1), fcn8.FCN8Head(num_classes=3, fc_features=2)

    def run(images):
        maps, _ = net.init_with_output(jax.random.key(0), images)
        return head.init_with_output(jax.random.key(0), maps, size, train=False)

    logits, variables = jax.eval_shape(run, jnp.zeros((2, *size, 3)))
    assert logits.shape == (2, *size, 3) and logits.dtype == jnp.float32
    assert set(variables["params"]) == {
        "fc6",
        "fc7",
        "score",
        "score_pool4",
        "score_pool3",
    }


def test_features_are_dropped_in_training_only():
    head = fcn8.FCN8Head(num_classes=3, fc_features=64, dropout=0.5)
    rng = np.random.default_rng(0)
    maps = [
        jnp.asarray(rng.random((1, s, s, c)), jnp.float32)
        for s, c in ((33, 4), (17, 4), (9, 4))
    ]
    variables = head.init(jax.random.key(0), maps, (60, 60), train=False)

    def run(train, seed):
        rngs = {"dropout": jax.random.key(seed)}
        return head.apply(variables, maps, (60, 60), train=train, rngs=rngs)

    np.testing.assert_array_equal(run(False, 0), run(False, 1))
    assert (run(True, 0) != run(True, 1)).any()
    np.testing.assert_array_equal(run(True, 1), run(True, 1))
