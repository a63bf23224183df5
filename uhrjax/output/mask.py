"""Writes a whole label map at once, by the same rules as `writer`."""

from __future__ import annotations

import pathlib

import numpy as np

from uhrjax import errors
from uhrjax.data import prepared
from uhrjax.output import failure, geotiff, name, partial, png
from uhrjax.output import legend as legend_lib
from uhrjax.output import options as options_lib

PLAIN = options_lib.OutputOptions(overlay=False)


def write_mask(
    folder: pathlib.Path,
    labels: np.ndarray,
    info: prepared.SceneInfo,
    colours: tuple[tuple[int, int, int], ...],
    classes: tuple[str, ...],
) -> pathlib.Path:
    """Writes one label map; it has its final name only when it is complete.

    Args:
        folder: exists.
        labels: [H, W] uint8 class ids, 255 where there is none.
        info: gives the name, and CRS and transform for a GeoTIFF.
        colours: of the classes, the GeoTIFF's colour table.
        classes: names, kept inside the file.

    Returns:
        The file: `<scene id>.tif` if the scene has a place on earth, else
        `<scene id>.png`.
    """
    options_lib.check_libraries(info, PLAIN)
    legend = legend_lib.Legend(tuple(classes), tuple(colours))
    path = folder / name.plan_files(info, PLAIN)["labels"]
    part = path.with_name("." + path.name)
    with failure.explained(path, then="then run the same command again"):
        try:
            encode_labels(
                part, lambda top, bottom: labels[top:bottom], info, legend, PLAIN
            )
            partial.publish(part, path)
        finally:
            part.unlink(missing_ok=True)
    return path


def encode_labels(
    path: pathlib.Path,
    read_rows: geotiff.ReadRows,
    scene: prepared.SceneInfo,
    legend: legend_lib.Legend,
    options: options_lib.OutputOptions,
) -> None:
    """Writes a label map as GeoTIFF or PNG, as `options.writes_tiff` says."""
    if options_lib.writes_tiff(scene, options):
        layout = geotiff.Layout(
            scene, ("class",), legend.nodata, tags=legend.tags(), legend=legend
        )
        geotiff.write(path, read_rows, layout)
        return
    if max(scene.height, scene.width) >= 2**31:
        raise errors.InputError(
            f"a side of {max(scene.height, scene.width)} px does not fit PNG; write a "
            "TIFF instead (tiff=True)"
        )
    png.write(
        path, read_rows, height=scene.height, width=scene.width, legend=legend,
        palette=options.palette,
    )  # fmt: skip
