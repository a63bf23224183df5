"""Mean boundary accuracy: radii, windows, scenes without boundary."""

import math

import numpy as np

from uhrjax import boundary_accuracy as mba


def squares(seed=0, size=(90, 120)):
    rng = np.random.default_rng(seed)
    label = np.zeros(size, np.uint8)
    for k in range(1, 5):
        top, left = rng.integers(0, (60, 90))
        label[top : top + 30, left : left + 30] = k
    label[40:50, 50:70] = 255
    return label


def test_radii_are_those_of_the_papers_data_sets():
    assert mba.radii(1024, 2048) == (1, 2, 4, 6, 8)
    assert mba.radii(2448, 2448) == (1, 4, 7, 10, 13)
    assert mba.radii(20, 20) == (1, 1, 1, 1, 1)


def test_a_perfect_map_scores_1_and_errors_far_from_boundaries_do_not_count():
    label = squares()
    prediction = label.copy()
    prediction[label == 255] = 3
    counts = mba.count(label, prediction, (1, 2, 4))
    assert mba.mean_accuracy(counts) == 1
    far = np.ones(label.shape, bool)
    for k in range(5):
        far &= ~mba.near_boundary(label == k, 4)
    assert far.any()
    wrong = np.where(far, (prediction + 1) % 5, prediction)
    np.testing.assert_array_equal(mba.count(label, wrong, (1, 2, 4)), counts)
    worse = np.where(mba.near_boundary(label == 1, 1), 0, prediction)
    assert mba.mean_accuracy(mba.count(label, worse, (1, 2, 4))) < 0.95


def test_void_pixels_do_not_count_and_have_no_boundary_of_their_own():
    label = np.zeros((40, 40), np.uint8)
    label[:, 20:] = 255
    counts = mba.count(label, label, (2,))
    assert counts.tolist() == [[80, 80]]  # the labelled side of class 0's outline
    label[:, 20:] = 1
    assert mba.count(label, label, (2,)).tolist() == [[160, 160]]
    assert mba.count(label, label, (2,), void=(255, 1)).tolist() == [[80, 80]]


def test_counts_of_windows_add_up_to_those_of_the_scene():
    label = squares()
    prediction = np.roll(label, 2, axis=1)
    radii, margin = (1, 2, 5), 5
    whole = mba.count(label, prediction, radii)
    total = np.zeros_like(whole)
    for top in range(0, 90, 37):
        for left in range(0, 120, 50):
            rows = slice(max(top - margin, 0), top + 37 + margin)
            columns = slice(max(left - margin, 0), left + 50 + margin)
            core = tuple(
                slice(first - cut.start, first - cut.start + length)
                for first, cut, length in ((top, rows, 37), (left, columns, 50))
            )
            total += mba.count(
                label[rows, columns], prediction[rows, columns], radii, core=core
            )
    np.testing.assert_array_equal(total, whole)


def test_a_scene_of_one_class_has_no_score():
    label = np.full((20, 20), 2, np.uint8)
    assert math.isnan(mba.mean_accuracy(mba.count(label, label, (1, 2))))
