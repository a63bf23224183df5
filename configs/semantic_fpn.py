"""SemanticFPN as PFNet's tables have it: no pyramid pooling (Table 2: 61.3).

Variants: `isaid` (default), `vaihingen`, `potsdam`, `cityscapes`, `ade20k`, `bdd`,
`synthetic`, `synthetic,landcover`, `folder`, `folder,small`; `smoke` with any of them.
"""

import ml_collections

from configs import base


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the recipe of a variant."""
    words = base.words(variant, *base.PFNET_WORDS)
    config = base.defaults()
    config.method = "semantic_fpn"

    model = config.model
    model.backbone = "resnet50"  # Sec. 4.1; with the deep stem, as in the code
    model.stem = "deep"
    model.dilation = "keep_stride"  # output stride 32, as for the other rows
    model.width = 64
    model.fpn_dim = 256  # ours: the width of PFNet; the code's decoder has 128
    base.pfnet_data(config, words, small)
    return config


def small(config: ml_collections.ConfigDict) -> None:
    """The size of PFNet's small variant."""
    config.model.backbone, config.model.width, config.model.fpn_dim = "resnet18", 32, 64
