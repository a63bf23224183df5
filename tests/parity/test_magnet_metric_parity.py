"""Confusion, IoU with weights and mean boundary accuracy against the published."""

import numpy as np
import pytest

from uhrjax import boundary_accuracy, metrics


def test_counts_and_means_equal_the_published(load_case):
    manifest, _, arrays = load_case("magnet_iou")
    label = np.where(arrays["label"] == manifest["ignore"], 255, arrays["label"])
    counts = metrics.confusion(label, arrays["pred"], manifest["num_classes"])
    np.testing.assert_array_equal(counts, arrays["confusion"])
    every = metrics.scores(counts, absent_as_zero=True)
    some = metrics.scores(counts, leave_out=(0,), absent_as_zero=True)
    weighted = [
        metrics.frequency_weighted_iou(counts, leave_out=left) for left in ((), (0,))
    ]
    for name, found in (
        ("iou", np.nan_to_num(every.iou)),
        ("mean_all", every.miou),
        ("mean_without_class0", some.miou),
        ("freq_all", weighted[0]),
        ("freq_without_class0", weighted[1]),
    ):
        np.testing.assert_allclose(
            found, arrays[name], rtol=manifest["rtol"], err_msg=name
        )


def test_boundary_accuracy_equals_the_published(load_case):
    manifest, _, arrays = load_case("magnet_mba")
    label = arrays["gt"]
    radii = boundary_accuracy.radii(*label.shape)
    np.testing.assert_array_equal(radii, arrays["radii"])
    counts = boundary_accuracy.count(
        label, arrays["pred"], radii, void=(manifest["void"],)
    )
    found = boundary_accuracy.mean_accuracy(counts)
    assert found == pytest.approx(arrays["multi_class"], abs=manifest["atol"])
    counts = boundary_accuracy.count(
        arrays["gt_binary"], arrays["pred_binary"], radii, void=()
    )
    found = boundary_accuracy.mean_accuracy(counts)
    assert found == pytest.approx(arrays["binary"], abs=manifest["atol"])


@pytest.mark.parametrize("radius", range(1, 9))
def test_disks_equal_the_published(radius, load_case):
    _, _, arrays = load_case("magnet_mba")
    np.testing.assert_array_equal(
        boundary_accuracy.disk(radius), arrays[f"disk_{radius}"]
    )
