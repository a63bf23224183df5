"""Writes one small image in every file format that `raster` reads."""

import pathlib
import warnings

import cv2
import numpy as np

SIZE = (70, 41)


def picture(height=SIZE[0], width=SIZE[1], *, bands=3, dtype=np.uint8, seed=0):
    """Returns [height, width, bands] that differ everywhere, half noise."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 100, (height, width, bands))
    ramp = np.linspace(0, 155, height * width).reshape(height, width, 1)
    return (low + ramp).astype(dtype)


def write_tiff(path, pixels, *, tile=16, **profile):
    """Writes [H, W, C] as TIFF; `tile` 0 for strips; profile as of rasterio."""
    import rasterio

    height, width, bands = pixels.shape
    shape = {"count": bands, "height": height, "width": width, "dtype": pixels.dtype}
    profile = {"driver": "GTiff", "compress": "deflate", **profile}
    if tile and profile["driver"] == "GTiff":
        profile |= {"tiled": True, "blockxsize": tile, "blockysize": tile}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", **shape, **profile) as file:
            file.write(np.moveaxis(pixels, -1, 0))
    return path


def write_cog(path, pixels, **profile):
    """Writes a COG with overviews at half and quarter size."""
    return write_tiff(
        path, pixels, driver="COG", blocksize=128, overviews="auto",
        overview_count=2, overview_resampling="average", **profile,
    )  # fmt: skip


def write_ome(path, pixels):
    """Writes an OME-TIFF with a page for each band and a half-size level."""
    import tifffile

    planes = np.moveaxis(pixels, -1, 0)
    about = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25}
    tiles = {"tile": (16, 16), "photometric": "minisblack", "compression": "deflate"}
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(planes, subifds=1, metadata=about, **tiles)
        file.write(planes[:, ::2, ::2], subfiletype=1, **tiles)
    return path


def write_slide(path, pixels):
    """Writes a slide as scanners of Aperio do, with a half-size level."""
    import tifffile

    about = "Aperio Image Library v12\n{}x{} ({}x{}) |AppMag = 20|MPP = 0.5"
    tiles = {"tile": (16, 16), "compression": "deflate", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as file:
        for level in (pixels, pixels[:10, :10], pixels[::2, ::2]):
            thumbnail = {**tiles, "tile": None} if len(level) == 10 else tiles
            text = about.format(*level.shape[1::-1], 16, 16)
            level = np.ascontiguousarray(level)
            file.write(level, description=text, metadata=None, **thumbnail)
    return path


def write_zarr(path, array, *, driver="zarr3", names=None):
    """Writes an array as zarr, in chunks of at most 32."""
    import tensorstore

    kvstore = {"driver": "file", "path": f"{path}/", "file_io_sync": False}
    chunk = {"chunk": {"shape": [min(side, 32) for side in array.shape]}}
    domain = {"shape": list(array.shape), **({"labels": names} if names else {})}
    spec = {"driver": driver, "kvstore": kvstore, "create": True}
    schema = {"domain": domain, "chunk_layout": chunk, "dtype": array.dtype.name}
    tensorstore.open(spec, schema=tensorstore.Schema(schema)).result().write(
        array
    ).result()
    return path


def write_png(path, pixels):
    """Writes 8 or 16 bit PNG of 1, 3 or 4 bands."""
    if pixels.shape[2] >= 3:
        pixels = pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]
    assert cv2.imwrite(str(path), pixels)
    return path


def write_npy(path, array):
    """Writes .npy."""
    with open(path, "wb") as file:
        np.save(file, array)
    return path


def _planes_first(pixels):
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


# name -> (ending, function of (path, [H, W, 3] uint8)), all of them lossless
FORMATS = {
    "png": (".png", write_png),
    "tiff_tiles": (".tif", write_tiff),
    "tiff_strips": (".tif", lambda p, x: write_tiff(p, x, tile=0, blockysize=8)),
    "tiff_planes": (".tif", lambda p, x: write_tiff(p, x, interleave="band")),
    "bigtiff": (".tif", lambda p, x: write_tiff(p, x, bigtiff="YES", compress="lzw")),
    "cog": (".tif", write_cog),
    "ome": (".ome.tif", write_ome),
    "slide": (".svs", write_slide),
    "npy": (".npy", write_npy),
    "npy_planes": (".npy", lambda p, x: write_npy(p, _planes_first(x))),
    "npy_fortran": (".npy", lambda p, x: write_npy(p, np.asfortranarray(x))),
    "zarr3": (".zarr", write_zarr),
    "zarr2": (".zarr", lambda p, x: write_zarr(p, x, driver="zarr")),
    "zarr_planes": (".zarr", lambda p, x: write_zarr(p, _planes_first(x))),
}


def write(name, folder, pixels) -> pathlib.Path:
    """Writes pixels in the format `name`; returns the path."""
    ending, writer = FORMATS[name]
    path = pathlib.Path(folder) / f"{name}{ending}"
    writer(path, pixels)
    return path
