"""Scores of a method on a split: every scene pixel once, or the papers' crops."""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from uhrjax import boundary_accuracy, hosts, inference, joint, metrics, sharding
from uhrjax import config as config_lib
from uhrjax import engine as engine_lib
from uhrjax.data import band as band_lib
from uhrjax.data import dataset, mask, pipeline, scenes
from uhrjax.evaluation import Evaluation
from uhrjax.losses import IGNORE_LABEL
from uhrjax.methods import base
from uhrjax.tiling import window as window_lib

COUNT_WINDOW = 2048  # px; scenes are compared to their labels in windows of this side


@dataclasses.dataclass
class ScenePrediction:
    """A finished scene."""

    index: int  # in its reader
    labels: np.ndarray  # [H, W] uint8, a memory map for large scenes
    points: dict[str, np.ndarray]  # name -> [N, 2] float32 (y, x) in scene px


OnScene = Callable[[scenes.SceneReader, ScenePrediction], None]
OnProgress = Callable[[int, int], None]
Predict = Callable[[Any, Any], dict[str, Any]]


class Evaluator:
    """Scores weights on a split; compiled once, used as often as wanted."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        method: base.Method,
        data: dataset.Dataset,
        maps: pathlib.Path | None = None,
        *,
        refiner: Any = None,
        tta: bool = False,
        engine: Any = None,
    ):
        """Compiles nothing yet.

        Args:
            config: of the run.
            method: built from it.
            data: to score on.
            maps: folder of label maps per split, for a method that reads labels.
            refiner: a `trained.Trained` that refines the labels, or None.
            tta: whether to turn every window 8 ways.
            engine: that labels scenes, None: the one that the config describes.
        """
        self._given_engine = engine
        self._maps, self._refiner, self._tta = maps, refiner, tta
        self._config, self._method, self._data = config, method, data
        self._mesh = sharding.make_local_mesh(config_lib.space(config))
        self._predict = make_predict(method, self._mesh)
        self._engines: dict[int, engine_lib.Engine] = {}

    def __call__(
        self,
        variables: Any,
        split: str,
        *,
        on_scene: OnScene = lambda reader, scene: None,
        on_progress: OnProgress = lambda done, total: None,
    ) -> Evaluation:
        """Scores `variables` on `split` by `config.eval.protocol`.

        Every process labels its share of the scenes; all return the same.

        Args:
            variables: of the method.
            split: of the data set.
            on_scene: called with every finished scene (protocol "scene" only), in
                the process that labelled it.
            on_progress: called with (windows done, all windows), of this process.
        """
        variables = sharding.local(variables)
        result = self._nothing()
        started = time.perf_counter()
        if self._config.eval.protocol == "crops":
            count = functools.partial(self._crops, on_progress=on_progress)
        else:
            count = functools.partial(
                self._scenes, on_scene=on_scene, on_progress=on_progress
            )
        hosts.together(lambda: count(result, variables, split))
        result = self._joined(result)
        result.seconds = time.perf_counter() - started
        return result

    def given(self, split: str) -> Evaluation | None:
        """Scores the label maps that a refining network gets; other methods: None."""
        if self._maps is None:
            return None
        result, reader = self._nothing(), self._data.open_scenes(split)
        for index, scene in hosts.share(list(enumerate(self._open(reader, split)))):
            whole = window_lib.Window(0, 0, scene.info.height, scene.info.width)
            labels = scene.read(whole)[..., 0]
            self._count_scene(result, reader, ScenePrediction(index, labels, {}))
        return self._joined(result)

    def cost(self, split: str) -> dict[str, float]:
        """Returns what labelling a scene takes on average, {} if it is not counted."""
        reader = self._data.open_scenes(split)
        count = getattr(self._engine(reader), "cost", None)
        if count is None:
            return {}
        sizes = collections.Counter((s.height, s.width) for s in reader.scenes)
        costs = [(count(*size), many) for size, many in sizes.items()]
        total = sum(np.array(cost) * many for cost, many in costs) / len(reader)
        names = costs[0][0]._fields
        return {f"{k}_per_image": v for k, v in zip(names, total, strict=True)}

    def _nothing(self) -> Evaluation:
        classes = self._method.num_classes
        return Evaluation(
            counts=np.zeros((classes, classes), np.int64),
            boundary=np.zeros((classes, len(self._config.eval.boundary))),
            bands=np.zeros((classes, len(self._config.eval.boundary), 2), np.int64),
            points={},
        )

    def _joined(self, result: Evaluation) -> Evaluation:
        """Returns what all processes counted together."""
        total = self._nothing()
        for part in hosts.gather(result):
            total.add(part)
        return total

    def _scenes(
        self,
        result: Evaluation,
        variables: Any,
        split: str,
        on_scene: OnScene,
        on_progress: OnProgress,
    ) -> None:
        """Merges the windows of a scene first, then counts each pixel once."""
        reader = self._data.open_scenes(split)
        engine = self._engine(reader)
        shown = self._open(reader, split)
        counted, own = joint.divide(engine, shown)
        total = sum(counted.count_windows(scene) for scene in own)
        done = 0

        def on_windows(number: int, skipped: int) -> None:
            nonlocal done
            done += number
            on_progress(done, total)

        for scene in predict_scenes(engine, variables, shown, on_windows=on_windows):
            self._count_scene(result, reader, scene)
            on_scene(reader, scene)

    def _open(self, reader: scenes.SceneReader, split: str) -> list[band_lib.Scene]:
        """Returns the scenes of a split as the engine reads them."""
        if self._maps is None:
            return [scenes.PreparedScene(reader, i) for i in range(len(reader))]
        masks = mask.MaskReader(self._maps / split, reader.scenes)
        return [mask.MaskScene(masks, i) for i in range(len(reader))]

    def _engine(self, reader: scenes.SceneReader) -> engine_lib.Engine:
        """Returns the engine for the widest scene; small scenes need small batches."""
        wanted = engine_lib.windows_per_call(self._config)
        if self._given_engine is not None:
            return self._given_engine
        if self._method.whole_scenes or self._method.progressive:
            return self._made(wanted)
        widest = max(scene.width for scene in reader.scenes)
        plan_starts = window_lib.GRIDS[self._config.grid]
        starts = plan_starts(
            widest, tile=self._config.tile, stride=self._config.eval.stride
        )
        return self._made(min(wanted, len(starts)))

    def _made(self, batch_size: int) -> engine_lib.Engine:
        if batch_size not in self._engines:
            self._engines[batch_size] = engine_lib.make_engine(
                self._method, self._config, refiner=self._refiner, tta=self._tta,
                batch_size=batch_size, probabilities=False,
            )  # fmt: skip
        return self._engines[batch_size]

    def _crops(
        self,
        result: Evaluation,
        variables: Any,
        split: str,
        on_progress: OnProgress,
    ) -> None:
        """Counts every precomputed patch; overlaps count as often as they occur."""
        source = self._data.open_patches(split)
        variables = jax.device_put(variables, sharding.replicated(self._mesh))
        own = hosts.share(range(len(source)))
        samples = (source[i] for i in own)
        wanted, devices = (
            engine_lib.windows_per_call(self._config),
            sharding.shares(self._mesh),
        )
        batch_size = math.ceil(wanted / devices) * devices
        for batch in pipeline.padded_batches(samples, batch_size):
            placed = sharding.put_batch({"views": batch["views"]}, self._mesh)
            with sharding.rows_shared(self._mesh):
                found = self._predict(variables, placed)
            labels = np.asarray(found["labels"])
            points = {name: np.asarray(p) for name, p in found["points"].items()}
            for i in np.flatnonzero(batch["valid"]):
                self._count_window(result, batch["label"][i], labels[i])
                f = self._boundary_counts(batch["label"][i], labels[i], labels[i].shape)
                result.add_image(f, labels[i].size)
                self._count_points(
                    result, batch["label"][i], {k: p[i] for k, p in points.items()}
                )
            on_progress(result.images, len(own))

    def _count_scene(
        self,
        result: Evaluation,
        reader: scenes.SceneReader,
        scene: ScenePrediction,
    ) -> None:
        size = scene.labels.shape
        radii, disks = self._radii(size), self._disks(size)
        margin = math.ceil(max((*radii, *disks), default=0)) + 1
        near = np.zeros((len(disks), 2), np.int64)
        boundary = np.zeros((self._method.num_classes, len(radii), 6), np.int64)
        for core in _cores(*size):
            around = window_lib.Window(
                core.top - margin, core.left - margin,
                core.height + 2 * margin, core.width + 2 * margin,
            )  # fmt: skip
            around = window_lib.intersect(around, height=size[0], width=size[1])
            label = reader.read_label(scene.index, around)
            ours = window_lib.cut(scene.labels, around, fill=0)
            inner = tuple(
                slice(a - b, a - b + n)
                for a, b, n in zip(core[:2], around[:2], core[2:], strict=True)
            )
            self._count_window(result, label[inner], ours[inner])
            boundary += self._boundary_counts(label, ours, size, inner)
            if disks:
                near += boundary_accuracy.count(
                    label, ours, disks, void=(IGNORE_LABEL, *self._void), core=inner
                )
            here = {
                name: _points_in(points, core) for name, points in scene.points.items()
            }
            self._count_points(result, label[inner], here)
        mba = boundary_accuracy.mean_accuracy(near) if disks else math.nan
        result.add_image(boundary, size[0] * size[1], mba)

    def _count_window(
        self, result: Evaluation, label: np.ndarray, ours: np.ndarray
    ) -> None:
        if ours.max(initial=0) == IGNORE_LABEL:  # given maps may lack classes
            label = np.where(ours == IGNORE_LABEL, IGNORE_LABEL, label)
        result.counts += metrics.confusion(label, ours, self._method.num_classes)

    def _count_points(
        self, result: Evaluation, label: np.ndarray, points: dict[str, np.ndarray]
    ) -> None:
        for name, places in points.items():
            found = metrics.foreground_points(
                label, places, self._config.eval.background
            )
            known = result.points.setdefault(name, np.zeros(2, np.int64))
            known += found

    def _radii(self, size: tuple[int, ...]) -> tuple[float, ...]:
        return tuple(metrics.tolerance_px(t, *size) for t in self._config.eval.boundary)

    def _disks(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the radii of mean boundary accuracy, none if it is not wanted."""
        return boundary_accuracy.radii(*size) if self._config.eval.get("mba") else ()

    @property
    def _void(self) -> tuple[int, ...]:
        return tuple(self._config.eval.get("void", ()))

    def _boundary_counts(
        self,
        label: np.ndarray,
        ours: np.ndarray,
        size: tuple[int, ...],
        core: tuple[slice, ...] = (slice(None), slice(None)),
    ) -> np.ndarray:
        return metrics.boundary_counts(
            label, ours, self._method.num_classes, self._radii(size), core
        )


def make_predict(method: base.Method, mesh: jax.sharding.Mesh) -> Predict:
    """Returns the compiled (variables, batch) -> {"labels", "points"} of single crops.

    `labels` [B, P, P] uint8; `points` name -> [B, N, 2] float32 (y, x) in crop px.
    """

    def predict(variables: Any, batch: Any) -> dict[str, Any]:
        outputs = method.apply(variables, batch, train=False)
        labels = method.logits(outputs).argmax(-1).astype("uint8")
        return {"labels": labels, "points": method.points(outputs)}

    return jax.jit(predict, out_shardings=sharding.replicated(mesh))


def _cores(height: int, width: int) -> Iterator[window_lib.Window]:
    """Disjoint windows that cover a scene."""
    for top in range(0, height, COUNT_WINDOW):
        for left in range(0, width, COUNT_WINDOW):
            yield window_lib.Window(
                top, left,
                min(COUNT_WINDOW, height - top), min(COUNT_WINDOW, width - left),
            )  # fmt: skip


def _points_in(points: np.ndarray, core: window_lib.Window) -> np.ndarray:
    """Returns the points inside a window, in its own px."""
    local = points - np.array(core[:2], np.float32)
    return local[((local >= 0) & (local < core[2:])).all(1)]


def predict_scenes(
    engine: inference.Engine,
    variables: Any,
    shown: Sequence[band_lib.Scene],
    *,
    on_windows: Callable[[int, int], None] = lambda done, skipped: None,
) -> Iterator[ScenePrediction]:
    """Yields the whole label map of every scene of this process, in order."""
    engine, own = joint.divide(engine, list(enumerate(shown)))
    found = _predict_own(engine, variables, own, on_windows)
    # Processes that work on one scene have all to do with each other behind them.
    found = list(found) if joint.is_joint(engine) else found
    yield from () if joint.only_helps(engine) else found


def _predict_own(
    engine: inference.Engine,
    variables: Any,
    own: Sequence[tuple[int, band_lib.Scene]],
    on_windows: inference.OnWindows,
) -> Iterator[ScenePrediction]:
    for index, scene in own:
        labels = inference.label_array(scene.info.height, scene.info.width)
        points: dict[str, list[np.ndarray]] = {}
        for rows in engine.label(variables, scene, on_windows=on_windows):
            labels[rows.top : rows.top + len(rows.labels)] = rows.labels
            for name, places in rows.points.items():
                points.setdefault(name, []).append(places)
        joined = {name: np.concatenate(parts) for name, parts in points.items()}
        yield ScenePrediction(index, labels, joined)
