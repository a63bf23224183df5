"""Windows: every pixel is covered, and cutting never invents or loses one."""

import numpy as np
import pytest

from uhrjax.tiling import window as windows

AWKWARD = [1, 2, 7, 31, 32, 33, 64, 65, 97, 101]


@pytest.mark.parametrize("length", AWKWARD)
@pytest.mark.parametrize(("tile", "stride"), [(32, 32), (32, 20), (32, 1), (1, 1)])
def test_plan_starts_covers_every_pixel_and_stays_inside(length, tile, stride):
    starts = windows.plan_starts(length, tile=tile, stride=stride)
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + tile] = True
    assert covered.all()
    assert starts == sorted(set(starts))
    assert starts[-1] == max(length - tile, 0)


def test_plan_starts_follows_the_published_isaid_windows():
    assert windows.plan_starts(2000, tile=896, stride=512) == [0, 512, 1024, 1104]
    assert windows.plan_starts(1408, tile=896, stride=512) == [0, 512]


def test_plan_starts_of_a_scene_smaller_than_the_tile_is_one_window():
    assert windows.plan_starts(5, tile=32, stride=8) == [0]
    assert windows.plan_windows(5, 7, tile=32, stride=8) == [(0, 0, 32, 32)]


def test_plan_starts_stride_above_tile_says_what_to_use():
    with pytest.raises(ValueError, match="use 1 <= stride <= 32"):
        windows.plan_starts(100, tile=32, stride=33)
    with pytest.raises(ValueError, match="use 1 <= stride"):
        windows.plan_starts(100, tile=32, stride=0)


def test_plan_starts_of_an_empty_side_is_refused():
    with pytest.raises(ValueError, match="must be >= 1"):
        windows.plan_starts(0, tile=32, stride=32)


@pytest.mark.parametrize("length", AWKWARD)
@pytest.mark.parametrize(("tile", "stride"), [(32, 32), (32, 20), (32, 1), (1, 1)])
def test_even_starts_cover_every_pixel_in_steps_of_one_size(length, tile, stride):
    starts = windows.plan_even_starts(length, tile=tile, stride=stride)
    covered = np.zeros(length, bool)
    for start in starts:
        covered[start : start + tile] = True
    assert covered.all()
    assert starts[0] == 0 and starts[-1] == max(length - tile, 0)
    steps = np.diff(starts)
    assert not len(steps) or (steps.min() >= 1 and steps.max() <= stride)
    assert not len(steps) or np.ptp(steps) <= 2  # two rounded ends


def test_plan_windows_goes_row_by_row():
    found = windows.plan_windows(40, 50, tile=32, stride=32)
    assert found == [(0, 0, 32, 32), (0, 18, 32, 32), (8, 0, 32, 32), (8, 18, 32, 32)]


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize("place", [(0, 0), (-3, 2), (5, 6), (-20, -20), (30, 4)])
@pytest.mark.parametrize("size", [(1, 1), (4, 9), (20, 3)])
def test_cut_equals_the_padded_scene_wherever_the_window_lies(channels, place, size):
    scene = np.random.default_rng(0).integers(0, 200, (11, 13, *channels), np.uint8)
    pad = [(64, 64), (64, 64)] + [(0, 0)] * len(channels)
    padded = np.pad(scene, pad, constant_values=255)
    top, left = place
    expected = padded[top + 64 : top + 64 + size[0], left + 64 : left + 64 + size[1]]
    np.testing.assert_array_equal(
        windows.cut(scene, windows.Window(*place, *size), fill=255), expected
    )


def test_cut_inside_the_scene_copies_nothing():
    scene = np.zeros((8, 8), np.uint8)
    inside = windows.cut(scene, windows.Window(1, 2, 3, 4), fill=0)
    assert np.shares_memory(scene, inside)


@pytest.mark.parametrize("tile, stride", [(8, 8), (8, 5), (9, 2), (7, 1)])
def test_even_steps_stay_above_half_a_stride(tile, stride):
    for length in range(1, 120):
        starts = windows.plan_even_starts(length, tile=tile, stride=stride)
        if len(starts) > 2:
            steps = np.diff(starts)
            assert steps.max() <= stride and steps.min() >= stride // 2
