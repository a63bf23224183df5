"""CascadePSP over whole scenes, with a tiny network or a stand-in for it."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import cascade
from uhrjax.errors import InputError
from uhrjax.methods import cascadepsp
from uhrjax.ops import pool, resize
from uhrjax.tiling import window as window_lib

SIDE = 96


@pytest.fixture(scope="module")
def method():
    tiny = {"backbone": "resnet18", "width": 4, "fpn_dim": 16}
    return cascadepsp.CascadePSPMethod(
        ml_collections.ConfigDict(
            {
                "num_classes": 5,
                "tile": 64,
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "dtype": "float32",
                "remat": False,
                "model": tiny,
                "loss": {},
            }
        )
    )


@pytest.fixture(scope="module")
def variables(method):
    return method.init(jax.random.key(0))


@pytest.fixture
def echo(monkeypatch):
    """Replaces the network by its masks: it answers what it is given."""
    seen = []

    def whole(module, variables, images, mask):
        seen.append(("whole", images.shape))
        half = (np.asarray(mask)[..., 0] + 1) / 2
        return half, half

    def crops(module, variables, images, mask, mask_8):
        seen.append(("crops", images.shape))
        return (np.asarray(mask)[..., 0] + 1) / 2 * 0.9 + 0.05

    monkeypatch.setattr(cascade, "_see_whole", whole)
    monkeypatch.setattr(cascade, "_see_crops", crops)
    return seen


def scene(height, width, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    y, x = np.indices((height, width))
    label = ((y // 37 + x // 53) % 3).astype(np.uint8)
    return image, label


@pytest.mark.parametrize("size", [(150, 130), (97, 301)])
def test_a_scene_made_small_is_adaptive_average_pooling(size):
    image, _ = scene(*size)
    small = tuple(n * SIDE // max(size) for n in size)

    def read(window):
        assert window.top + window.height <= size[0]
        return window_lib.cut(image, window, fill=0)

    found = cascade._average(read, size, small)
    expected = pool.adaptive_average(jnp.asarray(image, jnp.float32)[None], small)[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_reading_a_scene_in_bands_changes_nothing(monkeypatch):
    image, _ = scene(150, 130)
    read = lambda window: window_lib.cut(image, window, fill=0)  # noqa: E731
    whole = cascade._average(read, (150, 130), (96, 83))
    monkeypatch.setattr(cascade, "BAND_PIXELS", 1000)
    np.testing.assert_array_equal(whole, cascade._average(read, (150, 130), (96, 83)))


@pytest.mark.parametrize("align_corners", [True, False])
def test_a_sampled_window_is_cut_from_the_resized_map(align_corners):
    small = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    whole = resize.bilinear(
        jnp.asarray(small)[None, ..., None], (40, 33), align_corners=align_corners
    )[0, ..., 0]
    window = window_lib.Window(11, 20, 17, 13)
    found = cascade._sample(small, window, (40, 33), align_corners=align_corners)
    np.testing.assert_allclose(found, whole[11:28, 20:33], atol=1e-6)


@pytest.mark.parametrize(
    ("length", "starts"),
    [(96, [0]), (50, [0]), (104, [0, 8]), (130, [0, 16, 32, 34]), (128, [0, 16, 32])],
)
def test_crops_start_in_steps_and_end_at_the_border(
    method, variables, echo, length, starts
):
    image, _ = scene(length, 96)
    refiner = cascade.Refiner(
        method, variables, lambda w: window_lib.cut(image, w, fill=0), (length, 96),
        side=SIDE,
    )  # fmt: skip
    assert refiner._starts(length) == starts


def test_both_sides_grow_where_one_is_no_multiple_of_8(method, variables):
    images = jnp.zeros((1, 64, 76, 3))
    seen = []

    class Spy:
        def apply(self, variables, images, *masks, train):
            seen.append(
                (images.shape[1:3], masks[0][0, -1, 0, 0], masks[0][0, 0, 0, 0])
            )
            return {"logits": masks[0]}

    found = cascade._apply(Spy(), variables, images, jnp.ones((1, 64, 76, 1)))
    assert seen == [((72, 80), -1.0, 1.0)]
    assert found["logits"].shape == (1, 64, 76)


@pytest.mark.parametrize("size", [(130, 104), (60, 300), (50, 40), (96, 96)])
def test_a_refined_mask_covers_scenes_of_any_size(method, variables, echo, size):
    image, label = scene(*size)
    mask = (label == 1).astype(np.float32)
    found = cascade.refine_mask(method, variables, image, mask, side=SIDE)
    assert found.shape == size and found.dtype == np.float32
    # The stand-in answers 0.05 and 0.95; crops that are nearly all one side keep 0, 1.
    assert np.isin(found.round(4), np.float32([0, 0.05, 0.95, 1])).all()
    assert ((found > 0.5) == (mask > 0.5)).mean() > 0.9
    crop = [shape for kind, shape in echo if kind == "crops"]
    assert set(crop) <= {(1, min(SIDE, size[0]), min(SIDE, size[1]), 3)}


def test_crops_on_one_side_of_a_mask_are_skipped(method, variables, echo):
    image, _ = scene(200, 200)
    mask = np.zeros((200, 200))
    mask[:8] = 1  # less than a tenth of any crop
    found = cascade.refine_mask(method, variables, image, mask, side=SIDE)
    assert [kind for kind, _ in echo] == ["whole"]
    assert set(np.unique(found)) == {0, 1}


def test_refining_needs_no_more_of_a_scene_than_bands_and_crops(
    method, variables, echo
):
    image, label = scene(300, 200)
    largest = 0

    def read(window):
        nonlocal largest
        inside = window_lib.intersect(window, height=300, width=200)
        assert inside == window
        largest = max(largest, window.height * window.width)
        return window_lib.cut(image, window, fill=0)

    rows = list(cascade.refine_label_rows(method, variables, read, label, side=SIDE))
    assert [top for top, _ in rows] == list(
        np.cumsum([0, *(len(part) for _, part in rows)])[:-1]
    )
    assert sum(len(part) for _, part in rows) == 300
    assert largest < 300 * 200 or cascade.BAND_PIXELS >= 300 * 200


def test_labels_take_the_surest_class_or_stay(method, variables, echo):
    image, label = scene(130, 104)
    label[100:, 50:] = 255
    read = lambda window: window_lib.cut(image, window, fill=0)  # noqa: E731
    found = cascade.refine_labels(method, variables, read, label, side=SIDE)
    assert found.dtype == np.uint8
    # The stand-in repeats what it is given: only outlines move, by the resampling.
    assert (found == label).mean() > 0.95
    np.testing.assert_array_equal(found == 255, label == 255)
    nothing = np.full((130, 104), 255, np.uint8)
    np.testing.assert_array_equal(
        cascade.refine_labels(method, variables, read, nothing, side=SIDE), nothing
    )


def test_probabilities_stand_for_the_masks_of_the_classes(method, variables, echo):
    image, label = scene(130, 104)
    read = lambda window: window_lib.cut(image, window, fill=0)  # noqa: E731
    likely = np.zeros((130, 104, 3), np.float32)
    likely[..., 2] = 1  # of class 2 everywhere, whatever the labels say
    found = cascade.refine_labels(
        method, variables, read, label, probabilities=likely, side=SIDE
    )
    assert (found == 2).all()


def test_batches_of_crops_and_bands_equal_crops_one_by_one(method, variables):
    image, label = scene(130, 104)
    mask = label == 1
    one, three = (
        cascade.refine_mask(method, variables, image, mask, side=SIDE, batch_size=size)
        for size in (1, 3)
    )
    np.testing.assert_allclose(one, three, atol=1e-4)
    scaled = (image / 255 - np.array(method.mean)) / np.array(method.std)
    floats = cascade.refine_mask(
        method, variables, scaled.astype(np.float32), mask, side=SIDE
    )
    assert (np.abs(floats - one) < 1e-3).mean() > 0.995


def test_crops_too_small_to_have_a_middle_say_what_to_use(method, variables):
    image, label = scene(70, 70)
    with pytest.raises(InputError, match=r"64 px.*use more than 64"):
        cascade.refine_mask(method, variables, image, label == 1, side=64)
