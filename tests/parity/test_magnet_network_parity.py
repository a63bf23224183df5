"""MagNet's three segmentation networks with converted weights against its code's."""

import numpy as np
import pytest
from published import build

CASES = {
    "magnet_hrnet18_ocr": "hrnet_ocr",
    "magnet_pspnet_r101": "magnet_pspnet",
    "magnet_resnet50_fpn": "resnet_fpn",
}


def wrapped(state_dict):
    """Names as MagNet's code saves them, the loss' buffer among them."""
    return {
        **{f"model.{name}": value for name, value in state_dict.items()},
        "loss.main_criterion.weight": np.ones(3, np.float32),
    }


@pytest.mark.parametrize("case", CASES)
def test_a_network_equals_the_published(case, load_case, run_once):
    manifest, state_dict, arrays = load_case(case)
    method = build(CASES[case], num_classes=manifest["num_classes"])
    outputs = run_once(
        lambda v: method.apply(v, {"views": arrays["image"][:, None]}),
        method.import_torch(wrapped(state_dict)),
    )
    for name in ("logits", "aux"):
        if name in arrays:
            np.testing.assert_allclose(
                outputs[name], arrays[name], rtol=manifest["rtol"],
                atol=manifest["atol"], err_msg=name,
            )  # fmt: skip


def test_a_strided_stem_takes_the_same_weights_and_fails_the_comparison(
    load_case, run_once
):
    manifest, state_dict, arrays = load_case("magnet_hrnet18_ocr")
    method = build("hrnet_ocr", num_classes=19, stem_stride=2)
    outputs = run_once(
        lambda v: method.apply(v, {"views": arrays["image"][:, None]}),
        method.import_torch(state_dict),
    )
    assert abs(outputs["logits"] - arrays["logits"]).max() > 1000 * manifest["atol"]


def test_parameters_are_as_many_as_the_papers():
    # Millions, from the published code.
    for name, classes, count in (
        ("hrnet_ocr", 19, 6.38), ("magnet_pspnet", 5, 72.3), ("resnet_fpn", 7, 28.06),
    ):  # fmt: skip
        params = build(name, num_classes=classes).shapes()["params"]
        assert sizes(params) / 1e6 == pytest.approx(count, rel=2e-3), name


def sizes(tree):
    if isinstance(tree, dict):
        return sum(map(sizes, tree.values()))
    return np.prod(tree.shape)
