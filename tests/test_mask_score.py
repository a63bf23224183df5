import numpy as np

from uhrjax import mask_score
from uhrjax.methods import cascadepsp


def test_iou_leaves_out_ignored_pixels():
    binary = np.array([[1, 1, 0, 255], [1, 0, 255, 255]], np.uint8)
    ours = np.array([[1, 0, 1, 1], [1, 0, 0, 1]], np.uint8)
    assert mask_score.iou(ours, binary) == 2 / 4
    assert mask_score.iou((binary == 1).astype(np.uint8), binary) == 1


def test_summary_is_the_mean_over_masks_and_nan_without_any():
    found = mask_score.MaskEvaluation(
        before=np.array([1.2, 0.0, 0.0]), after=np.array([1.4, 0.0, 0.9]),
        masks=np.array([2, 0, 1]), examples={},
    )  # fmt: skip
    scores = found.summary(None)
    np.testing.assert_allclose(
        [scores["miou_before"], scores["miou"]], [1.2 / 3, 2.3 / 3]
    )
    by_class = found.by_class(("a", "b", "c"))
    assert by_class["a"]["iou"] == 0.7 and np.isnan(by_class["b"]["iou"])
    empty = mask_score.MaskEvaluation(*np.zeros((2, 3)), np.zeros(3, int), {})
    assert np.isnan(empty.summary(None)["miou"])


def test_a_worse_mask_keeps_ignored_pixels_out_of_the_truth():
    label = np.repeat(np.array([[1, 1, 2, 255]], np.uint8), 8, axis=0).repeat(4, 1)
    method = cascadepsp.CascadePSPMethod
    made = method.worse_mask(None, label, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(made["binary"] == 255, label == 255)
    np.testing.assert_array_equal(made["binary"] == 1, label == 1)
    assert set(np.unique(made["coarse"])) <= {0, 1}
    again = method.worse_mask(None, label, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(made["coarse"], again["coarse"])
