"""The stages of a scene's way from its file to its mask, each by itself."""

from __future__ import annotations

import contextlib
import io
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np

from uhrjax import engine as engine_lib
from uhrjax import inference, output, predict, trained
from uhrjax.benchmark import texture, timing
from uhrjax.data import prepared, raster
from uhrjax.tiling import plan, window


def measure(
    run: trained.Trained,
    engine: inference.Engine,
    path: pathlib.Path,
    folder: pathlib.Path,
    repeats: int,
) -> dict[str, timing.Timing]:
    """Times all stages.

    Args:
        run: with the trivial network.
        engine: of the same network.
        path: the scene.
        folder: for masks; they stay there.
        repeats: of each stage.

    Returns:
        stage -> seconds and scene pixels.
    """
    with raster.open_scene(path) as scene:
        info = scene.info
    tiling, options = engine.tiling, engine_lib.output_options(run.config)
    resident = texture.MemoryScene(info.height, info.width)

    def label() -> None:
        for _ in engine.label(run.variables, resident):
            pass

    work = {
        "read": lambda: read(path, tiling),
        "overview": lambda: overview(path, options.overlay_side),
        "cut, blend, argmax": label,
        "write": _writing(run, info, tiling, folder),
        "file to mask": lambda: file_to_mask(run, engine, path, folder),
    }
    if not options.overlay:
        del work["overview"]
    pixels = info.height * info.width
    return {
        name: timing.measure(function, pixels=pixels, repeats=repeats)
        for name, function in work.items()
    }


def read(path: pathlib.Path, tiling: plan.Tiling) -> None:
    """Reads a scene in the strips that the engine asks for."""
    with raster.open_scene(path) as scene:
        top, height = 0, tiling.tile
        while top < scene.info.height:
            scene.read(window.Window(top, 0, height, scene.info.width))
            top, height = top + height, tiling.stride


def overview(path: pathlib.Path, side: int) -> None:
    """Reduces a scene to the small picture under the overlay."""
    with raster.open_scene(path) as scene:
        scene.overview(side)


def file_to_mask(
    run: trained.Trained,
    engine: inference.Engine,
    path: pathlib.Path,
    folder: pathlib.Path,
) -> None:
    """Labels a scene file as `--mode=predict` does, into a new folder."""
    fresh = pathlib.Path(tempfile.mkdtemp(dir=folder))
    options = engine_lib.output_options(run.config)
    with contextlib.redirect_stdout(io.StringIO()):  # the bar
        # Not `predict_files`: it compiles anew at every call.
        encode = predict.label_scene(
            run, engine, path, raster.open_scene, path.stem, fresh, options
        )
        encode()


def _writing(
    run: trained.Trained,
    info: prepared.SceneInfo,
    tiling: plan.Tiling,
    folder: pathlib.Path,
) -> Callable[[], None]:
    """Returns work that writes a whole mask, strip by strip as the engine hands out."""
    options, classes = engine_lib.output_options(run.config), len(run.classes)
    labels = texture.draw_labels(tiling.stride, info.width, classes=classes, seed=3)
    likely = None
    if options.needs_probabilities:
        likely = np.full((*labels.shape, classes), 1 / classes, np.float32)

    def write() -> None:
        fresh = pathlib.Path(tempfile.mkdtemp(dir=folder))
        with output.SceneWriter(
            fresh, info, run.classes, run.colours, options, fingerprint="", source=None
        ) as writer:
            for top in range(0, info.height, tiling.stride):
                height = min(tiling.stride, info.height - top)
                some = None if likely is None else likely[:height]
                writer.write_rows(top, labels[:height], some)
            writer.finish()

    return write
