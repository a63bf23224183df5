"""Prepared scenes and patches: every pixel as in the source, few tiles decoded."""

import pickle
import threading

import cv2
import numpy as np
import pytest

from data_builders import layout, prepare
from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import view as view_lib
from uhrjax.tiling import window as windows

TILE = 16  # px, of stored tiles in these tests
SIZES = [(1, 1), (TILE - 1, 5), (TILE, TILE), (TILE + 1, 2 * TILE + 1), (53, 37)]
VIEWS = (1, 2, 3)


def write_folder(root):
    """Writes random scenes of 3 classes; returns {id: (image, label)}."""
    sources, rng = {}, np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for index, size in enumerate(SIZES):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        label = rng.integers(0, 3, size, np.uint8)
        sources[f"s{index}"] = (image, label)
        cv2.imwrite(str(root / "images" / f"s{index}.png"), image[..., ::-1])
        cv2.imwrite(str(root / "masks" / f"s{index}.png"), label)
    return sources


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Returns (root of prepared data, info, {id: (image, label)})."""
    root = tmp_path_factory.mktemp("awkward")
    sources = write_folder(root / "raw")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "STORED_TILE", TILE)
        info = prepare.prepare(
            "folder",
            data_dir=root / "data",
            dir=root / "raw",
            train=list(sources),
            tile=12,
            stride=7,
            views=VIEWS,
        )
    return root / "data", info, sources


def open_all(data):
    root, info, _ = data
    return scenes.open_scenes(prepared.locate(root, info.name, "scenes"), "train")


def open_patches(data):
    root, info, _ = data
    config = prepared.patches_config(tile=12, stride=7, views=VIEWS)
    return scenes.open_patches(prepared.locate(root, info.name, config), "train")


def test_any_window_of_any_scene_equals_its_source(data):
    reader, rng = open_all(data), np.random.default_rng(0)
    assert len(reader) == len(SIZES)
    for index, info in enumerate(reader.scenes):
        image, label = data[2][info.id]
        assert (info.height, info.width) == label.shape
        for _ in range(40):
            top, left = rng.integers(-20, 60, 2).tolist()
            height, width = rng.integers(1, 50, 2).tolist()
            window = windows.Window(top, left, height, width)
            expected = windows.cut(image, window, fill=0)
            np.testing.assert_array_equal(reader.read_image(index, window), expected)
            expected = windows.cut(label, window, fill=255)
            np.testing.assert_array_equal(reader.read_label(index, window), expected)


def test_a_window_decodes_only_the_tiles_it_touches(data, monkeypatch):
    reader, decoded = open_all(data), []
    real = scenes.decode_png
    monkeypatch.setattr(
        scenes, "decode_png", lambda stored: decoded.append(stored) or real(stored)
    )
    reader.read_image(4, windows.Window(0, 0, TILE, TILE))
    assert len(decoded) == 1  # of 12 tiles of that scene
    reader.read_image(4, windows.Window(TILE - 1, TILE - 1, 2, 2))
    assert len(decoded) == 4  # three more; the first is still at hand
    read = sum(map(len, decoded))
    records = reader.scenes[4].records
    whole = sum(len(reader._records[i]["image"]) for i in range(*_range(reader, 4)))
    assert records == 12 and read < whole / 2


def _range(reader, index):
    first = reader.scenes[index].first_record
    return first, first + reader.scenes[index].records


def test_the_cache_of_decoded_tiles_is_bounded(data):
    root, info, _ = data
    folder = prepared.locate(root, info.name, "scenes")
    reader = scenes.SceneReader(folder, "train", cached_tiles=3)
    reader.read_image(4, windows.Window(0, 0, 53, 37))
    assert len(reader._tiles) == 3


def test_a_pickled_reader_and_threads_read_the_same(data):
    reader = pickle.loads(pickle.dumps(open_all(data)))
    image, found = data[2]["s4"][0], []

    def read():
        found.append(reader.read_image(4, windows.Window(0, 0, 53, 37)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all((one == image).all() for one in found)


def test_patches_equal_the_windows_and_views_of_their_scenes(data):
    source, reader = open_patches(data), open_all(data)
    views = [view_lib.View(scale) for scale in VIEWS]
    index_of = {scene.id: index for index, scene in enumerate(reader.scenes)}
    planned = [
        (scene.id, tuple(window[:2]))
        for scene in reader.scenes
        for window in windows.plan_windows(scene.height, scene.width, tile=12, stride=7)
    ]
    found = []
    for sample in (source[index] for index in range(len(source))):
        index = index_of[sample["scene_id"]]
        window = windows.Window(*sample["position"].tolist(), 12, 12)
        read = lambda w, i=index: reader.read_image(i, w)  # noqa: E731
        np.testing.assert_array_equal(
            sample["views"], view_lib.cut_views(read, window, views)
        )
        np.testing.assert_array_equal(sample["label"], reader.read_label(index, window))
        scene = reader.scenes[index]
        assert sample["scene_size"].tolist() == [scene.height, scene.width]
        found.append((sample["scene_id"], tuple(sample["position"].tolist())))
    assert found == planned


def test_the_scene_table_says_which_records_are_whose(data):
    for reader in (open_all(data), open_patches(data)):
        listed = reader.info.scenes["train"]
        firsts = np.cumsum([0] + [scene.records for scene in listed])
        assert [scene.first_record for scene in listed] == firsts[:-1].tolist()
        assert len(reader._records) == firsts[-1]


def test_an_unknown_split_or_map_or_layout_lists_what_there_is(data):
    root, info, _ = data
    folder = prepared.locate(root, info.name, "scenes")
    with pytest.raises(errors.InputError, match="no split 'test'; it has: train"):
        scenes.open_scenes(folder, "test")
    with pytest.raises(errors.InputError, match="no map 'thin'; it has: none"):
        open_all(data).read_extra("thin", 0, windows.Window(0, 0, 1, 1))
    with pytest.raises(errors.InputError, match="not patches"):
        scenes.open_patches(folder, "train")
    with pytest.raises(errors.InputError, match="not whole scenes"):
        scenes.open_scenes(open_patches_folder(data), "train")


def open_patches_folder(data):
    root, info, _ = data
    config = prepared.patches_config(tile=12, stride=7, views=VIEWS)
    return prepared.locate(root, info.name, config)


def test_a_damaged_tile_is_reported():
    with pytest.raises(errors.InputError, match="--overwrite"):
        scenes.decode_png(b"no png")
