"""CCNet, criss-cross attention (https://arxiv.org/abs/1811.11721).

At stride 8 every pixel sums what it resembles in its row and its column; done twice,
with the same weights, it hears of the whole image.

Differs from the paper, as PFNet's code does (https://arxiv.org/abs/2103.06564): the
layer that joins the backbone's map and the attended one has no ReLU; a second head on
C4 is there only with `auxiliary=True`.

Attention of 896 px images, 12 544 places and 224 others each, takes 11 MB per image.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import decoded, network
from uhrjax.nn import conv, decoder

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    *decoder.TORCH_NAMES,
    *network.conv_norm_names(r"head\.rcca\.conva", "enter"),
    (r"^head\.rcca\.cca\.(query|key|value)_conv\.", r"attention.\1."),
    (r"^head\.rcca\.cca\.", "attention."),
    *network.conv_norm_names(r"head\.rcca\.convb", "leave"),
    *network.conv_norm_names(r"head\.rcca\.bottleneck", "join"),
    (r"^head\.out\.", "classify."),
)


class CrissCross(nn.Module):
    """Adds to every pixel what it resembles in its row and its column (Sec. 3.2)."""

    gamma_init: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        height, channels = x.shape[1], x.shape[-1]
        query, key, value = (
            conv.Conv(features=features, bias=True, dtype=self.dtype, name=name)(x)
            for name, features in (
                ("query", max(channels // 8, 1)),
                ("key", max(channels // 8, 1)),
                ("value", channels),
            )
        )
        full = {
            "precision": jax.lax.Precision.HIGHEST,
            "preferred_element_type": jnp.float32,
        }
        column = jnp.einsum("bhwc,bgwc->bhwg", query, key, **full)
        itself = jnp.eye(height, dtype=bool)[:, None, :]  # is of the row already
        column = jnp.where(itself, -jnp.inf, column)
        row = jnp.einsum("bhwc,bhvc->bhwv", query, key, **full)
        share = nn.softmax(jnp.concatenate([column, row], axis=-1), axis=-1)
        share = share.astype(value.dtype)
        summed = jnp.einsum("bhwg,bgwc->bhwc", share[..., :height], value, **full)
        summed += jnp.einsum("bhwv,bhvc->bhwc", share[..., height:], value, **full)
        gamma = self.param("gamma", nn.initializers.constant(self.gamma_init), (1,))
        return (x + gamma * summed).astype(self.dtype)


class CCNet(decoded.Decoded):
    """Image -> logits."""

    recurrence: int = 2  # times that the attention is applied
    gamma_init: float = 0.0  # of the attention: none until training wants it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8 or, with a
        decoder, 4."""
        maps = self.features(images, train)
        x = self.convolve("enter", self.fpn_dim, 3)(maps[-1], train=train)
        attention = CrissCross(self.gamma_init, self.dtype, name="attention")
        for _ in range(self.recurrence):
            x = attention(x)
        x = self.convolve("leave", self.fpn_dim, 3)(x, train=train)
        x = jnp.concatenate([maps[-1], x], axis=-1)
        x = self.convolve("join", self.fpn_dim, 3, relu=False)(x, train=train)
        return self.decode(self.drop(x, train), maps, images, train)


class CCNetMethod(decoded.DecodedMethod):
    """CCNet with a cross-entropy of its heads."""

    module_class = CCNet
    torch_names = TORCH_NAMES

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        return (("/gamma$", f"constant {self.module.gamma_init}"),)

    def _check_model(self) -> None:
        super()._check_model()
        recurrence = self.module.recurrence
        base.check_range("config.model.recurrence", recurrence, low=1)
