"""Labels and probabilities averaged over cells, band by band."""

import numpy as np
import pytest

from uhrjax.data import prepared, shares
from uhrjax.tiling import window as windows


def make(pixels, *, classes, size):
    info = prepared.SceneInfo("a", *pixels.shape[:2])
    return shares.make(
        lambda window: windows.cut(pixels, window, fill=0), info, classes=classes,
        height=size[0], width=size[1],
    )  # fmt: skip


def by_hand(votes, size):
    """Means over cells, px by px."""
    found = np.zeros((*size, votes.shape[2]))
    for i, j in np.ndindex(*size):
        (top, bottom), (left, right) = (
            (k * n // m, -(-(k + 1) * n // m))
            for k, n, m in zip((i, j), votes.shape, size, strict=False)
        )
        total = votes[top:bottom, left:right].sum((0, 1))
        found[i, j] = total / total.sum() if total.any() else 1 / votes.shape[2]
    return found


@pytest.mark.parametrize("size", [(4, 5), (13, 9), (30, 2)])
@pytest.mark.parametrize("values", [1 << 24, 100])
def test_a_cell_has_the_shares_of_its_labels(size, values, monkeypatch):
    monkeypatch.setattr(shares, "BAND_VALUES", values)
    labels = np.random.default_rng(0).integers(0, 4, (13, 9, 1), np.uint8)
    labels[:7, :5] = 255
    votes = (labels == np.arange(4)).astype(float)
    found = make(labels, classes=4, size=size)
    np.testing.assert_allclose(found, by_hand(votes, size), atol=1e-6)
    assert found.dtype == np.float32


def test_a_cell_has_the_mean_of_its_probabilities():
    likely = np.random.default_rng(0).dirichlet(np.ones(3), (10, 8)).astype(np.float32)
    likely[:3] = np.nan
    found = make(likely, classes=3, size=(5, 4))
    np.testing.assert_allclose(found, by_hand(np.nan_to_num(likely), (5, 4)), atol=1e-6)
    np.testing.assert_allclose(found[0], 1 / 3)  # nothing is known there
