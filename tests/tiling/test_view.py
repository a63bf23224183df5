"""Views: concentric, exactly averaged, zero beyond the border."""

import functools

import numpy as np
import pytest

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


@pytest.mark.parametrize("scale", [0, -1, 1.5, "2"])
def test_a_scale_that_is_no_positive_integer_is_refused(scale):
    with pytest.raises(ValueError, match="integer >= 1"):
        view_lib.View(scale)
