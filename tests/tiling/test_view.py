"""Views: concentric, exactly reduced, zero beyond the border."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.tiling import bilinear, triangle
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as windows

SCENE = np.random.default_rng(1).integers(0, 256, (40, 52, 3), np.uint8)
READ = functools.partial(windows.cut, SCENE, fill=0)


def views_at(window, *scales):
    return view_lib.cut_views(READ, window, [view_lib.View(s) for s in scales])


def test_the_view_of_scale_one_is_the_window_itself():
    window = windows.Window(5, 6, 8, 8)
    np.testing.assert_array_equal(views_at(window, 1), [SCENE[5:13, 6:14]])


@pytest.mark.parametrize("window", [(8, 16, 8, 8), (-6, 0, 8, 8), (33, 49, 8, 8)])
def test_contexts_are_the_rounded_mean_of_concentric_blocks(window):
    views = views_at(windows.Window(*window), 1, 2, 3)
    padded = np.pad(SCENE.astype(np.int64), ((40, 40), (40, 40), (0, 0)))
    for view, scale in zip(views, (1, 2, 3), strict=True):
        top = window[0] - (scale - 1) * 4 + 40
        left = window[1] - (scale - 1) * 4 + 40
        block = padded[top : top + 8 * scale, left : left + 8 * scale]
        total = block.reshape(8, scale, 8, scale, 3).sum((1, 3))
        expected = (2 * total + scale**2) // (2 * scale**2)  # halves rounded up
        np.testing.assert_array_equal(view, expected)


def test_a_context_equals_the_same_view_cut_alone():
    window = windows.Window(3, 4, 6, 6)
    together, alone = views_at(window, 1, 2, 4), views_at(window, 4)
    np.testing.assert_array_equal(together[2], alone[0])


def test_a_constant_scene_gives_constant_views():
    read = functools.partial(windows.cut, np.full((64, 64, 3), 77, np.uint8), fill=0)
    window = windows.Window(28, 28, 8, 8)
    views = view_lib.cut_views(read, window, [view_lib.View(s) for s in (1, 2, 5)])
    assert (views == 77).all()


def test_an_odd_window_is_widened_around_its_own_pixels():
    wide = view_lib.widen(windows.Window(10, 10, 5, 5), 2)
    assert wide == (7, 7, 10, 10)
    assert wide.top <= 10 and wide.top + wide.height >= 15


@pytest.mark.parametrize("scale", [1.5, 2, 2.5, 3, 4])
@pytest.mark.parametrize("window", [(8, 16, 8, 8), (-6, 0, 8, 8), (36, 49, 8, 8)])
def test_pillow_contexts_mix_in_the_zero_border(window, scale):
    found = view_lib.cut_views(
        READ, windows.Window(*window), [view_lib.View(), view_lib.View(scale, "pillow")]
    )
    padded = np.pad(SCENE, ((40, 40), (40, 40), (0, 0)))
    side = int(8 * scale)
    top, left = (start - (side - 8) // 2 + 40 for start in window[:2])
    seen = padded[top : top + side, left : left + side]
    np.testing.assert_array_equal(found[1], triangle.reduce(seen, height=8, width=8))


def test_a_fraction_that_cuts_pixels_says_which_windows_to_use():
    assert view_lib.widen(windows.Window(0, 0, 32, 32), 1.5) == (-8, -8, 48, 48)
    with pytest.raises(ValueError, match=r"49\.5 px wide; use windows of 32 or 34 px"):
        view_lib.widen(windows.Window(0, 0, 33, 33), 1.5)
    with pytest.raises(ValueError, match=r"use windows of 2 or 4 px"):
        view_lib.widen(windows.Window(0, 0, 3, 3), 2.5)


@pytest.mark.parametrize("scale", [0, -1, 1.5, "2"])
def test_averaging_takes_positive_integers_only(scale):
    with pytest.raises(ValueError, match=r"integer >= 1; resize='pillow' and"):
        view_lib.View(scale)


@pytest.mark.parametrize("scale", [0.5, float("nan"), float("inf"), "2"])
def test_a_field_of_view_narrower_than_the_window_is_refused(scale):
    with pytest.raises(ValueError, match="use a number >= 1"):
        view_lib.View(scale, "pillow")


def test_an_unknown_resize_lists_the_known_ones():
    with pytest.raises(ValueError, match="area, pillow, bilinear"):
        view_lib.View(2, "bicubic")
    with pytest.raises(ValueError, match="zero, shift, reflect"):
        view_lib.View(2, border="wrap")


@pytest.mark.parametrize("window", [(0, 0), (3, 49), (32, 44), (16, 20), (-2, 0)])
def test_shifted_views_are_moved_inside_the_scene(window):
    place = windows.Window(*window, 8, 8)
    views = [view_lib.View(), view_lib.View(3, "pillow", "shift")]
    found = view_lib.cut_views(READ, place, views, scene_size=SCENE.shape[:2])
    top, left = (
        min(max(start - 8, 0), side - 24)
        for start, side in zip(window, SCENE.shape, strict=False)
    )
    seen = SCENE[top : top + 24, left : left + 24]
    np.testing.assert_array_equal(found[0], READ(place))
    np.testing.assert_array_equal(found[1], triangle.reduce(seen, height=8, width=8))


def test_a_shifted_view_larger_than_the_scene_is_black_behind_its_end():
    view = view_lib.View(6, border="shift")
    wide = view_lib.place(windows.Window(20, 40, 8, 8), view, SCENE.shape[:2])
    assert wide == (0, 52 - 48, 48, 48)


@pytest.mark.parametrize("resize", ["area", "pillow", "bilinear"])
@pytest.mark.parametrize("border", view_lib.BORDERS)
def test_places_are_the_same_where_starts_and_sizes_are_traced(resize, border):
    view = view_lib.View(3, resize, border)

    @jax.jit
    def traced(top, left, size):
        wide = view_lib.place(windows.Window(top, left, 7, 8), view, (size[0], size[1]))
        return wide, view_lib.mirror(jnp.arange(-30, 30) + top, size[0])

    for top, left in ((0, 0), (-3, 9), (35, 45), (12, 12)):
        place = windows.Window(top, left, 7, 8)
        for size in ((40, 52), (5, 1)):
            wide, mirrored = traced(top, left, jnp.array(size))
            assert tuple(map(int, wide)) == view_lib.place(place, view, size)
            expected = view_lib.mirror(np.arange(-30, 30) + top, size[0])
            np.testing.assert_array_equal(mirrored, expected)


@pytest.mark.parametrize("window", [(0, 0), (-3, 49), (32, 44), (16, 20)])
@pytest.mark.parametrize("scale", [1, 2, 3, 9])
def test_mirrored_views_do_not_repeat_the_border(window, scale):
    place = windows.Window(*window, 8, 8)
    view = view_lib.View(scale, "area", "reflect")
    (found,) = view_lib.cut_views(READ, place, [view], scene_size=SCENE.shape[:2])
    padded = np.pad(SCENE, ((90, 90), (90, 90), (0, 0)), "reflect")
    top, left = (start - (scale - 1) * 4 + 90 for start in window)
    seen = padded[top : top + 8 * scale, left : left + 8 * scale]
    np.testing.assert_array_equal(found, view_lib.average(seen, scale))


@pytest.mark.parametrize("border", view_lib.BORDERS)
@pytest.mark.parametrize("view", [(1,), (2,), (3,), (2.5, "bilinear"), (1.5, "pillow")])
def test_reach_is_the_farthest_that_a_view_looks(view, border):
    view = view_lib.View(*view, *("area",) * (len(view) == 1), border)
    far = 0
    for start in range(93):
        wide = view_lib.place(windows.Window(start, 0, 8, 8), view, (100, 100))
        far = max(far, start - wide.top, wide.top + wide.height - start - 8)
    assert far == view_lib.reach(view, 8)


def test_other_borders_need_the_size_of_the_scene():
    for border in ("shift", "reflect"):
        with pytest.raises(ValueError, match="need the size of the scene"):
            view_lib.cut_views(
                READ, windows.Window(0, 0, 4, 4), [view_lib.View(2, "area", border)]
            )


@pytest.mark.parametrize("side", [10, 15, 16, 24, 37])
def test_bilinear_crops_are_those_of_foveation(side):
    """Its formula: sample k lies at (k + 1/2) P_d / P_0 - 1/2 of the crop."""
    window, view = windows.Window(14, 9, 10, 10), view_lib.View(side / 10, "bilinear")
    if side == 10:
        view = view_lib.View(1, "bilinear")
    (found,) = view_lib.cut_views(READ, window, [view])
    top, left = (start + 5 - side // 2 for start in (14, 9))
    crop = np.pad(SCENE, ((40, 40), (40, 40), (0, 0)))[top + 40 :, left + 40 :]
    crop = crop[:side, :side].astype(np.float64)
    place = (np.arange(10) + 0.5) * side / 10 - 0.5
    first = np.floor(place).astype(int)
    second, share = np.minimum(first + 1, side - 1), place - first
    rows = (
        crop[first] * (1 - share)[:, None, None] + crop[second] * share[:, None, None]
    )
    expected = rows[:, first] * (1 - share)[:, None] + rows[:, second] * share[:, None]
    assert abs(found - expected).max() < 0.6  # rounded, by weights of 11 bits
    on_device = jax.jit(lambda p: view_lib.reduce(p, view))(crop.astype(np.uint8))
    np.testing.assert_array_equal(on_device, found)


def test_a_bilinear_enlargement_keeps_flat_pixels_and_reaches_the_border():
    flat = np.full((3, 5, 3), 255, np.uint8)
    assert (bilinear.resample(flat, height=7, width=11) == 255).all()
    line = np.array([[[0], [100]]], np.uint8)
    found = bilinear.resample(line, height=1, width=4)[0, :, 0]
    assert found.tolist() == [0, 25, 75, 100]
