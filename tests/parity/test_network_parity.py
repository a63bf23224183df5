"""Whole networks with converted weights against the published code's outputs."""

import jax
import numpy as np
import pytest
from published import build

from uhrjax import weights
from uhrjax.backbones import resnet

LEVELS = ("F3", "F4", "F5")


def apply_with_parts(method, variables, arrays):
    """Returns the outputs and what the pyramid head and the flows returned."""
    parts = {"head", *(f"flow_{level}" for level in LEVELS)}
    outputs, state = method.module.apply(
        variables,
        arrays["x"].astype(np.float32),
        train=False,
        capture_intermediates=lambda module, _: module.name in parts,
    )
    found = state["intermediates"]
    return outputs, {name: found[name]["__call__"][0] for name in found}


@pytest.fixture(scope="module")
def pfnet():
    return build("pfnet", num_classes=16)


def test_pfnet_equals_the_published_code(pfnet, load_case, assert_close, run_once):
    manifest, state_dict, arrays = load_case("pfnet_r50_deep")
    variables = pfnet.import_torch({f"module.{k}": v for k, v in state_dict.items()})
    outputs, parts = run_once(
        lambda v: apply_with_parts(pfnet, v, arrays),
        variables,
    )
    step = manifest["logits_sub_step"]
    assert_close(manifest, "logits_head", parts["head"], arrays["logits_head"])
    logits = pfnet.logits(outputs)
    assert_close(
        manifest, "logits_sub", logits[:, ::step, ::step], arrays["logits_sub"]
    )
    np.testing.assert_array_equal(logits.argmax(-1), arrays["argmax"])
    for i, level in enumerate(LEVELS):
        flow = parts[f"flow_{level}"]
        assert_close(manifest, f"edge_pred_{i}", flow.edge, arrays[f"edge_pred_{i}"])
        np.testing.assert_array_equal(np.sort(flow.boundary), arrays[f"edge_idx_{i}"])
        np.testing.assert_array_equal(
            flow.salient, arrays[f"salient_idx_{i}"].reshape(1, -1)
        )
    assert_close(manifest, "pf_out_2", parts["flow_F5"].features, arrays["pf_out_2"])


@pytest.mark.parametrize(
    "wrong", [{"dilation": "none"}, {"avgpool_size": 8}, {"maxpool_size": 13}]
)
def test_a_wrong_pfnet_fails_the_comparison(wrong, load_case, run_once):
    manifest, state_dict, arrays = load_case("pfnet_r50_deep")
    method = build("pfnet", num_classes=16, **wrong)
    outputs = run_once(
        lambda v: method.apply(v, {"views": arrays["x"][:, None]}),
        method.import_torch(state_dict),
    )
    step = manifest["logits_sub_step"]
    error = np.abs(outputs["logits"][:, ::step, ::step] - arrays["logits_sub"]).max()
    assert error > 20 * manifest["atol_per_output"]["logits_sub"]


def test_upernet_equals_the_published_code(load_case, assert_close, run_once):
    manifest, state_dict, arrays = load_case("baseline_upernet")
    method = build("upernet", num_classes=6)
    outputs, parts = run_once(
        lambda v: apply_with_parts(method, v, arrays),
        method.import_torch(state_dict),
    )
    step = manifest["logits_sub_step"]
    assert_close(manifest, "logits_head", parts["head"], arrays["logits_head"])
    logits = outputs["logits"][:, ::step, ::step]
    assert_close(manifest, "logits_sub", logits, arrays["logits_sub"])


@pytest.mark.parametrize(
    ("case", "dilation"),
    [
        ("resnet50_deep_backbone", "keep_stride"),
        ("resnet50_deep_backbone_undilated", "none"),
    ],
)
def test_backbone_maps_equal_the_published_ones(
    case, dilation, load_case, assert_close, run_once
):
    manifest, state_dict, arrays = load_case(case)
    net = resnet.ResNet(depth=50, stem="deep", dilation=dilation)
    x = arrays["x"].astype(np.float32)
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
    template = {kind: {"backbone": tree} for kind, tree in shapes.items()}
    filled = weights.from_torch(state_dict, template, names=resnet.TORCH_NAMES)
    variables = {kind: tree["backbone"] for kind, tree in filled.items()}
    maps = run_once(lambda v: net.apply(v, x, train=False), variables)
    for name, actual in zip(("c2", "c3", "c4", "c5"), maps, strict=True):
        if name in arrays:
            assert_close(manifest, name, actual, arrays[name])
