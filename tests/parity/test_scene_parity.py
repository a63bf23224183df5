"""Grids, contexts and stitched scenes against the published code's numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import inference, metrics
from uhrjax.data import prepared
from uhrjax.tiling import box, plan, view, window

MIN_OVERLAP = 50  # px, of FCtL's grid


@dataclasses.dataclass
class ArrayScene:
    """A scene in memory, every pixel valid."""

    pixels: np.ndarray

    @property
    def info(self):
        return prepared.SceneInfo("scene", *self.pixels.shape[:2])

    def read(self, place):
        return window.cut(self.pixels, place, fill=0)

    def read_valid(self, place):
        return None


class StandIn:
    """FCtL's network reduced to one convolution per context."""

    overview = None
    reads_labels = collects = False

    def __init__(self, manifest, weights, resize="pillow"):
        scales = manifest["multipliers"][: manifest["mode"] - 1]
        self.views = (view.View(), *(view.View(s, resize) for s in scales))
        self.num_classes = manifest["n_class"]
        self._weights = weights

    def apply(self, variables, batch, *, train):
        views = batch["views"].astype(jnp.float32) / 255
        total = jnp.asarray(self._weights["conv_local.bias"])
        for k in range(views.shape[1]):
            name = ("local", "medium", "large")[k]
            kernel = self._weights[f"conv_{name}.weight"].transpose(2, 3, 1, 0)
            total = total + jax.lax.conv_general_dilated(
                views[:, k], kernel, (1, 1), "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
        return total

    def logits(self, outputs):
        return outputs

    def points(self, outputs):
        return {}


def label_scene(method, manifest, pixels, *, tta=False):
    """Returns labels and, up to a shift per pixel, the mean logits over windows."""
    tile = manifest["patch"]
    tiling = plan.Tiling(
        tile, tile - MIN_OVERLAP, 3,
        score="logits", grid="even", tta=tta, probabilities=True,
    )  # fmt: skip
    rows = list(inference.Engine(method, tiling).label({}, ArrayScene(pixels)))
    likely = np.concatenate([row.probabilities for row in rows])
    return np.concatenate([row.labels for row in rows]), np.log(likely)


def coverage(manifest, height, width):
    """Returns how many windows see each pixel, [H, W, 1]."""
    tile = manifest["patch"]
    counts = [np.zeros(length) for length in (height, width)]
    for line in counts:
        stride = tile - MIN_OVERLAP
        for start in window.plan_even_starts(len(line), tile=tile, stride=stride):
            line[start : start + tile] += 1
    return np.outer(*counts)[..., None]


def centred(scores):
    """Takes off the shift per pixel, which log-probabilities have lost."""
    return scores - scores.mean(-1, keepdims=True)


def assert_labels_equal_where_sure(labels, arrays, margin=0.05):
    two = np.sort(arrays["scores"], -1)[..., -2:]
    sure = two[..., 1] - two[..., 0] > margin
    assert sure.mean() > 0.8
    np.testing.assert_array_equal(labels[sure], arrays["prediction"][sure])


def test_even_starts_equal_the_published_grids(load_case):
    manifest, _, arrays = load_case("fctl_grid")
    for i, grid in enumerate(manifest["grids"]):
        tile = grid["patch"]
        rule = {"tile": tile, "stride": tile - MIN_OVERLAP}
        tops = window.plan_even_starts(grid["height"], **rule)
        lefts = window.plan_even_starts(grid["width"], **rule)
        if "error" in grid:  # the published code fails where one window suffices
            assert tops == [0] and lefts == [0, 388, 776, 1164, 1552, 1940]
            continue
        assert (tops, lefts) == (grid["tops"], grid["lefts"])
        places = [(top, left) for top in tops for left in lefts]
        np.testing.assert_array_equal(places, arrays[f"top_left_{i}"])


def test_contexts_equal_the_published_ones_bit_for_bit(load_case):
    manifest, _, arrays = load_case("fctl_context")
    scene, tile = ArrayScene(arrays["image"]), manifest["patch"]
    scales = manifest["multipliers"]
    views = [view.View(), *(view.View(scale, "pillow") for scale in scales)]
    names = ["patches"]
    names += [f"context_x{str(scale).replace('.', 'p')}" for scale in scales]
    for i, (top, left) in enumerate(arrays["top_left"].tolist()):
        place = window.Window(top, left, tile, tile)
        found = view.cut_views(scene.read, place, views)
        for name, pixels in zip(names, found, strict=True):
            np.testing.assert_array_equal(pixels, arrays[name][i], err_msg=name)


@pytest.mark.parametrize("case", ["fctl_stitch", "fctl_stitch_contexts"])
def test_stitched_scene_equals_the_published_one(case, load_case):
    manifest, weights, arrays = load_case(case)
    method = StandIn(manifest, weights)
    labels, scores = label_scene(method, manifest, arrays["image"])
    scores *= coverage(manifest, *labels.shape)  # the published scores are sums
    np.testing.assert_allclose(
        centred(scores),
        centred(arrays["scores"]),
        rtol=manifest["rtol"],
        atol=manifest["atol"],
    )
    assert_labels_equal_where_sure(labels, arrays)
    count = functools.partial(metrics.confusion, num_classes=manifest["n_class"])
    np.testing.assert_array_equal(
        count(arrays["labels"], arrays["prediction"]), arrays["confusion"]
    )
    two = np.sort(arrays["scores"], -1)[..., -2:]
    ties = (two[..., 1] - two[..., 0] < 2 * manifest["atol"]).sum()
    moved = np.abs(count(arrays["labels"], labels) - arrays["confusion"]).sum()
    assert moved <= 2 * ties and ties < 0.01 * labels.size


def test_averaged_contexts_fail_the_comparison(load_case):
    manifest, weights, arrays = load_case("fctl_stitch_contexts")
    method = StandIn(manifest, weights, resize="area")
    labels, scores = label_scene(method, manifest, arrays["image"])
    scores *= coverage(manifest, *labels.shape)
    assert np.abs(centred(scores) - centred(arrays["scores"])).max() > 0.1


def test_turned_scenes_sum_to_the_published_scores(load_case):
    manifest, weights, arrays = load_case("fctl_stitch_tta")
    method, total = StandIn(manifest, weights), 0
    for flip in (False, True):
        for quarters in range(4):
            turned = arrays["image"][:, ::-1] if flip else arrays["image"]
            turned = np.ascontiguousarray(np.rot90(turned, quarters))
            _, scores = label_scene(method, manifest, turned)
            scores *= coverage(manifest, *turned.shape[:2])
            scores = np.rot90(centred(scores), -quarters)
            total = total + (scores[:, ::-1] if flip else scores)
    np.testing.assert_allclose(
        total, centred(arrays["scores"]), rtol=manifest["rtol"], atol=manifest["atol"]
    )
    assert_labels_equal_where_sure(total.argmax(-1), arrays)


def test_turned_windows_give_nearly_the_published_scores(load_case):
    # The published code turns the scene and then cuts; the engine cuts, then turns. A
    # quarter turn swaps Pillow's two passes, which rounds some pixels the other way.
    manifest, weights, arrays = load_case("fctl_stitch_tta")
    method = StandIn(manifest, weights)
    labels, scores = label_scene(method, manifest, arrays["image"], tta=True)
    scores *= 8 * coverage(manifest, *labels.shape)
    # Of 8 x 25 windows' sum; 0.8 is what the manifest allows for such rounding.
    np.testing.assert_allclose(centred(scores), centred(arrays["scores"]), atol=0.1)
    assert_labels_equal_where_sure(labels, arrays)


def test_boxes_equal_the_published_patch_coordinates(load_case):
    manifest, _, arrays = load_case("magnet_patch_coords")
    for i, case in enumerate(manifest["cases"]):
        (width, height), (box_width, box_height) = case["size_wh"], case["patch_wh"]
        boxes = box.plan_boxes(
            height, width, box_height=box_height, box_width=box_width
        )
        published = arrays[f"coords_{i}"][:, [1, 0, 3, 2]]  # x comes first there
        np.testing.assert_allclose(boxes, published, rtol=0, atol=manifest["atol"])
        corners = [
            (w.left, w.top, w.left + w.width, w.top + w.height)
            for w in box.place_boxes(boxes, height=height, width=width)
        ]
        np.testing.assert_array_equal(corners, arrays[f"pixels_{i}"])
