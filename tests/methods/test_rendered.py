"""PointRend behind a scene made small: what its head reads and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import methods
from uhrjax.errors import InputError

SIZE = (32, 64)


def build(*, segmenter=None, **model):
    given = {"size": SIZE, "train_points": 40, **model}
    changes = {"segmenter": segmenter} if segmenter else {}
    return methods.build(small.config("rendered", model=given, **changes))


def test_a_scene_is_doubled_and_all_its_windows_are_of_one_answer():
    method = build()
    variables = method.init(jax.random.key(0))
    overview = np.random.default_rng(0).integers(0, 256, (1, *SIZE, 3), np.uint8)
    maps = small.run_once(method.context, variables, overview)
    assert maps.shape == (1, 4 * SIZE[0], 4 * SIZE[1], 5)
    scene = np.array([[128, 256]], np.int32)  # as large as the answer

    def window(corner):
        views = np.zeros((1, 1, 64, 64, 3), np.uint8)
        batch = {"views": views, "scene_size": scene, "context": maps}
        place = {"position": np.array([corner], np.int32)}
        return method.apply(variables, {**batch, **place})["logits"][0]

    np.testing.assert_allclose(window((0, 0)), maps[0, :64, :64], atol=1e-6)
    np.testing.assert_allclose(window((64, 192)), maps[0, 64:, 192:], atol=1e-6)


def test_training_reads_labels_and_logits_at_the_same_place_of_the_scene():
    method = build(layers=0)
    variables = method.init(jax.random.key(0))
    # A head that hands through the coarse logits.
    head = variables["params"]["head"]["classify"]
    kernel = np.zeros(head["kernel"].shape, np.float32)
    kernel[0, 0, :5, :5] = np.eye(5)
    variables["params"]["head"]["classify"] = {
        "kernel": jnp.asarray(kernel),
        "bias": jnp.zeros(5),
    }
    batch = small.batch_for(method, size=(64, 64))

    def train(variables):
        found, stats = method.apply(variables, batch, train=True, key=jax.random.key(1))
        return found, stats, method.loss(found, batch)

    found, stats, losses = small.run_once(train, variables)
    assert set(stats) == {"segmenter"} and set(losses) == {"total", "seg", "points"}
    points = np.asarray(found["points"])
    row, column = (points * 64).astype(int).transpose(2, 0, 1)
    image = np.arange(2)[:, None]
    near = np.asarray(found["logits"])[image, row, column]
    # The window is a small part of the scene: its logits change slowly.
    assert abs(found["point_logits"] - near).max() < 0.1 * near.std()


def test_mistakes_in_a_config_say_what_is_allowed():
    with pytest.raises(InputError, match="points = 0; use 1 or more"):
        build(points=0)
    with pytest.raises(InputError, match="hands out no features"):
        build(segmenter={"method": "hrnet", "model": small.SMALL_HRNET}).shapes()
    with pytest.raises(InputError, match="no published weights"):
        build().import_torch({})
