"""What was counted on a split, and the scores that are read off it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import ml_collections
import numpy as np

from uhrjax import metrics


@dataclasses.dataclass
class Evaluation:
    """Counts of a split; scores are read off at the end."""

    counts: np.ndarray  # [K, K] int64 confusion
    boundary: np.ndarray  # [K, tolerances] float64, boundary F summed over images
    bands: np.ndarray  # [K, tolerances, 2] int64, of boundary IoU
    points: dict[str, np.ndarray]  # name -> [2] int64: on foreground, all
    images: int = 0
    pixels: int = 0
    seconds: float = 0.0
    mba: list[float] = dataclasses.field(default_factory=list)  # of images that have it

    def add_image(
        self, boundary: np.ndarray, pixels: int, mba: float = math.nan
    ) -> None:
        """Counts one image's boundaries [K, tolerances, 6], size and mBA."""
        self.boundary += metrics.exact_term(metrics.boundary_f(boundary))
        self.bands += boundary[..., 4:]
        self.images += 1
        self.pixels += pixels
        self.mba += [] if math.isnan(mba) else [mba]

    def add(self, other: Evaluation) -> None:
        """Adds what was counted elsewhere; any order gives the same bits."""
        self.counts += other.counts
        self.boundary += other.boundary
        self.bands += other.bands
        for name, found in other.points.items():
            self.points[name] = self.points.get(name, np.zeros(2, np.int64)) + found
        self.images += other.images
        self.pixels += other.pixels
        self.mba += other.mba

    def summary(self, config: ml_collections.ConfigDict) -> dict[str, Any]:
        """Returns the scores under flat names; NaN where nothing was there to score."""
        background = config.eval.background
        left_out = () if config.eval.include_background else (background,)
        found = metrics.scores(
            self.counts, leave_out=left_out,
            absent_as_zero=config.eval.absent_as_zero,
        )  # fmt: skip
        weighted = metrics.frequency_weighted_iou(self.counts, leave_out=left_out)
        result = {
            "miou": found.miou, "mean_f1": found.mean_f1, "accuracy": found.accuracy,
            "frequency_weighted_iou": weighted,
            "megapixels_per_s": self.pixels / 1e6 / max(self.seconds, 1e-9),
        }  # fmt: skip
        if self.mba:
            result["mba"] = math.fsum(self.mba) / len(self.mba)
        if left_out:  # over the pixels of the classes that count
            result["accuracy_of_kept"] = found.kept_accuracy
        for t, tolerance in enumerate(config.eval.boundary):
            result[f"boundary_f_{tolerance:g}"] = float(
                np.mean(self.boundary[:, t]) / max(self.images, 1)
            )
            bands = metrics.boundary_iou(self.bands[:, t])
            defined = bands[~np.isnan(bands)]
            result[f"boundary_iou_{tolerance:g}"] = (
                float(defined.mean()) if len(defined) else math.nan
            )
        true = self.counts.sum(1)
        result["foreground_pixel_ratio"] = 1 - true[background] / max(true.sum(), 1)
        hits = {**self.points, "all": sum(self.points.values(), np.zeros(2, np.int64))}
        for name, (hit, total) in hits.items():
            if total:
                result[f"foreground_point_ratio_{name}"] = float(hit / total)
        return result
