"""The engine against summing whole scenes in numpy, on a network of one convolution."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import canvas, inference
from uhrjax.data import overview, prepared
from uhrjax.tiling import blend, plan, view, window

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)


class Conv:
    """Logits = 3x3 convolution of the first view + twice the mean of the others."""

    num_classes = 4
    overview = None
    reads_labels = collects = False

    def __init__(self, scales=(1,)):
        self.views = tuple(view.View(scale) for scale in scales)
        self.calls = 0

    def apply(self, variables, batch, *, train):
        self.calls += 1  # while tracing only
        views = batch["views"].astype(jnp.float32) / 255
        x = views[:, 0] + 2 * views[:, 1:].sum(1)
        return jax.lax.conv_general_dilated(
            x, KERNEL, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def logits(self, outputs):
        return outputs

    def points(self, outputs):
        middle = jnp.full((outputs.shape[0], 1, 2), outputs.shape[1] / 2)
        return {"middle": middle}


class ArrayScene:
    """A scene in memory."""

    def __init__(self, height, width, seed=0, valid=None):
        rng = np.random.default_rng(seed)
        self.pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        self.info = prepared.SceneInfo("scene", height, width)
        self.valid = valid
        self.sent = 0

    def read(self, place):
        self.sent += place.height * place.width
        return window.cut(self.pixels, place, fill=0)

    def read_valid(self, place):
        if self.valid is None:
            return None
        return window.cut(self.valid, place, fill=False)


def stitched(method, scene, tiling):
    """Returns labels and probabilities, all windows summed in one large array."""
    height, width = scene.info.height, scene.info.width
    tile = tiling.tile
    total = np.zeros((height + tile, width + tile, 4), np.float32)
    weight = np.zeros((height + tile, width + tile), np.float32)
    grid = window.GRIDS[tiling.grid]
    starts = [grid(n, tile=tile, stride=tiling.stride) for n in (height, width)]
    spans = [
        blend.owned_spans(s, tile=tile, length=n, blend=tiling.blend)
        for s, n in zip(starts, (height, width), strict=True)
    ]
    for top, (y0, y1) in zip(starts[0], spans[0], strict=True):
        for left, (x0, x1) in zip(starts[1], spans[1], strict=True):
            place = window.Window(top, left, tile, tile)
            views = view.cut_views(scene.read, place, method.views)[None]
            score = method.apply({}, {"views": jnp.asarray(views)}, train=False)
            if tiling.score == "probabilities":
                score = jax.nn.softmax(score)
            w = np.zeros((tile, tile), np.float32)
            w[y0:y1, x0:x1] = blend.window_weights(tiling.blend, tile)[y0:y1, x0:x1]
            total[top : top + tile, left : left + tile] += w[..., None] * score[0]
            weight[top : top + tile, left : left + tile] += w
    assert (weight[:height, :width] > 0).all()
    mean = (total / np.maximum(weight, 1e-12)[..., None])[:height, :width]
    likely = jax.nn.softmax(mean) if tiling.score == "logits" else mean
    return mean.argmax(-1), likely


def collected(engine, scene, **given):
    rows = list(engine.label({}, scene, **given))
    tops = [r.top for r in rows]
    ends = [r.top + len(r.labels) for r in rows]
    assert tops[1:] == ends[:-1] and ends[-1] == scene.info.height
    labels = np.concatenate([r.labels for r in rows])
    likely = [r.probabilities for r in rows]
    return labels, None if likely[0] is None else np.concatenate(likely)


SIZES = [(1, 1), (15, 16), (16, 17), (37, 41), (16, 97), (61, 1)]


@pytest.mark.parametrize("name", blend.BLENDS)
def test_engine_equals_summing_the_whole_scene(name):
    tiling = plan.Tiling(16, 11, 2, blend=name, probabilities=True)
    method = Conv()
    engine = inference.Engine(method, tiling)
    for height, width in SIZES:
        scene = ArrayScene(height, width, seed=height)
        labels, likely = collected(engine, scene)
        expected, expected_likely = stitched(method, scene, tiling)
        np.testing.assert_allclose(likely, expected_likely, atol=2e-6)
        two = np.sort(expected_likely, -1)[..., -2:]
        sure = two[..., 1] - two[..., 0] > 1e-5  # no tie
        np.testing.assert_array_equal(labels[sure], expected[sure])
    # For all those sizes; the last two bands of a scene leave another overlap.
    assert engine.run_windows._cache_size() == engine.move_image._cache_size() == 1
    assert engine.open_block._cache_size() == engine.close_block._cache_size() == 2


@pytest.mark.parametrize("scales", [(1, 2), (1, 3), (1, 2, 4)])
def test_contexts_cut_on_the_device_equal_those_cut_on_the_host(scales):
    tiling = plan.Tiling(8, 6, 2, score="logits", probabilities=True)
    method = Conv(scales)
    engine = inference.Engine(method, tiling)
    for height, width in [(5, 7), (29, 50), (8, 31)]:
        scene = ArrayScene(height, width, seed=width)
        labels, likely = collected(engine, scene)
        expected, expected_likely = stitched(method, scene, tiling)
        np.testing.assert_allclose(likely, expected_likely, atol=1e-5)
        assert (labels == expected).mean() > 0.999


class Echo:
    """Logits = the grey levels of all views, and 0."""

    overview = None
    reads_labels = collects = False

    def __init__(self, views):
        self.views, self.num_classes = views, 3 * len(views) + 1

    def apply(self, variables, batch, *, train):
        count, views, height, width, _ = batch["views"].shape
        pixels = jnp.moveaxis(batch["views"], 1, 3).astype(jnp.float32) / 32
        flat = pixels.reshape(count, height, width, 3 * views)
        return jnp.pad(flat, ((0, 0), (0, 0), (0, 0), (0, 1)))

    def logits(self, outputs):
        return outputs

    def points(self, outputs):
        return {}


MIXED = [(1,), (1, "1.5p", "2p", "2.5p"), ("1p", "4p"), (1, 3, "3p"), (2, "7.5p", 5)]


@pytest.mark.parametrize("tile", [2, 8, 14])
@pytest.mark.parametrize("names", MIXED, ids=str)
def test_device_cuts_the_same_views_as_the_host(names, tile):
    views = tuple(
        view.View(float(name[:-1]), "pillow")
        if isinstance(name, str)
        else view.View(name)
        for name in names
    )
    tiling = plan.Tiling(
        tile, tile, 2, blend="montage", score="logits", probabilities=True
    )
    engine = inference.Engine(Echo(views), tiling)
    for height, width in [(1, 1), (1, 13), (tile - 1, tile + 1), (17, 31)]:
        scene = ArrayScene(height, width, seed=width)
        _, likely = collected(engine, scene)
        logits = np.log(likely) - np.log(likely[..., -1:])  # the last one is 0
        found = np.rint(logits[..., :-1] * 32).reshape(height, width, -1, 3)
        for (top, y), (left, x) in owned_by(tiling, height, width):
            place = window.Window(top, left, tile, tile)
            expected = view.cut_views(scene.read, place, views)[:, y, x]
            rows = slice(top + y.start, top + y.stop)
            columns = slice(left + x.start, left + x.stop)
            np.testing.assert_array_equal(
                found[rows, columns], np.moveaxis(expected, 0, 2)
            )


def owned_by(tiling, height, width):
    """Returns per window (top, rows), (left, columns): what it alone decides."""
    axes = []
    for length in (height, width):
        starts = window.plan_starts(length, tile=tiling.tile, stride=tiling.stride)
        spans = blend.owned_spans(
            starts, tile=tiling.tile, length=length, blend=tiling.blend
        )
        parts = [slice(*span) for span in spans.tolist()]
        axes.append(list(zip(starts, parts, strict=True)))
    return itertools.product(*axes)


def test_a_view_that_cuts_pixels_is_refused_before_anything_runs():
    views = (view.View(1.5, "pillow"),)
    with pytest.raises(ValueError, match="use windows of 14 or 16 px"):
        inference.Engine(Echo(views), plan.Tiling(15, 15, 1))


def test_tta_equals_turning_every_window_by_hand():
    plain = plan.Tiling(12, 9, 2, probabilities=True)
    scene = ArrayScene(30, 39)
    engine = inference.Engine(Conv(), plain)
    turned = []
    for flip in (False, True):
        for quarters in range(4):
            # 12 + 2 * 9 by 12 + 3 * 9: turning the scene turns its windows.
            other = ArrayScene(30, 39)
            pixels = other.pixels[:, ::-1] if flip else other.pixels
            other.pixels = np.ascontiguousarray(np.rot90(pixels, quarters))
            other.info = prepared.SceneInfo("turned", *other.pixels.shape[:2])
            likely = np.rot90(collected(engine, other)[1], -quarters)
            turned.append(likely[:, ::-1] if flip else likely)
    _, likely = collected(
        inference.Engine(Conv(), dataclasses.replace(plain, tta=True)), scene
    )
    np.testing.assert_allclose(likely, np.mean(turned, 0), atol=1e-6)


@pytest.mark.parametrize("height", [1, 17, 27, 28, 39, 50])
def test_even_grid_equals_summing_the_whole_scene(height):
    tiling = plan.Tiling(16, 11, 2, grid="even", probabilities=True)
    scene, method = ArrayScene(height, 61), Conv()
    _, likely = collected(inference.Engine(method, tiling), scene)
    _, expected = stitched(method, scene, tiling)
    np.testing.assert_allclose(likely, expected, atol=2e-6)


@pytest.mark.parametrize("height, width", [(1, 1), (5, 40), (40, 3), (7, 9)])
def test_reflect_fills_small_scenes_with_their_mirror(height, width):
    scene = ArrayScene(height, width)
    pad = ((0, max(16 - height, 0)), (0, max(16 - width, 0)), (0, 0))
    large = ArrayScene(height + pad[0][1], width + pad[1][1])
    large.pixels = np.pad(scene.pixels, pad, "symmetric")
    mirror = plan.Tiling(16, 16, 1, border="reflect")
    labels, _ = collected(inference.Engine(Conv(), mirror), scene)
    expected, _ = collected(inference.Engine(Conv(), plan.Tiling(16, 16, 1)), large)
    np.testing.assert_array_equal(labels, expected[:height, :width])


def test_unknown_choice_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"zero, reflect"):
        plan.Tiling(16, 8, 1, border="wrap")


def test_every_pixel_is_read_once():
    scene = ArrayScene(50, 70)
    collected(inference.Engine(Conv(), plan.Tiling(16, 8, 4)), scene)
    assert scene.sent == 50 * 70


@pytest.mark.parametrize("first", [1, 20, 36, 49])
def test_continuing_at_any_row_gives_the_same_labels(first):
    engine = inference.Engine(Conv(), plan.Tiling(16, 8, 3, blend="hann"))
    scene = ArrayScene(50, 40)
    whole, _ = collected(engine, scene)
    rows = list(engine.label({}, scene, first_row=first))
    assert rows[0].top == first
    np.testing.assert_array_equal(
        np.concatenate([r.labels for r in rows]), whole[first:]
    )


def test_nodata_is_labelled_unseen_and_empty_calls_are_skipped():
    valid = np.zeros((40, 100), bool)
    valid[:, :20] = True
    scene = ArrayScene(40, 100, valid=valid)
    engine = inference.Engine(Conv(), plan.Tiling(16, 16, 1))
    seen = []
    rows = list(engine.label({}, scene, on_windows=lambda *counts: seen.append(counts)))
    labels = np.concatenate([r.labels for r in rows])
    np.testing.assert_array_equal(labels == canvas.UNSEEN, ~valid)
    done, skipped = np.sum(seen, axis=0)
    assert done == engine.count_windows(scene) == 21
    assert skipped == 3 * 5  # the first two of seven columns hold pixels


def test_only_the_windows_that_hold_pixels_are_run():
    valid = np.zeros((16, 16 * 9), bool)
    valid[:, :16] = valid[:, 64:80] = valid[:, -1:] = True
    scene = ArrayScene(16, 16 * 9, valid=valid)
    engine = inference.Engine(Conv(), plan.Tiling(16, 16, 4))
    calls = []
    run = engine.run_windows
    engine.run_windows = lambda *args: calls.append(args[3]) or run(*args)
    whole = inference.Engine(Conv(), plan.Tiling(16, 16, 4))
    labels, _ = collected(engine, scene)
    everything, _ = collected(whole, ArrayScene(16, 16 * 9))
    np.testing.assert_array_equal(labels[valid], everything[valid])
    assert len(calls) == 3  # of one, one and one window, in blocks of four


@pytest.mark.parametrize("name", blend.BLENDS)
def test_constant_image_gives_constant_labels(name):
    scene = ArrayScene(45, 53)
    scene.pixels[:] = 90
    tiling = plan.Tiling(16, 10, 4, blend=name)
    inside = collected(inference.Engine(Plain(), tiling), scene)[0]
    assert len(np.unique(inside)) == 1


def test_shifted_scene_gives_shifted_labels_inside():
    scene, moved = ArrayScene(60, 60), ArrayScene(60, 60)
    moved.pixels = np.roll(scene.pixels, (10, 20), axis=(0, 1))
    engine = inference.Engine(Conv(), plan.Tiling(16, 10, 3, blend="hann"))
    before, _ = collected(engine, scene)
    after, _ = collected(engine, moved)
    # Shifted by whole strides, away from the border and the windows shifted inward.
    np.testing.assert_array_equal(after[20:40, 30:40], before[10:30, 10:20])


class Plain(Conv):
    """One convolution of 1x1: no border of its own."""

    def apply(self, variables, batch, *, train):
        x = batch["views"][:, 0].astype(jnp.float32) / 255
        return x @ KERNEL[1, 1]


class Placed(Conv):
    """Logits are the batch's place and overview, for the eye of the test."""

    overview = (3, 5)

    def context(self, variables, overview):
        return None

    def apply(self, variables, batch, *, train):
        assert batch["overview"].shape == (1, 3, 5, 3)
        seen = [*batch["position"].T, batch["scene_size"].sum(1)]
        total = batch["overview"].astype(jnp.int32).sum((1, 2, 3))
        seen.append(jnp.repeat(total, len(batch["views"])))
        places = jnp.stack(seen, -1)
        jax.debug.callback(self.note, places)
        return jnp.zeros((len(places), 8, 8, 4))

    def note(self, places):
        self.seen |= set(map(tuple, np.asarray(places).tolist()))


def test_batches_hold_position_scene_size_and_overview():
    scene, method = ArrayScene(20, 30), Placed()
    method.seen = set()
    list(inference.Engine(method, plan.Tiling(8, 8, 2)).label({}, scene))
    jax.effects_barrier()
    small = overview.make(scene.read, scene.info, height=3, width=5)
    total = int(small.astype(int).sum())
    assert method.seen == {
        (y, x, 50, total) for y in (0, 8, 12) for x in (0, 8, 16, 22)
    }


class Turned(Placed):
    """Notes place and overview of every turn."""

    overview = (4, 4)

    def apply(self, variables, batch, *, train):
        corner = batch["overview"][0, 0, 0, 0].astype(jnp.int32)
        seen = [*batch["position"].T, *batch["scene_size"].T]
        seen.append(jnp.full(len(batch["views"]), corner))
        jax.debug.callback(self.note, jnp.stack(seen, -1))
        return jnp.zeros((len(batch["views"]), 8, 8, 4))


def test_tta_turns_place_and_overview_with_the_scene():
    scene, method = ArrayScene(16, 24), Turned()
    method.seen = set()
    engine = inference.Engine(method, plan.Tiling(8, 8, 1, tta=True))
    list(engine.label({}, scene))
    jax.effects_barrier()
    small = overview.make(scene.read, scene.info, height=4, width=4)
    expected = set()
    for flip in (False, True):
        for quarters in range(4):
            marks = np.zeros((16, 24), int)
            marks[::8, ::8] = np.arange(6).reshape(2, 3) + 1
            marks = np.kron(marks[::8, ::8], np.ones((8, 8), int))
            turned = np.rot90(marks[:, ::-1] if flip else marks, quarters)
            shown = np.rot90(small[:, ::-1] if flip else small, quarters)
            for mark in range(1, 7):
                y, x = (int(axis.min()) for axis in np.nonzero(turned == mark))
                expected.add((y, x, *turned.shape, int(shown[0, 0, 0])))
    assert method.seen == expected


def test_points_arrive_in_scene_pixels():
    engine = inference.Engine(Conv(), plan.Tiling(16, 16, 2))
    rows = list(engine.label({}, ArrayScene(32, 40)))
    points = np.concatenate([r.points["middle"] for r in rows])
    expected = {(y, x) for y in (8, 24) for x in (8, 24, 32)}
    assert {tuple(p) for p in points.tolist()} == expected
