"""A scene written row by row: interruptions, full disks, strangers' files."""

import json
import os
import subprocess
import sys

import cv2
import drawn_scene
import numpy as np
import pytest
import rasterio

from uhrjax import errors
from uhrjax.output import overlay, partial

ALL = {"probabilities": "float16", "uncertainty": "entropy", "polygons": "geojson"}
PLACE = {"crs": drawn_scene.UTM, "transform": drawn_scene.ROTATED}


def test_record_counts_every_pixel_once(tmp_path):
    labels = drawn_scene.draw_labels(61, 47)
    with drawn_scene.open_writer(tmp_path, drawn_scene.scene(61, 47)) as writer:
        drawn_scene.write_rows(writer, labels)
        files = writer.finish()
        pixels = writer.class_pixels()
    true = {n: int((labels == k).sum()) for k, n in enumerate(drawn_scene.CLASSES)}
    assert pixels == true
    record = json.loads(files["record"].read_text())
    assert record["nodata"] == {"id": 255, "pixels": int((labels == 255).sum())}
    shares = [entry["share"] for entry in record["classes"]]
    assert shares == pytest.approx([n / sum(true.values()) for n in true.values()])
    assert record["key"]["fingerprint"] == "f"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scene.json", "scene.png", "scene_overlay.png",
    ]  # fmt: skip


@pytest.mark.parametrize("stop", [0, 1, 64, 299, 300])
@pytest.mark.parametrize("place", [{}, PLACE], ids=["png", "geotiff"])
def test_interrupted_scene_goes_on_to_the_same_bytes(tmp_path, stop, place):
    labels = drawn_scene.draw_labels(300, 70)
    probabilities = drawn_scene.draw_probabilities(labels)
    info = drawn_scene.scene(300, 70, **place)
    picture = np.full((30, 7, 3), 90, np.uint8)
    for folder, rows in (("once", 300), ("twice", stop)):
        writer = drawn_scene.open_writer(tmp_path / folder, info, **ALL)
        writer.set_overview(picture)
        drawn_scene.write_rows(
            writer, labels, until=rows, step=32, scores=probabilities
        )
        if folder == "once":
            writer.finish()
        writer.close()
    with drawn_scene.open_writer(tmp_path / "twice", info, **ALL) as writer:
        assert writer.rows_done == stop and not writer.is_complete
        drawn_scene.write_rows(writer, labels, step=7, scores=probabilities)
        writer.finish()
    once = drawn_scene.contents(tmp_path / "once")
    assert len(once) == 6
    assert drawn_scene.contents(tmp_path / "twice") == once


def test_half_a_row_left_by_a_kill_is_written_again(tmp_path):
    labels = drawn_scene.draw_labels(20, 30)
    info = drawn_scene.scene(20, 30)
    with drawn_scene.open_writer(tmp_path, info) as writer:
        drawn_scene.write_rows(writer, labels, until=12)
    raw = tmp_path / ".partial/scene/labels.raw"
    with raw.open("ab") as file:
        file.write(b"\7" * 17)
    with drawn_scene.open_writer(tmp_path, info) as writer:
        assert writer.rows_done == 12
        drawn_scene.write_rows(writer, labels)
        path = writer.finish()["labels"]
    assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == labels).all()


def test_rows_done_is_what_the_shortest_map_holds(tmp_path):
    labels = drawn_scene.draw_labels(20, 30)
    info = drawn_scene.scene(20, 30)
    probabilities = drawn_scene.draw_probabilities(labels)
    with drawn_scene.open_writer(tmp_path, info, probabilities="uint8") as writer:
        drawn_scene.write_rows(writer, labels, until=15, scores=probabilities)
    os.truncate(tmp_path / ".partial/scene/probabilities.raw", 30 * 3 * 8 + 5)
    with drawn_scene.open_writer(tmp_path, info, probabilities="uint8") as writer:
        assert writer.rows_done == 8


def test_killed_process_leaves_its_rows(tmp_path):
    child = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import drawn_scene
labels = drawn_scene.draw_labels(40, 30)
writer = drawn_scene.open_writer({str(tmp_path)!r}, drawn_scene.scene(40, 30))
drawn_scene.write_rows(writer, labels, until=25)
os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", child]).returncode == -9
    labels = drawn_scene.draw_labels(40, 30)
    with drawn_scene.open_writer(tmp_path, drawn_scene.scene(40, 30)) as writer:
        assert writer.rows_done == 25
        drawn_scene.write_rows(writer, labels)
        path = writer.finish()["labels"]
    assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == labels).all()


@pytest.mark.parametrize("stage", ["publish", "write_json", "remove"])
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("is_second_run", [False, True])
def test_kill_inside_finish_never_shows_half_a_scene(
    tmp_path, monkeypatch, stage, call, is_second_run
):
    info = drawn_scene.scene(30, 20)
    labels = drawn_scene.draw_labels(30, 20)
    if is_second_run:
        drawn_scene.write(tmp_path, info, 0 * labels, fingerprint="old", tiff=True)
    writer = drawn_scene.open_writer(tmp_path, info)
    drawn_scene.write_rows(writer, labels)
    owner = partial.PartialRows if stage == "remove" else partial
    true, calls = getattr(owner, stage), []

    class Killed(BaseException):
        pass

    def kill(*arguments):
        calls.append(arguments)
        if len(calls) == call:
            raise Killed
        true(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, stage, kill)
        try:
            writer.finish()
        except Killed:
            writer.close()
    if (tmp_path / "scene.json").exists():  # then everything it lists is whole
        record = json.loads((tmp_path / "scene.json").read_text())
        for file in record["files"].values():
            assert (tmp_path / file["name"]).stat().st_size == file["bytes"]
    with drawn_scene.open_writer(tmp_path, info) as writer:
        assert writer.rows_done == 30
        path = writer.finish()["labels"]
    assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == labels).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "scene.json", "scene.png", "scene_overlay.png",
    ]  # fmt: skip


def test_complete_scene_is_not_computed_again(tmp_path):
    labels = drawn_scene.draw_labels(30, 20)
    info = drawn_scene.scene(30, 20)
    files = drawn_scene.write(tmp_path, info, labels)
    before = drawn_scene.contents(tmp_path)
    with drawn_scene.open_writer(tmp_path, info) as writer:
        assert writer.is_complete and writer.rows_done == 30
        assert writer.finish() == files
        assert sum(writer.class_pixels().values()) == (labels < 255).sum()
    assert drawn_scene.contents(tmp_path) == before


@pytest.mark.parametrize(
    "change",
    [{"fingerprint": "g"}, {"uncertainty": "margin"}, {"palette": True}],
    ids=lambda change: next(iter(change)),
)
def test_changed_weights_or_options_start_again(tmp_path, change):
    labels = drawn_scene.draw_labels(30, 20)
    info = drawn_scene.scene(30, 20)
    drawn_scene.write(tmp_path, info, labels)
    writer = drawn_scene.open_writer(tmp_path, info, **change)
    assert not writer.is_complete and writer.rows_done == 0
    assert (tmp_path / "scene.png").exists()  # the old one stays until the new is there


def test_files_that_the_new_options_do_not_make_are_removed(tmp_path):
    labels = drawn_scene.draw_labels(30, 20)
    info = drawn_scene.scene(30, 20)
    drawn_scene.write(tmp_path, info, labels, polygons="geojson")
    drawn_scene.write(tmp_path, info, 0 * labels, overlay=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["scene.json", "scene.png"]


def test_lost_or_cut_file_makes_a_scene_incomplete(tmp_path):
    info = drawn_scene.scene(30, 20)
    path = drawn_scene.write(tmp_path, info, drawn_scene.draw_labels(30, 20))["labels"]
    os.truncate(path, 40)
    assert not drawn_scene.open_writer(tmp_path, info).is_complete
    path.unlink()
    assert not drawn_scene.open_writer(tmp_path, info).is_complete


FULL_DISKS = {  # what runs over the limit, bytes per file: (size, limit, rows kept)
    "rows": ({}, (400, 500), 100_000, 200),
    "geotiff": ({"probabilities": "uint8"}, (256, 256), 256 * 256 * 3, 256),
    "geopackage": ({"polygons": "gpkg"}, (60, 80), 120_000, 60),
}


@pytest.mark.parametrize("case", FULL_DISKS)
def test_full_disk_is_one_sentence_and_nothing_half_written(tmp_path, case):
    options, size, limit, kept = FULL_DISKS[case]
    child = f"""
import os, resource, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import drawn_scene, numpy as np
rng = np.random.default_rng(0)
labels = rng.integers(0, 3, {size}).astype(np.uint8)
info = drawn_scene.scene(*{size}, crs=drawn_scene.UTM)
writer = drawn_scene.open_writer({str(tmp_path)!r}, info, **{options})
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
try:
    noise = rng.random((*labels.shape, 3), np.float32)
    drawn_scene.write_rows(writer, labels, step=50, scores=noise)
    writer.finish()
except OSError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    assert f"it goes on from the {kept} of {size[0]} rows kept in" in run.stdout
    assert "Traceback" not in run.stderr
    assert [p.name for p in tmp_path.iterdir()] == [".partial"]
    left = {p.name for p in (tmp_path / ".partial/scene").iterdir()}
    maps = {"labels.raw", *(["probabilities.raw"] if case == "geotiff" else [])}
    assert left == {*maps, "lock", "state.json"}
    info = drawn_scene.scene(*size, crs=drawn_scene.UTM)
    labels = np.random.default_rng(0).integers(0, 3, size).astype(np.uint8)
    with drawn_scene.open_writer(tmp_path, info, **options) as writer:
        assert writer.rows_done == kept
        drawn_scene.write_rows(writer, labels)
        path = writer.finish()["labels"]
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), labels)


def test_a_scene_that_another_process_writes_is_left_alone(tmp_path):
    info = drawn_scene.scene(40, 30)
    labels = drawn_scene.draw_labels(40, 30)
    child = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import drawn_scene
from uhrjax import errors
try:
    drawn_scene.open_writer({str(tmp_path)!r}, drawn_scene.scene(40, 30))
except errors.InputError as error:
    print(error)
"""
    line = [sys.executable, "-c", child]
    with drawn_scene.open_writer(tmp_path, info) as writer:
        drawn_scene.write_rows(writer, labels, until=20)
        run = subprocess.run(line, capture_output=True, text=True)
        assert f"another process is writing scene into {tmp_path}; wait" in run.stdout
        drawn_scene.write_rows(writer, labels)
        path = writer.finish()["labels"]
    assert (cv2.imread(str(path), cv2.IMREAD_UNCHANGED) == labels).all()
    run = subprocess.run(line, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout == ""


def test_full_disk_while_gdal_encodes_is_noticed(tmp_path, monkeypatch):
    labels = drawn_scene.draw_labels(30, 20)
    info = drawn_scene.scene(30, 20, crs=drawn_scene.UTM)
    writer = drawn_scene.open_writer(tmp_path, info)
    drawn_scene.write_rows(writer, labels)
    true = rasterio.open

    def cut(path, mode="r", **options):
        if mode == "r":
            os.truncate(path, 200)
        return true(path, mode, **options)

    with monkeypatch.context() as patch:
        patch.setattr("rasterio.open", cut)
        with pytest.raises(OSError, match="not stored completely"):
            writer.finish()
    assert [p.name for p in tmp_path.iterdir()] == [".partial"]
    with rasterio.open(writer.finish()["labels"]) as file:  # space was made
        np.testing.assert_array_equal(file.read(1), labels)


def test_output_that_is_a_file_says_to_choose_a_folder(tmp_path):
    (tmp_path / "masks").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*masks.*that is a folder"):
        drawn_scene.open_writer(tmp_path / "masks", drawn_scene.scene(4, 4))


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_input_is_never_overwritten(tmp_path, link):
    source = tmp_path / "scene.png"
    source.write_bytes(b"an image")
    if link != "same":
        other = tmp_path / "other.png"
        (other.symlink_to if link == "symbolic" else other.hardlink_to)(source)
        source = other
    with pytest.raises(errors.InputError, match="would overwrite the input"):
        drawn_scene.open_writer(tmp_path, drawn_scene.scene(4, 4), source=source)
    assert (tmp_path / "scene.png").read_bytes() == b"an image"
    assert not (tmp_path / ".partial").exists()


@pytest.mark.parametrize("name", ["scene.png", "scene_overlay.png", "scene.json"])
def test_file_of_someone_else_is_not_overwritten(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(errors.InputError, match=f"{name} exists and no record"):
        drawn_scene.open_writer(tmp_path, drawn_scene.scene(4, 4))


def test_two_inputs_of_one_stem_cannot_take_turns(tmp_path):
    sources = [tmp_path / "a.tif", tmp_path / "a.png"]
    for source in sources:
        source.write_text("")
    info = drawn_scene.scene(4, 4, name="a")
    labels = drawn_scene.draw_labels(4, 4)
    drawn_scene.write(tmp_path / "out", info, labels, source=sources[0])
    with pytest.raises(errors.InputError, match=r"another scene \(.*a\.tif\)"):
        drawn_scene.open_writer(tmp_path / "out", info, source=sources[1])
    sources[0].unlink()  # the first input was renamed
    assert drawn_scene.open_writer(
        tmp_path / "out", info, source=sources[1]
    ).is_complete


def test_rows_out_of_order_or_of_another_shape_are_refused(tmp_path):
    writer = drawn_scene.open_writer(
        tmp_path, drawn_scene.scene(10, 6), uncertainty="margin"
    )
    rows, sure = np.zeros((4, 6), np.uint8), np.full((4, 6, 3), 1 / 3, np.float32)
    with pytest.raises(ValueError, match="rows 4 to 8 do not follow the 0 of 10"):
        writer.write_rows(4, rows, sure)
    with pytest.raises(ValueError, match="the scene is 6 px wide"):
        writer.write_rows(0, rows[:, :5], sure[:, :5])
    with pytest.raises(ValueError, match="probabilities None"):
        writer.write_rows(0, rows)
    writer.write_rows(0, rows, sure)
    with pytest.raises(ValueError, match="4 of 10 rows are there"):
        writer.finish()


def test_overlay_blends_colours_over_the_input(tmp_path):
    labels = np.zeros((80, 40), np.uint8)
    labels[40:], labels[70:] = 2, 255
    with drawn_scene.open_writer(
        tmp_path, drawn_scene.scene(80, 40), overlay_side=40
    ) as writer:
        writer.set_overview(np.full((80, 40, 3), 100, np.uint8))
        drawn_scene.write_rows(writer, labels)
        path = writer.finish()["overlay"]
    picture = cv2.imread(str(path))[..., ::-1]
    assert picture.shape[1] > 20  # the scene, reduced to 40 x 20, and the legend
    assert tuple(picture[5, 5]) == (55, 60, 65)
    assert tuple(picture[25, 5]) == (178, 114, 50)
    assert tuple(picture[38, 5]) == (100, 100, 100)
    assert tuple(picture[12, 30]) == drawn_scene.COLOURS[0]


def test_nearest_takes_the_pixel_under_each_centre():
    assert overlay.nearest(6, reduced=3).tolist() == [1, 3, 5]
    assert overlay.nearest(3, reduced=6).tolist() == [0, 0, 1, 1, 2, 2]
    assert overlay.reduced_shape(1, 40000, side=1024) == (1, 1024)


def test_memory_does_not_grow_with_the_height_of_a_scene(tmp_path):
    child = f"""
import resource, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import drawn_scene, numpy as np
strip = drawn_scene.draw_labels(1000, 1000)
sure = drawn_scene.draw_probabilities(strip)
for height in (1000, 40000):
    for crs in (None, drawn_scene.UTM):
        name = f"s{{height}}{{bool(crs)}}"
        info = drawn_scene.scene(height, 1000, crs=crs, name=name)
        asked = {{"probabilities": "uint8"}} if crs else {{}}
        with drawn_scene.open_writer({str(tmp_path)!r}, info, **asked) as writer:
            for top in range(0, height, 1000):
                writer.write_rows(top, strip, sure if crs else None)
            writer.finish()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    run = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True)
    low, tall = map(int, run.stdout.split())
    assert tall - low < 24  # MB, of maps of 40 and 120 MB
