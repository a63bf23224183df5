"""Scenes, label maps and probabilities for the tests of the output files."""

import numpy as np
import rasterio

from uhrjax import output
from uhrjax.data import prepared

CLASSES = ("ground", "water", "Gebäude")
COLOURS = ((10, 20, 30), (0, 0, 255), (255, 128, 0))
UTM = rasterio.crs.CRS.from_epsg(32636).to_wkt()
ROTATED = (0.5, 0.1, 450000.0, 0.1, -0.5, 30000.0)


def scene(height, width, *, crs=None, transform=None, name="scene"):
    return prepared.SceneInfo(name, height, width, crs, transform)


def draw_labels(height, width, seed=0):
    """Blobs of the three classes, and some pixels without one."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 3, (height // 7 + 1, width // 7 + 1)).astype(np.uint8)
    labels = coarse.repeat(7, axis=0).repeat(7, axis=1)[:height, :width].copy()
    labels[rng.random(labels.shape) < 0.02] = 255
    return labels


def draw_probabilities(labels, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.random((*labels.shape, 3), np.float32)
    scores += 2 * (labels[..., None] == np.arange(3))
    return (scores / scores.sum(-1, keepdims=True)).astype(np.float32)


def open_writer(folder, info, *, fingerprint="f", source=None, **options):
    return output.SceneWriter(
        folder, info, CLASSES, COLOURS, output.OutputOptions(**options),
        fingerprint=fingerprint, source=source,
    )  # fmt: skip


def write_rows(writer, labels, *, until=None, step=5, scores=None):
    """Writes from where the writer stands."""
    until = len(labels) if until is None else until
    while (top := writer.rows_done) < until:
        part = slice(top, min(top + step, until))
        rows = None if scores is None else scores[part]
        writer.write_rows(top, labels[part], rows)


def write(folder, info, labels, *, scores=None, **options):
    with open_writer(folder, info, **options) as writer:
        write_rows(writer, labels, scores=scores)
        return writer.finish()


def contents(folder):
    """Every file below a folder: name -> bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
