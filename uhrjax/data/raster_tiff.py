"""TIFF, GeoTIFF, BigTIFF and COG through rasterio (extra `geo`), read by window."""

import math
import os
import pathlib
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhrjax.data import raster_source
from uhrjax.tiling import window as windows

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_installed() -> bool:
    """Says whether rasterio can be imported."""
    try:
        import rasterio  # noqa: F401
    except ImportError:
        return False
    return True


class TiffSource(raster_source.Source):
    """A TIFF file; of several images in one, the first and its overviews.

    With `raw`, palette images give indices instead of colours, as masks need.
    """

    def __init__(self, path: pathlib.Path, *, raw: bool, threads: int) -> None:
        self.path, self.scene_id = path, path.stem
        self._threads = threads
        self._levels: dict[int, Any] = {}
        dataset = self._dataset(0)
        self.description = dataset.tags().get("TIFFTAG_IMAGEDESCRIPTION", "")
        shapes = [(dataset.height, dataset.width)]
        for level in range(1, 1 + len(dataset.overviews(1))):
            overview = self._dataset(level)
            shapes.append((overview.height, overview.width))
        self.sizes = tuple(shapes)
        self.bands = dataset.count
        self.dtype = np.dtype(dataset.dtypes[0])
        self.nodata = dataset.nodata
        self._check_blocks(dataset)
        self._read_meaning(dataset)
        self._palette = None if raw else _palette(dataset)
        if self._palette is not None:
            self.bands, self.nodata = self._palette.shape[1], None
            self.alpha = 3 if self.bands == 4 else None
        if not dataset.transform.is_identity:
            self.transform = tuple(dataset.transform)[:6]
        self.crs = dataset.crs.to_wkt() if dataset.crs else None
        self.mpp = _microns(dataset)

    def _check_blocks(self, dataset: Any) -> None:
        contiguous = dataset.interleaving is not None and (
            dataset.interleaving.name == "pixel"
        )
        together = dataset.count if contiguous else 1
        for height, width in dataset.block_shapes[:1]:
            raster_source.check_block(
                self.path, height, width, sample_bytes=self.dtype.itemsize * together
            )

    def _read_meaning(self, dataset: Any) -> None:
        """Finds the alpha band and the mask."""
        kinds = [kind.name for kind in dataset.colorinterp]
        self.alpha = kinds.index("alpha") if "alpha" in kinds else None
        flags = {flag.name for flag in dataset.mask_flag_enums[0]}
        self.masked = "per_dataset" in flags and "alpha" not in flags

    def _dataset(self, level: int) -> Any:
        """Returns the opened level; GDAL keeps a handle for each."""
        if level in self._levels:
            return self._levels[level]
        import rasterio

        # GDAL's own default is 5 % of the memory.
        cache_mb = str(raster_source.CACHE_BYTES // 2**20)
        os.environ.setdefault("GDAL_CACHEMAX", cache_mb)
        options = {"num_threads": self._threads or "ALL_CPUS", "sharing": False}
        if level:
            options["overview_level"] = level - 1
        with warnings.catch_warnings(), raster_source.decoding(self.path):
            # A TIFF without georeference is fine here.
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            self._levels[level] = rasterio.open(self.path, driver="GTiff", **options)
        return self._levels[level]

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        with raster_source.decoding(self.path, window):
            dataset, where = self._dataset(level), _rasterio_window(window)
            if self._palette is not None:
                index = dataset.read(1, window=where)
                return self._palette[index][..., list(bands)]
            found = dataset.read([band + 1 for band in bands], window=where)
            return np.moveaxis(found, 0, -1)

    def mask(self, window: windows.Window, *, level: int) -> np.ndarray:
        with raster_source.decoding(self.path, window):
            dataset = self._dataset(level)
            return dataset.read_masks(1, window=_rasterio_window(window)) > 0

    def close(self) -> None:
        for dataset in self._levels.values():
            dataset.close()
        self._levels.clear()


def _rasterio_window(window: windows.Window) -> Any:
    import rasterio.windows

    return rasterio.windows.Window(window.left, window.top, window.width, window.height)


def _palette(dataset: Any) -> np.ndarray | None:
    """Returns uint8 [values, 3 or 4] colours of the indices, if they are indices."""
    if dataset.colorinterp[0].name != "palette":
        return None
    table = np.zeros((np.iinfo(dataset.dtypes[0]).max + 1, 4), np.uint8)
    table[:, 3] = 255
    for value, colour in dataset.colormap(1).items():
        table[value] = colour
    if dataset.nodata is not None and 0 <= dataset.nodata < len(table):
        table[int(dataset.nodata), 3] = 0
    return table if (table[:, 3] == 0).any() else table[:, :3]


def _microns(dataset: Any) -> tuple[float, float] | None:
    """Returns micrometres per pixel (y, x), if the file says so."""
    if dataset.crs is not None:
        if not dataset.crs.is_projected:
            return None
        a, b, _, d, e, _ = tuple(dataset.transform)[:6]
        metres = dataset.crs.linear_units_factor[1]
        return math.hypot(b, e) * metres * 1e6, math.hypot(a, d) * metres * 1e6
    tags = dataset.tags()
    # Per inch is what programs write that know nothing; per centimetre is meant.
    if not tags.get("TIFFTAG_RESOLUTIONUNIT", "").startswith("3"):
        return None
    x, y = (float(tags.get(f"TIFFTAG_{axis}RESOLUTION", 0)) for axis in "XY")
    return (1e4 / y, 1e4 / x) if x > 0 and y > 0 else None
