"""DANet, dual attention (https://arxiv.org/abs/1809.02983).

At stride 8 every pixel sums the pixels that resemble it, and every channel the channels
unlike it; both results are added and classify.

Differs from the paper, as PFNet's code does (https://arxiv.org/abs/2103.06564): both
branches end in 512 channels, one classifier reads their sum and no other has a loss.

Attention of 896 px images (12 544 places) goes through 128 queries at a time: 6.4 MB
instead of 630 MB per image.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.networks import decoded, network
from uhrjax.nn import conv, correlation, decoder

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    *decoder.TORCH_NAMES,
    *network.conv_norm_names(r"da_head\.conv5a", "enter_position"),
    *network.conv_norm_names(r"da_head\.conv5c", "enter_channel"),
    (r"^da_head\.sa\.(query|key|value)_conv\.", r"position.\1."),
    (r"^da_head\.sa\.", "position."),
    (r"^da_head\.sc\.", "channel."),
    *network.conv_norm_names(r"da_head\.conv51", "leave_position"),
    *network.conv_norm_names(r"da_head\.conv52", "leave_channel"),
    (r"^da_head\.conv6\.1\.", "end_position."),
    (r"^da_head\.conv7\.1\.", "end_channel."),
    (r"^final\.", "classify."),
)


class PositionAttention(nn.Module):
    """Adds to every pixel what it resembles (Sec. 3.2)."""

    gamma_init: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        channels = x.shape[-1]
        widths = {"query": max(channels // 8, 1), "key": max(channels // 8, 1)}
        tokens = []
        for name in ("query", "key", "value"):
            layer = conv.Conv(
                features=widths.get(name, channels),
                bias=True,
                dtype=self.dtype,
                name=name,
            )
            y = layer(x)
            tokens.append(y.reshape(y.shape[0], -1, y.shape[-1]))
        gamma = self.param("gamma", nn.initializers.constant(self.gamma_init), (1,))
        summed = gamma * correlation.attend(*tokens).reshape(x.shape)
        return (x + summed).astype(self.dtype)


class ChannelAttention(nn.Module):
    """Adds to every channel the channels that it resembles least (Sec. 3.3)."""

    gamma_init: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, h, w, C] to the same shape."""
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        gram = jnp.einsum("bpc,bpd->bcd", flat, flat, precision=highest)
        unlike = jnp.max(gram, axis=-1, keepdims=True) - gram
        share = nn.softmax(unlike, axis=-1)
        summed = jnp.einsum("bcd,bpd->bpc", share, flat, precision=highest)
        gamma = self.param("gamma", nn.initializers.constant(self.gamma_init), (1,))
        return (x + gamma * summed.reshape(x.shape)).astype(self.dtype)


class DANet(decoded.Decoded):
    """Image -> logits."""

    gamma_init: float = 0.0  # of both attentions: none until training wants it

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8 or, with a
        decoder, 4."""
        maps = self.features(images, train)
        x = 0.0
        for name, kind in (
            ("position", PositionAttention),
            ("channel", ChannelAttention),
        ):
            attention = kind(self.gamma_init, self.dtype, name=name)
            entering = self.convolve(f"enter_{name}", self.fpn_dim, 3)
            leaving = self.convolve(f"leave_{name}", self.fpn_dim, 3)
            y = attention(entering(maps[-1], train=train))
            y = self.drop(leaving(y, train=train), train)
            x += conv.Conv(
                features=self.fpn_dim, bias=True, dtype=self.dtype, name=f"end_{name}"
            )(y)
        return self.decode(x, maps, images, train)


class DANetMethod(decoded.DecodedMethod):
    """DANet with a cross-entropy of its heads."""

    module_class = DANet
    torch_names = TORCH_NAMES

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        return (("/gamma$", f"constant {self.module.gamma_init}"),)
