"""PointRend behind a scene made small, a row of MagNet's tables.

Data, networks and recipe are those of `configs/dgf.py`, which is another such row:
`deepglobe` (default, ResNet-50 FPN at 508 px), `cityscapes` (HRNetV2-W18-small-v2 + OCR
at 128 x 256 px), `synthetic` (procedural landcover, minutes on a CPU;
`synthetic,objects`: many tiny ones), `folder` (your own images and masks); `smoke` with
any of them.
"""

import ml_collections

from configs import base, dgf


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *dgf.WORDS)
    config = dgf.get_config(variant)
    config.method = "rendered"
    config.model = model = ml_collections.ConfigDict({"size": config.model.size})
    model.layers, model.features = 3, 256  # PointRend's of semantic segmentation
    model.doublings, model.points, model.train_points = 2, 8192, 2048
    if {"synthetic", "smoke"} & set(words):
        model.features, model.points, model.train_points = 32, 1024, 256
    return config
