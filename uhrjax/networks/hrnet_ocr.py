"""HRNetV2 with object-contextual representations, MagNet's network on Cityscapes.

Four branches of different resolution (https://arxiv.org/abs/1908.07919) are joined at
the finest. An auxiliary head classifies every pixel; its answer says which pixels make
up each class' region, and every pixel attends to the regions that it resembles
(https://arxiv.org/abs/1909.11065). Both heads' logits are averaged in prediction.

Differs from HRNet's paper, as MagNet's code does (https://arxiv.org/abs/2104.03778):
- the stem has no stride: everything runs at the image's own size, which is small;
- maps are resized with aligned corners; statistics of the trunk move by 0.01.
Differs from MagNet's code: kernels of the trunk start by He's rule, not N(0, 0.001).
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import losses, weights
from uhrjax.backbones import hrnet
from uhrjax.methods import base
from uhrjax.networks import hrnet_trunk
from uhrjax.nn import conv, ocr
from uhrjax.ops import resize

TORCH_NAMES = (
    (rf"^{hrnet.TRUNK}", r"backbone.\1."),
    (r"^(aux_head|last_layer)\.0\.", "aux.hidden.conv."),  # last_layer: ImageNet's
    (r"^(aux_head|last_layer)\.1\.", "aux.hidden.norm."),
    (r"^(aux_head|last_layer)\.3\.", "aux.classify."),
    (r"^cls_head\.", "classify."),
    *ocr.TORCH_NAMES,
)


class HRNetOCR(nn.Module):
    """Image -> logits of both heads at the image's size."""

    num_classes: int
    size: str = "w18_small_v2"  # a key of hrnet.SIZES
    width: int = 0  # channels of the finest branch; 0: as the size says
    stem_width: int = 64
    stem_stride: int = 1  # 2: a quarter of the resolution
    features: int = 512  # of pixels and regions
    hidden: int = 256  # of the attention
    dropout: float = 0.05
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "main" and "aux", [B, H, W, num_classes] float32 each,
        "logits", their weighted mean, and the trunk's "features" [B, h, w, C]."""
        trunk = hrnet.HRNet(
            size=self.size,
            width=self.width,
            stem_width=self.stem_width,
            stem_stride=self.stem_stride,
            align_corners=True,
            momentum=0.99,
            remat=self.remat,
            dtype=self.dtype,
            name="backbone",
        )(images, train=train)
        aux = AuxiliaryHead(self.num_classes, self.dtype, name="aux")(
            trunk, train=train
        )
        pixels = conv.ConvNorm(
            features=self.features, kernel=3, bias=True, dtype=self.dtype, name="pixels"
        )(trunk, train=train)
        x = ocr.ObjectContext(
            features=self.features,
            hidden=self.hidden,
            dropout=self.dropout,
            dtype=self.dtype,
            name="ocr",
        )(pixels, ocr.gather_regions(pixels, aux), train=train)
        main = conv.Conv(features=self.num_classes, bias=True, name="classify")(x)
        main, aux = (
            resize.bilinear(logits, images.shape[1:3], align_corners=True)
            for logits in (main, aux)
        )
        mean = losses.mean_logits(main, aux)
        return {"main": main, "aux": aux, "logits": mean, "features": trunk}


class AuxiliaryHead(nn.Module):
    """A 1x1 convolution to as many channels, one to the classes."""

    num_classes: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, num_classes] float32."""
        x = conv.ConvNorm(
            features=x.shape[-1], bias=True, dtype=self.dtype, name="hidden"
        )(x, train=train)
        return conv.Conv(features=self.num_classes, bias=True, name="classify")(x)


class HRNetOCRMethod(hrnet_trunk.HRNetTrunk):
    """HRNetV2 + OCR with a cross-entropy of each head."""

    module_class = HRNetOCR
    loss_class = losses.AuxiliaryLoss
    torch_names = TORCH_NAMES

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", "seg" and "aux"."""
        return self.loss_rule.both(outputs["main"], outputs["aux"], batch["label"])

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights of the whole network.

        Args:
            state_dict: PyTorch name -> array, also as MagNet's wrapper saves it.
        """
        return super().import_torch(weights.without_wrapper(state_dict))

    def _check_model(self) -> None:
        super()._check_model()
        for name in ("features", "hidden"):
            base.check_range(f"config.model.{name}", getattr(self.module, name), low=1)
