"""Which files a scene becomes."""

from __future__ import annotations

import dataclasses
import importlib.util

from uhrjax import errors
from uhrjax.data import prepared

CHOICES = {
    "probabilities": ("", "uint8", "float16"),
    "uncertainty": ("", "entropy", "margin"),
    "polygons": ("", "geojson", "gpkg"),
}
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclasses.dataclass(frozen=True)
class OutputOptions:
    """What is written besides the label map and its record."""

    probabilities: str = ""  # "" | "uint8" (p = value / 254) | "float16"
    uncertainty: str = ""  # "" | "entropy" | "margin", both 0 (sure) to 1
    overlay: bool = True  # a small picture: class colours over the input
    overlay_side: int = 1024  # px: longest side of that picture
    polygons: str = ""  # "" | "geojson" | "gpkg"
    polygon_min_px: int = 0  # smaller regions are left out; 0 keeps all
    tiff: bool = False  # a GeoTIFF label map even without a place on earth
    palette: bool = False  # a PNG label map in colour; OpenCV then reads no ids from it

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise errors.InputError(
                    f"output {name}={getattr(self, name)!r} is not known; use one of "
                    + ", ".join(repr(choice) for choice in allowed)
                )
        if self.overlay_side < 1:
            raise errors.InputError(
                f"output overlay_side={self.overlay_side}: use at least 1 px, or "
                "overlay=False for no picture"
            )
        if self.polygon_min_px < 0:
            raise errors.InputError(
                f"output polygon_min_px={self.polygon_min_px}: use 0 (all) or more"
            )

    @property
    def needs_probabilities(self) -> bool:
        """Whether `write_rows` must be given probabilities."""
        return bool(self.probabilities or self.uncertainty)


def writes_tiff(scene: prepared.SceneInfo, options: OutputOptions) -> bool:
    """Says whether the label map is a GeoTIFF (a PNG otherwise)."""
    return bool(scene.crs or has_transform(scene) or options.tiff)


def has_transform(scene: prepared.SceneInfo) -> bool:
    """Says whether a scene's pixels have coordinates (the identity says nothing)."""
    return scene.transform is not None and tuple(scene.transform) != IDENTITY


def check_libraries(scene: prepared.SceneInfo, options: OutputOptions) -> None:
    """Refuses what cannot be written with the libraries that are installed."""
    reasons = {
        "its place on earth": bool(scene.crs or has_transform(scene)),
        "a TIFF": options.tiff,
        "probabilities": bool(options.probabilities),
        "uncertainty": bool(options.uncertainty),
        "polygons": bool(options.polygons),
    }
    wanted = [name for name, is_wanted in reasons.items() if is_wanted]
    if wanted and importlib.util.find_spec("rasterio") is None:
        raise errors.InputError(
            f"writing the map of scene {scene.id!r} with {' and '.join(wanted)} needs "
            "rasterio: pip install 'uhrjax[geo]'"
        )
    if options.polygons == "gpkg" and importlib.util.find_spec("pyogrio") is None:
        raise errors.InputError(
            "writing polygons as GeoPackage needs pyogrio: pip install "
            "'uhrjax[vector]', or choose polygons='geojson'"
        )
