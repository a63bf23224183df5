"""PSPNet (https://arxiv.org/abs/1612.01105).

A dilated residual network's last map is joined with its averages over 1, 2, 3 and 6
regions per side; a 3x3 and a 1x1 convolution classify at stride 8.

Differs from the paper, as PFNet's code does (https://arxiv.org/abs/2103.06564):
- the pyramid's branches have no ReLU and end in a 1x1 convolution to 512 channels, a
  3x3 one to 256 follows; the last convolution has no bias;
- the second head on C4, whose loss counts 0.4, is there only with `auxiliary=True`.
"""

import flax.linen as nn
import jax

from uhrjax.backbones import resnet
from uhrjax.networks import network
from uhrjax.nn import ppm

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    (r"^ppm\.stages\.(\d)\.1\.", r"ppm.branch_\1.conv."),
    (r"^ppm\.stages\.(\d)\.2\.", r"ppm.branch_\1.norm."),
    *network.conv_norm_names(r"ppm\.bottleneck", "ppm.fuse"),
    *network.conv_norm_names("final", "fuse"),
    (r"^final\.3\.", "classify."),
)


class PSPNet(network.Network):
    """Image -> logits."""

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8."""
        maps = self.features(images, train)
        x = ppm.PyramidPooling(
            features=self.fpn_dim, dropout=self.dropout, dtype=self.dtype, name="ppm"
        )(maps[-1], train=train)
        x = self.convolve("fuse", max(self.fpn_dim // 2, 1), 3)(x, train=train)
        return self.outputs(self.classify(x, bias=False), maps, images, train)


class PSPNetMethod(network.NetworkMethod):
    """PSPNet with a cross-entropy of its heads."""

    module_class = PSPNet
    torch_names = TORCH_NAMES
