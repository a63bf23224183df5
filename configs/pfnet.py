"""PFNet / PointFlow (CVPR 2021). Sources: the paper and, where marked, its code.

Variants: `isaid` (default), `vaihingen`, `potsdam`, `cityscapes`, `ade20k`, `bdd`
(Table 6; the recipe is ours), `synthetic` (procedural scenes, minutes on a CPU),
`synthetic,landcover`, `folder` (your own images and masks), `folder,small` (the same
on a CPU); `smoke` with any of them.
"""

import ml_collections

from configs import base


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *base.PFNET_WORDS)
    config = base.defaults()
    config.method = "pfnet"

    model = config.model
    model.backbone = "resnet50"  # Sec. 4.1; with the deep stem, as in the code
    model.stem = "deep"
    model.dilation = "keep_stride"  # code: dilated 3x3 at output stride 32
    model.width = 64
    model.fpn_dim, model.reduce_dim = 256, 64  # code
    model.ppm = True  # Sec. 3.3
    model.dropout = 0.1  # code, in the PPM
    model.salient = "max_pool"  # Table 2d
    model.boundary = True  # Table 2a
    model.levels = ("F3", "F4", "F5")  # Table 2b
    model.propagation = "point_flow"  # Table 2c
    model.direction = "top_down"  # Table 2e
    model.edge_prediction = "subtraction"  # Table 2f
    model.edge_points = 128  # Fig. 3a
    model.maxpool_size = 14  # Fig. 3b
    model.avgpool_size = 9  # code
    model.pool_eval = 0  # 0: as maxpool_size; 9 mirrors the code's Potsdam test

    config.loss.edge_weight = 25.0  # code; the paper says 1
    config.loss.boundary_rule = "foreground"  # code: any non-zero label
    config.loss.boundary_thickness = 8  # px, code
    base.pfnet_data(config, words, small)
    return config


def small(config: ml_collections.ConfigDict) -> None:
    """A network of the same shape that two CPU cores train in minutes."""
    model = config.model
    model.backbone, model.width = "resnet18", 32
    model.fpn_dim, model.reduce_dim = 64, 16
    # Shares of the coarse maps as in the paper: they have 4, 8, 16 px at a 128 px tile.
    model.edge_points, model.maxpool_size, model.avgpool_size = 16, 4, 3
