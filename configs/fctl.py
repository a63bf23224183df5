"""FCtL (ICCV 2021). Sources: the paper and, where marked, its code.

Variants: `deepglobe` (default), `inria`, `synthetic` (procedural landcover, minutes on
a CPU), `folder` (your own images and masks); `smoke` with any of them; `code` for the
learning rate of the published code. All stages are trained in order, each also alone:
--config.stage=medium. Contexts as in the paper's Tables 3 and 4, e.g.
--config.model.contexts="('2','local')"; () is FCN-8s alone.
"""

import ml_collections

from configs import base

WORDS = ("deepglobe", "inria", "synthetic", "folder", "smoke", "code", "crude")


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant; `crude` leaves the refinement out."""
    words = base.words(variant, *WORDS)
    config = base.defaults()
    config.method = "fctl"
    config.mean, config.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # code: plain [0, 1]

    model = config.model
    model.contexts = ("3", "global", "local")  # Sec. 4.1: 508, 1524, 2448 on DeepGlobe
    model.encoders = "frozen"  # code, mode 3
    model.fusion = "adaptive"  # Sec. 3.2, as in the code
    model.spatial_only = False
    model.value = "context"  # code; the text says local
    model.gamma_init = 0.0  # code
    model.border = "zero"  # code
    model.fc_features = 4096
    model.dropout = 0.5
    model.wide_border = True  # FCN-8s: 100 px around every image
    model.skip_scales = (0.01, 0.0001)  # code, of the finer features
    model.width = 64

    config.loss.gamma = 3.0  # code
    config.loss.ignore = -1  # code: DeepGlobe's unknown is learned as a class

    config.refiner = base.refiner()
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
    if "code" in words:
        config.schedule.begin = 0.5  # code: epochs 50 to 99 of 100
    if "crude" in words:
        config.refiner = ml_collections.ConfigDict()
    return config


def _recipe(config: ml_collections.ConfigDict) -> None:
    """Sec. 4.2 and the code; one stage after the other."""
    config.tile, config.stride, config.eval.stride = 508, 458, 458  # overlap >= 50
    config.grid = "even"  # code
    config.data.unit = "scenes"
    config.batch_size = 6  # scenes per step, Sec. 4.2
    config.sub_batch = 4  # code: patches at a time with contexts
    config.stages.fcn = ml_collections.ConfigDict({"sub_batch": 6})  # code: without
    config.accumulate_how = "sum"  # code
    config.epochs = 50
    config.coarse.epoch = 20  # Sec. 4.2: the refinement learns from an early model
    config.optimizer.name = "adam"
    config.learning_rate = 5e-5
    config.optimizer.weight_decay = 5e-4  # code
    config.schedule.per = "step"
    config.data.augment.hflip, config.data.augment.vflip = 0.5, 0.0  # code
    config.data.augment.rotate90 = 0.5  # code
    config.eval.every, config.eval.select = 5, "last"  # code: no selection
    config.eval.batch_size = 16  # code
    config.eval.score, config.eval.blend = "logits", "average"  # code: sum of logits
    config.eval.absent_as_zero = True  # code


def deepglobe(config: ml_collections.ConfigDict) -> None:
    """803 scenes of 2448 px, split as in GLNet."""
    config.data.name, config.num_classes = "deepglobe/glnet-unknown_class", 7
    config.eval.include_background = False  # code: mIoU without class 0, unknown


def inria(config: ml_collections.ConfigDict) -> None:
    """180 scenes of 5000 px, split as in GLNet; mIoU is the building IoU."""
    config.data.name, config.num_classes = "inria/glnet", 2
    config.model.contexts = ("2", "3", "local")  # Sec. 4.1: 508, 1016, 1524
    config.eval.include_background = False  # code


def folder(config: ml_collections.ConfigDict) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    config.data.name, config.num_classes = "folder", 0
    config.data.split = config.data.val_split = "val"
    config.batch_size, config.eval.include_background = 2, True
    config.eval.absent_as_zero = False


def synthetic(config: ml_collections.ConfigDict) -> None:
    """Procedural landcover at a size that two CPU cores train in minutes."""
    config.data.name, config.num_classes = "synthetic/landcover_many", 7
    config.data.val_split, config.data.split = "val", "test"
    config.eval.include_background, config.eval.absent_as_zero = True, False
    config.tile, config.stride, config.eval.stride = 64, 64, 64
    config.mean, config.std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)  # random weights need it
    # Patches that are small beside the parcels: as large as 306 px would be in scenes
    # of 2448. Contexts show 256 and 512 px, wide enough to tell how parcels lie.
    config.model.contexts = ("4", "global", "local")
    config.model.width, config.model.fc_features = 8, 64
    config.model.dropout = 0.1
    # Ours, for few steps from random weights: nothing is computed in a border around
    # small patches, and fine features count at once.
    config.model.wide_border, config.model.skip_scales = False, (1.0, 1.0)
    # Few steps from random weights: patches of all scenes mixed, not scene by scene; no
    # decay, which outweighs the gradients of attention that does nothing yet.
    config.data.unit, config.batch_size, config.eval.batch_size = "patches", 12, 8
    config.sub_batch = 0
    config.model.gamma_init = 1.0
    config.data.augment.vflip, config.data.augment.rotate90 = 0.5, 0.75
    config.epochs, config.eval.every, config.coarse.epoch = 1, 1, 0
    config.learning_rate, config.optimizer.weight_decay = 2e-3, 0.0
    config.schedule.warmup = 0.3  # or first steps undo what encoders know
    # Cross-entropy: a power of 3 all but mutes pixels that are undecided between two
    # classes, the ones that contexts decide.
    config.loss.gamma = 0.0
    # In ImageNet's place, without which encoders never learn to read contexts: scenes
    # of 512 px shown in 128.
    config.stages = ml_collections.ConfigDict({"pretrain": _pretraining(128)})
    refiner = config.refiner
    refiner.model.width, refiner.model.context = 8, 4.0
    refiner.model.gamma_init = 1.0
    refiner.epochs, refiner.batch_size, refiner.sub_batch = 3, 1, 16
    refiner.learning_rate = 2e-3


def _pretraining(side: int) -> ml_collections.ConfigDict:
    """FCN-8s on whole scenes of `side` px: an epoch is 10 steps."""
    stage = ml_collections.ConfigDict()
    stage.model = ml_collections.ConfigDict({"size": (side, side)})
    stage.epochs, stage.eval = 60, ml_collections.ConfigDict({"every": 60})
    stage.learning_rate = 3e-3
    return stage


def smoke(config: ml_collections.ConfigDict) -> None:
    """All stages in about a minute on a CPU."""
    config.stages.pretrain = _pretraining(64)
    config.stages.pretrain.epochs = 1
    config.model.width, config.model.fc_features = 4, 8
    config.refiner.model.width = 2
    base.few_scenes(config)
    config.data.unit, config.batch_size = "scenes", 1  # as in the paper
    config.sub_batch = config.refiner.sub_batch = 8
    config.epochs = config.refiner.epochs = 1
    config.max_steps, config.eval.every, config.coarse.epoch = 2, 1000, 0
