"""DenseASPP (https://doi.org/10.1109/CVPR.2018.00388).

Dilated convolutions of rates 3, 6, 12, 18 and 24 follow each other; each reads the
backbone's map and all that those before it found, and all of it classifies at stride 8.

Differs from the paper: a dilated ResNet for DenseNet, as in PFNet's tables, and so
norms behind the convolutions. From memory of the architecture; no case checks it.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network


class DenseASPP(network.Network):
    """Image -> logits."""

    fpn_dim: int = 256  # behind the 1x1 convolution of each rate
    growth: int = 64  # channels that each rate adds
    rates: tuple[int, ...] = (3, 6, 12, 18, 24)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8."""
        maps = self.features(images, train)
        x = maps[-1]
        for rate in self.rates:
            y = self.convolve(f"reduce_{rate}", self.fpn_dim)(x, train=train)
            dilated = self.convolve(f"dilate_{rate}", self.growth, 3, dilation=rate)
            y = self.drop(dilated(y, train=train), train)
            x = jnp.concatenate([y, x], axis=-1)
        return self.outputs(self.classify(x), maps, images, train)


class DenseASPPMethod(network.NetworkMethod):
    """DenseASPP with a cross-entropy of its heads."""

    module_class = DenseASPP
    torch_names = resnet.TORCH_NAMES

    def _check_model(self) -> None:
        super()._check_model()
        base.check_range("config.model.growth", self.module.growth, low=1)
