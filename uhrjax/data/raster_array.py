"""Scenes that are arrays on disk: .npy, zarr v2 and v3, and prepared scenes."""

import json
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhrjax import errors
from uhrjax.data import prepared, raster_source, scenes
from uhrjax.tiling import window as windows

NPY_MAGIC = b"\x93NUMPY"
ZARR_FILES = ("zarr.json", ".zarray", ".zgroup")
CHANNEL_NAMES = ("c", "channel", "channels", "band", "bands", "s")


class NpySource(raster_source.Source):
    """A .npy file of [H, W], [H, W, C] or [C, H, W]; the fourth of 4 bands is alpha."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.scene_id = path, path.stem
        with raster_source.decoding(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.dtype.hasobject or array.dtype.names:
            raise errors.InputError(
                f"{path}: an array of {array.dtype}; store plain numbers"
            )
        self._where = {"offset": array.offset, "shape": array.shape}
        self._order = "C" if array.flags.c_contiguous else "F"
        self._axes, height, width, self.bands = _plan_axes(path, array.shape)
        self.sizes, self.dtype = ((height, width),), array.dtype
        self.alpha = 3 if self.bands == 4 else None

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        # Mapped anew each time: pages of a map that stays open count as our memory.
        with raster_source.decoding(self.path, window):
            array = np.memmap(
                self.path, self.dtype, "r", order=self._order, **self._where
            )
            part = np.asarray(_channels_last(array, self._axes))[
                window.top : window.top + window.height,
                window.left : window.left + window.width,
            ]
            return _pick(part, bands).copy()


class ZarrSource(raster_source.Source):
    """A zarr array, or a group with OME multiscales; axes as for .npy."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path, self.scene_id = path, path.stem
        folders, names = _zarr_arrays(path)
        self._stores = [_open_zarr(path, folder) for folder in folders]
        first = self._stores[0]
        labels = names or tuple(first.domain.labels)
        plans = [_plan_axes(path, s.shape, labels) for s in self._stores]
        self._axes = plans[0][0]
        self.sizes = tuple((height, width) for _, height, width, _ in plans)
        self.bands = plans[0][3]
        self.dtype = first.dtype.numpy_dtype
        self.alpha = 3 if self.bands == 4 else None

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        store, axes = self._stores[level], self._axes
        slices: list[Any] = [0] * len(store.shape)
        slices[axes[0]] = slice(window.top, window.top + window.height)
        slices[axes[1]] = slice(window.left, window.left + window.width)
        if axes[2] is not None:
            slices[axes[2]] = slice(min(bands), max(bands) + 1)
        with raster_source.decoding(self.path, window):
            part = store[tuple(slices)].read().result()
            kept = sorted(axis for axis in axes if axis is not None)
            place = tuple(None if a is None else kept.index(a) for a in axes)
            first = min(bands) if axes[2] is not None else 0
            return _pick(_channels_last(part, place), [b - first for b in bands])

    def close(self) -> None:
        self._stores.clear()


class PreparedSource(raster_source.Source):
    """One scene of a split that `data_builders` prepared."""

    bands, dtype = 3, np.dtype(np.uint8)

    def __init__(self, path: pathlib.Path, folder: pathlib.Path, split: str) -> None:
        self._reader = scenes.open_scenes(folder, split)
        ids = [scene.id for scene in self._reader.scenes]
        if path.name not in ids:
            raise errors.InputError(
                f"{path}: no scene {path.name!r} in split {split!r}; it has "
                f"{', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''}"
            )
        self._index = ids.index(path.name)
        scene = self._reader.scenes[self._index]
        self.path, self.scene_id = path, scene.id
        self.sizes = ((scene.height, scene.width),)
        self.crs, self.transform = scene.crs, scene.transform

    def read(
        self, window: windows.Window, *, level: int, bands: Sequence[int]
    ) -> np.ndarray:
        with raster_source.decoding(self.path, window):
            return _pick(self._reader.read_image(self._index, window), bands)


def is_zarr(path: pathlib.Path) -> bool:
    """Says whether a folder is a zarr array or group."""
    return path.is_dir() and any((path / name).is_file() for name in ZARR_FILES)


def is_prepared_path(path: pathlib.Path) -> bool:
    """Says whether a path is `FOLDER`, `FOLDER:split` or `FOLDER:split/id`."""
    return _split_prepared(path) is not None


def open_prepared(path: pathlib.Path) -> PreparedSource:
    """Opens `FOLDER:split/id`."""
    folder, split, scene_id = _split_prepared(path)
    if not (split and scene_id):
        example = list_prepared(path)[0]
        raise errors.InputError(f"{path}: holds several scenes; name one: {example}")
    return PreparedSource(path, folder, split)


def list_prepared(path: pathlib.Path) -> list[pathlib.Path]:
    """Returns `FOLDER:split/id` of every scene of `FOLDER:split`."""
    folder, split, scene_id = _split_prepared(path)
    info = prepared.read_info(folder)
    if split not in info.scenes:
        raise errors.InputError(
            f"{path}: say which split of the prepared data set: "
            + " or ".join(f"{folder}:{name}" for name in info.scenes)
        )
    ids = [scene_id] if scene_id else [scene.id for scene in info.scenes[split]]
    return [pathlib.Path(f"{folder}:{split}") / name for name in ids]


def _split_prepared(path: pathlib.Path) -> tuple[pathlib.Path, str, str] | None:
    """Returns (folder, split, scene id) of a path to prepared scenes."""
    if prepared.is_prepared(path):
        return path, "", ""
    for whole, scene_id in ((path, ""), (path.parent, path.name)):
        folder, colon, split = str(whole).rpartition(":")
        is_split = colon and "/" not in split
        if is_split and prepared.is_prepared(pathlib.Path(folder)):
            return pathlib.Path(folder), split, scene_id
    return None


def _plan_axes(
    path: pathlib.Path, shape: Sequence[int], names: Sequence[str | None] = ()
) -> tuple[tuple[int, int, int | None], int, int, int]:
    """Returns the axes of (y, x, channel), height, width and number of bands.

    The channel axis is the one so named, else the last or the first one, whichever has
    at most four entries (the last one if both), else the shorter of them.
    """
    axes = [axis for axis, length in enumerate(shape) if length != 1]
    axes = [*range(len(shape))] if len(shape) <= 3 else axes
    while len(axes) < min(len(shape), 2):  # scenes of one row or column
        axes = sorted({*axes, len(shape) - 1, len(shape) - 2})
    if len(axes) not in (2, 3) or 0 in shape:
        raise errors.InputError(
            f"{path}: an array of shape {tuple(shape)}; a scene is [H, W], [H, W, C] "
            "or [C, H, W]: store one plane of it"
        )
    if len(axes) == 2:
        return (axes[0], axes[1], None), shape[axes[0]], shape[axes[1]], 1
    named = [a for a in axes if len(names) > a and names[a] in CHANNEL_NAMES]
    first, last = axes[0], axes[-1]
    if named:
        channel = named[0]
    else:
        channel = last if shape[last] <= max(4, shape[first]) else first
    y, x = (axis for axis in axes if axis != channel)
    return (y, x, channel), shape[y], shape[x], shape[channel]


def _channels_last(
    array: np.ndarray, axes: tuple[int | None, int | None, int | None]
) -> np.ndarray:
    """Returns [H, W, C] (or [H, W, 1]) of an array with the axes (y, x, channel)."""
    y, x, channel = axes
    rest = [axis for axis in range(array.ndim) if axis not in axes]
    ordered = array.transpose([*rest, y, x, *([] if channel is None else [channel])])
    ordered = ordered.reshape(ordered.shape[len(rest) :]) if rest else ordered
    return ordered[..., None] if channel is None else ordered


def _pick(pixels: np.ndarray, bands: Sequence[int]) -> np.ndarray:
    if list(bands) == [*range(pixels.shape[2])]:
        return pixels
    return pixels[..., list(bands)]


def _zarr_arrays(path: pathlib.Path) -> tuple[list[str], tuple[str, ...]]:
    """Returns the folders of the levels within a zarr, and the names of its axes."""
    with raster_source.decoding(path):
        if (path / ".zarray").is_file():
            return [""], ()
        stored = {}
        for name in ("zarr.json", ".zattrs"):
            if (path / name).is_file():
                stored |= json.loads((path / name).read_text(encoding="utf-8"))
        if stored.get("node_type") == "array":
            return [""], ()
        stored = stored.get("attributes", stored)
        multiscales = stored.get("ome", stored).get("multiscales")
        if multiscales:
            folders = [dataset["path"] for dataset in multiscales[0]["datasets"]]
            axes = multiscales[0].get("axes", [])
            named = tuple(a["name"] if isinstance(a, dict) else a for a in axes)
            if folders and all(is_zarr(path / folder) for folder in folders):
                return folders, named
    inside = [child.name for child in sorted(path.iterdir()) if is_zarr(child)]
    raise errors.InputError(
        f"{path}: no zarr array and no OME multiscales; "
        + (f"name one of its arrays: {', '.join(inside[:5])}" if inside else "nothing")
    )


def _open_zarr(path: pathlib.Path, folder: str) -> Any:
    import tensorstore

    place = path / folder
    driver = "zarr3" if (place / "zarr.json").is_file() else "zarr"
    spec = {
        "driver": driver,
        "kvstore": {"driver": "file", "path": f"{place.resolve()}/"},
        "context": {"cache_pool": {"total_bytes_limit": raster_source.CACHE_BYTES}},
        "recheck_cached_data": False,
    }
    with raster_source.decoding(path):
        store = tensorstore.open(spec, open=True, read=True).result()
        chunk = store.chunk_layout.read_chunk.shape or (1,)
        raster_source.check_block(
            path, math.prod(chunk), 1, sample_bytes=store.dtype.numpy_dtype.itemsize
        )
    return store
