"""DeepLabV3+ (https://arxiv.org/abs/1802.02611).

DeepLabV3's features are upsampled to stride 4 and joined with 48 channels of C2; two
3x3 convolutions refine them before they classify.

Differs from the paper: the backbone is a dilated ResNet, not Xception; the rates are
those for stride 8 (6, 12, 18 belong to stride 16); convolutions are whole instead of
separable; deep stem and aligned corners as in PFNet's code. PointRend's case checks all
of it but the norms and ReLUs of the two 1x1 convolutions.
"""

import flax.linen as nn
import jax

from uhrjax.backbones import resnet
from uhrjax.networks import network
from uhrjax.nn import deeplab


class DeepLabV3Plus(network.Network):
    """Image -> logits."""

    fpn_dim: int = 256
    dropout: float = 0.0
    skip_dim: int = 48  # channels of C2 that are joined
    rates: tuple[int, ...] = (12, 24, 36)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 4."""
        maps = self.features(images, train)
        x = deeplab.V3PlusHead(
            features=self.fpn_dim,
            skip_features=self.skip_dim,
            rates=self.rates,
            align_corners=self.align_corners,
            dtype=self.dtype,
            name="head",
        )(maps, train=train)
        coarse = self.classify(self.drop(x, train))
        return self.outputs(coarse, maps, images, train)


class DeepLabV3PlusMethod(network.NetworkMethod):
    """DeepLabV3+ with a cross-entropy of its heads."""

    module_class = DeepLabV3Plus
    torch_names = resnet.TORCH_NAMES
