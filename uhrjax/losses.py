"""Losses over the pixels of [B, H, W, K] logits, in float32.

A group is what one device held where a published loss was computed per device: number
of kept pixels and class balance are settled within it, then the groups are averaged.
"""

import dataclasses

import jax
import jax.numpy as jnp

from uhrjax.errors import InputError
from uhrjax.ops import select

IGNORE_LABEL = 255
FOCAL_EPSILON = 1e-7


@dataclasses.dataclass(frozen=True)
class SegmentationLoss:
    """Cross-entropy, by default of the hardest pixels only (OHEM)."""

    seg_weight: float = 1.0
    ohem: bool = True  # hard example mining instead of all valid pixels
    ohem_thresh: float = 0.7  # keep pixels whose true class is at most this probable
    ohem_min_kept: int = 10000  # but at least so many per group
    loss_group: int = 2  # images, see above; 0 = the whole batch
    class_weights: tuple[float, ...] = ()  # factors of a class's pixels; (): 1 each
    weighted_mean: bool = False  # divide by the sum of these factors, as PyTorch does;
    # else by the number of pixels

    def segmentation(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Returns the weighted loss, a float32 scalar.

        Args:
            logits: [B, H, W, K].
            label: [B, H, W] integers, 255 = ignore.
        """
        pixel_loss = cross_entropy(logits, label)
        valid = label != IGNORE_LABEL
        pixel_loss, valid = (
            into_groups(x, group=self.loss_group) for x in (pixel_loss, valid)
        )
        if self.ohem:
            valid &= hard_pixels(
                pixel_loss, threshold=self.ohem_thresh, min_kept=self.ohem_min_kept
            )
        divisor = 1.0
        if self.class_weights:
            weight = of_class(jnp.array(self.class_weights, jnp.float32), label)
            weight = into_groups(weight, group=self.loss_group)
            pixel_loss *= weight
            if self.weighted_mean:
                divisor = jnp.maximum(masked_mean(weight, valid), 1e-30)
        return self.seg_weight * jnp.mean(masked_mean(pixel_loss, valid) / divisor)


@dataclasses.dataclass(frozen=True)
class PlainLoss(SegmentationLoss):
    """Cross-entropy of all valid pixels."""

    ohem: bool = False
    loss_group: int = 0


@dataclasses.dataclass(frozen=True)
class AuxiliaryLoss(PlainLoss):
    """Cross-entropy of a network's two heads; MagNet's weights."""

    weighted_mean: bool = True
    aux_weight: float = 0.4

    def both(
        self, main: jax.Array, aux: jax.Array, label: jax.Array
    ) -> dict[str, jax.Array]:
        """Returns "seg", "aux" and their sum "total"; logits are [B, H, W, K]."""
        parts = {
            "seg": self.segmentation(main, label),
            "aux": self.aux_weight * self.segmentation(aux, label),
        }
        return {"total": parts["seg"] + parts["aux"], **parts}


@dataclasses.dataclass(frozen=True)
class HardPixelLoss:
    """Cross-entropy of the hardest pixels of the whole batch, as MagNet's code mines.

    Other than `SegmentationLoss` it counts valid pixels only, and a pixel must be
    strictly below the threshold: with fewer than `ohem_min_kept` valid ones the easiest
    is left out, unless its true class is improbable.
    """

    ohem_thresh: float = 0.7  # keep pixels whose true class is less probable
    ohem_min_kept: int = 100000  # but at least so many

    def segmentation(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Returns the mean over the pixels that are kept, a float32 scalar.

        Args:
            logits: [B, H, W, K].
            label: [B, H, W] integers, 255 = ignore.
        """
        pixel_loss = cross_entropy(logits, label).reshape(-1)
        valid = (label != IGNORE_LABEL).reshape(-1)
        probability = jnp.exp(-jax.lax.stop_gradient(pixel_loss))
        rank = jnp.minimum(self.ohem_min_kept, jnp.sum(valid, dtype=jnp.int32) - 1)
        kth = select.kth_smallest(jnp.where(valid, probability, jnp.inf), rank + 1)
        easy = probability >= jnp.maximum(kth, self.ohem_thresh)
        return masked_mean(pixel_loss, valid & ~easy)


@dataclasses.dataclass(frozen=True)
class FocalLoss:
    """Cross-entropy that counts the less, the surer a pixel's true class is.

    Probabilities are clipped to [1e-7, 1 - 1e-7]; clipped pixels have no gradient.
    """

    gamma: float = 3.0  # 0 is plain cross-entropy
    ignore: int = -1  # a class that is left out, as 255 always is; -1: none

    def segmentation(self, logits: jax.Array, label: jax.Array) -> jax.Array:
        """Returns the mean over the pixels that count, a float32 scalar.

        Args:
            logits: [B, H, W, K].
            label: [B, H, W] integers, 255 = ignore.
        """
        label = label.astype(jnp.int32)
        is_true = label[..., None] == jnp.arange(logits.shape[-1])
        probability = jax.nn.softmax(logits.astype(jnp.float32), axis=-1)
        probability = jnp.sum(jnp.where(is_true, probability, 0.0), axis=-1)
        probability = jnp.clip(probability, FOCAL_EPSILON, 1 - FOCAL_EPSILON)
        pixel_loss = -((1 - probability) ** self.gamma) * jnp.log(probability)
        counted = (label != IGNORE_LABEL) & (label != self.ignore)
        return masked_mean(pixel_loss.reshape(-1), counted.reshape(-1))


def mean_logits(main: jax.Array, aux: jax.Array) -> jax.Array:
    """Returns what a network's two heads say together, as MagNet weighs them."""
    return (main + 0.4 * aux) / 1.4


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Returns -log softmax of the true class, 0 where ignored; [B, H, W] float32."""
    logits = logits.astype(jnp.float32)
    # A masked sum instead of a gather: its gradient is elementwise, too.
    is_true = label[..., None].astype(jnp.int32) == jnp.arange(logits.shape[-1])
    true_logit = jnp.sum(jnp.where(is_true, logits, 0.0), axis=-1)
    loss = jax.nn.logsumexp(logits, axis=-1) - true_logit
    return jnp.where(label != IGNORE_LABEL, loss, 0.0)


def of_class(values: jax.Array, label: jax.Array) -> jax.Array:
    """Returns values[label] where the label is one of the K values' index, else 0."""
    is_true = label[..., None].astype(jnp.int32) == jnp.arange(len(values))
    return jnp.sum(jnp.where(is_true, values, 0.0), axis=-1)


def reduce_label(label: jax.Array, stride: int) -> jax.Array:
    """Takes the label [B, H, W] at the middle of every stride x stride px."""
    return label[:, stride // 2 :: stride, stride // 2 :: stride]


def coarse_loss(
    rule: SegmentationLoss, logits: jax.Array, label: jax.Array
) -> jax.Array:
    """Returns a rule's loss at the size of coarse logits.

    Args:
        rule: of the loss.
        logits: [B, h, w, K].
        label: [B, r h, r w] integers; r = 1 if it is reduced already.
    """
    stride = label.shape[1] // logits.shape[1]
    return rule.segmentation(logits, reduce_label(label, stride))


def into_groups(x: jax.Array, *, group: int) -> jax.Array:
    """Regroups [B, H, W] into [B / group, group * H * W]; group 0 means all of B.

    A batch smaller than a group is one group.
    """
    batch = x.shape[0]
    size = min(group or batch, batch)
    if batch % size:
        raise InputError(
            f"a batch of {batch} images cannot be divided into loss groups of {size}; "
            "use a batch size that is a multiple of loss_group, or loss_group = 0"
        )
    return x.reshape(batch // size, -1)


def hard_pixels(pixel_loss: jax.Array, *, threshold: float, min_kept: int) -> jax.Array:
    """Returns which pixels hard example mining keeps (before ignored ones are dropped).

    Keeps a pixel whose true class has at most the probability max(threshold, the
    min_kept-th smallest probability of its group). An ignored pixel has loss 0, which
    is probability 1: with fewer than min_kept valid pixels all of them are kept.

    Args:
        pixel_loss: [G, N] float32 cross-entropies, 0 where ignored.
        threshold: probability.
        min_kept: pixels per group.

    Returns:
        [G, N] bool; no gradient flows through the choice.
    """
    probability = jnp.exp(-jax.lax.stop_gradient(pixel_loss))
    kth = select.kth_smallest(probability, min(pixel_loss.shape[1], max(min_kept, 1)))
    # The k-th pixel itself is kept, and so is NaN: a diverged loss must not be 0.
    return ~(probability > jnp.maximum(kth, threshold)[:, None])


def edge_loss(edge_logits: jax.Array, boundary: jax.Array, *, group: int) -> jax.Array:
    """Class-balanced binary cross-entropy of an edge map.

    Within a group a positive pixel weighs the share of negative ones and the reverse;
    the weighted sum is divided by the number of pixels. Without any edge it is 0.

    Args:
        edge_logits: [B, H, W].
        boundary: [B, H, W] 0 or 1.
        group: images per group, 0 = the whole batch.

    Returns:
        A float32 scalar.
    """
    logits = into_groups(edge_logits.astype(jnp.float32), group=group)
    target = into_groups(boundary.astype(jnp.float32), group=group)
    positive = jnp.mean(target, axis=1, keepdims=True)
    weight = target * (1 - positive) + (1 - target) * positive
    # -log sigmoid of the signed logit, stable at both ends.
    pixel_loss = jax.nn.softplus(jnp.where(target > 0, -logits, logits))
    return jnp.mean(weight * pixel_loss)


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean over the last axis of what the mask holds, 0 where it holds nothing."""
    total = jnp.sum(jnp.where(mask, values, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(mask, axis=-1, dtype=jnp.float32), 1.0)
