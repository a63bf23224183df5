"""Stored values to RGB bytes: which bands, what is black and white, what is nodata."""

from collections.abc import Sequence

import numpy as np

from uhrjax import errors
from uhrjax.data import raster_source
from uhrjax.tiling import window as windows


class Rendering:
    """How the values of one file become RGB bytes."""

    def __init__(
        self,
        source: raster_source.Source,
        *,
        bands: Sequence[int],
        scale: Sequence[float],
    ) -> None:
        """Settles it, or refuses what is not said.

        Args:
            source: the file.
            bands: one or three, counted from 1; (): those it has, if they are 1 or 3.
            scale: (low, high), which become 0 and 255; () for values that are bytes.

        Raises:
            errors.InputError: the file needs a choice, or does not have the bands.
        """
        self.bands = _choose_bands(source, bands)  # indices
        self._scale = tuple(scale)
        self._nodata = source.nodata
        self.has_nodata = source.nodata is not None or source.dtype.kind == "f"
        self._check_depth(source)
        self._table = None
        if self._scale and source.dtype.kind in "iu" and source.dtype.itemsize <= 2:
            unsigned = np.dtype(f"u{source.dtype.itemsize}")
            bits = np.arange(256**unsigned.itemsize, dtype=unsigned)
            self._table = _stretch(
                bits.view(source.dtype.newbyteorder("=")), self._scale
            )

    def to_rgb(self, raw: np.ndarray) -> np.ndarray:
        """Returns uint8 [h, w, 3] of stored values [h, w, 1 or 3]."""
        if not self._scale:
            pixels = raw
        elif self._table is None:
            pixels = _stretch(raw, self._scale)
        else:
            native = np.ascontiguousarray(raw, raw.dtype.newbyteorder("="))
            pixels = self._table[native.view(f"u{native.dtype.itemsize}")]
        if pixels.shape[2] == 1:
            return np.repeat(pixels, 3, axis=2)
        return np.ascontiguousarray(pixels)

    def is_nodata(self, raw: np.ndarray) -> np.ndarray:
        """Returns bool [h, w]: no band of [h, w, N] has a value."""
        return self._without_value(raw).all(axis=2)

    def _without_value(self, raw: np.ndarray) -> np.ndarray:
        missing = np.isnan(raw) if raw.dtype.kind == "f" else np.zeros(raw.shape, bool)
        if self._nodata is None or np.isnan(self._nodata):
            return missing
        if raw.dtype.kind == "f":
            return missing | (raw == raw.dtype.type(self._nodata))
        known = np.iinfo(raw.dtype) if raw.dtype.kind in "iu" else None
        if known is None or not known.min <= self._nodata <= known.max:
            return missing
        return raw == raw.dtype.type(self._nodata)

    def _check_depth(self, source: raster_source.Source) -> None:
        """Refuses values that are no bytes, unless it is said what they become."""
        dtype = source.dtype
        if dtype.kind not in "iufb":
            raise errors.InputError(
                f"{source.path}: an image with {dtype} values; only integers and real "
                "numbers are taken: convert it, e.g. gdal_translate -ot Float32"
            )
        if dtype == np.uint8 or self._scale:
            return
        low, high = self._suggest_scale(source)
        bits = dtype.itemsize * 8
        raise errors.InputError(
            f"{source.path}: an image with {dtype} values ({bits} bit per sample), "
            "taken are 8 bit; say what becomes black and white, e.g. "
            f"--config.predict.scale='({low:g}, {high:g})' (2 % of a few windows lie "
            "below and above), or for a data set: "
            f"gdal_translate -ot Byte -scale {low:g} {high:g}"
        )

    def _suggest_scale(self, source: raster_source.Source) -> tuple[float, float]:
        """Returns percentiles of nine small windows of the coarsest level."""
        level, side = len(source.sizes) - 1, 128
        height, width = source.sizes[level]
        values = []
        for place in range(9):
            top = max(height - side, 0) * (place // 3) // 2
            left = max(width - side, 0) * (place % 3) // 2
            window = windows.Window(top, left, min(side, height), min(side, width))
            raw = source.read(window, level=level, bands=self.bands)
            known = ~self._without_value(raw) & np.isfinite(raw)
            values.append(raw[known].astype(np.float64))
        found = np.concatenate(values)
        if not found.size:
            return 0.0, 1.0
        low, high = np.percentile(found, (2, 98))
        return (low, high) if low < high else (low, low + 1)


def _choose_bands(
    source: raster_source.Source, bands: Sequence[int]
) -> tuple[int, ...]:
    """Returns the indices of the one or three bands that become the pixels."""
    if bands:
        if max(bands) > source.bands:
            raise errors.InputError(
                f"{source.path}: no band {max(bands)}; it has {source.bands}: choose "
                f"--config.predict.bands among 1 to {source.bands}"
            )
        return tuple(band - 1 for band in bands)
    colours = [band for band in range(source.bands) if band != source.alpha]
    if len(colours) not in (1, 3):
        raise errors.InputError(
            f"{source.path}: {source.bands} bands; taken as they are: 1 (grey) and 3 "
            "(RGB), with or without alpha; choose three with "
            "--config.predict.bands='(3, 2, 1)', or for a data set: "
            "gdal_translate -b 3 -b 2 -b 1"
        )
    return tuple(colours)


def _stretch(values: np.ndarray, scale: tuple[float, ...]) -> np.ndarray:
    """Returns uint8: low and below become 0, high and above 255, no number 0."""
    low, high = scale
    kind = np.float32 if values.dtype.itemsize <= 2 else np.float64
    shares = (values.astype(kind) - kind(low)) * kind(255 / (high - low))
    return np.rint(np.nan_to_num(shares, nan=0).clip(0, 255)).astype(np.uint8)
