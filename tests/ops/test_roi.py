"""RoI align against a loop over samples, and behind a resize."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import resize, roi


def slow_align(x, box, size, *, aligned=False):
    """The definition, one sample after the other."""
    shift = 0.5 if aligned else 0.0
    sides = [box[2] - box[0], box[3] - box[1]]
    if not aligned:
        sides = [max(side, 1.0) for side in sides]
    grid = [max(1, math.ceil(s / o)) for s, o in zip(sides, size, strict=True)]
    out = np.zeros((*size, x.shape[2]))
    for i, j in itertools.product(*map(range, size)):
        for a, b in itertools.product(*map(range, grid)):
            y = box[0] - shift + (i + (a + 0.5) / grid[0]) * sides[0] / size[0]
            z = box[1] - shift + (j + (b + 0.5) / grid[1]) * sides[1] / size[1]
            out[i, j] += read(x, y, z) / (grid[0] * grid[1])
    return out


def read(x, y, z):
    height, width, _ = x.shape
    if not (-1 <= y <= height and -1 <= z <= width):
        return 0.0
    y, z = np.clip(y, 0, height - 1), np.clip(z, 0, width - 1)
    top, left = int(y), int(z)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    a, b = y - top, z - left
    upper = x[top, left] * (1 - b) + x[top, right] * b
    lower = x[bottom, left] * (1 - b) + x[bottom, right] * b
    return upper * (1 - a) + lower * a


def random_map(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("aligned", [False, True])
def test_boxes_that_may_be_traced_equal_the_definition(aligned):
    x = random_map(4, 11, 13, 3)
    boxes = np.array(
        [[0, 0, 11, 13], [2.3, 4.1, 7.9, 12.2], [-3, 8, 4, 16], [5, 5, 5.2, 6]],
        np.float32,
    )
    samples = (2, 3)
    found = jax.jit(
        lambda b: roi.align(x, b, (6, 5), samples=samples, aligned=aligned)
    )(boxes)
    for k, box in enumerate(boxes):
        sides = (box[2] - box[0], box[3] - box[1])
        exact = tuple(map(roi.samples_per_px, np.maximum(sides, 0.5), (6, 5)))
        if exact != samples:  # the number of samples is the caller's
            again = roi.align(
                x[[k]], boxes[[k]], (6, 5), samples=exact, aligned=aligned
            )
            np.testing.assert_allclose(
                again[0], slow_align(x[k], box, (6, 5), aligned=aligned), atol=2e-6
            )
            continue
        np.testing.assert_allclose(
            found[k], slow_align(x[k], box, (6, 5), aligned=aligned), atol=2e-6
        )


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("before", [None, 11, 40])
def test_boxes_of_a_resized_map_need_no_resized_map(aligned, before):
    length, side, out, starts = 23, 9, 5, np.array([0, 7, 14])
    x = random_map(before or length, 12, 2)
    rows = roi.bands(
        starts, side, length=length, out=out, before=before, aligned=aligned
    )
    columns = roi.bands(np.array([1, 4]), 8, length=12, out=8, aligned=aligned)
    whole = resize.bilinear(x[None], (length, 12), align_corners=False)[0]
    cut = jax.jit(lambda at: roi.cut(x, rows, columns, at))
    for i, top in enumerate(starts):
        for j, left in enumerate((1, 4)):
            expected = slow_align(
                np.asarray(whole), (top, left, top + side, left + 8), (out, 8),
                aligned=aligned,
            )  # fmt: skip
            np.testing.assert_allclose(
                cut(jnp.array([i, j])), expected, atol=3e-6, err_msg=f"{top}, {left}"
            )


def test_a_box_of_the_outputs_size_is_itself_or_moved_by_half_a_pixel():
    x = random_map(1, 9, 9, 1)
    boxes = jnp.array([[2.0, 3, 6, 7]])
    same = roi.align(x, boxes, (4, 4), aligned=True)
    np.testing.assert_allclose(same[0], x[0, 2:6, 3:7], atol=1e-6)
    moved = roi.align(x, boxes, (4, 4))
    mean = (x[:, :-1] + x[:, 1:]) / 2
    mean = (mean[:, :, :-1] + mean[:, :, 1:]) / 2
    np.testing.assert_allclose(moved, mean[:, 2:6, 3:7], atol=1e-6)


def test_the_mean_over_boxes_is_a_matrix_product():
    x = random_map(20, 1, 1)
    starts = np.array([0, 6, 11])
    found = roi.mean_matrix(starts, 9, length=20, out=4) @ x[:, 0]
    for value, start in zip(found[:, 0], starts, strict=True):
        box = (start, 0, start + 9, 1)
        expected = slow_align(np.tile(x, (1, 2, 1)), box, (4, 1)).mean()
        assert value == pytest.approx(expected, abs=1e-6)
