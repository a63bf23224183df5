"""Edge targets drawn on the host and approximated on the device."""

import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import boundary


@pytest.fixture
def label():
    drawn = np.zeros((60, 70), np.uint8)
    drawn[10:40, 10:30] = 3
    drawn[10:40, 30:50] = 5  # touches the region of 3
    drawn[50:, 60:] = 255
    return drawn


def test_a_straight_outline_of_thickness_8_is_9_px_wide(label):
    target = boundary.boundary_target(label)
    assert target.dtype == np.uint8
    assert target[25, :20].sum() == 9 and target[25, 6:15].all()


def test_touching_classes_have_an_edge_between_them_only_by_request(label):
    assert not boundary.boundary_target(label)[25, 25:35].any()
    every = boundary.boundary_target(label, rule="all_classes")
    assert every[25, 25:35].all()
    binary = (label == 3).astype(np.uint8)
    np.testing.assert_array_equal(
        boundary.boundary_target(binary),
        boundary.boundary_target(binary, rule="all_classes"),
    )


@pytest.mark.parametrize("rule", boundary.RULES)
@pytest.mark.parametrize("thickness", [1, 2, 8])
def test_the_device_rule_nearly_equals_the_drawn_one(label, thickness, rule):
    drawn = boundary.boundary_target(label, thickness=thickness, rule=rule) > 0
    found = boundary.boundary_on_device(
        jnp.asarray(np.stack([label, np.zeros_like(label)])),
        thickness=thickness,
        rule=rule,
    )
    assert not found[1].any()
    found = np.array(found[0]) > 0
    assert (found & drawn).sum() / (found | drawn).sum() >= 0.97


def test_empty_full_and_one_pixel_labels():
    assert not boundary.boundary_target(np.zeros((9, 9), np.uint8)).any()
    full = boundary.boundary_target(np.ones((30, 30), np.uint8), thickness=1)
    assert full.sum() == 4 * 29 and full[0].all()
    assert boundary.boundary_target(np.ones((1, 1), np.uint8)).tolist() == [[1]]
    assert boundary.boundary_on_device(jnp.ones((1, 1, 1))).tolist() == [[[1]]]
