"""Reads image and mask files by window: PNG, JPEG, TIFF and GeoTIFF, told by content.

PNG and JPEG are decoded whole (they offer nothing else); TIFF is read by window with
rasterio, so that a scene larger than the memory passes through in bands.
"""

import dataclasses
import os
import pathlib
import struct
import warnings
from typing import Any

import numpy as np
from PIL import Image

from uhrjax import errors
from uhrjax.tiling import window as windows

# Ultra-high-resolution scenes are above Pillow's guard against decompression bombs.
Image.MAX_IMAGE_PIXELS = None

TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError)
GDAL_CACHE_BYTES = 128 * 2**20  # per process; GDAL's own default is 5 % of the memory


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about itself before its pixels are read."""

    height: int
    width: int
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = None  # affine a, b, c, d, e, f
    streams: bool = False  # windows can be read without decoding the whole


class Raster:
    """An open file: raw values by window."""

    def __init__(self, path: pathlib.Path, *, mask: bool) -> None:
        self.path = path
        self.header = read_header(path, mask=mask)
        self._mask = mask
        self._array: np.ndarray | None = None
        self._dataset: Any = None
        if self.header.streams:
            self._dataset = _open_tiff(path)
        else:
            self._array = _decode(path, mask=mask)

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns a window, 0 beyond the border.

        Returns:
            An image: [h, w, 3] uint8. A mask: [h, w] of its integer type, or
            [h, w, 3] uint8 if it holds colours.
        """
        if self._array is not None:
            return windows.cut(self._array, window, fill=0)
        header = self.header
        inside = windows.intersect(window, height=header.height, width=header.width)
        pixels = _read_tiff(self._dataset, inside, self.path)
        pixels = _shape_mask(pixels) if self._mask else _to_rgb(pixels)
        return windows.paste(pixels, inside, window, fill=0)

    def close(self) -> None:
        """Frees the file and the pixels."""
        self._array = None
        if self._dataset is not None:
            self._dataset.close()


def read_header(path: pathlib.Path, *, mask: bool) -> Header:
    """Reads size, bands and georeference, without the pixels.

    Raises:
        errors.InputError: empty, no image, or samples that are not supported.
    """
    if os.path.getsize(path) == 0:
        raise errors.InputError(f"{path}: the file is empty (0 bytes)")
    with open(path, "rb") as file:
        magic = file.read(25)
    if magic[:4] in TIFF_MAGIC:
        return _tiff_header(path, mask=mask)
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            mode, (width, height) = image.mode, image.size
    except BROKEN as error:
        raise errors.InputError(
            f"{path}: not a readable PNG, JPEG or TIFF image ({_reason(error)})"
        ) from error
    # Pillow would cut 16 bit colours down to 8 without a word.
    deep = magic.startswith(b"\x89PNG") and magic[24] > 8
    if deep and not (mask and mode.startswith("I")):
        raise errors.InputError(_depth_message(path, f"{magic[24]} bit per sample"))
    return Header(height, width)


def _decode(path: pathlib.Path, *, mask: bool) -> np.ndarray:
    try:
        with Image.open(path) as image:
            image.load()
            if mask:
                return _shape_mask(_mask_values(image))
            return np.asarray(image.convert("RGB"))
    except BROKEN as error:
        raise errors.InputError(
            f"{path}: truncated or damaged, it does not decode ({_reason(error)})"
        ) from error


def _mask_values(image: Image.Image) -> np.ndarray:
    """Returns ids (palette images: the index) or RGB colours."""
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8)
    if image.mode in ("L", "P") or image.mode.startswith("I"):
        return np.asarray(image)
    if image.mode in ("LA", "PA"):
        return np.asarray(image)[..., 0]
    return np.asarray(image.convert("RGB"))


def _shape_mask(values: np.ndarray) -> np.ndarray:
    """Drops alpha and single-band axes: [h, w] or [h, w, 3]."""
    if values.ndim == 2:
        return values
    return values[..., :3] if values.shape[2] >= 3 else values[..., 0]


def _to_rgb(values: np.ndarray) -> np.ndarray:
    if values.shape[2] >= 3:
        return np.ascontiguousarray(values[..., :3])
    return np.repeat(values[..., :1], 3, axis=2)


def _tiff_header(path: pathlib.Path, *, mask: bool) -> Header:
    dataset = _open_tiff(path)
    try:
        kinds = set(dataset.dtypes)
        if mask and not kinds <= {"uint8", "uint16", "int16", "uint32", "int32"}:
            raise errors.InputError(
                f"{path}: a mask holds {'/'.join(sorted(kinds))} values; store "
                "class ids as integers"
            )
        if not mask and kinds != {"uint8"}:
            raise errors.InputError(_depth_message(path, "/".join(sorted(kinds))))
        if dataset.count not in (1, 2, 3, 4):
            raise errors.InputError(
                f"{path}: {dataset.count} bands; allowed are 1 (grey) and 3 (RGB), "
                "with or without alpha: choose, e.g. gdal_translate -b 3 -b 2 -b 1"
            )
        if not mask and "palette" in {kind.name for kind in dataset.colorinterp}:
            raise errors.InputError(
                f"{path}: a TIFF with a palette; expand it to colours: "
                "gdal_translate -expand rgb"
            )
        moved = not dataset.transform.is_identity
        transform = tuple(dataset.transform)[:6] if moved else None
        crs = dataset.crs.to_wkt() if dataset.crs else None
        return Header(dataset.height, dataset.width, crs, transform, streams=True)
    finally:
        dataset.close()


def _open_tiff(path: pathlib.Path) -> Any:
    try:
        import rasterio
    except ImportError as error:
        raise errors.InputError(
            f"{path}: reading TIFF needs rasterio; run: pip install 'uhrjax[geo]'"
        ) from error
    os.environ.setdefault("GDAL_CACHEMAX", str(GDAL_CACHE_BYTES // 2**20))
    with warnings.catch_warnings():  # a TIFF without georeference is fine here
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        try:
            return rasterio.open(path)
        except rasterio.errors.RasterioError as error:
            raise errors.InputError(
                f"{path}: not a readable TIFF ({_reason(error)})"
            ) from error


def _read_tiff(dataset: Any, inside: windows.Window, path: pathlib.Path) -> np.ndarray:
    """Returns [h, w, bands] of a window inside the file."""
    import rasterio

    if not (inside.height and inside.width):
        return np.zeros((inside.height, inside.width, dataset.count), np.uint8)
    where = rasterio.windows.Window(
        inside.left, inside.top, inside.width, inside.height
    )
    try:
        return np.moveaxis(dataset.read(window=where), 0, -1)
    except rasterio.errors.RasterioError as error:
        raise errors.InputError(
            f"{path}: truncated or damaged, rows {inside.top} to "
            f"{inside.top + inside.height} do not decode ({_reason(error)})"
        ) from error


def _depth_message(path: pathlib.Path, found: str) -> str:
    return (
        f"{path}: an image with {found}; only 8 bit samples are taken: rescale it, "
        "e.g. gdal_translate -ot Byte -scale"
    )


def _reason(error: BaseException) -> str:
    text = str(error.__cause__ or error).strip().splitlines()
    return text[0] if text else type(error).__name__
