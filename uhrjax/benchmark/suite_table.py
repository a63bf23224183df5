"""Figures of several benchmarks -> one table."""

from __future__ import annotations

import sys
from typing import Any

import rich.console
import rich.table

COLUMNS = ("config", "what", "speed", "ms", "TFLOP/s", "of the peak", "waits", "MB")
ABSENT = "-"
WIDTH = 140  # characters, in files


def print_all(found: dict[str, Any]) -> None:
    """Prints a row for every benchmark, and what failed."""
    table = rich.table.Table(title="all benchmarks", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="left" if name in COLUMNS[:2] else "right")
    for result in found["runs"]:
        for row in rows(result):
            table.add_row(*row)
    width = None if sys.stdout.isatty() else WIDTH
    rich.console.Console(file=sys.stdout, width=width).print(table)
    for name, problem in found["failed"].items():
        print(f"failed       {name}: {problem}")


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Returns the rows of one benchmark's JSON tree."""
    make = {"train": _of_train, "predict": _of_predict, "data": _of_data}
    name = result["config"].removeprefix("configs/")
    return [(name, *row) for row in make[result["benchmark"]](result)]


def _of_train(result: dict[str, Any]) -> list[tuple[str, ...]]:
    part, whole = result["device_part"], result["whole"]
    memory = result["device_peak_mb"] or part["temporary_mb"] + part["arguments_mb"]
    found = [
        (
            f"train {result['stage']}, alone", f"{part['images_per_s']:.3g} images/s",
            f"{part['step_ms']['median']:.3g}", *_arithmetic(part), ABSENT,
            f"{memory:.0f}",
        )
    ]  # fmt: skip
    if "missing" not in whole:
        share = whole["data_wait_share"]
        found.append(
            (
                f"train {result['stage']}, with data",
                f"{whole['images_per_s']:.3g} images/s",
                f"{whole['step_ms']['median']:.3g}", ABSENT, ABSENT,
                ABSENT if share is None else f"{share:.1%}",
                f"{result['host_peak_mb']:.0f} host",
            )
        )  # fmt: skip
    return found


def _of_predict(result: dict[str, Any]) -> list[tuple[str, ...]]:
    found = []
    for each in result.get("scenes", []):
        first = next(iter(each["speed"].values()))
        found.append(
            (
                f"predict {each['columns']} x {each['rows']}",
                f"{each['scenes_per_s']:.3g} scenes/s",
                f"{1e3 / each['scenes_per_s']:.3g}", *_arithmetic(each), ABSENT,
                _memory(result),
            )
        )  # fmt: skip
        found.append((*_speed("predict", first), *[ABSENT] * 5))
    if "network" in result:
        network = result["network"]
        speed = network["speed"]
        found.append(
            (
                *_speed("predict, alone", speed["alone, window px"]), ABSENT,
                *_arithmetic(network), ABSENT, _memory(network),
            )
        )  # fmt: skip
        found.append((*_speed("file to mask", speed["file to mask"]), *[ABSENT] * 5))
    return found


def _of_data(result: dict[str, Any]) -> list[tuple[str, ...]]:
    pipelines = {
        layout: measured["pipeline"] for layout, measured in result["layouts"].items()
    }
    if "stream" in result:
        pipelines[result["unit"]] = result["stream"]
    found = []
    for what, pipeline in pipelines.items():
        for threads, speed in pipeline.items():
            found.append(
                (
                    f"data as {what}, {threads} threads",
                    f"{speed['patches_per_s']:.3g} patches/s", *[ABSENT] * 5,
                )
            )  # fmt: skip
    return found


def _speed(what: str, speed: dict[str, Any]) -> tuple[str, str]:
    return what, f"{speed['megapixels_per_s']:.3g} MPix/s"


def _arithmetic(part: dict[str, Any]) -> tuple[str, str]:
    if "tflop_per_s" not in part:
        return ABSENT, ABSENT
    share = part["peak_share"]
    return f"{part['tflop_per_s']:.3g}", ABSENT if share is None else f"{share:.1%}"


def _memory(part: dict[str, Any]) -> str:
    device = part["device_peak_mb"]
    return f"{part['host_peak_mb']:.0f} host" if device is None else f"{device:.0f}"
