"""Exact selection without sorting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import select


@pytest.mark.parametrize("k", [1, 2, 500, 999, 1000])
def test_kth_smallest_equals_sorting(k):
    rng = np.random.default_rng(k)
    x = np.concatenate(
        [rng.normal(size=(3, 900)), np.zeros((3, 50)), -np.zeros((3, 50))], axis=1
    ).astype(np.float32)
    x[:, :4] = [np.inf, -np.inf, 1e-42, -1e38]
    np.testing.assert_array_equal(
        select.kth_smallest(jnp.asarray(x), k), np.sort(x, axis=1)[:, k - 1]
    )
    np.testing.assert_array_equal(
        select.kth_largest(jnp.asarray(x), k), np.sort(x, axis=1)[:, -k]
    )


def test_kth_smallest_passes_no_gradient():
    gradient = jax.grad(lambda x: select.kth_smallest(x, 2))(jnp.array([3.0, 1.0, 2.0]))
    assert gradient.tolist() == [0, 0, 0]


@pytest.mark.parametrize("k", [0, 4])
def test_kth_smallest_of_an_impossible_rank_is_refused(k):
    with pytest.raises(ValueError, match="outside 1"):
        select.kth_smallest(jnp.zeros(3), k)


def test_top_index_prefers_lower_positions_and_stops_at_the_map():
    scores = jnp.array([[[1.0, 5.0], [5.0, 0.0]]])
    assert select.top_index(scores, 2).tolist() == [[1, 2]]
    assert select.top_index(scores, 9).shape == (1, 4)


def test_last_occurrence_marks_one_of_equal_positions():
    index = jnp.array([[4, 4, 0, 4], [1, 2, 3, 0]])
    assert select.last_occurrence(index, size=5).tolist() == [
        [False, False, True, True],
        [True, True, True, True],
    ]
