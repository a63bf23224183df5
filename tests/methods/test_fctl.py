"""FCtL's contexts, stages and published names."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import small

from uhrjax import cost, methods, subtree
from uhrjax.errors import InputError
from uhrjax.methods import base, fctl
from uhrjax.tiling import view

UINT8 = jnp.uint8


def build(**model):
    return methods.build(small.config("fctl", model=model))


def logits(method, variables, batch):
    return small.run_once(lambda v, b: method.apply(v, b)["logits"], variables, batch)


@pytest.mark.parametrize(
    ("contexts", "encoders", "parts"),
    [
        ((), "frozen", {"backbone", "head"}),
        (("2",), "shared", {"backbone", "attention", "head"}),
        (("local",), "shared", {"backbone", "attention", "head"}),
        (("2",), "frozen", {"backbone", "context_0", "attention", "head"}),
        (
            ("local", "2", "global"),
            "frozen",
            {"backbone", "context_0", "context_1", "attention", "head"},
        ),
    ],
)
def test_contexts_other_than_local_have_a_frozen_encoder_each(
    contexts, encoders, parts
):
    method = build(contexts=contexts, encoders=encoders)
    params = method.shapes()["params"]
    assert set(params) == parts
    assert set(method.frozen) == {name for name in parts if name.startswith("context")}
    if contexts:
        streams = {name for name in params["attention"] if name.startswith("stream")}
        assert streams == {f"stream_{index}" for index in range(len(contexts))}


def test_views_are_sorted_by_size_and_contexts_keep_their_order():
    method = build(contexts=("3", "local", "1.5", "global", "2"))
    assert method.views == (
        view.View(),
        view.View(1.5, "pillow"),
        view.View(2, "pillow"),
        view.View(3, "pillow"),
    )
    assert method.overview == (64, 64)
    batch = small.batch_for(method)
    _, contexts = method.model_inputs(batch)
    mean, std = np.array(method.mean), np.array(method.std)
    for found, source in zip(
        contexts,
        (
            batch["views"][:, 3],
            batch["views"][:, 1],
            batch["overview"],
            batch["views"][:, 2],
        ),
        strict=True,
    ):
        np.testing.assert_allclose(found, (source / 255 - mean) / std, atol=1e-5)


def test_shifted_borders_are_asked_of_whoever_cuts_the_views():
    method = build(contexts=("2", "global"), border="shift")
    assert method.views[1] == view.View(2, "pillow", "shift")


def test_one_overview_for_all_and_its_features_equal_one_overview_each():
    method = build(contexts=("2", "local", "global"))
    params = method.init(jax.random.key(0))["params"]
    stronger = jax.tree.map(lambda leaf: 20 * leaf, params["attention"])
    variables = {"params": {**params, "attention": stronger}}
    batch = small.batch_for(method)
    batch["overview"] = np.repeat(batch["overview"][:1], 2, axis=0)
    each = logits(method, variables, batch)
    one = {**batch, "overview": batch["overview"][:1]}
    np.testing.assert_allclose(logits(method, variables, one), each, atol=1e-5)
    features = small.run_once(method.context, variables, one["overview"])
    assert features.shape[0] == 1
    known = {"views": batch["views"], "context": features}
    np.testing.assert_allclose(logits(method, variables, known), each, atol=1e-5)
    other = {**one, "overview": 255 - one["overview"]}
    assert abs(logits(method, variables, other) - each).max() > 1e-3


def test_without_a_global_context_a_scene_has_no_features():
    method = build(contexts=("2",))
    assert method.context(method.init(jax.random.key(0)), np.zeros(1)) is None


@pytest.mark.parametrize("encoders", ["shared", "frozen"])
def test_gradients_pass_through_shared_encoders_only(encoders):
    method = build(contexts=("2",), encoders=encoders)
    variables = method.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (1, 20, 20, 3))

    def loss(params, contexts):
        outputs = method.module.apply(
            {"params": params}, images, (contexts,), train=False
        )
        return jnp.sum(outputs["logits"] ** 2)

    encoder = "backbone" if encoders == "shared" else "context_0"

    def through_context_alone(params):
        # The patch's own path is held fixed by taking the context's features apart.
        features = method.module.apply({"params": params}, images, 0, method="encode")
        fixed = jax.lax.stop_gradient(params)
        return loss(fixed, fctl.Encoded(features))

    gradient = small.run_once(jax.grad(through_context_alone), variables["params"])
    moves = any(bool(leaf.any()) for leaf in jax.tree.leaves(gradient[encoder]))
    assert moves == (encoders == "shared")


def test_explained_outputs_hold_attention_over_each_context_and_weights():
    method = build(contexts=("2", "global", "local"))
    variables = method.init(jax.random.key(0))
    batch = small.batch_for(method, size=(64, 64), count=1)
    found = small.run_once(method.explain, variables, batch)
    tokens = 9 * 9  # 64 px grow to 262 and are halved five times, up
    assert [a.shape for a in found["attention"]] == [(1, tokens, tokens)] * 3
    assert found["weights"].shape == (3, 1, 9, 9, 16)
    np.testing.assert_allclose(
        found["logits"], logits(method, variables, batch), atol=1e-5
    )
    plain = build(contexts=())
    shapes = jax.eval_shape(plain.explain, plain.shapes(), small.batch_for(plain))
    assert set(shapes) == {"logits"}


def full_size(**model):
    config = small.config("fctl", tile=508, num_classes=7)
    config.model = {**config.model, "width": 64, "fc_features": 4096, **model}
    return methods.build(config)


def gmac(method, batch):
    given = {name: jax.ShapeDtypeStruct(shape, UINT8) for name, shape in batch.items()}
    if "context" in given:
        given["context"] = jax.ShapeDtypeStruct(batch["context"], jnp.float32)
    run = lambda v, b: method.apply(v, b)["logits"]  # noqa: E731
    return cost.multiply_accumulates(run, method.shapes(), given) / 1e9


def test_cost_and_size_are_the_published_networks():
    patch = (508, 508, 3)
    plain = full_size(contexts=())
    assert gmac(plain, {"views": (1, 1, *patch)}) == pytest.approx(188.7, rel=1e-3)
    weights = jax.tree.leaves(plain.shapes())
    assert sum(w.size for w in weights) == pytest.approx(134.3e6, rel=1e-3)
    three = full_size(contexts=("2", "3", "local"))
    found = gmac(three, {"views": (1, 3, *patch)})
    assert found == pytest.approx(501.0, rel=1e-3)
    free, frozen = subtree.split(three.shapes()["params"], three.frozen)
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (free, frozen)]
    assert sizes == pytest.approx([140.6e6, 2 * 14.7e6], rel=2e-3)
    cached = full_size(contexts=("3", "global", "local"))
    views = {"views": (1, 2, *patch)}
    saved = gmac(cached, {**views, "overview": (1, *patch)})
    saved -= gmac(cached, {**views, "context": (1, 23, 23, 512)})
    assert saved == pytest.approx(154.0, rel=1e-3)


def stages_of(**model):
    return fctl.FCtLMethod.stages(small.config("fctl", model=model))


@pytest.mark.parametrize(
    ("contexts", "names"),
    [
        ((), ["fcn"]),
        (("2",), ["fcn", "medium"]),
        (("global",), ["fcn", "medium"]),
        (("local",), ["fcn", "local"]),
        (("2", "local"), ["fcn", "medium", "all"]),
        (("2", "3", "local"), ["fcn", "medium", "large", "all"]),
        (("local", "3", "global"), ["fcn", "medium", "large", "all"]),
        (("2", "3", "global"), ["fcn", "small", "medium", "large", "all"]),
        (
            ("1.5", "2", "3", "global"),
            ["fcn", *(f"context_{i}" for i in range(1, 5)), "all"],
        ),
    ],
)
def test_stages_train_each_context_alone_before_all_and_start_from_what_exists(
    contexts, names
):
    stages = stages_of(contexts=contexts)
    assert [stage.name for stage in stages] == names
    built = {}
    for stage in stages:
        changes = {k.removeprefix("model."): v for k, v in stage.changes.items()}
        built[stage.name] = method = build(**changes)
        ours = method.shapes()["params"]
        for here, source, there in stage.start:
            assert source in list(built)[:-1]
            theirs = subtree.take(built[source].shapes()["params"], there)
            assert jax.tree.map(lambda leaf: leaf.shape, theirs) == jax.tree.map(
                lambda leaf: leaf.shape, subtree.take(ours, here)
            )
        # All of the encoders have a start, none is left random.
        if stage.name != "fcn":
            started = {here for here, _, _ in stage.start}
            assert {name for name in ours if name != "attention"} <= started
    assert built[names[-1]].module.contexts == contexts


def test_pretraining_labels_whole_scenes_and_gives_every_stage_its_encoder():
    config = small.config("fctl", stages={"pretrain": {"epochs": 1}})
    pretrain, *later = fctl.FCtLMethod.stages(config)
    changes = {**config, **{k: v for k, v in pretrain.changes.items() if "." not in k}}
    global_inference = methods.build(ml_collections.ConfigDict(changes))
    theirs = global_inference.shapes()["params"]["segmenter"]
    assert pretrain.changes["data.unit"] == "overviews" and "attention" not in theirs
    assert [stage.name for stage in later] == ["fcn", "medium", "large", "all"]
    given = ("backbone", "pretrain", "segmenter/backbone")
    assert [given in stage.start for stage in later] == [True, True, True, False]
    assert ("head", "fcn", "head") in later[1].start


def test_the_paper_s_stages_start_as_its_code_does():
    fcn, medium, large, last = stages_of(contexts=("3", "global", "local"))
    unfused = {"model.fusion": "adaptive", "model.spatial_only": False}
    assert fcn.changes == {"model.contexts": (), **unfused} and fcn.start == ()
    assert medium.changes == {
        "model.contexts": ("3",),
        "model.encoders": "shared",
        **unfused,
    }
    assert large.changes["model.contexts"] == ("global",)
    for stage in (medium, large):
        assert stage.start == (
            ("backbone", "fcn", "backbone"),
            ("head", "fcn", "head"),
        )
    assert last.changes == {
        "model.contexts": ("3", "global", "local"),
        "model.encoders": "frozen",
    }
    assert last.start == (
        ("backbone", "medium", "backbone"),
        ("head", "medium", "head"),
        ("attention/stream_0", "medium", "attention/stream_0"),
        ("context_0", "medium", "backbone"),
        ("context_1", "large", "backbone"),
    )


def test_shared_encoders_of_several_contexts_train_at_once():
    stages = stages_of(contexts=("2", "3"), encoders="shared")
    assert [stage.name for stage in stages] == ["fcn", "all"]
    assert "model.encoders" not in stages[1].changes


def test_concat_takes_over_no_stream():
    last = stages_of(contexts=("2", "3"), fusion="concat")[-1]
    assert not any(ours.startswith("attention") for ours, _, _ in last.start)


def vgg_file():
    rng = np.random.default_rng(0)
    shapes, channels = {}, 3
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    widths = (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 8)
    for place, width in zip(places, widths, strict=True):
        shapes[f"features.{place}.weight"] = (2 * width, channels, 3, 3)
        shapes[f"features.{place}.bias"] = (2 * width,)
        channels = 2 * width
    for place in (0, 3, 6):
        shapes[f"classifier.{place}.weight"] = (10, 16 * 49 if place == 0 else 10)
        shapes[f"classifier.{place}.bias"] = (10,)
    return {name: rng.random(shape) for name, shape in shapes.items()}


def test_imagenet_weights_fill_every_encoder():
    method = build(contexts=("2", "local"))
    before, given = method.init(jax.random.key(0)), vgg_file()
    params = method.import_backbone(before, given)["params"]
    assert jax.tree.structure(params) == jax.tree.structure(before["params"])
    kernel = given["features.28.weight"].transpose(2, 3, 1, 0).astype(np.float32)
    for name in ("backbone", "context_0"):
        np.testing.assert_array_equal(params[name]["block5"]["conv3"]["kernel"], kernel)
    jax.tree.map(
        np.testing.assert_array_equal, params["head"], before["params"]["head"]
    )
    assert params["attention"] is before["params"]["attention"]
    del given["features.0.bias"]
    with pytest.raises(InputError, match=r"backbone\.block1\.conv1\.bias"):
        method.import_backbone(before, given)


def test_fully_connected_layers_start_a_head_of_their_size():
    method = full_size(contexts=())
    shapes = method.shapes()["params"]
    zeros = np.zeros(1, np.float32)
    given = {
        f"features.{old}": np.broadcast_to(zeros, kernel_of(shapes, new))
        for old, new in torchvision_names()
    }
    for place, shape in ((0, (4096, 25088)), (3, (4096, 4096)), (6, (1000, 4096))):
        # One number per row tells rows from columns.
        rows = np.arange(shape[0], dtype=np.float32)[:, None]
        given[f"classifier.{place}.weight"] = np.broadcast_to(rows, shape)
        given[f"classifier.{place}.bias"] = np.arange(shape[0], dtype=np.float32)
    head = {"score": "kept"}
    variables = {"params": {"backbone": None, "head": head}}
    filled = method.import_backbone(variables, given)["params"]["head"]
    assert filled["score"] == "kept"
    assert filled["fc6"]["kernel"].shape == (7, 7, 512, 4096)
    np.testing.assert_array_equal(filled["fc6"]["kernel"][3, 5, 100], np.arange(4096))
    np.testing.assert_array_equal(filled["fc7"]["bias"], np.arange(4096))


def torchvision_names():
    from uhrjax.backbones import vgg

    for pattern, ours in vgg.TORCH_NAMES:
        place = pattern.removeprefix(r"^features\.").removesuffix(r"\.")
        yield f"{place}.weight", (*ours.split(".")[1:3], "kernel")
        yield f"{place}.bias", (*ours.split(".")[1:3], "bias")


def kernel_of(shapes, path):
    shape = subtree.take(shapes["backbone"], "/".join(path)).shape
    return shape if len(shape) < 4 else (shape[3], shape[2], *shape[:2])


def published(method, *, prefix="", unused=True):
    """Returns a mode 2 file for a method with one context, aliases included."""
    names = {"pool3": (0, 2, 5, 7, 10, 12, 14), "pool4": (0, 2, 4), "pool5": (0, 2, 4)}
    convs = [
        subtree.take(method.shapes()["params"], f"backbone/block{b}/conv{i}/kernel")
        for b, last in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
        for i in range(1, last + 1)
    ]
    found, rng = {}, np.random.default_rng(0)
    keys = [f"{pool}.{place}" for pool, places in names.items() for place in places]
    for key, kernel in zip(keys, convs, strict=True):
        weight = rng.random((kernel.shape[3], kernel.shape[2], 3, 3))
        for alias in ("", "big_"):
            found[f"{prefix}{alias}{key}.weight"] = weight
            found[f"{prefix}{alias}{key}.bias"] = np.zeros(len(weight))
    attention = f"{prefix}big_attention."
    for suffix in ("", "_1", "_2") if unused else ("",):
        found[f"{attention}gamma{suffix}"] = np.ones(1)
        for part in ("query", "key", "value"):
            name = f"{attention}conv_{part}{suffix}"
            found[f"{name}.weight"] = rng.random((16, 16, 1, 1))
            if part != "value":
                found[f"{name}.bias"] = np.zeros(16)
    if unused:
        for part in ("in_1", "out_3", "trans"):
            found[f"{attention}{part}.weight"] = np.zeros((16, 16, 1, 1))
        found[f"{prefix}up_final.weight"] = np.zeros((5, 5, 16, 16))
        found[f"{prefix}vgg.features.0.weight"] = np.zeros((2, 3, 3, 3))
    head = method.shapes()["params"]["head"]
    for theirs, ours in (
        ("output.0", "fc6"), ("output.3", "fc7"), ("output.6", "score"),
        ("adj_pool4", "score_pool4"), ("adj_pool3", "score_pool3"),
    ):  # fmt: skip
        shape = head[ours]["kernel"].shape
        found[f"{prefix}{theirs}.weight"] = rng.random((*shape[:1:-1], *shape[:2]))
        found[f"{prefix}{theirs}.bias"] = np.zeros(shape[3])
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "local."])
def test_published_files_load_without_what_they_hold_twice_or_unused(prefix):
    method = build(contexts=("2",), encoders="shared")
    given = published(method, prefix=prefix)
    loaded = method.import_torch(given)["params"]
    weight = given[f"{prefix}big_attention.conv_key.weight"][:, :, 0, 0]
    np.testing.assert_array_equal(
        loaded["attention"]["stream_0"]["key"]["kernel"][0, 0],
        weight.T.astype(np.float32),
    )
    given[f"{prefix}pool6.0.weight"] = np.zeros(3)
    with pytest.raises(InputError, match=r"pool6\.0\.weight"):
        method.import_torch(given)


def test_the_encoder_of_a_context_comes_from_a_file_of_its_own():
    single = build(contexts=("2",), encoders="shared")
    method = build(contexts=("2",), encoders="frozen")
    other = {f"medium.{name}": value + 1.0 for name, value in published(single).items()}
    loaded = method.import_torch({**published(single, prefix="local."), **other})
    params = loaded["params"]
    ours, theirs = (
        params[name]["block1"]["conv1"]["kernel"] for name in ("backbone", "context_0")
    )
    np.testing.assert_allclose(theirs, ours + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"contexts": ("2", "big")}}, "'big' is no context; use numbers"),
        ({"model": {"contexts": ("1",)}}, "'1' is no context; use numbers above 1"),
        ({"model": {"contexts": ("nan",)}}, "'nan' is no context"),
        ({"model": {"contexts": ("2", "2.0")}}, "names one twice"),
        ({"model": {"contexts": ("1.3",)}}, "use windows of 60 or 70 px"),
        ({"model": {"border": "mirror"}}, "'mirror'; use one of zero, shift"),
        ({"model": {"encoders": "own"}}, "'own'; use one of frozen, shared"),
        ({"model": {"fusion": "sum"}}, "'sum'; use one of adaptive, adaptive_paper"),
        ({"model": {"value": "both"}}, "'both'; use one of context, local"),
        ({"model": {"spatial_only": True}}, "a switch of fusion = 'adaptive_paper'"),
        ({"model": {"dropout": 1.0}}, "dropout = 1.0; use 0"),
        ({"model": {"width": 0}}, "width = 0; use 1 or more"),
        ({"loss": {"gamma": -1.0}}, "gamma = -1.0; use 0 or more"),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(changes, message):
    with pytest.raises(InputError, match=message):
        methods.build(small.config("fctl", **changes))


def test_a_batch_without_the_overview_says_what_to_prepare():
    method = build()
    batch = {"views": small.batch_for(method)["views"]}
    with pytest.raises(InputError, match=r"no 'overview'.*\(64, 64\) px"):
        method.model_inputs(batch)


def test_inputs_need_no_more_of_a_config_than_its_model_and_tile():
    config = small.config("fctl")
    del config.model
    config.model = {}
    found = fctl.FCtLMethod.inputs(config)
    assert isinstance(found, base.Inputs) and len(found.views) == 2
