"""EMANet, expectation-maximisation attention (https://arxiv.org/abs/1907.13426).

At stride 8 all features are described by 64 bases, found by three rounds of expectation
(which base is a pixel like?) and maximisation (what is the mean of its pixels?), and
rebuilt from them.

Differs from the paper, as PFNet's code does (https://arxiv.org/abs/2103.06564): there
is no second head. `moving_average=False` mirrors another difference: there the bases
stay as random as they were drawn; by default they follow those of the batches.

The rounds have no gradient, so the convolution in front of them never learns: it is
frozen here, as it is in the published code.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import conv

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    (r"^fc0\.conv\.", "enter.conv."),
    (r"^fc0\.bn\.", "enter.norm."),
    (r"^emau\.mu$", "bases.mu"),
    (r"^emau\.conv1\.", "before_bases."),
    *network.conv_norm_names(r"emau\.conv2", "after_bases"),
    (r"^fc1\.0\.conv\.", "leave.conv."),
    (r"^fc1\.0\.bn\.", "leave.norm."),
    (r"^fc2\.", "classify."),
)


class Bases(nn.Module):
    """Rebuilds features from a few bases that fit them best (Sec. 3.2)."""

    count: int = 64
    rounds: int = 3
    moving_average: bool = True  # of the bases, momentum 0.9
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] to the same shape in float32, without gradient."""
        shape = (self.count, x.shape[-1], 1)
        stored = self.variable("batch_stats", "mu", self._draw, shape)
        flat = x.reshape(x.shape[0], -1, x.shape[-1]).astype(jnp.float32)
        flat = jax.lax.stop_gradient(flat)
        highest = jax.lax.Precision.HIGHEST
        mu = jnp.broadcast_to(stored.value[..., 0], (len(flat), *shape[:2]))
        for _ in range(self.rounds):
            likeness = jnp.einsum("bpc,bkc->bpk", flat, mu, precision=highest)
            share = nn.softmax(likeness, axis=-1)
            weight = share / (1e-6 + jnp.sum(share, axis=1, keepdims=True))
            mu = jnp.einsum("bpk,bpc->bkc", weight, flat, precision=highest)
            mu /= 1e-6 + jnp.linalg.norm(mu, axis=-1, keepdims=True)
        if train and self.moving_average and not self.is_initializing():
            batch = jnp.mean(mu, axis=0)[..., None]
            old = self.momentum * stored.value
            stored.value = old + (1 - self.momentum) * batch
        rebuilt = jnp.einsum("bpk,bkc->bpc", share, mu, precision=highest)
        return rebuilt.reshape(x.shape)

    def _draw(self, shape: tuple[int, ...]) -> jax.Array:
        key = self.make_rng("params")
        return jax.random.normal(key, shape) / math.sqrt(shape[1])


class EMANet(network.Network):
    """Image -> logits."""

    bases: int = 64
    moving_average: bool = True  # of the bases, see above

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 8."""
        maps = self.features(images, train)
        entered = self.convolve("enter", self.fpn_dim, 3)(maps[-1], train=train)
        x = conv.Conv(
            features=self.fpn_dim, bias=True, dtype=self.dtype, name="before_bases"
        )(entered)
        x = Bases(self.bases, moving_average=self.moving_average, name="bases")(
            x, train=train
        )
        x = self.convolve("after_bases", self.fpn_dim, relu=False)(
            nn.relu(x), train=train
        )
        x = nn.relu(x + entered)
        x = self.convolve("leave", max(self.fpn_dim // 2, 1), 3)(x, train=train)
        return self.outputs(self.classify(self.drop(x, train)), maps, images, train)


class EMANetMethod(network.NetworkMethod):
    """EMANet with a cross-entropy of its heads."""

    module_class = EMANet
    torch_names = TORCH_NAMES

    @property
    def frozen(self) -> tuple[str, ...]:
        """Returns the layer that no gradient reaches."""
        return ("before_bases",)

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        return (("/mu$", f"normal {1 / math.sqrt(self.module.fpn_dim)}"),)

    def _check_model(self) -> None:
        super()._check_model()
        base.check_range("config.model.bases", self.module.bases, low=1)
