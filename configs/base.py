"""What every recipe has, with the values that are nobody's in particular."""

from collections.abc import Callable
from typing import Any

import ml_collections

from uhrjax import errors


def words(variant: str, *known: str) -> list[str]:
    """Splits `a,b` into its words; an unknown one is refused with the known ones."""
    found = [word for word in variant.split(",") if word]
    for word in found:
        if word not in known:
            raise errors.InputError(
                f"unknown variant {word!r}; this config knows: {', '.join(known)} "
                "(several are joined by commas)"
            )
    return found


def defaults() -> ml_collections.ConfigDict:
    """Returns the keys shared by all recipes."""
    config = ml_collections.ConfigDict()
    config.seed = 0  # the one seed: weights, order, augmentation, dropout
    config.method = ""
    config.stage = ""  # of a method with several: this one only; "": all, in order
    config.stages = ml_collections.ConfigDict()  # stage -> keys that differ in it
    config.num_classes = 0  # 0: as many as the data set has
    config.mean = (0.485, 0.456, 0.406)  # ImageNet, RGB, image scaled to 0..1
    config.std = (0.229, 0.224, 0.225)
    config.dtype = "float32"  # of the computation; bfloat16 on TPU and recent GPUs
    config.remat = False  # recompute blocks in the backward pass: less memory
    config.mesh = ml_collections.ConfigDict()
    config.mesh.space = 1  # devices that share the rows of each crop, for large ones
    config.model = ml_collections.ConfigDict()  # fields of the network
    config.loss = ml_collections.ConfigDict()
    config.segmenter = ml_collections.ConfigDict()  # of a method around another one:
    # its method, model and loss

    config.tile, config.stride = 0, 0  # px: crop side; step between precomputed patches
    config.grid = "shifted"  # last window moved inward, or "even": steps of one size
    config.batch_size = 0  # global, over all devices, in units of data.unit
    config.accumulate = 1  # micro-batches per step; batch_size is their sum
    config.accumulate_how = "mean"  # or "sum" of the micro-batches' gradients
    config.sub_batch = 0  # data.unit "scenes": patches per micro-batch, 0: the scene's
    config.epochs = 1  # an epoch sees every training patch once
    config.max_steps = 0  # stop earlier than epochs say (the schedule shrinks with it)
    config.learning_rate = 0.0  # for the batch size above
    config.optimizer = ml_collections.ConfigDict()
    config.optimizer.name = "sgd"
    config.optimizer.momentum = 0.9  # sgd, no Nesterov
    config.optimizer.b1, config.optimizer.b2 = 0.9, 0.999  # adam
    config.optimizer.weight_decay = 1e-4  # L2, coupled (added to the gradient)
    config.optimizer.decay = "all"  # all weights, or "conv": kernels only
    config.schedule = ml_collections.ConfigDict()
    config.schedule.power = 0.9  # poly
    config.schedule.per = "epoch"  # or "step"
    config.schedule.offset = 0  # epochs (steps) the schedule runs ahead
    config.schedule.begin = 0.0  # share of the schedule that counts as passed
    config.schedule.warmup = 0.0  # share of all steps in which the rate rises from 0
    config.schedule.drops = ()  # instead of poly: shares after which the rate drops x10
    config.init_from = ""  # run folder; .safetensors, .npz or .pth; parts: a.pth,b.pth
    config.init_what = "backbone"  # or "model": every weight
    config.refine = ""  # run of a refining network; "": the run's own; "none"
    config.coarse = _coarse()
    config.refiner = ml_collections.ConfigDict()  # keys of a last stage that refines

    config.data = _data()
    config.eval = _eval()
    config.predict = _predict()
    config.log_every = 20  # steps
    config.checkpoint_every = 1000  # steps, beside one after every evaluation
    config.keep_epochs = ()  # whose checkpoints are kept, beside the best and the last
    return config


def _data() -> ml_collections.ConfigDict:
    """What is trained on."""
    group = ml_collections.ConfigDict()
    group.name = ""  # a prepared data set: python -m data_builders.prepare
    group.root = ""  # where it lies; "": $TFDS_DATA_DIR or ~/tensorflow_datasets
    group.dir = ""  # folder data sets: your images and masks
    group.classes = ""  # folder: "background,building" or a .toml/.json table
    group.val_fraction = 0.0  # folder: of its scenes; 0: its own splits, or 0.2
    group.train_split = "train"
    group.val_split = "val"  # the best checkpoint is chosen on it
    group.split = "test"  # the report is about it
    group.layout = "patches"  # precomputed, or "scenes": random windows
    group.unit = "patches"  # a batch counts these, or "scenes" or "overviews", crops of
    # several "scales", or scenes that stay on the device for many steps: "resident"
    group.views = ()  # stored in patches; (): the method's, e.g. ("1", "p3")
    group.threads = 2  # that read and augment
    group.augment = ml_collections.ConfigDict()
    group.augment.scale = ()  # (0.5, 2.0): random scale, then a random crop
    group.augment.hflip = 0.5  # probabilities
    group.augment.vflip = 0.5
    group.augment.rotate90 = 0.75  # probability of a turn by 90, 180 or 270 degrees
    group.augment.blur = ()  # (0.15, 1.30): Gaussian sigma in px, every image
    group.augment.jitter = ()  # strengths of brightness, contrast, saturation: 0 to 1
    group.augment.greyscale = 0.0  # probability
    return group


def _coarse() -> ml_collections.ConfigDict:
    """Which label maps a refining network is trained and scored on."""
    group = ml_collections.ConfigDict()
    group.run = ""  # that labels the scenes
    group.epoch = 0  # after which it labels the training split, 0: the last
    group.masks = ""  # or: a folder of label maps per split, e.g. a run's masks/
    group.side = 0  # px, CascadePSP: of the small scene and of crops; 0: 900, or what
    # the run of `config.refine` was trained with
    return group


def _eval() -> ml_collections.ConfigDict:
    """How scenes are labelled and scored."""
    group = ml_collections.ConfigDict()
    group.every = 1  # epochs between evaluations on val_split
    group.select = "best"  # checkpoint on val_split, or "last"
    group.protocol = "scene"  # every scene pixel once; "crops": the papers' way
    group.stride = 0  # px between windows of a scene
    group.batch_size = 0  # 0: as in training
    group.blend = "average"  # of overlapping windows; hann, gaussian, montage
    group.score = "probabilities"  # what is blended, or "logits"
    group.at_start = False  # also score the untrained network, for the record
    group.boundary = (3.0, 5.0, 9.0, 12.0)  # px; < 1: share of the diagonal
    group.background = 0  # class that foreground ratios leave out
    group.include_background = True  # in mIoU and mean F1
    group.absent_as_zero = False  # in the means: scores of classes that never occur
    group.mba = False  # also mean boundary accuracy, MagNet's and CascadePSP's score
    group.void = ()  # classes beside 255 without boundary, whose px it does not count
    group.masks = True  # write the predicted label maps
    group.panels = 4  # pictures of this many scenes
    return group


def _predict() -> ml_collections.ConfigDict:
    """How scene files are read and what is written (--mode=predict)."""
    group = ml_collections.ConfigDict()
    group.tta = False  # mean over 8 flips and turns of every window
    group.border = "zero"  # around scenes smaller than a window, or "reflect"
    group.bands = ()  # 1-based; (): 1 (repeated) or 3; e.g. (4, 3, 2)
    group.scale = ()  # (low, high) -> 0..255, for images that are not 8 bit
    group.level = 0  # of a pyramid, 0 the finest
    group.mpp = 0.0  # micrometres per px to resample to; 0: as stored
    group.probabilities = ""  # also write them: "uint8" or "float16"
    group.uncertainty = ""  # also write it: "entropy" or "margin"
    group.overlay = True  # a small picture to look at
    group.overlay_side = 1024  # px
    group.polygons = ""  # also write them: "geojson" or "gpkg"
    group.polygon_min_px = 0  # leave out smaller ones
    group.tiff = False  # GeoTIFF even without a place on earth
    group.palette = False  # PNG in colour
    return group


def refiner() -> ml_collections.ConfigDict:
    """The refinement stage of FCtL (Sec. 3.2, 4.2): keys that differ in it."""
    stage = ml_collections.ConfigDict()
    stage.method = "refinement"
    stage.model = ml_collections.ConfigDict()
    stage.model.width = 64  # ours: the paper states no size
    stage.model.context = 2.0  # Table 6: 1016 px around 508
    stage.model.value = "context"
    stage.model.share_encoders, stage.model.context_skips = False, False
    stage.model.gamma_init = 0.0
    stage.init_from = ""
    stage.epochs, stage.batch_size, stage.sub_batch = 50, 6, 4
    stage.learning_rate = 5e-5  # "similar" to the segmentation's
    stage.data = ml_collections.ConfigDict({"unit": "scenes", "layout": "scenes"})
    stage.eval = ml_collections.ConfigDict({"blend": "montage", "score": "logits"})
    return stage


def ohem(config: ml_collections.ConfigDict) -> None:
    """Cross-entropy of the hardest pixels, as PFNet's scripts train all networks."""
    config.loss.ohem = True
    config.loss.ohem_thresh, config.loss.ohem_min_kept = 0.7, 10000
    config.loss.loss_group = 2  # images that share one threshold: 2 per GPU in the code
    config.loss.seg_weight = 1.0


_RESIDUAL = {  # fields that most networks of the papers' comparisons have, PFNet's code
    "backbone": "resnet50", "stem": "deep", "dilation": "os8", "width": 64,
    "fpn_dim": 512, "dropout": 0.1, "auxiliary": False, "align_corners": True,
}  # fmt: skip
_DECODED = {  # a decoder that PFNet's Tables 1 and 2g put on a head: "fpn", "pf"
    "decoder": "none", "decoder_dim": 128, "reduce_dim": 32, "edge_points": 32,
    "cells": 8,
}  # fmt: skip
_DEEPLAB = {"fpn_dim": 256, "dropout": 0.0, "rates": (12, 24, 36)}
_PYRAMID = {
    "backbone": "resnet50", "stem": "deep", "dilation": "keep_stride", "width": 64,
    "fpn_dim": 256,
}  # fmt: skip
NETWORKS: dict[str, dict[str, Any]] = {  # -> fields of its model
    "ccnet": _RESIDUAL | _DECODED | {"recurrence": 2, "gamma_init": 0.0},
    "danet": _RESIDUAL | _DECODED | {"gamma_init": 0.0},
    "deeplabv3": _RESIDUAL | _DECODED | _DEEPLAB,
    "deeplabv3plus": _RESIDUAL | _DEEPLAB | {"skip_dim": 48},
    "denseaspp": _RESIDUAL
    | {"fpn_dim": 256, "growth": 64, "rates": (3, 6, 12, 18, 24)},
    "emanet": _RESIDUAL | {"bases": 64, "moving_average": True},
    "encnet": _RESIDUAL | {"words": 32, "nearest": False, "presence": False},
    "farseg": _RESIDUAL
    | {"dilation": "none", "fpn_dim": 256, "dropout": 0.0, "decoder_dim": 128},
    "fcn": _RESIDUAL,
    "gscnn": _RESIDUAL | _DEEPLAB | {"skip_dim": 48},
    "hrnetv2": {
        "size": "w18", "width": 0, "stem_width": 64, "stem_stride": 2,
        "align_corners": True,
    },
    "icnet": _RESIDUAL | {"fpn_dim": 256},
    "ocnet": _RESIDUAL | {"rates": (12, 24, 36)},
    "pointrend": _RESIDUAL
    | _DEEPLAB
    | {"head": "deeplabv3", "points": 8096, "train_points": 0},
    "pspnet": _RESIDUAL,
    "ranet": _RESIDUAL | {"grid": 8},
    "refinenet": _RESIDUAL | {"dilation": "none", "fpn_dim": 256, "dropout": 0.0},
    "segnet": {"width": 64},
    "semantic_fpn": _PYRAMID,
    "sfnet": _RESIDUAL | {"dilation": "keep_stride", "fpn_dim": 256},
    "unet": {"width": 64},
    "upernet": _PYRAMID | {"dropout": 0.1, "design": "pfnet"},
}  # fmt: skip
_EDGES = {"edge_weight": 25.0, "boundary_rule": "foreground", "boundary_thickness": 8}
_LOSSES: dict[str, dict[str, Any]] = {  # what a network's loss has of its own
    "ccnet": _EDGES,
    "danet": _EDGES,
    "deeplabv3": _EDGES,
    "encnet": {"presence_weight": 0.2},
    "farseg": {"focal": True, "gamma": 2.0, "annealing_steps": 10000},
    "gscnn": _EDGES | {"edge_weight": 20.0, "boundary_rule": "all_classes"},
    "icnet": {"quarter_weight": 0.16, "half_weight": 0.4},
}
_SMALL = {  # of these fields, at a size that two CPU cores train in minutes
    "backbone": "resnet18", "width": 32, "fpn_dim": 64, "decoder_dim": 32,
    "reduce_dim": 8, "edge_points": 16, "cells": 4, "skip_dim": 16, "growth": 16,
    "bases": 16, "words": 16, "points": 512,
}  # fmt: skip
_SMALLER = {  # networks without a backbone of their own size
    "hrnetv2": {"size": "w18_small_v2", "width": 8, "stem_width": 16},
    "segnet": {"width": 8},
    "unet": {"width": 8},
}


def network(group: ml_collections.ConfigDict, name: str, *, small: bool) -> None:
    """Sets the network of a config, or of its `segmenter`, to one of NETWORKS."""
    fields = dict(NETWORKS[name])
    if small:
        fields |= {key: value for key, value in _SMALL.items() if key in fields}
        fields |= _SMALLER.get(name, {})
    group.method, group.model = name, ml_collections.ConfigDict(fields)
    group.loss = ml_collections.ConfigDict(_LOSSES.get(name, {}))
    if "auxiliary" in fields:
        group.loss.aux_weight = 0.4  # of the second head, if there is one


PFNET_WORDS = (
    "isaid", "vaihingen", "potsdam", "cityscapes", "ade20k", "bdd", "synthetic",
    "landcover", "folder", "small", "smoke",
)  # fmt: skip


def pfnet_data(
    config: ml_collections.ConfigDict,
    found: list[str],
    small: Callable[[ml_collections.ConfigDict], None],
) -> None:
    """Applies the data words of a variant to a network of PFNet's tables.

    Args:
        config: with its model set.
        found: words of PFNET_WORDS.
        small: shrinks the model to a size that two CPU cores train in minutes.
    """
    ohem(config)
    isaid(config)
    for name in ("vaihingen", "potsdam"):
        if name in found:
            isprs(config, name)
    for name in GENERAL:
        if name in found:
            general(config, name)
    if "synthetic" in found:
        synthetic(config, "landcover" if "landcover" in found else "objects")
        small(config)
    elif "folder" in found:
        folder(config)
        if "small" in found:
            config.tile, config.stride, config.eval.stride = 256, 128, 192
            config.epochs = 20
            from_scratch(config)
            small(config)
    if "smoke" in found:
        smoke(config)
        small(config)


def isaid(config: ml_collections.ConfigDict) -> None:
    """PFNet's recipe on iSAID (Sec. 4.1 and the code)."""
    config.data.name, config.num_classes = "isaid", 16
    config.data.split = config.data.val_split = "val"  # test labels are not public
    config.tile, config.stride, config.eval.stride = 896, 512, 512  # Sec. 4.1
    config.eval.protocol = "crops"  # the paper counts crops, overlaps repeatedly
    config.batch_size = 16
    config.learning_rate = 0.007  # for that batch size
    config.epochs = 16
    config.schedule.offset = 1  # code: the scheduler steps before the epoch
    config.data.augment.blur = (0.15, 1.30)  # code


def isprs(config: ml_collections.ConfigDict, name: str) -> None:
    """PFNet's recipes on Vaihingen and Potsdam (Sec. 4.3 and the code)."""
    config.data.name, config.num_classes = f"{name}/official", 6
    config.data.split = config.data.val_split = "test"  # as the paper selects
    config.tile = {"vaihingen": 768, "potsdam": 896}[name]
    config.stride = config.eval.stride = 512  # ours: stated nowhere
    config.epochs = {"vaihingen": 200, "potsdam": 80}[name]  # the code: 100 on Potsdam
    config.learning_rate = 0.01
    config.data.augment.scale = (0.5, 2.0)  # code
    config.data.augment.vflip = 0.0


GENERAL = {  # data set of PFNet's Table 6 -> prepared name, classes, tile, epochs
    "cityscapes": ("cityscapes/official", 19, 768, 200),
    "ade20k": ("ade20k/official", 150, 512, 100),
    "bdd": ("bdd100k/official", 19, 512, 200),
}


def general(config: ml_collections.ConfigDict, name: str) -> None:
    """Street and everyday scenes (Table 6).

    The paper states no recipe but that all networks have the same one; this is ours.
    """
    config.data.name, config.num_classes, config.tile, config.epochs = GENERAL[name]
    config.data.split = config.data.val_split = "val"  # Table 6
    config.stride = config.tile // 2
    config.eval.stride = config.tile * 2 // 3
    config.eval.protocol, config.eval.every = "scene", 10
    config.learning_rate = 0.01
    config.schedule.offset = 0
    config.data.augment.scale, config.data.augment.blur = (0.5, 2.0), ()
    config.data.augment.vflip = config.data.augment.rotate90 = 0.0  # the sky is above
    if "boundary_rule" in config.loss:
        config.loss.boundary_rule = "all_classes"  # no class is a background there


def folder(config: ml_collections.ConfigDict) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    config.data.name, config.num_classes = "folder", 0
    config.data.split = config.data.val_split = "val"
    config.tile, config.stride, config.eval.stride = 512, 256, 384
    config.eval.protocol = "scene"
    config.batch_size, config.epochs, config.learning_rate = 8, 50, 0.0035
    config.schedule.offset = 0
    config.data.augment.blur = ()


def synthetic(config: ml_collections.ConfigDict, kind: str) -> None:
    """Procedural 512 px scenes, at a size a CPU trains in minutes."""
    config.data.name = f"synthetic/{kind}_tiny"
    config.num_classes = {"objects": 16, "landcover": 7}[kind]
    config.data.val_split, config.data.split = "val", "test"
    config.tile, config.stride, config.eval.stride = 128, 128, 96
    config.eval.protocol, config.eval.at_start = "scene", True
    config.eval.every = 4
    config.batch_size, config.epochs = 16, 8
    from_scratch(config)
    config.data.augment.blur = ()


def from_scratch(config: ml_collections.ConfigDict) -> None:
    """What lets a small network learn from random weights in few steps (ours)."""
    config.optimizer.name = "adam"
    config.learning_rate = 0.003
    config.schedule.per, config.schedule.offset = "step", 0
    config.loss.ohem_min_kept = 2000  # crops are smaller than the papers'


def few_scenes(config: ml_collections.ConfigDict) -> None:
    """12 of the procedural scenes, for a recipe that is only tried."""
    name, _, _ = config.data.name.partition("_")  # synthetic/landcover
    config.data.name = f"{name}_few"


def smoke(config: ml_collections.ConfigDict) -> None:
    """Any recipe in about a minute on a CPU, on the procedural scenes."""
    synthetic(config, "landcover" if "landcover" in config.data.name else "objects")
    few_scenes(config)
    config.tile, config.stride, config.eval.stride = 64, 64, 64
    config.batch_size, config.max_steps, config.eval.every = 8, 8, 1000
    config.eval.at_start, config.log_every = False, 4
