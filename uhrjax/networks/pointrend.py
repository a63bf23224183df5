"""PointRend (https://arxiv.org/abs/1912.08193) behind DeepLabV3 or DeepLabV3+.

Logits of stride 8 (or 4) are doubled until they have the image's size; each time the
pixels whose two best classes are closest are classified anew, from their logits and the
backbone's C3.

Differs from the paper, as PFNet's code does (https://arxiv.org/abs/2103.06564):
- the point head is one linear layer; it reads the upsampled logits of the very pixel,
  not the coarse ones; 8096 points per doubling;
- the coarse head's projection has no ReLU, its classifier no bias.
The training is the paper's: the code's loss is not published, its points are too few
(56 of 896 px) for anything but a slip; one per 16 x 16 px here.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import deeplab, point_head

HEADS = {"deeplabv3": deeplab.V3Head, "deeplabv3plus": deeplab.V3PlusHead}
CELL = 16  # px, see above


class PointRend(network.Network):
    """Image -> logits, rendered in prediction."""

    fpn_dim: int = 256
    dropout: float = 0.0
    head: str = "deeplabv3"  # of the coarse logits, or "deeplabv3plus"
    rates: tuple[int, ...] = (12, 24, 36)
    points: int = 8096  # per doubling, in prediction
    train_points: int = 0  # per image, 0: see above

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to `Network.outputs`; in training with "points" [B, P, 2],
        (y, x) in 0 to 1, and "point_logits" [B, P, num_classes] float32."""
        maps = self.features(images, train)
        x = HEADS[self.head](
            features=self.fpn_dim,
            rates=self.rates,
            rectified=False,
            dtype=self.dtype,
            name="coarse_head",
        )(maps, train=train)
        coarse = self.classify(self.drop(x, train), bias=False)
        found = self.outputs(coarse, maps, images, train)
        head = point_head.PointHead(self.num_classes, name="point_head")
        height, width = images.shape[1:3]
        if train:
            count = self.train_points or -(-height // CELL) * -(-width // CELL)
            key = self.make_rng("dropout")
            points = point_head.training_points(key, coarse, count)
            logits = head(*(point_head.read(x, points) for x in (coarse, maps[1])))
            return {**found, "points": points, "point_logits": logits}
        found["logits"] = point_head.render(
            coarse, maps[1], head, size=(height, width), points=self.points
        )
        return found


class PointRendMethod(network.NetworkMethod):
    """PointRend with cross-entropies of all pixels and of the points."""

    module_class = PointRend

    @property
    def torch_names(self) -> tuple[tuple[str, str], ...]:
        """Returns the names in published files and ours."""
        plus = self.module.head == "deeplabv3plus"
        names = deeplab.V3PLUS_NAMES if plus else deeplab.V3_NAMES
        return (
            *resnet.TORCH_NAMES,
            *names,
            (r"^head\.", "coarse_head."),
            (r"^final\.6\." if plus else r"^final\.", "classify."),
            (r"^point_head\.mlp\.", "point_head.classify."),
        )

    def further_losses(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the cross-entropy at the points, in training."""
        if "points" not in outputs:
            return {}
        part = point_head.loss(
            outputs["point_logits"], jnp.asarray(batch["label"]), outputs["points"]
        )
        return {"points": part}

    def _check_model(self) -> None:
        super()._check_model()
        base.check_choice("config.model.head", self.module.head, HEADS)
        base.check_range("config.model.points", self.module.points, low=1)
        base.check_range("config.model.train_points", self.module.train_points, low=0)
