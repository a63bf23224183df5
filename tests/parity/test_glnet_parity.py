"""GLNet's branches with converted weights against the published code's outputs."""

import functools

import ml_collections
import numpy as np
import pytest

from uhrjax.methods import glnet
from uhrjax.nn import collection


def build(mode, *, tile):
    return glnet.GLNetMethod(
        ml_collections.ConfigDict(
            {
                "num_classes": 7,
                "tile": tile,
                "mean": (0.0, 0.0, 0.0),
                "std": (1.0, 1.0, 1.0),
                "dtype": "float32",
                "remat": False,
                "model": {"mode": mode},
                "loss": {},
            }
        )
    )


@pytest.fixture
def check():
    def close(manifest, name, actual, expected):
        np.testing.assert_allclose(
            actual, expected, rtol=manifest["rtol"], atol=manifest["atol"], err_msg=name
        )

    return close


def test_the_global_branch_equals_the_published_code(load_case, check, run_once):
    manifest, state_dict, arrays = load_case("glnet_global")
    method = build("global", tile=96)
    run = functools.partial(method.module.apply, method.import_torch(state_dict))
    images = arrays["x"]

    def both(images):
        maps = run(images, train=False, method="look")
        return maps, run(images, train=False)

    maps, outputs = run_once(both, images)
    check(manifest, "out", outputs["global"], arrays["out"])
    check(manifest, "c5", maps.features[3][..., ::16], arrays["c5"])
    check(manifest, "p2", maps.summed[0][..., ::16], arrays["p2"])
    check(manifest, "ps3", maps.joined[:, ::2, ::2, ::8], arrays["ps3"])


@pytest.fixture
def windows(load_case):
    """Returns all windows of the case's scene, and their overview."""
    manifest, _, arrays = load_case("glnet_full")
    image, side = arrays["image"], manifest["patch"]
    crops = [image[y : y + side, x : x + side] for y, x in arrays["top_left"]]
    count = len(crops)
    return {
        "views": np.stack(crops)[:, None],
        "overview": arrays["global_image"][None],
        "position": arrays["top_left"],
        "scene_size": np.full((count, 2), image.shape[:2], np.int32),
    }


def test_the_guided_local_branch_equals_the_published_code(
    load_case, check, run_once, windows
):
    manifest, state_dict, arrays = load_case("glnet_full")
    method = build("local", tile=manifest["patch"])
    outputs = run_once(method.apply, method.import_torch(state_dict), windows)
    for name, array in (("ensemble", "mode2_ensemble"), ("local", "mode2_local")):
        check(manifest, name, outputs[name][:, ::2, ::2], arrays[array])
    check(manifest, "global", outputs["global"], arrays["mode2_global"])
    size = manifest["sub_batch"]
    apart = outputs["difference"]
    means = [apart[k : k + size].mean() for k in range(0, len(apart), size)]
    check(manifest, "difference", means, arrays["mode2_mse"])


def test_the_global_branch_guided_by_all_windows_equals_the_published_code(
    load_case, check, run_once, windows
):
    manifest, state_dict, arrays = load_case("glnet_full")
    method = build("joint", tile=manifest["patch"])
    variables = method.import_torch(state_dict)
    empty = method.empty_collection((150, 190))

    def predict(variables, batch, empty):
        """Goes over the scene twice, as prediction does, with a last batch padded."""
        first = method.context(variables, batch["overview"])
        collected = empty
        scene = {k: v for k, v in batch.items() if k != "overview"}
        for start, stop in ((0, 8), (4, 12)):
            some = {k: v[start:stop] for k, v in scene.items()}
            valid = np.arange(start, stop) >= (0 if start == 0 else 8)
            some |= {"context": first, "valid": valid}
            collected = method.collect(variables, some, collected)
        context = method.context(variables, batch["overview"], collected)
        outputs = method.apply(variables, scene | {"context": context})
        return outputs, collected.mean(), context["global"]

    outputs, merged, logits = run_once(predict, variables, windows, empty)
    check(manifest, "c2", merged.features[0][..., ::8], arrays["merged_c2"])
    check(manifest, "c5", merged.features[3][..., ::16], arrays["merged_c5"])
    check(manifest, "global", logits, arrays["mode3_global"])
    check(
        manifest, "ensemble", outputs["ensemble"][:, ::2, ::2], arrays["mode3_ensemble"]
    )
    assert isinstance(empty, collection.Collection)
