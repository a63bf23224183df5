"""Pictures of runs: one scene as the rows of a table label it."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from uhrjax import panel
from uhrjax.output import overlay
from uhrjax.tables import table as table_lib

PARTS = ("image", "label", "prediction", "points")  # of a panel, from left to right
SIDE = 256  # px, of a picture in a sheet
ACROSS = 5  # at most so many pictures in a row of a sheet
QUALITY = 88  # of its JPEG


def cut(file: pathlib.Path, report: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns a run's panel cut into its pictures, BGR; {} if it is none."""
    picture = cv2.imread(str(file))
    points = any(name.startswith("foreground_point_ratio") for name in report["scores"])
    count = len(PARTS) if points else len(PARTS) - 1
    if picture is None or picture.shape[1] % count or len(picture) <= panel.BAR:
        return {}
    pieces = np.split(picture[panel.BAR :], count, axis=1)
    return dict(zip(PARTS, pieces, strict=False))


def write_sheet(folder: pathlib.Path, block: table_lib.Block) -> pathlib.Path:
    """Draws a scene, its label and what the first run of every row says about it.

    Returns:
        the file in the folder. A table with fewer than two rows to show writes none,
        so one that was drawn elsewhere stays.
    """
    name = f"{block.paper.name}-{block.table}-{block.dataset}.jpg"
    pictures = _pictures(block)
    if len(pictures) > 3:
        folder.mkdir(parents=True, exist_ok=True)
        coded = cv2.imencode(
            ".jpg", _sheet(pictures), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
        )
        (folder / name).write_bytes(coded[1].tobytes())
    return folder / name


def _pictures(block: table_lib.Block) -> dict[str, np.ndarray]:
    """Returns title -> picture, of the scene that most rows have."""
    by_scene: dict[str, dict[str, np.ndarray]] = {}
    for line in block.lines:
        for one in line.scores[:1]:
            for file in sorted((one.where / "panels").glob("*.png")):
                parts = cut(file, one.report)
                if "prediction" in parts:
                    own = by_scene.setdefault(
                        file.stem, {n: parts[n] for n in ("image", "label")}
                    )
                    own[line.row] = parts["prediction"]
    return max(by_scene.values(), key=len, default={})


def _sheet(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the pictures side by side, in as many rows as it takes."""
    drawn = [
        panel.titled(
            title.encode("ascii", "replace").decode(),
            overlay.reduce_picture(picture, side=SIDE),
        )
        for title, picture in pictures.items()
    ]
    height = max(len(one) for one in drawn)
    width = max(one.shape[1] for one in drawn)
    down = -(-len(drawn) // ACROSS)
    across = -(-len(drawn) // down)
    sheet = np.full((down * height, across * width, 3), 24, np.uint8)
    for k, one in enumerate(drawn):
        top, left = k // across * height, k % across * width
        sheet[top : top + len(one), left : left + one.shape[1]] = one
    return sheet
