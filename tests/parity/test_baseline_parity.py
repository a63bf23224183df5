"""The networks that PFNet is compared with against its published code's outputs."""

import jax
import numpy as np
import pytest
from published import build

LEVELS = ("F3", "F4", "F5")
CASES = {  # case -> network and its fields
    "baseline_ccnet": ("ccnet", {}),
    "baseline_ccnet_pf": ("ccnet", {"decoder": "pf"}),
    "baseline_danet": ("danet", {}),
    "baseline_danet_fpn": ("danet", {"decoder": "fpn"}),
    "baseline_danet_pf": ("danet", {"decoder": "pf"}),
    "baseline_emanet": ("emanet", {}),
    "baseline_encnet": ("encnet", {}),
    "baseline_pointrend_v3": ("pointrend", {}),
    "baseline_pointrend_v3plus": ("pointrend", {"head": "deeplabv3plus"}),
    "baseline_pspnet": ("pspnet", {}),
}
WRONG = {  # case -> a field that makes another network of the same weights
    "baseline_ccnet": {"recurrence": 1},
    "baseline_danet_fpn": {"dilation": "os8_late"},
    "baseline_encnet": {"nearest": True},
    "baseline_pointrend_v3": {"points": 4000},
    "baseline_pointrend_v3plus": {"rates": (6, 12, 18)},
}


def run(case, load_case, run_once, **changes):
    """Returns the manifest, the stored arrays and our outputs."""
    manifest, state_dict, arrays = load_case(case)
    name, fields = CASES[case]
    method = build(name, num_classes=6, **fields, **changes)
    variables = method.import_torch(state_dict)
    images = arrays["x"].astype(np.float32)
    outputs = run_once(lambda v: method.apply(v, {"views": images[:, None]}), variables)
    return manifest, arrays, outputs


@pytest.mark.parametrize("case", CASES)
def test_network_equals_the_published_code(case, load_case, assert_close, run_once):
    manifest, arrays, outputs = run(case, load_case, run_once)
    step = manifest["logits_sub_step"]
    logits = outputs["logits"][:, ::step, ::step]
    assert_close(manifest, "logits_sub", logits, arrays["logits_sub"])
    if "logits_head" in arrays:
        assert_close(manifest, "logits_head", outputs["coarse"], arrays["logits_head"])
    edges = outputs.get("edge_logits", {})
    assert len(edges) == sum(name.startswith("edge_pred") for name in arrays)
    for index, level in enumerate(LEVELS if edges else ()):
        name = f"edge_pred_{index}"
        assert_close(manifest, name, edges[level], arrays[name])


@pytest.mark.parametrize("case", WRONG)
def test_another_network_of_the_same_weights_fails(case, load_case, run_once):
    manifest, arrays, outputs = run(case, load_case, run_once, **WRONG[case])
    step = manifest["logits_sub_step"]
    error = np.abs(outputs["logits"][:, ::step, ::step] - arrays["logits_sub"]).max()
    assert error > 20 * manifest["atol_per_output"]["logits_sub"]


@pytest.mark.parametrize("case", CASES)
def test_a_network_has_as_many_weights_as_the_published_one(case, load_case):
    manifest, _, _ = load_case(case)
    name, fields = CASES[case]
    shapes = build(name, num_classes=6, **fields).shapes()["params"]
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6
    assert count == pytest.approx(manifest["params_millions"], abs=1e-3)
