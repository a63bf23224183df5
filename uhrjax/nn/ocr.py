"""Object-contextual representations (https://arxiv.org/abs/1909.11065)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv

# Names in published files -> names below `ocr` and beside it.
TORCH_NAMES = (
    (r"^conv3x3_ocr\.0\.", "pixels.conv."),
    (r"^conv3x3_ocr\.1\.", "pixels.norm."),
    (r"^ocr_distri_head\.object_context_block\.f_pixel\.0\.", "ocr.query_0.conv."),
    (r"^ocr_distri_head\.object_context_block\.f_pixel\.1\.0\.", "ocr.query_0.norm."),
    (r"^ocr_distri_head\.object_context_block\.f_pixel\.2\.", "ocr.query_1.conv."),
    (r"^ocr_distri_head\.object_context_block\.f_pixel\.3\.0\.", "ocr.query_1.norm."),
    (r"^ocr_distri_head\.object_context_block\.f_object\.0\.", "ocr.key_0.conv."),
    (r"^ocr_distri_head\.object_context_block\.f_object\.1\.0\.", "ocr.key_0.norm."),
    (r"^ocr_distri_head\.object_context_block\.f_object\.2\.", "ocr.key_1.conv."),
    (r"^ocr_distri_head\.object_context_block\.f_object\.3\.0\.", "ocr.key_1.norm."),
    (r"^ocr_distri_head\.object_context_block\.f_down\.0\.", "ocr.value.conv."),
    (r"^ocr_distri_head\.object_context_block\.f_down\.1\.0\.", "ocr.value.norm."),
    (r"^ocr_distri_head\.object_context_block\.f_up\.0\.", "ocr.context.conv."),
    (r"^ocr_distri_head\.object_context_block\.f_up\.1\.0\.", "ocr.context.norm."),
    (r"^ocr_distri_head\.conv_bn_dropout\.0\.", "ocr.fuse.conv."),
    (r"^ocr_distri_head\.conv_bn_dropout\.1\.0\.", "ocr.fuse.norm."),
)


def gather_regions(features: jax.Array, scores: jax.Array) -> jax.Array:
    """Describes every class by the mean of the pixels that look like it.

    Args:
        features: [B, h, w, C].
        scores: [B, h, w, K], logits; their softmax over all pixels is the weight.

    Returns:
        [B, K, C] float32.
    """
    batch, _, _, classes = scores.shape
    weight = jax.nn.softmax(scores.astype(jnp.float32).reshape(batch, -1, classes), 1)
    flat = features.astype(jnp.float32).reshape(batch, -1, features.shape[-1])
    return jnp.einsum("bpk,bpc->bkc", weight, flat)


class ObjectContext(nn.Module):
    """Adds to every pixel the regions it resembles."""

    features: int = 512  # of the result
    hidden: int = 256  # of the attention
    dropout: float = 0.05  # share of whole channels dropped in training
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, regions: jax.Array, *, train: bool) -> jax.Array:
        """Maps pixels [B, h, w, C] and regions [B, K, C] to [B, h, w, features]."""

        def layer(name: str, features: int, x: jax.Array) -> jax.Array:
            made = conv.ConvNorm(features=features, dtype=self.dtype, name=name)
            return made(x, train=train)

        objects = regions[:, :, None]  # [B, K, 1, C]
        query = layer("query_1", self.hidden, layer("query_0", self.hidden, x))
        key = layer("key_1", self.hidden, layer("key_0", self.hidden, objects))
        value = layer("value", self.hidden, objects)
        likeness = jnp.einsum("bhwc,bkc->bhwk", query, key[:, :, 0])
        share = jax.nn.softmax(
            likeness.astype(jnp.float32) / math.sqrt(self.hidden), axis=-1
        )
        context = jnp.einsum("bhwk,bkc->bhwc", share.astype(self.dtype), value[:, :, 0])
        context = layer("context", self.features, context)
        joined = jnp.concatenate([context, x.astype(self.dtype)], axis=-1)
        fused = layer("fuse", self.features, joined)
        drop = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)
        return drop(fused)
