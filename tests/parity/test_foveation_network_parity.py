"""Foveation's two segmentation networks with converted weights against its code's."""

import jax
import numpy as np
import pytest
from published import build


@pytest.fixture
def check():
    """Returns a check with a manifest's tolerance, looser for maps of large values."""

    def close(manifest, name, actual, expected, *, is_map=False):
        atol = manifest["atol"]
        if is_map:
            atol = max(atol, manifest["atol_of_max"] * abs(expected).max())
        np.testing.assert_allclose(
            actual, expected, rtol=manifest["rtol"], atol=atol, err_msg=name
        )

    return close


def check_answers(check, manifest, outputs, arrays):
    check(manifest, "logits", outputs["coarse"], arrays["logits"])
    found = np.asarray(jax.nn.log_softmax(outputs["coarse"]))
    check(manifest, "log_probs", found, arrays["log_probs"])
    found = np.asarray(jax.nn.softmax(outputs["logits"]))
    check(manifest, "probs_at_seg_size", found, arrays["probs_at_seg_size"])


def apply_with_parts(method, variables, images):
    return method.module.apply(
        variables, images, train=False, capture_intermediates=True
    )


def test_hrnet_equals_the_published_code(load_case, check, run_once):
    manifest, state_dict, arrays = load_case("hrnetv2_w48_c1")
    method = build("hrnet", num_classes=manifest["num_class"])
    outputs, state = run_once(
        lambda v: apply_with_parts(method, v, arrays["x"]),
        method.import_torch(state_dict),
    )
    found = state["intermediates"]["backbone"]
    layer1 = found["layer1_3"]["__call__"][0]
    check(manifest, "layer1", layer1, arrays["layer1"], is_map=True)
    for stage in (2, 3, 4):
        for branch, x in enumerate(found[f"stage{stage}"][0]):
            name = f"stage{stage}_branch{branch}"
            check(manifest, name, x, arrays[name], is_map=True)
    check_answers(check, manifest, outputs, arrays)


def test_upernet_equals_the_published_code(load_case, check, run_once):
    manifest, state_dict, arrays = load_case("upernet_r50")
    fields = {"design": "original", "dilation": "none", "fpn_dim": manifest["fpn_dim"]}
    method = build("upernet", num_classes=manifest["num_class"], **fields)
    outputs, state = run_once(
        lambda v: apply_with_parts(method, v, arrays["x"]),
        method.import_torch(state_dict),
    )
    found = state["intermediates"]
    _, layer2, layer3, layer4 = found["backbone"]["__call__"][0]
    layer1 = found["backbone"]["__call__"][0][0][..., :64]
    head = found["head"]
    maps = {
        "layer1_slice": layer1,
        "layer2": layer2,
        "layer3": layer3,
        "layer4": layer4,
        "ppm_out": found["neck"]["ppm"]["__call__"][0],
        "fpn_out1": head["smooth_1"]["__call__"][0],
        "fpn_out2": head["smooth_2"]["__call__"][0],
    }
    for name, x in maps.items():
        check(manifest, name, x, arrays[name], is_map=True)
    check_answers(check, manifest, outputs, arrays)
