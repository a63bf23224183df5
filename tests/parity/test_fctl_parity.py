"""FCtL's network, its correlation module and its loss against the published code's."""

import re

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import losses, methods, metrics, weights
from uhrjax.nn import correlation

CONTEXTS = {1: (), 2: ("2",), 3: ("2", "3", "local")}
# Name of a stored map -> our module, whose result or sown value it is.
SCORES = {"adj_pool4": "score_pool4", "adj_pool3": "score_pool3"}
SOWN = {"up_output": "below_pool4", "up_pool4_out": "below_pool3"}


def build(manifest, *, tile=64, **model):
    fields = {
        "contexts": CONTEXTS[manifest["mode"]],
        "encoders": "frozen" if manifest["mode"] == 3 else "shared",
        "fc_features": manifest["fc_width"],
    }
    return methods.build(
        ml_collections.ConfigDict(
            {
                "method": "fctl",
                "num_classes": manifest["n_class"],
                "tile": tile,
                "mean": (0.0, 0.0, 0.0),
                "std": (1.0, 1.0, 1.0),
                "dtype": "float32",
                "remat": False,
                "model": fields | model,
                "loss": {},
            }
        )
    )


def batch_of(arrays):
    images = [arrays[name] for name in ("x", "y", "z") if name in arrays]
    return {"views": np.stack(images, axis=1)}


def apply_with_parts(method, variables, arrays):
    """Returns the logits and every map that the case stores."""
    outputs, state = method.module.apply(
        variables,
        *method.model_inputs(batch_of(arrays)),
        train=False,
        capture_intermediates=True,
    )
    found = state["intermediates"]
    pool3, pool4, pool5 = found["backbone"]["__call__"][0]
    parts = {
        "out": outputs["logits"],
        "pool3": pool3[..., ::16],
        "pool4": pool4[..., ::8],
        "pool5": pool5,
    }
    for ours, theirs in (("context_0", "ctx_medium"), ("context_1", "ctx_large")):
        if ours in found:
            parts[theirs] = found[ours]["__call__"][0][-1]
    if "attention" in found:
        parts["fused"] = found["attention"]["__call__"][0].features
    for theirs, ours in SCORES.items():
        parts[theirs] = found["head"][ours]["__call__"][0]
    for theirs, ours in SOWN.items():
        parts[theirs] = found["head"][ours][0]
    return parts


@pytest.fixture
def assert_near():
    """Returns a check with the one tolerance of an FCtL manifest."""

    def check(manifest, name, actual, expected):
        np.testing.assert_allclose(
            actual,
            expected,
            rtol=manifest["rtol"],
            atol=manifest["atol"],
            err_msg=name,
        )

    return check


@pytest.mark.parametrize(
    "case", ["fctl_fcn8", "fctl_fcn8_full", "fctl_mode2", "fctl_mode3"]
)
def test_every_map_equals_the_published_codes(case, load_case, assert_near, run_once):
    manifest, state_dict, arrays = load_case(case)
    method = build(manifest)
    parts = run_once(
        lambda v: apply_with_parts(method, v, arrays), method.import_torch(state_dict)
    )
    stored = set(arrays) - {"x", "y", "z"}
    assert stored == set(parts)
    for name in stored:
        assert_near(manifest, name, parts[name], arrays[name])


@pytest.mark.parametrize(
    "wrong", [{"value": "local"}, {"fusion": "average"}, {"fusion": "adaptive_paper"}]
)
def test_a_wrong_fctl_fails_the_comparison(wrong, load_case, run_once):
    manifest, state_dict, arrays = load_case("fctl_correlation")
    fused = correlate(state_dict, arrays, run_once, **wrong)
    error = abs(fused.features - arrays["out"]).max()
    assert error > 20 * manifest["atol"] and not np.isnan(error)


def correlate(state_dict, arrays, run_once, **changes):
    """Returns what the fusion makes of a case's maps; absent weights are zeros."""
    net = correlation.ContextFusion(**changes)
    contexts = [arrays[n] for n in ("y", "z") if n in arrays]
    if len(contexts) > 1:
        contexts.append(arrays["x"])
    template = jax.eval_shape(
        lambda: net.init(jax.random.key(0), jnp.asarray(arrays["x"]), contexts)
    )
    names = ((r"^big_attention\.", "attention."), *correlation.TORCH_NAMES)
    wrapped = {"params": {"attention": template["params"]}}
    given = matching(state_dict, wrapped, names)
    filled = weights.from_torch(given, wrapped, names=names)["params"]["attention"]
    return run_once(
        lambda p: net.apply({"params": p}, arrays["x"], contexts, details=True), filled
    )


def matching(state_dict, template, names):
    """Drops entries without use; adds zeros for those of other fusions."""
    leaves = jax.tree_util.tree_leaves_with_path(template)
    wanted = {
        "_".join(entry.key for entry in path[1:]).replace(
            "kernel", "weight"
        ): leaf.shape
        for path, leaf in leaves
    }
    found = {}
    for name, value in state_dict.items():
        ours = name
        for pattern, replacement in names:
            ours = re.sub(pattern, replacement, ours)
        if ours.replace(".", "_") in wanted:
            wanted.pop(ours.replace(".", "_"))
            found[name] = value
    for name, shape in wanted.items():
        found[name] = np.zeros(shape[-1:] + shape[-2:-1] + shape[:-2], np.float32)
    return found


def test_correlation_and_fusion_equal_the_published_codes(
    load_case, assert_near, run_once
):
    manifest, state_dict, arrays = load_case("fctl_correlation")
    fused = correlate(state_dict, arrays, run_once)
    assert_near(manifest, "out", fused.features, arrays["out"])
    assert_near(manifest, "weights", fused.weights, arrays["weights"])
    for index, attention in enumerate(fused.attention):
        name = f"attention_{index}"
        assert_near(manifest, name, attention, arrays[name])


def test_one_stream_equals_the_published_codes(load_case, assert_near, run_once):
    manifest, state_dict, arrays = load_case("fctl_correlation_single")
    fused = correlate(state_dict, arrays, run_once)
    assert_near(manifest, "out", fused.features, arrays["out"])
    assert_near(manifest, "attention", fused.attention[0], arrays["attention_0"])
    assert fused.weights is None


@pytest.mark.parametrize(("case", "ignore"), [("plain", -1), ("ignore0", 0)])
def test_focal_loss_and_gradient_equal_the_published_codes(case, ignore, load_case):
    manifest, _, arrays = load_case("fctl_focal")
    rule = losses.FocalLoss(gamma=manifest["gamma"], ignore=ignore)
    value, gradient = jax.jit(jax.value_and_grad(rule.segmentation))(
        arrays["logits"], arrays["labels"]
    )
    close = {"rtol": manifest["rtol"], "atol": manifest["atol"]}
    np.testing.assert_allclose(value, arrays[f"loss_{case}"], **close)
    np.testing.assert_allclose(gradient, arrays[f"grad_{case}"], **close)
    assert not gradient[0, 0, :2].any()
    if case == "plain":  # the sum is the mean times the pixels
        count = arrays["labels"].size
        np.testing.assert_allclose(value * count, arrays["loss_sum"], rtol=2e-5)


def test_scores_equal_the_published_definitions(load_case):
    manifest, _, arrays = load_case("fctl_metric")
    label = arrays["labels"]
    label = np.where((label < 0) | (label >= 7), 255, label).astype(np.uint8)
    counts = metrics.confusion(label, arrays["predictions"], manifest["n_class"])
    np.testing.assert_array_equal(counts, arrays["confusion"])
    found = metrics.scores(counts, leave_out=(0,), absent_as_zero=True)
    close = {"rtol": manifest["rtol"], "atol": manifest["atol"]}
    np.testing.assert_allclose(found.iou, arrays["iou"], **close)
    np.testing.assert_allclose(found.miou, arrays["iou_mean"], **close)
    np.testing.assert_allclose(found.mean_f1, arrays["own_f1_mean"], **close)
    np.testing.assert_allclose(found.accuracy, arrays["own_accuracy"], **close)
    np.testing.assert_allclose(
        found.kept_accuracy, arrays["own_accuracy_known"], **close
    )
