"""The point flow module alone against the published code's outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax import weights
from uhrjax.nn import point_flow

MAPS = ("x_high", "x_low")


def build(manifest, state_dict, arrays, **changes):
    """Returns the module, its variables and the two maps, float32."""
    fields = {k: v for k, v in manifest["config"].items() if k != "in_planes"}
    module = point_flow.PointFlow(**fields | changes)
    maps = [jnp.asarray(arrays[name], jnp.float32) for name in MAPS]
    shapes = jax.eval_shape(
        lambda *maps: module.init(jax.random.key(0), *maps, train=False), *maps
    )
    names = point_flow.TORCH_NAMES
    return module, weights.from_torch(state_dict, shapes, names=names), maps


@pytest.mark.parametrize("case", ["pointflow_module", "pointflow_module_same_stride"])
def test_point_flow_equals_the_published_code(case, load_case, assert_close, run_once):
    manifest, state_dict, arrays = load_case(case)
    module, variables, maps = build(manifest, state_dict, arrays)
    flow = run_once(lambda v, *m: module.apply(v, *m, train=False), variables, *maps)
    assert_close(manifest, "final_features", flow.features, arrays["final_features"])
    assert_close(manifest, "edge_pred", flow.edge, arrays["edge_pred"])
    np.testing.assert_array_equal(np.sort(flow.boundary), arrays["edge_idx"])
    np.testing.assert_array_equal(flow.salient, arrays["salient_idx"].reshape(1, -1))


def test_point_flow_gradients_equal_the_published_ones(
    load_case, assert_close, run_once
):
    manifest, state_dict, arrays = load_case("pointflow_module_grad")
    module, variables, maps = build(manifest, state_dict, arrays)

    def objective(params, *maps):
        flow = module.apply({**variables, "params": params}, *maps, train=False)
        features = jnp.sum(flow.features * arrays["r_features"].astype(np.float32))
        return features + jnp.sum(flow.edge * arrays["r_edge"].astype(np.float32))

    value, (of_params, *of_maps) = run_once(
        jax.value_and_grad(objective, argnums=(0, 1, 2)), variables["params"], *maps
    )
    assert_close(manifest, "value", value, arrays["value"])
    for name, gradient in zip(MAPS, of_maps, strict=True):
        assert_close(manifest, f"grad_{name}", gradient, arrays[f"grad_{name}"])
    # Convert the expected gradients as if they were weights.
    expected = {
        name.removeprefix("grad:"): value
        for name, value in arrays.items()
        if name.startswith("grad:")
    }
    template = {"params": of_params}
    names = point_flow.TORCH_NAMES
    converted = weights.from_torch(expected, template, names=names)["params"]
    loosest = max(manifest["atol_per_output"][f"grad:{name}"] for name in expected)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=loosest),
        of_params,
        converted,
    )


@pytest.mark.parametrize(
    "wrong",
    [{"edge_prediction": "direct"}, {"edge_points": 127}, {"maxpool_size": 13}],
)
def test_a_wrong_point_flow_fails_the_comparison(wrong, load_case, run_once):
    manifest, state_dict, arrays = load_case("pointflow_module")
    module, variables, maps = build(manifest, state_dict, arrays, **wrong)
    flow = run_once(lambda v, *m: module.apply(v, *m, train=False), variables, *maps)
    error = np.abs(flow.features - arrays["final_features"]).max()
    assert error > 20 * manifest["atol_per_output"]["final_features"]
