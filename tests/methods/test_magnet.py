"""MagNet around several networks: what trains, what it reads, what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import methods
from uhrjax.errors import InputError
from uhrjax.methods import magnet
from uhrjax.ops import roi

PFNET = {"method": "pfnet", "model": small.SMALL_PFNET, "loss": {"ohem_min_kept": 500}}
OCR = {"method": "hrnet_ocr", "model": small.MODELS["hrnet_ocr"]}
SIZE = (64, 96)


def build(*, segmenter=None, loss=None, **model):
    changes = {"loss": loss or {}}
    if segmenter is not None:
        changes["segmenter"] = segmenter
    return methods.build(small.config("magnet", model=model, **changes))


def train_step(method, variables, batch):
    """Returns the gradients, the outputs and the new statistics."""

    def loss(params):
        outputs, stats = method.apply(
            {**variables, "params": params}, batch, train=True, key=jax.random.key(0)
        )
        return method.loss(outputs, batch)["total"], (outputs, stats)

    step = jax.grad(loss, has_aux=True)
    gradients, (outputs, stats) = small.run_once(step, variables["params"])
    return gradients, outputs, stats


@pytest.mark.parametrize("segmenter", [PFNET, OCR], ids=["pfnet", "hrnet_ocr"])
def test_any_network_is_refined_and_left_alone(segmenter):
    method = build(segmenter=segmenter, trained=1)
    assert method.frozen == ("segmenter", "refiner_0")
    variables = method.init(jax.random.key(0))
    batch = small.batch_for(method)
    gradients, outputs, stats = train_step(method, variables, batch)
    assert outputs["logits"].shape == (2, *SIZE, 5)
    for name in ("refiner_0", "segmenter"):
        assert not any(leaf.any() for leaf in jax.tree.leaves(gradients[name]))
        jax.tree.map(
            np.testing.assert_array_equal, stats[name], variables["batch_stats"][name]
        )
    assert all(leaf.any() for leaf in jax.tree.leaves(gradients["refiner_1"]))


def test_the_opinions_are_the_network_on_the_crop_and_the_box_of_the_scene():
    method = build()
    variables = method.init(jax.random.key(0))
    batch = small.batch_for(method)
    outputs = small.run_once(method.apply, variables, batch)
    inside = {kind: tree["segmenter"] for kind, tree in variables.items() if tree}
    fine, whole = (
        jax.nn.softmax(method.segmenter.apply(inside, {"views": views})["logits"])
        for views in (batch["views"], batch["overview"][:, None])
    )
    np.testing.assert_allclose(outputs["fine"], fine, atol=1e-5)
    boxes = batch["box"] * np.array(SIZE * 2)
    expected = roi.align(whole, jnp.asarray(boxes, jnp.float32), SIZE)
    np.testing.assert_allclose(outputs["coarse"], expected, atol=1e-5)
    refined = method.module.apply(
        {k: {"refiner_0": t["refiner_0"]} for k, t in variables.items()},
        outputs["fine"], outputs["coarse"], train=False,
    )  # fmt: skip
    np.testing.assert_allclose(outputs["logits"], refined, atol=1e-4)
    aligned = build(roi_aligned=True)
    moved = small.run_once(aligned.apply, variables, batch)["coarse"]
    assert abs(moved - outputs["coarse"]).max() > 1e-4


def test_the_order_of_the_opinions_is_a_switch():
    rng = np.random.default_rng(0)
    fine, coarse = rng.dirichlet(np.ones(5), (2, 1, 8, 8)).astype(np.float32)
    found = {}
    for order in magnet.ORDERS:
        method = build(refine_order=order)
        variables = method.init(jax.random.key(0))
        found[order] = [
            method.refine(variables, 1, *both)
            for both in ((fine, coarse), (coarse, fine))
        ]
    first, second = found.values()
    np.testing.assert_array_equal(first[0], second[1])
    assert abs(first[0] - second[0]).max() > 1e-4


def test_every_scale_has_its_refinement_network_and_further_ones_the_last():
    method = build()
    variables = method.init(jax.random.key(0))
    p = np.random.default_rng(0).dirichlet(np.ones(5), (1, 8, 8)).astype(np.float32)
    one, two, three = (method.refine(variables, k, p, p) for k in (1, 2, 3))
    assert abs(one - two).max() > 1e-4
    np.testing.assert_array_equal(two, three)
    np.testing.assert_allclose(one.sum(-1), 1, rtol=1e-5)


def published(method):
    """Returns a state dict with the published names of the refinement networks."""
    rng = np.random.default_rng(0)
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean",
              "var": "running_var"}  # fmt: skip
    found = {}
    for tree in method.own_shapes().values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            first, *modules, last = (entry.key for entry in path)
            name = ".".join([first.replace("refiner_", "refine"), *modules])
            name = name.replace("residual_", "residual.").replace("sample_", "sample.")
            shape = leaf.shape
            if len(shape) == 4:
                shape = (shape[3], shape[2], *shape[:2])
            found[f"{name}.{leaves.get(last, last)}"] = rng.random(shape)
    return found


def test_published_files_fill_the_refinement_networks_in_order():
    method = build(segmenter=PFNET)
    given = published(method)
    assert "refine1.residual.0.downsample.0.weight" in given
    method.segmenter.import_torch = lambda rest: rest  # what is handed on
    filled = method.import_torch({**given, "module.head.weight": np.ones(3)})
    assert set(filled.pop("head.weight")) == {"segmenter"}
    kernel = filled["params"]["refiner_1"]["seg_conv"]["kernel"]
    expected = given["refine1.seg_conv.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(kernel, expected, rtol=1e-6)


def test_a_refinement_file_without_its_input_norm_is_refused():
    method = build()
    given = published(method)
    bare = {k: v for k, v in given.items() if not k.startswith("refine1.bn0.")}
    with pytest.raises(InputError, match=r"no refine1\.bn0\.weight.*input_norm=false"):
        method.import_torch(bare)
    without = build(input_norm=False)
    without.segmenter.import_torch = lambda rest: {}
    assert without.import_torch(published(without))
    with pytest.raises(InputError, match=r"unknown to the model.*\n.*bn0"):
        without.import_torch(given)


def test_an_imagenet_backbone_goes_into_the_network():
    method = build()
    variables = method.init(jax.random.key(0))
    method.segmenter.import_backbone = lambda variables, state: {
        **variables, "params": {"new": state["x"]}
    }  # fmt: skip
    filled = method.import_backbone(variables, {"x": 7})
    assert filled["params"]["segmenter"] == {"new": 7}
    assert filled["params"]["refiner_0"] is variables["params"]["refiner_0"]


def test_the_better_half_of_a_crop_takes_the_refined_answer():
    rng = np.random.default_rng(0)
    coarse, fine = rng.dirichlet(np.ones(3), (2, 2, 6, 8)).astype(np.float32)
    logits = rng.normal(size=(2, 6, 8, 3)).astype(np.float32)
    found = magnet.aggregate({"coarse": coarse, "fine": fine, "logits": logits})
    refined = jax.nn.softmax(logits)
    taken = (np.asarray(found) == refined).all(-1)
    assert (taken.sum((1, 2)) == 24).all()
    np.testing.assert_array_equal(found, np.where(taken[..., None], refined, coarse))
    two = [np.sort(p, -1)[..., -2:] for p in (fine, coarse)]
    score = (two[0][..., 1] - two[0][..., 0]) * (1 - two[1][..., 1] + two[1][..., 0])
    for image in range(2):
        assert score[image][taken[image]].min() >= score[image][~taken[image]].max()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"refine_order": "fine"}, "'fine'; use one of fine_first, coarse_first"),
        ({"coarse_resize": "once"}, "'once'; use one of two_steps, direct"),
        ({"scales": (0.5, 0.25)}, "config.model.scales .* ascend and end with 1"),
        ({"trained": 2}, "trained = 2: there are -1 .* the refinement networks 0 to 1"),
        ({"momentum": 1.0}, "momentum = 1.0; use 0 to 1"),
        ({"refiners": -1}, "refiners = -1; use 0 or more"),
        ({"refiners": 0}, r"trained = 0: there are -1 \(the segmentation network\)$"),
        ({"refiners": 3}, "refiners = 3: 3 scales have at most 2 of them"),
        ({"learned": (3,)}, r"learned = \(3,\): scales have the indices 0 to 2"),
        ({"crop": (5,)}, r"crop = \(5,\); use \(height, width\)"),
        ({"size": (5, 5)}, "config.model.size is unknown to MagNet"),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(model, message):
    with pytest.raises(InputError, match=message):
        build(**model)


def test_a_network_that_needs_more_than_an_image_is_refused():
    glnet = {"method": "glnet", "model": small.MODELS["glnet"]}
    with pytest.raises(InputError, match=r"needs more than a patch"):
        build(segmenter=glnet)
    with pytest.raises(InputError, match=r"config.segmenter.method is not set"):
        build(segmenter={})


def test_an_input_size_that_the_network_cannot_see_is_refused():
    with pytest.raises(InputError, match=r"input_size: 50 x 96 px.*use 64 x 96"):
        build(segmenter=PFNET, input_size=(50, 96))
