"""What MagNet did at every scale, as pictures: one row of them per scale."""

from __future__ import annotations

import cv2
import jax
import numpy as np

from uhrjax import engine as engine_lib
from uhrjax import errors, panel, progressive, trained
from uhrjax.data import raster
from uhrjax.tiling import bilinear, pyramid
from uhrjax.tiling import window as window_lib

SIDE = 320  # px, the longer side of a picture
FRAME = (255, 60, 40)  # of patches that were looked at


def draw(run: trained.Trained, scene: raster.Scene) -> np.ndarray:
    """Draws a scene.

    Args:
        run: of MagNet.
        scene: that fits on the device.

    Returns:
        [h, w, 3] uint8. A row per scale: the labels before it, how uncertain they
        were, with the patches that were looked at, what was promised by smoothed
        score, the px that were replaced, the labels after it and where they changed.
        Above them the scene.
    """
    height, width = scene.info.height, scene.info.width
    engine = engine_lib.make_engine(run.method, run.config)
    if not engine.fits(height, width):
        raise errors.InputError(
            f"{scene.path}: {height} x {width} px do not fit on the device as a whole; "
            "draw a part of the scene, or raise --config.magnet.memory_mb"
        )
    image = scene.read(window_lib.Window(0, 0, height, width))
    found = engine.explore(run.variables, image)
    table = np.full((256, 3), 96, np.uint8)
    table[: len(run.colours)] = run.colours
    labels = table[np.asarray(found.labels)]
    size = _size(height, width)
    rows = [
        [
            panel.titled(f"scene, {width} x {height} px", _fit(image, size)),
            panel.titled("labels", _fit(labels, size)),
        ]
    ]
    scales = engine.resident.scales(height, width)
    passed = [scale for k, scale in enumerate(scales) if k and engine.options.passes(k)]
    for scale, record in zip(passed, found.records, strict=True):
        rows.append(_row(scale, record, table, size))
    if len(rows) == 1:
        raise errors.InputError(
            f"{run.path} passes over no finer scale: --config.magnet.stages and "
            ".n_patches say how many"
        )
    return np.concatenate([_joined(row, len(rows[1])) for row in rows])


def _row(
    scale: pyramid.Scale,
    record: progressive.Record,
    table: np.ndarray,
    size: tuple[int, int],
) -> list[np.ndarray]:
    """Returns the pictures of one scale."""
    record = jax.tree.map(np.asarray, record)
    uncertain = _heat(record.uncertainty)
    changed = record.before != record.after
    marked = (table[record.after] * 0.3).astype(np.uint8)
    marked[changed] = table[record.after][changed]
    mean = record.uncertainty.mean()
    pictures = {
        f"{scale.width} x {scale.height} px: before": table[record.before],
        f"uncertainty: {mean:.2f}": uncertain,
        "promise": _heat(record.score / max(float(record.score.max()), 1e-9)),
        f"replaced: {record.chosen.mean():.1%}": np.where(
            record.chosen[..., None], uncertain, uncertain // 5
        ),
        "after": table[record.after],
        f"changed: {changed.mean():.1%}": marked,
    }
    fitted = {title: _fit(picture, size) for title, picture in pictures.items()}
    if len(record.selected) < scale.count:
        _frame(fitted[f"uncertainty: {mean:.2f}"], scale, record.selected)
    return [panel.titled(title, picture) for title, picture in fitted.items()]


def _frame(picture: np.ndarray, scale: pyramid.Scale, selected: np.ndarray) -> None:
    """Draws the boxes of patches."""
    zoom = np.array(picture.shape[:2]) / scale.size
    for corner in scale.corners()[selected]:
        first, last = corner * zoom, (corner + scale.box) * zoom - 1
        ends = [
            tuple(np.round(end[::-1]).astype(int).tolist()) for end in (first, last)
        ]
        cv2.rectangle(picture, *ends, FRAME, 2)


def _heat(values: np.ndarray) -> np.ndarray:
    """Returns a colour map of values from 0 to 1, [h, w, 3] uint8."""
    grey = np.clip(255 * values, 0, 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), 4)


def _size(height: int, width: int) -> tuple[int, int]:
    """Returns (height, width) of a picture of the scene."""
    zoom = SIDE / max(height, width)
    return max(1, round(height * zoom)), max(1, round(width * zoom))


def _fit(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns a picture of that (height, width)."""
    if picture.shape[0] < size[0]:
        rows, columns = (
            np.arange(n) * old // n
            for n, old in zip(size, picture.shape[:2], strict=True)
        )
        return np.ascontiguousarray(picture[rows][:, columns])
    return np.ascontiguousarray(
        bilinear.resample(picture, height=size[0], width=size[1])
    )


def _joined(row: list[np.ndarray], count: int) -> np.ndarray:
    """Returns pictures side by side, with empty ones up to `count`."""
    empty = [np.full_like(row[0], 24)] * (count - len(row))
    return np.concatenate([*row, *empty], axis=1)
