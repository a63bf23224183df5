"""A fully convolutional residual network (https://arxiv.org/abs/1411.4038), dilated.

The last map of a ResNet dilated to stride 8 is classified behind one 3x3 convolution.
`stem="classic"`, `dilation="os8_late"`, `align_corners=False` and `auxiliary=True` make
it torchvision's `fcn_resnet50`, whose weights it takes.

Differs from the paper: a ResNet for VGG, dilation for skips, as PFNet's tables have it.
From memory of the architecture; no case checks it.
"""

import flax.linen as nn
import jax

from uhrjax.backbones import resnet
from uhrjax.networks import network

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    *network.AUXILIARY_NAMES,
    *network.conv_norm_names("classifier", "hidden"),
    (r"^classifier\.4\.", "classify."),
)


class FCN(network.Network):
    """Image -> logits."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8."""
        maps = self.features(images, train)
        x = self.convolve("hidden", self.fpn_dim, 3)(maps[-1], train=train)
        return self.outputs(self.classify(self.drop(x, train)), maps, images, train)


class FCNMethod(network.NetworkMethod):
    """FCN with a cross-entropy of its heads."""

    module_class = FCN
    torch_names = TORCH_NAMES
