"""Probabilities and uncertainty as files."""

import drawn_scene
import numpy as np
import pytest
import rasterio

from uhrjax import errors, output
from uhrjax.output import certainty

SIZE = (270, 41)


def write_and_open(folder, kind, **options):
    labels = drawn_scene.draw_labels(*SIZE)
    probabilities = drawn_scene.draw_probabilities(labels)
    files = drawn_scene.write(
        folder, drawn_scene.scene(*SIZE), labels, scores=probabilities, **options
    )
    return labels, probabilities, rasterio.open(files[kind])


def test_bytes_times_scale_are_the_probabilities(tmp_path):
    labels, true, file = write_and_open(
        tmp_path, "probabilities", probabilities="uint8"
    )
    with file:
        read = np.moveaxis(file.read(masked=True), 0, -1)
        assert file.descriptions == drawn_scene.CLASSES
        assert (read.mask == (labels == 255)[..., None]).all()
        error = np.abs(read * file.scales[0] - true)
    assert error.max() <= 0.5 / 254 + 1e-6


def test_half_floats_keep_their_bits_and_nan_is_nodata(tmp_path):
    labels, true, file = write_and_open(
        tmp_path, "probabilities", probabilities="float16"
    )
    with file:
        read = np.moveaxis(file.read(), 0, -1)
        assert np.isnan(file.nodata)
        assert file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "16") == "16"
    expected = true.astype(np.float16)
    expected[labels == 255] = np.nan
    np.testing.assert_array_equal(read.astype(np.float16), expected)


@pytest.mark.parametrize("kind", ["entropy", "margin"])
def test_uncertainty_file_holds_the_measure(tmp_path, kind):
    labels, true, file = write_and_open(tmp_path, "uncertainty", uncertainty=kind)
    with file:
        read = file.read(1, masked=True) * file.scales[0]
        assert file.descriptions == (kind,) and file.nodata == 255
    np.testing.assert_array_equal(read.mask, labels == 255)
    expected = getattr(certainty, kind)(true)
    assert np.abs(read - expected).max() <= 0.5 / 254 + 1e-6


@pytest.mark.parametrize("measure", [certainty.entropy, certainty.margin])
def test_uncertainty_is_0_when_sure_and_1_when_not(measure):
    np.testing.assert_allclose(measure(np.eye(4, dtype=np.float32)), 0, atol=1e-6)
    np.testing.assert_allclose(measure(np.full((3, 4), 0.25, np.float32)), 1, rtol=1e-6)
    np.testing.assert_allclose(measure(np.ones((3, 1), np.float32)), 0, atol=1e-6)


def test_margin_is_between_the_two_largest_in_any_order():
    values = np.array([[0.1, 0.3, 0.6], [0.6, 0.1, 0.3], [0.3, 0.6, 0.1]], np.float32)
    np.testing.assert_allclose(certainty.margin(values), 0.7, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"probabilities": "uint16"}, "'uint8', 'float16'"),
        ({"uncertainty": "variance"}, "'entropy', 'margin'"),
        ({"polygons": "shp"}, "'geojson', 'gpkg'"),
        ({"overlay_side": 0}, "at least 1 px"),
        ({"polygon_min_px": -1}, "0 \\(all\\) or more"),
    ],
)
def test_unknown_option_says_what_is_allowed(wrong, match):
    with pytest.raises(errors.InputError, match=match):
        output.OutputOptions(**wrong)
