"""GSCNN, gated shape CNN (https://arxiv.org/abs/1907.05740).

Beside DeepLabV3+ a thin stream follows edges at high resolution: gates, which the
backbone's maps open, let nothing else pass. Its edge map is trained, and joins what is
seen at several dilations.

Differs from the paper:
- the stream runs at stride 2, where the stem's map lies, not at the image's size;
- the image's gradient takes the place of Canny's edges, which a device cannot draw;
- the backbone is a dilated ResNet, as in PFNet's tables;
- no loss couples edges and segments (its "dual task" regulariser).
From memory of the architecture (the edge loss' weight, 20, too); no case checks it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import decoded, network
from uhrjax.nn import conv, deeplab
from uhrjax.ops import resize


class Gate(nn.Module):
    """Lets pass of a shape map what a deeper map calls a boundary (Sec. 3.1)."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, deep: jax.Array, *, train: bool) -> jax.Array:
        """Maps [B, h, w, C] and [B, h, w, 1] to [B, h, w, C]."""
        joined = jnp.concatenate([x, deep], axis=-1)
        y = conv.batch_norm(train=train, dtype=self.dtype, name="norm")(joined)
        y = conv.Conv(
            features=joined.shape[-1], bias=True, dtype=self.dtype, name="hidden"
        )(y)
        gate = conv.ConvNorm(features=1, relu=False, dtype=self.dtype, name="gate")(
            nn.relu(y), train=train
        )
        leave = conv.Conv(features=x.shape[-1], dtype=self.dtype, name="leave")
        return leave(x * (1 + nn.sigmoid(gate)))


class ShapeStream(nn.Module):
    """The stem's map and three deeper ones -> an edge map."""

    width: int = 64
    align_corners: bool = True
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, stem: jax.Array, maps: list[jax.Array], *, train: bool
    ) -> jax.Array:
        """Maps [B, h, w, C] and coarser maps to [B, h, w, 1] float32, logits."""
        x = conv.ConvNorm(features=self.width, dtype=self.dtype, name="enter")(
            stem, train=train
        )
        for index, deep in enumerate(maps):
            deep = conv.Conv(1, bias=True, dtype=self.dtype, name=f"deep_{index}")(deep)
            deep = resize.bilinear(deep, x.shape[1:3], align_corners=self.align_corners)
            block = resnet.BasicBlock(
                width=x.shape[-1], dtype=self.dtype, name=f"block_{index}"
            )
            thinner = max(self.width // 2 ** (index + 1), 1)
            x = conv.Conv(thinner, bias=True, dtype=self.dtype, name=f"thin_{index}")(
                block(x, train)
            )
            x = Gate(self.dtype, name=f"gate_{index}")(x, deep, train=train)
        return conv.Conv(features=1, name="edge")(x)  # in float32


class GSCNN(network.Network):
    """Image -> logits and an edge map."""

    fpn_dim: int = 256
    dropout: float = 0.0
    skip_dim: int = 48  # channels of C2 that are joined
    rates: tuple[int, ...] = (12, 24, 36)

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`, coarse at stride 4, and
        "edge_logits", {"shape": [B, H / 2, W / 2, 1] float32}."""
        stem, *maps = resnet.of_fields(self, with_stem=True)(images, train=train)
        edge = ShapeStream(
            self.width, self.align_corners, self.dtype, name="shape_stream"
        )(stem, maps[1:], train=train)
        slope = resize.bilinear(
            _gradient(images), edge.shape[1:3], align_corners=self.align_corners
        )
        both = jnp.concatenate([nn.sigmoid(edge), slope], axis=-1)
        act = nn.sigmoid(conv.Conv(features=1, name="join_gradient")(both))
        act = resize.bilinear(
            act, maps[-1].shape[1:3], align_corners=self.align_corners
        )
        beside = self.convolve("enter_edges", self.fpn_dim)(act, train=train)
        x = deeplab.V3PlusHead(
            features=self.fpn_dim,
            skip_features=self.skip_dim,
            rates=self.rates,
            align_corners=self.align_corners,
            dtype=self.dtype,
            name="head",
        )(maps, train=train, beside=beside)
        coarse = self.classify(self.drop(x, train))
        found = self.outputs(coarse, maps, images, train)
        return {**found, "edge_logits": {"shape": edge}}


@dataclasses.dataclass(frozen=True)
class GSCNNLoss(decoded.DecodedLoss):
    """Cross-entropy of the heads, and the loss of the edge map."""

    edge_weight: float = 20.0
    boundary_rule: str = "all_classes"


class GSCNNMethod(network.NetworkMethod):
    """GSCNN with its losses."""

    module_class = GSCNN
    loss_class = GSCNNLoss
    torch_names = resnet.TORCH_NAMES

    def further_losses(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the loss of the edge map."""
        return self.loss_rule.edges(outputs["edge_logits"], batch)

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns {"boundary": [P, P] uint8}."""
        return self.loss_rule.draw(label)

    def _check_model(self) -> None:
        super()._check_model()
        base.check_range("config.model.skip_dim", self.module.skip_dim, low=1)


def _gradient(images: jax.Array) -> jax.Array:
    """Returns how steep images [B, H, W, 3] are, [B, H, W, 1] float32."""
    grey = jnp.mean(images.astype(jnp.float32), axis=-1, keepdims=True)
    padded = jnp.pad(grey, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    right = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    return jnp.sqrt(down**2 + right**2 + 1e-12) / 2
