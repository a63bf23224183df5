"""Scene -> windows -> logits -> label map: the only loop over windows there is."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from uhrjax import sharding
from uhrjax.data import pipeline, scenes
from uhrjax.methods import base
from uhrjax.tiling import canvas, view
from uhrjax.tiling import window as window_lib

IN_MEMORY_PIXELS = 1 << 26  # a larger label map lives in a temporary file

Predict = Callable[[Any, Any], dict[str, Any]]


@dataclasses.dataclass
class ScenePrediction:
    """A finished scene."""

    index: int  # in its reader
    labels: np.ndarray  # [H, W] uint8, a memory map for large scenes
    points: dict[str, np.ndarray]  # name -> [N, 2] float32 (y, x) in scene px


def make_predict(method: base.Method, mesh: jax.sharding.Mesh) -> Predict:
    """Returns the compiled (variables, batch) -> arrays of one batch of windows.

    The arrays: `probabilities` [B, P, P, K] float32, `labels` [B, P, P] uint8 and
    `points`, name -> [B, N, 2] float32 (y, x) in window px.
    """

    def predict(variables: Any, batch: Any) -> dict[str, Any]:
        outputs = method.apply(variables, batch, train=False)
        logits = method.logits(outputs)
        return {
            "probabilities": jax.nn.softmax(logits),
            "labels": logits.argmax(-1).astype("uint8"),
            "points": method.points(outputs),
        }

    compiled = jax.jit(predict)

    def run(variables: Any, batch: Any) -> dict[str, Any]:
        return compiled(variables, sharding.put_batch(batch, mesh))

    run.compiled = compiled
    return run


def predict_scenes(
    predict: Predict,
    variables: Any,
    reader: scenes.SceneReader,
    *,
    tile: int,
    stride: int,
    batch_size: int,
    views: tuple[view.View, ...],
    num_classes: int,
    on_window: Callable[[], None] = lambda: None,
) -> Iterator[ScenePrediction]:
    """Yields the label map of every scene, in order.

    Windows of several scenes share a batch, so only the last batch is padded; every
    batch has one shape. The next batch is read while the device works.

    Args:
        predict: from `make_predict`.
        variables: of the method.
        reader: the scenes.
        tile: window side, px.
        stride: between windows, px.
        batch_size: a multiple of the number of devices.
        views: of the method.
        num_classes: K.
        on_window: called once per finished window.
    """
    windows = _windows(reader, tile=tile, stride=stride)
    samples = (
        {"views": view.cut_views(_read_of(reader, scene), place, views),
         "scene": np.int32(scene), "window": np.array(place, np.int32)}
        for scene, place in windows
    )  # fmt: skip
    open_scene: _OpenScene | None = None
    for batch in _ahead(pipeline.padded_batches(samples, batch_size)):
        result = predict(variables, {"views": batch["views"]})
        scores = np.asarray(result["probabilities"])
        points = jax.tree.map(np.asarray, result["points"])
        for i in np.flatnonzero(batch["valid"]):
            scene = int(batch["scene"][i])
            if open_scene is None or open_scene.index != scene:
                if open_scene is not None:
                    yield open_scene.finish()
                open_scene = _OpenScene(reader, scene, tile, num_classes)
            place = window_lib.Window(*map(int, batch["window"][i]))
            open_scene.add(place, scores[i], {k: p[i] for k, p in points.items()})
            on_window()
    if open_scene is not None:
        yield open_scene.finish()


def count_windows(reader: scenes.SceneReader, *, tile: int, stride: int) -> int:
    """Returns how many windows `predict_scenes` will run."""
    return sum(1 for _ in _windows(reader, tile=tile, stride=stride))


def label_array(height: int, width: int) -> np.ndarray:
    """Returns [height, width] uint8 zeros, on the disk when large."""
    if height * width <= IN_MEMORY_PIXELS:
        return np.zeros((height, width), np.uint8)
    with tempfile.TemporaryFile() as file:  # gone with the map's last reference
        return np.memmap(file, np.uint8, "w+", shape=(height, width))


class _OpenScene:
    """A scene whose windows are coming in."""

    def __init__(
        self, reader: scenes.SceneReader, index: int, tile: int, num_classes: int
    ):
        info = reader.scenes[index]
        self.index = index
        self._labels = label_array(info.height, info.width)
        self._canvas = canvas.StripCanvas(
            self._labels, tile=tile, num_classes=num_classes
        )
        self._points: dict[str, list[np.ndarray]] = {}

    def add(
        self,
        window: window_lib.Window,
        scores: np.ndarray,
        points: dict[str, np.ndarray],
    ) -> None:
        self._canvas.add(window, scores)
        for name, place in points.items():
            place = place + np.array([window.top, window.left], np.float32)
            inside = (place < self._labels.shape).all(1)  # not in the padding
            self._points.setdefault(name, []).append(place[inside])

    def finish(self) -> ScenePrediction:
        self._canvas.finish()
        points = {name: np.concatenate(p) for name, p in self._points.items()}
        return ScenePrediction(self.index, self._labels, points)


def _windows(
    reader: scenes.SceneReader, *, tile: int, stride: int
) -> Iterator[tuple[int, window_lib.Window]]:
    for index, info in enumerate(reader.scenes):
        for place in window_lib.plan_windows(
            info.height, info.width, tile=tile, stride=stride
        ):
            yield index, place


def _read_of(
    reader: scenes.SceneReader, index: int
) -> Callable[[window_lib.Window], np.ndarray]:
    return lambda place: reader.read_image(index, place)


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Computes the next item in a thread while the current one is used."""
    end = object()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, items, end)
            yield item
