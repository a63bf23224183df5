"""Global inference: windows are parts of one answer for the whole scene."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import methods
from uhrjax.errors import InputError
from uhrjax.ops import resize


@pytest.fixture(scope="module")
def built():
    method = methods.build(small.config("downsample", model={"size": (32, 64)}))
    return method, method.init(jax.random.key(0))


def test_windows_fit_together_to_the_resized_logits_of_the_scene(built):
    method, variables = built
    overview = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), np.uint8)
    maps = method.context(variables, overview)
    batch = {
        "views": np.zeros((2, 1, 64, 64, 3), np.uint8),
        "position": np.array([[0, 0], [36, 100]], np.int32),
        "scene_size": np.array([[100, 164]] * 2, np.int32),
        "context": maps,
    }
    found = method.apply(variables, batch)["logits"]
    whole = resize.bilinear(maps, (100, 164), align_corners=False)[0]
    np.testing.assert_allclose(found[0], whole[:64, :64], atol=1e-5)
    np.testing.assert_allclose(found[1], whole[36:, 100:], atol=1e-5)


def test_trains_on_small_scenes_as_its_network_does(built):
    method, variables = built
    own = jax.tree.map(lambda leaf: leaf, variables)
    views = np.random.default_rng(1).integers(0, 256, (2, 1, 32, 64, 3), np.uint8)
    key = jax.random.key(1)
    outputs, stats = method.apply(own, {"views": views}, train=True, key=key)
    inner = {kind: tree["segmenter"] for kind, tree in own.items()}
    expected, expected_stats = method.segmenter.apply(
        inner, {"views": views}, train=True, key=key
    )
    np.testing.assert_array_equal(outputs["logits"], expected["logits"])
    jax.tree.map(np.testing.assert_array_equal, stats["segmenter"], expected_stats)
    assert jnp.shape(outputs["logits"]) == (2, 32, 64, 5)


def test_a_size_that_the_network_cannot_take_is_refused():
    with pytest.raises(InputError, match=r"config.model.size: 30 x 64 px.* 32 x 64"):
        methods.build(
            small.config(
                "downsample",
                model={"size": (30, 64)},
                segmenter={"method": "pfnet", "model": small.SMALL_PFNET},
            )
        )
