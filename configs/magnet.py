"""MagNet (CVPR 2021). Sources: the paper, its supplement and, where marked, its code.

Data: `deepglobe` (default, ResNet-50 FPN), `cityscapes` (HRNetV2-W18-small-v2 + OCR),
`inria`, `gleason2019` (PSPNet-R101), `synthetic` (procedural landcover, minutes on a
CPU; with `objects` many tiny ones), `folder` (your images and masks), `folder,small`
(on a CPU); `smoke` with any of them.
Network: any that `configs/baseline.py` lists instead of the data set's; with the
command's --config.segmenter=NAME, too.
Rows of the papers' tables, trained as long as both stages together: `downsample`, the
segmentation network on scenes made small; `patching`, the same on full-size patches.
Both stages are trained in order, each also alone: --config.stage=backbone, refine.
One refinement network per scale: --config.model.refiners=2 (stages refine1, refine2).
"""

import ml_collections

from configs import base

DATA = ("deepglobe", "cityscapes", "inria", "gleason2019", "synthetic", "folder")
ROWS = ("downsample", "patching")
WORDS = (*DATA, "objects", "small", "smoke", *ROWS, *base.NETWORKS)
# HRNet's weights of the classes, in MagNet's code to four digits.
CITYSCAPES_WEIGHTS = (
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023,
    0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *WORDS)
    config = base.defaults()
    config.method = "magnet"
    _pass(config)
    _recipe(config)
    _resnet_fpn(config)
    deepglobe(config)
    for word, change in (
        ("cityscapes", cityscapes),
        ("inria", inria),
        ("gleason2019", gleason2019),
        ("folder", folder),
    ):
        if word in words:
            change(config)
    if "objects" in words:
        synthetic(config, "objects_tiny", classes=16)
    elif {"synthetic", "smoke"} & set(words):
        synthetic(config, "landcover_many", classes=7)
    if "small" in words:
        few_pixels(config)
    if "smoke" in words:
        smoke(config)
    for word in words:
        if word in base.NETWORKS:
            other(
                config, word, small=bool({"synthetic", "small", "smoke"} & set(words))
            )
    if "downsample" in words:
        downsample(config)
    if "patching" in words:
        patching(config)
    return config


def _pass(config: ml_collections.ConfigDict) -> None:
    """The networks' geometry and how a scene is passed over (Sec. 3)."""
    model = config.model
    model.refiners, model.trained = 1, 0  # code: one for all scales; -1: the backbone
    model.learned = ()  # scales whose crops the backbone learns by, (): all
    model.width, model.input_norm = 64, True
    model.momentum = 0.99  # code, where it counts from the other side: 0.01
    model.refine_order = "fine_first"  # code: of its tests; "coarse_first" trains
    model.roi_aligned, model.coarse_resize = False, "two_steps"  # code
    config.magnet = magnet = ml_collections.ConfigDict()
    magnet.n_points = 0.75  # px replaced at a scale, or (up to 1) their share
    magnet.n_patches = -1  # looked at per scale, the most uncertain; -1: all, 0: none
    magnet.kernel, magnet.smoothing = 11, "median"  # of the score; or "gaussian"
    magnet.score = "product"  # certainty of the new times uncertainty of the old, or
    # the "uncertainty" alone
    magnet.overlap = "mean"  # of patches, or "released": the last, as the code has it
    magnet.patch_order = "most"  # uncertain, or "least", as the code has it
    magnet.stages = -1  # scales after the first that are passed over; -1: all
    magnet.patches_at_once = 1  # that pass through the networks together, Sec. 4
    magnet.fast = False  # MagNet-Fast: these instead of n_patches and n_points
    magnet.fast_patches, magnet.fast_points = 3, 0.9
    magnet.crf = (
        ""  # behind it: DenseCRF, "lattice" (extra crf) or "exact" (tiny images)
    )
    magnet.memory_mb = 0  # a scene may take on the device, 0: most of what it has;
    # a larger one goes through in parts


def _geometry(
    config: ml_collections.ConfigDict,
    scales: tuple[float, ...],
    crop: tuple[int, int],
    size: tuple[int, int],
) -> None:
    """Shares of a scene's sides; (height, width) of a patch there, and for networks."""
    model = config.model
    model.scales, model.crop, model.input_size = scales, crop, size
    config.tile = config.stride = config.eval.stride = size[0]  # not used


def _recipe(config: ml_collections.ConfigDict) -> None:
    """The training of both stages (code)."""
    config.data.unit, config.data.layout = "scales", "scenes"
    config.data.augment.hflip = config.data.augment.vflip = 0.0
    config.data.augment.rotate90 = 0.0
    config.loss.ohem_thresh, config.loss.ohem_min_kept = 0.7, 100000
    config.optimizer.weight_decay = 5e-4
    config.batch_size, config.epochs, config.learning_rate = 8, 50, 1e-3
    config.schedule.per = "step"
    config.schedule.drops = (0.2, 0.4, 0.6, 0.8, 0.9)  # epochs 10, 20, 30, 40, 45
    config.eval.every, config.eval.mba = 10, True
    config.stages.backbone = own = ml_collections.ConfigDict()
    own.batch_size, own.epochs, own.learning_rate = 12, 484, 1e-3
    own.eval = ml_collections.ConfigDict({"every": 20})
    own.schedule = ml_collections.ConfigDict({"drops": ()})  # poly
    own.data = ml_collections.ConfigDict({"augment": {"hflip": 0.5}})


def _resnet_fpn(config: ml_collections.ConfigDict) -> None:
    segmenter = config.segmenter
    segmenter.method = "resnet_fpn"
    segmenter.model = model = ml_collections.ConfigDict()
    model.backbone, model.width, model.fpn_dim = "resnet50", 64, 256
    segmenter.loss = ml_collections.ConfigDict({"class_weights": ()})


def deepglobe(config: ml_collections.ConfigDict) -> None:
    """803 scenes of 2448 px: 1, 4 and 16 patches."""
    config.data.name, config.num_classes = "deepglobe/glnet-unknown_class", 7
    config.eval.include_background = False  # code: mIoU without class 0, unknown
    config.eval.absent_as_zero = True  # code
    config.eval.void = (0,)
    _geometry(config, (0.25, 0.5, 1.0), (612, 612), (508, 508))


def cityscapes(config: ml_collections.ConfigDict) -> None:
    """3475 scenes of 1024 x 2048 px: 1, 4, 16 and 64 patches."""
    config.data.name, config.num_classes = "cityscapes/official", 19
    config.data.split = config.data.val_split = "val"
    config.eval.include_background, config.eval.void = True, ()
    _geometry(config, (0.125, 0.25, 0.5, 1.0), (128, 256), (128, 256))
    config.model.learned = (0,)  # code: whole scenes, scaled by
    own = config.stages.backbone
    own.data.augment.scale = (0.5, 2.1)  # code: in steps of 0.1
    own.learning_rate = 0.01
    segmenter = config.segmenter
    segmenter.method = "hrnet_ocr"
    segmenter.model = ml_collections.ConfigDict({"size": "w18_small_v2"})
    segmenter.loss.class_weights, segmenter.loss.aux_weight = CITYSCAPES_WEIGHTS, 0.4
    config.magnet.n_points, config.magnet.kernel = 32768.0, 5
    config.magnet.fast_patches = 4


def inria(config: ml_collections.ConfigDict) -> None:
    """180 scenes of 5000 px; scales and crop are ours, only 536 px is published."""
    config.data.name, config.num_classes = "inria/glnet", 2
    config.eval.include_background, config.eval.void = True, ()
    _geometry(config, (0.25, 0.5, 1.0), (1250, 1250), (536, 536))


def gleason2019(config: ml_collections.ConfigDict) -> None:
    """268 scenes of 4400 px (theirs have 5000): 1, 4, 16 and 64 patches.

    Its headline figure is the frequency-weighted IoU. The backbone's recipe is ours:
    none is published.
    """
    config.data.name, config.num_classes = "gleason2019/foveation", 4
    config.data.split = config.data.val_split = "val"
    config.eval.include_background, config.eval.void = True, ()
    _geometry(config, (0.125, 0.25, 0.5, 1.0), (550, 550), (550, 550))
    config.batch_size = 1  # code
    segmenter = config.segmenter
    segmenter.method = "magnet_pspnet"
    segmenter.model = ml_collections.ConfigDict({"backbone": "resnet101"})
    segmenter.loss.aux_weight = 0.4
    config.magnet.n_points = 1.0  # code


def folder(config: ml_collections.ConfigDict) -> None:
    """The user's own images and masks: --config.data.dir=PATH."""
    config.data.name, config.num_classes = "folder", 0
    config.data.split = config.data.val_split = "val"
    config.eval.include_background, config.eval.absent_as_zero = True, False
    config.eval.void = ()
    _geometry(config, (0.25, 0.5, 1.0), (512, 512), (512, 512))
    config.stages.backbone.epochs = 100


def few_pixels(config: ml_collections.ConfigDict) -> None:
    """Small networks and patches, which a CPU trains in minutes."""
    _geometry(config, (0.25, 0.5, 1.0), (128, 128), (128, 128))
    config.model.width = 16
    # At 0.99 the start (variance 1) still weighs 8 % after 250 steps: many times the
    # variance that a rare class's probabilities have.
    config.model.momentum = 0.9
    model = config.segmenter.model
    model.backbone, model.width, model.fpn_dim = "resnet18", 16, 32
    config.magnet.patches_at_once, config.magnet.kernel = 4, 5
    config.magnet.fast_patches = 4
    base.from_scratch(config)
    config.loss.ohem_min_kept = 16384  # of 131072 in a batch
    config.schedule.drops = ()
    config.epochs, config.eval.every = 10, 10
    own = config.stages.backbone
    own.batch_size, own.epochs, own.learning_rate = 8, 30, 3e-3
    own.eval.every = 15
    own.data.augment.vflip, own.data.augment.rotate90 = 0.5, 0.75


def synthetic(config: ml_collections.ConfigDict, name: str, *, classes: int) -> None:
    """Procedural scenes of 512 px, at a size that two CPU cores train in minutes."""
    config.data.name, config.num_classes = f"synthetic/{name}", classes
    config.data.val_split, config.data.split = "val", "test"
    config.mean, config.std = (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)  # random weights need it
    config.eval.include_background, config.eval.absent_as_zero = True, False
    config.eval.void = ()
    _resnet_fpn(config)
    few_pixels(config)
    own = config.stages.backbone
    if name == "objects_tiny":  # fewer scenes, rare classes, little to see from afar
        own.epochs, config.epochs = 200, 50
        own.eval.every, config.eval.every = 100, 50
        config.segmenter.loss.class_weights = (0.2,) + 15 * (1.0,)  # 97 % background
        return
    # In ImageNet's place: scenes made small are slow to learn, among patches never.
    own.epochs = own.eval.every = 20
    config.stages.pretrain = ml_collections.ConfigDict(own.to_dict())
    # One network for all scales takes its time: after 20 epochs it is far behind one
    # that learns scenes made small alone, after 100 it is not.
    own.epochs, own.eval.every = 100, 25
    own.schedule.warmup = 0.3  # or first steps undo what pretraining taught
    config.epochs = 20


def smoke(config: ml_collections.ConfigDict) -> None:
    """Any recipe in about a minute on a CPU."""
    base.few_scenes(config)
    _geometry(config, (0.25, 0.5, 1.0), (128, 128), (64, 64))
    config.max_steps, config.log_every, config.eval.every = 4, 2, 1000
    for stage in config.stages.values():
        stage.eval.every = 1000


def other(config: ml_collections.ConfigDict, network: str, *, small: bool) -> None:
    """Another network than the data set's."""
    base.network(config.segmenter, network, small=small)
    config.segmenter.loss.ohem = False
    if "stem" in config.segmenter.model and not small:
        config.segmenter.model.stem = "classic"  # torchvision's weights


def downsample(config: ml_collections.ConfigDict) -> None:
    """One stage: the network learns by, and labels, scenes made small."""
    _alone(config)
    config.model.learned, config.magnet.stages = (0,), 0


def patching(config: ml_collections.ConfigDict) -> None:
    """One stage: the network learns by, and labels, patches of the scene itself."""
    _alone(config)
    config.model.scales = (config.model.scales[0], 1.0)  # the first is not shown
    config.model.learned = (1,)
    config.magnet.n_points = config.magnet.fast_points = 1.0


def _alone(config: ml_collections.ConfigDict) -> None:
    """The segmentation network only, for the epochs of both stages."""
    own = config.stages.backbone
    epochs = config.epochs + config.stages.get("pretrain", {"epochs": 0})["epochs"]
    config.batch_size, config.learning_rate = own.batch_size, own.learning_rate
    config.epochs, config.eval.every = own.epochs + epochs, own.eval.every
    config.schedule.drops = own.schedule.drops
    config.data.augment.update(own.data.augment)
    config.stages = ml_collections.ConfigDict()
    config.model.refiners, config.model.trained = 0, -1
