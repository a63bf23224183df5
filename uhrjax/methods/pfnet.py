"""PFNet, point flow between pyramid levels (https://arxiv.org/abs/2103.06564).

Between two adjacent levels of a feature pyramid only a few points are worth passing on.
A dual point matcher picks salient points, by max pooling a saliency map, and boundary
points, where an edge map trained beside the segmentation is strongest. At each of them
the fine feature attends to the coarse features of all and takes up what it finds.

Differs from the paper (where its code does, the code made the published numbers):
- The flows of salient and boundary points are independent, the salient one wins where
  both meet (Eq. 6 sums them); only boundary points are sampled bilinearly.
- The compressed features serve the saliency map only; 14 x 14 cells are 196 points.
- The 3x3 convolutions of the backbone's last two stages are dilated at full stride; the
  stem is the deep one.
- Online hard example mining and a class-balanced edge loss of weight 25 (text: 1).
- Batch norm is global in every layer (the code leaves some layers to one device).

Our reading of ablations without code: a level without point flow upsamples and adds; no
pyramid pooling means a lateral on C5; attention takes the 128 most salient pixels;
uniform takes a random pixel of each 7 x 7 cell, always the same ones in evaluation;
bottom-up exchanges the roles of the maps but still chooses points on the coarser one,
and the second pass of top-down and bottom-up has point flows of its own. Of the other
ways to propagate (Table 2c), `nn/propagation.py` says what we read into them.
"""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import edges
from uhrjax.backbones import resnet
from uhrjax.errors import InputError
from uhrjax.methods import base
from uhrjax.nn import decoder, fpn, point_flow, propagation
from uhrjax.ops import resize

LEVELS = decoder.LEVELS
DIRECTIONS = ("top_down", "bottom_up", "top_down_bottom_up")

TORCH_NAMES = (
    *resnet.TORCH_NAMES,
    *fpn.TORCH_NAMES,
    (r"^head\.fpn_out_align\.0\.", "flow_F3."),
    (r"^head\.fpn_out_align\.1\.", "flow_F4."),
    (r"^head\.fpn_out_align\.2\.", "flow_F5."),
    *point_flow.TORCH_NAMES,
)


class PFNet(nn.Module):
    """Image -> logits at the image's size, edge maps and the points that flowed."""

    num_classes: int
    backbone: str = "resnet50"
    stem: str = "deep"
    dilation: str = "keep_stride"
    width: int = 64  # of the backbone
    fpn_dim: int = 256
    reduce_dim: int = 64
    ppm: bool = True  # pyramid pooling on C5
    salient: str = "max_pool"
    boundary: bool = True
    levels: tuple[str, ...] = LEVELS  # where points flow
    propagation: str = "point_flow"  # or one of propagation.KINDS, Table 2c
    direction: str = "top_down"
    edge_prediction: str = "subtraction"
    edge_points: int = 128
    maxpool_size: int = 14
    avgpool_size: int = 9
    pool_eval: int = 0  # maxpool_size outside of training; 0 = the same
    dropout: float = 0.1  # of whole channels, behind the pyramid pooling
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, Any]:
        """Returns the logits and what the loss and the pictures need.

        Args:
            images: [B, H, W, 3] float, sides multiples of 32 px.
            train: use and update the statistics of the batch, dropout.

        Returns:
            "logits": [B, H, W, num_classes] float32;
            "edge_logits": {level: [B, h, w, 1] float32};
            "points": {"salient", "boundary"}: [B, N, 2] float32, (y, x) image px.
        """
        maps = resnet.of_fields(self)(images, train=train)
        maps = fpn.PyramidInput(
            features=self.fpn_dim,
            ppm=self.ppm,
            dropout=self.dropout,
            dtype=self.dtype,
            name="neck",
        )(maps, train=train)
        flows: dict[str, point_flow.Flow] = {}
        if self.direction != "bottom_up":
            maps, found = self._top_down(maps, train)
            flows |= found
        if self.direction != "top_down":
            maps, found = self._bottom_up(maps, train)
            flows |= found
        logits = fpn.PyramidOutput(
            num_classes=self.num_classes,
            features=self.fpn_dim,
            dtype=self.dtype,
            name="head",
        )(maps, train=train)
        size = images.shape[1:3]
        return {
            "logits": resize.bilinear(logits, size, align_corners=True),
            "edge_logits": {
                name: flow.edge for name, flow in flows.items() if flow.edge is not None
            },
            "points": _image_points(flows.values(), image_height=size[0]),
        }

    def _top_down(self, maps: list[jax.Array], train: bool):
        """Passes coarse features to the finer maps; returns maps and {level: Flow}."""
        flows = {}
        for level in self.levels:
            name = f"flow_{level}"
            if self.propagation == "point_flow":
                flow = self._flow(name, train)
            else:
                flow = propagation.make(self.propagation, dtype=self.dtype, name=name)
            flows[level] = functools.partial(flow, train=train)
        return decoder.top_down(maps, flows)

    def _bottom_up(self, maps: list[jax.Array], train: bool):
        """Passes fine features to the coarser maps; returns maps and {level: Flow}."""
        finest, *coarser = maps
        refined, flows = [finest], {}
        for level, x in zip(LEVELS, coarser, strict=True):
            if level in self.levels:
                flow = self._flow(f"flow_{level}_up", train, onto_fine=False)
                flows[f"{level}_up"] = flow(x, refined[-1], train=train)
                incoming = flows[f"{level}_up"].features
            else:
                incoming = resize.bilinear(
                    refined[-1], x.shape[1:3], align_corners=True
                )
            refined.append(x + incoming)
        return refined, flows

    def _flow(
        self, name: str, train: bool, *, onto_fine: bool = True
    ) -> point_flow.PointFlow:
        cells = self.maxpool_size if train else self.pool_eval or self.maxpool_size
        return point_flow.PointFlow(
            reduce_dim=self.reduce_dim,
            salient=self.salient,
            boundary=self.boundary,
            edge_prediction=self.edge_prediction,
            edge_points=self.edge_points,
            maxpool_size=cells,
            avgpool_size=self.avgpool_size,
            onto_fine=onto_fine,
            dtype=self.dtype,
            name=name,
        )


class PFNetMethod(base.Method):
    """PFNet with segmentation and edge losses."""

    module_class = PFNet
    loss_class = edges.PFNetLoss
    torch_names = TORCH_NAMES
    initial_rules = propagation.INITIAL_RULES
    multiple = 32  # points map onto whole pixels of every finer level only then

    @property
    def _points_flow(self) -> bool:
        return self.module.propagation == "point_flow"

    def check(self) -> None:
        """Raises InputError for values, or combinations of them, that make no sense."""
        super().check()
        module = self.module
        for name, known in (
            ("salient", point_flow.SALIENT),
            ("direction", DIRECTIONS),
            ("propagation", ("point_flow", *propagation.KINDS)),
            ("edge_prediction", point_flow.EDGE_PREDICTIONS),
        ):
            base.check_choice(f"config.model.{name}", getattr(module, name), known)
        for level in module.levels:
            base.check_choice("config.model.levels: one entry", level, LEVELS)
        for name in ("reduce_dim", "edge_points", "maxpool_size", "avgpool_size"):
            base.check_range(f"config.model.{name}", getattr(module, name), low=1)
        base.check_range("config.model.pool_eval", module.pool_eval, low=0)
        if module.levels and module.salient == "none" and not module.boundary:
            raise InputError(
                f"config.model.levels = {module.levels}, but salient = 'none' and "
                "boundary = False leave no point to flow; switch one of them on, or "
                "use levels = ()"
            )
        if not module.boundary and module.edge_prediction != "subtraction":
            raise InputError(
                f"config.model.edge_prediction = {module.edge_prediction!r} needs "
                "boundary = True; without an edge head leave it at 'subtraction'"
            )
        if not self._points_flow and module.direction != "top_down":
            raise InputError(
                f"config.model.propagation = {module.propagation!r} goes from coarse "
                "to fine only; use direction = 'top_down', or 'point_flow'"
            )
        if not module.levels and module.direction != "top_down":
            raise InputError(
                f"config.model.direction = {module.direction!r} needs point flow; name "
                "some levels, or use direction = 'top_down'"
            )

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total", "seg" and "edge_F5", ...; each part with its weight."""
        parts = {"seg": self.loss_rule.segmentation(outputs["logits"], batch["label"])}
        parts |= self.loss_rule.edges(outputs["edge_logits"], batch)
        return {"total": sum(parts.values()), **parts}

    def targets(
        self, label: np.ndarray, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Returns {"boundary": [P, P] uint8} where an edge map is trained."""
        module = self.module
        if not (module.boundary and module.levels and self._points_flow):
            return {}
        return self.loss_rule.draw(label)

    def points(self, outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
        """Returns {"salient", "boundary"}: [B, N, 2] float32 (y, x) image px."""
        return outputs["points"]


def _image_points(
    flows: Iterable[point_flow.Flow], *, image_height: int
) -> dict[str, jax.Array]:
    """Collects the centres of all selected coarse pixels of all flows, in image px."""
    points: dict[str, list[jax.Array]] = {}
    for flow in flows:
        height, width = flow.grid
        for kind in ("salient", "boundary"):
            index = getattr(flow, kind)
            if index is not None:
                coarse = jnp.stack([index // width, index % width], axis=-1)
                centre = (coarse.astype(jnp.float32) + 0.5) * (image_height / height)
                points.setdefault(kind, []).append(centre)
    return {kind: jnp.concatenate(found, axis=1) for kind, found in points.items()}
