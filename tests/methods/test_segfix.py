"""SegFix: which way boundaries look, and what they take from there."""

import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import boundary, methods
from uhrjax.errors import InputError


def build(**model):
    return methods.build(small.config("segfix", model={"size": (32, 64), **model}))


def test_directions_of_a_square_point_into_it_and_out_of_it():
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 3
    label[38:] = 255
    target = boundary.direction_target(label)
    names = {
        (20, 10): (0, 1), (20, 29): (0, -1), (10, 20): (1, 0), (29, 20): (-1, 0),
        (10, 10): (1, 1), (29, 10): (-1, 1), (20, 9): (0, -1), (9, 20): (-1, 0),
    }  # fmt: skip
    for place, way in names.items():
        assert tuple(boundary.DIRECTIONS[target[place]]) == way, place
    assert target[20, 20] == boundary.INTERIOR and target[20, 1] == boundary.INTERIOR
    assert (target[38:] == boundary.IGNORED).all()
    # Five px on either side.
    assert target[20, 14] < 8 and target[20, 15] == boundary.INTERIOR
    assert target[20, 5] < 8 and target[20, 4] == boundary.INTERIOR
    alone = boundary.direction_target(np.full((9, 9), 2, np.uint8))
    assert (alone == boundary.INTERIOR).all()


def test_boundary_pixels_take_what_lies_two_px_inward_and_others_nothing():
    method = build()
    label = np.zeros((24, 32), np.uint8)
    label[:, 16:] = 1
    wrong = np.roll(label, 2, axis=1)  # shifted by 2 px to the right
    wrong[:, :2] = 0
    target = boundary.direction_target(label)[None]
    way = np.minimum(target, 7)
    says = (target < 8).astype(int)
    found = {
        "boundary": jnp.eye(2)[says],
        "direction": jnp.eye(8)[way.astype(int)],
    }
    mended = method._mend(jnp.eye(5)[wrong][None], found)
    np.testing.assert_array_equal(mended[0].argmax(-1), label)
    nothing = {**found, "boundary": jnp.eye(2)[0 * says]}
    kept = method._mend(jnp.eye(5)[wrong][None], nothing)
    np.testing.assert_array_equal(kept[0].argmax(-1), wrong)


def test_directions_count_only_where_a_boundary_is_and_is_seen():
    method = build()
    target = np.full((1, 8, 8), boundary.INTERIOR, np.uint8)
    target[:, :, 3] = 4
    batch = {"label": np.zeros((1, 8, 8), np.uint8), "direction": target}
    zeros = jnp.zeros((1, 8, 8, 8))
    outputs = {"before": zeros[..., :5], "direction": zeros}

    def loss(boundary_logits):
        return method.loss({**outputs, "boundary": boundary_logits}, batch)

    seen = loss(jnp.broadcast_to(jnp.array([0.0, 1.0]), (1, 8, 8, 2)))
    unseen = loss(jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 8, 8, 2)))
    # All of one class, whose weight is 0: a share of 1 says nothing about others.
    assert seen["direction"] == 0 and unseen["direction"] == 0
    batch["direction"] = target.copy()
    batch["direction"][:, :4, 3] = 0
    seen = loss(jnp.broadcast_to(jnp.array([0.0, 1.0]), (1, 8, 8, 2)))
    unseen = loss(jnp.broadcast_to(jnp.array([1.0, 0.0]), (1, 8, 8, 2)))
    assert seen["direction"] == pytest.approx(np.log(8)) and unseen["direction"] == 0
    assert seen["boundary"] != unseen["boundary"]


def test_mistakes_in_a_config_say_what_is_allowed():
    with pytest.raises(InputError, match="step = 0; use 1 or more"):
        build(step=0)
    with pytest.raises(InputError, match="'w99'; use one of w48"):
        build(network="w99")
    with pytest.raises(InputError, match="no published weights"):
        build().import_torch({})
