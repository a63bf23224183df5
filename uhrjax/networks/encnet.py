"""EncNet, context encoding (https://arxiv.org/abs/1803.08904).

At stride 8 the whole image is described by what remains of its features beside 32 code
words; that says which channels matter for it, and they are strengthened.

Differs from the paper, as PFNet's code does (https://arxiv.org/abs/2103.06564):
- the scale of a code word is squared in the assignment, so the farthest word wins;
  `nearest=True` is the paper's;
- no loss of which classes occur; `presence=True` adds the paper's, weight 0.2.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv
from uhrjax.ops import resize

_MODULE = r"encoding\.encmodule"
TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    *network.conv_norm_names(rf"{_MODULE}\.encoding", "enter_words"),
    (rf"^{_MODULE}\.encoding\.3\.codewords$", "words.codewords"),
    (rf"^{_MODULE}\.encoding\.3\.scale$", "words.factor"),
    (rf"^{_MODULE}\.encoding\.4\.", "words.norm."),
    (rf"^{_MODULE}\.fc\.0\.", "gate."),
    (rf"^{_MODULE}\.selayer\.", "presence_head."),
    *network.conv_norm_names(r"encoding\.conv5", "enter"),
    *network.conv_norm_names(r"encoding\.connect\.0", "connect_c3"),
    *network.conv_norm_names(r"encoding\.connect\.1", "connect_c4"),
    *network.conv_norm_names(r"encoding\.fusion", "fuse"),
    (r"^encoding\.conv6\.1\.", "classify."),
)


class Encoding(nn.Module):
    """Describes an image by residuals to code words (Sec. 3.1)."""

    words: int = 32
    nearest: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to [B, C] float32."""
        channels = z.shape[-1]
        bound = 1 / math.sqrt(self.words * channels)
        words = self.param("codewords", _uniform(-bound, bound), (channels, self.words))
        factor = self.param("factor", _uniform(-1.0, 0.0), (self.words,))
        flat = z.reshape(z.shape[0], -1, channels).astype(jnp.float32)
        highest = jax.lax.Precision.HIGHEST
        distance = (
            jnp.sum(flat**2, axis=-1, keepdims=True)
            - 2 * jnp.einsum("bpc,ck->bpk", flat, words, precision=highest)
            + jnp.sum(words**2, axis=0)
        )
        scale = factor if self.nearest else factor**2
        share = nn.softmax(scale * distance, axis=-1)
        residuals = jnp.einsum("bpk,bpc->bkc", share, flat, precision=highest)
        residuals -= jnp.sum(share, axis=1)[..., None] * words.T
        norm = conv.batch_norm(train=train, dtype=jnp.float32, name="norm")
        # A code word is what a channel is elsewhere.
        normed = norm(residuals.swapaxes(1, 2))  # [B, C, words]
        return jnp.mean(nn.relu(normed), axis=-1)


class EncNet(network.Network):
    """Image -> logits."""

    words: int = 32
    nearest: bool = False  # the paper's assignment, see above
    presence: bool = False  # also say which classes occur

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8; with `presence`
        also "presence" [B, num_classes] float32 logits."""
        maps = self.features(images, train)
        parts = [self.convolve("enter", self.fpn_dim, 3)(maps[3], train=train)]
        for name, x in (("connect_c3", maps[1]), ("connect_c4", maps[2])):
            x = self.convolve(name, self.fpn_dim)(x, train=train)
            size = parts[0].shape[1:3]
            parts.append(resize.bilinear(x, size, align_corners=self.align_corners))
        x = jnp.concatenate(parts, axis=-1)
        x = self.convolve("fuse", self.fpn_dim, 3)(x, train=train)
        z = self.convolve("enter_words", self.fpn_dim)(x, train=train)
        words = Encoding(self.words, self.nearest, name="words")(z, train=train)
        words = words[:, None, None]  # [B, 1, 1, C]
        gate = conv.Conv(features=self.fpn_dim, bias=True, name="gate")(words)
        x = nn.relu(x + x * nn.sigmoid(gate).astype(x.dtype))
        found = self.outputs(self.classify(self.drop(x, train)), maps, images, train)
        if self.presence:
            head = conv.Conv(features=self.num_classes, bias=True, name="presence_head")
            found["presence"] = head(words)[:, 0, 0]
        return found


@dataclasses.dataclass(frozen=True)
class EncNetLoss(network.NetworkLoss):
    """Cross-entropy of the heads, and of which classes occur."""

    presence_weight: float = 0.2  # Sec. 4.1


class EncNetMethod(network.NetworkMethod):
    """EncNet with its losses."""

    module_class = EncNet
    loss_class = EncNetLoss
    torch_names = TORCH_NAMES

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        bound = 1 / math.sqrt(self.module.words * self.module.fpn_dim)
        return (
            ("/codewords$", f"uniform {-bound} {bound}"),
            ("/factor$", "uniform -1 0"),
        )

    def further_losses(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the loss of which classes occur, if they are predicted."""
        if "presence" not in outputs:
            return {}
        logits = outputs["presence"]
        label = jnp.asarray(batch["label"]).astype(jnp.int32)
        occurs = jnp.any(label[..., None] == jnp.arange(self.num_classes), axis=(1, 2))
        pixel_loss = nn.softplus(jnp.where(occurs, -logits, logits))
        return {"presence": self.loss_rule.presence_weight * jnp.mean(pixel_loss)}

    def _check_model(self) -> None:
        super()._check_model()
        base.check_range("config.model.words", self.module.words, low=1)


def _uniform(low: float, high: float):
    """Returns an initialiser of numbers between two."""

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, low, high)

    return draw
