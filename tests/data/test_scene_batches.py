"""Training scene by scene: every patch once, turned with its scene, step by step."""

import itertools

import numpy as np
import pytest

from data_builders import prepare
from uhrjax import errors
from uhrjax.data import augment, dataset, pipeline
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as window_lib

SIZES = [(24, 40), (16, 16), (9, 30), (24, 24), (31, 17)]
VIEWS = (view_lib.View(), view_lib.View(2, "pillow"))
GRID = {"tile": 16, "stride": 12, "spacing": "even"}
OVERVIEW = (8, 8)
TURN = augment.Augment(tile=16, hflip=0.5, rotate90=0.5)


@pytest.fixture(scope="module")
def prepared_root(tmp_path_factory):
    """Scenes whose labels are copies of the red channel; returns (root, name)."""
    import cv2

    root = tmp_path_factory.mktemp("by_scene")
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "raw" / kind).mkdir(parents=True)
    for index, size in enumerate(SIZES):
        image = rng.integers(0, 3, (*size, 3), np.uint8)
        cv2.imwrite(str(root / f"raw/images/s{index}.png"), image[..., ::-1])
        cv2.imwrite(str(root / f"raw/masks/s{index}.png"), image[..., 0])
    info = prepare.prepare(
        "folder",
        data_dir=root / "data",
        dir=root / "raw",
        train=[f"s{i}" for i in range(len(SIZES))],
        configs=("scenes", "patches_16_12_even_v1-p2", "overview_8x8"),
    )
    return root / "data", info.name


def open_data(prepared_root, *, patches=True):
    root, name = prepared_root
    return dataset.open_dataset(
        root, name, views=VIEWS, patches=patches, overview=OVERVIEW, **GRID
    )


def batches(data, count, *, transform=TURN, views=VIEWS, **changes):
    """Returns the first micro-batches of a training on all scenes, two a step."""
    given = {
        "transform": transform,
        "targets": lambda label, rng: {"noise": rng.random()},
        "scenes_per_step": 2,
        "sub_batch": 4,
        "seed": 7,
        "overviews": data.overviews("train"),
    }
    stream = pipeline.scene_batches(
        data.open_grid("train", views=views), **(given | changes)
    )
    taken = list(itertools.islice(stream, count))
    stream.close()
    return taken


def epoch_micros(data, sub_batch=4):
    grid = data.open_grid("train", views=VIEWS)
    return sum(-(-grid.count(i) // (sub_batch or 10**6)) for i in range(len(SIZES)))


def equal(one, two):
    assert one.keys() == two.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], two[key], err_msg=key)


def test_every_patch_of_every_scene_comes_once_an_epoch(prepared_root):
    data = open_data(prepared_root)
    grid = data.open_grid("train", views=VIEWS)
    for epoch in range(2):
        taken = batches(data, epoch_micros(data), start_step=3 * epoch)
        seen = [
            (scene_id, *position)
            for batch, _ in taken
            for scene_id, position, valid in zip(
                batch["scene_id"],
                batch["position"].tolist(),
                batch["valid"],
                strict=True,
            )
            if valid
        ]
        assert len(seen) == len(set(seen)) == sum(map(grid.count, range(len(SIZES))))
        assert sum(is_last for _, is_last in taken) == 3  # 5 scenes, 2 a step
        assert taken[-1][1]
        assert all(len(set(batch["scene_id"])) == 1 for batch, _ in taken)


def test_epochs_have_their_own_order_and_turns(prepared_root):
    data = open_data(prepared_root)
    count = epoch_micros(data)
    taken = batches(data, 6 * count)
    orders = {
        tuple(batch["scene_id"][0] for batch, _ in taken[e * count : (e + 1) * count])
        for e in range(6)
    }
    assert len(orders) > 1
    sizes = {tuple(b["scene_size"][0]) for b, _ in taken if b["scene_id"][0] == "s0"}
    assert sizes == {(24, 40), (40, 24)}


def test_stored_and_cut_patches_give_the_same_batches(prepared_root):
    stored = batches(open_data(prepared_root), 20)
    cut = batches(open_data(prepared_root, patches=False), 20)
    for (one, one_last), (two, two_last) in zip(stored, cut, strict=True):
        equal(one, two)
        assert one_last == two_last


@pytest.mark.parametrize("start", [1, 2, 3, 7])
@pytest.mark.parametrize("sub_batch", [0, 4])
def test_resuming_at_a_step_goes_on_exactly(prepared_root, start, sub_batch):
    data = open_data(prepared_root)
    whole = batches(data, 60, sub_batch=sub_batch)
    ends = [i for i, (_, is_last) in enumerate(whole) if is_last]
    first = ends[start - 1] + 1
    resumed = batches(data, 5, start_step=start, sub_batch=sub_batch, threads=1)
    for (one, _), (two, _) in zip(resumed, whole[first:], strict=False):
        equal(one, two)


def test_patches_lie_in_the_turned_scene_at_their_position(prepared_root):
    data = open_data(prepared_root)
    reader = data.open_scenes("train")
    index_of = {scene.id: i for i, scene in enumerate(reader.scenes)}
    turned = set()
    for batch, _ in batches(data, 40):
        scene = index_of[batch["scene_id"][0]]
        height, width = SIZES[scene]
        whole = reader.read_label(scene, window_lib.Window(0, 0, height, width))
        found = [
            candidate
            for candidate in symmetries(whole)
            if all(
                (window_lib.cut(candidate, at(p), fill=255) == label).all()
                for p, label, valid in zip(
                    batch["position"], batch["label"], batch["valid"], strict=True
                )
                if valid
            )
        ]
        assert found  # one turn for all patches of the micro-batch
        assert found[0].shape == tuple(batch["scene_size"][0])
        overview = data.overviews("train").read(batch["scene_id"][0])
        assert batch["overview"].shape == (1, *OVERVIEW, 3)
        assert any((batch["overview"][0] == o).all() for o in symmetries(overview))
        turned.add(batch["overview"].tobytes())
    assert len(turned) > len(SIZES)


def at(position):
    return window_lib.Window(*position.tolist(), 16, 16)


def symmetries(pixels):
    return [np.rot90(p, k) for p in (pixels, pixels[:, ::-1]) for k in range(4)]


def test_the_last_micro_batch_repeats_its_own_patches_unlabelled(prepared_root):
    data = open_data(prepared_root)
    padded = 0
    for batch, _ in batches(data, epoch_micros(data)):
        count = int(batch["valid"].sum())
        assert batch["valid"].tolist() == [True] * count + [False] * (4 - count)
        for i in range(count, 4):
            np.testing.assert_array_equal(batch["views"][i], batch["views"][i % count])
            assert (batch["label"][i] == 255).all()
            padded += 1
    assert padded


def test_a_scene_at_once_and_rounded_up_for_devices(prepared_root):
    data = open_data(prepared_root)
    grid = data.open_grid("train", views=VIEWS)
    counts = sorted(map(grid.count, range(len(SIZES))))
    whole = batches(data, len(SIZES), sub_batch=0)
    assert sorted(len(batch["valid"]) for batch, _ in whole) == counts
    for batch, _ in batches(data, 9, sub_batch=3, multiple=4):
        assert len(batch["valid"]) == 4 and batch["valid"].sum() <= 3


def test_processes_share_every_micro_batch_and_see_the_overview_whole(prepared_root):
    data = open_data(prepared_root)
    alone = batches(data, 12)
    shares = [batches(data, 12, process=(i, 2)) for i in range(2)]
    for (batch, is_last), *parts in zip(alone, *shares, strict=True):
        for i, (part, part_last) in enumerate(parts):
            assert part_last == is_last
            for key in part:
                own = slice(len(part[key]) * i, len(part[key]) * (i + 1))
                expected = batch[key] if key == "overview" else batch[key][own]
                np.testing.assert_array_equal(part[key], expected, err_msg=key)


def test_targets_get_a_generator_of_each_patch(prepared_root):
    noise = [n for b, _ in batches(open_data(prepared_root), 12) for n in b["noise"]]
    valid = [v for b, _ in batches(open_data(prepared_root), 12) for v in b["valid"]]
    drawn = [n for n, v in zip(noise, valid, strict=True) if v]
    assert len(set(drawn)) == len(drawn)


def test_a_stage_takes_some_of_the_stored_views(prepared_root):
    data = open_data(prepared_root)
    both, one, wide = (
        batches(data, 3, views=views) for views in (VIEWS, VIEWS[:1], VIEWS[1:])
    )
    for (a, _), (b, _), (c, _) in zip(both, one, wide, strict=True):
        np.testing.assert_array_equal(a["views"][:, :1], b["views"])
        np.testing.assert_array_equal(a["views"][:, 1:], c["views"])
    with pytest.raises(errors.InputError, match="stores no view 'p3'; it has: 1, p2"):
        data.open_grid("train", views=[view_lib.View(3, "pillow")])


def test_scaling_has_no_meaning_by_scene(prepared_root):
    scaled = augment.Augment(tile=16, scale=(0.5, 2.0))
    with pytest.raises(errors.InputError, match="together"):
        batches(open_data(prepared_root), 1, transform=scaled)


def test_an_incomplete_last_step_counts():
    assert pipeline.scene_steps(454, 6) == 76
    assert pipeline.scene_steps(126, 6) == 21


def test_samples_of_all_kinds_come_with_the_overview_of_their_scene(prepared_root):
    data = open_data(prepared_root)
    overviews = data.overviews("train")
    patches = data.open_patches("train", views=VIEWS[:1])
    windows = data.open_windows("train", views=VIEWS)
    drawn = (windows(2, np.random.default_rng(0)), patches[3])
    for sample in drawn:
        expected = overviews.read(sample["scene_id"])
        np.testing.assert_array_equal(sample["overview"], expected)
    stream = pipeline.train_batches(
        pipeline.patch_dataset(patches, 0), transform=TURN,
        targets=lambda label, rng: {"noise": rng.random()}, batch_size=3,
    )  # fmt: skip
    batch = next(stream)
    assert batch["overview"].shape == (3, *OVERVIEW, 3) and batch["noise"].std() > 0
    stream.close()


def test_overviews_are_samples_with_the_nearest_labels(prepared_root):
    data = open_data(prepared_root)
    source, reader = data.open_overviews("train"), data.open_scenes("train")
    assert len(source) == len(SIZES)
    for index, (height, width) in enumerate(SIZES):
        sample = source[index]
        whole = reader.read_label(index, window_lib.Window(0, 0, height, width))
        nearest = whole[np.arange(8) * height // 8][:, np.arange(8) * width // 8]
        np.testing.assert_array_equal(sample["label"], nearest)
        assert sample["views"].shape == (1, *OVERVIEW, 3)
        turned = augment.Augment(tile=8, hflip=1.0)(sample, np.random.default_rng(0))
        np.testing.assert_array_equal(turned["label"], nearest[:, ::-1])
        assert turned["position"].tolist() == [0, 0]


def test_a_run_without_overviews_has_none(prepared_root):
    root, name = prepared_root
    data = dataset.open_dataset(root, name, views=VIEWS, patches=True, **GRID)
    assert data.overviews("train") is None
    assert "overview" not in data.open_patches("train")[0]
    with pytest.raises(errors.InputError, match="asks for none"):
        data.open_overviews("train")


def test_all_missing_layouts_are_named_in_one_command(prepared_root):
    root, name = prepared_root
    with pytest.raises(FileNotFoundError, match="--configs=patches_16_8,overview_5x6"):
        dataset.open_dataset(
            root, name, tile=16, stride=8, views=(1,), patches=True, overview=(5, 6)
        )
