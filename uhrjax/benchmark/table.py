"""Figures -> what people read."""

from __future__ import annotations

import sys
from typing import Any

import rich.console
import rich.table


def print_start(found: dict[str, Any]) -> None:
    """Prints what the figures hold for."""
    device, versions = found["device"], found["versions"]
    print(
        f"device       {device['name']}, {device['host_cores']} cores, compute "
        f"{found['dtype']}, jax {versions['jax']}",
        flush=True,
    )
    if "tile" not in found:
        return
    print(
        f"windows      {found['tile']} px every {found['stride']} px, "
        f"{found['batch_size']} per call, {found['num_classes']} classes, blend "
        f"{found['blend']}{', 8 turns' if found['tta'] else ''}",
        flush=True,
    )


def print_all(found: dict[str, Any]) -> None:
    """Prints the tables of a finished benchmark and what they mean."""
    stages, network = found["stages"], found["network"]
    console = rich.console.Console(file=sys.stdout, soft_wrap=True)
    console.print(
        _speeds(
            f"trivial network (1x1 convolution), {stages['columns']} x "
            f"{stages['rows']} px, deflate GeoTIFF of {stages['stored_share']:.0%} of "
            "its pixels",
            stages["speed"],
        )
    )
    console.print(
        _speeds(
            f"{found['method']}, random weights, {network['columns']} x "
            f"{network['rows']} px, {network['windows']} windows",
            network["speed"],
        )
    )
    for title, text in _network_lines(found).items():
        console.print(f"{title:<24} {text}", highlight=False)
    console.print(_memory(found["memory"]["passes"]))
    for title, text in _memory_lines(found["memory"]).items():
        console.print(f"{title:<24} {text}", highlight=False)


def _speeds(title: str, speeds: dict[str, dict[str, Any]]) -> rich.table.Table:
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("stage")
    for name in ("MPix/s, median", "lowest", "highest", "runs"):
        table.add_column(name, justify="right")
    for stage, speed in speeds.items():
        names = ("megapixels_per_s", "lowest", "highest")
        figures = (f"{speed[name]:.3g}" for name in names)
        table.add_row(stage, *figures, str(len(speed["seconds"])))
    return table


def print_scenes(found: dict[str, Any]) -> None:
    """Prints what a method that labels whole scenes does."""
    console = rich.console.Console(file=sys.stdout, soft_wrap=True)
    for each in found["scenes"]:
        title = f"{found['method']}, random weights, {each['columns']} x {each['rows']}"
        console.print(_speeds(f"{title} px", each["speed"]))
        lines = {
            "scenes": f"{each['scenes_per_s']:.3g} per second; the first one "
            f"{each['first_s']:.1f} s, programs compiled",
        }
        if "tflop_per_s" in each:
            lines["network"] = (
                f"{each['patches']} patches, {each['gmac_per_scene']:.1f} GMAC per "
                f"scene; {each['tflop_per_s']:.3f} TFLOP/s, {peak_share(each)}"
            )
        for name, text in lines.items():
            console.print(f"{name:<24} {text}", highlight=False)
    console.print(f"{'peak of this process':<24} {peaks(found)}", highlight=False)


def _network_lines(found: dict[str, Any]) -> dict[str, str]:
    network = found["network"]
    kept = ", perhaps kept from before" if found["compiled_programs_kept"] else ""
    shares, is_ok = network["engine_shares"], network["engine_share_ok"]
    crosses = min(shares) <= network["engine_share_target"] < max(shares)
    doubt = ", but the runs lie on both sides: is the machine idle?" if crosses else ""
    lines = {
        "compile": f"{network['compile_s']:.1f} s{kept}",
        "network": f"{network['gmac_per_window']:.4g} GMAC per window, "
        f"{network['gmac_per_scene']:.1f} per scene; {network['tflop_per_s']:.3f} "
        "TFLOP/s",
        "share of the peak": peak_share(network),
        "engine's share": f"{network['engine_share']:.1%} of file to mask is not the "
        f"network ({min(shares):.1%} to {max(shares):.1%}): {verdict(is_ok)} (target "
        f"<= {network['engine_share_target']:.0%}{doubt})",
        "trivial network": f"{network['trivial_share']:.1%} of the real one's time per "
        "pixel, file to mask",
        "peak of this process": peaks(network),
    }
    return lines


def _memory(passes: list[dict[str, Any]]) -> rich.table.Table:
    table = rich.table.Table(
        title="memory, trivial network, file to mask", title_justify="left"
    )
    for name in ("rows", "columns", "seconds", "host peak MB", "device peak MB"):
        table.add_column(name, justify="right")
    for each in passes:
        device = each["device_peak_mb"]
        table.add_row(
            str(each["rows"]), str(each["columns"]), f"{each['seconds']:.1f}",
            f"{each['host_peak_mb']:.0f}",
            "not counted" if device is None else f"{device:.0f}",
        )  # fmt: skip
    return table


def _memory_lines(memory: dict[str, Any]) -> dict[str, str]:
    lines = {
        "host peak": f"{verdict(memory['host_peak_ok'])} (target: below "
        f"{memory['host_peak_target_mb']} MB)"
    }
    if memory["host_growth_ok"] is not None:
        lines["growth with the rows"] = (
            f"{memory['host_growth']:+.1%}: {verdict(memory['host_growth_ok'])} "
            f"(target <= {memory['host_growth_target']:.0%})"
        )
    return lines


def peak_share(found: dict[str, Any]) -> str:
    """Returns which share of the device's peak arithmetic reaches."""
    if found["peak_share"] is None:
        return "no peak known for this device and dtype: no share claimed"
    return f"{found['peak_share']:.1%} of {found['peak_tflop_per_s']:.0f} TFLOP/s"


def peaks(found: dict[str, Any]) -> str:
    """Returns the memory that this process had at most."""
    device = found["device_peak_mb"]
    text = "not counted here" if device is None else f"{device:.0f} MB"
    return f"host {found['host_peak_mb']:.0f} MB, device {text}"


def verdict(is_ok: bool) -> str:
    """Returns whether a target is met, in one word."""
    return "pass" if is_ok else "FAIL"
