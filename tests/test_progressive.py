"""The pass over scales against a slow restatement, and what its options do."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import progressive
from uhrjax.ops import resize, roi
from uhrjax.tiling import pyramid

CLASSES = 4
SIZE = (24, 30)  # of the networks' input
CROP = (36, 44)
RNG = np.random.default_rng(0)
SCENE = RNG.random((111, 123, 3)).astype(np.float32)
WEIGHTS = RNG.normal(size=(3, CLASSES)).astype(np.float32) * 4


def plan(scene=SCENE):
    return pyramid.plan_scales(*scene.shape[:2], scales=(0.4, 0.7, 1.0), crop=CROP)


def label(images):
    """The segmentation network's stand-in."""
    return jax.nn.softmax(images @ WEIGHTS)


def refine(stage, fine, coarse):
    """The refinement networks' stand-in."""
    mixed = (0.5 + 0.1 * stage) * fine + coarse**2
    return mixed / mixed.sum(-1, keepdims=True)


NETWORKS = progressive.Networks(SIZE, label, refine)


def resized(x, size):
    return np.asarray(resize.bilinear(jnp.asarray(x)[None], size, align_corners=False))[
        0
    ]


def patches_of(scale):
    """Returns all network inputs of a scale, [N, h, w, 3]."""
    large = resized(SCENE, scale.size)
    height, width = scale.box
    return np.stack(
        [
            resized(large[top : top + height, left : left + width], SIZE)
            for top, left in scale.corners()
        ]
    )


def run(options, *, first=None, keep=True):
    scales = plan()
    stacks = [jnp.asarray(patches_of(scale)) for scale in scales]
    if first is None:
        first = label(resized(SCENE, SIZE)[None])[0]
    run = jax.jit(
        lambda first: progressive.run(
            NETWORKS, first, lambda k, which: stacks[k][which], scales, options,
            keep=keep,
        )
    )  # fmt: skip
    return run(first)


def certainty(p):
    two = np.sort(p, axis=-1)
    return two[..., -1] - two[..., -2]


def slow_stage(index, old, scale, options):
    """One scale as the paper describes it, over whole maps; Sec. 5 of its order."""
    enlarged = resized(old, scale.size)
    uncertainty = 1 - certainty(enlarged)
    corners, (height, width) = scale.corners(), scale.box
    boxes = np.concatenate([corners, corners + scale.box], 1).astype(np.float32)
    samples = tuple(map(roi.samples_per_px, scale.box, SIZE))

    def aligned(x):
        x = np.broadcast_to(x, (len(boxes), *x.shape))
        return np.asarray(roi.align(x, jnp.asarray(boxes), SIZE, samples=samples))

    mean = aligned(uncertainty[..., None]).mean((1, 2, 3))
    chosen = np.argsort(-mean)[: options.patches(scale)]
    fine = np.asarray(label(patches_of(scale)))
    refined = np.asarray(refine(index, fine, aligned(enlarged)))
    total, count = np.zeros((*scale.size, CLASSES)), np.zeros(scale.size)
    inner = np.zeros(scale.size, bool)
    for k in chosen:
        top, left = corners[k]
        place = (slice(top, top + height), slice(left, left + width))
        total[place] += resized(refined[k], scale.box)
        count[place] += 1
        inner[top + 10 : top + height - 10, left + 10 : left + width - 10] = True
    fresh = total / np.maximum(count, 1)[..., None]
    score = uncertainty if options.score == "uncertainty" else (
        certainty(fresh) * uncertainty
    )  # fmt: skip
    if options.n_patches > 0:
        score = np.where(inner, score, 0)
    taken = slow_points(score, options.points(scale), options.kernel)
    if options.n_patches > 0:
        taken &= inner
    return np.where(taken[..., None], fresh, enlarged), taken


def slow_points(score, count, side):
    tall, wide = score.shape
    rows, columns = np.arange(SIZE[0]) * tall // SIZE[0], np.arange(SIZE[1])
    small = score[rows][:, columns * wide // SIZE[1]]
    padded = np.pad(small, side // 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side))
    small = np.median(windows, axis=(2, 3))
    rows, columns = np.arange(tall) * SIZE[0] // tall, np.arange(wide)
    large = small[rows][:, columns * SIZE[1] // wide]
    order = np.argsort(-large.ravel(), kind="stable")[:count]
    taken = np.zeros(large.size, bool)
    taken[order] = True
    return taken.reshape(large.shape)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_points": 500},
        {"n_patches": 2, "n_points": 0.9},
        {"score": "uncertainty", "kernel": 3},
    ],
    ids=str,
)
def test_the_pass_equals_a_slow_one_where_boxes_overlap(changes):
    options = progressive.Options(**{"kernel": 5} | changes)
    last, records = run(options)
    scales = plan()
    assert [scale.count for scale in scales] == [4, 6, 12]
    old = np.asarray(label(resized(SCENE, SIZE)[None])[0])
    for index in (1, 2):
        old, taken = slow_stage(index, old, scales[index], options)
        np.testing.assert_allclose(
            records[index - 1].probabilities, old, atol=2e-5, err_msg=str(index)
        )
        assert taken.any() and not taken.all()
    np.testing.assert_array_equal(last, records[-1].probabilities)


def test_patches_in_chunks_give_the_same_map():
    options = {"kernel": 5, "n_patches": 5}
    one, _ = run(progressive.Options(**options))
    many, _ = run(progressive.Options(**options, patches_at_once=2))
    np.testing.assert_allclose(many, one, atol=1e-6)


def test_without_patches_the_first_map_is_enlarged():
    last, records = run(progressive.Options(n_patches=0))
    first = np.asarray(label(resized(SCENE, SIZE)[None])[0])
    assert records == []
    np.testing.assert_allclose(last, resized(first, SCENE.shape[:2]), atol=1e-6)


def test_a_first_map_of_any_size_may_come_from_elsewhere():
    first = RNG.dirichlet(np.ones(CLASSES), (9, 50)).astype(np.float32)
    last, records = run(progressive.Options(kernel=3, n_points=1.0), first=first)
    assert last.shape == (*SCENE.shape[:2], CLASSES)
    expected = resized(first, records[0].points.shape).argmax(-1)
    cells = [
        np.arange(count) * length // count
        for count, length in zip(SIZE, expected.shape, strict=True)
    ]
    np.testing.assert_array_equal(records[0].before, expected[np.ix_(*cells)])
    assert records[0].points.all() and records[0].chosen.all()


def test_records_without_whole_maps_are_of_the_networks_size():
    _, records = run(progressive.Options(n_patches=2, kernel=5), keep=False)
    for record in records:
        assert record.points is record.mask is record.probabilities is None
        for name in ("uncertainty", "score", "chosen", "before", "after"):
            assert getattr(record, name).shape == SIZE, name
        changed = record.before != record.after
        assert not (changed & ~np.asarray(record.chosen)).any()
        assert record.chosen.any() and len(record.selected) == 2


def test_a_gaussian_mean_smooths_otherwise_than_a_median():
    median, gaussian = (
        run(progressive.Options(kernel=5, smoothing=how))[1][0].score
        for how in progressive.SMOOTHINGS
    )
    assert abs(median - gaussian).max() > 1e-3
    assert np.corrcoef(median.ravel(), gaussian.ravel())[0, 1] > 0.5


def test_the_share_of_points_counts_for_the_patches_looked_at():
    scale = pyramid.plan_scale(100, 100, crop=(50, 50))
    for changes, expected in (
        ({"n_points": 0.75}, 7500),
        ({"n_points": 1.0}, 10000),
        ({"n_points": 0.9, "n_patches": 3}, 6750),
        ({"n_points": 300}, 300),
        ({"n_points": 6000, "n_patches": 2}, 5000),
        ({"n_points": 32768}, 10000),
        ({"n_points": 1e-9}, 1),
    ):
        assert progressive.Options(**changes).points(scale) == expected, changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel": 16}, "kernel 16 has no centre; use an odd number of px, e.g. 17"),
        ({"score": "sum"}, "score 'sum' is unknown; use one of product, uncertainty"),
        ({"overlap": "last"}, "'last' is unknown; use one of mean, released"),
        ({"patch_order": "up"}, "'up' is unknown; use one of most, least"),
        ({"smoothing": "box"}, "'box' is unknown; use one of median, gaussian"),
        ({"n_points": 0}, "n_points 0"),
        ({"n_patches": -2}, "n_patches -2"),
        ({"patches_at_once": 0}, "patches_at_once 0"),
    ],
)
def test_options_that_cannot_work_say_what_is_allowed(changes, message):
    with pytest.raises(ValueError, match=message):
        progressive.Options(**changes)


@pytest.mark.parametrize(("height", "block"), [(7, 3), (6, 3), (2, 5), (1, 1)])
def test_every_row_is_visited_once(height, block):
    def step(total, rows):
        return total.at[rows].add(1)

    found = progressive.over_rows(step, jnp.zeros(height, int), height, block)
    np.testing.assert_array_equal(found, 1)


@pytest.mark.parametrize(("count", "most"), itertools.product((1, 5, 6), (1, 2, 9)))
def test_chunks_leave_nothing_out(count, most):
    index = jnp.arange(count) + 3
    found = progressive.in_chunks(lambda k: jnp.stack([k, 2 * k], 1), index, most)
    np.testing.assert_array_equal(found, np.stack([index, 2 * index], 1))
