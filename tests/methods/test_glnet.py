"""GLNet's modes: what they see, what they train, how scenes pass through them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import inference, losses, methods, subtree
from uhrjax.data import overview, prepared
from uhrjax.errors import InputError
from uhrjax.ops import resize
from uhrjax.tiling import plan, window

STARTS = [(y, x) for y in (0, 26) for x in (0, 40, 56)]  # of 64 px in 90 x 120 px
SCENE = (90, 120)


def build(mode, **changes):
    return methods.build(small.config("glnet", model={"mode": mode}, **changes))


def scene_batch(*, seed=0):
    """Returns all windows of one scene, as the joint stage trains on them."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*SCENE, 3), np.uint8)
    label = rng.integers(0, 5, SCENE, np.uint8)
    label[:10, :50] = 255
    count = len(STARTS)
    return {
        "views": np.stack([image[y : y + 64, x : x + 64] for y, x in STARTS])[:, None],
        "label": np.stack([label[y : y + 64, x : x + 64] for y, x in STARTS]),
        "position": np.array(STARTS, np.int32),
        "scene_size": np.full((count, 2), SCENE, np.int32),
        "overview": rng.integers(0, 256, (1, 64, 64, 3), np.uint8),
        "valid": np.ones(count, bool),
    }, label


def randomised(method):
    """Returns variables whose layers do something (they start near 0)."""
    rng = np.random.default_rng(0)

    def leaf(path, x):
        name = jax.tree_util.keystr(path)
        if x.ndim == 4 and ("fpn" in name or "head" in name or "ensemble" in name):
            return jnp.asarray(
                rng.normal(size=x.shape) / np.sqrt(x[..., 0].size), x.dtype
            )
        return x

    return jax.tree_util.tree_map_with_path(leaf, method.init(jax.random.key(0)))


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("global", ["global"]),
        ("local", ["global", "local"]),
        ("joint", ["global", "local", "joint"]),
        ("local_alone", ["main"]),
    ],
)
def test_stages_lead_to_the_mode_of_the_config(mode, names):
    config = small.config("glnet", model={"mode": mode})
    stages = methods.find("glnet").stages(config)
    assert [stage.name for stage in stages] == names


def test_every_stage_starts_from_subtrees_that_exist_and_fit():
    config = small.config("glnet", model={"mode": "joint"})
    shapes, started = {}, {}
    for stage in methods.find("glnet").stages(config):
        shapes[stage.name] = build(stage.changes["model.mode"]).shapes()
        started[stage.name] = {ours for ours, _, _ in stage.start}
        for ours, origin, theirs in stage.start:
            for kind in ("params", "batch_stats"):
                here, there = shapes[stage.name][kind], shapes[origin][kind]
                assert jax.tree.map(
                    lambda a, b: a.shape == b.shape,
                    here.get(ours, {}),
                    there.get(theirs, {}),
                ) == jax.tree.map(lambda a: True, here.get(ours, {}))
    assert started["local"] == {"backbone", "global_fpn", "global_head"}
    # Of the last stage only the layers that read the local branch's maps are new.
    assert set(shapes["joint"]["params"]) - started["joint"] == {"joint_fpn"}


@pytest.mark.parametrize("mode", ["local", "joint"])
def test_training_moves_neither_frozen_weights_nor_their_statistics(mode):
    method, (batch, _) = build(mode), scene_batch()
    variables = randomised(method)
    free, frozen = subtree.split(variables["params"], method.frozen)
    assert free and frozen

    def loss(params):
        given = {**variables, "params": params}
        outputs, stats = method.apply(given, batch, train=True, key=jax.random.key(0))
        return method.loss(outputs, batch)["total"], stats

    gradient, stats = small.run_once(
        jax.grad(loss, has_aux=True), subtree.merge(free, frozen)
    )
    for name, tree in gradient.items():
        if name in method.frozen:
            assert not any(leaf.any() for leaf in jax.tree.leaves(tree)), name
        else:
            assert all(leaf.any() for leaf in jax.tree.leaves(tree)), name
    for name, tree in stats.items():
        same = jax.tree.map(
            lambda a, b: bool((a == b).all()), tree, variables["batch_stats"][name]
        )
        assert all(jax.tree.leaves(same)) == (name in method.frozen), name


def test_joint_training_in_groups_equals_all_windows_at_once():
    method = build("joint", loss={"group": 4})  # of 6 windows: one group is short
    batch, _ = scene_batch()
    variables = randomised(method)
    in_groups, stats = small.run_once(
        lambda v: method.apply(v, batch, train=True, key=None), variables
    )
    at_once, updates = small.run_once(
        lambda v: method.module.apply(
            v, *method.model_inputs(batch), train=True, mutable="batch_stats"
        ),
        variables,
    )
    for name in ("global", "ensemble", "logits"):
        np.testing.assert_allclose(in_groups[name], at_once[name], atol=1e-4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        stats,
        updates["batch_stats"],
    )


def test_padding_of_a_scene_changes_neither_maps_nor_loss():
    method = build("joint")
    batch, _ = scene_batch()
    more = {
        k: np.concatenate([v, v[:2]]) if k != "overview" else v
        for k, v in batch.items()
    }
    more["label"][6:], more["valid"][6:] = 255, False
    variables = randomised(method)

    def run(batch):
        outputs, _ = method.apply(variables, batch, train=True, key=None)
        return method.loss(outputs, batch)

    # Groups of 6: the padding is a group of its own, without any pixel.
    a, b = small.run_once(lambda: (run(batch), run(more)))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-5)


def test_joint_loss_sums_groups_of_windows_and_reads_the_label_of_the_whole_scene():
    method = build("joint", loss={"group": 4, "gamma": 2.0})
    batch, label = scene_batch()
    rng = np.random.default_rng(1)
    outputs = {
        "global": jnp.asarray(rng.normal(size=(1, 16, 16, 5)), jnp.float32),
        "ensemble": jnp.asarray(rng.normal(size=(6, 16, 16, 5)), jnp.float32),
    }
    found = small.run_once(method.loss, outputs, batch)
    focal = losses.FocalLoss(gamma=2.0).segmentation
    whole = resize.nearest(jnp.asarray(label)[None], (64, 64))
    expected = focal(outputs["global"], resize.nearest(whole, (16, 16)))
    np.testing.assert_allclose(found["global"], expected, rtol=1e-6)
    small_label = resize.nearest(jnp.asarray(batch["label"]), (16, 16))
    groups = [
        focal(outputs["ensemble"][part], small_label[part])
        for part in (slice(0, 4), slice(4, 6))
    ]
    np.testing.assert_allclose(found["ensemble"], sum(groups), rtol=1e-6)


def test_local_loss_leaves_padding_out_of_the_difference_of_the_maps():
    method = build("local", loss={"difference_weight": 0.5})
    batch, _ = scene_batch()
    batch["valid"][4:] = False
    zeros = jnp.zeros((6, 16, 16, 5))
    apart = jnp.arange(6.0)
    outputs = {"local": zeros, "ensemble": zeros, "difference": apart}
    assert method.loss(outputs, batch)["difference"] == 0.5 * 1.5


def test_global_training_sees_overviews_and_prediction_cuts_their_logits():
    method, (batch, _) = build("global"), scene_batch()
    variables = randomised(method)
    overviews = {"views": batch["overview"][:, None], "label": batch["label"][:1]}

    def run(variables):
        whole = method.apply(variables, overviews)
        context = method.context(variables, batch["overview"])
        given = {k: v for k, v in batch.items() if k != "overview"}
        cut = method.apply(variables, given | {"context": context})
        return whole, cut, method.apply(variables, batch)

    whole, cut, without = small.run_once(run, variables)
    assert whole["logits"].shape == (1, 64, 64, 5)
    scene = resize.nearest(whole["global"], SCENE)
    for (top, left), part in zip(STARTS, cut["logits"], strict=True):
        np.testing.assert_array_equal(part, scene[0, top : top + 64, left : left + 64])
    np.testing.assert_array_equal(cut["logits"], without["logits"])


def test_a_context_spares_the_overview_and_changes_nothing():
    method, (batch, _) = build("local"), scene_batch()

    def run(variables):
        context = method.context(variables, batch["overview"])
        given = {k: v for k, v in batch.items() if k != "overview"}
        cached = method.apply(variables, given | {"context": context})
        several = batch | {"overview": np.repeat(batch["overview"], 6, 0)}
        return cached, method.apply(variables, batch), method.apply(variables, several)

    cached, one, several = small.run_once(run, randomised(method))
    np.testing.assert_allclose(cached["logits"], one["logits"], atol=1e-4)
    np.testing.assert_allclose(cached["logits"], several["logits"], atol=1e-4)


def test_collecting_batch_by_batch_equals_all_windows_of_one_batch():
    method, (batch, _) = build("joint"), scene_batch()
    empty = method.empty_collection(SCENE)
    assert method.collects and all(
        isinstance(leaf, np.ndarray) and not leaf.any()
        for leaf in jax.tree.leaves(empty)
    )

    def run(variables, collected):
        first = method.context(variables, batch["overview"])
        given = {k: v for k, v in batch.items() if k not in ("overview", "label")}
        for start in (0, 4):  # the last two of the second batch are padding
            part = {k: np.take(v, range(start, start + 4), 0, mode="clip")
                    for k, v in given.items()}  # fmt: skip
            part |= {"valid": np.arange(start, start + 4) < 6, "context": first}
            collected = method.collect(variables, part, collected)
        context = method.context(variables, batch["overview"], collected=collected)
        twice = method.apply(variables, given | {"context": context})
        return twice["logits"], method.apply(variables, batch)["logits"]

    twice, at_once = small.run_once(run, randomised(method), empty)
    np.testing.assert_allclose(twice, at_once, atol=1e-4)


def test_another_scene_is_collected_without_tracing_the_network_again(monkeypatch):
    method = build("joint")
    first = method.empty_collection((64, 64))
    monkeypatch.setattr(jax, "eval_shape", None)
    again = method.empty_collection((640, 64))
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_a_map_that_no_window_covers_is_zero_and_finite():
    method = build("joint")
    merged = method.empty_collection(SCENE).mean()
    assert not any(leaf.any() for leaf in jax.tree.leaves(merged))


def test_one_classifier_fills_the_backbones_of_all_branches():
    method = build("joint")
    rng = np.random.default_rng(0)
    state_dict = {"fc.weight": np.zeros((3, 3))}
    for kind, last in (("params", "weight"), ("batch_stats", "running_mean")):
        tree = method.shapes()[kind]["backbone"]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *modules, name = (entry.key for entry in path)
            ending = {"bias": "bias", "var": "running_var"}.get(name, last)
            sides = (
                [leaf.shape[k] for k in (3, 2, 0, 1)] if leaf.ndim == 4 else leaf.shape
            )
            name = "_".join(modules).replace("_", ".")
            state_dict[f"{name}.{ending}"] = rng.random(sides)
    before = method.init(jax.random.key(0))
    after = method.import_backbone(before, state_dict)
    for name in ("local_backbone", "fixed_backbone"):
        for kind in ("params", "batch_stats"):
            jax.tree.map(
                np.testing.assert_array_equal,
                after[kind][name],
                after[kind]["backbone"],
            )
    assert after["params"]["joint_fpn"] is before["params"]["joint_fpn"]


@pytest.mark.parametrize(
    ("model", "loss", "message"),
    [
        ({"mode": "both"}, {}, "mode = 'both'; use one of global, local, joint"),
        ({"fpn_dim": 1}, {}, "fpn_dim = 1; use 2 or more"),
        ({}, {"group": 0}, "group = 0; use 1 or more"),
        ({}, {"gamma": -1.0}, "gamma = -1.0; use 0 or more"),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(model, loss, message):
    with pytest.raises(InputError, match=message):
        methods.build(small.config("glnet", model=model, loss=loss))


class ArrayScene:
    """A scene in memory."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.info = prepared.SceneInfo("scene", *pixels.shape[:2])

    def read(self, place):
        return window.cut(self.pixels, place, fill=0)

    def read_valid(self, place):
        return None


@pytest.mark.parametrize("mode", ["global", "joint"])
def test_a_scene_in_batches_equals_all_its_windows_at_once(mode):
    method = build(mode)
    variables = randomised(method)
    pixels = np.random.default_rng(5).integers(0, 256, (*SCENE, 3), np.uint8)
    scene = ArrayScene(pixels)
    tiling = plan.Tiling(64, 40, 4, score="logits", probabilities=True)
    rows = list(inference.Engine(method, tiling).label(variables, scene))
    found = np.concatenate([part.probabilities for part in rows])

    starts = [(y, x) for y in (0, 26) for x in (0, 40, 56)]
    small_scene = overview.make(scene.read, scene.info, height=64, width=64)
    batch = {
        "views": np.stack([pixels[y : y + 64, x : x + 64] for y, x in starts])[:, None],
        "position": np.array(starts, np.int32),
        "scene_size": np.full((6, 2), SCENE, np.int32),
        "overview": small_scene[None],
    }
    logits = small.run_once(lambda v: method.apply(v, batch)["logits"], variables)
    total, count = np.zeros((*SCENE, 5)), np.zeros((*SCENE, 1))
    for (y, x), part in zip(starts, logits, strict=True):
        total[y : y + 64, x : x + 64] += part
        count[y : y + 64, x : x + 64] += 1
    expected = jax.nn.softmax(total / count)
    np.testing.assert_allclose(found, expected, atol=1e-3)
