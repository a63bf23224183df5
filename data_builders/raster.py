"""Reads the image and mask files of raw data sets by window, told by content.

The formats are those of `uhrjax.data.raster`; a mask keeps its stored values.
"""

import dataclasses
import pathlib

import numpy as np

from uhrjax import errors
from uhrjax.data import raster, raster_source
from uhrjax.tiling import window as windows

MASK_KINDS = ("uint8", "uint16", "int16", "uint32", "int32")
OPTIONS = raster.ReadOptions(threads=1)  # the processes are the parallelism


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are read."""

    height: int
    width: int
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = None  # affine a, b, c, d, e, f
    streams: bool = False  # windows can be read without decoding the whole


class Mask:
    """An open mask file: raw values by window."""

    def __init__(self, path: pathlib.Path) -> None:
        self._source = _open_mask(path)
        self.size = self._source.sizes[0]  # (height, width), px

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns the ids or colours of a window inside the file.

        Returns:
            [h, w] of the file's integer type, or [h, w, 3] if it holds colours; alpha
            is dropped.
        """
        bands = range(3) if self._source.bands >= 3 else range(1)
        if not (window.height and window.width):
            return np.zeros((window.height, window.width), np.uint8)
        values = self._source.read(window, level=0, bands=bands)
        return values if len(bands) == 3 else values[..., 0]

    def close(self) -> None:
        """Frees the file and the pixels."""
        self._source.close()


def open_image(path: pathlib.Path) -> raster.Scene:
    """Opens an image file."""
    return raster.open_scene(path, OPTIONS)


def read_header(path: pathlib.Path, *, mask: bool) -> Header:
    """Reads size, bands and georeference, without the pixels.

    Raises:
        errors.InputError: empty, no image, or samples that are not supported.
    """
    if mask:
        source = _open_mask(path)
        source.close()
        height, width = source.sizes[0]
        return Header(height, width, source.crs, source.transform, source.streams)
    with open_image(path) as scene:
        info = scene.info
        return Header(info.height, info.width, info.crs, info.transform, scene.streams)


def _open_mask(path: pathlib.Path) -> raster_source.Source:
    source = raster.open_source(path, raw=True, threads=OPTIONS.threads)
    wrong = ""
    if source.dtype.name not in MASK_KINDS:
        wrong = f"{source.dtype} values; store class ids as integers"
    elif source.bands > 4:
        wrong = f"{source.bands} bands; store one band of ids, or RGB colours"
    if wrong:
        source.close()
        raise errors.InputError(f"{path}: a mask holds {wrong}")
    return source
