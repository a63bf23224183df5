"""DeepLabV3 (https://arxiv.org/abs/1706.05587).

A dilated residual network's last map is seen at dilations of 12, 24 and 36, at its own
place and as a mean; 256 channels of all that classify at stride 8.

Differs from the paper: the rates are those for stride 8 by default, the deep stem and
aligned corners are PFNet's (https://arxiv.org/abs/2103.06564). PointRend's case checks
all of it but the ReLU behind the projection, the classifier's bias and the decoders'
place, which DANet's and CCNet's cases check.
"""

import flax.linen as nn
import jax

from uhrjax.backbones import resnet
from uhrjax.networks import decoded
from uhrjax.nn import decoder, deeplab

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    *decoder.TORCH_NAMES,
    *deeplab.V3_NAMES,
    (r"^final\.", "classify."),
)


class DeepLabV3(decoded.Decoded):
    """Image -> logits."""

    fpn_dim: int = 256
    dropout: float = 0.0
    rates: tuple[int, ...] = (12, 24, 36)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8 or, with a
        decoder, 4."""
        maps = self.features(images, train)
        x = deeplab.V3Head(self.fpn_dim, self.rates, dtype=self.dtype, name="head")(
            maps, train=train
        )
        return self.decode(self.drop(x, train), maps, images, train)


class DeepLabV3Method(decoded.DecodedMethod):
    """DeepLabV3 with a cross-entropy of its heads."""

    module_class = DeepLabV3
    torch_names = TORCH_NAMES
