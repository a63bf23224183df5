"""What the networks of the papers' comparisons share: a residual backbone, one view.

Each file beside this one has a head, and what its loss adds to a cross-entropy. The
fields' defaults are those of PFNet's code (https://arxiv.org/abs/2103.06564, Tables 4
and 5), which trains all of them alike: a deep stem, maps resized with aligned corners.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.nn import conv
from uhrjax.ops import resize

AUXILIARY_NAMES = (  # in torchvision's files
    (r"^aux_classifier\.0\.", "auxiliary_head.hidden.conv."),
    (r"^aux_classifier\.1\.", "auxiliary_head.hidden.norm."),
    (r"^aux_classifier\.4\.", "auxiliary_head.classify."),
)


class Network(nn.Module):
    """The fields of a network, and the two ends of what it computes."""

    num_classes: int
    backbone: str = "resnet50"
    stem: str = "deep"
    dilation: str = "os8"
    width: int = 64  # of the backbone
    fpn_dim: int = 512  # channels of the head
    dropout: float = 0.1  # of whole channels, in the head
    auxiliary: bool = False  # also classify the backbone's map before the last
    align_corners: bool = True  # where logits are upsampled
    remat: bool = False
    dtype: Dtype = jnp.float32

    def features(self, images: jax.Array, train: bool) -> list[jax.Array]:
        """Returns the backbone's maps C2 .. C5, [B, h, w, C] each."""
        return resnet.of_fields(self)(images, train=train)

    def convolve(
        self, name: str, features: int, kernel: int = 1, **more: Any
    ) -> conv.ConvNorm:
        """Returns a convolution with batch norm and ReLU."""
        return conv.ConvNorm(
            features=features, kernel=kernel, dtype=self.dtype, name=name, **more
        )

    def drop(self, x: jax.Array, train: bool) -> jax.Array:
        """Drops whole channels of [B, h, w, C] in training."""
        layer = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        return layer(x)

    def classify(self, x: jax.Array, *, bias: bool = True) -> jax.Array:
        """Maps [B, h, w, C] to logits [B, h, w, num_classes] float32."""
        # In float32: the result goes into a softmax.
        return conv.Conv(features=self.num_classes, bias=bias, name="classify")(x)

    def outputs(
        self, coarse: jax.Array, maps: list[jax.Array], images: jax.Array, train: bool
    ) -> dict[str, Any]:
        """Returns what a network of coarse logits returns.

        Args:
            coarse: [B, h, w, num_classes].
            maps: of the backbone.
            images: [B, H, W, 3].
            train: use and update the statistics of the batch.

        Returns:
            "coarse", the same at the images' size as "logits", the "features" C2 and,
            if asked for, the "auxiliary" logits of that size.
        """
        found = {"coarse": coarse, "logits": self.enlarge(coarse, images)}
        found["features"] = maps[0]
        if self.auxiliary:
            head = AuxiliaryHead(
                self.num_classes, self.dropout, self.dtype, name="auxiliary_head"
            )
            found["auxiliary"] = self.enlarge(head(maps[-2], train=train), images)
        return found

    def enlarge(self, coarse: jax.Array, images: jax.Array) -> jax.Array:
        """Resizes logits to the size of the images."""
        size = images.shape[1:3]
        return resize.bilinear(coarse, size, align_corners=self.align_corners)


class AuxiliaryHead(nn.Module):
    """PSPNet's second head (https://arxiv.org/abs/1612.01105, Sec. 3.3)."""

    num_classes: int
    dropout: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, num_classes] float32."""
        features = max(x.shape[-1] // 4, 1)
        x = conv.ConvNorm(features=features, kernel=3, dtype=self.dtype, name="hidden")(
            x, train=train
        )
        drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        return conv.Conv(features=self.num_classes, bias=True, name="classify")(drop(x))


@dataclasses.dataclass(frozen=True)
class NetworkLoss(losses.SegmentationLoss):
    """Cross-entropy of a network's heads."""

    aux_weight: float = 0.4  # of a second head


class NetworkMethod(base.Method):
    """A network that labels one view, with a cross-entropy of each of its heads."""

    loss_class = NetworkLoss

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", "seg" and, of a network that has a second head, "aux"."""
        rule, label = self.loss_rule, batch["label"]
        parts = {"seg": rule.segmentation(outputs["logits"], label)}
        if "auxiliary" in outputs:
            auxiliary = rule.segmentation(outputs["auxiliary"], label)
            parts["aux"] = rule.aux_weight * auxiliary
        parts |= self.further_losses(outputs, batch)
        return {"total": sum(parts.values()), **parts}

    def further_losses(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns name -> loss, with its weight, of what a network trains beside."""
        return {}


def conv_norm_names(theirs: str, ours: str, *, parts: str = "01"):
    """Returns the names of a convolution and its norm within a torch sequence.

    Args:
        theirs: pattern of the sequence's name.
        ours: name of the `ConvNorm`.
        parts: number of the convolution and of the norm in the sequence.
    """
    return (
        (rf"^{theirs}\.{parts[0]}\.", f"{ours}.conv."),
        (rf"^{theirs}\.{parts[1]}\.", f"{ours}.norm."),
    )
