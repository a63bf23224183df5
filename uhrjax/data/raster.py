"""Opens any scene file and reads windows of it: the format is told by content.

PNG and JPEG (decoded whole), TIFF, GeoTIFF, BigTIFF and COG (rasterio, extra `geo`),
whole-slide images and OME-TIFF (OpenSlide and tifffile, extra `wsi`), .npy, zarr v2 and
v3, and scenes that `data_builders` prepared, as `path/to/scenes/1.0.0:split`.
"""

import dataclasses
import glob
import os
import pathlib
import threading
from collections.abc import Sequence

import numpy as np

from uhrjax import errors
from uhrjax.data import (
    prepared,
    raster_array,
    raster_image,
    raster_resample,
    raster_slide,
    raster_source,
    raster_tiff,
    raster_values,
)
from uhrjax.tiling import window as windows

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", *raster_slide.ENDINGS)
SIDECARS = (".ovr", ".msk", ".aux")  # some are TIFF inside; GDAL reads them itself
SNAP = 0.02  # a stored level this close to the wanted mpp is taken as it is
Pattern = str | os.PathLike


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """How the bands and levels of a file become RGB pixels."""

    bands: tuple[
        int, ...
    ] = ()  # 1-based, one or three; (): 1 (repeated) or 3 (+ alpha)
    scale: tuple[float, ...] = ()  # (low, high) -> 0 .. 255; needed unless 8 bit
    level: int = 0  # of a pyramid, 0 the finest
    mpp: float = 0.0  # micrometres per pixel to resample to; 0: as stored
    threads: int = 0  # that decode one window; 0: one per core

    def __post_init__(self) -> None:
        if self.bands and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            raise errors.InputError(
                f"bands={self.bands}: give one band (grey) or three (red, green, "
                "blue), counted from 1, e.g. --config.predict.bands='(4, 3, 2)'"
            )
        if self.scale and not (
            len(self.scale) == 2
            and np.isfinite(self.scale).all()
            and self.scale[0] < self.scale[1]
        ):
            raise errors.InputError(
                f"scale={self.scale}: give two finite values, low < high, which "
                "become 0 and 255, e.g. --config.predict.scale='(0, 3000)'"
            )
        if self.level < 0 or not 0 <= self.mpp < np.inf or (self.level and self.mpp):
            raise errors.InputError(
                f"level={self.level}, mpp={self.mpp}: give a level >= 0 or microns "
                "per pixel > 0, not both"
            )


class Scene:
    """An open scene: RGB pixels by window; any thread may read, one at a time."""

    def __init__(self, source: raster_source.Source, options: ReadOptions) -> None:
        self._source, self._lock = source, threading.Lock()
        self._rendering = raster_values.Rendering(
            source, bands=options.bands, scale=options.scale
        )
        self._level, size = _choose_size(source, options)
        self.path = source.path
        self.nodata = source.nodata
        self.mpp = _scaled_mpp(source, size)  # micrometres per pixel (y, x), or None
        transform = source.transform and _scale_transform(
            source.transform, source.sizes[0], size
        )
        self.info = prepared.SceneInfo(
            source.scene_id, *size, crs=source.crs, transform=transform
        )

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the file and its caches."""
        with self._lock:
            self._source.close()

    @property
    def files(self) -> tuple[pathlib.Path, ...]:
        """What its pixels come from."""
        return (self.path,)

    @property
    def streams(self) -> bool:
        """Whether windows are read without decoding the whole file."""
        return self._source.streams

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 3] RGB of a window, 0 beyond the border.

        Raises:
            errors.InputError: the file is damaged there.
        """
        height, width = self.info.height, self.info.width
        inside = windows.intersect(window, height=height, width=width)
        pixels = self._read_sized(inside, self._level, (height, width))
        return windows.paste(pixels, inside, window, fill=0)

    def read_valid(self, window: windows.Window) -> np.ndarray | None:
        """Returns bool [h, w]: False where transparent, nodata, or outside.

        None says that all of it is valid, without looking at pixels.
        """
        height, width = self.info.height, self.info.width
        inside = windows.intersect(window, height=height, width=width)
        source = self._source
        may_lack = source.alpha is not None or source.masked
        if may_lack or self._rendering.has_nodata:
            valid = self._read_valid_inside(inside)
        elif inside == window:
            return None
        else:
            valid = np.ones((inside.height, inside.width), bool)
        return windows.paste(valid, inside, window, fill=False)

    def overview(self, max_side: int) -> np.ndarray:
        """Returns uint8 [h, w, 3], the whole scene with sides of at most `max_side`.

        It is made from the coarsest stored level that is fine enough.
        """
        if max_side < 1:
            raise ValueError(f"max_side {max_side}: use at least 1 px")
        height, width = self.info.height, self.info.width
        share = min(max_side / max(height, width), 1)
        size = (max(round(height * share), 1), max(round(width * share), 1))
        level = max(_coarsest_level(self._source.sizes, size), self._level)
        return self._read_sized(windows.Window(0, 0, *size), level, size)

    def _read_sized(
        self, inside: windows.Window, level: int, size: tuple[int, int]
    ) -> np.ndarray:
        """Returns a window of the scene resized to `size`, out of a stored level."""
        if not (inside.height and inside.width):
            return np.zeros((inside.height, inside.width, 3), np.uint8)
        stored = self._source.sizes[level]
        if stored == size:
            return self._read_level(inside, level)
        return raster_resample.resize(
            lambda window: self._read_level(window, level),
            inside,
            source_size=stored,
            target_size=size,
        )

    def _read_level(self, window: windows.Window, level: int) -> np.ndarray:
        bands = self._rendering.bands
        with self._lock:
            raw = self._source.read(window, level=level, bands=bands)
        return self._rendering.to_rgb(raw)

    def _read_valid_inside(self, inside: windows.Window) -> np.ndarray:
        if not (inside.height and inside.width):
            return np.ones((inside.height, inside.width), bool)
        stored = self._source.sizes[self._level]
        size = (self.info.height, self.info.width)
        if stored == size:
            return self._valid_of_level(inside)
        rows, columns = (
            raster_resample.nearest(start, length, source=source, target=target)
            for start, length, source, target in zip(
                inside[:2], inside[2:], stored, size, strict=True
            )
        )
        top, left = int(rows[0]), int(columns[0])
        height, width = int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left
        valid = self._valid_of_level(windows.Window(top, left, height, width))
        return valid[np.ix_(rows - top, columns - left)]

    def _valid_of_level(self, window: windows.Window) -> np.ndarray:
        source, level = self._source, self._level
        valid = np.ones((window.height, window.width), bool)
        with self._lock:
            if source.alpha is not None:
                alpha = source.read(window, level=level, bands=(source.alpha,))
                valid &= alpha[..., 0] > 0
            if source.masked:
                valid &= source.mask(window, level=level)
            if self._rendering.has_nodata:
                bands = self._rendering.bands
                raw = source.read(window, level=level, bands=bands)
                valid &= ~self._rendering.is_nodata(raw)
        return valid


def open_scene(path: Pattern, options: ReadOptions | None = None) -> Scene:
    """Opens a scene.

    Args:
        path: a file, a zarr folder, or an entry of `list_scenes`.
        options: which bands, values and level become the pixels.

    Raises:
        FileNotFoundError: there is no such file.
        errors.InputError: it is no scene, damaged, or needs other options.
    """
    options = options or ReadOptions()
    source = open_source(path, threads=options.threads)
    try:
        return Scene(source, options)
    except BaseException:
        source.close()
        raise


def open_source(
    path: Pattern, *, raw: bool = False, threads: int = 0
) -> raster_source.Source:
    """Opens a file for its stored values; `raw` keeps the indices of palettes."""
    path = pathlib.Path(path)
    if raster_array.is_prepared_path(path):
        return raster_array.open_prepared(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give an existing scene")
    with raster_source.decoding(path):
        if path.is_dir():
            return raster_array.ZarrSource(path)
        kind = _kind_of(path)
        if kind == "image":
            return raster_image.ImageSource(path, raw=raw)
        if kind == "npy":
            return raster_array.NpySource(path)
        if kind == "tiff":
            return _open_tiff(path, raw=raw, threads=threads)
        return raster_slide.open_slide(path, threads=threads)


def list_scenes(pattern: Pattern | Sequence[Pattern]) -> list[pathlib.Path]:
    """Returns the scenes that a file, folder or glob names, sorted, each once.

    Of a folder those are the images directly in it, by content or ending, and its
    .zarr folders; of prepared scenes (`FOLDER:split`) one entry for each.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if isinstance(pattern, (str, os.PathLike)):
        return sorted(set(_list_one(pattern)))
    return sorted({path for one in pattern for path in _list_one(one)})


def _list_one(pattern: Pattern) -> list[pathlib.Path]:
    path = pathlib.Path(pattern).expanduser()
    if raster_array.is_prepared_path(path):
        return raster_array.list_prepared(path)
    if path.is_dir() and not raster_array.is_zarr(path):
        found = [child for child in path.iterdir() if _looks_like_scene(child)]
        wanted = "no image directly in this folder"
    elif path.exists():
        return [path]
    else:
        matches = map(pathlib.Path, glob.glob(str(path), recursive=True))
        found = [
            match
            for match in matches
            if raster_array.is_zarr(match)
            or (match.is_file() and match.suffix not in SIDECARS)
        ]
        wanted = "no such file, and nothing matches it as a pattern"
    if not found:
        raise FileNotFoundError(
            f"{pattern}: {wanted}; give a scene, a folder of scenes, or a quoted "
            "pattern such as 'scenes/*.tif'"
        )
    return found


def _looks_like_scene(path: pathlib.Path) -> bool:
    if path.name.startswith(".") or path.suffix in SIDECARS:
        return False
    if path.is_dir():
        return raster_array.is_zarr(path)
    return path.suffix.lower() in ENDINGS or _sniff(path) is not None


def _sniff(path: pathlib.Path) -> str | None:
    """Returns the family of formats that the first bytes tell, if they do."""
    with open(path, "rb") as file:
        magic = file.read(8)
    if magic.startswith(raster_tiff.MAGIC):
        return "tiff"
    if magic.startswith(raster_array.NPY_MAGIC):
        return "npy"
    if path.suffix.lower() == ".mrxs":  # a JPEG that stands for a folder
        return "slide"
    if magic.startswith((raster_image.PNG_MAGIC, raster_image.JPEG_MAGIC)):
        return "image"
    return None


def _kind_of(path: pathlib.Path) -> str:
    if not os.path.getsize(path):
        raise errors.InputError(
            f"{path}: the file is empty (0 bytes); copy or export it again"
        )
    kind = _sniff(path)
    if kind is None and raster_slide.vendor_of(path):
        kind = "slide"
    if kind is None:
        may_be_slide = path.suffix.lower() in raster_slide.ENDINGS
        if may_be_slide and not raster_slide.is_installed():
            raise raster_source.missing_extra(
                path, "wsi", "a whole-slide image needs openslide-python"
            )
        raise errors.InputError(
            f"{path}: not a readable PNG, JPEG or TIFF image, whole slide, .npy or "
            "zarr (its first bytes are of none of them); convert it to one"
        )
    return kind


def _open_tiff(path: pathlib.Path, *, raw: bool, threads: int) -> raster_source.Source:
    """Opens a TIFF with the library that knows most about it."""
    if raster_slide.vendor_of(path):
        return raster_slide.open_slide(path, threads=threads)
    if not raster_tiff.is_installed():
        raise raster_source.missing_extra(path, "geo", "TIFF needs rasterio")
    source = raster_tiff.TiffSource(path, raw=raw, threads=threads)
    if "<OME" not in source.description:
        return source
    source.close()
    return raster_slide.open_pages(path, threads=threads)


def _choose_size(
    source: raster_source.Source, options: ReadOptions
) -> tuple[int, tuple[int, int]]:
    """Returns the level to read from and the scene's (height, width)."""
    sizes = source.sizes
    if not options.mpp:
        if options.level >= len(sizes):
            stored = ", ".join(f"{i}: {h} x {w} px" for i, (h, w) in enumerate(sizes))
            raise errors.InputError(
                f"{source.path}: no level {options.level}; it has {stored}; choose "
                "with --config.predict.level"
            )
        return options.level, sizes[options.level]
    if source.mpp is None:
        raise errors.InputError(
            f"{source.path}: mpp={options.mpp}, but the file does not say how large "
            "its pixels are; choose with --config.predict.level instead"
        )
    for level, size in enumerate(sizes):
        stored_mpp = _scaled_mpp(source, size)
        if all(abs(stored / options.mpp - 1) <= SNAP for stored in stored_mpp):
            return level, size
    size = tuple(
        max(round(length * stored / options.mpp), 1)
        for length, stored in zip(sizes[0], source.mpp, strict=True)
    )
    return _coarsest_level(sizes, size), size


def _coarsest_level(sizes: Sequence[tuple[int, int]], size: tuple[int, int]) -> int:
    """Returns the last level that is as fine as `size`, else 0."""
    fine = [i for i, (h, w) in enumerate(sizes) if h >= size[0] and w >= size[1]]
    return max(fine, default=0)


def _scaled_mpp(
    source: raster_source.Source, size: tuple[int, int]
) -> tuple[float, float] | None:
    if source.mpp is None:
        return None
    full = source.sizes[0]
    return source.mpp[0] * full[0] / size[0], source.mpp[1] * full[1] / size[1]


def _scale_transform(
    transform: tuple[float, ...], full: tuple[int, int], size: tuple[int, int]
) -> tuple[float, ...]:
    """Returns the affine of a scene resized from `full` to `size` (height, width)."""
    a, b, c, d, e, f = transform
    y, x = full[0] / size[0], full[1] / size[1]
    return (a * x, b * y, c, d * x, e * y, f)
