"""FCtL's refinement network (ICCV 2021, Sec. 3.2) behind any other method's run.

It repairs the label maps that --config.coarse.run=FOLDER makes, and learns from them.
Variants: `deepglobe` (default), `inria`, `synthetic` (procedural objects, minutes on a
CPU), `synthetic,landcover`, `folder` (your own images and masks), `folder,small` (on a
CPU); `smoke` with any of them. `tile` must be the one of that run; the variants fit
FCtL and GLNet (deepglobe, inria) and PFNet with its baselines (the others).
In use: --config.refine=FOLDER with that run, or --mode=refine with label maps.
"""

import ml_collections

from configs import base

WORDS = (
    "deepglobe", "inria", "synthetic", "landcover", "folder", "small", "smoke",
)  # fmt: skip


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *WORDS)
    config = base.defaults()
    config.update(base.refiner())
    config.loss.gamma = 3.0
    config.loss.ignore = -1  # DeepGlobe's unknown is learned as a class

    config.tile, config.stride, config.eval.stride = 508, 458, 458
    config.grid = "even"
    config.accumulate_how = "sum"
    config.optimizer.name, config.optimizer.weight_decay = "adam", 5e-4
    config.schedule.per = "step"
    config.data.augment.hflip, config.data.augment.vflip = 0.5, 0.0
    config.data.augment.rotate90 = 0.5
    config.eval.every = 5
    # Sec. 4.2 learns from the maps of an early checkpoint; runs that were trained with
    # --config.keep_epochs=(20,) have one: --config.coarse.epoch=20.
    config.coarse.epoch = 0

    deepglobe(config)
    if "inria" in words:
        config.data.name, config.num_classes = "inria/glnet", 2
    if "synthetic" in words:
        synthetic(config, "landcover" if "landcover" in words else "objects")
    elif "folder" in words:
        folder(config, small="small" in words)
    if "smoke" in words:
        smoke(config, "landcover" if "landcover" in words else "objects")
    return config


def deepglobe(config: ml_collections.ConfigDict) -> None:
    """803 scenes of 2448 px, split as in GLNet."""
    config.data.name, config.num_classes = "deepglobe/glnet-unknown_class", 7
    config.eval.include_background = False  # FCtL's code: mIoU without class 0, unknown


def synthetic(config: ml_collections.ConfigDict, kind: str) -> None:
    """Procedural 512 px scenes at a size that two CPU cores train in minutes."""
    config.data.name = f"synthetic/{kind}_tiny"
    config.num_classes = {"objects": 16, "landcover": 7}[kind]
    config.data.val_split, config.data.split = "val", "test"
    config.eval.include_background = True
    config.grid = "shifted"
    config.tile, config.stride, config.eval.stride = 128, 128, 96
    config.model.width = 8
    config.batch_size, config.sub_batch, config.eval.batch_size = 1, 8, 5
    config.epochs, config.eval.every, config.learning_rate = 4, 2, 1e-3
    config.optimizer.weight_decay = 1e-4


def folder(config: ml_collections.ConfigDict, *, small: bool) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    config.data.name, config.num_classes = "folder", 0
    config.data.split = config.data.val_split = "val"
    config.eval.include_background = True
    config.grid, config.batch_size = "shifted", 1
    config.tile, config.stride, config.eval.stride = 512, 256, 384
    if small:
        config.tile, config.stride, config.eval.stride = 256, 128, 192
        config.model.width, config.epochs, config.learning_rate = 8, 20, 1e-3


def smoke(config: ml_collections.ConfigDict, kind: str) -> None:
    """A run in about a minute on a CPU."""
    synthetic(config, kind)
    base.few_scenes(config)
    config.tile, config.stride, config.eval.stride = 64, 64, 64
    config.model.width, config.eval.batch_size = 2, 8
    config.epochs, config.max_steps, config.eval.every = 1, 2, 1000
