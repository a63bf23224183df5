"""A small configuration of any method, and a batch for it."""

import jax
import ml_collections
import numpy as np

SMALL = {"backbone": "resnet18", "stem": "classic", "width": 4, "fpn_dim": 8}
SMALL_PFNET = SMALL | {
    "reduce_dim": 4,
    "edge_points": 6,
    "maxpool_size": 2,
    "avgpool_size": 2,
}


# Compiles fast, runs slowly: right for what runs once.
FAST_COMPILE = {"xla_backend_optimization_level": 0}


def run_once(function, *args):
    return jax.jit(function, compiler_options=FAST_COMPILE)(*args)


def config(method="pfnet", *, model=None, loss=None, **changes):
    fields = SMALL_PFNET if method == "pfnet" else SMALL
    loss = {"ohem_min_kept": 500} | (loss or {})
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
        | changes
    )


def batch(*, size=(64, 96), count=2, seed=0):
    rng = np.random.default_rng(seed)
    label = np.zeros((count, *size), np.uint8)
    label[:, 10:40, 20:50] = 3
    label[:, 50:60, 5:15] = 255
    views = rng.integers(0, 256, (count, 1, *size, 3), np.uint8)
    return {"views": views, "label": label}
