"""GLNet (CVPR 2019). Sources: the paper and, where marked, its code.

Variants: `deepglobe` (default), `inria`, `synthetic` (procedural landcover, minutes on
a CPU), `folder` (your own images and masks); `smoke` with any of them; `alone`: one
branch on patches, the paper's local baseline (--config.model.mode=global is the other).
All stages are trained in order, each also alone: --config.stage=local.
"""

import ml_collections

from configs import base

WORDS = ("deepglobe", "inria", "synthetic", "folder", "smoke", "alone")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *WORDS)
    config = base.defaults()
    config.method = "glnet"
    config.mean, config.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # code: plain [0, 1]

    model = config.model
    model.mode = "local_alone" if "alone" in words else "joint"
    model.backbone, model.stem, model.dilation = "resnet50", "classic", "none"
    model.width, model.fpn_dim = 64, 256

    config.loss.gamma = 3.0  # Sec. 4.2
    config.loss.ignore = -1  # code: DeepGlobe's unknown is learned as a class
    config.loss.difference_weight = 0.15  # Sec. 3.3
    config.loss.group = 6  # code: windows at a time

    _recipe(config)
    deepglobe(config)
    if "inria" in words:
        inria(config)
    if "folder" in words:
        folder(config)
    if "synthetic" in words or "smoke" in words:
        synthetic(config)
    if "smoke" in words:
        smoke(config)
    return config


def _recipe(config: ml_collections.ConfigDict) -> None:
    """Sec. 4.2 and the code; one stage after the other."""
    config.tile, config.stride, config.eval.stride = 508, 458, 458  # overlap >= 50
    config.grid = "even"  # code
    config.data.unit = "scenes"
    config.batch_size = 6  # scenes per step
    config.sub_batch = 6  # code
    config.accumulate_how = "sum"  # code
    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 5e-4  # code
    config.epochs, config.learning_rate = 120, 5e-5
    for stage, epochs, rate in (  # code
        ("global", 120, 5e-5),
        ("local", 50, 2e-5),
        ("joint", 120, 5e-5),
    ):
        if config.model.mode != "local_alone":
            own = {"epochs": epochs, "learning_rate": rate}
            config.stages[stage] = ml_collections.ConfigDict(own)
    config.schedule.per = "step"
    config.data.augment.hflip, config.data.augment.vflip = 0.5, 0.0  # code
    config.data.augment.rotate90 = 0.5  # code
    config.eval.every = 5
    config.eval.score, config.eval.blend = "logits", "average"  # code: sum of logits


def deepglobe(config: ml_collections.ConfigDict) -> None:
    """803 scenes of 2448 px, in the split that GLNet published."""
    config.data.name, config.num_classes = "deepglobe/glnet-unknown_class", 7
    config.eval.include_background = False  # code: mIoU without class 0, unknown


def inria(config: ml_collections.ConfigDict) -> None:
    """180 scenes of 5000 px; mIoU is the building IoU."""
    config.data.name, config.num_classes = "inria/glnet", 2


def folder(config: ml_collections.ConfigDict) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    config.data.name, config.num_classes = "folder", 0
    config.data.split = config.data.val_split = "val"
    config.batch_size, config.eval.include_background = 2, True


def synthetic(config: ml_collections.ConfigDict) -> None:
    """Procedural landcover at a size that two CPU cores train in minutes."""
    config.data.name, config.num_classes = "synthetic/landcover_tiny", 7
    config.data.val_split, config.data.split = "val", "test"
    config.eval.include_background = True
    config.tile, config.stride, config.eval.stride = 128, 116, 116
    config.model.backbone, config.model.width = "resnet18", 16
    config.model.fpn_dim = 32
    config.batch_size, config.sub_batch, config.eval.batch_size = 1, 5, 5
    config.loss.group, config.optimizer.weight_decay = 5, 1e-4
    config.epochs, config.learning_rate, config.eval.every = 8, 1e-3, 4
    for own in config.stages.values():
        own.epochs, own.learning_rate = 8, 1e-3


def smoke(config: ml_collections.ConfigDict) -> None:
    """All stages in about a minute on a CPU."""
    base.few_scenes(config)
    config.tile, config.stride, config.eval.stride = 64, 64, 64
    config.model.width, config.model.fpn_dim = 4, 8
    config.sub_batch = config.eval.batch_size = 8
    config.epochs, config.max_steps, config.eval.every = 1, 2, 1000
    for own in config.stages.values():
        own.epochs = 1
