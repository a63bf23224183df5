"""Networks that the papers compare with, trained as the paper does whose table it is.

Network: `pspnet` (default), `deeplabv3`, `deeplabv3plus`, `fcn`, `denseaspp`,
`refinenet`, `danet`, `ocnet`, `ccnet`, `emanet`, `encnet`, `hrnetv2`, `sfnet`, `gscnn`,
`ranet`, `farseg`, `pointrend`, `unet`, `icnet`, `segnet`, `upernet`, `semantic_fpn`.
Data: `isaid` (default), `vaihingen`, `potsdam` with PFNet's recipe; `cityscapes`,
`ade20k`, `bdd` of its Table 6 (the recipe is ours); `deepglobe`,
`inria` with FCtL's; `synthetic` (procedural scenes, minutes on a CPU; `landcover`, or
`parcels`: FCtL's), `folder` (your own images and masks), `folder,small` (on a CPU);
`smoke` with any of them.
`global`: the network sees whole scenes made small, not windows. `r101`: ResNet-101.
PFNet's decoders: --config.model.decoder=fpn (or pf) with ccnet, danet, deeplabv3.
"""

import ml_collections

from configs import base

OWN = ("deepglobe", "inria", "parcels", "global", "r101")
WORDS = (*base.NETWORKS, *base.PFNET_WORDS, *OWN)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *WORDS)
    network = next((word for word in words if word in base.NETWORKS), "pspnet")
    config = base.defaults()
    base.network(config, network, small=False)

    def small(config: ml_collections.ConfigDict) -> None:
        loss = config.loss
        base.network(config, network, small=True)
        config.loss = loss

    if {"deepglobe", "inria"} & set(words):
        fctl(config, words, network)
        if "smoke" in words:
            base.smoke(config)
            small(config)
            _plain(config)
    else:
        base.pfnet_data(config, words, small)
        if network == "emanet" and not {"synthetic", "folder"} & set(words):
            config.model.moving_average = False  # code: its bases stay random
        if "parcels" in words and "smoke" not in words:
            parcels(config)
    small_run = {"synthetic", "small", "smoke"} & set(words)
    if "r101" in words and "backbone" in config.model and not small_run:
        config.model.backbone = "resnet101"
    if "global" in words:
        whole_scenes(config)
    return config


def _plain(config: ml_collections.ConfigDict) -> None:
    """Cross-entropy of all pixels."""
    config.loss.ohem, config.loss.loss_group = False, 0


def fctl(config: ml_collections.ConfigDict, words: list[str], network: str) -> None:
    """Sec. 4.2 of FCtL: its patches, steps and scores; the networks are the papers'."""
    config.tile, config.stride, config.eval.stride = 508, 458, 458  # overlap >= 50
    config.grid = "even"  # code
    config.data.unit = "scenes"
    config.batch_size, config.sub_batch = 6, 6  # scenes per step; code
    config.accumulate_how = "sum"  # code
    config.epochs, config.learning_rate = 50, 5e-5
    config.optimizer.name, config.optimizer.weight_decay = "adam", 5e-4  # code
    config.schedule.per = "step"
    config.data.augment.hflip, config.data.augment.vflip = 0.5, 0.0  # code
    config.data.augment.rotate90 = 0.5  # code
    config.eval.every, config.eval.select = 5, "last"  # code: no selection
    config.eval.score, config.eval.blend = "logits", "average"  # code: sum of logits
    config.eval.absent_as_zero = True  # code
    config.eval.include_background = False  # code: mIoU without class 0
    config.data.name, config.num_classes = "deepglobe/glnet-unknown_class", 7
    if "inria" in words:
        config.data.name, config.num_classes = "inria/glnet", 2
    _plain(config)
    if "stem" in config.model:
        config.model.stem = "classic"  # torchvision's weights
    if network == "pspnet":
        config.model.auxiliary = True  # PSPNet, Sec. 3.3
    if network == "deeplabv3plus":
        config.model.dilation, config.model.rates = "os16", (6, 12, 18)  # its Sec. 4


def parcels(config: ml_collections.ConfigDict) -> None:
    """The scenes of FCtL's recipe on synthetic data, each patch once (ours)."""
    config.data.name, config.num_classes = "synthetic/landcover_many", 7
    config.tile, config.stride, config.eval.stride = 64, 64, 64
    config.mean, config.std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)  # random weights need it
    config.batch_size, config.epochs, config.eval.every = 12, 1, 1
    config.learning_rate, config.optimizer.weight_decay = 2e-3, 0.0
    config.data.augment.vflip, config.data.augment.rotate90 = 0.5, 0.75
    config.eval.at_start = False
    _plain(config)


def whole_scenes(config: ml_collections.ConfigDict) -> None:
    """Global inference: whole scenes made as small as a window (FCtL, Sec. 4.3)."""
    own = {"method": config.method, "model": config.model, "loss": config.loss}
    config.segmenter = ml_collections.ConfigDict(
        {key: v if isinstance(v, str) else v.to_dict() for key, v in own.items()}
    )
    config.method = "downsample"
    config.model = ml_collections.ConfigDict({"size": (0, 0)})  # 0: the tile
    config.loss = ml_collections.ConfigDict()
    config.data.unit, config.sub_batch = "overviews", 0
    config.data.augment.scale = ()
    config.eval.protocol = "scene"
    config.eval.stride = config.tile
    if config.data.name.startswith("synthetic/"):
        config.epochs = config.eval.every = 60  # an epoch has one look at each scene
        config.tile = config.stride = config.eval.stride = 128
    if config.max_steps:  # smoke
        config.tile = config.stride = config.eval.stride = 64
        config.eval.every = 1000
