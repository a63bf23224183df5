"""The mean field of a dense CRF: against sums by hand, and at its limits."""

import numpy as np
import pytest

from uhrjax import dense_crf
from uhrjax.errors import InputError

SETTINGS = dense_crf.Settings(steps=3, reach=4.0, colour=20.0, weight=2.0)


def draw(height=9, width=7, classes=3):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (height, width, 3), np.uint8)
    image[:, width // 2 :] += 90
    likely = rng.dirichlet(np.ones(classes), (height, width)).astype(np.float32)
    return image, likely


def by_hand(image, likely, settings):
    """The same, px by px in float64."""
    height, width, classes = likely.shape
    places = np.stack(np.indices((height, width)), -1).reshape(-1, 2)
    colours = image.reshape(-1, 3).astype(float)
    kernel = np.zeros((len(places), len(places)))
    for i, j in np.ndindex(*kernel.shape):
        near = ((places[i] - places[j]) ** 2).sum() / settings.reach**2
        alike = ((colours[i] - colours[j]) ** 2).sum() / settings.colour**2
        kernel[i, j] = np.exp(-(near + alike) / 2)
    norm = 1 / np.sqrt(kernel.sum(1))
    kernel *= norm[:, None] * norm
    given = np.log(likely.reshape(-1, classes).astype(float))
    belief = np.exp(given)
    for _ in range(settings.steps):
        votes = np.exp(given + settings.weight * kernel @ belief)
        belief = votes / votes.sum(1, keepdims=True)
    return belief.reshape(likely.shape)


def test_the_mean_field_is_the_sum_over_all_pairs():
    image, likely = draw()
    found = dense_crf.refine(image, likely, "exact", SETTINGS)
    np.testing.assert_allclose(found, by_hand(image, likely, SETTINGS), atol=1e-5)


def test_px_that_look_alike_agree_and_others_do_not_mix():
    image = np.zeros((12, 12, 3), np.uint8)
    image[:, 6:] = 255
    likely = np.full((12, 12, 2), 0.5, np.float32)
    likely[:, :6] = 0.6, 0.4
    likely[:, 6:] = 0.4, 0.6
    likely[3, 3] = 0.45, 0.55  # mistakes
    likely[8, 9] = 0.55, 0.45
    found = dense_crf.refine(image, likely, "exact").argmax(-1)
    assert (found[:, :6] == 0).all() and (found[:, 6:] == 1).all()


def test_an_image_of_too_many_pairs_is_refused(monkeypatch):
    monkeypatch.setattr(dense_crf, "EXACT_PIXELS", 62)
    with pytest.raises(InputError, match=r"9 x 7 px are too many pairs.*up to 62 px"):
        dense_crf.refine(*draw(), "exact")


def test_without_the_package_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydensecrf", None)
    with pytest.raises(InputError, match=r"pip install 'uhrjax\[crf\]'"):
        dense_crf.refine(*draw(), "lattice")
