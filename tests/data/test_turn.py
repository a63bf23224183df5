"""Flips and turns: of pixels, and of where a window lies in its scene."""

import itertools

import numpy as np
import pytest

from uhrjax.data import turn as turn_lib

TURNS = [
    turn_lib.Turn(*t) for t in itertools.product((False, True), (False, True), range(4))
]
SCENE = np.arange(7 * 11, dtype=np.uint8).reshape(7, 11)


@pytest.mark.parametrize("turn", TURNS)
def test_pixels_flip_first_and_leave_their_input(turn):
    before = SCENE.copy()
    expected = SCENE[:, ::-1] if turn.across else SCENE
    expected = expected[::-1] if turn.down else expected
    turned = turn.pixels(before)
    np.testing.assert_array_equal(turned, np.rot90(expected, turn.turns))
    np.testing.assert_array_equal(before, SCENE)


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_window_is_found_at_its_place_in_the_turned_scene(turn):
    top, left, height, width = 1, 5, 4, 3
    crop = SCENE[top : top + height, left : left + width]
    position, size = turn.place(
        np.array([top, left], np.int32),
        size=(height, width),
        scene_size=np.array(SCENE.shape, np.int32),
    )
    whole, small = turn.pixels(SCENE), turn.pixels(crop)
    assert tuple(size) == whole.shape and position.dtype == size.dtype == np.int32
    rows, columns = (
        slice(p, p + n) for p, n in zip(position, small.shape, strict=True)
    )
    np.testing.assert_array_equal(whole[rows, columns], small)
