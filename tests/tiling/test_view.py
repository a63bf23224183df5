"""Views: concentric, exactly reduced, zero beyond the border."""

import functools

import numpy as np
import pytest

from uhrjax.tiling import triangle
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
    with pytest.raises(ValueError, match=r"integer >= 1; resize='pillow' also takes"):
        view_lib.View(scale)


@pytest.mark.parametrize("scale", [0.5, float("nan"), float("inf"), "2"])
def test_a_field_of_view_narrower_than_the_window_is_refused(scale):
    with pytest.raises(ValueError, match="use a number >= 1"):
        view_lib.View(scale, "pillow")


def test_an_unknown_resize_lists_the_known_ones():
    with pytest.raises(ValueError, match="area, pillow"):
        view_lib.View(2, "bicubic")
