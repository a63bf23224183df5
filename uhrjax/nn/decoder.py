"""The decoders that PFNet puts on other networks' heads (its Tables 1 and 2g).

A head's features take the place of the coarsest backbone map in a feature pyramid; its
levels are joined by upsampling ("fpn") or by point flow ("pf").
"""

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.nn import fpn, point_flow
from uhrjax.ops import resize

DECODERS = ("none", "fpn", "pf")
LEVELS = ("F3", "F4", "F5")  # F5: from the coarsest map onto C4; F3: from C3 onto C2
_PLACE = r"^point_flow_decoder\."
TORCH_NAMES = (
    (rf"{_PLACE}fpn_in\.(\d)\.0\.", r"decoder.neck.lateral_\1.conv."),
    (rf"{_PLACE}fpn_in\.(\d)\.1\.", r"decoder.neck.lateral_\1.norm."),
    (rf"{_PLACE}fpn_out\.(\d)\.0\.0\.", r"decoder.head.smooth_\1.conv."),
    (rf"{_PLACE}fpn_out\.(\d)\.0\.1\.", r"decoder.head.smooth_\1.norm."),
    (rf"{_PLACE}fpn_out_align\.0\.", "decoder.flow_F3."),
    (rf"{_PLACE}fpn_out_align\.1\.", "decoder.flow_F4."),
    (rf"{_PLACE}fpn_out_align\.2\.", "decoder.flow_F5."),
    (rf"{_PLACE}conv_last\.0\.0\.", "decoder.head.fuse.conv."),
    (rf"{_PLACE}conv_last\.0\.1\.", "decoder.head.fuse.norm."),
    (rf"{_PLACE}conv_last\.1\.", "decoder.head.classify."),
    *point_flow.TORCH_NAMES,
)


class PyramidDecoder(nn.Module):
    """Backbone maps and a head's features -> logits at the finest map's size."""

    num_classes: int
    flow: bool = False  # point flow between the levels instead of upsampling
    features: int = 128
    reduce_dim: int = 32
    edge_points: int = 32
    cells: int = 8  # per side, of both poolings of the saliency map
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, maps: Sequence[jax.Array], *, train: bool
    ) -> tuple[jax.Array, dict[str, point_flow.Flow]]:
        """Decodes.

        Args:
            maps: C2 .. C4 and the features, finest first, [B, h, w, C].
            train: use and update the statistics of the batch.

        Returns:
            [B, h, w, num_classes] float32 at C2's size; level -> flow, {} without.
        """
        maps = fpn.PyramidInput(
            features=self.features, ppm=False, dtype=self.dtype, name="neck"
        )(list(maps), train=train)
        steps = {}
        if self.flow:
            for level in LEVELS:
                flow = self._flow(f"flow_{level}")
                steps[level] = lambda high, low, flow=flow: flow(high, low, train=train)
        maps, flows = top_down(maps, steps)
        logits = fpn.PyramidOutput(
            num_classes=self.num_classes,
            features=self.features,
            dtype=self.dtype,
            name="head",
        )(maps, train=train)
        return logits, flows

    def _flow(self, name: str) -> point_flow.PointFlow:
        return point_flow.PointFlow(
            reduce_dim=self.reduce_dim,
            edge_points=self.edge_points,
            maxpool_size=self.cells,
            avgpool_size=self.cells,
            dtype=self.dtype,
            name=name,
        )


def top_down(
    maps: Sequence[jax.Array], flows: dict[str, Callable[..., Any]]
) -> tuple[list[jax.Array], dict[str, Any]]:
    """Passes coarse features to the finer maps.

    Args:
        maps: four, finest first, [B, h, w, C].
        flows: level -> (coarse map, fine map) -> flow with `features` for the fine
            map; a level without one is upsampled.

    Returns:
        The maps, each with what came from the coarser ones; level -> flow.
    """
    *finer, coarsest = maps
    refined, found = [coarsest], {}
    for level, x in zip(reversed(LEVELS), reversed(finer), strict=True):
        if level in flows:
            found[level] = flows[level](refined[0], x)
            incoming = found[level].features
        else:
            incoming = resize.bilinear(refined[0], x.shape[1:3], align_corners=True)
        refined.insert(0, x + incoming)
    return refined, found
