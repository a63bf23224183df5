"""Finished runs as they lie on a disk, made up."""

import json
import pathlib

import cv2
import numpy as np

from uhrjax import config as config_lib
from uhrjax import stages
from uhrjax.tables import paper as paper_lib
from uhrjax.tables import recipe as recipe_lib

HASHES = {
    "synthetic/objects_tiny": "9790550db23da6fc043796ac412f2927",
    "synthetic/landcover_tiny": "2753c8c289222bff39ffd3f4fccba086",
    "synthetic/landcover_many": "d17bb84fcb55d24678bf26b319f694b5",
}
LANDCOVER = ("urban", "agriculture", "rangeland", "forest", "water", "barren")


def recipe_of(paper, table, row, dataset="synthetic"):
    return recipe_lib.of_row(paper_lib.load(paper), table, row, dataset)


def write_run(folder, training, *, seed=0, scores=None, changes=None, **report):
    """Writes the reports of all stages; `scores` and the like are the last one's.

    Args:
        folder: of the run.
        training: whose configs it has.
        seed: of the run.
        scores: of the last stage, shares.
        changes: config keys that are otherwise than the row says, in every stage.
        report: further keys of report.json.
    """
    flags = [f"--config.{key}={value}" for key, value in (changes or {}).items()]
    config = config_lib.override(training.config(), [*flags, f"--config.seed={seed}"])
    planned = stages.plan(config, folder)
    if not planned[0].is_only:
        stages.write_order(folder, planned)
    for stage in planned:
        is_last = stage.name == (training.stage or planned[-1].name)
        own = {"miou": 0.5, **(scores or {})} if is_last else {"miou": 0.1}
        write_report(stage.folder, stage.config, own, **(report if is_last else {}))


def write_report(folder, config, scores, *, training=True, **report):
    """Writes report.json and, of a training, config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = config_lib.to_json(config)
    found = {
        "method": config.method, "data": config.data.name, "split": config.data.split,
        "split_hash": HASHES.get(config.data.name, "0123456789abcdef"), "step": 8,
        "trained_steps": [8, 8], "weights_hash": "aabbccdd00112233",
        "device": "1 x cpu (cpu)", "version": "0.1.0", "seconds_per_megapixel": 0.5,
        "device_peak_mb": None, "finished": "2026-01-01T00:00:00Z", "scores": scores,
        "classes": {name: {"iou": scores["miou"], "pixels": 9} for name in LANDCOVER},
        "config": tree, **report,
    }  # fmt: skip
    (folder / "report.json").write_text(json.dumps(found))
    if training:
        (folder / "config.json").write_text(json.dumps(tree))


def write_panel(folder: pathlib.Path, name="scene_0.png", parts=3):
    """Writes the picture of a scene as `uhrjax.panel` lays it out."""
    picture = np.zeros((28 + 40, 40 * parts, 3), np.uint8)
    for k in range(parts):
        picture[28:, 40 * k : 40 * (k + 1)] = 60 * (k + 1)
    (folder / "panels").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "panels" / name), picture)
