"""Scales, boxes and what is cut out of them."""

import numpy as np
import pytest

from uhrjax.tiling import bilinear, pyramid

SHARES = (0.25, 0.5, 1.0)


@pytest.mark.parametrize(
    ("size", "crop", "counts"),
    [
        ((2448, 2448), (612, 612), (1, 4, 16)),
        ((1024, 2048), (128, 256), (4, 16, 64)),
        ((5000, 5000), (1250, 1250), (1, 4, 16)),
        ((701, 33), (64, 64), (3, 6, 11)),
        ((1, 1), (64, 64), (1, 1, 1)),
    ],
)
def test_boxes_cover_every_scale_to_its_border(size, crop, counts):
    scales = pyramid.plan_scales(*size, scales=SHARES, crop=crop)
    assert [scale.count for scale in scales] == list(counts)
    assert scales[-1].size == size
    for scale in scales:
        covered = np.zeros(scale.size, bool)
        for top, left in scale.corners():
            assert top >= 0 and left >= 0
            bottom, right = top + scale.box_height, left + scale.box_width
            assert bottom <= scale.height and right <= scale.width
            covered[top:bottom, left:right] = True
        assert covered.all()


def test_boxes_are_counted_column_by_column():
    scale = pyramid.plan_scale(20, 30, crop=(10, 10))
    assert scale.corners()[:3].tolist() == [[0, 0], [10, 0], [0, 10]]
    assert scale.places()[:3].tolist() == [[0, 0], [1, 0], [0, 1]]


@pytest.mark.parametrize("shares", [(), (0.5,), (0.5, 0.25, 1.0), (0.0, 1.0)])
def test_scales_that_do_not_ascend_to_the_scene_are_refused(shares):
    with pytest.raises(ValueError, match="ascend and end with 1"):
        pyramid.plan_scales(10, 10, scales=shares, crop=(5, 5))


def test_drawn_crops_are_anywhere_in_all_scales_but_the_first():
    scales = pyramid.plan_scales(100, 80, scales=SHARES, crop=(25, 20))
    rng = np.random.default_rng(0)
    drawn = [pyramid.draw_crop(scales, rng) for _ in range(600)]
    assert {crop.scale for crop in drawn} == {1, 2}
    halves = [crop for crop in drawn if crop.scale == 1]
    assert {crop.top for crop in halves} == set(range(25))  # the bound is exclusive
    assert {crop.left for crop in halves} == set(range(20))
    for crop in drawn:
        scale = scales[crop.scale]
        expected = np.array([crop.top, crop.left, crop.top + 25, crop.left + 20])
        np.testing.assert_allclose(crop.box * (scale.size * 2), expected, rtol=1e-6)


@pytest.mark.parametrize("share", [0.3, 0.5, 1.0])
def test_a_cut_is_the_whole_scene_resized_then_sliced_then_resized(share):
    scene = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    label = np.random.default_rng(1).integers(0, 9, (61, 83), np.uint8)
    height, width = round(61 * share), round(83 * share)
    scale = pyramid.plan_scale(height, width, crop=(15, 19))
    large = bilinear.resample(scene, height=height, width=width)
    rows, columns = np.arange(height) * 61 // height, np.arange(width) * 83 // width
    large_label = label[rows][:, columns]
    for top, left in [(0, 0), (2, 5), (height - 15, width - 19)]:
        corner = (top, left)
        patch = large[top : top + 15, left : left + 19]
        expected = bilinear.resample(patch, height=11, width=13)
        window = pyramid.window_of(scale, corner, height=61, width=83)
        bottom, right = window.top + window.height, window.left + window.width
        part = (slice(window.top, bottom), slice(window.left, right))
        origin = {"origin": (window.top, window.left)}
        where = {"size": (11, 13), "scene": (61, 83)}
        for pixels, more in ((scene, {}), (scene[part], origin)):
            found = pyramid.cut(pixels, scale, corner, **where, **more)
            np.testing.assert_array_equal(found, expected)
        patch = large_label[top : top + 15, left : left + 19]
        expected = patch[np.arange(11) * 15 // 11][:, np.arange(13) * 19 // 13]
        for pixels, more in ((label, {}), (label[part], origin)):
            found = pyramid.cut_label(pixels, scale, corner, **where, **more)
            np.testing.assert_array_equal(found, expected)
