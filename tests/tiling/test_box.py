"""Boxes: shares of a scene's sides that stand for the same place at every size."""

import numpy as np
import pytest

from uhrjax.tiling import box

SIZES = [(8, 8), (9, 8), (16, 24), (17, 31), (97, 101), (144, 44)]


def covered(windows, height, width):
    counts = np.zeros((height, width), int)
    for w in windows:
        assert min(w.top, w.left) >= 0
        assert w.top + w.height <= height and w.left + w.width <= width
        counts[w.top : w.top + w.height, w.left : w.left + w.width] += 1
    return counts > 0


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_that_reach_the_border_cover_every_pixel(height, width):
    boxes = box.plan_boxes(height, width, box_height=8, box_width=7, reach_border=True)
    windows = box.place_boxes(boxes, height=height, width=width)
    assert covered(windows, height, width).all()
    assert all(w[2:] == (8, 7) for w in windows)
    assert len(windows) == -(-height // 8) * -(-width // 7)  # the fewest there are


def test_published_boxes_may_leave_a_strip_at_the_border():
    boxes = box.plan_boxes(144, 144, box_height=44, box_width=44)
    seen = covered(box.place_boxes(boxes, height=144, width=144), 144, 144)
    assert seen[:143, :143].all()
    assert not seen[143].any() and not seen[:, 143].any()


def test_boxes_go_column_by_column():
    boxes = box.plan_boxes(10, 20, box_height=5, box_width=10)
    windows = box.place_boxes(boxes, height=10, width=20)
    assert [w[:2] for w in windows] == [(0, 0), (5, 0), (0, 10), (5, 10)]


def test_the_same_boxes_fit_a_map_of_another_size():
    boxes = box.plan_boxes(100, 60, box_height=50, box_width=30)
    full = np.array(box.place_boxes(boxes, height=100, width=60))
    half = np.array(box.place_boxes(boxes, height=50, width=30))
    np.testing.assert_array_equal(half * 2, full)


@pytest.mark.parametrize("side", [0, 33])
def test_boxes_that_do_not_fit_are_refused(side):
    with pytest.raises(ValueError, match="use 1 to 32"):
        box.plan_boxes(32, 64, box_height=side, box_width=8)
