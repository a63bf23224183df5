"""Foveation maps drawn beside the gold standard, and compared with it."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from uhrjax import engine as engine_lib
from uhrjax import errors, fov_map, fov_quality, panel, report, trained
from uhrjax.data import dataset, prepared, scenes
from uhrjax.tiling import window as window_lib

SIDE = 384  # px, of one picture


def compare(
    run: trained.Trained,
    fixed: Sequence[trained.Trained],
    data: dataset.Dataset,
    folder: pathlib.Path,
    *,
    rule: str = "weighted",
) -> dict[str, Any]:
    """Draws the maps of a run's test scenes and compares them with the gold standard.

    Args:
        run: with a foveation module.
        fixed: one run per patch of its bank, in any order, or none.
        data: of the run.
        folder: for the pictures of the first `config.eval.panels` scenes.
        rule: of the gold standard.

    Returns:
        "mse" by scene with "mse_mean" and "mse_std" (with fixed runs only), and
        "px_by_class": the mean field of view where the middle of the smallest patch has
        a class, in the map, in the gold standard, and of the best fixed patch.

    Raises:
        errors.InputError: the run has no foveation module, or a patch no run.
    """
    _check_learns(run)
    bank, split = run.method.module.bank, run.config.data.split
    reader = data.open_scenes(split)
    ordered = _in_order(run, fixed)
    qualities = [fov_quality.of_split(one, reader, split) for one in ordered]
    engine = engine_lib.make_engine(run.method, run.config, probabilities=False)
    errors_of, widths = {}, _Widths(len(run.classes))
    with report.progress("maps", "scene", total=len(reader)) as bar:
        for index, scene in enumerate(reader.scenes):
            whole = window_lib.Window(0, 0, scene.height, scene.width)
            image = reader.read_image(index, whole)
            seen = fov_map.fov_map(engine.distribution(run.variables, image), bank)
            found = {"map": seen}
            if qualities:
                found |= _wanted([q[scene.id] for q in qualities], bank, rule)
                gold = found["gold standard"]
                errors_of[scene.id] = fov_map.map_error(seen, gold, bank)
            widths.add(found, _middle(reader, index, run.method, seen.shape))
            if index < run.config.eval.panels:
                picture = draw(reader, index, found, bank, data.info)
                name = f"{prepared.file_stem(scene.id)}_foveation.png"
                panel.write_png(str(folder / name), picture)
            bar.update()
    result: dict[str, Any] = {
        "run": str(run.path), "split": split, "bank": bank,
        "px_by_class": widths.means(run.classes),
    }  # fmt: skip
    if qualities:
        known = [value for value in errors_of.values() if np.isfinite(value)]
        result |= {
            "gold": rule, "fixed": [str(one.path) for one in ordered],
            "mse": errors_of, "mse_mean": np.mean(known), "mse_std": np.std(known),
        }  # fmt: skip
    return result


def _check_learns(run: trained.Trained) -> None:
    if not run.method.whole_scenes or not run.method.module.learns:
        raise errors.InputError(
            f"{run.path} has no foveation module to look into; give a run of "
            "configs/foveation.py without patch, random or average"
        )


def _wanted(
    qualities: Sequence[np.ndarray], bank: tuple[int, ...], rule: str
) -> dict[str, np.ndarray]:
    """Returns the maps that the qualities [h, w] of fixed patches recommend."""
    quality = np.stack(qualities, axis=-1)
    return {
        "gold standard": fov_map.gold_standard(quality, bank, rule=rule),
        "best patch": fov_map.gold_standard(quality, bank, rule="argmax"),
    }


def draw(
    reader: scenes.SceneReader,
    index: int,
    maps: dict[str, np.ndarray],
    bank: tuple[int, ...],
    info: prepared.DataInfo,
) -> np.ndarray:
    """Draws image, label and maps [h, w] px of a scene in a row, [H, W, 3] uint8."""
    scene = reader.scenes[index]
    whole = window_lib.Window(0, 0, scene.height, scene.width)
    table = np.full((256, 3), 96, np.uint8)
    table[: len(info.colours)] = info.colours
    size = _fit(scene.height, scene.width)
    image = cv2.resize(reader.read_image(index, whole), size, interpolation=3)
    label = table[reader.read_label(index, whole)]
    label = cv2.resize(label, size, interpolation=cv2.INTER_NEAREST)
    parts = [panel.titled(scene.id, image), panel.titled("label", label)]
    for name, values in maps.items():
        shares = fov_map.scaled(values, bank)
        grey = np.clip(255 * np.nan_to_num(shares), 0, 255).astype(np.uint8)
        colours = cv2.cvtColor(cv2.applyColorMap(grey, cv2.COLORMAP_VIRIDIS), 4)
        colours[np.isnan(shares)] = 128
        colours = cv2.resize(colours, size, interpolation=cv2.INTER_NEAREST)
        title = f"{name}: {bank[0]} (dark) to {bank[-1]} px"
        parts.append(panel.titled(title, colours))
    return np.concatenate(parts, axis=1)


class _Widths:
    """Sums of fields of view by class."""

    def __init__(self, classes: int):
        self._classes = classes
        self._sums: dict[str, np.ndarray] = {}

    def add(self, maps: dict[str, np.ndarray], label: np.ndarray) -> None:
        for name, values in maps.items():
            known = np.isfinite(values) & (label < self._classes)
            sums = self._sums.setdefault(name, np.zeros((2, self._classes)))
            sums[0] += np.bincount(label[known], values[known], self._classes)
            sums[1] += np.bincount(label[known], minlength=self._classes)

    def means(self, classes: Sequence[str]) -> dict[str, dict[str, float]]:
        with np.errstate(invalid="ignore"):
            found = {name: total / count for name, (total, count) in self._sums.items()}
        return {
            word: {name: float(values[k]) for name, values in found.items()}
            for k, word in enumerate(classes)
        }


def _in_order(
    run: trained.Trained, fixed: Sequence[trained.Trained]
) -> list[trained.Trained]:
    """Returns one run per patch of the bank, the smallest first."""
    bank, found = run.method.module.bank, {}
    for one in fixed:
        module = one.method.module
        if not one.method.whole_scenes or module.selection != "patch":
            raise errors.InputError(
                f"{one.path} is no run of one fixed patch, which the gold standard is "
                "made of; e.g. configs/foveation.py:synthetic,patch3"
            )
        ours = run.method.module
        if (module.crops, module.scale) != (ours.crops, ours.scale):
            raise errors.InputError(
                f"{one.path} cuts other patches than {run.path}: bank {module.bank}, "
                f"scale {module.scale}, {module.anchor}, against {ours.bank}, "
                f"{ours.scale}, {ours.anchor} (and border, antialias); they must agree"
            )
        if module.patch in found:
            raise errors.InputError(
                f"{one.path} and {found[module.patch].path} both have patch "
                f"{module.patch}; give one run per patch"
            )
        found[module.patch] = one
    absent = [k for k in range(1, len(bank) + 1) if k not in found]
    if found and absent:
        raise errors.InputError(
            f"the gold standard needs a run of every patch; missing: "
            f"{', '.join(f'patch{k} ({bank[k - 1]} px)' for k in absent)}"
        )
    return [found[k] for k in sorted(found)]


def _middle(
    reader: scenes.SceneReader, index: int, method: Any, size: tuple[int, int]
) -> np.ndarray:
    """Returns the label in the middle of the smallest patch at every location."""
    scene, module = reader.scenes[index], method.module
    whole = window_lib.Window(0, 0, scene.height, scene.width)
    label = reader.read_label(index, whole)
    first = module.crops.first(module.scale) + module.bank[0] // 2
    places = [np.arange(n) * module.scale + first for n in size]
    inside = [p < n for p, n in zip(places, label.shape, strict=True)]
    places = [np.minimum(p, n - 1) for p, n in zip(places, label.shape, strict=True)]
    found = label[places[0][:, None], places[1][None]]
    return np.where(inside[0][:, None] & inside[1][None], found, fov_map.IGNORE_LABEL)


def _fit(height: int, width: int) -> tuple[int, int]:
    """Returns (width, height) of a picture of a scene."""
    scale = SIDE / max(height, width)
    return max(round(width * scale), 1), max(round(height * scale), 1)
