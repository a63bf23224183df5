"""HRNetV2 with a small head, Foveation's network on Cityscapes and Gleason2019.

Four branches of different resolution (https://arxiv.org/abs/1908.07919) are upsampled
to the finest, a quarter of the image, and joined; a 3x3 and a 1x1 convolution classify.

Differs from HRNetV2's paper, as Foveation's code does (https://arxiv.org/abs/2007.15124):
- the head "C1" has a 3x3 convolution to a quarter of the channels, not a 1x1 to all;
- the loss is taken at a quarter of the image's size, with labels reduced to it.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.backbones import hrnet
from uhrjax.methods import base
from uhrjax.networks import hrnet_trunk
from uhrjax.nn import conv
from uhrjax.ops import resize

TORCH_NAMES = (
    (rf"^(encoder\.)?{hrnet.TRUNK}", r"backbone.\2."),
    (r"^decoder\.", ""),
    (r"^cbr\.0\.", "head.hidden.conv."),
    (r"^cbr\.1\.", "head.hidden.norm."),
    (r"^conv_last\.", "head.classify."),
)


class HRNetC1(nn.Module):
    """Image -> logits at a quarter of the image's size, and at all of it."""

    num_classes: int
    size: str = "w48"  # a key of hrnet.SIZES
    width: int = 0  # channels of the finest branch; 0: as the size says
    stem_width: int = 64
    stem_stride: int = 2  # 1: everything at full resolution
    align_corners: bool = False  # where branches are upsampled
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "coarse", [B, H / 4, W / 4, num_classes] float32, and
        "logits", the same at the size of the images."""
        features = hrnet.HRNet(
            size=self.size,
            width=self.width,
            stem_width=self.stem_width,
            stem_stride=self.stem_stride,
            align_corners=self.align_corners,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )(images, train=train)
        coarse = C1Head(num_classes=self.num_classes, dtype=self.dtype, name="head")(
            features, train=train
        )
        full = resize.bilinear(coarse, images.shape[1:3], align_corners=False)
        return {"coarse": coarse, "logits": full}


class C1Head(nn.Module):
    """3x3 convolution to a quarter of the channels, 1x1 convolution to the classes."""

    num_classes: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, num_classes] float32."""
        x = conv.ConvNorm(
            features=max(x.shape[-1] // 4, 1),
            kernel=3,
            dtype=self.dtype,
            name="hidden",
            **conv.ORIGINAL_START,
        )(x, train=train)
        # In float32: the result goes into a softmax.
        return conv.Conv(
            features=self.num_classes,
            bias=True,
            kernel_init=conv.he_in_init,
            name="classify",
        )(x)


class HRNetMethod(hrnet_trunk.HRNetTrunk):
    """HRNetV2 + C1 with a cross-entropy at the size of its logits."""

    module_class = HRNetC1
    loss_class = losses.PlainLoss
    torch_names = TORCH_NAMES
    initial_rules = (
        ("/head/.*kernel$", "he_in"),
        ("/head/hidden/norm/bias$", f"constant {conv.SHIFT}"),
    )
    multiple = 4  # what the coarse logits and the reduced label have in common

    @property
    def label_stride(self) -> int:
        """Returns image px per px of the label that the loss reads."""
        return self.module.stem_stride**2

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total" and "seg"; the label may be reduced by 4 already."""
        part = losses.coarse_loss(self.loss_rule, outputs["coarse"], batch["label"])
        return {"total": part, "seg": part}
