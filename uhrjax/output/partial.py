"""Rows of an unfinished scene, kept on the disk so that a run can go on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import pathlib
import shutil
from typing import IO, Any

import numpy as np

from uhrjax import errors

LOCK = "lock"
STATE = "state.json"
OVERVIEW = "overview.npy"


class PartialRows:
    """Raw maps of one scene in a folder, appended to row by row by one process.

    A map's length in bytes is the only count of its rows, so the count cannot promise
    what is not there; half a row at the end is overwritten.

    Args:
        folder: of this scene alone; made if absent. Rows of another `state` go.
        state: JSON values that must be equal for stored rows to be continued.
        shapes: map name -> (shape of one row, dtype).

    Raises:
        InputError: another process has the folder.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        state: dict[str, Any],
        shapes: dict[str, tuple[tuple[int, ...], np.dtype]],
    ):
        self.folder = folder
        self._shapes = shapes
        self._lock = _lock(folder)
        if read_json(folder / STATE) != state:
            for path in folder.iterdir():
                if path.name != LOCK:
                    path.unlink()
        self._files = {name: self._open(name) for name in shapes}
        self.rows = min(
            os.fstat(file.fileno()).st_size // self._row_bytes(name)
            for name, file in self._files.items()
        )
        if not (folder / STATE).exists():
            write_json(folder / STATE, state)

    def append(self, rows: dict[str, np.ndarray]) -> None:
        """Adds the same number of rows to every map.

        Args:
            rows: map name -> [h, *row shape] of the map's dtype.
        """
        count = len(next(iter(rows.values())))
        for name, values in rows.items():
            file = self._files[name]
            file.seek(self.rows * self._row_bytes(name))
            left = memoryview(np.ascontiguousarray(values)).cast("B")
            while left:  # an unbuffered write may stop early, also without an error
                left = left[file.write(left) :]
        self.rows += count

    def read(self, name: str, top: int, bottom: int) -> np.ndarray:
        """Returns rows [top, bottom) of a map: [bottom - top, *row shape]."""
        # Not a memory map: its pages would count as memory of this process.
        shape, dtype = self._shapes[name]
        rows = np.empty((bottom - top, *shape), dtype)
        file = self._files[name]
        file.seek(top * self._row_bytes(name))
        left = memoryview(rows).cast("B")
        while left:
            got = file.readinto(left)
            if not got:
                raise OSError(f"{self.folder} lost rows of its {name}; start again")
            left = left[got:]
        return rows

    def keep_overview(self, picture: np.ndarray) -> None:
        """Keeps the small picture of the input, [h, w, 3] uint8."""
        part = self.folder / f".{OVERVIEW}"
        with part.open("wb") as file:
            np.save(file, picture)
        os.replace(part, self.folder / OVERVIEW)

    def overview(self) -> np.ndarray | None:
        """Returns the picture that was kept, if any."""
        path = self.folder / OVERVIEW
        return np.load(path) if path.exists() else None

    def close(self) -> None:
        """Closes the maps; they stay on the disk."""
        for file in self._files.values():
            file.close()
        self._lock.close()

    def remove(self) -> None:
        """Deletes the maps."""
        remove(self.folder)
        self.close()

    def _open(self, name: str) -> Any:
        path = self.folder / f"{name}.raw"
        path.touch()
        return path.open("r+b", buffering=0)

    def _row_bytes(self, name: str) -> int:
        shape, dtype = self._shapes[name]
        return math.prod(shape) * np.dtype(dtype).itemsize


def _lock(folder: pathlib.Path) -> IO[str]:
    """Makes a folder and takes it for this process, until the file is closed."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        # Who had the folder may remove it at any moment: then again from the start.
        with contextlib.suppress(FileNotFoundError):
            file = (folder / LOCK).open("a", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise errors.InputError(
                    f"another process is writing {folder.name} into "
                    f"{folder.parent.parent}; wait until it has ended, or choose "
                    "another output folder"
                ) from None
            except OSError:  # a disk without locks
                return file
            if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK)):
                return file
            file.close()


def discard(folder: pathlib.Path) -> None:
    """Deletes a scene's folder, if it exists and no other process has it."""
    if folder.exists():
        with _lock(folder):
            remove(folder)


def remove(folder: pathlib.Path) -> None:
    """Deletes a scene's folder if it exists, with the parent folder if now empty."""
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other scenes are there
        folder.parent.rmdir()


def read_json(path: pathlib.Path) -> Any:
    """Returns what a JSON file holds; None if it is absent or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def write_json(path: pathlib.Path, tree: Any) -> None:
    """Writes a JSON file that is never seen half-written."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def publish(part: pathlib.Path, path: pathlib.Path) -> None:
    """Gives a finished file its final name, once its bytes are on the disk."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(part, path)
