"""ICNet, image cascade (https://arxiv.org/abs/1704.08545).

A heavy network sees the image at a quarter of its size, its first half sees it at half
the size, three light convolutions see all of it. Each answer is upsampled, widened by a
dilated convolution and added to that of the next finer branch.

Differs from the paper: channels are not pruned; the quarter and the half branch share
all weights of the stages they both have. From memory of the architecture (the losses'
weights, 0.16, 0.4 and 1, too); no case checks it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv, ppm
from uhrjax.ops import resize


class CascadeFusion(nn.Module):
    """Joins a coarse map with one of twice its resolution (Sec. 3.2)."""

    features: int
    align_corners: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, coarse: jax.Array, fine: jax.Array, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Maps [B, h, w, C] and [B, H, W, D] to [B, H, W, features]; the upsampled
        coarse map, whose classes are a loss, comes second."""
        size = fine.shape[1:3]
        up = resize.bilinear(coarse, size, align_corners=self.align_corners)
        common = {"features": self.features, "relu": False, "dtype": self.dtype}
        wide = conv.ConvNorm(**common, kernel=3, dilation=2, name="coarse")
        x = wide(up, train=train)
        x += conv.ConvNorm(**common, name="fine")(fine, train=train)
        return nn.relu(x), up


class ICNet(network.Network):
    """Image -> logits."""

    fpn_dim: int = 256  # of the quarter branch; half of it from there on

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 4, and "between",
        the logits of stride 16 and 8."""
        half, quarter = (
            resize.bilinear(
                images,
                tuple(-(-side // part) for side in images.shape[1:3]),
                align_corners=self.align_corners,
            )
            for part in (2, 4)
        )
        trunk = resnet.of_fields(self)
        c3 = trunk(half, train=train, stages=2)[-1]
        maps = trunk(quarter, train=train)
        x = ppm.PyramidPooling(
            features=self.fpn_dim, dropout=self.dropout, dtype=self.dtype, name="ppm"
        )(maps[-1], train=train)
        light = images
        for index in range(3):
            features = max(self.width // 2, 1) if index < 2 else self.width
            layer = self.convolve(f"light_{index}", features, 3, stride=2)
            light = layer(light, train=train)
        between = []
        for name, fine in (("half", c3), ("whole", light)):
            fusion = CascadeFusion(
                max(self.fpn_dim // 2, 1), self.align_corners, self.dtype, name=name
            )
            x, up = fusion(x, fine, train=train)
            classify = conv.Conv(self.num_classes, bias=True, name=f"classify_{name}")
            between.append(classify(up))
        size = tuple(-(-side // 4) for side in images.shape[1:3])
        x = resize.bilinear(x, size, align_corners=self.align_corners)
        found = self.outputs(self.classify(x), maps, images, train)
        return {**found, "between": between}


@dataclasses.dataclass(frozen=True)
class ICNetLoss(network.NetworkLoss):
    """Cross-entropy of three scales."""

    quarter_weight: float = 0.16
    half_weight: float = 0.4


class ICNetMethod(network.NetworkMethod):
    """ICNet with a cross-entropy of its three scales."""

    module_class = ICNet
    loss_class = ICNetLoss
    torch_names = resnet.TORCH_NAMES

    def further_losses(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the losses of the two coarser scales, at the label's size."""
        rule, label = self.loss_rule, batch["label"]
        parts = {}
        for name, logits in zip(("quarter", "half"), outputs["between"], strict=True):
            full = resize.bilinear(
                logits, label.shape[1:3], align_corners=self.module.align_corners
            )
            weight = getattr(rule, f"{name}_weight")
            parts[name] = weight * rule.segmentation(full, label)
        return parts
