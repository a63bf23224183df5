"""One pass over training samples in one thread, with the time of each stage."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import grain
import jax
import numpy as np

from uhrjax.data import pipeline

STAGES = ("read", "decode, assemble", "augment", "targets", "batch")
IO_COUNTERS = pathlib.Path("/proc/self/io")  # Linux only


@dataclasses.dataclass
class Pass:
    """What one pass took."""

    samples: int
    wall_s: float
    cpu_s: float  # of all threads of this process
    stage_s: dict[str, float]  # wall
    stored_bytes: int  # of the records that were read
    records: int
    disk_bytes: int | None  # that the system fetched from the disk; None: not counted


class CountedRecords:
    """The records of a reader, and what reading them took."""

    def __init__(self, records: Any) -> None:
        self._records = records
        self.seconds, self.stored_bytes, self.count = 0.0, 0, 0

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Any:
        started = time.perf_counter()
        record = self._records[index]
        self.seconds += time.perf_counter() - started
        parts = jax.tree.leaves(record)
        self.stored_bytes += sum(len(part) for part in parts if type(part) is bytes)
        self.count += 1
        return record


def run(
    reader: Any,
    stream: Callable[[Any], grain.MapDataset],
    *,
    transform: pipeline.Transform,
    targets: pipeline.Targets,
    batch_size: int,
    batches: int,
) -> Pass:
    """Makes batches in this thread.

    Args:
        reader: freshly opened; its records get counted.
        stream: returns endless samples of a reader.
        transform: the augmentation.
        targets: of the method.
        batch_size: samples.
        batches: how many.
    """
    reader._records = counted = CountedRecords(reader._records)
    samples, rng = stream(reader), np.random.default_rng(0)
    spent = dict.fromkeys(STAGES, 0.0)
    on_disk, began_cpu = _disk_bytes(), time.process_time()
    mark = began = time.perf_counter()

    def note(stage: str) -> None:
        nonlocal mark
        now = time.perf_counter()
        spent[stage] += now - mark
        mark = now

    for batch in range(batches):
        group = []
        for index in range(batch * batch_size, (batch + 1) * batch_size):
            sample = samples[index]
            note("decode, assemble")
            sample = transform(sample, rng)
            note("augment")
            group.append({**sample, **targets(sample["label"], rng)})
            note("targets")
        _stack(group)
        note("batch")
    wall_s, cpu_s = mark - began, time.process_time() - began_cpu
    spent["read"] = counted.seconds
    spent["decode, assemble"] -= counted.seconds
    fetched = None if on_disk is None else _disk_bytes() - on_disk
    return Pass(
        batches * batch_size, wall_s, cpu_s, spent, counted.stored_bytes,
        counted.count, fetched,
    )  # fmt: skip


def forget(directory: pathlib.Path) -> bool:
    """Asks the system to drop the files of a folder from its memory.

    Returns:
        Whether it can be asked here. A cache of the host or of the disk itself stays.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in directory.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())  # only what is on the disk can be dropped
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def _stack(group: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {key: np.stack([sample[key] for sample in group]) for key in group[0]}


def _disk_bytes() -> int | None:
    """Returns how much this process had fetched from the disk so far."""
    if not IO_COUNTERS.is_file():
        return None
    lines = IO_COUNTERS.read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])
