"""SFNet, semantic flow (https://arxiv.org/abs/2002.10120).

A feature pyramid with pyramid pooling in which every coarser map is warped onto the
next finer one: both together say where each pixel reads. It is PFNet's baseline
(`upernet`) with flow alignment for upsampling.

Differs from the paper: laterals, dilation and head are those of PFNet's baseline, to be
compared with it. From memory of the architecture; no case checks it.
"""

import functools

import flax.linen as nn
import jax

from uhrjax.backbones import resnet
from uhrjax.networks import network
from uhrjax.nn import decoder, fpn, propagation


class SFNet(network.Network):
    """Image -> logits."""

    dilation: str = "keep_stride"
    fpn_dim: int = 256

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 4."""
        backbone = self.features(images, train)
        maps = fpn.PyramidInput(
            features=self.fpn_dim, dropout=self.dropout, dtype=self.dtype, name="neck"
        )(backbone, train=train)
        flows = {}
        for level in decoder.LEVELS:
            flow = propagation.FlowAlignment(self.dtype, name=f"flow_{level}")
            flows[level] = functools.partial(flow, train=train)
        maps, _ = decoder.top_down(maps, flows)
        coarse = fpn.PyramidOutput(
            num_classes=self.num_classes,
            features=self.fpn_dim,
            dtype=self.dtype,
            name="head",
        )(maps, train=train)
        return self.outputs(coarse, backbone, images, train)


class SFNetMethod(network.NetworkMethod):
    """SFNet with a cross-entropy of its heads."""

    module_class = SFNet
    torch_names = (*resnet.TORCH_NAMES, *fpn.TORCH_NAMES)
