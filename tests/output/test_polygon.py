"""Polygons: exact in pixels, in the right place on earth."""

import importlib.util
import json

import drawn_scene
import numpy as np
import pyogrio
import pyogrio.raw
import pytest
import rasterio.warp

from uhrjax import errors

NORTH_UP = (0.5, 0.0, 450000.0, 0.0, -0.5, 30000.0)


def ring_area(ring):
    x, y = (np.array(ring, float) - ring[0]).T
    return np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def read_geojson(path):
    return json.loads(path.read_text(encoding="utf-8"))["features"]


def test_areas_in_pixels_equal_the_pixel_counts(tmp_path):
    labels = drawn_scene.draw_labels(130, 61)
    files = drawn_scene.write(
        tmp_path, drawn_scene.scene(130, 61), labels, polygons="geojson"
    )
    found = dict.fromkeys(drawn_scene.CLASSES, 0)
    for feature in read_geojson(files["polygons"]):
        kept = feature["properties"]
        outer, *holes = map(ring_area, feature["geometry"]["coordinates"])
        assert outer > 0 and all(hole < 0 for hole in holes)
        assert outer + sum(holes) == kept["pixels"]
        assert drawn_scene.CLASSES[kept["class_id"]] == kept["class"]
        found[kept["class"]] += kept["pixels"]
    assert found == {
        name: (labels == k).sum() for k, name in enumerate(drawn_scene.CLASSES)
    }


@pytest.mark.parametrize("transform", [NORTH_UP, drawn_scene.ROTATED])
def test_geojson_is_in_degrees_where_the_scene_is(tmp_path, transform):
    labels = np.zeros((40, 30), np.uint8)
    labels[10:20, 5:25] = 1
    info = drawn_scene.scene(40, 30, crs=drawn_scene.UTM, transform=transform)
    files = drawn_scene.write(tmp_path, info, labels, polygons="geojson")
    features = read_geojson(files["polygons"])
    (square,) = [f for f in features if f["properties"]["class"] == "water"]
    ring = np.array(square["geometry"]["coordinates"][0])
    assert ring_area(ring) > 0
    x, y = rasterio.warp.transform("EPSG:4326", "EPSG:32636", *ring.T)
    a, b, c, d, e, f = transform
    points = np.stack([x, y], axis=1) - (c, f)
    places = np.linalg.solve([[a, b], [d, e]], points.T).T
    corners = {(round(column, 3), round(row, 3)) for column, row in places}
    assert corners == {(5, 10), (25, 10), (25, 20), (5, 20)}


@pytest.mark.parametrize(
    "place",
    [{}, {"crs": drawn_scene.UTM}, {"transform": NORTH_UP}],
    ids=["nowhere", "crs_only", "transform_only"],
)
def test_half_a_place_gives_pixel_coordinates(tmp_path, place):
    labels = np.zeros((9, 6), np.uint8)
    info = drawn_scene.scene(9, 6, **place)
    path = drawn_scene.write(tmp_path, info, labels, polygons="geojson")["polygons"]
    (whole,) = read_geojson(path)
    corners = {tuple(point) for point in whole["geometry"]["coordinates"][0]}
    assert corners == {(0, 0), (6, 0), (6, 9), (0, 9)}


@pytest.mark.parametrize("crs", [None, drawn_scene.UTM], ids=["pixels", "metres"])
def test_geopackage_holds_the_same_regions(tmp_path, crs):
    labels = drawn_scene.draw_labels(90, 200)
    info = drawn_scene.scene(90, 200, crs=crs, transform=crs and NORTH_UP)
    path = drawn_scene.write(tmp_path, info, labels, polygons="gpkg")["polygons"]
    meta, _, geometry, columns = pyogrio.raw.read(path)
    fields = dict(zip(meta["fields"], columns, strict=True))
    for k, name in enumerate(drawn_scene.CLASSES):
        assert fields["pixels"][fields["class"] == name].sum() == (labels == k).sum()
    assert len(geometry) == len(fields["class_id"]) > len(drawn_scene.CLASSES)
    if crs:
        assert rasterio.crs.CRS.from_user_input(meta["crs"]).to_epsg() == 32636
        bounds = pyogrio.read_bounds(path)[1]
        assert bounds.min(1)[0] == 450000 and bounds.max(1)[3] == 30000
    else:
        assert meta["crs"] is None or "Undefined" in meta["crs"]


@pytest.mark.parametrize("kind", ["geojson", "gpkg"])
def test_small_regions_are_left_out_and_none_may_be_left(tmp_path, kind):
    labels = np.zeros((20, 20), np.uint8)
    labels[3, 3], labels[8:10, 8:10] = 1, 2
    info = drawn_scene.scene(20, 20)

    def pixels(min_px):
        path = drawn_scene.write(
            tmp_path / str(min_px), info, labels, polygons=kind, polygon_min_px=min_px
        )["polygons"]
        if kind == "gpkg":
            return sorted(pyogrio.raw.read(path)[3][2].tolist())
        return sorted(f["properties"]["pixels"] for f in read_geojson(path))

    assert pixels(0) == [1, 4, 395]
    assert pixels(4) == [4, 395]
    assert pixels(396) == []


def test_geopackage_of_many_regions_is_written_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("uhrjax.output.polygon.BATCH", 7)
    labels = np.indices((6, 6)).sum(0).astype(np.uint8) % 2
    path = drawn_scene.write(
        tmp_path, drawn_scene.scene(6, 6), labels, polygons="gpkg"
    )["polygons"]
    assert pyogrio.read_info(path)["features"] == 36


def test_geopackage_without_its_library_names_the_extra(tmp_path, monkeypatch):
    true = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda n: None if n == "pyogrio" else true(n)
    )
    with pytest.raises(errors.InputError, match=r"uhrjax\[vector\].*geojson"):
        drawn_scene.open_writer(tmp_path, drawn_scene.scene(4, 4), polygons="gpkg")
