"""Whole-slide images through OpenSlide, OME-TIFF through tifffile (extra `wsi`)."""

import concurrent.futures
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhrjax import errors
from uhrjax.data import raster_source
from uhrjax.tiling import window as windows

ENDINGS = (
    ".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi",
)  # fmt: skip
GENERIC = "generic-tiff"  # what OpenSlide calls a tiled TIFF of no scanner
ROWS = 512  # px, of a read that one thread does
MICRONS = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1, "um": 1, "nm": 1e-3}


def is_installed() -> bool:
    """Says whether OpenSlide can be imported."""
    try:
        import openslide  # noqa: F401
    except ImportError:
        return False
    return True


def vendor_of(path: pathlib.Path) -> str:
    """Returns the scanner that wrote a slide; "" if none did or none can be told."""
    if not is_installed():
        return ""
    import openslide

    vendor = openslide.OpenSlide.detect_format(path)
    return "" if vendor in (None, GENERIC) else vendor


def open_slide(path: pathlib.Path, *, threads: int) -> raster_source.Source:
    """Opens a slide of a scanner that OpenSlide knows."""
    if not is_installed():
        raise raster_source.missing_extra(
            path, "wsi", "a whole-slide image needs openslide-python"
        )
    return SlideSource(path, threads=threads)


def open_pages(path: pathlib.Path, *, threads: int) -> raster_source.Source:
    """Opens an OME-TIFF, whose bands and levels may be pages of their own."""
    try:
        import tifffile  # noqa: F401
    except ImportError as error:
        raise raster_source.missing_extra(
            path, "wsi", "OME-TIFF needs tifffile"
        ) from error
    return PagesSource(path, threads=threads)


class SlideSource(raster_source.Source):
    """A whole-slide image; what was not scanned is transparent and white."""

    bands, alpha, dtype = 4, 3, np.dtype(np.uint8)

    def __init__(self, path: pathlib.Path, *, threads: int) -> None:
        import openslide

        self.path, self.scene_id = path, path.stem
        with raster_source.decoding(path):
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(openslide.OpenSlideCache(raster_source.CACHE_BYTES))
            stored = self._slide.level_dimensions
            properties = dict(self._slide.properties)
        self.sizes = tuple((height, width) for width, height in stored)
        x, y = (float(properties.get(f"openslide.mpp-{axis}", 0)) for axis in "xy")
        self.mpp = (y, x) if x > 0 and y > 0 else None
        self._threads = threads or os.cpu_count() or 1
        self._pool = concurrent.futures.ThreadPoolExecutor(self._threads)
        self._last: tuple[Any, np.ndarray] | None = None  # pixels, then their alpha

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        key = (window, level)
        if self._last is None or self._last[0] != key:
            with raster_source.decoding(self.path, window):
                self._last = (key, self._read_all(window, level))
        return self._last[1][..., list(bands)]

    def _read_all(self, window: windows.Window, level: int) -> np.ndarray:
        rows = max(ROWS, math.ceil(window.height / (4 * self._threads)))
        parts = [
            window._replace(top=top, height=min(rows, window.top + window.height - top))
            for top in range(window.top, window.top + window.height, rows)
        ]
        done = self._pool.map(lambda part: self._read_part(part, level), parts)
        return np.concatenate(list(done))

    def _read_part(self, window: windows.Window, level: int) -> np.ndarray:
        full, size = self.sizes[0], self.sizes[level]
        top = round(window.top * full[0] / size[0])  # in px of level 0
        left = round(window.left * full[1] / size[1])
        region = self._slide.read_region(
            (left, top), level, (window.width, window.height)
        )
        pixels = np.array(region)
        pixels[pixels[..., 3] == 0, :3] = 255
        return pixels

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._slide.close()
        self._last = None


class PagesSource(raster_source.Source):
    """The first image of an OME-TIFF: YX, YXS, SYX or CYX, with its reduced levels."""

    def __init__(self, path: pathlib.Path, *, threads: int) -> None:
        import tifffile

        self.path, self.scene_id = path, path.stem
        with raster_source.decoding(path):
            self._file = tifffile.TiffFile(path)
            self._file.filehandle.set_lock(True)
            series = self._file.series[0]
            self._levels = [list(level.pages) for level in series.levels]
            if any(None in level for level in self._levels):
                raise ValueError("its description names pages that are not there")
            kept = [
                (axis, length)
                for axis, length in zip(series.axes, series.shape, strict=True)
                if length > 1 or axis in "YXS"
            ]
            axes = "".join(axis for axis, _ in kept)
            shape = tuple(length for _, length in kept)
            page = self._levels[0][0].keyframe
            self._samples = page.samplesperpixel
            self.bands = self._samples * len(self._levels[0])
            self.dtype = np.dtype(page.dtype)
            sizes = [level[0].keyframe for level in self._levels]
            self.sizes = tuple((k.imagelength, k.imagewidth) for k in sizes)
            for key in sizes:
                self._check(key)
            opacity = self.bands in (2, 4) and any(page.extrasamples[:1])
            self.alpha = self.bands - 1 if opacity else None
            self.mpp = _ome_microns(self._file.ome_metadata or "")
        if set(axes) - set("YXSC") or len(self._levels[0]) * math.prod(
            (*self.sizes[0], self._samples)
        ) != math.prod(shape):
            raise errors.InputError(
                f"{path}: an image of axes {axes}, {shape}; a scene has one plane of "
                "Y, X and channels: export one plane"
            )
        self._pool = concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count())

    def _check(self, page: Any) -> None:
        height, width = _block_shape(page)
        samples = page.samplesperpixel if page.planarconfig == 1 else 1
        size = samples * self.dtype.itemsize
        raster_source.check_block(self.path, height, width, sample_bytes=size)

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        pixels = np.zeros((window.height, window.width, len(bands)), self.dtype)
        jobs = []
        for page_index, page in enumerate(self._levels[level]):
            own = [
                (place, band - page_index * self._samples)
                for place, band in enumerate(bands)
                if 0 <= band - page_index * self._samples < self._samples
            ]
            jobs += self._plan(page, window, own)
        with raster_source.decoding(self.path, window):
            decoded = self._pool.map(lambda job: self._decode(job[0], job[1]), jobs)
            for (_, _, top, left, pairs), block in zip(jobs, decoded, strict=True):
                if block is not None:
                    _paste_block(pixels, window, block, top, left, pairs)
        return pixels

    def _plan(
        self, page: Any, window: windows.Window, own: list[tuple[int, int]]
    ) -> list[tuple[Any, int, int, int, list[tuple[int, int]]]]:
        """Returns (page, block, top, left, [(place, sample)]) of what to decode."""
        key = page.keyframe
        height, width = _block_shape(key)
        across, down = -(-key.imagewidth // width), -(-key.imagelength // height)
        planes = [(0, own)] if own else []
        if key.planarconfig == 2:
            planes = [(sample, [(place, 0)]) for place, sample in own]
        bottom, right = window.top + window.height, window.left + window.width
        return [
            (page, (plane * down + row) * across + column, row * height,
             column * width, pairs)
            for plane, pairs in planes
            for row in range(window.top // height, -(-bottom // height))
            for column in range(window.left // width, -(-right // width))
        ]  # fmt: skip

    def _decode(self, page: Any, block: int) -> np.ndarray | None:
        """Returns one stored tile or strip [h, w, samples]; None if it is left out."""
        offset, size = page.dataoffsets[block], page.databytecounts[block]
        if not size:
            return None
        handle = page.parent.filehandle
        with handle.lock:
            handle.seek(offset)
            coded = handle.read(size)
        if len(coded) < size:
            raise EOFError(f"block {block} ends {size - len(coded)} bytes too early")
        tables = {}
        if page.keyframe.compression in (6, 7, 34892, 33007):  # JPEG
            tables = {
                "jpegtables": page.jpegtables,
                "jpegheader": page.keyframe.jpegheader,
            }
        return page.keyframe.decode(coded, block, **tables)[0][0]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._file.close()


def _block_shape(page: Any) -> tuple[int, int]:
    """Returns (height, width) px of a page's tiles or strips."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _paste_block(
    pixels: np.ndarray,
    window: windows.Window,
    block: np.ndarray,
    top: int,
    left: int,
    pairs: Sequence[tuple[int, int]],
) -> None:
    """Copies what a decoded block at (top, left) shares with the window."""
    inside = windows.Window(top - window.top, left - window.left, *block.shape[:2])
    shared = windows.intersect(inside, height=window.height, width=window.width)
    part = block[
        shared.top - inside.top : shared.top - inside.top + shared.height,
        shared.left - inside.left : shared.left - inside.left + shared.width,
    ]
    rows = slice(shared.top, shared.top + shared.height)
    columns = slice(shared.left, shared.left + shared.width)
    for place, sample in pairs:
        pixels[rows, columns, place] = part[..., sample]


def _ome_microns(description: str) -> tuple[float, float] | None:
    """Returns micrometres per pixel (y, x) of OME-XML."""
    found = []
    for axis in "YX":
        size = re.search(f'PhysicalSize{axis}="([0-9.eE+-]+)"', description)
        unit = re.search(f'PhysicalSize{axis}Unit="([^"]+)"', description)
        factor = MICRONS.get(unit[1] if unit else "µm")
        if not size or not factor or not float(size[1]) > 0:
            return None
        found.append(float(size[1]) * factor)
    return found[0], found[1]
