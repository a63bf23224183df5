"""UPerNet as PFNet's tables have it: the baseline with pyramid pooling (Table 4: 63.8).

Variants: `isaid` (default), `vaihingen`, `potsdam`, `cityscapes`, `ade20k`, `bdd`,
`synthetic`, `synthetic,landcover`, `folder`, `folder,small`; `smoke` with any of them.
"""

import ml_collections

from configs import base


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *base.PFNET_WORDS)
    config = base.defaults()
    config.method = "upernet"

    model = config.model
    model.backbone = "resnet50"  # Sec. 4.1; with the deep stem, as in the code
    model.stem = "deep"
    model.dilation = "keep_stride"  # code: dilated 3x3 at output stride 32
    model.width = 64
    model.fpn_dim = 256  # code
    model.dropout = 0.1  # code, in the pyramid pooling
    base.pfnet_data(config, words, small)
    return config


def small(config: ml_collections.ConfigDict) -> None:
    """The size of PFNet's small variant."""
    config.model.backbone, config.model.width, config.model.fpn_dim = "resnet18", 32, 64
