"""MagNet's segmentation networks: sizes, heads, statistics, ImageNet weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import methods, weights
from uhrjax.errors import InputError

NAMES = ("hrnet_ocr", "magnet_pspnet", "resnet_fpn")


@pytest.mark.parametrize("name", NAMES)
def test_any_size_is_labelled_at_its_own_size(name):
    method = methods.build(small.config(name, tile=50))
    batch = {"views": np.zeros((1, 1, 50, 37, 3), np.uint8)}
    found = jax.eval_shape(lambda v: method.apply(v, batch), method.shapes())
    assert found["logits"].shape == (1, 50, 37, 5)


@pytest.mark.parametrize("name", ["hrnet_ocr", "magnet_pspnet"])
def test_two_heads_are_trained_and_averaged(name):
    method = methods.build(small.config(name))
    rng = np.random.default_rng(0)
    main, aux = rng.normal(size=(2, 1, 6, 8, 5)).astype(np.float32)
    label = rng.integers(0, 5, (1, 6, 8))
    found = method.loss({"main": main, "aux": aux}, {"label": label})
    parts = [method.loss_rule.segmentation(x, label) for x in (main, aux)]
    np.testing.assert_allclose(found["seg"], parts[0])
    np.testing.assert_allclose(found["aux"], 0.4 * parts[1], rtol=1e-6)
    variables = method.init(jax.random.key(0))
    out = small.run_once(method.apply, variables, small.batch(size=(64, 64)))
    expected = (out["main"] + 0.4 * out["aux"]) / 1.4
    np.testing.assert_allclose(out["logits"], expected, atol=1e-6)
    assert abs(out["main"] - out["aux"]).max() > 1e-3


def test_statistics_inside_blocks_move_slowly_and_those_around_them_fast():
    method = methods.build(small.config("resnet_fpn"))
    variables = method.init(jax.random.key(0))
    # Far from what any batch has: the share that stays is the momentum.
    far = jax.tree.map(lambda x: jnp.full_like(x, 1e6), variables["batch_stats"])
    batch = small.batch(size=(64, 64))
    _, stats = small.run_once(
        lambda v: method.apply(v, batch, train=True, key=jax.random.key(0)),
        {**variables, "batch_stats": far},
    )
    kept = jax.tree.map(lambda x: float(x.mean()) / 1e6, stats["backbone"])
    block = kept["layer2_0"]
    for name in ("bn1", "bn2"):
        assert block[name]["mean"] == pytest.approx(0.99, abs=1e-4)
        assert block[name]["var"] == pytest.approx(0.99, abs=1e-4)
    for around in (block["downsample_1"], kept["bn1"]):
        assert around["mean"] == pytest.approx(0.9, abs=1e-4)


@pytest.mark.parametrize("drop", ["head", "classifier"])
def test_an_imagenet_trunk_fills_the_backbone_of_hrnet_ocr(drop):
    method = methods.build(small.config("hrnet_ocr"))
    rng = np.random.default_rng(0)
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean",
              "var": "running_var"}  # fmt: skip
    given = {
        "head": {"aux_head.0.weight": np.ones(3), "last_layer.0.bias": np.ones(3)},
        "classifier": {
            "incre_modules.0.x": np.ones(3),
            "classifier.weight": np.ones(3),
        },
    }[drop]
    for tree in method.shapes().values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree["backbone"]):
            *modules, last = (entry.key for entry in path)
            shape = leaf.shape
            if len(shape) == 4:
                shape = (shape[3], shape[2], *shape[:2])
            name = ".".join(modules)
            given[f"module.{name}.{leaves.get(last, last)}"] = rng.random(shape)
    variables = method.init(jax.random.key(0))
    filled = method.import_backbone(variables, given)
    kernel = filled["params"]["backbone"]["conv2"]["kernel"]
    expected = given["module.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)
    assert filled["params"]["ocr"] is variables["params"]["ocr"]


def test_names_of_the_published_wrapper_are_taken_off():
    given = {
        "module.model.bn1.weight": jnp.ones(2),
        "model.feats.model.conv1.weight": jnp.ones(2),
        "loss.weight": jnp.ones(2),
        "module.loss.weight": jnp.ones(2),
    }
    found = weights.without_wrapper(given)
    assert set(found) == {"module.bn1.weight", "feats.conv1.weight"}


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("hrnet_ocr", {"size": "w20"}, "'w20'; use one of w48, w18, w18_small_v2"),
        ("hrnet_ocr", {"stem_stride": 3}, "stem_stride = 3; use one of 1, 2"),
        ("hrnet_ocr", {"hidden": 0}, "hidden = 0; use 1 or more"),
        ("magnet_pspnet", {"dropout": 1.0}, "dropout = 1.0"),
        ("resnet_fpn", {"backbone": "resnet20"}, "'resnet20'; use one of resnet18"),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(name, model, message):
    with pytest.raises(InputError, match=message):
        methods.build(small.config(name, model=model))


def test_a_negative_weight_of_the_second_head_is_refused():
    with pytest.raises(InputError, match="aux_weight = -1"):
        methods.build(small.config("magnet_pspnet", loss={"aux_weight": -1.0}))
