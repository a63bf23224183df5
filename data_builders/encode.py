"""Scenes -> finished records: bands, windows, views, PNG; runs in worker processes."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from data_builders import base
from data_builders import label as labels
from data_builders import layout as layout_lib
from uhrjax import errors
from uhrjax.data import overview, prepared
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as windows

BAND_PIXELS = 2**22  # a scene that streams is read in bands of about this many px
# PNG that is filtered but not compressed: ArrayRecord compresses every record (zstd),
# which makes aerial images as small (0.51 of the raw size) as PNG's own deflate does
# (0.54), and they are read more than twice as fast.
PNG = (
    cv2.IMWRITE_PNG_COMPRESSION,
    0,
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_UP,
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """Rows [top, bottom) of a scene: what one process turns into records at a time."""

    scene: base.RawScene
    split: str
    top: int
    bottom: int
    layouts: tuple[layout_lib.Layout, ...]  # to make records of
    extras: tuple[str, ...] = ()


@dataclasses.dataclass
class Encoded:
    """Finished records of one unit, and what was seen on the way."""

    records: dict[str, list[dict[str, Any]]] = dataclasses.field(
        default_factory=dict
    )  # by config name
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
    layouts: tuple[layout_lib.Layout, ...],
    extras: tuple[str, ...],
) -> list[Unit]:
    """Cuts a scene into bands of whole tile rows; one band if it cannot be streamed."""
    rows = scene.height
    if scene.streams:
        side = layout_lib.STORED_TILE
        rows = max(BAND_PIXELS // (scene.width * side), 1) * side
    tops = range(0, scene.height, rows)
    return [
        Unit(scene, split, top, min(top + rows, scene.height), layouts, extras)
        for top in tops
    ]


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
    for layout in unit.layouts:
        if isinstance(layout, layout_lib.Tiles):
            made = list(_tiles(unit, pixels, image, label))
        elif isinstance(layout, layout_lib.PatchGrid):
            made = [
                _patch(scene, pixels, window, layout)
                for window in layout.windows_of(scene)
                if unit.top <= window.top < unit.bottom
            ]
        else:
            made = [_overview(scene, pixels, layout)] if unit.top == 0 else []
        done.records[layout.config] = made


def _tiles(
    unit: Unit, pixels: base.Pixels, image: np.ndarray, label: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Yields the records of the stored tiles of a unit, whose pixels are given."""
    band = windows.Window(unit.top, 0, unit.bottom - unit.top, unit.scene.width)
    for tile in _tiles_of(band):
        within = tile._replace(top=tile.top - band.top)
        record = {
            "image": encode_png(windows.cut(image, within, fill=0)),
            "label": encode_png(windows.cut(label, within, fill=0)),
        }
        for name in unit.extras:
            record[name] = encode_png(pixels.extra(name, tile))
        yield record


def _report_unknown(
    scene: base.RawScene, unknown: list[labels.Unknown], done: Encoded
) -> None:
    table = getattr(scene, "table", None)
    for one in unknown:
        if table.unknown is not None or one.value == labels.ROUNDED:
            done.unknown[str(one.value)] += one.count
            continue
        kind = "id" if isinstance(one.value, int) else "colour (R, G, B)"
        done.problems[f"{scene.label_path} {one.value}"] = (
            f"{scene.label_path}: {kind} {one.value} is not in the class table "
            f"({one.count} px, the first at row {one.row}, column {one.column})"
        )


def _tiles_of(band: windows.Window) -> Iterator[windows.Window]:
    """Yields the stored tiles of a band, row by row, cropped at the scene's border."""
    side = layout_lib.STORED_TILE
    for top in range(band.top, band.top + band.height, side):
        height = min(side, band.top + band.height - top)
        for left in range(0, band.width, side):
            yield windows.Window(top, left, height, min(side, band.width - left))


def _patch(
    scene: base.RawScene,
    pixels: base.Pixels,
    window: windows.Window,
    grid: layout_lib.PatchGrid,
) -> dict[str, Any]:
    """Returns the record of one patch."""
    label = pixels.label(window)
    if grid.resizes(scene):
        size = windows.sides(grid.tile)[::-1]  # OpenCV's (width, height)
        stretched = cv2.resize(
            pixels.image(window), size, interpolation=cv2.INTER_CUBIC
        )
        label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
        cropped = stretched[None]
    else:
        cropped = view_lib.cut_views(
            pixels.image, window, grid.views, scene_size=(scene.height, scene.width)
        )
    return {
        "views": {
            f"x{word}": encode_png(view)
            for word, view in zip(grid.words, cropped, strict=True)
        },
        "label": encode_png(label),
        "position": np.array([window.top, window.left], np.int32),
        "scene_size": np.array([scene.height, scene.width], np.int32),
        "scene_id": scene.id,
    }


def _overview(
    scene: base.RawScene, pixels: base.Pixels, wanted: layout_lib.Overview
) -> dict[str, Any]:
    """Returns the record of a scene made small."""
    place = prepared.SceneInfo(scene.id, scene.height, scene.width)
    size = {"height": wanted.height, "width": wanted.width}
    return {
        "overview": encode_png(overview.make(pixels.image, place, **size)),
        "label": encode_png(overview.make_label(pixels.label, place, **size)),
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
