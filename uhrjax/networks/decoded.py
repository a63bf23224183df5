"""Networks whose features a feature pyramid can decode, with or without point flow.

PFNet's Tables 1 and 2g put its decoder on DANet, CCNet and DeepLabV3.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from uhrjax import edges
from uhrjax.methods import base
from uhrjax.networks import network
from uhrjax.nn import decoder


class Decoded(network.Network):
    """What such networks share."""

    decoder: str = "none"  # or "fpn", "pf", see `nn.decoder`
    decoder_dim: int = 128
    reduce_dim: int = 32
    edge_points: int = 32
    cells: int = 8  # per side, of both poolings of the saliency map

    def decode(
        self, x: jax.Array, maps: list[jax.Array], images: jax.Array, train: bool
    ) -> dict[str, Any]:
        """Returns `Network.outputs` of a head's features, and the flows' edge logits.

        Args:
            x: [B, h, w, C], the head's features.
            maps: C2 .. C5.
            images: [B, H, W, 3].
            train: use and update the statistics of the batch.
        """
        if self.decoder == "none":
            return self.outputs(self.classify(x), maps, images, train)
        coarse, flows = decoder.PyramidDecoder(
            num_classes=self.num_classes,
            flow=self.decoder == "pf",
            features=self.decoder_dim,
            reduce_dim=self.reduce_dim,
            edge_points=self.edge_points,
            cells=self.cells,
            dtype=self.dtype,
            name="decoder",
        )((*maps[:-1], x), train=train)
        found = self.outputs(coarse, maps, images, train)
        return {**found, "edge_logits": {name: f.edge for name, f in flows.items()}}


@dataclasses.dataclass(frozen=True)
class DecodedLoss(edges.PFNetLoss):
    """Cross-entropy of a network's heads, and the edge losses of point flows."""

    aux_weight: float = 0.4  # of a second head


class DecodedMethod(network.NetworkMethod):
    """Such a network with its losses."""

    loss_class = DecodedLoss

    @property
    def multiple(self) -> int:
        """Returns what image sides must be multiples of: points need whole strides."""
        return 8 if self.module.decoder == "pf" else 1

    def further_losses(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns the losses of the flows' edge maps."""
        return self.loss_rule.edges(outputs.get("edge_logits", {}), batch)

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns {"boundary": [P, P] uint8} where edge maps are trained."""
        return self.loss_rule.draw(label) if self.module.decoder == "pf" else {}

    def _check_model(self) -> None:
        super()._check_model()
        module = self.module
        base.check_choice("config.model.decoder", module.decoder, decoder.DECODERS)
        for name in ("decoder_dim", "reduce_dim", "edge_points", "cells"):
            base.check_range(f"config.model.{name}", getattr(module, name), low=1)
