import json
import math
import pathlib

import numpy as np
import pytest

from uhrjax import metrics

DATA = pathlib.Path(__file__).parent / "parity" / "data"


def f_of(label, prediction, num_classes, tolerances):
    radii = tuple(metrics.tolerance_px(t, *label.shape) for t in tolerances)
    counts = metrics.boundary_counts(label, prediction, num_classes, radii)
    return metrics.boundary_f(counts)


def test_scores_and_boundary_f_equal_the_parity_case():
    arrays = np.load(DATA / "f_boundary.npz")
    expected = json.loads((DATA / "f_boundary.json").read_text())["expected"]
    counts = sum(
        metrics.confusion(a, b, 5)
        for a, b in zip(arrays["gt"], arrays["pred"], strict=True)
    )
    found = metrics.scores(counts)
    np.testing.assert_array_equal(counts, arrays["hist"])
    np.testing.assert_allclose(found.iou, arrays["iou"], rtol=1e-9)
    np.testing.assert_allclose(found.f1, arrays["f1"], rtol=1e-9)
    np.testing.assert_allclose(found.miou, expected["miou"], rtol=1e-9)
    np.testing.assert_allclose(found.mean_f1, expected["mean_f1"], rtol=1e-9)
    np.testing.assert_allclose(found.accuracy, expected["pixel_acc"], rtol=1e-9)
    names = [name for name in expected if name[0].isdigit()]
    tolerances = tuple(float(name) for name in names)
    f = np.stack(
        [
            f_of(a, b, 5, tolerances)
            for a, b in zip(arrays["gt"], arrays["pred"], strict=True)
        ]
    )
    for t, name in enumerate(names):
        np.testing.assert_allclose(
            f[:, :, t], arrays[f"f_per_image_class_{name}"], rtol=1e-9
        )
        np.testing.assert_allclose(f[:, :, t].mean(0).mean(), expected[name], rtol=1e-9)


def test_boundary_map_equals_the_parity_case():
    arrays = np.load(DATA / "f_boundary.npz")
    mask = (arrays["gt"][0] == 0) & (arrays["gt"][0] != 255)
    np.testing.assert_array_equal(
        metrics.boundary_map(mask), arrays["bmap_gt0_class0"].astype(bool)
    )


def test_boundary_counts_of_windows_with_a_margin_add_up_to_the_scene():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, (13, 11)).repeat(5, 0).repeat(5, 1).astype(np.uint8)
    ours = np.roll(label, 2, axis=1)
    radii, margin, side = (1.0, 3.0), 4, 20
    whole = metrics.boundary_counts(label, ours, 2, radii)
    total = np.zeros_like(whole)
    for top in range(0, label.shape[0], side):
        for left in range(0, label.shape[1], side):
            y, x = max(top - margin, 0), max(left - margin, 0)
            around = np.s_[y : top + side + margin, x : left + side + margin]
            core = (
                slice(top - y, top - y + side),
                slice(left - x, left - x + side),
            )
            total += metrics.boundary_counts(
                label[around], ours[around], 2, radii, core
            )
    np.testing.assert_array_equal(total, whole)


def test_confusion_counts_by_hand_and_leaves_out_ignored_pixels():
    label = np.array([[0, 1, 1, 255, 7]], np.uint8)
    ours = np.array([[0, 1, 2, 0, 0]], np.uint8)
    expected = [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    counts = metrics.confusion(label, ours, 3)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)


def test_absent_class_is_in_no_mean_but_a_false_alarm_is():
    found = metrics.scores(np.array([[3, 0, 1], [0, 4, 0], [0, 0, 0]]))
    assert found.absent == ()
    assert found.iou[2] == 0 and found.miou == pytest.approx((0.75 + 1 + 0) / 3)
    found = metrics.scores(np.diag([3, 4, 0]))
    assert found.absent == (2,)
    assert math.isnan(found.iou[2]) and found.miou == 1.0


def test_means_can_leave_out_the_background():
    counts = np.array([[90, 10], [0, 10]])
    assert metrics.scores(counts, leave_out=(0,)).miou == pytest.approx(0.5)


def test_undefined_scores_can_count_as_0():
    counts = np.array([[5, 0, 5, 0], [0, 8, 2, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    found = metrics.scores(counts, leave_out=(0,), absent_as_zero=True)
    assert math.isnan(found.iou[3])
    assert found.miou == pytest.approx(0.8 / 3)
    assert found.mean_f1 == pytest.approx(2 * 8 / 18 / 3)
    assert found.accuracy == 13 / 20 and found.kept_accuracy == 8 / 10


def test_nothing_counted_scores_nan_not_an_error():
    found = metrics.scores(np.zeros((2, 2), np.int64))
    assert math.isnan(found.miou) and math.isnan(found.accuracy)


def test_majority_scores_answer_the_most_frequent_class():
    found = metrics.majority_scores(np.array([[2, 6], [1, 1]]))
    assert found.accuracy == pytest.approx(0.8)
    assert found.miou == pytest.approx(0.4)


@pytest.mark.parametrize(
    "label, ours, expected",
    [([[0, 0]], [[0, 0]], 1.0), ([[0, 1]], [[0, 0]], 0.0), ([[1]], [[1]], 1.0)],
)
def test_boundary_f_of_empty_boundaries(label, ours, expected):
    f = f_of(np.array(label, np.uint8), np.array(ours, np.uint8), 2, (3.0,))
    np.testing.assert_array_equal(f, expected)


def test_boundary_iou_is_that_of_bands_inside_the_masks():
    label = np.zeros((9, 9), np.uint8)
    label[2:7, 2:7] = 1  # a square of 25 px: 16 of them touch its outside
    ours = np.zeros_like(label)
    ours[2:7, 2:6] = 1  # one column less: 14 touch its outside, 11 of them the true one
    counts = metrics.boundary_counts(label, ours, 2, (1.0, 9.0))[1]
    np.testing.assert_array_equal(counts[:, 4:], [[11, 19], [20, 25]])
    np.testing.assert_allclose(metrics.boundary_iou(counts[:, 4:]), [11 / 19, 0.8])


def test_a_mask_without_outside_or_pixels_has_no_band():
    label = np.zeros((4, 4), np.uint8)
    label[0, 0] = 255
    full = np.zeros((4, 4), np.uint8)
    counts = metrics.boundary_counts(full, full, 2, (2.0,))
    assert not counts[..., 4:].any()
    assert np.isnan(metrics.boundary_iou(counts[..., 4:])).all()
    touching = metrics.boundary_counts(label, full, 1, (1.0,))
    assert touching[0, 0, 4:].tolist() == [
        2,
        2,
    ]  # beside the ignored pixel, which is in none


def test_foreground_points_counts_ignored_pixels_as_background():
    label = np.array([[0, 1], [255, 2]], np.uint8)
    points = np.array([[0.5, 0.5], [0.5, 1.5], [1.5, 0.5], [9.0, 9.0]])
    assert metrics.foreground_points(label, points, background=0) == (2, 4)
