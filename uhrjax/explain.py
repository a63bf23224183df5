"""python -m uhrjax.explain --checkpoint=runs/fctl --input=scene.tif --at=700,900

Draws what a window's contexts did (FCtL, Figures 6 to 8): which places of each context
a pixel attended to, how much each context counted where, and what the refinement of the
label map changed. Of MagNet: what happened to the whole scene at every scale.
"""

from __future__ import annotations

import math
import pathlib
import sys
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging

from uhrjax import compilation, errors, panel, predict, stage_picture, trained
from uhrjax import config as config_lib
from uhrjax import engine as engine_lib
from uhrjax.data import overview, raster
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib

ZOOM = 384  # px, side of a small picture
flags.DEFINE_string("at", "", "row,column of the pixel to explain; default: the middle")


def draw(
    run: trained.Trained, scene: raster.Scene, at: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Draws one window of a scene.

    Args:
        run: of a method whose contexts can be explained.
        scene: the scene.
        at: (row, column) of the pixel, scene px; the window has it in its middle.

    Returns:
        Name -> [H, W, 3] uint8: "attention", "fusion" (with several contexts) and
        "seams" (with a refining network); of MagNet "stages".

    Raises:
        errors.InputError: the method has no contexts.
    """
    method, tile = run.method, run.config.tile
    if method.progressive:
        return {"stages": stage_picture.draw(run, scene)}
    if not hasattr(method, "explain") or not method.module.contexts:
        raise errors.InputError(
            f"{run.path}: {run.config.method} of this run has no contexts to explain; "
            "use a run of fctl with contexts, e.g. --checkpoint=runs/fctl-synthetic/all"
        )
    place = _window(scene, at, tile)
    batch, shown = _batch(method, scene, place)
    found = jax.jit(method.explain)(run.variables, batch)
    pixel = at[0] - place.top, at[1] - place.left
    pictures = {"attention": _attention(method, found, shown, pixel)}
    if found["weights"] is not None:
        pictures["fusion"] = _fusion(method, found["weights"][:, 0], shown["patch"])
    if run.refiner is not None:
        pictures["seams"] = _seams(run, scene)
    return pictures


def _window(scene: raster.Scene, at: tuple[int, int], tile: int) -> window_lib.Window:
    """Returns the window around a pixel, moved inside the scene."""
    sizes = (scene.info.height, scene.info.width)
    if not all(0 <= a < n for a, n in zip(at, sizes, strict=True)):
        raise errors.InputError(
            f"--at={at[0]},{at[1]} lies outside of the scene of {sizes[0]} rows and "
            f"{sizes[1]} columns"
        )
    corner = [
        max(min(a - tile // 2, n - tile), 0) for a, n in zip(at, sizes, strict=True)
    ]
    return window_lib.Window(*corner, tile, tile)


def _batch(
    method: Any, scene: raster.Scene, place: window_lib.Window
) -> tuple[dict[str, jax.Array], dict[str, np.ndarray]]:
    """Returns a batch of one window, and its pictures: "patch" and every context."""
    size = (scene.info.height, scene.info.width)
    views = view_lib.cut_views(scene.read, place, method.views, scene_size=size)
    batch = {"views": jnp.asarray(views[None])}
    by_scale = {view.scale: v for view, v in zip(method.views, views, strict=True)}
    shown = {"patch": views[0], "local": views[0]}
    if method.overview is not None:
        height, width = method.overview
        small = overview.make(scene.read, scene.info, height=height, width=width)
        batch["overview"] = jnp.asarray(small[None])
        shown["global"] = small
    for name in method.module.contexts:
        if name not in shown:
            shown[name] = by_scale[float(name)]
    return batch, shown


def _attention(
    method: Any,
    found: dict[str, Any],
    shown: dict[str, np.ndarray],
    pixel: tuple[int, int],
) -> np.ndarray:
    """Draws the patch with the pixel, and what it attends to in every context."""
    patch = shown["patch"].copy()
    cv2.drawMarker(patch, pixel[::-1], (255, 40, 40), cv2.MARKER_CROSS, 16, 2)
    pictures = [panel.titled("patch", _enlarge(patch))]
    offset, stride = method.feature_grid
    side = math.isqrt(found["attention"][0].shape[1])
    row, column = ((p + offset) // stride for p in pixel)
    for name, maps in zip(method.module.contexts, found["attention"], strict=True):
        line = np.asarray(maps[0, row * side + column])
        size = math.isqrt(len(line))
        heat = _over_image(line.reshape(size, size), shown[name].shape[0], method)
        title = f"context {name}: attention, {len(line) * line.max():.1f} x uniform"
        pictures.append(panel.titled(title, _heat(shown[name], heat / heat.max())))
    return np.concatenate(pictures, axis=1)


def _fusion(method: Any, weights: jax.Array, patch: np.ndarray) -> np.ndarray:
    """Draws how much every context counts where, [T, h, w, C] -> one row."""
    means = np.asarray(weights).mean(-1)
    low, high = float(means.min()), float(means.max())
    pictures = [panel.titled("patch", _enlarge(patch))]
    for name, values in zip(method.module.contexts, means, strict=True):
        heat = _over_image(values, patch.shape[0], method)
        title = f"weight of {name}: mean {values.mean():.3f}"
        scaled = (heat - low) / max(high - low, 1e-9)
        pictures.append(panel.titled(title, _heat(patch, scaled)))
    return np.concatenate(pictures, axis=1)


def _seams(run: trained.Trained, scene: raster.Scene) -> np.ndarray:
    """Draws the label map before and after its refinement, and what changed."""
    maps = []
    for refiner in (None, run.refiner):
        engine = engine_lib.make_engine(
            run.method, run.config, refiner=refiner, probabilities=False
        )
        rows = engine.label(run.variables, scene)
        maps.append(np.concatenate([part.labels for part in rows]))
    table = np.full((256, 3), 96, np.uint8)
    table[: len(run.colours)] = run.colours
    crude, refined = (table[labels] for labels in maps)
    changed = maps[0] != maps[1]
    marked = (crude * 0.3).astype(np.uint8)
    marked[changed] = refined[changed]
    titles = ("stitched", "refined", f"changed: {changed.mean():.1%}")
    pictures = zip(titles, (crude, refined, marked), strict=True)
    return np.concatenate(
        [panel.titled(title, _enlarge(p, 2 * ZOOM)) for title, p in pictures], axis=1
    )


def _over_image(values: np.ndarray, side: int, method: Any) -> np.ndarray:
    """Lays a feature map over the image it was made of, [side, side] float."""
    offset, stride = method.feature_grid
    large = np.kron(values, np.ones((stride, stride), np.float32))
    return large[offset : offset + side, offset : offset + side]


def _heat(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Blends an image with a colour map of values from 0 to 1."""
    grey = np.clip(255 * values, 0, 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), 4)
    return _enlarge((image * 0.45 + colours * 0.55).astype(np.uint8))


def _enlarge(picture: np.ndarray, side: int = ZOOM) -> np.ndarray:
    """Scales a picture so that its longer side has about `side` px."""
    scale = side / max(picture.shape[:2])
    size = tuple(max(round(n * scale), 1) for n in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def main(argv: list[str]) -> int:
    """Runs what the command line asks for; returns the exit code."""
    spec, overrides = config_lib.parse_flags(argv)
    compilation.keep_compiled()
    logging.set_verbosity(logging.ERROR)
    chosen = flags.FLAGS
    if spec or not (chosen.checkpoint and chosen.input and chosen.output):
        raise errors.InputError(
            "give --checkpoint=RUN --input=SCENE --output=FOLDER [--at=ROW,COLUMN]"
        )
    run = trained.load_run(chosen.checkpoint, overrides)
    folder = pathlib.Path(chosen.output).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    with raster.open_scene(chosen.input, predict.read_options(run.config)) as scene:
        at = _parse_at(chosen.at, scene)
        for name, picture in draw(run, scene, at).items():
            path = folder / f"{scene.path.stem}_{name}.png"
            panel.write_png(str(path), picture)
            print(path)
    return 0


def _parse_at(text: str, scene: raster.Scene) -> tuple[int, int]:
    if not text:
        return scene.info.height // 2, scene.info.width // 2
    try:
        row, column = (int(word) for word in text.split(","))
    except ValueError:
        raise errors.InputError(
            f"--at={text}: give a row and a column, e.g. --at=700,900"
        ) from None
    return row, column


def run() -> int:
    """Runs main; a user's mistake becomes one sentence and exit code 2."""
    flags.DEFINE_string("checkpoint", "", "folder of a finished run")
    flags.DEFINE_string("input", "", "a scene")
    flags.DEFINE_string("output", "", "folder for the pictures")
    try:
        return main(sys.argv)
    except (errors.InputError, OSError) as error:
        print(f"uhrjax: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(run())
