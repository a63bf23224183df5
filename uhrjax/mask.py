"""Writes label maps: PNG, or GeoTIFF where the scene has a place on earth."""

from __future__ import annotations

import importlib.util
import os
import pathlib

import cv2
import numpy as np

from uhrjax import errors
from uhrjax.data import prepared


def write_mask(
    folder: pathlib.Path,
    labels: np.ndarray,
    scene: prepared.SceneInfo,
    colours: tuple[tuple[int, int, int], ...],
    classes: tuple[str, ...],
) -> pathlib.Path:
    """Writes one label map; it appears under its final name when it is complete.

    Args:
        folder: exists.
        labels: [H, W] uint8 class ids.
        scene: gives the name, and CRS and transform for a GeoTIFF.
        colours: of the classes, the GeoTIFF's colour table.
        classes: names, in the GeoTIFF's tags.

    Returns:
        The file: `<scene id>.tif` (tiled, deflate) or `<scene id>.png`.
    """
    stem = scene.id.replace("/", "_")
    path = folder / (stem + (".tif" if scene.crs else ".png"))
    part = path.with_name("." + path.name)
    try:
        if scene.crs:
            _write_geotiff(part, labels, scene, colours, classes)
        else:
            ok, coded = cv2.imencode(".png", labels)
            if not ok:
                raise errors.InputError(
                    f"a label map of {labels.shape} px does not fit a PNG file"
                )
            part.write_bytes(coded.tobytes())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _write_geotiff(
    path: pathlib.Path,
    labels: np.ndarray,
    scene: prepared.SceneInfo,
    colours: tuple[tuple[int, int, int], ...],
    classes: tuple[str, ...],
) -> None:
    if importlib.util.find_spec("rasterio") is None:
        raise errors.InputError(
            "writing a mask with its place on earth needs rasterio: "
            "pip install 'uhrjax[geo]' (or set --config.eval.masks=false)"
        )
    import rasterio
    import rasterio.windows

    height, width = labels.shape
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256}
    with rasterio.open(
        path, "w", driver="GTiff", height=height, width=width, count=1, dtype="uint8",
        crs=rasterio.crs.CRS.from_wkt(scene.crs),
        transform=rasterio.Affine(*scene.transform), compress="deflate",
        BIGTIFF="IF_SAFER", **(layout if min(height, width) >= 256 else {}),
    ) as file:  # fmt: skip
        for top in range(0, height, 1024):
            rows = np.ascontiguousarray(labels[top : top + 1024])
            at = rasterio.windows.Window(0, top, width, len(rows))
            file.write(rows, 1, window=at)
        file.write_colormap(1, {i: (*c, 255) for i, c in enumerate(colours)})
        file.update_tags(**{f"class_{i}": name for i, name in enumerate(classes)})
