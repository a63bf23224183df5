"""What a run leaves behind and prints: metrics.jsonl, report.json, tables."""

from __future__ import annotations

import json
import math
import os
import pathlib
import resource
import sys
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
from tqdm import tqdm

from uhrjax import metrics

QUIET = ("learning_rate", "patches_per_s", "data_wait_share", "grad_norm")


class MetricLog:
    """Appends scores to `<workdir>/metrics.jsonl`, and to TensorBoard if installed.

    Args:
        workdir: the run's folder.
        resume_step: lines of later steps are dropped; the run will write them again.
    """

    def __init__(self, workdir: pathlib.Path, *, resume_step: int):
        self._path = workdir / "metrics.jsonl"
        self._file = self._board = None
        if jax.process_index():  # of several processes, the first one writes
            return
        kept = []
        if self._path.exists():
            for line in self._path.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:  # half a line: the process was killed while writing
                    continue
                if entry["step"] <= resume_step:
                    kept.append(line)
        write_text(self._path, "".join(line + "\n" for line in kept))
        self._file = self._path.open("a")
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            pass
        else:
            self._board = SummaryWriter(str(workdir / "tensorboard"))

    def write(self, step: int, part: str, values: dict[str, float]) -> None:
        """Adds one line: step, part ("train" or a split), and the values."""
        if self._file is None:
            return
        line = {"step": step, "part": part, **plain(values)}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{part}/{name}", value, step)

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file:
            self._file.close()
        if self._board:
            self._board.close()


def progress(
    title: str, unit: str, total: int | None, done: int = 0, *, unit_scale: bool = False
) -> tqdm:
    """Returns a progress bar for `total` units (None: told later); use it in `with`."""
    return tqdm(
        desc=title, unit=unit, total=total, initial=done, file=sys.stdout,
        mininterval=0.5, dynamic_ncols=True, leave=total is not None,
        unit_scale=unit_scale,
    )  # fmt: skip


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a file that is never seen half-written; of several processes, one does."""
    if jax.process_index():
        return
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    os.replace(part, path)


def write_json(path: pathlib.Path, tree: Any) -> None:
    """Writes JSON; NaN becomes null."""
    write_text(path, json.dumps(plain(tree), indent=2) + "\n")


def plain(tree: Any) -> Any:
    """Returns a tree of JSON values: numpy becomes Python, NaN becomes None."""
    if isinstance(tree, dict):
        return {str(key): plain(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [plain(value) for value in tree]
    if isinstance(tree, np.ndarray):
        return plain(tree.tolist())
    if isinstance(tree, np.generic):
        return plain(tree.item())
    if isinstance(tree, float) and not math.isfinite(tree):
        return None
    if isinstance(tree, pathlib.Path):
        return str(tree)
    return tree


def postfix(means: dict[str, float]) -> str:
    """Returns the short text at the end of the training bar."""
    parts = [
        f"{name} {value:.3f}"
        for name, value in means.items()
        if name not in QUIET and "/" not in name  # weights are for the log
    ]
    parts.append(f"lr {means['learning_rate']:.2g}")
    parts.append(f"{means['patches_per_s']:.1f} patches/s")
    return ", ".join(parts)


def sentence(found: dict[str, float]) -> str:
    """Returns an evaluation in one line."""
    names = {
        "miou": "mIoU", "mean_f1": "mean F1", "accuracy": "accuracy",
        "miou_before": "before refinement",
    }  # fmt: skip
    return ", ".join(
        f"{text} {percent(found[key])}" for key, text in names.items() if key in found
    )


def percent(value: float) -> str:
    """Returns a share as text, `-` where it is not defined."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def print_scores(
    counts: np.ndarray,
    classes: tuple[str, ...],
    lines: dict[str, str],
) -> None:
    """Prints the table of per-class scores and the lines below it.

    Args:
        counts: [K, K] int64 confusion.
        classes: K names.
        lines: title -> text, printed under the table.
    """
    found = metrics.scores(counts)
    share = counts.sum(1) / max(counts.sum(), 1)
    rows = [
        (name, *map(percent, (found.iou[k], found.f1[k], share[k])))
        for k, name in enumerate(classes)
    ]
    print_table(("class", "IoU", "F1", "pixels"), rows, lines)


def print_table(
    titles: tuple[str, ...], rows: list[tuple[Any, ...]], lines: dict[str, str]
) -> None:
    """Prints a table, names on the left, and the lines below it, title -> text."""
    table = rich.table.Table()
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left")
    for row in rows:
        table.add_row(*map(str, row))
    console = rich.console.Console(file=sys.stdout)
    console.print(table)
    for title, text in lines.items():
        console.print(f"{title:<24} {text}", highlight=False, soft_wrap=True)


def host_peak_mb() -> float:
    """Returns the process' peak resident memory, MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def device_peak_mb() -> float | None:
    """Returns the first device's peak memory, MB; None where none is counted (CPU)."""
    stats = jax.local_devices()[0].memory_stats() or {}
    peak = stats.get("peak_bytes_in_use")
    return None if peak is None else peak / 1e6


def device_name() -> str:
    """Returns e.g. `1 x cpu (cpu)`, or `8 x cpu (cpu) in 2 processes`."""
    first, processes = jax.devices()[0], jax.process_count()
    several = f" in {processes} processes" if processes > 1 else ""
    return f"{jax.device_count()} x {first.device_kind} ({first.platform}){several}"
