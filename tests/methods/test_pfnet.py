"""PFNet's switches, points and losses."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import boundary, methods


def traced(*, size=(64, 96), train=False, **model):
    """Returns a method and the shapes of its outputs."""
    method = methods.build(small.config(model=model))
    batch = small.batch(size=size)

    def run(variables):
        if not train:
            return method.apply(variables, batch)
        return method.apply(variables, batch, train=True, key=jax.random.key(0))[0]

    return method, jax.eval_shape(run, method.shapes())


@pytest.mark.parametrize("ppm", [True, False])
@pytest.mark.parametrize(
    "levels", [(), ("F3",), ("F5",), ("F4", "F5"), ("F3", "F4", "F5")]
)
def test_flows_exist_for_the_chosen_levels_only(levels, ppm):
    method, outputs = traced(levels=levels, ppm=ppm)
    flows = {name for name in method.shapes()["params"] if name.startswith("flow")}
    assert flows == {f"flow_{level}" for level in levels}
    assert set(outputs["edge_logits"]) == set(levels)
    neck = set(method.shapes()["params"]["neck"])
    assert ("ppm" in neck) == ppm and ("lateral_3" in neck) != ppm
    assert bool(
        method.targets(np.zeros((8, 8), np.uint8), np.random.default_rng(0))
    ) == bool(levels)


@pytest.mark.parametrize(
    ("salient", "with_boundary", "direction"),
    [
        case
        for case in itertools.product(
            ("max_pool", "attention", "uniform", "none"),
            (True, False),
            ("top_down", "bottom_up", "top_down_bottom_up"),
        )
        if case[:2] != ("none", False)
    ],
)
def test_every_combination_of_flows_and_directions_runs(
    salient, with_boundary, direction
):
    method, outputs = traced(
        salient=salient, boundary=with_boundary, direction=direction
    )
    assert outputs["logits"].shape == (2, 64, 96, 5)
    kinds = {"salient"} if salient != "none" else set()
    assert set(method.points(outputs)) == kinds | (
        {"boundary"} if with_boundary else set()
    )
    passes = 2 if direction == "top_down_bottom_up" else 1
    assert len(outputs["edge_logits"]) == 3 * passes * with_boundary
    if with_boundary:
        # 2 x 3, 4 x 6 and 8 x 12 coarse pixels hold 6 points each.
        assert outputs["points"]["boundary"].shape == (2, 18 * passes, 2)


def test_pool_eval_changes_the_number_of_salient_points_in_evaluation_only():
    model = {"maxpool_size": 4, "pool_eval": 3}
    for train, cells in ((True, 4), (False, 3)):
        _, outputs = traced(size=(64, 64), train=train, **model)
        assert outputs["points"]["salient"].shape == (2, 3 * cells**2, 2)


def test_points_are_centres_of_coarse_pixels_in_image_px():
    method = methods.build(small.config(model={"levels": ("F5",)}))
    variables = method.init(jax.random.key(0))
    outputs = small.run_once(lambda v: method.apply(v, small.batch(count=1)), variables)
    points = method.points(outputs)
    assert {tuple(p) for p in np.array(points["boundary"][0]).tolist()} == {
        (16.0 + 32 * y, 16.0 + 32 * x) for y in range(2) for x in range(3)
    }
    assert ((points["salient"][0] - 16) % 32 == 0).all()


def test_no_flow_is_upernet_and_no_pyramid_pooling_is_semantic_fpn():
    batch = small.batch()
    for name, ppm in (("upernet", True), ("semantic_fpn", False)):
        plain = methods.build(small.config(name))
        pfnet = methods.build(small.config(model={"levels": (), "ppm": ppm}))
        variables = plain.init(jax.random.key(0))
        np.testing.assert_allclose(
            small.run_once(lambda v, m=plain: m.apply(v, batch)["logits"], variables),
            small.run_once(lambda v, m=pfnet: m.apply(v, batch)["logits"], variables),
            atol=1e-6,
        )


@pytest.mark.parametrize("rule", boundary.RULES)
def test_loss_draws_the_boundary_itself_where_the_batch_has_none(rule):
    method = methods.build(small.config(loss={"boundary_rule": rule}))
    batch = small.batch()
    rng = np.random.default_rng(0)
    outputs = {
        "logits": jnp.asarray(rng.normal(size=(2, 64, 96, 5)), jnp.float32),
        "edge_logits": {"F5": jnp.asarray(rng.normal(size=(2, 2, 3, 1)), jnp.float32)},
    }
    device = boundary.boundary_on_device(jnp.asarray(batch["label"]), rule=rule)
    without = method.loss(outputs, batch)
    with_device = method.loss(outputs, batch | {"boundary": device})
    assert without["edge_F5"] == with_device["edge_F5"]
    host = np.stack(
        [
            method.targets(label, np.random.default_rng(0))["boundary"]
            for label in batch["label"]
        ]
    )
    with_host = method.loss(outputs, batch | {"boundary": host})
    np.testing.assert_allclose(with_host["edge_F5"], without["edge_F5"], rtol=0.05)


def test_edge_weight_scales_the_edge_loss_only():
    rng = np.random.default_rng(0)
    outputs = {
        "logits": jnp.asarray(rng.normal(size=(2, 64, 96, 5)), jnp.float32),
        "edge_logits": {"F5": jnp.asarray(rng.normal(size=(2, 2, 3, 1)), jnp.float32)},
    }
    one, four = (
        methods.build(small.config(loss={"edge_weight": w})).loss(
            outputs, small.batch()
        )
        for w in (1, 4)
    )
    np.testing.assert_allclose(four["edge_F5"], 4 * one["edge_F5"], rtol=1e-6)
    assert four["seg"] == one["seg"]
