"""Scene files of every format: windows, bands, scaling, validity, levels, errors."""

import concurrent.futures
import json
import os
import pathlib
import sys
import zlib

import numpy as np
import pytest
import scene_files
from PIL import Image

from uhrjax import errors
from uhrjax.data import prepared, raster, raster_resample
from uhrjax.tiling import window as windows

pytestmark = pytest.mark.filterwarnings(
    "ignore::rasterio.errors.NotGeoreferencedWarning"
)
AWKWARD = [
    windows.Window(0, 0, 70, 41),
    windows.Window(0, 0, 1, 1),
    windows.Window(69, 40, 1, 1),
    windows.Window(-3, -5, 20, 17),
    windows.Window(33, 15, 7, 19),
    windows.Window(60, 30, 50, 50),
    windows.Window(-9, -9, 99, 99),
    windows.Window(16, 0, 0, 5),
    windows.Window(500, -80, 4, 3),
]


@pytest.fixture(scope="module")
def image():
    return scene_files.picture()


@pytest.fixture(scope="module")
def files(tmp_path_factory, image):
    folder = tmp_path_factory.mktemp("formats")
    return {name: scene_files.write(name, folder, image) for name in FORMATS}


FORMATS = tuple(scene_files.FORMATS)


def whole(scene):
    return windows.Window(0, 0, scene.info.height, scene.info.width)


def read(path, **options):
    """Returns all pixels of a scene."""
    with raster.open_scene(path, raster.ReadOptions(**options)) as scene:
        return scene.read(whole(scene))


def refusal(path, **options):
    """Returns what is said about a file or options that cannot be used."""
    with pytest.raises(errors.InputError) as caught:
        read(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_any_window_of_any_format_equals_the_slice(files, image, name):
    with raster.open_scene(files[name]) as scene:
        assert (scene.info.height, scene.info.width) == image.shape[:2]
        for window in AWKWARD:
            found = scene.read(window)
            assert found.dtype == np.uint8 and found.flags.c_contiguous
            np.testing.assert_array_equal(found, windows.cut(image, window, fill=0))


@pytest.mark.parametrize("name", FORMATS)
def test_the_ending_of_a_file_does_not_matter(files, image, name, tmp_path):
    if files[name].is_dir():
        return
    path = tmp_path / "scene.dat"
    path.write_bytes(files[name].read_bytes())
    np.testing.assert_array_equal(read(path), image)


@pytest.mark.parametrize("name", FORMATS)
def test_validity_is_none_inside_and_false_beyond_the_border(files, name):
    with raster.open_scene(files[name]) as scene:
        for window in AWKWARD:
            valid = scene.read_valid(window)
            inside = windows.intersect(window, height=70, width=41)
            if inside == window:
                assert valid is None or valid.all()
            else:
                ones = np.ones((70, 41), bool)
                expected = windows.cut(ones, window, fill=False)
                np.testing.assert_array_equal(valid, expected)


def test_jpeg_is_read_as_pillow_decodes_it(tmp_path, image):
    path = tmp_path / "a.jpg"
    Image.fromarray(image).save(path, quality=90)
    np.testing.assert_array_equal(read(path), np.asarray(Image.open(path)))


def test_prepared_scenes_are_listed_by_split_and_read(squares, tmp_path):
    from data_builders import prepare

    info = prepare.prepare("folder", data_dir=tmp_path, dir=squares, configs=["scenes"])
    folder = prepared.locate(tmp_path, info.name, "scenes")
    listed = raster.list_scenes(f"{folder}:val")
    assert [path.name for path in listed] == ["val0", "val1", "val2"]
    for path in listed:
        source = np.asarray(Image.open(squares / "val" / "images" / f"{path.name}.png"))
        np.testing.assert_array_equal(read(path), source)
    with pytest.raises(errors.InputError, match=r"say which split.*:train or .*:val"):
        raster.list_scenes(folder)
    with pytest.raises(errors.InputError, match="say which split"):
        raster.list_scenes(f"{folder}:test")
    assert "it has val0, val1, val2" in refusal(f"{folder}:val/absent")


def test_grey_is_repeated_in_every_format(tmp_path):
    grey = scene_files.picture(bands=1)
    paths = [
        scene_files.write_png(tmp_path / "a.png", grey),
        scene_files.write_tiff(tmp_path / "a.tif", grey),
        scene_files.write_npy(tmp_path / "a.npy", grey[..., 0]),
        scene_files.write_zarr(tmp_path / "a.zarr", grey[..., 0]),
        scene_files.write_zarr(tmp_path / "b.zarr", grey[None, None, ..., 0]),
    ]
    for path in paths:
        np.testing.assert_array_equal(read(path), np.repeat(grey, 3, axis=2))


@pytest.mark.parametrize("ending", [".tif", ".npy", ".zarr"])
def test_bands_are_chosen_and_ordered(tmp_path, ending):
    pixels = scene_files.picture(bands=7)
    path = tmp_path / f"a{ending}"
    writers = {
        ".tif": scene_files.write_tiff,
        ".npy": scene_files.write_npy,
        ".zarr": scene_files.write_zarr,
    }
    writers[ending](path, pixels)
    np.testing.assert_array_equal(read(path, bands=(6, 4, 2)), pixels[..., [5, 3, 1]])
    grey = np.repeat(pixels[..., 6:], 3, axis=2)
    np.testing.assert_array_equal(read(path, bands=(7,)), grey)
    assert "7 bands" in refusal(path) and "--config.predict.bands=" in refusal(path)
    assert "no band 8; it has 7" in refusal(path, bands=(8,))


def test_named_zarr_axes_settle_which_are_the_bands(tmp_path):
    pixels = scene_files.picture(3, 9, bands=5)
    path = tmp_path / "a.zarr"
    scene_files.write_zarr(path, np.moveaxis(pixels, -1, 0), names=["band", "y", "x"])
    np.testing.assert_array_equal(read(path, bands=(1, 2, 3)), pixels[..., :3])


@pytest.mark.parametrize("ending", [".tif", ".png", ".npy", ".zarr"])
@pytest.mark.parametrize("bands", [1, 3])
def test_sixteen_bits_are_scaled_as_said(tmp_path, ending, bands):
    values = np.arange(70 * 41 * bands, dtype=np.uint16).reshape(70, 41, bands) * 7
    path = tmp_path / f"a{ending}"
    writers = {
        ".tif": scene_files.write_tiff,
        ".png": scene_files.write_png,
        ".npy": scene_files.write_npy,
        ".zarr": scene_files.write_zarr,
    }
    writers[ending](path, values)
    low, high = 500, 9000
    expected = np.rint((values.astype(float) - low).clip(0, high - low) * 255 / 8500)
    found = read(path, scale=(low, high))[..., :bands]
    assert np.abs(found - expected).max() <= 1  # halves: float32 and float64 differ
    assert (found == expected).mean() > 0.99
    said = refusal(path)
    assert "uint16" in said
    suggested = said.split("predict.scale='(")[1].split(")")[0].split(",")
    low, high = np.percentile(values, (2, 98))
    np.testing.assert_allclose([float(one) for one in suggested], (low, high), rtol=0.3)


def test_scaling_takes_every_kind_of_number(tmp_path):
    for dtype in ("int8", "int16", ">u2", "int32", "uint64", "float32", "float64"):
        values = np.array([[0, 10, 20, 100]], dtype)
        path = scene_files.write_npy(tmp_path / f"{dtype.strip('>')}.npy", values)
        found = read(path, scale=(0, 20))[0, :, 0].tolist()
        assert found == [0, 128, 255, 255], dtype
    flags = scene_files.write_npy(tmp_path / "b.npy", np.array([[False, True]]))
    assert read(flags, scale=(0, 1))[0, :, 0].tolist() == [0, 255]
    wild = np.array([[np.nan, -np.inf, np.inf, 1]], np.float32)
    wild = scene_files.write_npy(tmp_path / "f.npy", wild)
    assert read(wild, scale=(0, 2))[0, :, 0].tolist() == [0, 0, 255, 128]


@pytest.mark.parametrize("ending", [".tif", ".png", ".npy"])
def test_transparent_pixels_are_not_valid(tmp_path, ending):
    pixels = scene_files.picture(bands=4)
    pixels[..., 3] = np.where(np.arange(41) % 3, 200, 0)
    path = tmp_path / f"a{ending}"
    writers = {
        ".tif": scene_files.write_tiff,
        ".png": scene_files.write_png,
        ".npy": scene_files.write_npy,
    }
    writers[ending](path, pixels)
    with raster.open_scene(path) as scene:
        np.testing.assert_array_equal(scene.read(whole(scene)), pixels[..., :3])
        for window in AWKWARD:
            expected = windows.cut(pixels[..., 3] > 0, window, fill=False)
            np.testing.assert_array_equal(scene.read_valid(window), expected)


def test_transparency_of_palette_and_grey_png_is_kept(tmp_path):
    grey = Image.fromarray(scene_files.picture(bands=1)[..., 0])
    grey.save(tmp_path / "a.png", transparency=int(np.asarray(grey)[0, 0]))
    with raster.open_scene(tmp_path / "a.png") as scene:
        expected = np.asarray(grey) != np.asarray(grey)[0, 0]
        np.testing.assert_array_equal(scene.read_valid(whole(scene)), expected)
        rgb = np.repeat(np.asarray(grey)[..., None], 3, axis=2)
        np.testing.assert_array_equal(scene.read(whole(scene)), rgb)


def test_nodata_counts_where_all_bands_have_it(tmp_path):
    pixels = scene_files.picture(dtype=np.int16)
    pixels[10:20, 5:9] = -999
    pixels[30, 30, 1] = -999
    path = scene_files.write_tiff(tmp_path / "a.tif", pixels, nodata=-999)
    with raster.open_scene(path, raster.ReadOptions(scale=(0, 255))) as scene:
        assert scene.nodata == -999
        expected = ~(pixels == -999).all(axis=2)
        np.testing.assert_array_equal(scene.read_valid(whole(scene)), expected)
    floats = np.full((9, 9), 3, np.float32)
    floats[4] = np.nan
    path = scene_files.write_npy(tmp_path / "a.npy", floats)
    with raster.open_scene(path, raster.ReadOptions(scale=(0, 4))) as scene:
        np.testing.assert_array_equal(scene.read_valid(whole(scene)), floats == 3)


def test_the_mask_inside_a_tiff_is_honoured(tmp_path, image):
    import rasterio

    path = scene_files.write_tiff(tmp_path / "a.tif", image)
    mask = np.arange(70 * 41).reshape(70, 41) % 5 > 0
    env = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True)
    with env, rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    with raster.open_scene(path) as scene:
        np.testing.assert_array_equal(scene.read_valid(whole(scene)), mask)


def test_a_tiff_palette_becomes_colours(tmp_path):
    import rasterio

    index = scene_files.picture(bands=1) % 4
    path = tmp_path / "a.tif"
    scene_files.write_tiff(path, index, photometric="palette")
    table = np.array([[1, 2, 3], [200, 0, 9], [7, 77, 177], [255, 255, 0]], np.uint8)
    with rasterio.open(path, "r+") as file:
        file.write_colormap(
            1, {i: (*map(int, rgb), 255) for i, rgb in enumerate(table)}
        )
    np.testing.assert_array_equal(read(path), table[index[..., 0]])
    source = raster.open_source(path, raw=True)
    window = windows.Window(3, 4, 5, 6)
    found = source.read(window, level=0, bands=(0,))
    np.testing.assert_array_equal(found, index[3:8, 4:10])
    source.close()


def test_place_on_earth_is_kept_also_rotated_and_scaled_with_the_level(tmp_path):
    import rasterio

    image = scene_files.picture(300, 202)
    rotated = rasterio.Affine(0.4, 0.3, 100.0, 0.3, -0.4, 900.0)
    place = {"crs": rasterio.crs.CRS.from_epsg(32636), "transform": rotated}
    path = scene_files.write_cog(tmp_path / "a.tif", image, **place)
    with raster.open_scene(path) as scene:
        assert scene.info.id == "a"
        assert scene.info.transform == tuple(rotated)[:6]
        assert rasterio.crs.CRS.from_wkt(scene.info.crs).to_epsg() == 32636
        assert scene.mpp == pytest.approx((0.5e6, 0.5e6))
    with rasterio.open(path, overview_level=0) as file:
        expected, reduced = file.transform, np.moveaxis(file.read(), 0, -1)
    for options in ({"level": 1}, {"mpp": 1.0e6}):
        with raster.open_scene(path, raster.ReadOptions(**options)) as scene:
            assert (scene.info.height, scene.info.width) == (150, 101)
            assert scene.info.transform == pytest.approx(tuple(expected)[:6])
            np.testing.assert_array_equal(scene.read(whole(scene)), reduced)
    assert "no level 3; it has 0: 300 x 202 px, 1:" in refusal(path, level=3)


@pytest.mark.parametrize("name", ["ome", "slide"])
def test_slides_are_read_at_a_level_or_microns_per_pixel(files, image, name):
    with raster.open_scene(files[name]) as scene:
        assert scene.mpp == ((0.25, 0.5) if name == "ome" else (0.5, 0.5))
        if name == "slide":
            assert scene.read_valid(whole(scene)).all()
    with raster.open_scene(files[name], raster.ReadOptions(level=1)) as scene:
        assert (scene.info.height, scene.info.width) == (35, 21)
        np.testing.assert_array_equal(scene.read(whole(scene)), image[::2, ::2])
    with raster.open_scene(files[name], raster.ReadOptions(mpp=0.7)) as scene:
        height = 25 if name == "ome" else 50
        assert (scene.info.height, scene.info.width) == (height, 29)
        assert scene.mpp == pytest.approx((0.7, 0.7), rel=0.02)


@pytest.mark.parametrize("mpp", [1.3, 2.0, 0.7, 9.0])
def test_any_window_of_a_resampled_scene_equals_the_slice(tmp_path, mpp):
    pixels = scene_files.picture(bands=4)
    pixels[..., 3] = 255 * (pixels[..., 3] > 60)
    path = scene_files.write_tiff(tmp_path / "a.tif", pixels)
    import rasterio

    with rasterio.open(path, "r+") as file:
        file.update_tags(TIFFTAG_RESOLUTIONUNIT=3)
        file.update_tags(TIFFTAG_XRESOLUTION=1e4, TIFFTAG_YRESOLUTION=1e4)
    with raster.open_scene(path, raster.ReadOptions(mpp=mpp)) as scene:
        info = scene.info
        assert (info.height, info.width) == (round(70 / mpp), round(41 / mpp))
        full, valid = scene.read(whole(scene)), scene.read_valid(whole(scene))
        for window in AWKWARD:
            expected = windows.cut(full, window, fill=0)
            np.testing.assert_array_equal(scene.read(window), expected)
            expected = windows.cut(valid, window, fill=False)
            np.testing.assert_array_equal(scene.read_valid(window), expected)


def test_resizing_averages_areas_and_keeps_constants():
    flat = np.full((31, 17, 3), 201, np.uint8)
    ramp = np.repeat(np.arange(60, dtype=np.uint8)[:, None, None], 3, axis=2)
    for target in ((7, 5), (31, 17), (40, 90), (1, 1)):
        found = raster_resample.resize(
            lambda window: windows.cut(flat, window, fill=0),
            windows.Window(0, 0, *target), source_size=(31, 17), target_size=target,
        )  # fmt: skip
        assert found.shape == (*target, 3) and (found == 201).all()
    found = raster_resample.resize(
        lambda window: windows.cut(ramp, window, fill=0),
        windows.Window(0, 0, 20, 1), source_size=(60, 1), target_size=(20, 1),
    )  # fmt: skip
    assert found[:, 0, 0].tolist() == list(range(1, 60, 3))


def test_resizing_reads_a_large_scene_in_bands(monkeypatch):
    image = scene_files.picture(200, 30)
    sizes = {"source_size": (200, 30), "target_size": (33, 7)}
    seen = []

    def cut(window):
        seen.append(window.height)
        return windows.cut(image, window, fill=0)

    window = windows.Window(0, 0, 33, 7)
    at_once = raster_resample.resize(cut, window, **sizes)
    monkeypatch.setattr(raster_resample, "BAND_PIXELS", 600)
    seen.clear()
    np.testing.assert_array_equal(raster_resample.resize(cut, window, **sizes), at_once)
    assert max(seen) < 40


@pytest.mark.parametrize("name", FORMATS)
def test_an_overview_has_the_wanted_size_and_the_mean_colour(files, image, name):
    with raster.open_scene(files[name]) as scene:
        small = scene.overview(10)
        assert small.shape == (10, 6, 3) and small.dtype == np.uint8
        assert np.abs(small.mean((0, 1)) - image.mean((0, 1))).max() < 6
        np.testing.assert_array_equal(scene.overview(99), image)


def test_an_overview_is_made_from_the_stored_ones(tmp_path, monkeypatch):
    path = scene_files.write_cog(tmp_path / "a.tif", scene_files.picture(300, 300))
    from uhrjax.data import raster_tiff

    levels = []
    original = raster_tiff.TiffSource.read

    def spy(self, window, *, level, bands):
        levels.append(level)
        return original(self, window, level=level, bands=bands)

    monkeypatch.setattr(raster_tiff.TiffSource, "read", spy)
    with raster.open_scene(path) as scene:
        assert scene.overview(60).shape == (60, 60, 3)
    assert set(levels) == {2}


def test_folders_globs_and_lists_name_scenes_once_and_sorted(files, tmp_path, image):
    for name in ("b.png", "a.png"):
        scene_files.write_png(tmp_path / name, image)
    scene_files.write_zarr(tmp_path / "z.zarr", image)
    (tmp_path / "plain").write_bytes(files["npy"].read_bytes())
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no scene")
    (tmp_path / "a.tif.ovr").write_bytes(files["cog"].read_bytes())
    (tmp_path / "deeper").mkdir()

    def names(pattern):
        return [path.name for path in raster.list_scenes(pattern)]

    everything = ["a.png", "b.png", "empty.tif", "plain", "z.zarr"]
    assert names(tmp_path) == everything
    assert names(str(tmp_path / "*.png")) == ["a.png", "b.png"]
    assert names([tmp_path / "b.png", str(tmp_path / "*.png")]) == ["a.png", "b.png"]
    assert names(tmp_path / "z.zarr") == ["z.zarr"]
    for nothing in (tmp_path / "deeper", tmp_path / "absent.tif", f"{tmp_path}/*.jp2"):
        with pytest.raises(FileNotFoundError, match="give a scene, a folder"):
            raster.list_scenes(nothing)
    with pytest.raises(FileNotFoundError, match="no such file"):
        raster.open_scene(tmp_path / "absent.tif")


def test_files_that_are_no_scenes_get_one_sentence(tmp_path):
    (tmp_path / "empty.tif").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder").mkdir()
    assert "the file is empty (0 bytes)" in refusal(tmp_path / "empty.tif")
    assert "not a readable PNG, JPEG or TIFF" in refusal(tmp_path / "text.png")
    assert "no zarr array" in refusal(tmp_path / "folder")
    spectrum = scene_files.write_npy(tmp_path / "c.npy", np.ones((4, 4), complex))
    assert "complex128 values" in refusal(spectrum)
    stack = scene_files.write_npy(tmp_path / "s.npy", np.ones((2, 2, 5, 3), np.uint8))
    assert "a scene is [H, W]" in refusal(stack)


def test_ome_zarr_has_its_levels(tmp_path):
    image = scene_files.picture()
    path = tmp_path / "a.zarr"
    stack = np.moveaxis(image, -1, 0)[None, :, None]  # t, c, z, y, x
    scene_files.write_zarr(path / "0", stack)
    scene_files.write_zarr(path / "1", stack[..., ::2, ::2])
    scales = {
        "axes": [{"name": name} for name in "tczyx"],
        "datasets": [{"path": "0"}, {"path": "1"}],
    }
    described = {"node_type": "group", "zarr_format": 3}
    (path / "zarr.json").write_text(json.dumps(described))
    assert "name one of its arrays: 0, 1" in refusal(path)
    described["attributes"] = {"ome": {"multiscales": [scales]}}
    (path / "zarr.json").write_text(json.dumps(described))
    np.testing.assert_array_equal(read(path), image)
    np.testing.assert_array_equal(read(path, level=1), image[::2, ::2])


@pytest.mark.parametrize("name", FORMATS)
def test_other_threads_may_read(files, image, name):
    with raster.open_scene(files[name]) as scene:
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            found = list(pool.map(scene.read, AWKWARD * 3))
        for pixels, window in zip(found, AWKWARD * 3, strict=True):
            np.testing.assert_array_equal(pixels, windows.cut(image, window, fill=0))


@pytest.mark.parametrize("name", ["npy", "tiff_tiles", "ome"])
def test_a_file_that_is_cut_off_while_open_is_refused(tmp_path, image, name):
    path = scene_files.write(name, tmp_path, image)
    with raster.open_scene(path) as scene:
        os.truncate(path, path.stat().st_size // 3)
        with pytest.raises(errors.InputError, match="does not decode"):
            scene.read(whole(scene))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bands": (1, 2)}, "one band"),
        ({"bands": (0,)}, "counted from 1"),
        ({"scale": (1.0,)}, "two finite values"),
        ({"scale": (3, 3)}, "low < high"),
        ({"scale": (0, float("inf"))}, "two finite values"),
        ({"level": -1}, "a level >= 0"),
        ({"mpp": -0.5}, "a level >= 0"),
        ({"mpp": 0.5, "level": 1}, "not both"),
    ],
)
def test_a_wrong_option_says_what_is_allowed(options, message):
    with pytest.raises(errors.InputError, match=message):
        raster.ReadOptions(**options)


def test_microns_of_a_file_without_scale_are_refused(files):
    assert "does not say how large" in refusal(files["png"], mpp=0.5)


@pytest.mark.parametrize(
    ("name", "libraries", "extra"),
    [
        ("tiff_tiles", ["rasterio"], "geo"),
        ("ome", ["tifffile"], "wsi"),
        ("slide", ["openslide", "rasterio"], "geo"),
    ],
)
def test_a_missing_library_says_what_to_install(
    files, monkeypatch, name, libraries, extra
):
    for library in libraries:
        monkeypatch.setitem(sys.modules, library, None)
    assert f"pip install 'uhrjax[{extra}]'" in refusal(files[name])


def test_a_headers_lie_about_the_size_takes_no_memory(tmp_path, image):
    path = scene_files.write_png(tmp_path / "a.png", image)
    lie = bytearray(path.read_bytes())
    lie[16:24] = (10**6).to_bytes(4, "big") * 2
    lie[29:33] = zlib.crc32(lie[12:29]).to_bytes(4, "big")
    path.write_bytes(lie)
    assert "the header says 1000000 x 1000000 px" in refusal(path)


@pytest.mark.parametrize("name", ["tiff_tiles", "tiff_strips", "ome", "slide"])
def test_a_damaged_tile_names_file_and_window_and_spares_the_rest(
    tmp_path, files, image, name
):
    path = pathlib.Path(tmp_path / files[name].name)
    good = files[name].read_bytes()
    if name == "tiff_strips":
        path.write_bytes(good[:-500])
    else:
        import tifffile

        with tifffile.TiffFile(files[name]) as file:
            page = file.pages[0]
            start = page.dataoffsets[-1]
            end = start + page.databytecounts[-1]
        path.write_bytes(good[:start] + b"\xff" * (end - start) + good[end:])
    with raster.open_scene(path) as scene:
        first = windows.Window(0, 0, 16, 16)
        np.testing.assert_array_equal(scene.read(first), image[:16, :16])
        with pytest.raises(errors.InputError) as caught:
            scene.read(windows.Window(60, 30, 10, 11))
        said = str(caught.value)
        assert path.name in said
        assert "window of 10 x 11 px at row 60, column 30 does not decode (" in said
