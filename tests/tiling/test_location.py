"""Grids of locations, what they leave out, and the paper's step counts."""

import numpy as np
import pytest

from uhrjax.tiling import location


def test_every_pixel_is_counted_as_often_as_patches_cover_it():
    grid = location.plan_grid(20, 31, rate=4, patch=10)
    counts = location.counts(20, 31, grid, patch=10)
    slow = np.zeros((20, 31), int)
    for i, j in grid.locations():
        slow[4 * i : 4 * i + 10, 4 * j : 4 * j + 10] += 1
    np.testing.assert_array_equal(counts, slow)
    assert counts[0, 0] == 1 and counts.max() == 9 and counts.min() == 1


def test_patches_around_the_middle_reach_before_the_scene():
    grid = location.plan_grid(16, 16, rate=4, patch=8, first=-2)
    counts = location.counts(16, 16, grid, patch=8, first=-2)
    np.testing.assert_array_equal(counts[0], counts[0, 0] * counts[:, 0])
    assert counts[0, 0] == 1 and counts[-1, -1] == 1 and counts[3, 3] == 4


def test_halves_are_rounded_to_even_and_the_strip_left_can_be_covered():
    grid = location.plan_grid(64, 72, rate=16, patch=16)
    assert (grid.rows, grid.columns, grid.extra) == (4, 4, (0, 0))  # 4.5 -> 4
    counts = location.counts(64, 72, grid, patch=16)
    assert (counts[:, 64:] == 0).all() and (counts[:, :64] == 1).all()
    grid = location.plan_grid(64, 72, rate=16, patch=16, cover=True)
    assert grid.extra == (0, 1)
    assert location.counts(64, 72, grid, patch=16).min() == 1
    assert len(grid.locations()) == 20


def test_grids_of_cityscapes_have_the_published_numbers_of_locations():
    found = [
        len(location.plan_grid(1024, 2048, rate=rate, patch=512).locations())
        for rate in (512, 256, 128, 64, 16)
    ]
    assert found == [8, 32, 128, 512, 8192]


def test_a_scene_smaller_than_the_rate_has_one_location():
    grid = location.plan_grid(5, 7, rate=100, patch=50)
    np.testing.assert_array_equal(grid.locations(), [[0, 0]])


def test_locations_of_an_iteration_are_distinct_and_depend_on_the_seed():
    drawn = location.draw(np.random.default_rng(1), 6, 9, count=24, together=2)
    assert drawn.shape == (12, 2, 2) and drawn.dtype == np.int32
    assert len({tuple(p) for p in drawn.reshape(-1, 2)}) == 24
    assert (drawn.min((0, 1)) >= 0).all() and (drawn.max((0, 1)) < (6, 9)).all()
    again = location.draw(np.random.default_rng(1), 6, 9, count=24, together=2)
    np.testing.assert_array_equal(drawn, again)


@pytest.mark.parametrize(
    ("count", "together", "message"),
    [(7, 2, "use a multiple of 2"), (60, 2, "54 locations, fewer than the 60")],
)
def test_impossible_draws_say_what_to_use(count, together, message):
    with pytest.raises(ValueError, match=message):
        location.draw(np.random.default_rng(0), 6, 9, count=count, together=together)


@pytest.mark.parametrize(
    ("images", "together", "repeats", "epochs", "each", "published"),
    [
        (238, 2, 1, 50, 16, 95_000),  # Gleason2019
        (2975, 8, 1, 100, 16, 595_000),  # Cityscapes
        (455, 4, 3, 50, 24, 410_000),  # DeepGlobe; 342 iterations are 3 x 114
    ],
)
def test_totals_are_the_papers(images, together, repeats, epochs, each, published):
    per_epoch = location.iterations(images, together=together, repeats=repeats)
    total = location.total_locations(
        epochs=epochs, iterations=per_epoch, per_iteration=each
    )
    assert total == pytest.approx(published, rel=0.005)
