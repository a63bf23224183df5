"""Figures of `benchmark data` -> what people read."""

from __future__ import annotations

import sys
from typing import Any

import rich.console
import rich.table


def print_all(found: dict[str, Any]) -> None:
    """Prints the tables of a finished benchmark and what they mean."""
    host = found["host"]
    load = "" if host["load"] is None else f", load {host['load']:.1f} at the start"
    views = ", ".join(map(str, found["views"]))
    lines = {
        "host": f"{host['cpu']}, {host['cores']} cores{load}",
        "data": f"{found['data']}, split {found['split']}, {found['source']}",
        "samples": f"{found['tile']} px, views of scale {views}, "
        f"{found['batch_size']} a batch",
        "augment": ", ".join(f"{k} {v}" for k, v in found["augment"].items() if v)
        or "nothing",
    }
    console = rich.console.Console(file=sys.stdout, soft_wrap=True)
    _print_lines(console, lines)
    for layout, measured in found["layouts"].items():
        console.print(_stages(layout, measured))
        passes = {f"1 thread, {name}": measured[name] for name in ("warm", "cold")}
        console.print(_speeds(layout, measured["pipeline"], passes))
        _print_lines(console, _layout_lines(measured))
    if "stream" in found:
        console.print(_speeds(found["unit"], found["stream"]))
    _print_lines(
        console, {f"no {layout}": why for layout, why in found["missing"].items()}
    )


def _print_lines(console: rich.console.Console, lines: dict[str, str]) -> None:
    for title, text in lines.items():
        console.print(f"{title:<12} {text}", highlight=False, markup=False)


def _stages(layout: str, measured: dict[str, Any]) -> rich.table.Table:
    """Where the time of one patch goes, in one thread."""
    table = rich.table.Table(
        title=f"{layout}: one thread, ms per patch", title_justify="left"
    )
    table.add_column("stage")
    passes = {name: measured[name] for name in ("warm", "cold") if measured[name]}
    for name in passes:
        table.add_column(name, justify="right")
        table.add_column("share", justify="right")
    for stage in measured["warm"]["stages"]:
        cells = []
        for each in passes.values():
            of = each["stages"][stage]
            cells += [f"{of['ms']:.2f}", f"{of['share']:.0%}"]
        table.add_row(stage, *cells)
    return table


def _speeds(
    what: str, pipeline: dict[str, Any], passes: dict[str, Any] | None = None
) -> rich.table.Table:
    table = rich.table.Table(title=f"{what}: MPix/s of patches", title_justify="left")
    table.add_column("run", no_wrap=True)
    for name in ("median", "lowest", "highest", "per core", "patches/s", "runs"):
        table.add_column(name, justify="right")
    rows = dict(passes or {})
    for count, speed in pipeline.items():
        rows[f"pipeline, {count} threads"] = speed
    for name, speed in rows.items():
        if speed is None:
            table.add_row(name, "not measured: the system drops no files")
            continue
        names = ("megapixels_per_s", "lowest", "highest")
        table.add_row(
            name, *(f"{speed['by_clock'][n]:.3g}" for n in names),
            f"{speed['per_core']['megapixels_per_s']:.3g}",
            f"{speed['patches_per_s']:.3g}",
            str(len(speed["by_clock"]["seconds"])),
        )  # fmt: skip
    return table


def _layout_lines(measured: dict[str, Any]) -> dict[str, str]:
    """What a layout reads, and whether it meets the target."""
    warm, cold = measured["warm"], measured["cold"]
    lines = {
        "read": f"{warm['stored_bytes_per_patch'] / 1e6:.3f} MB in "
        f"{warm['records_per_patch']:.1f} records per patch, of "
        f"{measured['stored_bytes'] / 1e6:.1f} MB on disk; "
        f"{warm['decoded_bytes_per_patch'] / 1e6:.3f} MB decoded and kept"
    }
    if cold and cold["disk_bytes"][0] is not None:
        fetched = sorted(cold["disk_bytes"])[len(cold["disk_bytes"]) // 2]
        lines["cold"] = (
            f"{fetched / 1e6:.1f} MB came from the disk for {cold['samples']} patches"
        )
    if "target" in measured:
        verdict = "pass" if measured["target_ok"] else "FAIL"
        speed = next(iter(measured["pipeline"].values()))["per_core"]
        lines["one core"] = (
            f"{speed['megapixels_per_s']:.1f} MPix per second of processor time: "
            f"{verdict} (target >= {measured['target']:.0f})"
        )
    return lines
