import cv2
import numpy as np
import pytest

from uhrjax import errors
from uhrjax.data import augment


def sample(side=8, views=1):
    label = np.arange(side * side, dtype=np.uint8).reshape(side, side) % 200
    image = np.stack([label] * 3, -1)
    return {"views": np.stack([image] * views), "label": label, "scene_id": "a"}


def test_nothing_switched_on_changes_nothing():
    before = sample()
    after = augment.Augment(tile=8)(before, np.random.default_rng(0))
    np.testing.assert_array_equal(after["views"], before["views"])
    np.testing.assert_array_equal(after["label"], before["label"])
    assert after["scene_id"] == "a"


@pytest.mark.parametrize("views", [1, 3])
def test_flips_and_turns_move_all_views_and_the_label_together(views):
    change = augment.Augment(tile=8, hflip=0.5, vflip=0.5, rotate90=True)
    seen = set()
    for seed in range(40):
        after = change(sample(views=views), np.random.default_rng(seed))
        for view in after["views"]:
            np.testing.assert_array_equal(view[..., 0], after["label"])
        seen.add(after["label"].tobytes())
    assert len(seen) == 8  # all symmetries of the square


def test_same_generator_gives_the_same_sample():
    change = augment.Augment(tile=6, scale=(0.5, 2.0), hflip=0.5, blur=(0.15, 1.3))
    one, two = (change(sample(), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(one["views"], two["views"])


@pytest.mark.parametrize("side", [1, 5, 6, 7, 30])
def test_scaled_crop_has_the_tile_size_and_pads_with_ignore(side):
    change = augment.Augment(tile=6, scale=(0.5, 0.5))
    after = change(sample(side), np.random.default_rng(0))
    assert after["views"].shape == (1, 6, 6, 3) and after["label"].shape == (6, 6)
    if side // 2 < 6:
        padded = after["label"] == 255
        assert padded.any() and (after["views"][0][padded] == 0).all()


def test_blur_is_truncated_not_rounded():
    flat = np.full((1, 8, 8, 3), 100, np.uint8)
    flat[:, :, 4:] = 101
    change = augment.Augment(tile=8, blur=(1.0, 1.0))
    after = change(
        {"views": flat, "label": np.zeros((8, 8), np.uint8)}, np.random.default_rng(0)
    )
    assert after["views"][0, 0, 4, 0] == 100  # between 100 and 101


@pytest.mark.parametrize("side", [1, 5, 63, 64, 65, 130])
@pytest.mark.parametrize("sigma", [0.15, 0.4, 1.3, 6.0])
def test_blur_in_strips_equals_the_blur_of_the_whole(side, sigma):
    view = np.random.default_rng(side).integers(0, 256, (side, 50, 3), np.uint8)
    view[:, 20:] = 101  # flat: its sums lie next to a whole number
    whole = cv2.GaussianBlur(view.astype(np.float32), (0, 0), sigma)
    expected = np.clip(whole, 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(augment._blur(view, sigma), expected)
    np.testing.assert_array_equal(augment._blur(view, sigma, in_place=True), expected)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_sample_that_came_in_stays_as_it_was(flip):
    before = sample(views=2)
    change = augment.Augment(tile=8, hflip=flip, blur=(1.0, 1.0))
    change(before, np.random.default_rng(0))
    np.testing.assert_array_equal(before["views"], sample(views=2)["views"])


def test_other_size_is_resized_to_the_tile():
    after = augment.Augment(tile=5)(sample(8), np.random.default_rng(0))
    assert after["views"].shape == (1, 5, 5, 3) and after["label"].shape == (5, 5)
    assert set(np.unique(after["label"])) <= set(np.unique(sample(8)["label"]))


def test_scaling_several_views_says_why_not():
    with pytest.raises(errors.InputError, match="one view"):
        augment.Augment(tile=8, scale=(0.5, 2.0))(
            sample(views=2), np.random.default_rng(0)
        )


def test_overview_coarse_and_place_follow_the_turn_of_the_whole_scene():
    scene = np.random.default_rng(0).integers(0, 200, (16, 16), np.uint8)
    given = {
        "views": np.stack([scene[2:10, 5:13]] * 3, -1)[None],
        "label": scene[2:10, 5:13],
        "overview": np.stack([scene] * 3, -1),
        "coarse": scene[2:10, 5:13],
        "position": np.array([2, 5], np.int32),
        "scene_size": np.array([16, 16], np.int32),
    }
    change = augment.Augment(tile=8, hflip=0.5, vflip=0.5, rotate90=0.5)
    places = set()
    for seed in range(60):
        after = change(given, np.random.default_rng(seed))
        top, left = after["position"].tolist()
        whole = after["overview"][..., 0]
        np.testing.assert_array_equal(
            whole[top : top + 8, left : left + 8], after["label"]
        )
        np.testing.assert_array_equal(after["coarse"], after["label"])
        places.add((top, left))
    assert len(places) == 8


def test_all_patches_of_a_scene_change_alike_by_generators_of_one_seed():
    change = augment.Augment(
        tile=8, hflip=0.5, vflip=0.5, rotate90=True, blur=(0.1, 1.0)
    )
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (1, 8, 8, 3), np.uint8)
    one = {"views": image, "label": image[0, ..., 0]}
    two = {"views": np.repeat(image, 3, 0), "label": image[0, ..., 1]}
    for seed in range(10):
        first, second = (change(s, np.random.default_rng(seed)) for s in (one, two))
        np.testing.assert_array_equal(first["views"][0], second["views"][2])


@pytest.mark.parametrize(("rotate", "share"), [(0.0, 0.0), (0.5, 0.5), (True, 0.75)])
def test_the_probability_of_a_turn_is_the_one_asked_for(rotate, share):
    change, rng = augment.Augment(tile=8, rotate90=rotate), np.random.default_rng(0)
    turns = np.bincount([change.draw_turn(rng).turns for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(turns[1:] / 4000, share / 3, atol=0.02)


def test_scaling_with_an_overview_says_why_not():
    given = {**sample(), "overview": np.zeros((4, 4, 3), np.uint8)}
    with pytest.raises(errors.InputError, match="without overview"):
        augment.Augment(tile=8, scale=(0.5, 2.0))(given, np.random.default_rng(0))


def test_turns_of_patches_that_are_not_square_say_what_to_set():
    with pytest.raises(errors.InputError, match="rotate90"):
        augment.Augment(tile=(4, 8), rotate90=True)
    after = augment.Augment(tile=(4, 8), hflip=1.0)(
        {
            "views": np.zeros((1, 4, 8, 3), np.uint8),
            "label": np.zeros((4, 8), np.uint8),
        },
        np.random.default_rng(0),
    )
    assert after["views"].shape == (1, 4, 8, 3)


def test_colours_change_alike_in_all_views_and_never_in_labels():
    scene = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    given = {
        "views": np.stack([scene] * 2),
        "label": scene[..., 0],
        "coarse": scene[..., 1],
        "overview": scene,
    }
    change = augment.Augment(tile=8, jitter=(0.3, 0.3, 0.3), greyscale=0.5)
    greys = 0
    for seed in range(30):
        after = change(given, np.random.default_rng(seed))
        np.testing.assert_array_equal(after["label"], given["label"])
        np.testing.assert_array_equal(after["coarse"], given["coarse"])
        for image in (*after["views"], after["overview"]):
            assert image.dtype == np.uint8 and (image != scene).any()
            np.testing.assert_array_equal(image, after["views"][0])
        first = after["views"][0]
        greys += bool((first[..., 0] == first[..., 1]).all())
    assert 5 < greys < 25


def test_each_strength_of_the_jitter_does_what_its_name_says():
    image = np.array([[[60, 120, 180], [127, 127, 127]]], np.uint8)

    def drawn(jitter, draw):
        rng = np.random.default_rng(0)
        low_high = np.array(draw)
        rng = type("Fixed", (), {"uniform": lambda *_: low_high})()
        return augment.Augment(tile=1, jitter=jitter).draw_colours(rng)

    bright = cv2.transform(image, drawn((0.5, 0, 0), [1, 1, 1]))
    np.testing.assert_array_equal(bright[0, 0], [90, 180, 255])
    flat = cv2.transform(image, drawn((0, 0.5, 0), [1, -1, 1]))
    np.testing.assert_array_equal(flat[0], [[94, 124, 154], [127, 127, 127]])
    pale = cv2.transform(image, drawn((0, 0, 1.0), [1, 1, -1]))
    grey = round(0.299 * 60 + 0.587 * 120 + 0.114 * 180)
    np.testing.assert_array_equal(pale[0], [[grey] * 3, [127] * 3])


def test_no_colours_leave_the_other_draws_as_they_were():
    plain = {"hflip": 0.5, "vflip": 0.5, "rotate90": True}
    one = augment.Augment(tile=8, **plain)(sample(), np.random.default_rng(4))
    two = augment.Augment(tile=8, **plain, jitter=(0.2, 0, 0))(
        sample(), np.random.default_rng(4)
    )
    np.testing.assert_array_equal(one["label"], two["label"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jitter": (0.1, 0.2)}, "brightness, contrast and saturation"),
        ({"jitter": (0.1, 0.2, 2.0)}, "each 0 to 1"),
        ({"greyscale": 1.5}, "no probability"),
    ],
)
def test_colours_that_make_no_sense_say_what_to_use(given, said):
    with pytest.raises(errors.InputError, match=said):
        augment.Augment(tile=8, **given)
