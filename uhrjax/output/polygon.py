"""Regions of a label map as polygons: GeoJSON or GeoPackage.

GDAL walks over the stored map line by line, so memory grows with the number of corners,
not of pixels: about 1 kB per region. A noisy map of a huge scene is the bad case;
`polygon_min_px` makes the file smaller, not the memory.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import struct
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import numpy as np

from uhrjax.data import prepared
from uhrjax.output import legend as legend_lib

BATCH = 1000  # polygons transformed and written at a time
DECIMALS = 9  # of degrees: 0.1 mm


class Region(NamedTuple):
    """A region of one class whose pixels share sides."""

    class_id: int
    pixels: int
    rings: list[np.ndarray]  # [n, 2] float64 (x, y); the outer one, then holes


def write(
    path: pathlib.Path,
    labels: pathlib.Path,
    scene: prepared.SceneInfo,
    legend: legend_lib.Legend,
    *,
    min_px: int,
) -> None:
    """Writes the regions of every class, with `class_id`, `class` and `pixels`.

    GeoJSON is in degrees (EPSG:4326), GeoPackage in the CRS of the scene. Without a CRS
    or a transform both are in pixels: x to the right, y down from the top left corner.

    Args:
        path: ends with .geojson or .gpkg.
        labels: the stored label map.
        scene: gives CRS and transform.
        legend: names of the classes; other values become no polygon.
        min_px: regions of fewer pixels are left out.
    """
    regions = (
        region
        for region in _regions(labels)
        if region.class_id < len(legend.classes) and region.pixels >= min_px
    )
    crs = scene.crs if scene.transform is not None else None
    if crs:
        regions = (_moved(region, scene.transform) for region in regions)
    if path.suffix == ".gpkg":
        _write_geopackage(path, regions, crs, legend, layer=labels.stem)
    else:
        with path.open("w", encoding="utf-8") as file:
            _write_geojson(file, regions, crs, legend)


def _regions(labels: pathlib.Path) -> Iterator[Region]:
    """Yields the regions in pixel coordinates."""
    import rasterio
    import rasterio.features

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(labels) as file:
            back = tuple(~file.transform)[:6]  # GDAL has applied the file's transform
            for shape, value in rasterio.features.shapes(rasterio.band(file, 1)):
                rings = [
                    np.rint(_transformed(np.array(ring), back))
                    for ring in shape["coordinates"]
                ]
                sizes = [abs(_signed_area(ring)) for ring in rings]
                yield Region(int(value), round(sizes[0] - sum(sizes[1:])), rings)


def _signed_area(ring: np.ndarray) -> float:
    """Positive where the ring runs counterclockwise (y up)."""
    x, y = (ring - ring[0]).T  # near 0: exact for any pixel coordinates
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1])) / 2


def _transformed(ring: np.ndarray, transform: tuple[float, ...]) -> np.ndarray:
    a, b, c, d, e, f = transform[:6]
    return ring @ np.array([[a, d], [b, e]]) + np.array([c, f])


def _moved(region: Region, transform: tuple[float, ...]) -> Region:
    return region._replace(
        rings=[_transformed(ring, transform) for ring in region.rings]
    )


def _batches(regions: Iterator[Region]) -> Iterator[list[Region]]:
    while batch := list(itertools.islice(regions, BATCH)):
        yield batch


def _write_geojson(
    file: TextIO,
    regions: Iterator[Region],
    crs: str | None,
    legend: legend_lib.Legend,
) -> None:
    file.write('{"type": "FeatureCollection", "features": [')
    comma = "\n"
    for batch in _batches(regions):
        if crs:
            batch = _to_degrees(batch, crs)
        for region in batch:
            rings = [
                _turned(ring, is_outer=i == 0).round(DECIMALS).tolist()
                for i, ring in enumerate(region.rings)
            ]
            feature = {
                "type": "Feature",
                "properties": {
                    "class_id": region.class_id,
                    "class": legend.classes[region.class_id],
                    "pixels": region.pixels,
                },
                "geometry": {"type": "Polygon", "coordinates": rings},
            }
            file.write(comma + json.dumps(feature, ensure_ascii=False))
            comma = ",\n"
    file.write("\n]}\n")


def _to_degrees(batch: list[Region], crs: str) -> list[Region]:
    import rasterio.warp

    rings = [ring for region in batch for ring in region.rings]
    xs, ys = np.concatenate(rings).T
    source = rasterio.crs.CRS.from_wkt(crs)
    moved = np.stack(rasterio.warp.transform(source, "EPSG:4326", xs, ys)[:2], axis=1)
    ends = np.cumsum([len(ring) for ring in rings])[:-1]
    split = iter(np.split(moved, ends))
    return [
        region._replace(rings=[next(split) for _ in region.rings]) for region in batch
    ]


def _turned(ring: np.ndarray, *, is_outer: bool) -> np.ndarray:
    """Outer rings run counterclockwise, holes clockwise (RFC 7946, section 3.1.6)."""
    return ring if (_signed_area(ring) > 0) == is_outer else ring[::-1]


def _write_geopackage(
    path: pathlib.Path,
    regions: Iterator[Region],
    crs: str | None,
    legend: legend_lib.Legend,
    *,
    layer: str,
) -> None:
    import pyogrio
    import pyogrio.errors
    import pyogrio.raw

    count = 0
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'crs' was not provided")
            for batch in itertools.chain([[]], _batches(regions)):  # a layer if empty
                pyogrio.raw.write(
                    path, **_columns(batch, legend), layer=layer, driver="GPKG",
                    geometry_type="Polygon", crs=crs, append=bool(batch),
                )  # fmt: skip
                count += len(batch)
        stored = pyogrio.read_info(path, layer=layer)["features"]
    except (RuntimeError, ValueError) as error:  # what pyogrio's errors derive from
        raise OSError(f"GDAL says: {error}") from error
    if stored != count:
        raise OSError(f"of {count} polygons {stored} were stored (disk full?)")


def _columns(batch: list[Region], legend: legend_lib.Legend) -> dict[str, Any]:
    names = [legend.classes[region.class_id] for region in batch]
    geometry = np.empty(len(batch), object)
    geometry[:] = [_wkb(region) for region in batch]
    return {
        "geometry": geometry,
        "fields": ["class_id", "class", "pixels"],
        "field_data": [
            np.array([region.class_id for region in batch], np.int32),
            np.array(names, object),
            np.array([region.pixels for region in batch], np.int64),
        ],
    }


def _wkb(region: Region) -> bytes:
    parts = [struct.pack("<BII", 1, 3, len(region.rings))]  # little endian, Polygon
    for ring in region.rings:
        parts += [struct.pack("<I", len(ring)), ring.astype("<f8").tobytes()]
    return b"".join(parts)
