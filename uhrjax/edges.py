"""Segmentation with edge maps trained beside it, the loss of point flow.

Sec. 3.3 of https://arxiv.org/abs/2103.06564; the weights are those of its code.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax import boundary, losses
from uhrjax.errors import InputError
from uhrjax.ops import resize


@dataclasses.dataclass(frozen=True)
class PFNetLoss(losses.SegmentationLoss):
    """Segmentation loss plus the edge loss of every point flow."""

    edge_weight: float = 25.0  # the paper says 1, its code 25; we follow the code
    boundary_rule: str = "foreground"  # what counts as an edge, see `boundary`
    boundary_thickness: int = 8  # px

    def __post_init__(self):
        if self.boundary_rule not in boundary.RULES:
            raise InputError(
                f"config.loss.boundary_rule = {self.boundary_rule!r}; use one of "
                f"{', '.join(boundary.RULES)}"
            )
        for name, low in (("boundary_thickness", 1), ("edge_weight", 0)):
            value = getattr(self, name)
            if value < low:
                raise InputError(f"config.loss.{name} = {value}; use {low} or more")

    def edges(
        self, edge_logits: Mapping[str, jax.Array], batch: Mapping[str, Any]
    ) -> dict[str, jax.Array]:
        """Returns {"edge_F5": scalar, ...}, each with its weight.

        Args:
            edge_logits: level -> [B, h, w, 1].
            batch: with "label" [B, H, W] and, if drawn, "boundary" of the same shape.
        """
        if not edge_logits:
            return {}
        target = batch.get("boundary")
        if target is None:
            target = boundary.boundary_on_device(
                jnp.asarray(batch["label"]),
                thickness=self.boundary_thickness,
                rule=self.boundary_rule,
            )
        parts = {}
        for name, edge in edge_logits.items():
            edge = resize.bilinear(edge, target.shape[1:3], align_corners=True)
            part = losses.edge_loss(edge[..., 0], target, group=self.loss_group)
            parts[f"edge_{name}"] = self.edge_weight * part
        return parts

    def draw(self, label: np.ndarray) -> dict[str, np.ndarray]:
        """Returns {"boundary": [H, W] uint8} of a label [H, W]; runs on the host."""
        drawn = boundary.boundary_target(
            label, thickness=self.boundary_thickness, rule=self.boundary_rule
        )
        return {"boundary": drawn}
