"""The end of a run: its best checkpoint scored; masks, pictures, report, a table."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

import uhrjax
from uhrjax import config as config_lib
from uhrjax import metrics, output, panel, report, trained
from uhrjax.data import dataset, scenes
from uhrjax.evaluate import Evaluator, ScenePrediction
from uhrjax.evaluation import Evaluation


def evaluate_with_bar(
    evaluator: Callable[..., Any], variables: Any, split: str, on_scene: Any = None
) -> Any:
    """Scores a split with a progress bar over its windows; returns the evaluation."""
    with report.progress(f"evaluate {split}", "window", total=None) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        extra = {} if on_scene is None else {"on_scene": on_scene}
        return evaluator(variables, split, on_progress=on_progress, **extra)


def score_run(
    run: trained.Trained,
    data: dataset.Dataset,
    workdir: pathlib.Path,
    evaluator: Evaluator,
) -> dict[str, Any]:
    """Scores a run on `config.data.split` and reports it.

    Writes `report.json`, `masks/` and `panels/` into `workdir` and prints the scores,
    beside those of always answering the majority class, of the label maps that a
    refining network was given and, if the config asks, of the untrained network.

    Returns:
        What `report.json` holds.
    """
    config, method, variables = run.config, run.method, run.variables
    split = config.data.split
    found = evaluate_with_bar(
        evaluator, variables, split, _write_scenes(config, data, workdir)
    )
    lines = {"trained": report.sentence(found.summary(config))}
    others = {"majority class": _majority(found.counts)}
    if (given := evaluator.given(split)) is not None:
        others["label maps as given"] = given.summary(config)
    if config.eval.at_start:
        untrained = evaluate_with_bar(
            evaluator, method.init(jax.random.key(config.seed)), split
        )
        others["untrained"] = untrained.summary(config)
    lines.update({name: report.sentence(scores) for name, scores in others.items()})
    summary = found.summary(config)
    result = {
        **describe(run, data, found),
        "protocol": config.eval.protocol,
        "scores": summary,
        "cost": (cost := evaluator.cost(split)),
        "classes": _by_class(found, data.info.classes),
        "baselines": others,
        "confusion": found.counts,
    }
    report.write_json(workdir / "report.json", result)
    lines.update(_extra_lines(summary, found, data))
    if cost:
        *counted, gmac = (
            (name.removesuffix("_per_image"), value) for name, value in cost.items()
        )
        counted = [f"{value:.0f} {name}" for name, value in counted]
        lines["per image"] = ", ".join([*counted, f"{gmac[1]:.1f} GMAC"])
    lines.update(resource_lines(result, workdir))
    lines["pictures"] = str(workdir / "panels")
    lines["masks"] = str(workdir / "masks")
    print(f"\n{config.method} on {data.info.name}, split {split}, step {run.step}")
    report.print_scores(found.counts, data.info.classes, lines)
    return result


def describe(run: trained.Trained, data: dataset.Dataset, found: Any) -> dict[str, Any]:
    """Returns what every report holds beside scores; `found` is an evaluation."""
    config = run.config
    return {
        "version": uhrjax.__version__,
        "method": config.method,
        "data": data.info.name,
        "split": config.data.split,
        "split_hash": data.info.split_hash,
        "step": run.step,
        "trained_steps": run.trained_steps,
        "weights_hash": run.weights_hash,
        "checkpoint": str(run.path),
        "device": report.device_name(),
        "jax": jax.__version__,
        "seconds_per_megapixel": found.seconds / max(found.pixels / 1e6, 1e-9),
        "host_peak_mb": report.host_peak_mb(),
        "device_peak_mb": report.device_peak_mb(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "config": config_lib.to_json(config),
    }


def resource_lines(result: dict[str, Any], workdir: pathlib.Path) -> dict[str, str]:
    """Returns what is printed about speed, memory and files, title -> text."""
    return {
        "speed": f"{result['scores']['megapixels_per_s']:.2f} megapixels/s",
        "peak host memory": f"{result['host_peak_mb']:.0f} MB",
        "report": str(workdir / "report.json"),
        "checkpoint": result["checkpoint"],
    }


def _write_scenes(
    config: ml_collections.ConfigDict, data: dataset.Dataset, workdir: pathlib.Path
) -> Callable[[scenes.SceneReader, ScenePrediction], None]:
    """Returns what is done with every finished scene: its mask, and a few pictures."""
    masks, panels = workdir / "masks", workdir / "panels"
    masks.mkdir(exist_ok=True)
    panels.mkdir(exist_ok=True)

    def write(reader: scenes.SceneReader, scene: ScenePrediction) -> None:
        info = reader.scenes[scene.index]
        if config.eval.masks:
            output.write_mask(
                masks, scene.labels, info, data.info.colours, data.info.classes
            )
        if scene.index < config.eval.panels:
            picture = panel.draw_panel(reader, scene, data.info)
            name = f"{info.id.replace('/', '_')}.png"
            panel.write_png(str(panels / name), picture)

    return write


def _majority(counts: np.ndarray) -> dict[str, float]:
    found = metrics.majority_scores(counts)
    return {
        "miou": found.miou, "mean_f1": found.mean_f1, "accuracy": found.accuracy,
    }  # fmt: skip


def _by_class(found: Evaluation, classes: tuple[str, ...]) -> dict[str, Any]:
    """Returns per class: IoU, F1, share of its pixels found, boundary F, pixels."""
    scores = metrics.scores(found.counts)
    true = found.counts.sum(1)
    with np.errstate(invalid="ignore"):
        accuracy = np.diag(found.counts) / true
    return {
        name: {
            "iou": scores.iou[k],
            "f1": scores.f1[k],
            "pixel_accuracy": accuracy[k],
            "boundary_f": found.boundary[k] / max(found.images, 1),
            "boundary_iou": metrics.boundary_iou(found.bands[k]),
            "pixels": found.counts[k].sum(),
        }
        for k, name in enumerate(classes)
    }


def _extra_lines(
    summary: dict[str, Any], found: Evaluation, data: dataset.Dataset
) -> dict[str, str]:
    """Returns what else is printed about the scores, title -> text."""
    points = [
        f"{name.removeprefix('foreground_point_ratio_')} {report.percent(value)}"
        for name, value in summary.items()
        if name.startswith("foreground_point_ratio_")
    ]
    lines = {}
    for title, prefix in (
        ("boundary F", "boundary_f_"), ("boundary IoU", "boundary_iou_")
    ):  # fmt: skip
        by_radius = [
            f"{name.removeprefix(prefix)} px {report.percent(value)}"
            for name, value in summary.items()
            if name.startswith(prefix)
        ]
        lines |= {title: ", ".join(by_radius)} if by_radius else {}
    if "mba" in summary:
        lines["boundary accuracy"] = f"{report.percent(summary['mba'])} (mBA)"
    lines["foreground pixels"] = report.percent(summary["foreground_pixel_ratio"])
    if points:
        lines["points on foreground"] = ", ".join(points)
    absent = metrics.scores(found.counts).absent
    if absent:
        names = ", ".join(data.info.classes[k] for k in absent)
        lines["in no map, in no mean"] = names
    return lines
