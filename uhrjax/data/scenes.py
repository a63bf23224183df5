"""Reads prepared data sets: any window of any scene, and precomputed patches.

Stored pixels are lossless PNG tiles in ArrayRecord files. A window decodes only the
tiles that it touches. Both readers can be pickled and used by many threads.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from uhrjax import errors
from uhrjax.data import png, prepared
from uhrjax.tiling import window as windows

CACHED_TILES = 512  # decoded tiles kept per reader: up to 100 MB
CODED_RECORDS = 128  # whose other maps are kept per reader: up to 25 MB


class SceneReader:
    """Whole scenes of one split, read by window."""

    def __init__(
        self,
        directory: str | os.PathLike,
        split: str,
        *,
        cached_tiles: int = CACHED_TILES,
    ) -> None:
        self.info = prepared.read_info(directory)
        if self.info.config != prepared.SCENES:
            raise errors.InputError(
                f"{directory} holds {self.info.config!r}, not whole scenes; use the "
                f"folder of config {prepared.SCENES!r}"
            )
        self._records = open_records(directory, split, self.info)
        self.scenes = self.info.scenes[split]
        self._cached_tiles = cached_tiles
        self._forget()

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._tiles: collections.OrderedDict[tuple[str, int], np.ndarray]
        self._tiles = collections.OrderedDict()
        self._coded: collections.OrderedDict[int, dict[str, bytes]]
        self._coded = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getstate__(self) -> dict[str, Any]:
        skipped = ("_lock", "_tiles", "_coded")
        return {k: v for k, v in self.__dict__.items() if k not in skipped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def read_image(self, index: int, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 3] RGB of a window, 0 beyond the border."""
        return self._read("image", index, window, channels=(3,), fill=0)

    def read_label(self, index: int, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w] class ids of a window, 255 beyond the border."""
        return self._read("label", index, window, fill=prepared.IGNORE_LABEL)

    def read_extra(self, name: str, index: int, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w] of a map in `info.extras`, 0 beyond the border."""
        if name not in self.info.extras:
            raise errors.InputError(
                f"{self.info.name} stores no map {name!r}; it has: "
                f"{', '.join(self.info.extras) or 'none'}"
            )
        return self._read(name, index, window, fill=0)

    def _read(
        self,
        field: str,
        index: int,
        window: windows.Window,
        *,
        channels: tuple[int, ...] = (),
        fill: int,
    ) -> np.ndarray:
        scene, side = self.scenes[index], self.info.tile
        inside = windows.intersect(window, height=scene.height, width=scene.width)
        pixels = np.empty((inside.height, inside.width, *channels), np.uint8)
        columns = -(-scene.width // side)  # tiles per row of the scene
        for row in _touched(inside.top, inside.height, side):
            for column in _touched(inside.left, inside.width, side):
                record = scene.first_record + row * columns + column
                tile = self._tile(field, record)
                place = windows.Window(row * side, column * side, *tile.shape[:2])
                _copy_overlap(pixels, inside, tile, place)
        return windows.paste(pixels, inside, window, fill=fill)

    def _tile(self, field: str, record: int) -> np.ndarray:
        key = (field, record)
        with self._lock:
            if key in self._tiles:
                self._tiles.move_to_end(key)
                return self._tiles[key]
        tile = decode_png(self._take_coded(field, record))
        with self._lock:
            self._tiles[key] = tile
            while len(self._tiles) > self._cached_tiles:
                self._tiles.popitem(last=False)
        return tile

    def _take_coded(self, field: str, record: int) -> bytes:
        """Returns one map of a stored tile, encoded.

        The other maps of the record stay at hand: after the image of a window, its
        label is read without reading any record again.
        """
        with self._lock:
            coded = self._coded.pop(record, {})
        if field not in coded:
            coded = self._records[record]
        found = coded.pop(field)
        with self._lock:
            if coded:
                self._coded[record] = coded
            while len(self._coded) > CODED_RECORDS:
                self._coded.popitem(last=False)
        return found


@dataclasses.dataclass(frozen=True)
class PreparedScene:
    """One scene of a reader, for those who want one scene."""

    reader: SceneReader
    index: int

    @property
    def info(self) -> prepared.SceneInfo:
        """Size and place."""
        return self.reader.scenes[self.index]

    def read(self, window: windows.Window) -> np.ndarray:
        """Returns uint8 [h, w, 3], 0 beyond the border."""
        return self.reader.read_image(self.index, window)

    def read_valid(self, window: windows.Window) -> None:
        """Returns None: every pixel is one."""
        return None


class PatchSource:
    """Precomputed patches of one split: a random access source for grain."""

    def __init__(
        self,
        directory: str | os.PathLike,
        split: str,
        *,
        views: Sequence[int | str] | None = None,
    ) -> None:
        self.info = prepared.read_info(directory)
        if not self.info.config.startswith("patches"):
            raise errors.InputError(
                f"{directory} holds {self.info.config!r}, not patches; use the folder "
                "of a config named patches_*"
            )
        self.views = self.info.views if views is None else tuple(views)
        if unknown := [word for word in self.views if word not in self.info.views]:
            raise errors.InputError(
                f"{directory} stores no view {unknown[0]!r}; it has: "
                f"{', '.join(map(str, self.info.views))}"
            )
        self._records = open_records(directory, split, self.info)
        self.scenes = self.info.scenes[split]

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns one patch.

        Returns:
            views [V, P, P, 3] uint8, those asked for; label [P, P] uint8; position [2]
            int32: top, left of the smallest view in scene px; scene_size [2] int32;
            scene_id: str.
        """
        record = self._records[index]
        views = [decode_png(record[f"views/x{s}"]) for s in self.views]
        return {
            "views": np.stack(views) if len(views) > 1 else views[0][None],
            "label": decode_png(record["label"]),
            "position": np.asarray(record["position"], np.int32),
            "scene_size": np.asarray(record["scene_size"], np.int32),
            "scene_id": record["scene_id"].decode(),
        }


def open_scenes(directory: str | os.PathLike, split: str) -> SceneReader:
    """Opens the whole scenes of one split of a data set prepared as `scenes`."""
    return SceneReader(directory, split)


def open_patches(
    directory: str | os.PathLike,
    split: str,
    *,
    views: Sequence[int | str] | None = None,
) -> PatchSource:
    """Opens one split of a data set prepared as `patches_*`.

    Args:
        directory: of the data set.
        split: of it.
        views: which of the stored ones, by the names in `info.views`; None: all.
    """
    return PatchSource(directory, split, views=views)


def decode_png(stored: bytes) -> np.ndarray:
    """Decodes PNG bytes to uint8 [h, w, 3] RGB or [h, w]."""
    pixels = png.decode(stored)
    if pixels is None:
        raise errors.InputError(
            "a stored tile does not decode: the prepared data set is damaged; prepare "
            "it again with --overwrite"
        )
    return pixels


@dataclasses.dataclass(frozen=True)
class StoredRecords:
    """Random access to the records of one split, images left encoded.

    TFDS hands out the bytes and their format; its own parser copies every image twice
    more.
    """

    source: Any  # TFDS' source of the serialized records

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Returns {field: bytes or list of numbers}; nested fields as `views/x1`."""
        from tensorflow_datasets.proto import tf_example_pb2

        example = tf_example_pb2.Example.FromString(self.source[index])
        record = {}
        for name, stored in example.features.feature.items():
            if stored.HasField("bytes_list"):
                record[name] = stored.bytes_list.value[0]
            else:
                record[name] = list(stored.int64_list.value)
        return record


def open_records(
    directory: str | os.PathLike, split: str, info: prepared.DataInfo
) -> StoredRecords:
    """Opens the records of one split of any layout."""
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    if split not in info.scenes:
        raise errors.InputError(
            f"{info.name} has no split {split!r}; it has: {', '.join(info.scenes)}"
        )
    builder = tfds.builder_from_directory(os.fspath(directory))
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    return StoredRecords(builder.as_data_source(split, deserialize_method=raw))


def _touched(start: int, length: int, side: int) -> range:
    """Returns the indices of the stored tiles that [start, start + length) touches."""
    return range(start // side, -(-(start + length) // side)) if length else range(0)


def _copy_overlap(
    target: np.ndarray, target_at: windows.Window, tile: np.ndarray, at: windows.Window
) -> None:
    """Copies the pixels that both windows share from `tile` into `target`."""
    top, left = max(target_at.top, at.top), max(target_at.left, at.left)
    bottom = min(target_at.top + target_at.height, at.top + at.height)
    right = min(target_at.left + target_at.width, at.left + at.width)
    target[
        top - target_at.top : bottom - target_at.top,
        left - target_at.left : right - target_at.left,
    ] = tile[top - at.top : bottom - at.top, left - at.left : right - at.left]
