"""Scores of a network that refines masks: of masks made worse, before and after it.

Such a network labels nothing, so no scene can be compared with its labels. Windows of
the tile, on a fixed grid over the scenes of a split, are taken instead; the mask of
every class that a window shows is made worse, always in the same way, and refined.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from uhrjax import engine, hosts, metrics, panel, report, score, sharding, trained
from uhrjax.data import dataset, grid, pipeline
from uhrjax.losses import IGNORE_LABEL
from uhrjax.methods import base

ZOOM = 384  # px, about the side of a small picture
GAP = ((0, 0), (0, 4), (0, 0))  # px, between pictures


class Example(NamedTuple):
    """A mask to look at."""

    title: str
    image: np.ndarray  # [P, P, 3] uint8
    masks: dict[str, np.ndarray]  # title -> [P, P] uint8, 0, 1 or 255 = ignore


@dataclasses.dataclass
class MaskEvaluation:
    """Sums over the masks of a split; all arrays are indexed by class."""

    before: np.ndarray  # [K] float64, of IoU
    after: np.ndarray  # [K] float64, of IoU
    masks: np.ndarray  # [K] int64
    examples: dict[int, tuple[float, Example]]  # scene -> (the less the better, mask)
    pixels: int = 0
    seconds: float = 0.0

    def add(self, other: MaskEvaluation) -> None:
        """Adds what was counted on other scenes; any order gives the same bits."""
        self.before += other.before
        self.after += other.after
        self.masks += other.masks
        self.pixels += other.pixels
        self.examples = dict(sorted({**self.examples, **other.examples}.items()))

    def summary(self, config: ml_collections.ConfigDict) -> dict[str, float]:
        """Returns the scores under flat names; NaN where no mask was."""
        count = self.masks.sum() or math.nan
        return {
            "miou": float(self.after.sum() / count),  # over masks, not classes
            "miou_before": float(self.before.sum() / count),
            "masks": int(self.masks.sum()),
            "megapixels_per_s": self.pixels / 1e6 / max(self.seconds, 1e-9),
        }

    def by_class(self, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
        """Returns class -> mean IoU before and after, and how many masks there were."""
        with np.errstate(invalid="ignore"):
            before, after = self.before / self.masks, self.after / self.masks
        return {
            name: {"iou": after[k], "iou_before": before[k], "masks": self.masks[k]}
            for k, name in enumerate(classes)
        }


class MaskEvaluator:
    """Scores weights of a method that `refines`; compiled once, used at will."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        method: base.Method,
        data: dataset.Dataset,
    ):
        """Compiles nothing yet; arguments as those of `evaluate.Evaluator`."""
        self._config, self._method, self._data = config, method, data
        self._mesh = sharding.make_local_mesh()
        self._everywhere = sharding.replicated(self._mesh)
        devices = self._mesh.size
        self._batch = math.ceil(engine.windows_per_call(config) / devices) * devices
        self._refine = jax.jit(self._inside, out_shardings=self._everywhere)

    def __call__(
        self,
        variables: Any,
        split: str,
        *,
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> MaskEvaluation:
        """Scores `variables` on `split`; `on_progress` gets (windows done, all)."""
        result = self._nothing()
        started = time.perf_counter()
        windows = grid.CutGrid(
            self._data.open_scenes(split), self._config.tile, self._config.eval.stride,
            self._method.views, self._config.grid,
        )  # fmt: skip
        variables = jax.device_put(sharding.local(variables), self._everywhere)
        samples = self._samples(windows, on_progress)
        for batch in pipeline.padded_batches(samples, self._batch):
            inputs = {name: batch[name] for name in ("views", "coarse")}
            refined = self._refine(variables, sharding.put_batch(inputs, self._mesh))
            self._count(result, windows, batch, np.asarray(refined))
        total = self._nothing()
        for part in hosts.gather(result):
            total.add(part)
        total.seconds = time.perf_counter() - started
        return total

    def _nothing(self) -> MaskEvaluation:
        classes = self._method.num_classes
        return MaskEvaluation(
            np.zeros(classes), np.zeros(classes), np.zeros(classes, np.int64), {}
        )

    def _inside(self, variables: Any, batch: Any) -> jax.Array:
        """Returns the refined masks [B, P, P] uint8."""
        outputs = self._method.apply(variables, batch, train=False)
        return (self._method.logits(outputs)[..., 0] > 0).astype("uint8")

    def _samples(
        self, windows: grid.CutGrid, on_progress: Callable[[int, int], None]
    ) -> Iterator[dict[str, Any]]:
        """Yields every mask of this process's windows, with its worse version."""
        own = hosts.share(range(len(windows.scenes)))
        counts = [windows.count(scene) for scene in own]
        done = 0
        for scene, count in zip(own, counts, strict=True):
            for place in range(count):
                sample = windows.read(scene, place)
                label = sample["label"]
                rng = np.random.default_rng([self._config.seed, scene, place])
                for k in np.unique(label[label != IGNORE_LABEL]).tolist():
                    made = self._method.worse_mask(label, k, rng)
                    yield {"views": sample["views"], "scene": scene, "class": k, **made}
                done += 1
                on_progress(done, sum(counts))

    def _count(
        self,
        result: MaskEvaluation,
        windows: grid.CutGrid,
        batch: dict[str, Any],
        refined: np.ndarray,
    ) -> None:
        for i in np.flatnonzero(batch["valid"]):
            binary, coarse = batch["binary"][i], batch["coarse"][i]
            scene, k = int(batch["scene"][i]), int(batch["class"][i])
            before, after = (
                metrics.exact_term(iou(mask, binary)) for mask in (coarse, refined[i])
            )
            result.before[k] += before
            result.after[k] += after
            result.masks[k] += 1
            result.pixels += binary.size
            uneven = abs(float((binary == 1).mean()) - 0.5)
            known = result.examples.get(scene, (math.inf, None))[0]
            if scene < self._config.eval.panels and uneven < known:
                title = f"{windows.scenes[scene].id}  {self._data.info.classes[k]}"
                masks = {
                    "label": binary,
                    f"made worse: IoU {before:.3f}": coarse,
                    f"refined: IoU {after:.3f}": refined[i],
                }
                example = Example(title, batch["views"][i, 0].copy(), masks)
                result.examples[scene] = uneven, example


def iou(ours: np.ndarray, binary: np.ndarray) -> float:
    """Returns the intersection over union of two masks.

    Args:
        ours: [H, W] uint8, 0 or 1.
        binary: [H, W] uint8, the truth: 0, 1 (somewhere) or 255 = not counted.
    """
    true, said = binary == 1, (ours == 1) & (binary != IGNORE_LABEL)
    return np.count_nonzero(said & true) / np.count_nonzero(said | true)


def score_run(
    run: trained.Trained,
    data: dataset.Dataset,
    workdir: pathlib.Path,
    evaluator: MaskEvaluator,
) -> dict[str, Any]:
    """Scores a run on `config.data.split` and reports it, as `score.score_run` does."""
    config, split = run.config, run.config.data.split
    found = score.evaluate_with_bar(evaluator, run.variables, split)
    scores = found.summary(config)
    lines = {"trained": report.sentence(scores)}
    others = {}
    if config.eval.at_start:
        start = run.method.init(jax.random.key(config.seed))
        untrained = score.evaluate_with_bar(evaluator, start, split)
        others["untrained"] = untrained.summary(config)
        lines["untrained"] = report.sentence(others["untrained"])
    by_class = found.by_class(data.info.classes)
    result = {
        **score.describe(run, data, found), "protocol": "masks made worse",
        "scores": scores, "classes": by_class, "baselines": others,
    }  # fmt: skip
    report.write_json(workdir / "report.json", result)
    lines |= score.resource_lines(result, workdir)
    if found.examples:
        (workdir / "panels").mkdir(exist_ok=True)
        picture = workdir / "panels" / "masks.png"
        panel.write_png(str(picture), _draw(found))
        lines["picture"] = str(picture)
    print(f"\n{config.method} on {data.info.name}, split {split}, step {run.step}")
    rows = [
        (name, own["masks"], *map(report.percent, (own["iou_before"], own["iou"])))
        for name, own in by_class.items()
    ]
    report.print_table(("class", "masks", "IoU before", "IoU refined"), rows, lines)
    return result


def _draw(found: MaskEvaluation) -> np.ndarray:
    """Draws a row per example: image, label, worse mask, refined mask."""
    shades = np.full(256, 96, np.uint8)
    shades[:2] = 0, 255
    rows = []
    for _, example in found.examples.values():
        pictures = {f"image  {example.title}": example.image}
        for title, mask in example.masks.items():
            pictures[title] = np.repeat(shades[mask][..., None], 3, axis=2)
        zoom = max(1, ZOOM // len(example.image))
        parts = [
            np.pad(panel.titled(title, p, zoom), GAP, constant_values=96)
            for title, p in pictures.items()
        ]
        rows.append(np.concatenate(parts, axis=1))
    return np.concatenate(rows)
