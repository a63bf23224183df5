"""Foveation (2020). Sources: the paper and, where marked, its code.

Data: `deepglobe` (default, UPerNet-R50), `cityscapes`, `gleason2019` (HRNetV2-W48),
`synthetic` (procedural landcover, minutes on a CPU), `folder` (your own images and
masks, all of one size), `folder,small` (on a CPU); `smoke` with any of them.
Rule: the mean of all patches (default), `mode`, `gsm`, `reinforce`; without a foveation
module `patch1` to `patch5`, `random`, `average`.
Segmentation network instead of the data set's: `hrnet`, `upernet`, `pfnet`, `fcn8`, or
any that `configs/baseline.py` lists; --config.segmenter=NAME is the same.
`paper`: as the text has it where its code differs.
"""

import ml_collections

from configs import base

LEARNED = ("mean", "mode", "gsm", "reinforce")
RULES = (*LEARNED, "random", "average")
PATCHES = ("patch1", "patch2", "patch3", "patch4", "patch5")
NETWORKS = ("hrnet", "upernet", "pfnet", "fcn8")
DATA = ("deepglobe", "cityscapes", "gleason2019", "synthetic", "folder")
OTHERS = tuple(name for name in base.NETWORKS if name not in NETWORKS)
WORDS = (*DATA, "small", "smoke", *RULES, *PATCHES, *NETWORKS, "paper", *OTHERS)


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *WORDS)
    config = base.defaults()
    config.method = "foveation"
    _model(config)
    _recipe(config)
    network = "upernet"
    deepglobe(config)
    if "cityscapes" in words:
        network = "hrnet"
        cityscapes(config)
    if "gleason2019" in words:
        network = "hrnet"
        gleason2019(config)
    if "folder" in words:
        folder(config)
    for word in words:
        network = word if word in (*NETWORKS, *OTHERS) else network
        if word in RULES:
            config.model.selection = word
        if word in PATCHES:
            config.model.selection, config.model.patch = "patch", int(word[-1])
    if "synthetic" in words or "smoke" in words:
        synthetic(config)
    small = {"synthetic", "small", "smoke"} & set(words)
    if "small" in words:
        few_pixels(config)
    if "smoke" in words:
        smoke(config)
    _segmenter(config, network, small=bool(small))
    if "paper" in words:
        paper(config)
    return config


def _model(config: ml_collections.ConfigDict) -> None:
    """The foveation module (Sec. 3.1 to 3.3, code)."""
    model = config.model
    model.selection, model.patch = "mean", 1
    model.anchor, model.border, model.antialias = "corner", "zero", False  # code
    model.straight_through = "st_inv"  # mode; code
    model.hard, model.gsm_eval = False, "sample"  # gsm; code
    model.anneal, model.tau_rate = True, 1.0  # gsm, Sec. 3.3
    model.baseline = True  # reinforce; ours
    model.activation, model.final_relu = "relu6", False  # code
    config.loss.entropy_weight = 0.0  # code, off there, too


def _recipe(config: ml_collections.ConfigDict) -> None:
    """Sec. 4.1 and the code."""
    config.data.unit, config.data.layout = "resident", "scenes"
    config.locations = ml_collections.ConfigDict()
    config.locations.per_step = 0  # B: in each of the batch_size scenes
    config.locations.per_iteration = 0  # N: before other scenes are fetched
    config.locations.repeats = 1  # an epoch goes through all scenes so often
    config.eval.rate = 0  # px per location, 0: the model's scale
    config.eval.aggregation = "sum"  # of probabilities, or "max_score": the surest one
    config.eval.cover = False  # more locations where rounding leaves a strip empty
    config.optimizer.name = "adam"
    config.optimizer.weight_decay, config.optimizer.decay = 1e-4, "conv"
    config.learning_rate = 2e-5
    config.schedule.per = "step"
    config.data.augment.vflip, config.data.augment.rotate90 = 0.0, 0.0  # hflip only


def _bank(config: ml_collections.ConfigDict, bank: tuple[int, ...], scale: int) -> None:
    """Sides of the patches, px; scene px per px of the small scene."""
    config.model.bank, config.model.scale = bank, scale
    config.tile = config.stride = config.eval.stride = bank[0]


def _count(
    config: ml_collections.ConfigDict, scenes: int, per_step: int, per_iteration: int
) -> None:
    """L scenes, B locations a step, N an iteration."""
    config.batch_size = scenes
    config.locations.per_step = per_step
    config.locations.per_iteration = per_iteration


def deepglobe(config: ml_collections.ConfigDict) -> None:
    """803 scenes of 2448 px: 410 400 locations."""
    config.data.name, config.num_classes = "deepglobe/foveation", 6
    config.data.split = config.data.val_split = "val"  # code
    config.mean, config.std = (0.282, 0.379, 0.408), (0.089, 0.101, 0.127)  # code
    _bank(config, (500, 1000, 1500, 2000, 2448), 24)  # code; the text ends at 2500
    _count(config, 4, 2, 24)  # code
    config.locations.repeats = 3  # code: 342 iterations an epoch
    config.epochs, config.eval.every = 50, 10
    config.eval.rate = 96  # code: of its evaluation; 500 while it trains


def cityscapes(config: ml_collections.ConfigDict) -> None:
    """3475 scenes of 1024 x 2048 px: 595 200 locations."""
    config.data.name, config.num_classes = "cityscapes/official", 19
    config.data.split = config.data.val_split = "val"
    config.mean, config.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    _bank(config, (512, 640, 768, 896, 1024), 16)
    _count(config, 8, 1, 16)  # code, by the name of its folder
    config.locations.repeats = 1
    config.epochs, config.eval.every = 100, 10
    config.eval.rate = 128  # Table B.5.1: as good as any finer one


def gleason2019(config: ml_collections.ConfigDict) -> None:
    """268 scenes of 4400 x 4400 px: 95 200 locations."""
    config.data.name, config.num_classes = "gleason2019/foveation", 4
    config.data.split = config.data.val_split = "val"
    config.mean, config.std = (0.748, 0.611, 0.823), (0.146, 0.245, 0.119)  # code
    _bank(config, (1100, 2000, 2900, 3800, 4400), 44)
    _count(config, 2, 1, 16)  # code
    config.locations.repeats = 1
    config.epochs, config.eval.every = 50, 5
    config.eval.rate = 1100  # code


def folder(config: ml_collections.ConfigDict) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    config.data.name, config.num_classes = "folder", 0
    config.data.split = config.data.val_split = "val"
    config.mean, config.std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    _bank(config, (512, 1024, 1536, 2048), 24)
    _count(config, 4, 2, 24)
    config.eval.rate, config.eval.cover = 256, True


def few_pixels(config: ml_collections.ConfigDict) -> None:
    """Small patches, which a CPU trains on in minutes."""
    config.model.antialias = True  # a wide patch shows few of its px otherwise
    config.model.anchor = "center"  # what the module sees lies in the patch's middle
    _bank(config, (64, 96, 128, 192, 256), 16)
    config.locations.repeats = 1
    config.epochs, config.eval.every = 20, 4
    config.eval.rate = 64
    config.optimizer.weight_decay, config.learning_rate = 1e-4, 2e-3


def synthetic(config: ml_collections.ConfigDict) -> None:
    """Procedural landcover, at a size that two CPU cores train in minutes."""
    config.data.name, config.num_classes = "synthetic/landcover_many", 7
    config.data.val_split, config.data.split = "val", "test"
    config.mean, config.std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)  # random weights need it
    few_pixels(config)
    _count(config, 4, 3, 24)
    config.data.augment.vflip, config.data.augment.rotate90 = 0.5, 0.75
    config.epochs = config.eval.every = 10
    if config.model.selection in LEARNED:
        # In ImageNet's place: a network that reads no wide view yet gives the module no
        # reason to choose one, and wide views are slow to learn.
        config.epochs = config.eval.every = 5
        wide = {"epochs": 5, "model": {"patch": 4}, "schedule": {"warmup": 0.0}}
        config.stages.pretrain = ml_collections.ConfigDict(wide)
        config.schedule.warmup = 0.3  # or first steps undo that


def smoke(config: ml_collections.ConfigDict) -> None:
    """Any recipe in about a minute on a CPU."""
    base.few_scenes(config)
    _bank(config, (32, 48, 64, 96, 128), 32)
    _count(config, 2, 2, 4)
    config.eval.rate = 32
    config.max_steps, config.eval.every, config.log_every = 6, 1000, 2
    config.stages = ml_collections.ConfigDict()


def _segmenter(config: ml_collections.ConfigDict, network: str, *, small: bool) -> None:
    """The network that labels patches; small ones train on a CPU in minutes."""
    segmenter = config.segmenter
    if network in OTHERS:
        base.network(segmenter, network, small=small)
        segmenter.loss.ohem = False
        return
    segmenter.method = {"fcn8": "fctl"}.get(network, network)
    segmenter.model = model = ml_collections.ConfigDict()
    segmenter.loss = loss = ml_collections.ConfigDict()
    if network == "hrnet":
        model.size = "w18_small_v2" if small else "w48"
        model.width, model.stem_width = (8, 16) if small else (0, 64)
        model.stem_stride = 1 if small else 2
        loss.class_weights = ()  # the code has some for Cityscapes
    elif network == "fcn8":
        model.contexts = ()
        model.width, model.fc_features = (8, 64) if small else (64, 4096)
        model.wide_border = not small
        loss.gamma = 0.0  # cross-entropy
    else:
        model.backbone, model.stem = ("resnet18" if small else "resnet50"), "deep"
        model.dilation, model.width = "none", (16 if small else 64)
        model.dropout = 0.0
        model.fpn_dim = 64 if small else 512
        loss.ohem = False
    if network == "upernet":
        model.design = "original"
    if network == "pfnet":
        model.fpn_dim, model.reduce_dim = (32, 8) if small else (256, 64)
        model.edge_points, model.maxpool_size = (16, 4) if small else (128, 14)
        bank = config.model.bank  # it takes multiples of 32 px
        _bank(config, (-(-bank[0] // 32) * 32, *bank[1:]), config.model.scale)


def paper(config: ml_collections.ConfigDict) -> None:
    """What the text says where its code does something else."""
    config.model.anchor = "center"
    config.model.activation, config.model.final_relu = "relu", True
    config.model.straight_through, config.model.hard = "st", True
    if config.data.name == "deepglobe/foveation":
        _bank(config, (500, 1000, 1500, 2000, 2500), 24)
