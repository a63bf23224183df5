"""CascadePSP with converted weights against the published code's outputs."""

import ml_collections
import numpy as np
import pytest

from uhrjax import cascade
from uhrjax.methods import cascadepsp

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def method():
    return cascadepsp.CascadePSPMethod(
        ml_collections.ConfigDict(
            {
                "num_classes": 2,
                "tile": 224,
                "mean": MEAN,
                "std": STD,
                "dtype": "float32",
                "remat": False,
                "model": {},
                "loss": {},
            }
        )
    )


def test_every_answer_of_every_pass_equals_the_published_code(
    method, load_case, run_once
):
    manifest, state_dict, arrays = load_case("cascadepsp")
    variables = method.import_torch({f"module.{k}": v for k, v in state_dict.items()})
    images, mask = arrays["x"], arrays["seg"]

    def run(variables):
        local = (arrays["local_seg"], arrays["local_seg"], arrays["local_s4"])
        return (
            method.module.apply(variables, images, mask, train=False),
            method.module.apply(variables, images, *local, train=False),
        )

    outputs, local = run_once(run, variables)
    found = {
        "out_28": outputs["stride_8"][0],
        "out_28_2": outputs["stride_8"][1],
        "out_28_3": outputs["stride_8"][2],
        "out_56": outputs["stride_4"][0],
        "out_56_2": outputs["stride_4"][1],
        "out_224": outputs["logits"],
        "local_out_224": local["logits"],
    }
    for name, actual in found.items():
        np.testing.assert_allclose(
            actual,
            arrays[name],
            rtol=manifest["rtol"],
            atol=manifest["atol"],
            err_msg=name,
        )


def test_global_and_local_step_equal_the_published_package(method, load_case):
    manifest, state_dict, arrays = load_case("cascadepsp_pipeline")
    variables = method.import_torch(state_dict)
    image, mask = arrays["x"][0], (arrays["seg"][0, ..., 0] + 1) / 2
    for local, name in ((False, "global_only"), (True, "out")):
        refined = cascade.refine_mask(
            method, variables, image, mask, side=manifest["L"], local=local,
            batch_size=2,
        )  # fmt: skip
        close = np.isclose(
            refined,
            arrays[name][0, ..., 0],
            rtol=manifest["rtol"],
            atol=manifest["atol"],
        )
        assert close.mean() >= 0.995, name
