"""Runs the preparation: all scenes once through the workers, into the writers."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import hashlib
import multiprocessing
import os
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import tqdm

from data_builders import base, beam, encode, record
from data_builders import label as labels
from data_builders import layout as layout_lib
from uhrjax import errors
from uhrjax.data import prepared

POOL_PIXELS = 2**23  # below that much, starting processes costs more than it saves


def generate(
    builder: base.Builder,
    targets: dict[layout_lib.Layout, pathlib.Path],
    workers: int | None,
    runner: str | None = None,
) -> None:
    """Reads all scenes once and writes the layouts wanted, each complete or not at all.

    Args:
        builder: of the data set.
        targets: the final folder of each layout wanted.
        workers: processes; None: one per core where there is enough to do.
        runner: of Apache Beam, to encode on instead of processes of this machine.
    """
    scenes = builder.scenes()
    infos = {layout: _plan_info(builder, scenes, layout) for layout in targets}
    with contextlib.ExitStack() as stack:
        writers = {}
        for layout, final in targets.items():
            filling = stack.enter_context(record.replacing(final))
            writers[layout.config] = record.RecordWriter(
                filling,
                infos[layout],
                about=builder.about,
                page=builder.page,
                module=type(builder).__module__,
            )
        units = [
            unit
            for split, listed in scenes.items()
            for scene in listed
            for unit in encode.plan_units(
                split, scene, layouts=tuple(targets), extras=builder.extras
            )
        ]
        if runner:
            data_set = next(iter(targets.values())).parent.parent
            encoded = beam.encode_all(units, runner=runner, folder=data_set)
        else:
            encoded = _encode_all(units, _worker_count(units, workers))
        stack.enter_context(contextlib.closing(encoded))
        seen = _write_all(units, encoded, writers)
        table, notes = builder.settle(sum(seen.histograms.values()), seen.unknown)
        for layout, info in infos.items():
            _finish_info(info, table, seen.histograms, notes)
            writers[layout.config].close()


def _plan_info(
    builder: base.Builder,
    scenes: dict[str, list[base.RawScene]],
    layout: layout_lib.Layout,
) -> prepared.DataInfo:
    """Returns the description with the scene table; what labels tell comes later."""
    tables: dict[str, list[prepared.SceneInfo]] = {}
    for split, listed in scenes.items():
        if not listed:
            raise errors.InputError(
                f"split {split!r} of {builder.full_name} has no scene; leave it out or "
                "give it some"
            )
        tables[split], first = [], 0
        for scene in listed:
            place = (scene.id, scene.height, scene.width, scene.crs, scene.transform)
            count = layout.count(scene)
            tables[split].append(prepared.SceneInfo(*place, first, count))
            first += count
    tile, stride, views = layout_lib.STORED_TILE, layout_lib.STORED_TILE, (1,)
    if isinstance(layout, layout_lib.PatchGrid):
        tile, stride, views = layout.tile, layout.stride, layout.words
    return prepared.DataInfo(
        name=builder.full_name,
        config=layout.config,
        classes=(),
        colours=(),
        scenes=tables,
        histogram={},
        split_hash=hash_splits(scenes),
        source=builder.source,
        tile=tile,
        stride=stride,
        views=views,
        extras=builder.extras if isinstance(layout, layout_lib.Tiles) else (),
    )


def hash_splits(scenes: dict[str, list[base.RawScene]]) -> str:
    """Returns the sha256 over split names and scene ids, in order."""
    lines = [f"{split}\t{scene.id}\n" for split in scenes for scene in scenes[split]]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


class _Seen:
    """What all units together showed."""

    def __init__(self, splits: Iterable[str]) -> None:
        self.histograms = {split: np.zeros(256, np.int64) for split in splits}
        self.unknown: collections.Counter[str] = collections.Counter()
        self.problems: dict[str, str] = {}


def _write_all(
    units: list[encode.Unit],
    all_encoded: Iterator[encode.Encoded],
    writers: dict[str, record.RecordWriter],
) -> _Seen:
    """Writes the records of all units in order, under a progress bar."""
    seen = _Seen(dict.fromkeys(unit.split for unit in units))
    scenes = len({(unit.split, unit.scene.id) for unit in units})
    done_bytes, began = 0, time.monotonic()
    with tqdm.tqdm(total=scenes, unit=" scenes", desc="prepare") as bar:
        for unit, encoded in zip(units, all_encoded, strict=True):
            seen.histograms[unit.split] += encoded.histogram
            seen.unknown += encoded.unknown
            seen.problems = {**encoded.problems, **seen.problems}
            if not seen.problems:  # else only the rest of the problems is of interest
                for config, writer in writers.items():
                    writer.add(unit.split, encoded.records[config])
            done_bytes += 3 * encoded.pixels
            speed = done_bytes / 1e6 / max(time.monotonic() - began, 1e-9)
            bar.set_postfix_str(f"{speed:.0f} MB/s", refresh=False)
            bar.update(unit.bottom == unit.scene.height)
    if seen.problems:
        count = len(seen.problems)
        raise errors.InputError(
            base.list_problems(
                f"nothing was prepared, {count} problems in the raw files",
                list(seen.problems.values()),
            )
        )
    return seen


def _encode_all(units: Sequence[encode.Unit], workers: int) -> Iterator[encode.Encoded]:
    """Yields the encoded units in order, with a bounded number of them in flight."""
    if workers <= 1:
        yield from map(encode.encode, units)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads
    pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context)
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
        for unit in units:
            waiting.append(pool.submit(encode.encode, unit))
            if len(waiting) > workers + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except concurrent.futures.process.BrokenProcessPool as error:
        raise OSError(
            "a worker process died, most likely for want of memory; try --workers=1"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _worker_count(units: Sequence[encode.Unit], wanted: int | None) -> int:
    pixels = sum((unit.bottom - unit.top) * unit.scene.width for unit in units)
    if wanted is None:
        wanted = _cores() if pixels > POOL_PIXELS else 1
    return min(wanted, len(units))


def _cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _finish_info(
    info: prepared.DataInfo,
    table: labels.ClassTable,
    histograms: dict[str, np.ndarray],
    notes: tuple[str, ...],
) -> None:
    info.classes, info.colours, info.notes = table.names, table.colours, notes
    last = len(table.names)
    info.histogram = {
        split: [*map(int, counts[:last]), int(counts[info.ignore_label])]
        for split, counts in histograms.items()
    }
