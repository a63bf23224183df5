"""Patch pyramids and overviews: their names, and their pixels on all three paths."""

import dataclasses
import itertools

import folder_layout
import jax
import jax.numpy as jnp
import miniature
import numpy as np
import pytest
from PIL import Image

from data_builders import encode, layout, prepare, show
from uhrjax import errors, inference
from uhrjax.data import dataset, overview, pipeline, prepared, scenes
from uhrjax.tiling import plan, view
from uhrjax.tiling import window as windows


def scene_of(height, width):
    return prepared.SceneInfo("scene", height, width)


def builder_of(name):
    return prepare.make_builder(name, {"dir": "."} if name == "folder" else {})


PYRAMIDS = [
    (name, method)
    for name, builder in prepare.BUILDERS.items()
    for method in builder.pyramids
]


@pytest.mark.parametrize(("name", "method"), PYRAMIDS)
def test_every_pyramid_is_named_as_it_is_stored(name, method):
    builder = prepare.BUILDERS[name]()
    none = {"tile": None, "stride": None, "views": (1,)}
    chosen = layout.choose(builder, [f"patches_{method}"], **none)
    configs = builder.pyramids[method]
    assert tuple(one.config for one in chosen) == configs
    assert layout.choose(builder, configs, **none) == chosen


def test_fctl_and_foveation_see_the_fields_of_view_of_their_papers():
    def fields(name, method):
        config = prepare.BUILDERS[name].pyramids[method][0]
        (grid,) = layout.choose(
            prepare.BUILDERS[name](), [config], tile=None, stride=None, views=()
        )
        return [round(one.scale * grid.tile) for one in grid.views], grid

    assert fields("deepglobe", "fctl")[0] == [508, 1524]  # and the whole image
    assert fields("inria", "fctl")[0] == [508, 1016, 1524]
    assert fields("deepglobe", "foveation")[0] == [500, 1000, 1500, 2000, 2448]
    assert fields("cityscapes", "foveation")[0] == [512, 640, 768, 896, 1024]
    assert fields("gleason2019", "foveation")[0] == [1100, 2000, 2900, 3800, 4400]
    starts = fields("deepglobe", "fctl")[1].windows_of(scene_of(2448, 2448))
    assert [w.left for w in starts[:6]] == [388 * i for i in range(6)]
    assert len(starts) == 36
    even = fields("inria", "fctl")[1].windows_of(scene_of(5000, 5000))
    assert len(even) == 121 and [w.left for w in even[:3]] == [0, 449, 898]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("patches_foo", "choose from scenes, patches, patches_fctl"),
        ("patches_8_9", "leave gaps"),
        ("patches_8_4_v1-p", "view 'p'"),
        ("patches_8_4_v1-12px", "view '12px'"),
        ("patches_8_4_v1-p5px", "smaller than the patch"),
        ("patches_8_4_v4-2", "rising scales"),
        ("overview_0x8", "at least 1 x 1"),
    ],
)
def test_a_layout_that_cannot_be_made_says_why(config, said):
    with pytest.raises(errors.InputError, match=said):
        layout.choose(
            builder_of("deepglobe"), [config], tile=None, stride=None, views=(1,)
        )


def test_views_have_one_name_each():
    for word in (1, 2, 7, "p2", "p3", "p762px", "b2", "b762px", "2s", "p3s", "b762pxr"):
        assert prepared.view_word(prepared.parse_view(word, tile=508), tile=508) == word
    assert prepared.parse_view("p1016px", tile=508) == view.View(2, "pillow")
    mixed = (view.View(), view.View(1.5, "pillow"), view.View(3, "pillow"))
    name = prepared.patches_config(tile=508, stride=388, views=mixed)
    assert name == "patches_508_388_v1-p762px-p3"
    assert name != prepared.patches_config(tile=508, stride=388, views=(1, 2, 3))


def test_patches_that_are_not_square_are_named_by_height_and_width(tmp_path):
    config = "patches_4x8_4x6_v1-2-b4"
    given = {"tile": None, "stride": None, "views": (1,)}
    (grid,) = layout.choose(builder_of("folder"), [config], **given)
    assert (grid.tile, grid.stride, grid.config) == ((4, 8), (4, 6), config)
    with pytest.raises(errors.InputError, match="whole scales only"):
        layout.choose(builder_of("folder"), ["patches_4x8_4x8_v1-p12px"], **given)
    folder_layout.write_folder(tmp_path / "raw", [(10, 20), (4, 8)])
    info = prepare.prepare(
        "folder", data_dir=tmp_path / "data", dir=tmp_path / "raw", train="s0",
        val="s1", configs=("scenes", config, "overview_4x8"),
    )  # fmt: skip
    folder = prepared.locate(tmp_path / "data", info.name, config)
    source = scenes.open_patches(folder, "train")
    assert (source.info.tile, source.info.stride) == ((4, 8), (4, 6))
    assert len(source) == 3 * 3 and source[0]["views"].shape == (3, 4, 8, 3)
    found = dataset.open_dataset(
        tmp_path / "data", info.name, tile=(4, 8), stride=(4, 6), patches=True,
        views=grid.views, overview=(4, 8),
    )  # fmt: skip
    stored = found.open_grid("train", views=grid.views)
    cut = dataclasses.replace(found, patches_dir=None).open_grid(
        "train", views=grid.views
    )
    assert stored.count(0) == cut.count(0) == 9
    for k in range(9):
        one, two = stored.read(0, k), cut.read(0, k)
        for key in one:
            np.testing.assert_array_equal(one[key], two[key])


def test_overviews_of_an_earlier_version_say_to_prepare_again(made, monkeypatch):
    data, info = made
    folder = prepared.locate(data, info.name, "overview_7x9")
    reader = overview.open_overviews(folder, "train")
    real = type(reader._records).__getitem__
    monkeypatch.setattr(
        type(reader._records),
        "__getitem__",
        lambda self, i: {k: v for k, v in real(self, i).items() if k != "label"},
    )
    reader.read("s0")
    with pytest.raises(errors.InputError, match=r"without labels.*--overwrite"):
        reader.read_label("s0")


def test_absent_pyramids_give_the_command_to_run(tmp_path):
    for config in (
        "patches_508_458_even_v1-p2",
        "patches_128x256_128x256_v1-2",
        "overview_508x508",
        "patches_8_4_v1-p2",
    ):
        with pytest.raises(FileNotFoundError) as caught:
            prepared.locate(tmp_path, "inria/official", config)
        flags = f"inria --manual_dir=PATH --protocol=official --configs={config} "
        assert flags in str(caught.value)


CONFIGS = (
    "scenes",
    "patches_8_6_even_v1-p2-p20px",
    "patches_8_5_v1-3",
    "overview_7x9",
    "patches_8_8_v1-b12px-2s-b3r",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two scenes of awkward sizes in all layouts; returns (data folder, info)."""
    root = tmp_path_factory.mktemp("pyramids")
    folder_layout.write_folder(root / "raw", [(29, 50), (8, 31), (5, 7)])
    info = prepare.prepare(
        "folder",
        data_dir=root / "data",
        dir=root / "raw",
        train="s0,s1",
        val="s2",
        configs=CONFIGS,
    )
    return root / "data", info


def open_scene(data, info, split, index):
    reader = scenes.open_scenes(prepared.locate(data, info.name, "scenes"), split)
    return scenes.PreparedScene(reader, index)


class Watch:
    """A method that notes the views it is given, on the device."""

    num_classes = 2
    overview = None
    reads_labels = False

    def __init__(self, views, seen):
        self.views, self._seen = views, seen

    def apply(self, variables, batch, *, train):
        jax.debug.callback(lambda views: self._seen.extend(views), batch["views"])
        return jnp.zeros((*batch["views"].shape[:1], 8, 8, 2))

    def logits(self, outputs):
        return outputs

    def points(self, outputs):
        return {}


@pytest.mark.parametrize("config", [*CONFIGS[1:3], CONFIGS[4]])
def test_a_patch_is_the_same_in_builder_loader_and_prediction(made, config):
    data, info = made
    source = scenes.open_patches(prepared.locate(data, info.name, config), "train")
    views = tuple(prepared.parse_view(word, tile=8) for word in source.info.views)
    batches = pipeline.train_batches(
        pipeline.patch_dataset(source, seed=0),
        transform=lambda sample, rng: sample,
        targets=lambda label, rng: {},
        batch_size=len(source),
    )
    batch = next(batches)  # every patch once
    places = zip(batch["scene_id"], batch["position"].tolist(), strict=True)
    assert len({(name, *place) for name, place in places}) == len(source)
    grid = "even" if "even" in config else "shifted"
    seen = {}
    for index, scene in enumerate(info.scenes["train"]):
        opened, found = open_scene(data, info, "train", index), []
        tiling = plan.Tiling(8, source.info.stride, 2, grid=grid)
        engine = inference.Engine(Watch(views, found), tiling)
        list(engine.label({}, opened))
        jax.effects_barrier()
        seen[scene.id] = {np.asarray(one).tobytes() for one in found}
    where = {scene.id: index for index, scene in enumerate(info.scenes["train"])}
    for i, scene_id in enumerate(batch["scene_id"]):
        window = windows.Window(*batch["position"][i].tolist(), 8, 8)
        opened = open_scene(data, info, "train", where[scene_id])
        size = tuple(batch["scene_size"][i].tolist())
        cut = view.cut_views(opened.read, window, views, scene_size=size)
        np.testing.assert_array_equal(batch["views"][i], cut)
        assert batch["views"][i].tobytes() in seen[scene_id]


def test_contexts_by_pillow_are_those_of_pillow(made):
    data, info = made
    folder = prepared.locate(data, info.name, CONFIGS[1])
    source = scenes.open_patches(folder, "train")
    opened = open_scene(data, info, "train", 0)
    for i, (word, side) in itertools.product((0, 5), (("p2", 16), ("p20px", 20))):
        sample = source[i]
        top, left = (sample["position"] - (side - 8) // 2).tolist()
        crop = opened.read(windows.Window(top, left, side, side))
        expected = Image.fromarray(crop).resize((8, 8), Image.Resampling.BILINEAR)
        which = source.info.views.index(word)
        np.testing.assert_array_equal(sample["views"][which], np.asarray(expected))


def test_overviews_are_pillows_reduction_of_the_whole_scene(made, monkeypatch):
    data, info = made
    reader = overview.open_overviews(
        prepared.locate(data, info.name, "overview_7x9"), "train"
    )
    monkeypatch.setattr(overview, "BAND_PIXELS", 200)  # in several bands
    for index, scene in enumerate(info.scenes["train"]):
        opened = open_scene(data, info, "train", index)
        whole = opened.read(windows.Window(0, 0, scene.height, scene.width))
        small = Image.fromarray(whole).resize((9, 7), Image.Resampling.BILINEAR)
        stored = reader.read(scene.id)
        np.testing.assert_array_equal(stored, np.asarray(small))
        again = overview.make(opened.read, scene, height=7, width=9)
        np.testing.assert_array_equal(stored, again)


def test_samples_get_the_overview_of_their_scene(made):
    data, info = made
    patches = scenes.open_patches(prepared.locate(data, info.name, CONFIGS[2]), "train")
    reader = overview.open_overviews(
        prepared.locate(data, info.name, "overview_7x9"), "train"
    )
    source = overview.WithOverview(patches, reader)
    assert len(source) == len(patches)
    for i in (0, len(source) - 1):
        expected = reader.read(patches[i]["scene_id"])
        np.testing.assert_array_equal(source[i]["overview"], expected)
        np.testing.assert_array_equal(source[i]["views"], patches[i]["views"])
    with pytest.raises(errors.InputError, match="has no scene 'other'"):
        reader.read("other")
    with pytest.raises(errors.InputError, match="not overviews"):
        overview.open_overviews(prepared.locate(data, info.name, "scenes"), "train")


def test_layouts_of_one_run_read_every_scene_once(tmp_path, monkeypatch):
    folder_layout.write_folder(tmp_path / "raw", [(20, 20), (20, 20)])
    real, opened = encode.encode, []
    monkeypatch.setattr(
        encode, "encode", lambda unit: opened.append(unit) or real(unit)
    )
    given = {"dir": tmp_path / "raw", "configs": CONFIGS, "workers": 1}
    prepare.prepare("folder", data_dir=tmp_path / "data", **given)
    assert len(opened) == 2


def test_aliases_are_prepared_by_their_methods_name(tmp_path, capsys):
    miniature.write("deepglobe", tmp_path / "raw", protocol="glnet", side=(4, 4))
    for path in sorted((tmp_path / "raw/land-train").iterdir())[6:]:
        path.unlink()
    flags = [f"--manual_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'data'}"]
    flags += ["--configs=scenes,patches_glnet", "--partial=yes", "--workers=1"]
    assert prepare.main(["deepglobe", *flags]) == 0
    said = capsys.readouterr().out
    for config in (
        "scenes: tiles",
        "patches_508_458_even: patches",
        "overview_508x508:",
    ):
        assert config in said


def test_fctl_prepares_patches_and_overviews_and_shows_them(tmp_path):
    miniature.write("deepglobe", tmp_path / "raw", protocol="glnet", side=(20, 24))
    for path in sorted((tmp_path / "raw/land-train").iterdir())[6:]:
        path.unlink()
    flags = [f"--manual_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'data'}"]
    flags += ["--configs=patches_fctl,overview_508x508", "--partial=yes", "--workers=1"]
    assert prepare.main(["deepglobe", *flags]) == 0
    path = tmp_path / "sheet.png"
    flags = [f"--data_dir={tmp_path / 'data'}", f"--output={path}"]
    assert show.main(["deepglobe", *flags]) == 0 and path.is_file()
