"""Damaged files of every format are read or refused: no crash, no hang, no flood."""

import json
import resource
import sys
import time

import corrupt
import numpy as np
import pytest
import scene_files
from PIL import Image

from uhrjax import errors
from uhrjax.data import raster
from uhrjax.tiling import window as windows

EACH = 12  # of every kind of damage, per format
SECONDS = 5  # for one file; a valid one takes milliseconds
MEGABYTES = 700  # that peak memory may rise by, over all files of a format
READ = windows.Window(30, 10, 40, 45)


def write(name, folder):
    """Writes a valid file of a format."""
    image = scene_files.picture()
    if name == "jpeg":
        path = folder / "jpeg.jpg"
        Image.fromarray(image).save(path, quality=80)
        return path
    if name == "png16":
        pixels = image.astype(np.uint16) * 200
        return scene_files.write_png(folder / "png16.png", pixels)
    if name == "tiff_jpeg":
        path = folder / "tiff_jpeg.tif"
        return scene_files.write_tiff(path, image, compress="jpeg")
    return scene_files.write(name, folder, image)


def try_to_read(path):
    """Reads windows and an overview; returns what was said, or None."""
    try:
        with raster.open_scene(path, raster.ReadOptions(scale=(0, 255))) as scene:
            assert scene.read(READ).shape == (READ.height, READ.width, 3)
            scene.read_valid(READ)
            if scene.info.height * scene.info.width < 10**6:
                assert max(scene.overview(9).shape) <= 9
    except errors.InputError as error:
        return str(error)
    except FileNotFoundError:
        return f"{path}: absent"
    return None


def peak_megabytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


@pytest.mark.parametrize("name", [*scene_files.FORMATS, "jpeg", "png16", "tiff_jpeg"])
def test_damaged_files_are_read_or_refused(tmp_path, name):
    (tmp_path / "damaged").mkdir()
    path = write(name, tmp_path)
    assert try_to_read(path) is None
    before, refused = peak_megabytes(), 0
    damaged = corrupt.damaged_copies(path, tmp_path / "damaged", seed=1, each=EACH)
    for what, copy in damaged:
        start = time.perf_counter()
        said = try_to_read(copy)
        assert time.perf_counter() - start < SECONDS, what
        assert said is None or str(copy) in said, what
        refused += said is not None
    assert refused > EACH  # the damage is real
    assert peak_megabytes() - before < MEGABYTES


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_a_gigantic_zarr_chunk_is_refused(tmp_path, driver):
    path = tmp_path / "a.zarr"
    scene_files.write_zarr(path, scene_files.picture(), driver=driver)
    described = path / (".zarray" if driver == "zarr" else "zarr.json")
    stored = json.loads(described.read_text())
    stored["shape"] = [10**6, 10**6, 3]
    chunk = stored["chunk_grid"]["configuration"] if driver == "zarr3" else stored
    chunk["chunk_shape" if driver == "zarr3" else "chunks"] = [10**6, 10**6, 3]
    described.write_text(json.dumps(stored))
    assert "do not fit the memory" in try_to_read(path)


@pytest.mark.parametrize("name", ["npy", "tiff_tiles", "cog", "ome"])
def test_a_gigantic_size_is_refused_or_read_lazily(tmp_path, name):
    path = write(name, tmp_path)
    if name == "npy":
        good = path.read_bytes()
        path.write_bytes(good.replace(b"(70, 41, 3), }    ", b"(1000000, 41, 3), }"))
        assert path.read_bytes() != good
    else:
        import tifffile

        with tifffile.TiffFile(path, mode="r+") as file:
            for tag in ("ImageLength", "ImageWidth"):
                file.pages[0].tags[tag].overwrite(10**6, dtype="I")
    before = peak_megabytes()
    assert "damaged" in try_to_read(path)
    assert peak_megabytes() - before < MEGABYTES
