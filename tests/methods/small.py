"""A small configuration of any method, and a batch for it."""

import jax
import ml_collections
import numpy as np

SMALL = {"backbone": "resnet18", "stem": "classic", "width": 4, "fpn_dim": 8}
SMALL_NETWORK = SMALL | {"backbone": "resnet10"}
SMALL_PFNET = SMALL | {
    "reduce_dim": 4,
    "edge_points": 6,
    "maxpool_size": 2,
    "avgpool_size": 2,
}
GAMMA = {"gamma_init": 0.5}  # attention at 0 has no gradient
SMALL_DECODER = {"decoder_dim": 8, "reduce_dim": 4, "edge_points": 6, "cells": 2}
SMALL_FCTL = {
    "contexts": ("2", "global", "local"),
    "width": 2,
    "fc_features": 8,
    "gamma_init": 0.5,  # at 0 contexts have no gradient
}
SMALL_HRNET = {"size": "w18_small_v2", "width": 2, "stem_width": 4}
SMALL_MAGNET = {"crop": (80, 120), "input_size": (64, 96), "width": 8, "refiners": 2}
MODELS = {
    "dgf": {"hidden": 4, "radius": 2},
    "downsample": {},
    "foveation": {"bank": (64, 96, 160), "scale": 16},
    "hrnet": SMALL_HRNET,
    "hrnet_ocr": SMALL_HRNET
    | {"size": "tiny", "features": 8, "hidden": 4, "dropout": 0.2},
    "magnet": SMALL_MAGNET,
    "glnet": SMALL | {"mode": "local"},
    "pfnet": SMALL_PFNET,
    "magnet_pspnet": SMALL | {"fpn_dim": 128},
    "ccnet": SMALL_NETWORK | GAMMA,
    "danet": SMALL_NETWORK | GAMMA | SMALL_DECODER,
    "deeplabv3": SMALL_NETWORK | SMALL_DECODER,
    "emanet": SMALL_NETWORK | {"bases": 4},
    "deeplabv3plus": SMALL_NETWORK | {"skip_dim": 4},
    "denseaspp": SMALL_NETWORK | {"growth": 4, "rates": (3, 6)},
    "farseg": SMALL_NETWORK | {"decoder_dim": 8},
    "fcn": SMALL_NETWORK,
    "gscnn": SMALL_NETWORK | {"skip_dim": 4},
    "hrnetv2": {"size": "tiny", "width": 2, "stem_width": 4},
    "icnet": SMALL_NETWORK,
    "ocnet": SMALL_NETWORK,
    "ranet": SMALL_NETWORK | {"grid": 2},
    "refinenet": SMALL_NETWORK,
    "segfix": {"network": "tiny", "width": 2, "stem_width": 4, "features": 8},
    "segnet": {"width": 2},
    "sfnet": SMALL_NETWORK,
    "unet": {"width": 2},
    "pspnet": SMALL_NETWORK,
    "rendered": {"layers": 1, "features": 4, "points": 60, "train_points": 20},
    "encnet": SMALL_NETWORK | {"words": 4},
    "pointrend": SMALL_NETWORK | {"points": 200},
    "fctl": SMALL_FCTL,
    "refinement": {"width": 2, "gamma_init": 0.5},
}
PLAIN = (
    "cascadepsp", "dgf", "downsample", "foveation", "glnet", "fctl", "hrnet",
    "hrnet_ocr", "magnet", "magnet_pspnet", "refinement", "rendered",
    "resnet_fpn", "segfix",
)  # fmt: skip
LOSSES = {name: {} for name in PLAIN}
# Config keys that only some methods have.
EXTRAS = {
    "dgf": {"segmenter": {"method": "semantic_fpn", "model": SMALL}},
    "downsample": {"segmenter": {"method": "semantic_fpn", "model": SMALL}},
    "rendered": {"segmenter": {"method": "fcn", "model": SMALL_NETWORK}},
    "segfix": {"segmenter": {"method": "fcn", "model": SMALL_NETWORK}},
    "foveation": {
        "segmenter": {
            "method": "semantic_fpn",
            "model": SMALL,
            "loss": {"ohem_min_kept": 500},
        }
    },
    "magnet": {"segmenter": {"method": "semantic_fpn", "model": SMALL}},
}


def run_once(function, *args):
    return jax.jit(function)(*args)


def config(method="pfnet", *, model=None, loss=None, **changes):
    fields = MODELS.get(method, SMALL)
    loss = LOSSES.get(method, {"ohem_min_kept": 500}) | (loss or {})
    return ml_collections.ConfigDict(
        {
            "method": method,
            "num_classes": 5,
            "tile": 64,
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "dtype": "float32",
            "remat": False,
            "model": fields | (model or {}),
            "loss": loss,
        }
        | EXTRAS.get(method, {})
        | changes
    )


def batch(*, size=(64, 96), count=2, seed=0):
    rng = np.random.default_rng(seed)
    label = np.zeros((count, *size), np.uint8)
    label[:, 10:40, 20:50] = 3
    label[:, 50:60, 5:15] = 255
    views = rng.integers(0, 256, (count, 1, *size, 3), np.uint8)
    return {"views": views, "label": label}


def batch_for(method, *, size=(64, 96), count=2, seed=0):
    """Returns a batch with everything that the method reads."""
    if method.whole_scenes:
        return scenes(count=count, seed=seed)
    found = batch(size=size, count=count, seed=seed)
    rng = np.random.default_rng(seed)
    shape = (count, len(method.views), *size, 3)
    found["views"] = rng.integers(0, 256, shape, np.uint8)
    if method.overview:
        shape = (count, *method.overview, 3)
        found["overview"] = rng.integers(0, 256, shape, np.uint8)
        found["position"] = rng.integers(0, 60, (count, 2), np.int32)
        found["scene_size"] = np.full((count, 2), 160, np.int32)
    if hasattr(method.module, "input_size"):  # MagNet
        corner = rng.uniform(0, 0.5, (count, 2))
        found["box"] = np.concatenate([corner, corner + 0.5], 1).astype(np.float32)
    if getattr(method, "refines", False) or hasattr(method.module, "reach"):
        targets = [method.targets(label, rng) for label in found["label"]]
        found |= {name: np.stack([t[name] for t in targets]) for name in targets[0]}
    if getattr(method, "reads_labels", False):
        wide = [round(side * method.module.context) for side in size]
        coarse = rng.integers(0, method.num_classes, (count, *wide), np.uint8)
        coarse[:, :5] = 255
        found["coarse"] = coarse
    return found


def scenes(*, size=(150, 170), count=2, locations=1, seed=0):
    """Returns whole scenes and some locations in them."""
    found = batch(size=size, count=count, seed=seed)
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 8, (1, locations, 2), np.int32)
    return {
        "scene": found["views"][:, 0],
        "label": found["label"],
        "locations": places,
        "progress": np.array([0.5], np.float32),
    }
