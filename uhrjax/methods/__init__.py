"""The methods by name."""

import ml_collections

from uhrjax.errors import InputError
from uhrjax.methods import (
    base,
    cascadepsp,
    dgf,
    downsample,
    fctl,
    foveation,
    glnet,
    hrnet,
    hrnet_ocr,
    magnet,
    pfnet,
    pspnet,
    refinement,
    resnet_fpn,
    semantic_fpn,
    upernet,
)

METHODS: dict[str, type[base.Method]] = {
    "cascadepsp": cascadepsp.CascadePSPMethod,
    "dgf": dgf.DGFMethod,
    "downsample": downsample.DownsampleMethod,
    "fctl": fctl.FCtLMethod,
    "foveation": foveation.FoveationMethod,
    "glnet": glnet.GLNetMethod,
    "hrnet": hrnet.HRNetMethod,
    "hrnet_ocr": hrnet_ocr.HRNetOCRMethod,
    "magnet": magnet.MagNetMethod,
    "pfnet": pfnet.PFNetMethod,
    "pspnet": pspnet.PSPNetMethod,
    "refinement": refinement.RefinementMethod,
    "resnet_fpn": resnet_fpn.ResNetFPNMethod,
    "semantic_fpn": semantic_fpn.SemanticFPNMethod,
    "upernet": upernet.UPerNetMethod,
}


def find(name: str) -> type[base.Method]:
    """Returns the method class of that name; raises InputError."""
    if name not in METHODS:
        raise InputError(
            f"config.method = {name!r} is unknown; use one of {', '.join(METHODS)}"
        )
    return METHODS[name]


def build(config: ml_collections.ConfigDict) -> base.Method:
    """Returns the method that `config.method` names; raises InputError.

    Reads num_classes, tile, mean, std, dtype, remat, model (fields of the module) and
    loss (fields of the loss rule); a method that wraps another one also segmenter.
    """
    method = find(config.method)
    inner = method.inner(config)
    return method(config) if inner is None else method(config, build(inner))
