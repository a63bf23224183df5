"""Training at many places of scenes that stay on the devices: which, when, where."""

import itertools

import jax
import numpy as np
import pytest
from tiny_run import foveation_flags

import uhrjax
from uhrjax import config as config_lib
from uhrjax import errors, feed, resident, sharding, sources, update
from uhrjax.tiling import location


def scheme(**changes):
    given = {
        "scenes": 7, "together": 3, "per_step": 2, "per_iteration": 8, "repeats": 2,
        "seed": 5,
    }  # fmt: skip
    return resident.Scheme(**given | changes)


@pytest.mark.parametrize(
    ("variant", "images", "total"),
    [("gleason2019", 238, 95_200), ("cityscapes", 2975, 595_200),
     ("deepglobe", 455, 410_400)],
)  # fmt: skip
def test_the_recipes_visit_as_many_locations_as_the_paper_says(variant, images, total):
    config = uhrjax.load_config(f"configs/foveation.py:{variant}")
    found = scheme(
        scenes=images,
        together=config.batch_size,
        **dict(config.locations.items()),
    )
    assert total == location.total_locations(
        epochs=config.epochs,
        iterations=found.iterations,
        per_iteration=found.per_iteration,
    )
    steps = feed.total_steps(config, found.epoch_steps)
    assert steps * found.per_step == total


def test_every_passage_shows_every_scene_in_another_order():
    found = scheme()
    assert found.iterations == 6 and found.epoch_steps == 24
    passages = [
        np.concatenate([found.chosen(number) for number in range(first, first + 3)])
        for first in range(0, 12, 3)
    ]
    for passage in passages:
        assert set(passage[:7]) == set(range(7))
        np.testing.assert_array_equal(passage[7:], passage[:2])  # filled up
    assert len({tuple(passage) for passage in passages}) == 4
    np.testing.assert_array_equal(found.chosen(8), scheme().chosen(8))
    assert any((found.chosen(k) != scheme(seed=6).chosen(k)).any() for k in range(3))


def test_fewer_scenes_than_train_together_are_shown_several_times():
    assert sorted(scheme(scenes=2, together=5).chosen(0).tolist()) in (
        [0, 0, 0, 1, 1],
        [0, 0, 1, 1, 1],
    )


def test_an_iteration_visits_no_location_twice():
    found = scheme()
    places = [found.places(number, (4, 5)) for number in range(12)]
    for each in places:
        assert each.shape == (4, 2, 2)
        assert len({tuple(place) for place in each.reshape(-1, 2)}) == 8
    assert len({each.tobytes() for each in places}) == 12


@pytest.fixture(scope="module")
def opened(squares, data_root):
    """Returns a config, its method and its data."""
    return open_with(squares, data_root)


def open_with(squares, data_root, *more):
    flags = foveation_flags(squares, data_root)
    config = config_lib.override(
        uhrjax.load_config("configs/foveation.py:folder,small"), [*flags, *more]
    )
    config_lib.check(config)
    data = sources.open_data(config)
    return config, uhrjax.build(config), data


def batches(opened, *, start=0, count=7, mesh=None):
    config, method, data = opened
    source = feed.open_feed(config, method, data, mesh or sharding.make_mesh())
    steps = itertools.islice(source.steps(start), count)
    return [next(micros) for micros in steps]


def test_batches_are_a_function_of_the_step(opened):
    whole = batches(opened)
    for start in (0, 1, 3, 5):  # also in the middle of an iteration
        for step, batch in enumerate(batches(opened, start=start, count=2), start):
            assert set(batch) == {"scene", "label", "locations", "progress"}
            for name, value in batch.items():
                np.testing.assert_array_equal(value, whole[step][name])
    progress = [float(batch["progress"][0]) for batch in whole[:6]]
    np.testing.assert_allclose(progress, np.arange(6) / 6, rtol=1e-6)


def test_scenes_go_to_the_devices_once_per_iteration(opened):
    found = batches(opened)
    assert [batch["locations"].shape for batch in found] == [(1, 2, 2)] * 7
    kept = [batch["scene"] is before["scene"] for before, batch in
            itertools.pairwise(found)]  # fmt: skip
    assert kept == [True, True, False, True, True, False]
    scene, label = found[0]["scene"], found[0]["label"]
    assert isinstance(scene, jax.Array) and scene.dtype == label.dtype == np.uint8
    assert scene.shape == (4, 64, 96, 3) and label.shape == (4, 64, 96)
    placed = sharding.put_batch(found[0], sharding.make_mesh())
    assert placed["scene"] is scene
    assert feed.count_samples(found[0]) == 8


def test_scenes_are_flipped_with_their_labels(opened, squares, data_root):
    import cv2

    names = [squares / "train" / "images" / f"train{i}.png" for i in range(4)]
    images = [cv2.imread(str(name))[..., ::-1] for name in names]
    masks = [
        cv2.imread(str(squares / "train" / "masks" / f"train{i}.png"), -1)
        for i in range(4)
    ]
    flipped = []
    for batch in batches(opened, count=10)[::3]:
        for scene, label in zip(*map(np.asarray, (batch["scene"], batch["label"])),
                                strict=True):  # fmt: skip
            plain = [np.array_equal(scene, image) for image in images]
            turned = [np.array_equal(scene, image[:, ::-1]) for image in images]
            (which,) = np.flatnonzero(np.logical_or(plain, turned))
            mask = masks[which][:, ::-1] if turned[which] else masks[which]
            np.testing.assert_array_equal(label, mask)
            flipped.append(turned[which])
    assert 3 < sum(flipped) < 13
    still = open_with(squares, data_root, "--config.data.augment.hflip=0")
    for scene in np.asarray(batches(still, count=1)[0]["scene"]):
        assert any(np.array_equal(scene, image) for image in images)


def test_scenes_of_different_size_are_refused_with_two_of_them(squares, data_root):
    odd = open_with(squares, data_root, "--config.data.train_split=val")
    with pytest.raises(errors.InputError, match=r"must have one size: val0.*val1 33 x"):
        batches(odd)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "locations.per_iteration=200",
            "64 x 96 px have 8 x 12 locations at model.sca",
        ),
        ("locations.per_iteration=5", "use a multiple of locations.per_step = 2"),
        ("locations.per_step=0", "use 1 or more"),
        ("locations.repeats=0", "use 1 or more"),
        ("data.unit=patches", "trains on whole scenes, use 'resident'"),
        ("data.layout=patches", "whole scenes are trained on; use 'scenes'"),
        ("data.augment.scale=(0.5,2.0)", "whole scenes are trained on"),
        ("data.augment.rotate90=0.5", "patches that are not square"),
        ("eval.protocol=crops", "whole scenes are labelled; use 'scene'"),
        ("eval.aggregation=mean", "use one of sum, max_score"),
        ("eval.rate=-1", "use 0 .the model's scale. or more"),
        ("accumulate=2", "are not divided; use 1"),
    ],
)
def test_what_cannot_be_trained_on_is_told(squares, data_root, flag, message):
    with pytest.raises(errors.InputError, match=message):
        batches(open_with(squares, data_root, f"--config.{flag}"))


def test_other_methods_do_not_train_on_resident_scenes():
    config = uhrjax.load_config("configs/pfnet.py:synthetic")
    config.data.unit = "resident"  # which no other recipe has the keys of
    with pytest.raises(
        errors.InputError, match=r"data\.unit='resident' .*foveation\.py"
    ):
        config_lib.check(config)
    with pytest.raises(errors.InputError, match="it trains on patches, use 'patches'"):
        feed.open_feed(config, uhrjax.build(config), None, sharding.make_mesh())


class FourDevices:
    shape = {"data": 4, "space": 1}  # noqa: RUF012


def test_scenes_that_devices_cannot_share_are_refused(squares, data_root):
    odd = open_with(squares, data_root, "--config.batch_size=2")
    with pytest.raises(errors.InputError, match="batch_size 2 cannot be split over 4"):
        batches(odd, mesh=FourDevices())


def test_a_process_reads_its_share_of_the_scenes(opened, monkeypatch):
    whole = batches(opened, count=1)[0]
    for index in (0, 1):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        monkeypatch.setattr(sharding, "put_batch", lambda batch, mesh: batch)
        part = batches(opened, count=1)[0]
        for name in ("scene", "label"):
            np.testing.assert_array_equal(
                part[name], np.asarray(whole[name])[2 * index : 2 * index + 2]
            )
        np.testing.assert_array_equal(part["locations"], whole["locations"])
        monkeypatch.undo()


def test_update_is_one_program_a_step(opened):
    config, method, _ = opened
    assert not update.Update(method, None, config, sharding.make_mesh())._several
