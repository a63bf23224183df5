"""SegFix behind a scene made small, a row of MagNet's tables.

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
    config.method = "segfix"
    config.model = model = ml_collections.ConfigDict({"size": config.model.size})
    model.network, model.width, model.stem_width = "w48", 0, 64  # SegFix's code
    model.features, model.step, model.reach = 256, 2, 5.0  # SegFix's code
    if {"synthetic", "smoke"} & set(words):
        model.network, model.width, model.stem_width = "tiny", 8, 16
        model.features = 32
    return config
