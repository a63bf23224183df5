"""PNG and JPEG files: decoded whole at the first read, as they offer nothing else.

Pixels stay as they are stored: an EXIF rotation is not applied, so that masks fit.
"""

import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from uhrjax import errors
from uhrjax.data import raster_source
from uhrjax.tiling import window as windows

# Pillow guards against decompression bombs by a limit that ultra-high-resolution
# scenes exceed; `_check_size` compares a header with the bytes that follow it instead.
Image.MAX_IMAGE_PIXELS = None

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
PNG_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
DEFLATE_RATIO = 1032  # the most that deflate can shrink anything by
JPEG_PX_PER_BYTE = 1024  # above what an image of one colour reaches
PEAK_BYTES_PER_PX = 8  # Pillow's copy and ours


class ImageSource(raster_source.Source):
    """A PNG or JPEG file.

    With `raw`, palette images give indices instead of colours, as masks need.
    """

    streams = False

    def __init__(self, path: pathlib.Path, *, raw: bool) -> None:
        self.path, self.scene_id, self._raw = path, path.stem, raw
        self._pixels: np.ndarray | None = None
        with open(path, "rb") as file:
            magic = file.read(26)
        self._is_png = magic.startswith(PNG_MAGIC)
        self._depth = magic[24] if self._is_png and len(magic) > 25 else 8
        with raster_source.decoding(path), Image.open(path, formats=FORMATS) as image:
            self._mode = _wanted_mode(image, raw=raw)
            width, height = image.size
        _check_size(path, height, width, magic if self._is_png else None)
        self.sizes = ((height, width),)
        self.bands = len(Image.new(self._mode, (1, 1)).getbands())
        self._is_deep_colour = self._depth == 16 and not self._mode.startswith("I")
        if self._is_deep_colour:  # Pillow knows 16 bit in grey images only
            self.bands = PNG_BANDS[magic[25]]
        self.dtype = np.dtype(np.uint16 if self._depth == 16 else np.uint8)
        self.alpha = self.bands - 1 if self.bands in (2, 4) else None

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        if self._pixels is None:
            whole = windows.Window(0, 0, *self.sizes[0])
            with raster_source.decoding(self.path, whole):
                self._pixels = self._decode()
        cut = windows.cut(self._pixels, window, fill=0)
        return cut if list(bands) == [*range(self.bands)] else cut[..., list(bands)]

    def _decode(self) -> np.ndarray:
        with Image.open(self.path, formats=FORMATS) as image:
            image.load()  # finds truncation, which OpenCV would not
            if not self._is_deep_colour:
                if image.mode != self._mode:
                    image = image.convert(self._mode)
                pixels = np.asarray(image)
                return pixels.reshape(*pixels.shape[:2], -1).astype(self.dtype)
        coded = np.fromfile(self.path, np.uint8)
        pixels = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.shape[2] >= 3:  # OpenCV's order is B, G, R
            pixels[..., :3] = pixels[..., 2::-1].copy()
        if pixels.dtype != self.dtype or pixels.shape[2] < self.bands:
            raise ValueError(f"decodes to {pixels.shape[2]} bands of {pixels.dtype}")
        return pixels[..., [*range(self.bands - 1), pixels.shape[2] - 1]]

    def close(self) -> None:
        self._pixels = None


FORMATS = ("PNG", "JPEG")


def _wanted_mode(image: Image.Image, *, raw: bool) -> str:
    """Returns the Pillow mode whose bands are the values we hand out."""
    mode = image.mode
    if mode in ("L", "LA", "RGB", "RGBA") and (raw or not image.has_transparency_data):
        return mode
    if raw and mode in ("1", "P", "PA"):
        return mode
    if mode.startswith("I"):
        return mode
    if image.has_transparency_data:
        return "LA" if mode == "LA" else "RGBA"
    return "L" if mode == "1" else "RGB"


def _check_size(
    path: pathlib.Path, height: int, width: int, png_header: bytes | None
) -> None:
    """Refuses sizes that the file cannot hold, before memory is taken for them."""
    stored = os.path.getsize(path)
    if png_header:
        bits = png_header[24] * PNG_BANDS.get(png_header[25], 1)
        possible = height * ((width * bits + 7) // 8) <= DEFLATE_RATIO * stored
    else:
        possible = height * width <= JPEG_PX_PER_BYTE * stored
    if not possible:
        raise errors.InputError(
            f"{path}: the header says {height} x {width} px, but the file has only "
            f"{stored} bytes: truncated or damaged; copy or export the file again"
        )
    needed = height * width * PEAK_BYTES_PER_PX
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > available:
        raise errors.InputError(
            f"{path}: {height} x {width} px take {needed / 2**30:.0f} GB to decode, "
            f"this machine has {available / 2**30:.0f} GB; a tiled TIFF is read by "
            "window: gdal_translate -co TILED=YES -co COMPRESS=DEFLATE"
        )
