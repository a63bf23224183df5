"""Certainty, and the k best pixels of a map of blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import points, resize


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_certainty_is_the_largest_minus_the_second_largest(classes):
    p = np.random.default_rng(0).dirichlet(np.ones(classes), (9, 11))
    p[0] = 1 / classes
    two = np.sort(p, axis=-1)[..., -2:]
    np.testing.assert_allclose(
        points.certainty(jnp.asarray(p, jnp.float32)), two[..., 1] - two[..., 0],
        atol=1e-6,
    )  # fmt: skip


def slow_choice(score, size, k):
    """Stable sorting of the enlarged score."""
    large = resize.nearest(jnp.asarray(score)[None], size)[0]
    order = np.argsort(-np.asarray(large).ravel(), kind="stable")[:k]
    mask = np.zeros(size[0] * size[1], bool)
    mask[order] = True
    return mask.reshape(size)


@pytest.mark.parametrize(
    ("cells", "size"), [((7, 5), (31, 23)), ((8, 8), (8, 8)), ((9, 12), (7, 5))]
)
@pytest.mark.parametrize("levels", [2, 4, 1000])
def test_as_many_pixels_are_chosen_as_asked_and_ties_in_reading_order(
    cells, size, levels
):
    rng = np.random.default_rng(levels)
    score = (rng.integers(0, levels, cells) / levels).astype(np.float32)
    score[0, 0] = -0.0
    whole = tuple(map(jnp.arange, size))
    total = size[0] * size[1]
    for k in (1, 2, total // 3, total // 2 + 1, total - 1, total):
        choice = points.choose(jnp.asarray(score), size, k)
        found = points.chosen(choice, *whole, size)
        np.testing.assert_array_equal(found, slow_choice(score, size, k), err_msg=k)


def test_any_window_of_the_choice_can_be_asked_for():
    size = (31, 23)
    score = jnp.asarray(np.random.default_rng(0).integers(0, 3, (7, 5)), jnp.float32)
    choice = points.choose(score, size, 300)
    whole = points.chosen(choice, *map(jnp.arange, size), size)
    window = jax.jit(
        lambda top: points.chosen(choice, top + jnp.arange(9), jnp.arange(4, 20), size)
    )
    for top in (0, 5, 22):
        np.testing.assert_array_equal(window(top), whole[top : top + 9, 4:20])


@pytest.mark.parametrize("k", [0, 13])
def test_an_impossible_number_is_refused(k):
    with pytest.raises(ValueError, match=f"cannot choose {k} of 3 x 4 px"):
        points.choose(jnp.zeros((2, 2)), (3, 4), k)
