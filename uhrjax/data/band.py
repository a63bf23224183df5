"""Reads scenes band by band, as the engine wants them; every row once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from uhrjax.data import prepared
from uhrjax.tiling import plan
from uhrjax.tiling import window as window_lib


class Scene(Protocol):
    """What the engine needs of a scene; `data.raster` and `PreparedScene` have it."""

    info: prepared.SceneInfo

    def read(self, window: window_lib.Window) -> np.ndarray: ...
    def read_valid(self, window: window_lib.Window) -> np.ndarray | None: ...


class BandRows(NamedTuple):
    """What one band adds to those above it."""

    pixels: np.ndarray  # [rows, W, 3] uint8, the rows below the last band's
    band: plan.Band  # with the windows that hold any valid pixel
    skipped: int  # windows that do not
    valid: np.ndarray | None  # [finished, W] bool of its finished rows; None: all are


def read_band(
    scene: Scene,
    bands: Sequence[plan.Band],
    i: int,
    tiling: plan.Tiling,
    *,
    margin: int = 0,
) -> BandRows:
    """Reads what band i has below band i - 1 (all of it if i is 0).

    Args:
        scene: to read.
        bands: of the scene, from `plan.plan_bands`.
        i: which.
        tiling: how the scene is cut.
        margin: rows of context above and below every band, px.
    """
    tile, width, band = tiling.tile, scene.info.width, bands[i]
    bottom = band.top + tile + margin
    top = bands[i - 1].top + tile + margin if i else bottom - tile - 2 * margin
    rows = scene.read(window_lib.Window(top, 0, bottom - top, width))
    if tiling.border == "reflect":
        rows = _reflect(rows, top, scene.info, tile)
    valid = scene.read_valid(window_lib.Window(band.top, 0, tile, width))
    if valid is None:
        return BandRows(rows, band, 0, None)
    lefts = np.concatenate(
        [c.block * tiling.block + c.starts[c.valid] for c in band.calls]
    )
    columns = valid.any(0)
    seen = np.array([columns[left : left + tile].any() for left in lefts], bool)
    kept = plan.keep_windows(band, seen)
    return BandRows(rows, kept, int((~seen).sum()), valid[: band.finished])


def _reflect(
    rows: np.ndarray, top: int, info: prepared.SceneInfo, tile: int
) -> np.ndarray:
    """Fills what a scene lacks to one window with its mirror image."""
    if info.height < tile:
        line = plan.mirror(np.arange(tile), info.height) - top
        rows = rows.copy()
        rows[-top : tile - top] = rows[line]
    if info.width < tile:
        rows = rows[:, plan.mirror(np.arange(tile), info.width)]
    return rows
