"""Losses and boundary targets against the published code's numbers."""

import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import boundary, methods

CASES = ["ohem_thresh", "ohem_minkept", "few_valid", "no_ohem"]
OURS = {
    "seg_loss": "seg",
    "edge_loss_layer3": "edge_F5",
    "edge_loss_layer2": "edge_F4",
    "edge_loss_layer1": "edge_F3",
    "total": "total",
}


def pfnet(config, **changes):
    loss = {
        "ohem": config["ohem"],
        "ohem_thresh": config["ohem_thresh"],
        "ohem_min_kept": config["ohem_min_kept"],
        "edge_weight": config["edge_weight"],
        "seg_weight": config["seg_weight"],
    }
    return methods.build(
        ml_collections.ConfigDict(
            {
                "method": "pfnet",
                "num_classes": config["num_classes"],
                "tile": 64,
                "mean": (0.5, 0.5, 0.5),
                "std": (0.5, 0.5, 0.5),
                "dtype": "float32",
                "remat": False,
                "model": {},
                "loss": loss | changes,
            }
        )
    )


def outputs_and_batch(arrays):
    edges = {
        level: jnp.asarray(arrays[f"edge_logits_{i}"], jnp.float32)
        for i, level in enumerate(("F5", "F4", "F3"))
    }
    logits = jnp.asarray(arrays["logits"], jnp.float32)
    batch = {"label": arrays["labels"], "boundary": arrays["boundary"]}
    return {"logits": logits, "edge_logits": edges}, batch


@pytest.mark.parametrize("case", CASES)
def test_loss_equals_the_published_code(case, load_case):
    manifest, _, arrays = load_case(f"pfnet_loss_{case}")
    losses = pfnet(manifest["config"]).loss(*outputs_and_batch(arrays))
    for name, value in manifest["expected"].items():
        np.testing.assert_allclose(
            losses[OURS[name]], value, rtol=manifest["rtol"], atol=manifest["atol"]
        )


@pytest.mark.parametrize(
    "wrong", [{"ohem_min_kept": 9999}, {"ohem": False}, {"loss_group": 1}]
)
def test_a_wrong_loss_fails_the_comparison(wrong, load_case):
    manifest, _, arrays = load_case("pfnet_loss_ohem_minkept")
    losses = pfnet(manifest["config"], **wrong).loss(*outputs_and_batch(arrays))
    deviation = [
        abs(losses[OURS[name]] - value) / (manifest["atol"] + manifest["rtol"] * value)
        for name, value in manifest["expected"].items()
    ]
    assert max(deviation) > 2


@pytest.mark.parametrize("case", ["boundary_target", "boundary_target_ignore"])
def test_boundary_targets_equal_the_published_ones(case, load_case):
    _, _, arrays = load_case(case)
    drawn = [name for name in arrays if name.startswith("boundary_")]
    assert drawn
    for name in drawn:
        target = boundary.boundary_target(
            arrays["mask"], thickness=int(name.removeprefix("boundary_"))
        )
        np.testing.assert_array_equal(target, arrays[name])


@pytest.mark.parametrize("case", ["boundary_target", "boundary_target_ignore"])
def test_boundary_by_distance_is_nearly_the_drawn_one(case, load_case):
    _, _, arrays = load_case(case)
    found = boundary.boundary_on_device(jnp.asarray(arrays["mask"])[None])[0] > 0
    drawn = arrays["boundary_8"] > 0
    assert (found & drawn).sum() / (found | drawn).sum() >= 0.97
