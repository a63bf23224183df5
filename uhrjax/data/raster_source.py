"""What every file format of `raster` is turned into: raw values by window.

The formats are in `raster_image` (PNG, JPEG), `raster_tiff` (rasterio), `raster_slide`
(OpenSlide, tifffile) and `raster_array` (.npy, zarr, prepared scenes).
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from uhrjax import errors
from uhrjax.tiling import window as windows

CACHE_BYTES = 128 * 2**20  # of decoded blocks, per process or file
MAX_BLOCK_BYTES = 2**31  # of one stored tile or strip, decoded


class Source:
    """An open file: raw values by window, at every resolution that it stores."""

    path: pathlib.Path
    scene_id: str
    sizes: tuple[
        tuple[int, int], ...
    ]  # (height, width) px by level, the full one first
    bands: int
    dtype: np.dtype
    alpha: int | None = None  # index of the band that holds the opacity
    nodata: float | None = None  # a pixel with this value in all bands is none
    masked: bool = False  # `mask` has something to say
    crs: str | None = None  # WKT
    transform: tuple[float, ...] | None = None  # of level 0: affine a, b, c, d, e, f
    mpp: tuple[float, float] | None = None  # of level 0: micrometres per pixel, (y, x)
    streams: bool = True  # windows are read without decoding the whole file

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        """Returns raw values.

        Args:
            window: not empty, inside the level.
            level: index into `sizes`.
            bands: N indices of bands.

        Returns:
            [h, w, N] `dtype`.
        """
        raise NotImplementedError

    def mask(self, window: windows.Window, *, level: int) -> np.ndarray:
        """Returns bool [h, w]: where the file's own mask says there are pixels."""
        raise NotImplementedError

    def close(self) -> None:
        """Frees the file and the caches."""


@contextlib.contextmanager
def decoding(
    path: os.PathLike | str, window: windows.Window | None = None
) -> Iterator[None]:
    """Turns whatever a decoder raises on damaged bytes into one sentence."""
    try:
        yield
    except errors.InputError:
        raise
    except Exception as error:  # decoders raise nearly anything on damaged bytes
        if window is None:
            what = "it does not open"
        else:
            what = (
                f"the window of {window.height} x {window.width} px at row "
                f"{window.top}, column {window.left} does not decode"
            )
        raise errors.InputError(
            f"{path}: truncated or damaged, {what} ({reason(error)}); copy or export "
            "the file again"
        ) from error


def reason(error: BaseException) -> str:
    """Returns the first line of what a library says."""
    text = str(error.__cause__ or error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def missing_extra(path: os.PathLike | str, extra: str, what: str) -> errors.InputError:
    """Returns the error for a format whose library is not installed."""
    return errors.InputError(
        f"{path}: reading {what}; run: pip install 'uhrjax[{extra}]'"
    )


def check_block(
    path: os.PathLike | str, height: int, width: int, *, sample_bytes: int
) -> None:
    """Refuses a stored tile or strip that cannot be decoded in bounded memory."""
    if height * width * sample_bytes > MAX_BLOCK_BYTES:
        raise errors.InputError(
            f"{path}: stored in blocks of {height} x {width} px, which do not fit the "
            "memory, or damaged; rewrite it tiled: gdal_translate -co TILED=YES"
        )
