"""Small image folders for the tests of the builders and readers."""

import pathlib

import cv2
import numpy as np


def scene(height, width, *, classes=2, seed=0):
    """Returns a random image [h, w, 3] and label [h, w] that holds every class."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    label = rng.integers(0, classes, (height, width), np.uint8)
    label.ravel()[:classes] = np.arange(classes)[: label.size]
    return image, label


def write_png(path, pixels):
    """Writes RGB or single-band pixels."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    assert cv2.imwrite(str(path), pixels)


def write_folder(root, sizes, *, classes=2):
    """Writes images/ and masks/; returns {id: (image, label)}."""
    scenes = {}
    for index, (height, width) in enumerate(sizes):
        image, label = scene(height, width, classes=classes, seed=index)
        name = f"s{index}"
        write_png(root / "images" / f"{name}.png", image)
        write_png(root / "masks" / f"{name}_mask.png", label)
        scenes[name] = (image, label)
    return scenes
