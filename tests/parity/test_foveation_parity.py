"""Foveation's module, extractor, estimators, losses, inference against its code's."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import fov_map, foveal, losses, metrics, optimizer
from uhrjax.methods import foveation
from uhrjax.nn import patch_bank
from uhrjax.ops import choice, zoom


class StandIn:
    """What stands for the segmentation network in the stored cases."""

    views, overview, frozen = (None,), None, ()
    collects = whole_scenes = reads_labels = refines = False
    label_stride = 4

    def __init__(self, weight=None, bias=None):
        self.weight, self.bias = weight, bias

    def shapes(self):
        return {}

    def import_torch(self, state_dict):
        return {}

    def apply(self, variables, batch, *, train=False, key=None):
        images = batch["views"][:, 0]
        count, side = images.shape[:2]
        means = images.reshape(count, side // 4, 4, side // 4, 4, 3).mean((2, 4))
        logits = means @ self.weight + self.bias
        shape = (count, side, side, logits.shape[-1])
        return {"logits": jax.image.resize(logits, shape, "linear", antialias=False)}

    def logits(self, outputs):
        return outputs["logits"]


def build(bank, scale, *, segmenter=None, num_classes=6, **model):
    config = {
        "num_classes": num_classes,
        "tile": bank[0],
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "dtype": "float32",
        "remat": False,
        "model": {"bank": tuple(bank), "scale": scale} | model,
        "loss": {},
    }
    return foveation.FoveationMethod(
        ml_collections.ConfigDict(config), segmenter or StandIn()
    )


def same(pixels):
    """Stored images are normalised already."""
    return pixels


def close(manifest, name, actual, expected, *, gradient=False):
    rtol, atol = manifest["rtol"], manifest["atol"]
    if gradient:
        rtol = manifest["grad_rtol"]
        atol = manifest["grad_atol_of_max"] * abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol, err_msg=name)


def test_the_module_its_gradients_and_statistics_equal_the_published(
    load_case, run_once
):
    manifest, state_dict, arrays = load_case("foveation_module")
    method = build((16, 24, 32, 48, 64), 8)
    variables = method.import_torch({f"foveater.{k}": v for k, v in state_dict.items()})
    x = arrays["x"]

    def look(variables):
        logits, state = method.module.apply(
            variables, x, train=False, capture_intermediates=True
        )
        return logits, state["intermediates"]["foveater"]

    logits, found = run_once(look, variables)
    close(manifest, "prelogits", logits, arrays["prelogits_eval"])
    close(manifest, "probs", choice.mean(logits), arrays["probs_eval"])
    close(manifest, "logs", jax.nn.log_softmax(logits), arrays["logprobs_eval"])
    act1 = np.clip(found["norm1"]["__call__"][0], 0, 6)
    close(manifest, "act1", act1, arrays["act1_eval"])

    def loss(params):
        logits, state = method.module.apply(
            {**variables, "params": params}, x, train=True, mutable="batch_stats"
        )
        probs = choice.mean(logits)
        return jnp.sum(probs * arrays["upstream"]), (probs, state["batch_stats"])

    gradients, (probs, stats) = run_once(
        jax.grad(loss, has_aux=True), variables["params"]
    )
    close(manifest, "probs_train", probs, arrays["probs_train"])
    gradients, stats = gradients["foveater"], stats["foveater"]
    for theirs, (layer, leaf) in {
        "fov_expand_1": ("conv1", "kernel"),
        "fov_squeeze_1": ("conv3", "kernel"),
        "norm1_weight": ("norm1", "scale"),
        "norm1_bias": ("norm1", "bias"),
        "norm3_bias": ("norm3", "bias"),
    }.items():
        actual = gradients[layer][leaf]
        actual = actual.transpose(3, 2, 0, 1) if actual.ndim == 4 else actual
        name = f"grad_{theirs}"
        close(manifest, name, actual, arrays[name], gradient=True)
    for layer in ("1", "3"):
        for leaf in ("mean", "var"):
            name = f"running_{leaf}{layer}_after"
            if name in arrays:
                close(manifest, name, stats[f"norm{layer}"][leaf], arrays[name])


@pytest.mark.parametrize("case", ["", "_beyond_image", "_reflect"])
def test_patches_labels_and_small_images_equal_the_published(case, load_case, run_once):
    manifest, _, arrays = load_case(f"foveation_patch_extractor{case}")
    border = "reflect" if manifest["border"]["mirror"] else "zero"
    bank = patch_bank.PatchBank(tuple(manifest["patch_bank"]), border=border)
    scale, places = manifest["fov_map_scale"], arrays["locations"]
    label = np.where(arrays["label"] == manifest["ignore_label"], 255, arrays["label"])
    eye = np.eye(len(bank.sides), dtype=np.float32)
    count = len(arrays["image"])

    def cut(images, label):
        patches = [
            bank.patches(
                images, places, jnp.broadcast_to(one, (count, len(places), len(eye))),
                rate=scale, normalise=same, one=chosen,
            )
            for one in eye
            for chosen in (False, True)
        ]  # fmt: skip
        small = jax.vmap(
            lambda x: zoom.overview(x, arrays["image_lr"].shape[1:3], normalise=same)
        )(images)
        train, val = (
            bank.labels(label, places, rate=scale, stride=stride) for stride in (4, 1)
        )
        return patches, small, train, val

    patches, small, train, val = run_once(cut, arrays["image"], label)
    for k, expected in enumerate(np.moveaxis(arrays["patches"], 2, 0)):
        for found in patches[2 * k : 2 * k + 2]:
            found = np.swapaxes(found, 0, 1)  # ours: scene by scene
            close(manifest, f"patch {k}", found, expected)
    close(manifest, "image_lr", small, arrays["image_lr"])
    for found, name in ((train, "label_patches_train"), (val, "label_patches_val")):
        found = np.where(found == 255, manifest["ignore_label"], found)
        np.testing.assert_array_equal(np.swapaxes(found, 0, 1), arrays[name])
    corners = np.array([bank.corners(place, rate=scale) for place in places])
    np.testing.assert_array_equal(corners, arrays["patch_origin"])


def test_mixed_patches_and_every_gradient_equal_the_published(load_case, run_once):
    manifest, _, arrays = load_case("foveation_sampling")
    bank = patch_bank.PatchBank(tuple(manifest["patch_bank"]))
    scale, places = manifest["fov_map_scale"], arrays["locations"]
    z = arrays["logits_lr"][:, places[:, 0], places[:, 1]]
    f, noise = jax.nn.softmax(z), arrays["gumbel"]
    np.testing.assert_allclose(f, arrays["probs"], rtol=1e-5, atol=1e-6)
    side = bank.sides[0]
    upstream = arrays["upstream"].reshape(len(places), -1, side, side, 3)

    def run(select, given):
        def loss(given):
            x = bank.patches(
                arrays["image"], places, select(given), rate=scale, normalise=same
            )
            return jnp.sum(x.swapaxes(0, 1) * upstream), x

        return jax.grad(loss, has_aux=True)(given)

    taus = {"1p0": 1.0, "0p5": 0.5, "0p1": 0.1}
    rules = {
        "mean": (choice.mean, lambda f: f),
        "mode_st": (
            lambda z: choice.mode(z, "st"),
            lambda f: choice.mode_of_probabilities(f, "st"),
        ),
        "mode_st_inv": (choice.mode, choice.mode_of_probabilities),
    }
    for kind in ("soft", "hard"):
        for word, tau in taus.items():
            both = lambda z, tau=tau, kind=kind: choice.gumbel(  # noqa: E731
                z, noise, tau, hard=kind == "hard"
            )
            # Their map holds log-probabilities, which are not normalised again.
            raw = lambda log_f, tau=tau, kind=kind: _unnormalised(  # noqa: E731
                log_f, noise, tau, hard=kind == "hard"
            )
            rules[f"gsm_{kind}_tau{word}"] = (both, raw)

    def everything(z):
        found = {}
        for name, (of_logits, of_map) in rules.items():
            given = jax.nn.log_softmax(z) if name.startswith("gsm") else f
            found[name] = (*run(of_logits, z), *run(of_map, given))
        return found

    for name, (at_z, x, at_f, again) in run_once(everything, z).items():
        expected = arrays[f"{name}_input"].reshape(upstream.shape)
        for patches in (x, again):
            close(manifest, name, np.swapaxes(patches, 0, 1), expected)
        grad = arrays[f"{name}_grad_logits"]
        close(manifest, f"{name} at logits", at_z, grad, gradient=True)
        grad = arrays[f"{name}_grad_probs"]
        close(manifest, f"{name} at the map", at_f, grad, gradient=True)
    for word, tau in taus.items():
        expected = arrays[f"gsm_weights_tau{word}"]
        close(manifest, word, choice.gumbel(z, noise, tau), expected)
    for name, model in (
        ("patch3", {"selection": "patch", "patch": 3}),
        ("average", {"selection": "average"}),
    ):
        method = build(bank.sides, scale, **model)
        shares, _ = method.module.select(jnp.asarray(z), jax.random.key(0), 1.0)
        x = method.patches(arrays["image"], places, shares)
        expected = arrays[f"{name}_input"].reshape(upstream.shape)
        close(manifest, name, np.swapaxes(x, 0, 1), expected)


def _unnormalised(log_f, noise, tau, *, hard):
    soft = jax.nn.softmax((log_f + noise) / tau)
    if not hard:
        return soft
    return jax.lax.stop_gradient(choice.one_hot(soft) - soft) + soft


def test_schedules_equal_the_published(load_case):
    manifest, _, arrays = load_case("foveation_schedules")
    total = manifest["total_iterations"]
    config = ml_collections.ConfigDict(
        {
            "learning_rate": manifest["base_lr"],
            "schedule": {
                "per": "step", "power": manifest["power"], "offset": 0, "begin": 0.0,
                "drops": (), "warmup": 0.0,
            },
        }
    )  # fmt: skip
    rate = optimizer.poly_schedule(config, total_steps=total, epoch_steps=1)
    for t, tau, tau5, lr in zip(
        arrays["iteration"], arrays["tau"], arrays["tau_rate5"], arrays["lr"],
        strict=True,
    ):  # fmt: skip
        progress = np.float32(t / total)
        np.testing.assert_allclose(choice.temperature(progress), tau, rtol=1e-6)
        found = choice.temperature(progress, rate=5.0)
        np.testing.assert_allclose(found, tau5, rtol=1e-6)
        np.testing.assert_allclose(rate(jnp.int32(t)), lr, rtol=1e-6)


def test_losses_and_gradients_equal_the_published(load_case):
    manifest, _, arrays = load_case("foveation_losses")
    label = np.where(arrays["label"] == manifest["ignore_label"], 255, arrays["label"])
    weighted = losses.PlainLoss(class_weights=tuple(arrays["class_weight"].tolist()))
    for name, rule in (
        ("nll", losses.PlainLoss()),
        ("ohem_plain", losses.PlainLoss()),
        ("ohem_weighted", weighted),
    ):
        value, gradient = jax.jit(jax.value_and_grad(rule.segmentation))(
            arrays["logits"], label
        )
        close(manifest, name, value, arrays[name])
        close(manifest, name, gradient, arrays[f"{name}_grad"])


INFERENCE = {
    "mean": ({}, {}),
    "mode": ({"selection": "mode"}, {}),
    "patch1": ({"selection": "patch", "patch": 1}, {}),
    "patch4": ({"selection": "patch", "patch": 4}, {}),
    "average": ({"selection": "average"}, {}),
    "mean_low": ({}, {"rate": 12}),
    "mean_max_score": ({}, {"aggregation": "max_score"}),
}


@pytest.fixture
def inference_case(load_case):
    """Returns a builder of methods, variables and the case."""
    manifest, state_dict, arrays = load_case("foveation_inference")
    network = StandIn(arrays["stub_weight"], arrays["stub_bias"])
    prefixed = {f"foveater.{k}": v for k, v in state_dict.items()}

    def make(**model):
        method = build(
            manifest["patch_bank"], manifest["fov_map_scale"], segmenter=network,
            **model,
        )  # fmt: skip
        given = prefixed if method.module.learns else {}
        return method, method.import_torch(given)

    return make, manifest, arrays


@pytest.mark.parametrize("name", INFERENCE)
def test_scores_of_a_whole_scene_equal_the_published(name, inference_case):
    make, manifest, arrays = inference_case
    model, options = INFERENCE[name]
    method, variables = make(**model)
    engine = foveal.FovealEngine(method, foveal.Options(batch_size=7, **options))
    found = engine.explore(variables, arrays["image"])
    expected = arrays[f"{name}_scores"]
    np.testing.assert_allclose(
        found.scores, expected, rtol=manifest["rtol"],
        atol=max(manifest["atol"], manifest["scores_atol_of_max"] * expected.max()),
    )  # fmt: skip
    label = np.where(
        arrays["label"] == manifest["ignore_index"], 255, arrays["label"]
    ).astype(np.uint8)
    confusion = metrics.confusion(label, found.labels(), manifest["num_class"])
    inter = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - inter
    for key, value in (
        ("confusion", confusion),
        ("intersection", inter),
        ("union", union),
        ("label_area", confusion.sum(1)),
    ):
        apart = abs(value - arrays[f"{name}_{key}"]).max()
        assert apart <= manifest["count_atol"], key
    share = inter.sum() / label.size  # theirs counts ignored pixels as wrong
    np.testing.assert_allclose(share, arrays[f"{name}_accuracy"][0], atol=1e-3)
    if name == "mean":
        np.testing.assert_allclose(
            found.fov, arrays["foveation_probs"], rtol=1e-4, atol=2e-5
        )
        np.testing.assert_allclose(
            fov_map.fov_map(found.fov, method.module.bank),
            arrays["foveation_fov_map"], rtol=1e-4, atol=1e-3,
        )  # fmt: skip


def test_quality_per_location_equals_the_published(inference_case, run_once):
    make, manifest, arrays = inference_case
    expected = arrays["patch_iou_maps"]
    rows, columns, crops = expected.shape
    places = np.argwhere(np.ones((rows, columns), bool)).astype(np.int32)
    label = np.where(arrays["label"] == manifest["ignore_index"], 255, arrays["label"])
    for k in range(crops):
        method, variables = make(selection="patch", patch=k + 1)
        batch = {"scene": arrays["image"][None], "locations": places[None]}
        outputs = run_once(method.apply, variables, batch)
        found = np.asarray(outputs["logits"]).argmax(-1)
        true = method.module.crops.labels(label[None], places, rate=method.module.scale)
        quality = fov_map.patch_quality(found, np.asarray(true)[0])
        close = np.isclose(
            quality.reshape(rows, columns), expected[..., k], atol=0.02, equal_nan=True
        )
        assert close.all(), k
