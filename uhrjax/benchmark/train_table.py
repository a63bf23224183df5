"""Figures of `benchmark train` -> what people read."""

from __future__ import annotations

import sys
from typing import Any

import rich.console
import rich.table

from uhrjax.benchmark import table


def print_start(found: dict[str, Any]) -> None:
    """Prints what the figures hold for."""
    device, versions = found["device"], found["versions"]
    load = "" if device["load"] is None else f", load {device['load']:.1f} at the start"
    print(
        f"device       {device['name']}, {device['host_cores']} cores{load}, compute "
        f"{found['dtype']}, jax {versions['jax']}"
    )
    print(
        f"training     {found['method']}, stage {found['stage']}, batches of "
        f"{found['batch_size']} {found['unit']}, tile {found['tile']} px"
        f"{', remat' if found['remat'] else ''}",
        flush=True,
    )


def print_all(found: dict[str, Any]) -> None:
    """Prints the table of a finished benchmark and what it means."""
    console = rich.console.Console(file=sys.stdout, soft_wrap=True)
    parts = {"device alone": found["device_part"]}
    if "missing" not in found["whole"]:
        parts["with the pipeline"] = found["whole"]
    console.print(_steps(parts))
    for title, text in _lines(found).items():
        console.print(f"{title:<20} {text}", highlight=False, markup=False)


def _steps(parts: dict[str, dict[str, Any]]) -> rich.table.Table:
    made = rich.table.Table(title="training steps", title_justify="left")
    made.add_column("", no_wrap=True)
    for name in ("images/s", "ms/step", "lowest", "highest", "mean", "steps"):
        made.add_column(name, justify="right")
    for name, part in parts.items():
        times = part["step_ms"]
        made.add_row(
            name, f"{part['images_per_s']:.4g}",
            *(f"{times[key]:.4g}" for key in ("median", "lowest", "highest", "mean")),
            str(len(part["seconds"])),
        )  # fmt: skip
    return made


def _lines(found: dict[str, Any]) -> dict[str, str]:
    part = found["device_part"]
    kept = ", perhaps kept from before" if found["compiled_programs_kept"] else ""
    lines = {
        "step": f"{part['images_per_step']} images in {part['micro_batches']} "
        f"micro-batches, {part['gmac_per_step']:.4g} GMAC",
        "compile": f"{part['trace_s']:.1f} s to trace, {part['compile_s']:.1f} s to "
        f"compile{kept}",
        "arithmetic": f"{part['tflop_per_s']:.3g} TFLOP/s; {table.peak_share(part)}",
        "memory": f"{part['temporary_mb']:.0f} MB temporary, "
        f"{part['arguments_mb']:.0f} MB of state and samples, per device as compiled; "
        f"peak: {table.peaks(found)}",
    }
    whole = found["whole"]
    if "missing" in whole:
        lines["with the pipeline"] = f"not measured: {whole['missing']}"
    else:
        lines["waiting for data"] = _waiting(whole, found)
    if "profile" in found:
        lines["trace"] = f"{found['profile']} (tensorboard --logdir, or Perfetto)"
    return lines


def _waiting(whole: dict[str, Any], found: dict[str, Any]) -> str:
    what = whole["layout"] if found["unit"] == "patches" else found["unit"]
    start = (
        f"{whole['data']} as {what}, {whole['threads']} threads; the host waited "
        f"{whole['host_wait_share']:.1%} of the time for samples"
    )
    share = whole["data_wait_share"]
    if share is None:
        return f"{start}; steps differ in size, so no share is claimed"
    shared = ""
    if found["device"]["platform"] == "cpu":
        shared = "; on a CPU the pipeline takes these cores from the steps"
    return (
        f"{start}; {share:.1%} of a step is not the device's: "
        f"{table.verdict(whole['data_wait_ok'])} (target <= "
        f"{whole['data_wait_target']:.0%} of a step{shared})"
    )
