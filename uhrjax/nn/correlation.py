"""Locality-aware correlation and fusion (Sec. 3.1 of https://arxiv.org/abs/2109.02580).

`methods/fctl.py` says where this follows the published code instead.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import conv

VALUES = ("context", "local")
FUSIONS = ("adaptive", "adaptive_paper", "average", "weighted", "concat")
INITIAL_STD = 0.01  # of every kernel here; biases start at 0
# Names below the attention of published networks -> names below a fusion.
TORCH_NAMES = (
    *(
        (rf"^attention\.(conv_)?(gamma|query|key|value){suffix}(\.|$)",
         rf"attention.stream_{index}.\2\3")
        for index, suffix in enumerate(("", "_1", "_2"))
    ),
    (r"^attention\.(in|out)_1\.", r"attention.\1_0."),
    (r"^attention\.(in|out)_2\.", r"attention.\1_1."),
    (r"^attention\.(in|out)_3\.", r"attention.\1_2."),
)  # fmt: skip
QUERIES = 128  # whose row of the attention map is in memory at a time


class Fused(NamedTuple):
    """What the fusion returns; the last two only if asked for."""

    features: jax.Array  # [B, h, w, C]
    attention: tuple[jax.Array, ...] = ()  # per stream [B, h * w, h_c * w_c] float32
    weights: jax.Array | None = None  # [T, B, h, w, C] float32, sum 1 over T


class Correlation(nn.Module):
    """One stream: every local pixel sums what it resembles in a context."""

    value: str = "context"  # whose features are summed
    gamma_init: float = 0.0  # 0: no context until training wants it
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, context: jax.Array, *, details: bool = False
    ) -> tuple[jax.Array, jax.Array | None]:
        """Correlates a patch with a context.

        Args:
            x: [B, h, w, C], the patch.
            context: [B or 1, h_c, w_c, C]; 1: the same for all.
            details: also return the attention map.

        Returns:
            [B, h, w, C] float32, and [B, h * w, h_c * w_c] float32 or None.
        """
        channels = x.shape[-1]
        query = _conv(self, channels, "query")(x)
        key = _conv(self, channels, "key")(context)
        source = context if self.value == "context" else x
        if self.value == "local" and x.shape[1:] != context.shape[1:]:
            raise ValueError(
                f"value='local' takes contexts of the patch's size {x.shape[1:3]}, not "
                f"{context.shape[1:3]}; use value='context'"
            )
        value = _conv(self, channels, "value", bias=False)(source)
        gamma = self.param("gamma", nn.initializers.constant(self.gamma_init), (1,))
        tokens = [y.reshape(y.shape[0], -1, channels) for y in (query, key, value)]
        summed = attend(*tokens).reshape(x.shape)
        return gamma * summed, attention_map(*tokens[:2]) if details else None


class ContextFusion(nn.Module):
    """Adds to a patch what it finds in its contexts."""

    fusion: str = "adaptive"  # how the streams are weighed, one of FUSIONS
    spatial_only: bool = False  # adaptive_paper: one weight per pixel for all channels
    value: str = "context"
    gamma_init: float = 0.0
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, contexts: Sequence[jax.Array], *, details: bool = False
    ) -> Fused:
        """Fuses a patch with T contexts, one stream each.

        Args:
            x: [B, h, w, C], the patch.
            contexts: T >= 1 maps [B or 1, h_c, w_c, C].
            details: also return attention maps and weights.

        Returns:
            Features of the shape of x. With one context and any fusion but "concat"
            they are x + S, without weights.
        """
        if self.fusion == "concat":
            same = [jnp.broadcast_to(c, x.shape) for c in contexts]
            joined = jnp.concatenate([x, *same], axis=-1)
            return Fused(_conv(self, x.shape[-1], "fuse")(joined))
        found = [
            Correlation(
                value=self.value,
                gamma_init=self.gamma_init,
                dtype=self.dtype,
                name=f"stream_{index}",
            )(x, context, details=details)
            for index, context in enumerate(contexts)
        ]
        streams = jnp.stack([stream for stream, _ in found])  # [T, B, h, w, C]
        weights = self._weights(streams) if len(contexts) > 1 else None
        total = streams[0] if weights is None else jnp.sum(weights * streams, axis=0)
        features = (x.astype(jnp.float32) + total).astype(self.dtype)
        if not details:
            return Fused(features)
        if weights is not None:
            weights = jnp.broadcast_to(weights, streams.shape)
        return Fused(features, tuple(attention for _, attention in found), weights)

    def _weights(self, streams: jax.Array) -> jax.Array:
        """Returns float32 weights that broadcast to the streams [T, B, h, w, C]."""
        count, *_, channels = streams.shape
        if self.fusion == "average":
            return jnp.full((count, 1, 1, 1, 1), 1 / count, jnp.float32)
        if self.fusion == "weighted":
            zeros = nn.initializers.zeros
            scores = self.param("weight", zeros, (count,), jnp.float32)
            return nn.softmax(scores).reshape(count, 1, 1, 1, 1)
        if self.fusion == "adaptive_paper":
            joined = _into_channels(streams)
            squeezed = _conv(self, channels, "squeeze")(joined)
            per_stream = 1 if self.spatial_only else channels
            scores = _conv(self, count * per_stream, "expand")(squeezed)
            return nn.softmax(_into_streams(scores.astype(jnp.float32), count), axis=0)
        entered = [
            _conv(self, channels, f"in_{index}")(stream)
            for index, stream in enumerate(streams)
        ]
        mixed = _conv(self, count * channels, "trans")(
            jnp.concatenate(entered, axis=-1)
        )
        scores = jnp.stack(
            [
                _conv(self, channels, f"out_{index}")(part)
                for index, part in enumerate(_into_streams(mixed, count))
            ]
        )
        # The sigmoid keeps each of three weights within 0.16 and 0.58.
        return nn.softmax(nn.sigmoid(scores.astype(jnp.float32)), axis=0)


def initial_rules(place: str, *, gamma_init: float) -> tuple[tuple[str, str], ...]:
    """Returns the rules of `initial.draw` for a fusion or a stream called `place`."""
    return (
        (f"/{place}/.*kernel$", f"normal {INITIAL_STD}"),
        (f"/{place}/.*bias$", "constant 0"),
        (f"/{place}/(.*/)?gamma$", f"constant {gamma_init}"),
        (f"/{place}/weight$", "constant 0"),
    )


def attend(
    query: jax.Array, key: jax.Array, value: jax.Array, *, queries: int = QUERIES
) -> jax.Array:
    """Sums values by the softmax of unscaled products of query and key.

    Some queries are done at a time, and done again in the backward pass: the whole
    attention map never exists.

    Args:
        query: [B, N, C].
        key: [B or 1, M, C]; 1: the same for all.
        value: [B or 1, M, D].
        queries: how many at a time.

    Returns:
        [B, N, D] float32.
    """
    batch, length, channels = query.shape
    shape = (batch, length, value.shape[-1])
    if value.shape[0] > key.shape[0]:
        key = jnp.broadcast_to(key, (batch, *key.shape[1:]))
    if key.shape[0] < batch:  # one long row of queries instead of copies of the keys
        query = query.reshape(1, batch * length, channels)
        queries *= batch
    count = -(-query.shape[1] // queries)
    if count == 1:
        return _attend(query, key, value).reshape(shape)
    some = -(-query.shape[1] // count)
    padding = count * some - query.shape[1]
    padded = jnp.pad(query, ((0, 0), (0, padding), (0, 0)))
    parts = padded.reshape(query.shape[0], count, some, channels).swapaxes(0, 1)
    step = jax.checkpoint(functools.partial(_attend, key=key, value=value))
    done = jax.lax.map(step, parts).swapaxes(0, 1)
    done = done.reshape(query.shape[0], -1, shape[-1])[:, : query.shape[1]]
    return done.reshape(shape)


def attention_map(query: jax.Array, key: jax.Array) -> jax.Array:
    """Returns [B, N, M] float32, rows sum to 1; arguments as for `attend`."""
    if key.shape[0] < query.shape[0]:
        key = jnp.broadcast_to(key, (query.shape[0], *key.shape[1:]))
    # Unscaled products of many channels make sharp softmaxes: full precision.
    products = jnp.einsum(
        "bic,bjc->bij",
        query,
        key,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return nn.softmax(products, axis=-1)


def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    return jnp.einsum(
        "bij,bjc->bic",
        attention_map(query, key).astype(value.dtype),
        value,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )


def _into_channels(streams: jax.Array) -> jax.Array:
    """[T, B, h, w, C] -> [B, h, w, T * C], stream by stream."""
    return jnp.concatenate(list(streams), axis=-1)


def _into_streams(x: jax.Array, count: int) -> jax.Array:
    """[B, h, w, T * C] -> [T, B, h, w, C]."""
    return jnp.stack(jnp.split(x, count, axis=-1))


def _conv(parent: nn.Module, features: int, name: str, *, bias=True) -> conv.Conv:
    return conv.Conv(
        features=features,
        bias=bias,
        kernel_init=nn.initializers.normal(INITIAL_STD),
        bias_init=nn.initializers.zeros,
        dtype=parent.dtype,
        name=name,
    )
