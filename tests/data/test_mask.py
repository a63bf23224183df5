"""Label maps of a run, read back for the network that refines them."""

import pickle

import numpy as np
import pytest

from uhrjax import errors, output
from uhrjax.data import augment, mask, pipeline, prepared
from uhrjax.tiling import window as windows

CLASSES, COLOURS = ("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (255, 0, 0))
PLACE = (0.5, 0.0, 1.0, 0.0, -0.5, 2.0)
SCENES = [
    prepared.SceneInfo("s0", 20, 30),
    prepared.SceneInfo("area/s1", 17, 9),
    prepared.SceneInfo("s2", 8, 8, transform=PLACE),
    *(prepared.SceneInfo(f"t{i}", 4, 4) for i in range(6)),
]


@pytest.fixture
def written(tmp_path):
    """Writes a label map of every scene; returns (folder, maps)."""
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 3, (s.height, s.width), np.uint8) for s in SCENES]
    for labels, scene in zip(maps, SCENES, strict=True):
        output.write_mask(tmp_path, labels, scene, COLOURS, CLASSES)
    return tmp_path, maps


def test_windows_equal_what_the_run_wrote(written):
    folder, maps = written
    assert (folder / "area_s1.png").is_file() and (folder / "s2.tif").is_file()
    reader = pickle.loads(pickle.dumps(mask.MaskReader(folder, SCENES)))
    assert len(reader) == len(SCENES)
    for index in (0, 1, 2, 3, 4, 5, 6, 7, 8, 0):
        for window in (windows.Window(-3, 2, 12, 12), windows.Window(0, 0, 4, 4)):
            expected = windows.cut(maps[index], window, fill=255)
            np.testing.assert_array_equal(reader.read(index, window), expected)
    assert len(reader._maps) == mask.CACHED


def test_missing_maps_are_named(written):
    folder, _ = written
    (folder / "area_s1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 label maps missing.*area_s1\.png"):
        mask.MaskReader(folder, SCENES)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        mask.MaskReader(folder / "none", SCENES)


def test_maps_of_other_scenes_are_refused(written):
    folder, maps = written
    (folder / "s0.png").write_bytes((folder / "t0.png").read_bytes())
    with pytest.raises(errors.InputError, match="4 x 4 px, its scene 20 x 30"):
        mask.MaskReader(folder, SCENES)
    output.write_mask(folder, maps[0], SCENES[0], COLOURS, CLASSES)
    (folder / "s0.tif").write_bytes((folder / "s2.tif").read_bytes())
    with pytest.raises(errors.InputError, match="two label maps of one scene"):
        mask.MaskReader(folder, SCENES)


class OneScene:
    """A grid of one scene: its labels are those of the map."""

    scenes = SCENES[:1]

    def __init__(self, labels):
        self._labels = labels

    def count(self, scene):
        return 3

    def read(self, scene, patch):
        top, left = 6, 4 + 8 * patch
        label = self._labels[top : top + 8, left : left + 8]
        return {
            "views": np.stack([label] * 3, -1)[None],
            "label": label,
            "position": np.array([top, left], np.int32),
            "scene_size": np.array(self._labels.shape, np.int32),
            "scene_id": "s0",
        }


def test_batches_by_scene_hold_the_coarse_labels_around_each_patch(written):
    folder, maps = written
    coarse = mask.CoarseWindows(mask.MaskReader(folder, SCENES[:1]), 1.5)
    stream = pipeline.scene_batches(
        OneScene(maps[0]), coarse=coarse, sub_batch=2, scenes_per_step=1, seed=0,
        transform=augment.Augment(tile=8, hflip=0.5, rotate90=True),
        targets=lambda label, rng: {},
    )  # fmt: skip
    for _ in range(12):
        batch, _ = next(stream)
        assert (
            batch["coarse"].shape == (2, 12, 12) and batch["coarse"].dtype == np.uint8
        )
        for i in np.flatnonzero(batch["valid"]):
            inner = batch["coarse"][i, 2:10, 2:10]
            np.testing.assert_array_equal(inner, batch["label"][i])
    stream.close()
