"""Foveation maps, the gold standard and their distance."""

import numpy as np
import pytest

from uhrjax import fov_map

BANK = (100, 200, 500)


def test_the_map_is_the_mean_side_and_scaled_from_fine_to_coarse():
    f = np.array([[[1, 0, 0], [0, 0, 1], [0.5, 0.5, 0]]])
    found = fov_map.fov_map(f, BANK)
    np.testing.assert_allclose(found, [[100, 500, 150]])
    np.testing.assert_allclose(fov_map.scaled(found, BANK), [[0, 1, 0.125]])
    np.testing.assert_array_equal(fov_map.scaled(np.array([7.0]), (7,)), [0])


def test_quality_is_summed_intersections_over_summed_unions():
    true = np.array([[[0, 0], [1, 255]], [[255, 255], [255, 255]], [[1, 1], [1, 1]]])
    found = np.array([[[0, 1], [1, 0]], [[0, 0], [0, 0]], [[1, 1], [1, 1]]])
    # Class 0: 1 of 2, class 1: 1 of 2; the ignored pixel counts nowhere.
    np.testing.assert_allclose(fov_map.patch_quality(found, true), [0.5, np.nan, 1])


def test_the_gold_standard_is_weighted_or_the_best_and_nan_where_unknown():
    quality = np.array(
        [[[0.5, 0.25, 0.25], [0.1, 0.7, 0.7], [0, 0, 0], [np.nan, 1, 0]]]
    )
    weighted = fov_map.gold_standard(quality, BANK)
    np.testing.assert_allclose(weighted, [[225, 500 / 1.5, np.nan, np.nan]])
    best = fov_map.gold_standard(quality, BANK, rule="argmax")
    np.testing.assert_allclose(best, [[100, 200, 100, np.nan]])
    with pytest.raises(ValueError, match="use one of weighted, argmax"):
        fov_map.gold_standard(quality, BANK, rule="mean")


def test_the_error_leaves_unknown_locations_out():
    fov, gold = np.array([100.0, 500.0, 300.0]), np.array([100.0, 300.0, np.nan])
    np.testing.assert_allclose(fov_map.map_error(fov, gold, BANK), 0.125)
    assert np.isnan(fov_map.map_error(fov, gold * np.nan, BANK))
