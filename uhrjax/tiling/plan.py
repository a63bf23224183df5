"""How a scene is cut into windows, and windows into program calls of one shape."""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from uhrjax.tiling import blend as blend_lib
from uhrjax.tiling import window as window_lib

SCORES = ("probabilities", "logits")
BORDERS = ("zero", "reflect")


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How scenes are cut and put together again; one compiled engine per value."""

    tile: int  # px
    stride: int  # px
    batch_size: int  # windows per program call, a multiple of the number of devices
    blend: str = "average"  # of `blend.BLENDS`
    score: str = "probabilities"  # what is summed, of SCORES
    grid: str = "shifted"  # last window shifted inward, or "even": steps of one size
    border: str = "zero"  # what scenes smaller than a window are filled up with
    tta: bool = False  # mean over the 8 flips and turns of every window
    probabilities: bool = False  # hand out class probabilities, too

    def __post_init__(self) -> None:
        choices = {"blend": blend_lib.BLENDS, "score": SCORES, "border": BORDERS}
        choices["grid"] = tuple(window_lib.GRIDS)
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; use one of "
                    f"{', '.join(known)}"
                )

    @property
    def block(self) -> int:
        """Width of a block, px: a window reaches at most into the next one."""
        return max(self.batch_size * self.stride, self.tile)


class Call(NamedTuple):
    """Windows of one band that start in one block, padded to the batch size B."""

    block: int
    starts: np.ndarray  # [B] int32, left border in block px
    valid: np.ndarray  # [B] bool
    owned: (
        np.ndarray
    )  # [B, 4] int32: top, bottom, left, right of what counts, window px


class Band(NamedTuple):
    """One row of windows."""

    top: int  # scene px
    finished: int  # rows from `top` that get nothing more from later bands
    blocks: int  # that the width of the scene takes
    calls: list[Call]


def shortest_step(tiling: Tiling) -> int:
    """Returns the shortest step between two bands, the last two left aside, px.

    Even grids of three or more windows take steps above half a stride: with one window
    less they would be longer than a stride.
    """
    return tiling.stride if tiling.grid == "shifted" else tiling.stride // 2


def plan_bands(
    height: int, width: int, tiling: Tiling, *, first_row: int = 0
) -> list[Band]:
    """Plans all program calls of a scene, leaving out bands above `first_row`."""
    tile, stride = tiling.tile, tiling.stride
    plan = functools.partial(window_lib.GRIDS[tiling.grid], tile=tile, stride=stride)
    tops, lefts = plan(height), np.array(plan(width))
    own = functools.partial(blend_lib.owned_spans, tile=tile, blend=tiling.blend)
    rows, columns = own(tops, length=height), own(lefts, length=width)
    bands = []
    for i, top in enumerate(tops):
        if top + tile <= first_row:
            continue
        until = tops[i + 1] if i + 1 < len(tops) else height
        calls = _plan_calls(rows[i], lefts, columns, tiling)
        bands.append(Band(top, until - top, -(-width // tiling.block), calls))
    return bands


def _plan_calls(
    rows: np.ndarray, lefts: np.ndarray, columns: np.ndarray, tiling: Tiling
) -> list[Call]:
    """Groups the windows of a band by block and batch."""
    blocks = lefts // tiling.block
    starts = (lefts - blocks * tiling.block).astype(np.int32)
    rows = np.broadcast_to(rows, (len(lefts), 2))
    owned = np.concatenate([rows, columns], axis=1).astype(np.int32)
    return _group(blocks, starts, owned, tiling.batch_size)


def _group(
    blocks: np.ndarray, starts: np.ndarray, owned: np.ndarray, size: int
) -> list[Call]:
    """Groups windows that lie from left to right; each call within one block."""
    calls = []
    for block in np.unique(blocks):
        members = np.flatnonzero(blocks == block)
        for group in np.split(members, range(size, len(members), size)):
            # Missing windows repeat the first; they are not valid and add nothing.
            index = np.append(group, np.repeat(group[:1], size - len(group)))
            valid = np.arange(size) < len(group)
            calls.append(Call(int(block), starts[index], valid, owned[index]))
    return calls


def keep_windows(band: Band, keep: np.ndarray) -> Band:
    """Returns a band with some of its windows, in as few calls as they need.

    Args:
        band: to take them from.
        keep: [windows] bool, from left to right.
    """
    size = len(band.calls[0].valid)
    blocks = np.concatenate([np.full(c.valid.sum(), c.block) for c in band.calls])
    starts = np.concatenate([c.starts[c.valid] for c in band.calls])
    owned = np.concatenate([c.owned[c.valid] for c in band.calls])
    return band._replace(calls=_group(blocks[keep], starts[keep], owned[keep], size))


def mirror(index: np.ndarray, length: int) -> np.ndarray:
    """Maps any index into [0, length) by reflection that repeats the border pixel."""
    index = index % (2 * length)
    return np.minimum(index, 2 * length - 1 - index)
