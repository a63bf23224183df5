"""The label map, opened with the libraries that its readers will use."""

import cv2
import drawn_scene
import numpy as np
import PIL.Image
import pytest
import rasterio

from uhrjax import errors, output
from uhrjax.output import geotiff

SIZES = [(1, 1), (1, 700), (700, 1), (16, 16), (256, 257), (300, 511), (513, 40)]


@pytest.mark.parametrize("size", SIZES)
def test_png_holds_the_ids_for_every_reader(tmp_path, size):
    labels = drawn_scene.draw_labels(*size)
    files = drawn_scene.write(tmp_path, drawn_scene.scene(*size), labels)
    assert files["labels"] == tmp_path / "scene.png"
    read = cv2.imread(str(files["labels"]), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read.reshape(size), labels)
    with PIL.Image.open(files["labels"]) as picture:
        np.testing.assert_array_equal(np.array(picture), labels)
        assert picture.info["class_2"] == "Gebäude"


@pytest.mark.parametrize("size", SIZES)
def test_geotiff_holds_ids_and_place(tmp_path, size):
    labels = drawn_scene.draw_labels(*size)
    info = drawn_scene.scene(*size, crs=drawn_scene.UTM, transform=drawn_scene.ROTATED)
    files = drawn_scene.write(tmp_path, info, labels)
    with rasterio.open(files["labels"]) as file:
        np.testing.assert_array_equal(file.read(1), labels)
        assert file.crs.to_epsg() == 32636
        assert file.transform.almost_equals(rasterio.Affine(*drawn_scene.ROTATED))
        assert file.nodata == 255
        assert file.profile["tiled"] and file.compression.value == "DEFLATE"
        for i, colour in enumerate(drawn_scene.COLOURS):
            assert file.colormap(1)[i] == (*colour, 255)
            assert file.tags()[f"class_{i}"] == drawn_scene.CLASSES[i]
        np.testing.assert_array_equal(file.dataset_mask() == 0, labels == 255)


def test_png_with_palette_shows_colours_and_keeps_ids(tmp_path):
    labels = drawn_scene.draw_labels(40, 50)
    info = drawn_scene.scene(40, 50)
    path = drawn_scene.write(tmp_path, info, labels, palette=True)["labels"]
    with PIL.Image.open(path) as picture:
        assert picture.mode == "P"
        np.testing.assert_array_equal(np.array(picture), labels)
        shown = np.array(picture.convert("RGB"))
    water = labels == 1
    assert (shown[water] == drawn_scene.COLOURS[1]).all()
    with rasterio.open(path) as file:
        assert file.nodata == 255


@pytest.mark.parametrize(
    "place",
    [{"crs": drawn_scene.UTM}, {"transform": drawn_scene.ROTATED}],
    ids=["crs_only", "transform_only"],
)
def test_half_a_place_on_earth_gives_a_geotiff(tmp_path, place):
    labels = drawn_scene.draw_labels(9, 8)
    files = drawn_scene.write(tmp_path, drawn_scene.scene(9, 8, **place), labels)
    with rasterio.open(files["labels"]) as file:
        np.testing.assert_array_equal(file.read(1), labels)
        assert (file.crs is not None) == ("crs" in place)
        found = file.transform == rasterio.Affine(*drawn_scene.ROTATED)
        assert found == ("transform" in place)


def test_tiff_without_a_place_is_written_when_asked_for(tmp_path):
    info = drawn_scene.scene(9, 8, transform=(1, 0, 0, 0, 1, 0))
    labels = drawn_scene.draw_labels(9, 8)
    assert drawn_scene.write(tmp_path / "a", info, labels)["labels"].suffix == ".png"
    path = drawn_scene.write(tmp_path / "b", info, labels, tiff=True)["labels"]
    assert path.suffix == ".tif"
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(1), labels)


def test_a_large_geotiff_has_overviews_down_to_one_tile(tmp_path):
    labels = drawn_scene.draw_labels(530, 1100)
    scores = drawn_scene.draw_probabilities(labels)
    info = drawn_scene.scene(530, 1100, crs=drawn_scene.UTM)
    made = {"probabilities": "float16", "uncertainty": "entropy"}
    files = drawn_scene.write(tmp_path, info, labels, scores=scores, **made)
    for kind in ("labels", *made):
        with rasterio.open(files[kind]) as file:
            assert file.overviews(1) == [2, 4, 8]
    with rasterio.open(files["labels"], overview_level=2) as file:
        small = file.read(1)
    assert small.shape == (67, 138)
    assert set(np.unique(small)) == {0, 1, 2, 255}  # ids of pixels, no means of them
    for value in (0, 1, 2, 255):
        assert (small == value).mean() == pytest.approx(
            (labels == value).mean(), abs=0.01
        )
    with rasterio.open(files["probabilities"], overview_level=0) as file:
        small = file.read(1)
    known = np.where((labels == 255)[..., None], np.nan, scores)[:528, :1096, 0]
    means = np.nanmean(known.reshape(264, 2, 548, 2), axis=(1, 3))
    np.testing.assert_allclose(small[:264, :548], means, atol=2e-3)
    with rasterio.open(
        drawn_scene.write(tmp_path / "b", drawn_scene.scene(256, 9), labels[:256, :9],
        tiff=True)["labels"]
    ) as file:  # fmt: skip
        assert file.overviews(1) == []


@pytest.mark.parametrize("crs", [None, drawn_scene.UTM], ids=["png", "geotiff"])
def test_write_mask_equals_the_rows_written_one_by_one(tmp_path, crs):
    labels = drawn_scene.draw_labels(270, 90)
    info = drawn_scene.scene(270, 90, crs=crs, transform=drawn_scene.ROTATED)
    info = info if crs else drawn_scene.scene(270, 90)
    rows = drawn_scene.write(tmp_path / "rows", info, labels)["labels"]
    (tmp_path / "whole").mkdir()
    whole = output.write_mask(
        tmp_path / "whole", labels, info, drawn_scene.COLOURS, drawn_scene.CLASSES
    )
    assert whole.read_bytes() == rows.read_bytes()
    assert [p.name for p in whole.parent.iterdir()] == [whole.name]


def test_write_mask_that_fails_leaves_the_old_file_alone(tmp_path, monkeypatch):
    labels = drawn_scene.draw_labels(20, 20)
    rest = (drawn_scene.scene(20, 20), drawn_scene.COLOURS, drawn_scene.CLASSES)
    path = output.write_mask(tmp_path, labels, *rest)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("uhrjax.output.partial.os.fsync", fail)
    with pytest.raises(OSError, match="No space left on device; free some space"):
        output.write_mask(tmp_path, 0 * labels, *rest)
    assert drawn_scene.contents(tmp_path) == {path.name: before}


def test_geotiff_that_gdal_lost_in_silence_is_noticed(tmp_path):
    # GDAL reports success when the disk is full and threads compress: stand in for
    # that by giving other pixels at the second reading.
    calls = []

    def read_rows(top, bottom):
        calls.append(top)
        return np.full((bottom - top, 30), len(calls), np.uint8)

    layout = geotiff.Layout(drawn_scene.scene(10, 30), ("class",), 255)
    with pytest.raises(OSError, match="not stored completely"):
        geotiff.write(tmp_path / "a.tif", read_rows, layout)


@pytest.mark.parametrize(
    ("info", "options", "reason"),
    [
        (drawn_scene.scene(4, 4, crs=drawn_scene.UTM), {}, "its place on earth"),
        (drawn_scene.scene(4, 4), {"probabilities": "uint8"}, "probabilities"),
        (drawn_scene.scene(4, 4), {"polygons": "geojson"}, "polygons"),
    ],
    ids=["crs", "probabilities", "polygons"],
)
def test_without_rasterio_the_extra_is_named(
    tmp_path, monkeypatch, info, options, reason
):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(errors.InputError, match=rf"{reason}.*uhrjax\[geo\]"):
        drawn_scene.open_writer(tmp_path / "out", info, **options)
    assert not (tmp_path / "out").exists()
    assert drawn_scene.open_writer(tmp_path, drawn_scene.scene(4, 4)).rows_done == 0
