"""All downloaded data sets, each on a miniature of its official layout."""

import shutil
import zipfile

import miniature
import numpy as np
import pytest

from data_builders import deepglobe, files, isprs, prepare, published
from uhrjax import errors
from uhrjax.data import prepared, scenes
from uhrjax.tiling import window as windows

PROTOCOLS = {
    "isaid": "",
    "vaihingen": "official",
    "potsdam": "official",
    "deepglobe": "glnet",
    "inria": "glnet",
    "cityscapes": "official",
    "gleason2019": "foveation",
    "ade20k": "official",
    "bdd100k": "official",
}
LISTED = ("vaihingen", "potsdam", "deepglobe", "inria", "gleason2019")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Where folders are the splits, the miniatures have few scenes."""
    for name in PROTOCOLS.keys() - set(LISTED):
        protocol = PROTOCOLS[name]
        builder = prepare.BUILDERS[name]
        monkeypatch.setattr(builder, "counts", {protocol: miniature.FEW})


@pytest.fixture(scope="module")
def vaihingen(tmp_path_factory):
    """A miniature; tests that change it make a copy."""
    root = tmp_path_factory.mktemp("vaihingen")
    return root, miniature.write("vaihingen", root, protocol="official")


def run(name, root, data, **options):
    options = {"configs": ("scenes",), "workers": 1, **options}
    return prepare.prepare(name, data_dir=data, manual_dir=str(root), **options)


def check_scenes(data, info, expected, *, every=1):
    """Compares prepared scenes with what was written."""
    folder = prepared.locate(data, info.name, "scenes")
    found = {(s, scene.id) for s, listed in info.scenes.items() for scene in listed}
    assert found == expected.keys()
    for split, listed in info.scenes.items():
        reader = scenes.open_scenes(folder, split)
        for index in range(0, len(listed), every):
            image, label = expected[split, listed[index].id]
            window = windows.Window(0, 0, *label.shape)
            np.testing.assert_array_equal(reader.read_image(index, window), image)
            np.testing.assert_array_equal(reader.read_label(index, window), label)


FILES = [(name, False) for name in PROTOCOLS]
ARCHIVES = [(name, True) for name in PROTOCOLS.keys() - {"deepglobe", "gleason2019"}]


@pytest.mark.parametrize(("name", "packed"), FILES + sorted(ARCHIVES))
def test_every_code_of_every_official_layout_becomes_its_class(tmp_path, name, packed):
    raw, protocol = tmp_path / "raw", PROTOCOLS[name]
    expected = miniature.write(name, raw, protocol=protocol, packed=packed)
    before = sorted(raw.rglob("*"))
    assert not packed or all(path.is_file() for path in before)
    info = run(name, raw, tmp_path / "data")
    assert info.name == (f"{name}/{protocol}" if protocol else name)
    check_scenes(tmp_path / "data", info, expected, every=7)
    kept = [k for k in miniature.codes(name) if k != miniature.IGNORE]
    assert len(info.classes) == len(kept)
    assert all(info.histogram["train"][:-1])
    assert not info.notes
    assert sorted(raw.rglob("*")) == before  # read in place


def test_one_archive_is_a_download_too(tmp_path):
    expected = miniature.write("cityscapes", tmp_path / "raw", protocol="official")
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "raw")
    info = run("cityscapes", tmp_path / "all.zip", tmp_path / "data")
    check_scenes(tmp_path / "data", info, expected)


def test_the_command_says_that_the_counts_agree(vaihingen, tmp_path, capsys):
    flags = [f"--manual_dir={vaihingen[0]}", f"--data_dir={tmp_path}", "--workers=2"]
    assert prepare.main(["vaihingen", *flags, "--configs=scenes,patches_pfnet"]) == 0
    said = capsys.readouterr().out
    assert "train: 16 scenes" in said and "test: 17 scenes" in said
    assert "all scenes of the protocol 'official' are there, and no others" in said
    assert prepare.main([f"--data_dir={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert "6 classes; official: train 16, test 17" in said
    assert "prepared: vaihingen/official as scenes: scenes train 16, test 17" in said


def refused(name, root, data, capsys, *flags):
    """Runs the command; returns what it says when it refuses."""
    argv = [name, f"--data_dir={data}", "--workers=1", "--configs=scenes", *flags]
    argv += [f"--manual_dir={root}"] if root else []
    assert prepare.main(argv) == 2
    assert not [path for path in data.rglob("*") if path.is_file()]
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said.split("error: ")[-1]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_without_a_download_one_reads_what_to_get(tmp_path, capsys, name):
    said = refused(name, None, tmp_path, capsys)
    assert prepare.BUILDERS[name].page in said
    assert f"python -m data_builders.prepare {name} --manual_dir=PATH" in said
    said = refused(name, tmp_path / "absent", tmp_path / "data", capsys)
    assert "absent: no such folder or archive" in said
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "parts.7z.001").write_bytes(b"7z")
    said = refused(name, tmp_path / "wrong", tmp_path / "data", capsys)
    assert "no file like" in said and "(unpack parts.7z.001 first)" in said


@pytest.fixture
def raw(vaihingen, tmp_path):
    """A copy of the miniature, to be spoilt."""
    shutil.copytree(vaihingen[0], tmp_path / "raw")
    return tmp_path / "raw"


IMAGES, MASKS = "Vaihingen/top", "ground_truth_COMPLETE"


def area(number):
    return f"top_mosaic_09cm_area{number}.tif"


def test_missing_and_extra_files_are_named(raw, tmp_path, capsys):
    (raw / MASKS / area(1)).unlink()
    (raw / IMAGES / area(38)).unlink()
    shutil.copy(raw / IMAGES / area(2), raw / IMAGES / area(99))
    shutil.copy(raw / MASKS / area(2), raw / MASKS / area(99))
    said = refused("vaihingen", raw, tmp_path / "data", capsys)
    assert f"{area(1)} (or _noBoundary.tif) as a mask (split train" in said
    assert f"top/{area(38)} (split test, scene area38)" in said
    assert "area99: in no split of vaihingen/official" in said
    assert "split train has 15 scenes of 16" in said and "--partial=yes" in said


def test_a_part_is_prepared_on_demand_under_a_name_of_its_own(raw, tmp_path):
    for number in (1, 2, 4):
        (raw / MASKS / area(number)).unlink()
    info = run("vaihingen", raw, tmp_path / "data", partial="yes")
    assert info.name == "vaihingen/official-partial_yes"
    assert [len(listed) for listed in info.scenes.values()] == [15, 15]
    assert "split test has 15 scenes of 17" in info.notes


def test_the_same_scene_twice_is_refused(raw, tmp_path, capsys):
    (raw / "again").mkdir()
    shutil.copy(raw / MASKS / area(3), raw / "again" / area(3))
    said = refused("vaihingen", raw, tmp_path / "data", capsys)
    assert "a second 'area3', " in said
    assert f"again/{area(3)}" in said and f"{MASKS}/{area(3)}" in said


def test_labels_for_participants_are_no_second_labels(vaihingen, raw, tmp_path):
    shutil.copytree(raw / MASKS, raw / "Vaihingen/gts_for_participants")
    check_scenes(
        tmp_path / "data", run("vaihingen", raw, tmp_path / "data"), vaihingen[1]
    )


def test_a_wrong_colour_is_named_with_file_and_pixel(raw, tmp_path, capsys):
    mask = np.full((*miniature.SIDE, 3), 255, np.uint8)
    mask[2, 5:7] = (250, 3, 200)
    miniature.save(raw / MASKS / area(7), mask)
    said = refused("vaihingen", raw, tmp_path / "data", capsys)
    assert f"{area(7)}: colour (R, G, B) (250, 3, 200)" in said
    assert "(2 px, the first at row 2, column 5)" in said


def test_colours_some_levels_off_are_rounded_and_counted(vaihingen, raw, tmp_path):
    label = vaihingen[1]["train", "area7"][1]
    colours = np.array([colour for _, colour in isprs.CLASSES], np.uint8)[label]
    colours[0, 0] = np.clip(colours[0, 0].astype(int) - 3, 0, 255)
    miniature.save(raw / MASKS / area(7), colours)
    info = run("vaihingen", raw, tmp_path / "data")
    check_scenes(tmp_path / "data", info, vaihingen[1])
    assert info.notes[0].startswith("1 px of mask values between two codes")


@pytest.mark.parametrize("packed", [False, True])
def test_sizes_that_differ_and_broken_images_are_all_named(
    raw, tmp_path, capsys, packed
):
    miniature.save(raw / IMAGES / area(4), np.zeros((9, 9, 3), np.uint8))
    (raw / IMAGES / area(5)).write_bytes(b"")
    (raw / MASKS / area(6)).write_bytes(b"II*\0 and nothing more")
    where = raw
    if packed:
        shutil.make_archive(str(tmp_path / "all"), "zip", raw)
        where = tmp_path / "all.zip"
    said = refused("vaihingen", where, tmp_path / "data", capsys)
    for number in (4, 5, 6):
        assert f"{where}/{MASKS if number != 5 else IMAGES}/{area(number)}" in said
    assert "12x16 px" in said and "9x9" in said and "0 bytes" in said
    assert "uhrjax_" not in said  # no temporary path


def test_half_an_archive_is_one_sentence(tmp_path, capsys):
    miniature.write("cityscapes", tmp_path / "raw", protocol="official", packed=True)
    whole = tmp_path / "raw" / "gtFine.zip"
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    said = refused("cityscapes", tmp_path / "raw", tmp_path / "data", capsys)
    assert "gtFine.zip: no folder, zip or tar file, or only a part of one" in said


def test_an_archive_within_an_archive_is_named(tmp_path, capsys):
    miniature.write("cityscapes", tmp_path / "raw/all")
    for folder in ("gtFine", "leftImg8bit"):
        inner = tmp_path / "raw/all" / folder
        shutil.make_archive(str(inner), "zip", inner.parent, folder)
        shutil.rmtree(inner)
        said = refused_nested(tmp_path, capsys)
        assert "all.zip/gtFine.zip" in said and "unpack" in said


def refused_nested(tmp_path, capsys):
    """Returns what is said of the folder `all` as one archive."""
    shutil.make_archive(str(tmp_path / "packed/all"), "zip", tmp_path / "raw/all")
    flags = [f"--manual_dir={tmp_path / 'packed'}", f"--data_dir={tmp_path / 'data'}"]
    assert prepare.main(["cityscapes", *flags]) == 2
    return capsys.readouterr().err


def test_a_damaged_member_of_an_archive_is_named(tmp_path, capsys):
    miniature.write("cityscapes", tmp_path / "raw", protocol="official", packed=True)
    path = tmp_path / "raw" / "gtFine.zip"
    with zipfile.ZipFile(path) as archive:
        info = next(i for i in archive.infolist() if not i.is_dir())
    stored = bytearray(path.read_bytes())
    at = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    stored[at] ^= 255
    path.write_bytes(stored)
    said = refused("cityscapes", tmp_path / "raw", tmp_path / "data", capsys)
    assert f"gtFine.zip/{info.filename}: the archive is incomplete or damaged" in said


def test_members_of_archives_are_read_as_zipfile_reads_them(tmp_path):
    contents = {"a/1.bin": b"x" * 5000, "a/2.bin": b"short", "__MACOSX/a/1.bin": b"?"}
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for place, data in contents.items():
            kind = zipfile.ZIP_DEFLATED if len(data) > 99 else zipfile.ZIP_STORED
            archive.writestr(place, data, kind)
    found = {entry.place: entry.file.read() for entry in files.list_files(tmp_path)}
    assert found == {f"x.zip/{p}": d for p, d in contents.items() if p[0] == "a"}


def test_an_unknown_protocol_or_option_lists_what_there_is(tmp_path, capsys):
    said = refused("deepglobe", tmp_path, tmp_path, capsys, "--protocol=mine")
    assert "--protocol=mine; choose from glnet, foveation" in said
    with pytest.raises(
        errors.InputError, match="it has: manual_dir, protocol, unknown"
    ):
        prepare.prepare("deepglobe", data_dir=tmp_path, colour="red")


def test_a_prepared_name_says_protocol_and_options_and_back(tmp_path):
    builder = prepare.make_builder("deepglobe/foveation-unknown_class", {})
    assert builder.full_name == "deepglobe/foveation-unknown_class"
    assert len(builder.table.names) == 7
    command = prepared.prepare_command(tmp_path, builder.full_name, "scenes")
    assert "deepglobe --manual_dir=PATH --protocol=foveation --unknown=class" in command


def test_two_protocols_lie_apart_and_have_different_hashes(tmp_path):
    miniature.write("inria", tmp_path / "raw", protocol="glnet")
    infos = [
        run("inria", tmp_path / "raw", tmp_path / "data", protocol=protocol)
        for protocol in ("glnet", "official")
    ]
    assert [info.name for info in infos] == ["inria/glnet", "inria/official"]
    assert infos[0].split_hash != infos[1].split_hash
    val = {scene.id for scene in infos[1].scenes["val"]}
    assert len(val) == 25 and {"austin1", "vienna5", "tyrol-w3"} <= val


@pytest.mark.parametrize(
    "path", sorted(published.SPLITS.iterdir()), ids=lambda p: p.stem
)
def test_the_lists_of_a_split_are_disjoint_and_as_long_as_stated(path):
    name, protocol = path.stem.split("_")
    ids = miniature.scene_ids(name, protocol)
    counts = {split: len(listed) for split, listed in ids.items()}
    assert counts == prepare.BUILDERS[name].counts[protocol]
    assert len(set().union(*ids.values())) == sum(counts.values())


def test_both_protocols_of_deepglobe_deal_out_the_same_images():
    first, second = (
        set().union(*miniature.scene_ids("deepglobe", protocol).values())
        for protocol in deepglobe.DeepGlobe.counts
    )
    assert first == second and len(first) == 803


def decode(name, raw, **options):
    builder = prepare.make_builder(name, options)
    return builder.table.decode(np.asarray(raw, np.uint8))


def test_deepglobe_unknown_is_ignored_or_class_0():
    colours = [[(0, 255, 255), (130, 127, 255), (0, 0, 0), (255, 255, 255)]]
    assert decode("deepglobe", colours)[0].tolist() == [[0, 2, 255, 5]]
    labels, found = decode("deepglobe", colours, unknown="class")
    assert labels.tolist() == [[1, 3, 0, 6]]
    assert [(one.value, one.count) for one in found] == [("between two codes", 1)]
    _, found = decode("deepglobe", [[(0, 0, 0), (255, 3, 0)]])
    assert found[0].value == (255, 3, 0)
    _, found = decode("deepglobe", [[0, 3]])  # a mask of ids: not the published ones
    assert sum(one.count for one in found if one.value != "between two codes") == 2


def test_cityscapes_raw_ids_become_train_ids():
    labels, found = decode("cityscapes", [[7, 33, 0, 9, 29, 26]])
    assert labels.tolist() == [[0, 18, 255, 255, 255, 13]] and not found
    assert decode("cityscapes", [[34]])[1]


def test_eroded_borders_are_ignored_and_refused_in_full_masks():
    colours = [[(0, 0, 0), (255, 0, 0)]]
    labels, found = decode("potsdam", colours, labels="eroded")
    assert labels.tolist() == [[255, 5]] and not found
    assert decode("potsdam", colours)[1][0].value == (0, 0, 0)


def test_masks_without_any_object_are_not_the_published_ones(tmp_path, capsys):
    written = miniature.write("inria", tmp_path / "raw", protocol="glnet")
    for _, scene_id in written:  # 0 and 1 instead of 0 and 255
        _, place = miniature.places("inria", "", scene_id)
        miniature.save(tmp_path / "raw" / place, np.eye(12, 16, dtype=np.uint8))
    said = refused("inria", tmp_path / "raw", tmp_path / "data", capsys)
    assert "hold nearly nothing of building" in said
