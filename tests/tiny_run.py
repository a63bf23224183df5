"""Scenes, and command lines that train every method on them in seconds."""

import numpy as np

METHODS = ("pfnet", "upernet", "semantic_fpn")
PFNET_FLAGS = [
    "--config.model.reduce_dim=4",
    "--config.model.edge_points=8",
    "--config.model.maxpool_size=2",
]


def tiny_flags(squares, data_root):
    """Overrides that turn any `:folder` config into seconds of work."""
    values = {
        "data.dir": squares, "data.root": data_root, "tile": 32, "stride": 32,
        "eval.stride": 24, "batch_size": 8, "epochs": 2, "eval.every": 1,
        "log_every": 1, "checkpoint_every": 1, "learning_rate": 0.05,
        "loss.ohem_min_kept": 100, "model.backbone": "resnet18", "model.width": 8,
        "model.fpn_dim": 8, "eval.panels": 1,
    }  # fmt: skip
    return [f"--config.{key}={value}" for key, value in values.items()]


def arguments(method, squares, data_root, workdir, *more, mode="train"):
    extra = PFNET_FLAGS if method == "pfnet" else []
    return [
        "main", f"--config=configs/{method}.py:folder", f"--workdir={workdir}",
        f"--mode={mode}", *tiny_flags(squares, data_root), *extra, *more,
    ]  # fmt: skip


def draw_scene(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares (class 1) on dark noise (class 0)."""
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), np.uint8)
    for _ in range(max(2, height * width // 900)):
        top, left = rng.integers(0, (height, width))
        side = int(rng.integers(5, 14))
        label[top : top + side, left : left + side] = 1
    image = rng.integers(0, 90, (height, width, 3)) + 120 * label[..., None]
    return image.astype(np.uint8), label


def foveation_flags(squares, data_root, network="upernet"):
    """Overrides that turn `configs/foveation.py:folder,small` into seconds of work."""
    wide = {"upernet": "fpn_dim", "fcn8": "fc_features"}[network]
    values = {
        "data.dir": squares, "data.root": data_root, "tile": 32, "stride": 32,
        "eval.stride": 32, "model.bank": "(32,48,96)", "model.scale": 8,
        "model.anchor": "corner", "batch_size": 4, "locations.per_step": 2,
        "locations.per_iteration": 6, "epochs": 2, "eval.every": 2, "eval.rate": 24,
        "eval.cover": False, "eval.batch_size": 4, "log_every": 1,
        "checkpoint_every": 1, "segmenter.model.width": 4,
        f"segmenter.model.{wide}": 8, "eval.panels": 1,
    }  # fmt: skip
    return [f"--config.{key}={value}" for key, value in values.items()]
