"""Pictures to look at: image, label, prediction, and the points a method chose."""

from __future__ import annotations

import cv2
import numpy as np

from uhrjax.data import prepared, scenes
from uhrjax.evaluate import ScenePrediction
from uhrjax.tiling import window as window_lib

SIDE = 1024  # px: larger scenes show their window with the most classes
POINT_COLOURS = {"salient": (255, 60, 40), "boundary": (60, 230, 255)}
BAR = 28  # px above every picture, for its title


def draw_panel(
    reader: scenes.SceneReader, scene: ScenePrediction, info: prepared.DataInfo
) -> np.ndarray:
    """Draws one scene.

    Args:
        reader: of the scene.
        scene: the finished prediction.
        info: gives the class colours.

    Returns:
        [BAR + h, 3 w or 4 w, 3] uint8 RGB; the fourth picture shows the method's points
        (PFNet, Figure 4) if it has any.
    """
    window = _busiest_window(reader, scene)
    image = reader.read_image(scene.index, window)
    colours = _palette(info)
    pictures = {
        f"image  {info.name}  {reader.scenes[scene.index].id}": image,
        "label": colours[reader.read_label(scene.index, window)],
        "prediction": colours[window_lib.cut(scene.labels, window, fill=255)],
    }
    if scene.points:
        counts = "  ".join(f"{name} {len(p)}" for name, p in scene.points.items())
        pictures[f"points: {counts}"] = _draw_points(image, scene.points, window)
    zoom = max(1, 384 // max(window.height, window.width))
    parts = [titled(title, p, zoom) for title, p in pictures.items()]
    return np.concatenate(parts, axis=1)


def write_png(path: str, picture: np.ndarray) -> None:
    """Writes [H, W, 3] uint8 RGB."""
    _, coded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    with open(path, "wb") as file:
        file.write(coded.tobytes())


def _busiest_window(
    reader: scenes.SceneReader, scene: ScenePrediction
) -> window_lib.Window:
    """Returns the window of at most SIDE px whose label has the most classes."""
    height, width = scene.labels.shape
    places = window_lib.plan_windows(height, width, tile=SIDE, stride=SIDE)
    places = [window_lib.intersect(p, height=height, width=width) for p in places]
    if len(places) == 1:
        return places[0]
    return max(places, key=lambda p: len(np.unique(reader.read_label(scene.index, p))))


def _palette(info: prepared.DataInfo) -> np.ndarray:
    """[256, 3] uint8; the ignored label is grey."""
    table = np.full((256, 3), 96, np.uint8)
    table[: len(info.colours)] = np.array(info.colours, np.uint8)
    return table


def _draw_points(
    image: np.ndarray, points: dict[str, np.ndarray], window: window_lib.Window
) -> np.ndarray:
    picture = (image * 0.7).astype(np.uint8)
    radius = max(2, window.height // 256)
    for name, places in points.items():
        colour = POINT_COLOURS.get(name, (255, 255, 0))
        for y, x in np.unique(np.round(places).astype(int), axis=0):
            at = (int(x) - window.left, int(y) - window.top)
            cv2.circle(picture, at, radius, colour, -1, cv2.LINE_AA)
    return picture


def titled(title: str, picture: np.ndarray, zoom: int = 1) -> np.ndarray:
    """Returns a picture [h, w, 3], `zoom` times as large, with a title above it."""
    picture = picture.repeat(zoom, axis=0).repeat(zoom, axis=1)
    bar = np.full((BAR, picture.shape[1], 3), 24, np.uint8)
    cv2.putText(
        bar, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (240,) * 3, 1, cv2.LINE_AA
    )
    return np.concatenate([bar, picture])
