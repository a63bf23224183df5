"""Confusion counts and what is read off them; boundary F; foreground points.

Counts are int64 on the host and add up over tiles, scenes and processes. Scores are
float64; a score that is not defined (a class that occurs in neither map) is NaN and is
left out of means.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np

IGNORE = 255


def confusion(
    label: np.ndarray, prediction: np.ndarray, num_classes: int
) -> np.ndarray:
    """Counts pixels by (true class, predicted class).

    Args:
        label: any shape, integer; pixels outside [0, num_classes) are not counted.
        prediction: same shape, integer in [0, num_classes).
        num_classes: K.

    Returns:
        [K, K] int64, rows are true classes.
    """
    label = label.reshape(-1)
    counted = label < num_classes
    flat = label[counted].astype(np.int64) * num_classes
    flat += prediction.reshape(-1)[counted]
    counts = np.bincount(flat, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes).astype(np.int64)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of one confusion matrix; per-class arrays are [K] float64 in [0, 1]."""

    iou: np.ndarray  # TP / (TP + FP + FN)
    f1: np.ndarray  # 2 P R / (P + R)
    miou: float  # mean over the classes that occur in label or prediction
    mean_f1: float
    accuracy: float  # share of counted pixels that are right
    kept_accuracy: float  # the same, of pixels whose true class no mean skips
    absent: tuple[int, ...]  # classes in neither map: in no mean


def scores(
    counts: np.ndarray,
    *,
    leave_out: tuple[int, ...] = (),
    absent_as_zero: bool = False,
) -> Scores:
    """Reads the scores off a confusion matrix.

    Args:
        counts: [K, K] int64 from `confusion`.
        leave_out: classes that the means skip (FarSeg and others skip the background).
        absent_as_zero: a score that is not defined counts as 0 in the means, as in the
            code of FCtL and GLNet (which leave out class 0).

    Returns:
        The scores. A class absent from the label but predicted counts with IoU 0.
    """
    right = np.diag(counts).astype(np.float64)
    true, predicted = counts.sum(1), counts.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        iou = right / (true + predicted - right)
        precision, recall = right / predicted, right / true
        f1 = 2 * precision * recall / (precision + recall)  # NaN where P + R = 0
    kept = np.ones(len(counts), bool)
    kept[list(leave_out)] = False
    if absent_as_zero:
        means = [float(np.nan_to_num(score[kept]).mean()) for score in (iou, f1)]
    else:
        means = [_mean(score[kept]) for score in (iou, f1)]
    return Scores(
        iou=iou,
        f1=f1,
        miou=means[0],
        mean_f1=means[1],
        accuracy=_share(right.sum(), true.sum()),
        kept_accuracy=_share(right[kept].sum(), true[kept].sum()),
        absent=tuple(np.flatnonzero((true == 0) & (predicted == 0)).tolist()),
    )


def exact_term(value: float | np.ndarray) -> float | np.ndarray:
    """Rounds shares of 0 to 1 to 32 bits: millions of them add up without rounding.

    So a sum over images is the same whatever their order, and whoever counted them.
    """
    return np.rint(value * 2.0**32) / 2.0**32


def frequency_weighted_iou(
    counts: np.ndarray, *, leave_out: tuple[int, ...] = ()
) -> float:
    """Returns the sum over classes of their share of the label times their IoU.

    Args:
        counts: [K, K] int64 from `confusion`.
        leave_out: classes without share; the others' add up to 1 then. Their pixels
            stay in every IoU.
    """
    true = counts.sum(1).astype(np.float64)
    kept = np.ones(len(counts), bool)
    kept[list(leave_out)] = False
    iou = np.nan_to_num(scores(counts).iou)
    return _share((true * iou)[kept].sum(), true[kept].sum())


def majority_scores(counts: np.ndarray) -> Scores:
    """Returns the scores of answering the most frequent true class everywhere."""
    true = counts.sum(1)
    majority = np.zeros_like(counts)
    majority[:, int(true.argmax())] = true
    return scores(majority)


def _share(part: float, total: float) -> float:
    return float(part / total) if total else math.nan


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else math.nan


def tolerance_px(tolerance: float, height: int, width: int) -> float:
    """Returns a tolerance in px; one below 1 is a share of the diagonal, rounded up."""
    if tolerance >= 1:
        return tolerance
    return math.ceil(tolerance * math.hypot(height, width))


def boundary_map(mask: np.ndarray) -> np.ndarray:
    """Marks pixels that differ from their right, lower or lower-right neighbour.

    The last row is compared to the right only, the last column downwards only.

    Args:
        mask: [H, W] bool.

    Returns:
        [H, W] bool, the boundary 1 px wide.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    edge = (mask != padded[:-1, 1:]) | (mask != padded[1:, :-1])
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def boundary_counts(
    label: np.ndarray,
    prediction: np.ndarray,
    num_classes: int,
    radii: tuple[float, ...],
    core: tuple[slice, slice] = (slice(None), slice(None)),
) -> np.ndarray:
    """Counts boundary pixels, those with a partner, and bands, per class and radius.

    Counts of windows add up to those of their scene when every window brings a margin
    of at least the largest radius + 1 px beyond its `core`.

    Args:
        label: [H, W] integer; pixels of value 255 count as 0 in both maps' masks.
        prediction: [H, W] integer.
        num_classes: K.
        radii: px.
        core: rows and columns to count.

    Returns:
        [K, radii, 6] int64: predicted boundary pixels within the radius of a true one,
        all predicted ones, true ones within the radius of a predicted one, all true
        ones; pixels in both bands, and in one or both. A band is what of a mask lies
        within the radius of its outside; the border of the scene is no outside, and
        pixels of label 255 are in no band.
    """
    valid = label != IGNORE
    counts = np.zeros((num_classes, len(radii), 6), np.int64)
    for k in range(num_classes):
        masks = [(values == k) & valid for values in (label, prediction)]
        counts[k, :, 4:] = _bands(*masks, radii, core)
        true, ours = map(boundary_map, masks)
        counts[k, :, 1], counts[k, :, 3] = ours[core].sum(), true[core].sum()
        if not (true.any() and ours.any()):
            continue
        to_true = _distance(true)[core][ours[core]]
        to_ours = _distance(ours)[core][true[core]]
        for r, radius in enumerate(radii):
            # Squared distances are whole numbers: 1e-3 absorbs the root's rounding.
            counts[k, r, 0] = (to_true <= radius + 1e-3).sum()
            counts[k, r, 2] = (to_ours <= radius + 1e-3).sum()
    return counts


def _bands(
    true: np.ndarray,
    ours: np.ndarray,
    radii: tuple[float, ...],
    core: tuple[slice, slice],
) -> np.ndarray:
    """Returns [radii, 2] int64: pixels in both masks' bands, and in one or both."""
    if not (true.any() or ours.any()):
        return np.zeros((len(radii), 2), np.int64)
    depths = [
        np.where(mask, _distance(~mask), np.inf)[core] if not mask.all()
        else np.full(mask[core].shape, np.inf)
        for mask in (true, ours)
    ]  # fmt: skip
    found = []
    for radius in radii:
        first, second = (depth <= radius + 1e-3 for depth in depths)
        found.append(((first & second).sum(), (first | second).sum()))
    return np.array(found, np.int64).reshape(-1, 2)


def boundary_iou(counts: np.ndarray) -> np.ndarray:
    """Boundary IoU from counts (https://arxiv.org/abs/2103.16562, Eq. 1).

    Args:
        counts: [..., 2] int64, the last two of `boundary_counts`, of any images.

    Returns:
        [...] float64, NaN where no map has a band.
    """
    both, either = np.moveaxis(counts.astype(np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        return both / either


def _distance(edge: np.ndarray) -> np.ndarray:
    """Euclidean distance of every pixel to the nearest True, px, float32."""
    far = (~edge).astype(np.uint8)
    return cv2.distanceTransform(far, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def boundary_f(counts: np.ndarray) -> np.ndarray:
    """Boundary F of one image from its counts (PFNet, Table 3).

    F = 2PR / (P + R); 1 where neither map has a boundary of the class, 0 where one has.

    Args:
        counts: [..., 6] int64 from `boundary_counts`.

    Returns:
        [...] float64.
    """
    of_f = counts[..., :4].astype(np.float64)
    ours_hit, ours, true_hit, true = np.moveaxis(of_f, -1, 0)
    precision = ours_hit / np.maximum(ours, 1)
    recall = true_hit / np.maximum(true, 1)
    f = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return np.where((ours == 0) & (true == 0), 1.0, f)


def foreground_points(
    label: np.ndarray, points: np.ndarray, background: int
) -> tuple[int, int]:
    """Counts how many chosen points fall on foreground (PFNet, Section 4.2).

    Args:
        label: [H, W] integer.
        points: [N, 2] float, (y, x) in px.
        background: the class that is not foreground; 255 is not foreground either.

    Returns:
        (points on foreground, all points).
    """
    y, x = np.clip(points.astype(np.int64), 0, np.array(label.shape) - 1).T
    hit = label[y, x]
    return int(((hit != background) & (hit != IGNORE)).sum()), len(points)


class Definition(NamedTuple):
    """What a name in the papers' tables means, and where a report has it."""

    text: str
    source: str
    unit: str
    key: str  # in report.json, "" where it is not; * is a class
    is_cost: bool = False  # it depends on the device: never equal to the paper's


_PFNET, _FCTL = "PFNet, Sec. 4.1 and its code", "FCtL's code"
_SHARE = "TP / (TP + FP + FN), over all counted px of a split"
DEFINITIONS = {
    "miou": Definition(
        f"mean over classes of {_SHARE}; a class in neither map is left out", _PFNET,
        "%", "scores.miou",
    ),
    "iou/*": Definition(_SHARE, _PFNET, "%", "classes.*.iou"),
    "mean_f1": Definition(
        "mean over classes of 2PR / (P + R); a class never hit is left out", _PFNET,
        "%", "scores.mean_f1",
    ),
    "f1": Definition(
        "mean F1 without class 0; a class never hit counts 0", f"as mIoU in {_FCTL}",
        "%", "scores.mean_f1",
    ),
    "accuracy": Definition(
        "share of counted px that are right", "usual; no code", "%", "scores.accuracy"
    ),
    "pixel_accuracy/*": Definition(
        "share of a class' px that are found", "Foveation, Table B.2.3", "%",
        "classes.*.pixel_accuracy",
    ),
    **{
        f"boundary_f1_{radius}px": Definition(
            f"F of boundary px with a partner within {radius} px, mean over images, "
            "then classes; 1 where neither map has a boundary", "PFNet, Table 3", "%",
            f"scores.boundary_f_{radius}",
        )
        for radius in (3, 5, 9, 12)
    },
    **{
        f"boundary_iou_{radius}px": Definition(
            f"IoU of the px of both maps' masks within {radius} px of their outside, "
            "over a split, mean over classes", "Boundary IoU, arXiv 2103.16562", "%",
            f"scores.boundary_iou_{radius}",
        )
        for radius in (3, 5, 9, 12)
    },
    "mba": Definition(
        "share of px right near boundaries of the label, mean over 5 widths, then "
        "images", "CascadePSP's evaluation, as in MagNet", "%", "scores.mba",
    ),
    "foreground_point_ratio": Definition(
        "share of the chosen points that lie on foreground", "PFNet, Sec. 4.2", "%",
        "scores.foreground_point_ratio_all",
    ),
    "foveation_map_mse": Definition(
        "squared distance of the map to the gold standard, both 0 to 1, mean over "
        "places, then images", "Foveation, Table 3", "", "maps.mse_mean",
    ),
    "foveation_map_mse_std": Definition(
        "its standard deviation over images", "Foveation, Table 3", "", "maps.mse_std"
    ),
    "params_m": Definition("weights of the network", "PFNet, Table 6", "M", ""),
    "gflops_512": Definition(
        "multiply-accumulates of convolutions and products, one image of 512 x 512 px",
        "PFNet, Tables 2g and 6", "GMAC", "",
    ),
    **{
        f"seconds_per_image_{gpu}": Definition(
            "scene read to labels counted", f"{paper}, on its GPU", "s",
            "seconds_per_megapixel", is_cost=True,
        )
        for gpu, paper in (("1080ti", "FCtL, Sec. 4.4"), ("2080ti", "MagNet, S1"))
    },
    "seconds_per_megapixel": Definition(
        "scene read to labels counted", "ours", "s", "seconds_per_megapixel",
        is_cost=True,
    ),
    "seconds_per_patch_1080ti": Definition(
        "of a patch alone", "FCtL, Sec. 4.4", "s", "", is_cost=True
    ),
    "memory_mb": Definition(
        "peak on the device", "FCtL, Sec. 4.4; MagNet, S1", "MB", "device_peak_mb",
        is_cost=True,
    ),
}  # fmt: skip


def definition(name: str) -> Definition:
    """Returns what a metric of the papers' tables means; `iou/road` is `iou/*`."""
    group, _, of_class = name.partition("/")
    return DEFINITIONS[f"{group}/*" if of_class else name]
