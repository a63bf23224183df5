"""Pixel losses against direct numpy restatements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import losses
from uhrjax.errors import InputError


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 5, 6, 3)).astype(np.float32) * 2
    label = rng.integers(0, 3, (4, 5, 6)).astype(np.uint8)
    label[rng.random(label.shape) < 0.2] = 255
    return jnp.asarray(logits), jnp.asarray(label)


def mined(logits, label, *, threshold, min_kept):
    """Mean cross-entropy of the kept pixels of one group, by sorting."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    valid = label != 255
    true = np.take_along_axis(p, np.where(valid, label, 0)[..., None], -1)[..., 0]
    true = np.where(valid, true, 1)
    limit = max(threshold, np.sort(true.ravel())[min(min_kept, true.size) - 1])
    kept = valid & (true <= limit)
    return -np.log(true[kept]).mean()


@pytest.mark.parametrize("group", [0, 1, 2, 4])
@pytest.mark.parametrize("min_kept", [1, 20, 1000])
def test_mining_is_settled_within_each_group(sample, group, min_kept):
    logits, label = sample
    rule = losses.SegmentationLoss(
        ohem_thresh=0.3, ohem_min_kept=min_kept, loss_group=group, seg_weight=2.0
    )
    parts = np.split(np.arange(4), 4 // (group or 4))
    expected = np.mean(
        [
            mined(
                np.array(logits[part], np.float64),
                np.array(label[part]),
                threshold=0.3,
                min_kept=min_kept,
            )
            for part in parts
        ]
    )
    np.testing.assert_allclose(
        rule.segmentation(logits, label), 2 * expected, rtol=1e-5
    )


@pytest.mark.parametrize("ohem", [True, False])
def test_nothing_valid_gives_zero_loss_and_zero_gradient(sample, ohem):
    logits, label = sample
    rule = losses.SegmentationLoss(ohem=ohem)
    value, gradient = jax.value_and_grad(rule.segmentation)(
        logits, jnp.full_like(label, 255)
    )
    assert value == 0 and not gradient.any()


def test_gradient_is_that_of_the_kept_pixels_only(sample):
    logits, label = sample
    rule = losses.SegmentationLoss(ohem_thresh=0.2, ohem_min_kept=5, loss_group=0)
    gradient = jax.grad(rule.segmentation)(logits, label)
    pixel_loss = losses.cross_entropy(logits, label)
    kept = losses.hard_pixels(pixel_loss.reshape(1, -1), threshold=0.2, min_kept=5)
    kept = kept.reshape(label.shape) & (label != 255)
    one_hot = jax.nn.one_hot(label, 3)
    expected = (jax.nn.softmax(logits) - one_hot) * kept[..., None] / kept.sum()
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_edge_loss_balances_classes_within_each_group():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 4)).astype(np.float32)
    target = (rng.random((2, 4, 4)) < [[[0.2]], [[0.7]]]).astype(np.uint8)

    def group(z, y):
        share = y.mean()
        loss = np.log1p(np.exp(-np.where(y > 0, z, -z)))
        return np.mean(np.where(y > 0, 1 - share, share) * loss)

    singly = np.mean([group(logits[i], target[i]) for i in range(2)])
    np.testing.assert_allclose(
        losses.edge_loss(logits, target, group=1), singly, rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.edge_loss(logits, target, group=2), group(logits, target), rtol=1e-5
    )


def test_edge_loss_without_an_edge_is_zero_and_of_huge_logits_finite():
    assert losses.edge_loss(jnp.ones((1, 4, 4)), jnp.zeros((1, 4, 4)), group=0) == 0
    target = jnp.eye(4)[None]
    assert jnp.isfinite(losses.edge_loss(1e4 * (1 - 2 * target), target, group=0))


def test_loss_of_bfloat16_logits_is_float32(sample):
    logits, label = sample
    value = losses.SegmentationLoss().segmentation(logits.astype(jnp.bfloat16), label)
    assert value.dtype == jnp.float32


def test_a_batch_that_groups_do_not_divide_says_what_to_use(sample):
    logits, label = sample
    rule = losses.SegmentationLoss(loss_group=3)
    with pytest.raises(InputError, match=r"4 images .* groups of 3.*loss_group = 0"):
        rule.segmentation(logits, label)


@pytest.mark.parametrize("ignore", [-1, 1])
def test_focal_loss_leaves_out_255_and_the_class_to_ignore(sample, ignore):
    logits, label = (np.asarray(x) for x in sample)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    counted = (label != 255) & (label != ignore)
    true = np.take_along_axis(p, np.where(counted, label, 0)[..., None], -1)[..., 0]
    expected = (-((1 - true) ** 2) * np.log(true))[counted].mean()
    rule = losses.FocalLoss(gamma=2.0, ignore=ignore)
    np.testing.assert_allclose(rule.segmentation(*sample), expected, rtol=1e-5)


def test_focal_loss_of_gamma_0_is_cross_entropy_and_of_nothing_is_0(sample):
    logits, label = sample
    plain = losses.SegmentationLoss(ohem=False, loss_group=0)
    focal = losses.FocalLoss(gamma=0.0)
    np.testing.assert_allclose(
        focal.segmentation(logits, label), plain.segmentation(logits, label), rtol=1e-5
    )
    nothing = jnp.full_like(label, 255)
    value, gradient = jax.value_and_grad(focal.segmentation)(logits, nothing)
    assert value == 0 and not gradient.any()


@pytest.mark.parametrize("sign", [1, -1])
def test_focal_loss_of_extreme_logits_is_finite_without_gradient(sign):
    logits = sign * 1e4 * jnp.eye(3)[None]
    label = jnp.arange(3)[None]
    value, gradient = jax.value_and_grad(losses.FocalLoss().segmentation)(
        logits[:, None], label[:, None]
    )
    assert jnp.isfinite(value) and not gradient.any()


def test_a_weighted_mean_divides_by_the_weights_of_the_labelled_pixels(sample):
    logits, label = sample
    factors = (0.5, 1.0, 4.0)
    rule = losses.PlainLoss(class_weights=factors, weighted_mean=True)
    pixel_loss = np.asarray(losses.cross_entropy(logits, label))
    weight = np.append(factors, np.zeros(253))[np.asarray(label)]
    expected = (weight * pixel_loss).sum() / weight.sum()
    np.testing.assert_allclose(rule.segmentation(logits, label), expected, rtol=1e-6)
    nothing = jnp.full_like(label, 255)
    assert rule.segmentation(logits, nothing) == 0


def test_two_heads_are_weighed_and_reported_apart(sample):
    logits, label = sample
    found = losses.AuxiliaryLoss().both(logits, -logits, label)
    plain = losses.PlainLoss()
    np.testing.assert_allclose(found["seg"], plain.segmentation(logits, label))
    np.testing.assert_allclose(
        found["aux"], 0.4 * plain.segmentation(-logits, label), rtol=1e-6
    )
    np.testing.assert_allclose(found["total"], found["seg"] + found["aux"])


@pytest.mark.parametrize("min_kept", [1, 20, 10**6])
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_hard_pixels_lie_strictly_below_a_probability_of_the_labelled_ones(
    sample, threshold, min_kept
):
    logits, label = (np.asarray(x) for x in sample)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    valid = label != 255
    true = p[valid][np.arange(valid.sum()), label[valid]]
    limit = max(threshold, np.sort(true)[min(min_kept, true.size - 1)])
    expected = -np.log(true[true < limit]).mean()
    rule = losses.HardPixelLoss(threshold, min_kept)
    np.testing.assert_allclose(rule.segmentation(*sample), expected, rtol=1e-5)
    nothing = jnp.full_like(sample[1], 255)
    assert rule.segmentation(sample[0], nothing) == 0
