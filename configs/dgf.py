"""Deep guided filter behind a scene made small, a row of MagNet's tables.

Data: `deepglobe` (default, ResNet-50 FPN at 508 px), `cityscapes` (HRNetV2-W18-small-v2
+ OCR at 128 x 256 px), `synthetic` (procedural landcover, minutes on a CPU;
`synthetic,objects`: many tiny ones), `folder` (your own images and masks); `smoke` with
any of them. Network: any that
`configs/baseline.py` lists instead of the data set's. The recipe is that of MagNet's
segmentation networks; none is published.
"""

import ml_collections

from configs import base

DATA = ("deepglobe", "cityscapes", "synthetic", "objects", "folder", "smoke")
WORDS = (*DATA, *base.NETWORKS)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *WORDS)
    config = base.defaults()
    config.method = "dgf"
    config.model.hidden, config.model.radius = 64, 4  # DGF's DeepLab example
    config.model.epsilon = 0.01
    segmenter = config.segmenter
    segmenter.method = "resnet_fpn"
    segmenter.model = ml_collections.ConfigDict({"backbone": "resnet50"})
    config.data.layout = "scenes"
    config.optimizer.weight_decay = 5e-4
    config.schedule.per = "step"
    config.data.augment.vflip = config.data.augment.rotate90 = 0.0
    config.batch_size, config.epochs, config.learning_rate = 12, 100, 1e-3
    config.eval.every, config.eval.mba, config.eval.blend = 10, True, "montage"
    _size(config, tile=512, size=(508, 508))
    deepglobe(config)
    if "cityscapes" in words:
        cityscapes(config)
    if "folder" in words:
        folder(config)
    if "synthetic" in words or "smoke" in words:
        synthetic(config)
    if "objects" in words:
        objects(config)
    if "smoke" in words:
        smoke(config)
    for word in words:
        if word in base.NETWORKS:
            small = bool({"synthetic", "smoke"} & set(words))
            base.network(config.segmenter, word, small=small)
            config.segmenter.loss.ohem = False
    return config


def _size(
    config: ml_collections.ConfigDict, *, tile: int, size: tuple[int, int]
) -> None:
    """Side of windows, and (height, width) of the small scene."""
    config.tile, config.stride = tile, tile
    config.eval.stride = tile - 32  # squares that a window cuts off are another's
    config.model.size = size


def deepglobe(config: ml_collections.ConfigDict) -> None:
    """803 scenes of 2448 px, as configs/magnet.py has them."""
    config.data.name, config.num_classes = "deepglobe/glnet-unknown_class", 7
    config.eval.include_background, config.eval.absent_as_zero = False, True
    config.eval.void = (0,)


def cityscapes(config: ml_collections.ConfigDict) -> None:
    """3475 scenes of 1024 x 2048 px."""
    config.data.name, config.num_classes = "cityscapes/official", 19
    config.data.split = config.data.val_split = "val"
    config.eval.include_background, config.eval.void = True, ()
    _size(config, tile=512, size=(128, 256))
    config.segmenter.method = "hrnet_ocr"
    config.segmenter.model = ml_collections.ConfigDict({"size": "w18_small_v2"})
    config.learning_rate = 0.01


def folder(config: ml_collections.ConfigDict) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    base.folder(config)
    config.eval.include_background, config.eval.absent_as_zero = True, False
    config.eval.void = ()
    _size(config, tile=512, size=(512, 512))


def synthetic(config: ml_collections.ConfigDict) -> None:
    """Procedural landcover; an epoch has 16 windows of a scene."""
    config.data.name, config.num_classes = "synthetic/landcover_many", 7
    config.data.val_split, config.data.split = "val", "test"
    config.mean, config.std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)  # random weights need it
    config.eval.include_background, config.eval.absent_as_zero = True, False
    config.eval.void = ()
    _size(config, tile=128, size=(128, 128))
    config.model.hidden = 16
    model = {"backbone": "resnet18", "width": 16, "fpn_dim": 32}
    config.segmenter.method = "resnet_fpn"
    config.segmenter.model = ml_collections.ConfigDict(model)
    base.from_scratch(config)
    del config.loss["ohem_min_kept"]
    config.batch_size, config.epochs, config.eval.every = 8, 3, 3
    config.data.augment.vflip, config.data.augment.rotate90 = 0.5, 0.75


def objects(config: ml_collections.ConfigDict) -> None:
    """Tiny objects instead, of which a third as many scenes exist."""
    config.data.name, config.num_classes = "synthetic/objects_tiny", 16
    config.epochs = config.eval.every = 16  # about as many steps as MagNet has there


def smoke(config: ml_collections.ConfigDict) -> None:
    """Any recipe in about a minute on a CPU."""
    base.few_scenes(config)
    _size(config, tile=64, size=(64, 64))
    config.max_steps, config.log_every, config.eval.every = 4, 2, 1000
