"""PSPNet as MagNet has it on Gleason2019: over ResNet-101, not dilated.

The coarsest backbone map is joined with its averages over 1, 2, 3 and 6 regions per
side (https://arxiv.org/abs/1612.01105), then enlarged in three steps. An auxiliary
convolution classifies the backbone map alone; both logits are averaged in prediction.

Differs from the paper, as MagNet's code does (https://arxiv.org/abs/2104.03778):
- the backbone is not dilated: its stride is 32;
- the branches keep all channels and have no batch norm; three steps of upsampling by 2
  with a 3x3 convolution, batch norm and PReLU of one slope follow the pyramid;
- the auxiliary head is a single convolution on the last stage, not on the one before.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import losses, weights
from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.nn import conv
from uhrjax.ops import pool, resize

SLOPE = 0.25  # of the negative side where a PReLU starts
TORCH_NAMES = (
    (r"^feats\.", "backbone."),
    (r"^psp\.stages\.(\d)\.1\.", r"pyramid.branch_\1."),
    (r"^psp\.bottleneck\.", "pyramid.fuse."),
    (r"^up_(\d)\.conv\.0\.", r"up_\1.conv."),
    (r"^up_(\d)\.conv\.1\.", r"up_\1.norm."),
    (r"^up_(\d)\.conv\.2\.weight$", r"up_\1.slope"),
    (r"^final\.", "classify."),
    (r"^classifier\.", "aux."),
)


class MagNetPSPNet(nn.Module):
    """Image -> logits of both heads at the image's size."""

    num_classes: int
    backbone: str = "resnet101"
    stem: str = "classic"
    dilation: str = "none"
    width: int = 64  # of the backbone
    fpn_dim: int = (
        1024  # behind the pyramid; a quarter, a 16th, a 16th behind the steps
    )
    dropout: float = 0.3  # of whole channels, behind the pyramid; half behind a step
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "main" and "aux", [B, H, W, num_classes] float32 each,
        and "logits", their weighted mean."""

        def dropped(x: jax.Array, share: float) -> jax.Array:
            layer = nn.Dropout(share, broadcast_dims=(1, 2), deterministic=not train)
            return layer(x)

        coarsest = resnet.of_fields(self)(images, train=train)[-1]
        x = Pyramid(self.fpn_dim, self.dtype, name="pyramid")(coarsest)
        x = dropped(x, self.dropout)
        for step, part in enumerate((4, 16, 16), start=1):
            features = max(self.fpn_dim // part, 1)
            x = Doubling(features, self.dtype, name=f"up_{step}")(x, train=train)
            x = dropped(x, self.dropout / 2)
        # The last layers stay in float32: their results go into a softmax.
        answers = {
            name: conv.Conv(features=self.num_classes, bias=True, name=layer)(features)
            for name, layer, features in (
                ("main", "classify", x),
                ("aux", "aux", coarsest),
            )
        }
        answers = {
            name: resize.bilinear(logits, images.shape[1:3], align_corners=False)
            for name, logits in answers.items()
        }
        return {**answers, "logits": losses.mean_logits(**answers)}


class Pyramid(nn.Module):
    """Joins a map with its averages over whole regions; no norms."""

    features: int
    dtype: Dtype = jnp.float32
    bins: tuple[int, ...] = (1, 2, 3, 6)  # regions per side

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to [B, h, w, features]."""
        parts = []
        for index, size in enumerate(self.bins):
            branch = pool.adaptive_average(x, (size, size))
            branch = conv.Conv(
                features=x.shape[-1], dtype=self.dtype, name=f"branch_{index}"
            )(branch)
            parts.append(resize.bilinear(branch, x.shape[1:3], align_corners=False))
        joined = jnp.concatenate([*parts, x.astype(self.dtype)], axis=-1)
        fuse = conv.Conv(
            features=self.features, bias=True, dtype=self.dtype, name="fuse"
        )
        return nn.relu(fuse(joined))


class Doubling(nn.Module):
    """Upsampling by 2, a 3x3 convolution, batch norm, PReLU of one slope."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, 2 h, 2 w, features]."""
        size = (2 * x.shape[1], 2 * x.shape[2])
        x = conv.Conv(
            features=self.features, kernel=3, bias=True, dtype=self.dtype, name="conv"
        )(resize.bilinear(x, size, align_corners=False))
        x = conv.batch_norm(train=train, dtype=self.dtype, name="norm")(x)
        slope = self.param("slope", nn.initializers.constant(SLOPE), (1,), jnp.float32)
        return jnp.where(x >= 0, x, slope.astype(x.dtype) * x)


class MagNetPSPNetMethod(base.Method):
    """PSPNet with a cross-entropy of each head."""

    module_class = MagNetPSPNet
    loss_class = losses.AuxiliaryLoss
    torch_names = TORCH_NAMES
    initial_rules = (("/slope$", f"constant {SLOPE}"),)

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
