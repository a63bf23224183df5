"""Any scene file -> label map: reading, computing and writing side by side."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections
import numpy as np

from uhrjax import engine as engine_lib
from uhrjax import errors, hosts, inference, joint, output, report, trained
from uhrjax.data import prepared, raster
from uhrjax.tiling import window

WAITING = 4  # strips that may wait for the writer
Encode = Callable[[], str]  # makes the files of a labelled scene, returns its line
OpenScene = Callable[[pathlib.Path], Any]  # as `raster.open_scene`


def predict_files(
    run: trained.Trained, pattern: str | list[str], folder: str | pathlib.Path
) -> dict[pathlib.Path, str]:
    """Labels scenes and writes what `config.predict` asks for, see `label_files`.

    Args:
        run: from `trained.load_run`.
        pattern: a file, folder or glob, or several.
        folder: for the output; made if absent.

    Returns:
        The scenes that failed, with the reason.
    """
    paths = raster.list_scenes(pattern)
    engine = engine_lib.make_engine(run.method, run.config, refiner=run.refiner)
    reading = read_options(run.config)
    open_scene = functools.partial(raster.open_scene, options=reading)
    return label_files(run, engine, paths, open_scene, folder)


def label_files(
    run: trained.Trained,
    engine: inference.Engine,
    paths: list[pathlib.Path],
    open_scene: OpenScene,
    folder: str | pathlib.Path,
) -> dict[pathlib.Path, str]:
    """Labels scenes with an engine and writes what `config.predict` asks for.

    Scenes that are complete already are passed over, one that was interrupted goes on
    from its last strip. A scene that fails does not stop the others. Every process
    labels its share of the scenes, or of a scene if there are fewer.

    Returns:
        The scenes that failed, with the reason.
    """
    named = list(zip(paths, output.distinct_names(paths), strict=True))
    hosts.check_same(
        "what --input names", f"{len(named)} files, {_digest(n for _, n in named)}",
        "all processes read it: put it on storage that every host sees",
    )  # fmt: skip
    engine, own = joint.divide(engine, named)
    folder = pathlib.Path(folder).expanduser()
    options = engine_lib.output_options(run.config)
    failed: dict[pathlib.Path, str] = {}

    def note(path: pathlib.Path, work: Callable[[], str | Encode]) -> str | Encode:
        try:
            return work()
        except (errors.InputError, OSError) as error:
            failed[path] = str(error)
            return f"{path}: failed: {error}"

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        encoding: list[concurrent.futures.Future[str]] = []
        for path, name in own:
            label = functools.partial(
                label_scene, run, engine, path, open_scene, name, folder, options
            )
            encode = note(path, label)
            if callable(encode):  # while the next scene is labelled
                encoding.append(pool.submit(note, path, encode))
            else:
                print(encode, flush=True)
            while len(encoding) > 1:
                print(encoding.pop(0).result(), flush=True)
        for future in encoding:
            print(future.result(), flush=True)
    return {path: why for part in hosts.gather(failed) for path, why in part.items()}


READ_FIELDS = ("bands", "scale", "level", "mpp")


def read_options(config: ml_collections.ConfigDict) -> raster.ReadOptions:
    """Returns how `config.predict` wants files to be read."""
    return raster.ReadOptions(**{name: config.predict[name] for name in READ_FIELDS})


def label_scene(
    run: trained.Trained,
    engine: inference.Engine,
    path: pathlib.Path,
    open_scene: OpenScene,
    name: str,
    folder: pathlib.Path,
    options: output.OutputOptions,
) -> Encode | str:
    """Labels one scene.

    Returns:
        What makes its files and returns the line that tells of it; or the line, if the
        files are there already.
    """
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        scene = joint.agreed(engine, lambda: stack.enter_context(open_scene(path)))
        info = dataclasses.replace(scene.info, id=name)
        open_writer = functools.partial(
            _open_writer, run, engine, scene, info, folder, options
        )
        writer = joint.agreed(engine, open_writer)
        if writer is None:
            joint.help_out(engine, run.variables, scene)
            return ""
        joint.ask_for_help(engine, is_needed=not writer.is_complete)
        if writer.is_complete:
            return f"{path}: complete already, {writer.finish()['labels']}"
        first_row = writer.rows_done
        try:
            skipped = _write_rows(run, engine, scene, writer, first_row)
        except BaseException:
            writer.close()
            raise

    def encode() -> str:
        with writer:
            files = writer.finish()
        seconds = time.perf_counter() - started
        return _line(path, info, files["labels"], writer.class_pixels(), seconds,
                     first_row, skipped)  # fmt: skip

    return encode


def _open_writer(
    run: trained.Trained,
    engine: inference.Engine,
    scene: raster.Scene,
    info: prepared.SceneInfo,
    folder: pathlib.Path,
    options: output.OutputOptions,
) -> output.SceneWriter | None:
    """Returns what writes a scene's files; None in a process that only helps."""
    if joint.only_helps(engine):
        return None
    writer = output.SceneWriter(
        folder, info, run.classes, run.colours, options,
        fingerprint=_fingerprint(run, engine, scene), source=scene.path,
    )  # fmt: skip
    try:
        if options.overlay and not writer.is_complete and not writer.rows_done:
            picture = scene.overview(options.overlay_side)
            if picture is not None:
                writer.set_overview(picture)
    except BaseException:
        writer.close()
        raise
    return writer


def _write_rows(
    run: trained.Trained,
    engine: inference.Engine,
    scene: raster.Scene,
    writer: output.SceneWriter,
    first_row: int,
) -> int:
    """Runs the engine, a thread writes behind it; returns the windows skipped."""
    total = engine.count_windows(scene, first_row=first_row)
    finished, skipped = 0, 0
    pixels = scene.info.width * (scene.info.height - first_row)
    with (
        report.progress(scene.info.id, "pix", total=pixels, unit_scale=True) as bar,
        concurrent.futures.ThreadPoolExecutor(1) as pool,
    ):

        def on_windows(done: int, empty: int) -> None:
            nonlocal finished, skipped
            finished, skipped = finished + done, skipped + empty
            bar.update(pixels * finished // total - bar.n)

        writing: list[concurrent.futures.Future[None]] = []
        for rows in engine.label(
            run.variables, scene, first_row=first_row, on_windows=on_windows
        ):
            if len(writing) >= WAITING:
                writing.pop(0).result()
            writing.append(
                pool.submit(
                    writer.write_rows, rows.top, rows.labels, rows.probabilities
                )
            )
        for future in writing:
            future.result()
    return skipped


def _fingerprint(
    run: trained.Trained, engine: inference.Engine, scene: raster.Scene
) -> str:
    """Names everything that the labels of a scene depend on."""
    stamps: list[Any] = []
    for path in scene.files:
        stat = os.stat(path) if path.exists() else None
        stamp = stat and (stat.st_size, stat.st_mtime_ns)
        stamps.append((str(path.absolute()), stamp))
    facts = (
        run.weights_hash, engine.settings, stamps,
        run.config.predict.bands, run.config.predict.scale, run.config.dtype,
        scene.info.height, scene.info.width,
    )  # fmt: skip
    return _digest(facts)


def _digest(facts: Iterable[Any]) -> str:
    return hashlib.sha256(repr(tuple(facts)).encode()).hexdigest()[:16]


def _line(
    source: pathlib.Path,
    info: prepared.SceneInfo,
    path: pathlib.Path,
    counts: dict[str, int],
    seconds: float,
    first_row: int,
    skipped: int,
) -> str:
    height, width = info.height, info.width
    speed = width * (height - first_row) / 1e6 / seconds
    total = max(sum(counts.values()), 1)
    most = sorted(counts.items(), key=lambda item: -item[1])
    shares = ", ".join(f"{n} {100 * c / total:.1f} %" for n, c in most[:6] if c)
    memory = f"host {report.host_peak_mb():.0f} MB"
    if (device := report.device_peak_mb()) is not None:
        memory += f", device {device:.0f} MB"
    parts = [f"{source}: {width} x {height} px", f"{seconds:.1f} s"]
    parts += [f"{speed:.2f} MPix/s", shares or "no class", memory]
    if first_row:
        parts.append(f"went on from row {first_row}")
    if skipped:
        parts.append(f"{skipped} windows of nodata skipped")
    return "; ".join([*parts, f"-> {path}"])


class ArrayScene:
    """An image in memory, as the engine reads scenes."""

    def __init__(self, image: np.ndarray):
        image = np.asarray(image)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise errors.InputError(
                f"an image of shape {image.shape} and type {image.dtype} cannot be "
                "segmented; give [height, width, 3] uint8 (RGB)"
            )
        self._image = image
        self.info = prepared.SceneInfo("array", *image.shape[:2])

    def read(self, place: window.Window) -> np.ndarray:
        return window.cut(self._image, place, fill=0)

    def read_valid(self, place: window.Window) -> None:
        return None


def segment(
    run: str | pathlib.Path | trained.Trained,
    scene: str | pathlib.Path | np.ndarray,
    **changes: Any,
) -> np.ndarray:
    """Returns the label map of one scene.

    Args:
        run: a run's folder, or what `uhrjax.load_run` returned (faster for many).
        scene: a file that `data.raster` can open, or [H, W, 3] uint8 (RGB).
        **changes: fields of `tiling.plan.Tiling` that differ from the run's config,
            e.g. `tta=True`, `blend="hann"`; of Foveation `foveal.Options`, e.g.
            `rate=64`.

    Returns:
        [H, W] uint8 class ids; 255 where the scene has no data.
    """
    if not isinstance(run, trained.Trained):
        run = trained.load_run(run)
    engine = engine_lib.make_engine(
        run.method, run.config, refiner=run.refiner, **changes
    )
    if isinstance(scene, (str, os.PathLike)):
        with raster.open_scene(scene, read_options(run.config)) as opened:
            return _collect(engine.label(run.variables, opened))
    return _collect(engine.label(run.variables, ArrayScene(scene)))


def _collect(strips: Any) -> np.ndarray:
    return np.concatenate([rows.labels for rows in strips])
