"""The methods by name: the papers' own ones, and networks that label one view each."""

import importlib

import ml_collections

from uhrjax.errors import InputError
from uhrjax.methods import base

# Imported when asked for: a network's file imports this package.
METHODS: dict[str, str] = {
    "cascadepsp": "uhrjax.methods.cascadepsp.CascadePSPMethod",
    "ccnet": "uhrjax.networks.ccnet.CCNetMethod",
    "danet": "uhrjax.networks.danet.DANetMethod",
    "deeplabv3": "uhrjax.networks.deeplabv3.DeepLabV3Method",
    "deeplabv3plus": "uhrjax.networks.deeplabv3plus.DeepLabV3PlusMethod",
    "denseaspp": "uhrjax.networks.denseaspp.DenseASPPMethod",
    "dgf": "uhrjax.methods.dgf.DGFMethod",
    "downsample": "uhrjax.methods.downsample.DownsampleMethod",
    "emanet": "uhrjax.networks.emanet.EMANetMethod",
    "encnet": "uhrjax.networks.encnet.EncNetMethod",
    "farseg": "uhrjax.networks.farseg.FarSegMethod",
    "fcn": "uhrjax.networks.fcn.FCNMethod",
    "fctl": "uhrjax.methods.fctl.FCtLMethod",
    "foveation": "uhrjax.methods.foveation.FoveationMethod",
    "glnet": "uhrjax.methods.glnet.GLNetMethod",
    "gscnn": "uhrjax.networks.gscnn.GSCNNMethod",
    "hrnet": "uhrjax.networks.hrnet.HRNetMethod",
    "hrnet_ocr": "uhrjax.networks.hrnet_ocr.HRNetOCRMethod",
    "hrnetv2": "uhrjax.networks.hrnetv2.HRNetV2Method",
    "icnet": "uhrjax.networks.icnet.ICNetMethod",
    "magnet": "uhrjax.methods.magnet.MagNetMethod",
    "magnet_pspnet": "uhrjax.networks.magnet_pspnet.MagNetPSPNetMethod",
    "ocnet": "uhrjax.networks.ocnet.OCNetMethod",
    "pfnet": "uhrjax.methods.pfnet.PFNetMethod",
    "pointrend": "uhrjax.networks.pointrend.PointRendMethod",
    "pspnet": "uhrjax.networks.pspnet.PSPNetMethod",
    "ranet": "uhrjax.networks.ranet.RANetMethod",
    "refinement": "uhrjax.methods.refinement.RefinementMethod",
    "refinenet": "uhrjax.networks.refinenet.RefineNetMethod",
    "rendered": "uhrjax.methods.rendered.RenderedMethod",
    "resnet_fpn": "uhrjax.networks.resnet_fpn.ResNetFPNMethod",
    "segfix": "uhrjax.methods.segfix.SegFixMethod",
    "segnet": "uhrjax.networks.segnet.SegNetMethod",
    "semantic_fpn": "uhrjax.networks.semantic_fpn.SemanticFPNMethod",
    "sfnet": "uhrjax.networks.sfnet.SFNetMethod",
    "unet": "uhrjax.networks.unet.UNetMethod",
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
