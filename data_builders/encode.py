"""Scenes -> finished records: bands, windows, views, PNG; runs in worker processes."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from data_builders import base
from data_builders import label as labels
from uhrjax import errors
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as windows

# Side in px of the tiles in which whole scenes are stored. Random windows of 512 px are
# read 1.6 times as fast as from tiles of 512 px, at the same size on disk.
STORED_TILE = 256
BAND_PIXELS = 2**22  # a scene that streams is read in bands of about this many pixels
# Of OpenCV's PNG settings the best trade on aerial images: 0.54 of the raw size,
# written at 100 MB/s, read at 210 MB/s by one core; masks 0.016, 650 and 1000 MB/s.
PNG = (
    cv2.IMWRITE_PNG_COMPRESSION,
    1,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)


@dataclasses.dataclass(frozen=True)
class PatchGrid:
    """The grid of a patch pyramid."""

    tile: int  # px
    stride: int  # px
    views: tuple[int, ...] = (1,)  # scales, smallest field of view first
    small: str = "pad"

    def windows_of(self, scene: base.RawScene) -> list[windows.Window]:
        """Returns the windows of a scene in reading order."""
        if self.resizes(scene):
            return [windows.Window(0, 0, scene.height, scene.width)]
        return windows.plan_windows(
            scene.height, scene.width, tile=self.tile, stride=self.stride
        )

    def resizes(self, scene: base.RawScene) -> bool:
        """Says whether a scene is stretched to one patch instead of being cut."""
        return self.small == "resize" and min(scene.height, scene.width) <= self.tile


@dataclasses.dataclass(frozen=True)
class Unit:
    """Rows [top, bottom) of a scene: what one process turns into records at a time."""

    scene: base.RawScene
    split: str
    top: int
    bottom: int
    tiles: bool  # whether to make the records of `scenes`
    grid: PatchGrid | None  # whether, and how, to make those of `patches_*`
    extras: tuple[str, ...] = ()


@dataclasses.dataclass
class Encoded:
    """Finished records of one unit, and what was seen on the way."""

    tiles: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    patches: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    histogram: np.ndarray = dataclasses.field(
        default_factory=lambda: np.zeros(256, np.int64)
    )
    problems: dict[str, str] = dataclasses.field(default_factory=dict)  # one per key
    unknown: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )
    pixels: int = 0


def plan_units(
    split: str,
    scene: base.RawScene,
    *,
    tiles: bool,
    grid: PatchGrid | None,
    extras: tuple[str, ...],
) -> list[Unit]:
    """Cuts a scene into bands of whole tile rows; one band if it cannot be streamed."""
    rows = scene.height
    if scene.streams:
        rows = max(BAND_PIXELS // (scene.width * STORED_TILE), 1) * STORED_TILE
    tops = range(0, scene.height, rows)
    return [
        Unit(scene, split, top, min(top + rows, scene.height), tiles, grid, extras)
        for top in tops
    ]


def count_tiles(scene: base.RawScene) -> int:
    """Returns the number of stored tiles of a scene."""
    return math.ceil(scene.height / STORED_TILE) * math.ceil(scene.width / STORED_TILE)


def encode(unit: Unit) -> Encoded:
    """Reads a unit and encodes its records; runs in a worker process.

    Problems of the raw files are returned, not raised, so that all of them get listed.
    """
    cv2.setNumThreads(1)  # the processes are the parallelism
    done = Encoded()
    try:
        pixels = unit.scene.open()
    except errors.InputError as error:
        done.problems[str(error)] = str(error)
        return done
    try:
        _encode_opened(unit, pixels, done)
    except errors.InputError as error:
        done.problems[str(error)] = str(error)
    finally:
        pixels.close()
    return done


def _encode_opened(unit: Unit, pixels: base.Pixels, done: Encoded) -> None:
    scene = unit.scene
    band = windows.Window(unit.top, 0, unit.bottom - unit.top, scene.width)
    label = pixels.label(band)
    done.histogram += np.bincount(label.ravel(), minlength=256)
    done.pixels = label.size
    _report_unknown(scene, pixels.take_unknown(), done)
    image = pixels.image(band)  # also where only patches are wanted: finds damage
    if unit.tiles:
        for tile in _tiles_of(band):
            within = tile._replace(top=tile.top - band.top)
            record = {
                "image": encode_png(windows.cut(image, within, fill=0)),
                "label": encode_png(windows.cut(label, within, fill=0)),
            }
            for name in unit.extras:
                record[name] = encode_png(pixels.extra(name, tile))
            done.tiles.append(record)
    del image, label
    if unit.grid is not None:
        for window in unit.grid.windows_of(scene):
            if unit.top <= window.top < unit.bottom:
                done.patches.append(_patch(scene, pixels, window, unit.grid))


def _report_unknown(
    scene: base.RawScene, unknown: list[labels.Unknown], done: Encoded
) -> None:
    table = getattr(scene, "table", None)
    for one in unknown:
        if table.unknown is not None:
            done.unknown[str(one.value)] += one.count
            continue
        kind = "id" if isinstance(one.value, int) else "colour (R, G, B)"
        done.problems[f"{scene.label_path} {one.value}"] = (
            f"{scene.label_path}: {kind} {one.value} is not in the class table "
            f"({one.count} px, the first at row {one.row}, column {one.column})"
        )


def _tiles_of(band: windows.Window) -> Iterator[windows.Window]:
    """Yields the stored tiles of a band, row by row, cropped at the scene's border."""
    for top in range(band.top, band.top + band.height, STORED_TILE):
        height = min(STORED_TILE, band.top + band.height - top)
        for left in range(0, band.width, STORED_TILE):
            yield windows.Window(top, left, height, min(STORED_TILE, band.width - left))


def _patch(
    scene: base.RawScene, pixels: base.Pixels, window: windows.Window, grid: PatchGrid
) -> dict[str, Any]:
    """Returns the record of one patch."""
    label = pixels.label(window)
    if grid.resizes(scene):
        side = (grid.tile, grid.tile)
        stretched = cv2.resize(
            pixels.image(window), side, interpolation=cv2.INTER_CUBIC
        )
        label = cv2.resize(label, side, interpolation=cv2.INTER_NEAREST)
        cropped = stretched[None]
    else:
        scales = [view_lib.View(scale) for scale in grid.views]
        cropped = view_lib.cut_views(pixels.image, window, scales)
    return {
        "views": {
            f"x{scale}": encode_png(view)
            for scale, view in zip(grid.views, cropped, strict=True)
        },
        "label": encode_png(label),
        "position": np.array([window.top, window.left], np.int32),
        "scene_size": np.array([scene.height, scene.width], np.int32),
        "scene_id": scene.id,
    }


def encode_png(pixels: np.ndarray) -> bytes:
    """Encodes uint8 [h, w, 3] RGB or [h, w] as PNG."""
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, coded = cv2.imencode(".png", np.ascontiguousarray(pixels), PNG)
    if not done:
        raise RuntimeError(f"OpenCV could not encode a tile of shape {pixels.shape}")
    return coded.tobytes()
