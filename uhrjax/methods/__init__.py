"""The methods by name: the papers' own ones, and networks that label one view each."""

import importlib

import ml_collections

from uhrjax.errors import InputError
from uhrjax.methods import base

# Imported when asked for: a network's file imports this package.
METHODS: dict[str, str] = {
    "cascadepsp": "uhrjax.methods.cascadepsp.CascadePSPMethod",
    "dgf": "uhrjax.methods.dgf.DGFMethod",
    "downsample": "uhrjax.methods.downsample.DownsampleMethod",
    "fctl": "uhrjax.methods.fctl.FCtLMethod",
    "foveation": "uhrjax.methods.foveation.FoveationMethod",
    "glnet": "uhrjax.methods.glnet.GLNetMethod",
    "hrnet": "uhrjax.networks.hrnet.HRNetMethod",
    "hrnet_ocr": "uhrjax.networks.hrnet_ocr.HRNetOCRMethod",
    "magnet": "uhrjax.methods.magnet.MagNetMethod",
    "pfnet": "uhrjax.methods.pfnet.PFNetMethod",
    "pspnet": "uhrjax.networks.pspnet.PSPNetMethod",
    "refinement": "uhrjax.methods.refinement.RefinementMethod",
    "resnet_fpn": "uhrjax.networks.resnet_fpn.ResNetFPNMethod",
    "semantic_fpn": "uhrjax.networks.semantic_fpn.SemanticFPNMethod",
    "upernet": "uhrjax.networks.upernet.UPerNetMethod",
}


def find(name: str) -> type[base.Method]:
    """Returns the method class of that name; raises InputError."""
    if name not in METHODS:
        raise InputError(
            f"config.method = {name!r} is unknown; use one of {', '.join(METHODS)}"
        )
    module, _, kind = METHODS[name].rpartition(".")
    return getattr(importlib.import_module(module), kind)


def build(config: ml_collections.ConfigDict) -> base.Method:
    """Returns the method that `config.method` names; raises InputError.

    Reads num_classes, tile, mean, std, dtype, remat, model (fields of the module) and
    loss (fields of the loss rule); a method that wraps another one also segmenter.
    """
    method = find(config.method)
    inner = method.inner(config)
    return method(config) if inner is None else method(config, build(inner))
