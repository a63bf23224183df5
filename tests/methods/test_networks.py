"""What single networks of the papers' comparisons promise beyond the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import losses, methods
from uhrjax.errors import InputError
from uhrjax.networks import emanet, farseg
from uhrjax.nn import point_head


def build(name, *, loss=None, **model):
    return methods.build(small.config(name, model=model, loss=loss))


@pytest.mark.parametrize("follows", [True, False])
def test_the_bases_of_emanet_follow_the_batches_unless_told_not_to(follows):
    before = build("emanet").init(jax.random.key(0))["batch_stats"]["bases"]["mu"]
    unit = emanet.Bases(4, moving_average=follows)
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    stored = {"batch_stats": {"mu": before}}
    _, state = unit.apply(stored, x, train=True, mutable="batch_stats")
    after = state["batch_stats"]["mu"]
    assert (after != before).any() == follows
    if follows:  # nine tenths of the old ones and a tenth of means of unit vectors
        new = (after - 0.9 * before)[..., 0] / 0.1
        assert 0.1 < np.linalg.norm(new, axis=1).max() <= 1 + 1e-4


def test_which_classes_occur_is_a_loss_of_encnet_only_if_asked_for():
    batch = {"label": jnp.asarray(small.batch(count=1)["label"])}
    logits = jnp.zeros((1, 64, 96, 5))
    outputs = {"logits": logits, "presence": jnp.array([[9.0, -9, -9, 9, -9]])}
    rule = build("encnet", presence=True)
    found = rule.loss(outputs, batch)  # classes 0 and 3 are there, 255 is none
    assert 0 < found["presence"] < 1e-3
    wrong = rule.loss({**outputs, "presence": -outputs["presence"]}, batch)
    assert wrong["presence"] == pytest.approx(0.2 * 9.0, rel=1e-3)
    assert set(rule.loss({"logits": logits}, batch)) == {"total", "seg"}


def test_the_loss_of_farseg_turns_from_all_pixels_to_the_hard_ones():
    rule = farseg.FarSegLoss(annealing_steps=100)
    logits = jnp.array([[[[4.0, 0.0], [0.0, 0.0]]]])  # sure, undecided
    label = jnp.array([[[0, 0]]])
    annealed = jax.jit(lambda x, steps: rule.annealed(x, label, steps))
    gradient = jax.jit(jax.grad(annealed))
    plain = jnp.mean(losses.cross_entropy(logits, label))
    for steps in (0.0, 50.0, 100.0, 900.0):  # the sum stays, its parts change
        assert annealed(logits, jnp.array(steps)) == pytest.approx(plain)
    sure = [
        float(abs(gradient(logits, jnp.array(s))[0, 0, 0, 0]))
        for s in (0.0, 50.0, 100.0, 900.0)
    ]
    assert sure[0] > sure[1] > sure[2] == sure[3]
    assert sure[0] > 100 * sure[2]


def test_farseg_counts_its_steps_and_may_have_the_plain_loss():
    method = build("farseg")
    assert method.shapes()["batch_stats"]["steps"].shape == ()
    plain = build("farseg", loss={"focal": False, "ohem": False})
    batch = {"label": jnp.asarray(small.batch()["label"])}
    logits = jax.random.normal(jax.random.key(0), (2, 64, 96, 5))
    outputs = {"logits": logits, "steps": jnp.float32(1e6)}
    ours, theirs = (
        small.run_once(lambda o, m=m: m.loss(o, batch)["total"], outputs)
        for m in (plain, method)
    )
    assert ours == pytest.approx(float(theirs), rel=1e-5)


def test_points_of_training_are_where_logits_are_undecided_or_anywhere():
    sure = jnp.zeros((1, 8, 8, 3)).at[..., 0].set(9.0)
    logits = sure.at[:, :2].set(0.0)  # undecided in the upper quarter
    points = point_head.training_points(jax.random.key(0), logits, 400)
    assert points.shape == (1, 400, 2) and (points >= 0).all() and (points < 1).all()
    upper = float(jnp.mean(points[..., 0] < 0.25))
    assert upper > 0.6  # three quarters of the candidates there, a quarter of the rest
    label = jnp.arange(16, dtype=jnp.uint8).reshape(1, 4, 4)
    found = point_head.labels_at(label, jnp.array([[[0.0, 0.99], [0.5, 0.26]]]))
    np.testing.assert_array_equal(found, [[3, 9]])


def test_rendering_ends_at_the_images_size_and_changes_its_points_only():
    def render(logits, fine, change, **options):
        head = lambda x, _: x + change  # noqa: E731
        return point_head.render(logits, fine, head, size=(13, 22), points=7, **options)

    logits = jax.random.normal(jax.random.key(0), (1, 2, 3, 3))
    fine = jnp.zeros((1, 4, 4, 5))
    nothing, changed, coarse = small.run_once(
        lambda *x: (render(*x, 0), render(*x, 9), render(*x, 9, again=False)),
        logits,
        fine,
    )
    assert nothing.shape == changed.shape == coarse.shape == (1, 13, 22, 3)
    assert int((changed.max(-1) > nothing.max(-1) + 8.9).sum()) >= 7
    # What is changed three times, or once at most.
    assert changed.max() > 18 and 9 < coarse.max() < 18


def torch_names(tree, leaf_names, modules=()):
    """Yields (dotted name, shape as PyTorch has it) of a tree of shapes."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from torch_names(value, leaf_names, (*modules, name))
            continue
        sides = value.shape
        if len(sides) == 4:
            sides = (sides[3], sides[2], sides[0], sides[1])
        yield ".".join((*modules, leaf_names.get(name, name))), sides


LEAVES = {
    "kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var",
}  # fmt: skip


def test_fcn_takes_the_weights_of_torchvision():
    method = build("fcn", auxiliary=True, backbone="resnet18")
    theirs = {"hidden.conv": "classifier.0", "hidden.norm": "classifier.1",
              "auxiliary_head.classify": "aux_classifier.4",
              "auxiliary_head.hidden.conv": "aux_classifier.0",
              "auxiliary_head.hidden.norm": "aux_classifier.1"}  # fmt: skip
    state_dict = {}
    for tree in method.shapes().values():
        for name, sides in torch_names(tree, LEAVES):
            for ours, other in theirs.items():
                name = (
                    other + name.removeprefix(ours) if name.startswith(ours) else name
                )
            name = name.replace("classify.", "classifier.4.", name.startswith("class"))
            head, dot, rest = name.partition(".")
            rest = rest.replace("_", ".") if head == "backbone" else rest
            rest = rest.replace("running.", "running_")
            state_dict[head + dot + rest] = np.full(sides, 2.0)
    assert {"backbone.layer1.0.conv1.weight", "classifier.4.bias"} <= set(state_dict)
    loaded = method.import_torch(state_dict)
    assert all((leaf == 2).all() for leaf in jax.tree.leaves(loaded))


def test_segnet_takes_the_convolutions_of_torchvisions_vgg16_bn():
    method = build("segnet")
    variables = method.init(jax.random.key(0))
    places = {}
    index = 0
    for block, count in enumerate((2, 2, 3, 3, 3)):
        for layer in range(count):
            places[f"block_{block}.layer_{layer}.conv"] = index
            places[f"block_{block}.layer_{layer}.norm"] = index + 1
            index += 3
        index += 1  # the pooling
    state_dict = {"classifier.6.weight": np.zeros((10, 4))}
    for tree in method.shapes().values():
        for name, sides in torch_names(tree["backbone"], LEAVES):
            module, _, leaf = name.rpartition(".")
            state_dict[f"features.{places[module]}.{leaf}"] = np.full(sides, index)
    assert (
        "features.40.weight" in state_dict and "features.41.running_var" in state_dict
    )
    filled = method.import_backbone(variables, state_dict)
    assert all(
        (x == index).all() for x in jax.tree.leaves(filled["params"]["backbone"])
    )
    assert filled["params"]["classify"] is variables["params"]["classify"]


def test_a_u_net_refuses_a_backbone_and_says_what_to_do():
    method = build("unet")
    with pytest.raises(InputError, match=r"from scratch.*init_what=model"):
        method.import_backbone({}, {"conv1.weight": np.zeros(1)})


@pytest.mark.parametrize("kind", ["dcn_v1", "dense_affinity", "flow_alignment"])
def test_pfnet_takes_other_ways_to_propagate_without_edges_or_points(kind):
    method = build("pfnet", propagation=kind)
    batch = small.batch(size=(64, 64))
    outputs = jax.eval_shape(lambda v: method.apply(v, batch), method.shapes())
    assert outputs["logits"].shape == (2, 64, 64, 5)
    assert not outputs["edge_logits"] and not method.points(outputs)
    assert not method.targets(batch["label"][0], np.random.default_rng(0))


@pytest.mark.parametrize(
    "name, model, loss, message",
    [
        ("ccnet", {"recurrence": 0}, {}, "recurrence = 0; use 1 or more"),
        ("danet", {"decoder": "unet"}, {}, "'unet'; use one of none, fpn, pf"),
        ("deeplabv3", {"cells": 0}, {}, "cells = 0; use 1 or more"),
        ("deeplabv3", {}, {"boundary_rule": "x"}, "'x'; use one of foreground"),
        ("denseaspp", {"growth": 0}, {}, "growth = 0"),
        ("encnet", {"words": 0}, {}, "words = 0"),
        ("farseg", {}, {"annealing_steps": 0}, "annealing_steps = 0"),
        ("hrnetv2", {"size": "w99"}, {}, "'w99'; use one of w48"),
        ("pointrend", {"head": "fcn"}, {}, "'fcn'; use one of deeplabv3, "),
        ("pointrend", {"points": 0}, {}, "points = 0; use 1 or more"),
        ("pfnet", {"propagation": "x"}, {}, "'x'; use one of point_flow, dcn_v1"),
        ("pfnet", {"propagation": "dcn_v1", "direction": "bottom_up"}, {}, "top_down"),
        ("pspnet", {"dilation": "os4"}, {}, "'os4'; use one of none"),
        ("pspnet", {"dropout": 1.0}, {}, "dropout = 1.0"),
        ("pspnet", {}, {"aux_weight": -1.0}, "aux_weight = -1.0; use 0 or more"),
        ("unet", {"width": 0}, {}, "width = 0; use 1 or more"),
    ],
)  # fmt: skip
def test_a_network_that_cannot_work_says_what_is_allowed(name, model, loss, message):
    with pytest.raises(InputError, match=message):
        build(name, loss=loss, **model)
