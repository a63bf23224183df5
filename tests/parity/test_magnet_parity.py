"""MagNet's primitives, pass and training step against its code's numbers."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from uhrjax import losses, methods, progressive, weights
from uhrjax.backbones import patch_refiner
from uhrjax.methods import magnet
from uhrjax.ops import mosaic, points, roi, smooth
from uhrjax.tiling import box, pyramid

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def close(manifest, name, actual, expected):
    np.testing.assert_allclose(
        actual, expected, rtol=manifest["rtol"], atol=manifest["atol"], err_msg=name
    )


def refiner(state_dict, *, num_classes, input_norm=True):
    """Returns a refinement network and its converted weights."""
    net = patch_refiner.PatchRefiner(num_classes=num_classes, input_norm=input_norm)
    maps = jax.ShapeDtypeStruct((1, 8, 8, num_classes), jnp.float32)
    shapes = jax.eval_shape(
        lambda a, b: net.init(jax.random.key(0), a, b, train=False), maps, maps
    )
    return net, weights.from_torch(state_dict, shapes)


@pytest.mark.parametrize("case", ["magnet_refinement", "magnet_refinement_nobn"])
def test_the_refinement_network_equals_the_published(case, load_case, run_once):
    manifest, state_dict, arrays = load_case(case)
    net, variables = refiner(
        state_dict,
        num_classes=manifest["num_classes"],
        input_norm=manifest["use_input_bn"],
    )
    logits = run_once(
        lambda v: net.apply(v, arrays["first"], arrays["second"], train=False),
        variables,
    )
    close(manifest, "logits", logits, arrays["logits"])
    swapped = run_once(
        lambda v: net.apply(v, arrays["second"], arrays["first"], train=False),
        variables,
    )
    assert abs(swapped - arrays["logits"]).max() > 100 * manifest["atol"]


def test_certainty_equals_the_published(load_case):
    manifest, _, arrays = load_case("magnet_certainty")
    found = points.certainty(arrays["probs"])
    close(manifest, "certainty", found, arrays["certainty"][..., 0])


@pytest.mark.parametrize("case", ["k5", "k11"])
def test_medians_equal_the_published(case, load_case):
    manifest, _, arrays = load_case(f"magnet_median_blur_{case}")
    found = smooth.median(jnp.asarray(arrays["x"][..., 0]), manifest["kernel"])
    np.testing.assert_array_equal(found, arrays["out"][..., 0])


def test_gaussian_means_equal_the_published(load_case):
    manifest, _, arrays = load_case("magnet_gaussian_blur")
    channels = jnp.moveaxis(jnp.asarray(arrays["x"])[0], -1, 0)
    found = smooth.gaussian(channels, manifest["kernel_hw"], manifest["sigma_hw"])
    close(manifest, "out", np.moveaxis(found, 0, -1)[None], arrays["out"])


def test_resampled_boxes_equal_the_published(load_case):
    manifest, _, arrays = load_case("magnet_roi_align")
    size = tuple(manifest["output_hw"])
    for k, (image, left, top, right, bottom) in enumerate(arrays["rois"]):
        samples = [
            roi.samples_per_px(max(side, 1), out)
            for side, out in zip((bottom - top, right - left), size, strict=True)
        ]
        found = roi.align(
            jnp.asarray(arrays["features"][[int(image)]]),
            jnp.array([[top, left, bottom, right]]),
            size,
            samples=tuple(samples),
        )
        close(manifest, f"box {k}", found[0], arrays["pooled"][k])


@pytest.mark.parametrize("case", ["grid", "subset", "overlap"])
def test_patches_put_together_equal_the_published(case, load_case):
    manifest, _, arrays = load_case(f"magnet_ensemble_{case}")
    width, height = manifest["size_wh"]
    places = box.place_boxes(
        arrays["coords"][:, [1, 0, 3, 2]], height=height, width=width
    )
    canvas = mosaic.assemble(
        jnp.asarray(arrays["patches"]),
        jnp.array([(place.top, place.left) for place in places]),
        box=(places[0].height, places[0].width),
        size=(height, width),
        rule="released",
    )
    found, mask = mosaic.read(canvas, jnp.arange(height), jnp.arange(width))
    close(manifest, "output", found, arrays["output"][0])
    np.testing.assert_array_equal(mask, arrays["mask"])


def test_points_equal_the_published(load_case):
    manifest, _, arrays = load_case("magnet_points")
    size = arrays["score"].shape[1:3]
    for b, score in enumerate(arrays["score"][..., 0]):
        choice = points.choose(jnp.asarray(score), size, manifest["k"])
        found = points.chosen(choice, *map(jnp.arange, size), size)
        index = np.flatnonzero(found)
        np.testing.assert_array_equal(index, arrays["indices_sorted"][b])
        values = arrays["features"][b].reshape(-1, 5)[index]
        close(manifest, "sampled", values, arrays["sampled_sorted"][b])


def test_hard_pixel_losses_and_a_gradient_equal_the_published(load_case):
    manifest, _, arrays = load_case("magnet_ohem")
    for k, (threshold, kept) in enumerate(manifest["settings"]):
        rule = losses.HardPixelLoss(threshold, kept)
        value, gradient = jax.jit(jax.value_and_grad(rule.segmentation))(
            arrays["logits"], arrays["target"]
        )
        close(manifest, str(threshold), value, arrays[f"loss_{threshold}_{kept}"])
        if k == 0:
            close(manifest, "gradient", gradient, arrays["grad_first"])


class StandIn:
    """A segmentation network whose answers are stored: it returns its input."""

    views, overview, frozen, multiple = (None,), None, (), 1
    collects = whole_scenes = reads_labels = refines = False

    def shapes(self):
        return {}

    def import_torch(self, state_dict):
        return {}

    def apply(self, variables, batch, *, train):
        return {"logits": batch["views"][:, 0]}

    def logits(self, outputs):
        return outputs["logits"]

    def check_sides(self, what, sides):
        pass


def build(segmenter, *, num_classes, **model):
    config = {
        "num_classes": num_classes, "tile": 8, "mean": MEAN, "std": STD,
        "dtype": "float32", "remat": False, "model": model, "loss": {},
    }  # fmt: skip
    return magnet.MagNetMethod(ml_collections.ConfigDict(config), segmenter)


def test_a_training_step_equals_the_published(load_case, run_once):
    manifest, state_dict, arrays = load_case("magnet_train_forward")
    method = build(
        StandIn(), num_classes=manifest["num_classes"], input_size=(32, 48),
        refine_order="coarse_first",
    )  # fmt: skip
    variables = method.import_torch({f"refine0.{k}": v for k, v in state_dict.items()})
    label = arrays["target"]
    crop = roi.align(
        jnp.asarray(arrays["coarse_probs"]),
        jnp.asarray(arrays["rois"][:, [1, 0, 3, 2]]),  # x comes first there
        label.shape[1:],
    )
    method._opinions = lambda variables, batch: (crop, arrays["fine_probs"])

    def loss(params):
        outputs, stats = method.apply({**variables, "params": params}, {}, train=True)
        return method.loss(outputs, {"label": label})["total"], (outputs, stats)

    gradients, (outputs, stats) = run_once(
        jax.grad(loss, has_aux=True), variables["params"]
    )
    close(manifest, "crop", outputs["coarse"], arrays["crop_probs"])
    close(manifest, "logits", outputs["logits"], arrays["logits"])
    close(manifest, "aggregate", magnet.aggregate(outputs), arrays["aggregated"])
    value = method.loss(outputs, {"label": label})["total"]
    close(manifest, "loss", value, arrays["loss"])
    stats, gradients = stats["refiner_0"], gradients["refiner_0"]
    close(manifest, "mean", stats["bn0"]["mean"], arrays["bn0_running_mean_after"])
    for name in ("bn0", "bn1"):
        close(manifest, name, stats[name]["var"], arrays[f"{name}_running_var_after"])
    for theirs, gradient in {
        "bn0__weight": gradients["bn0"]["scale"],
        "conv1__weight": gradients["conv1"]["kernel"],
        "residual__0__downsample__0__weight": gradients["residual_0"]["downsample_0"][
            "kernel"
        ],
        "seg_conv__weight": gradients["seg_conv"]["kernel"],
    }.items():
        norm = np.sqrt((np.asarray(gradient, np.float64) ** 2).sum())
        close(manifest, theirs, norm, arrays[f"gradnorm__{theirs}"])


def conv3x3(state_dict):
    """Returns the stand-in network of two of the stored passes, and its weights."""

    def label(variables, images):
        x = (images.astype(jnp.float32) / 255 - jnp.array(MEAN)) / jnp.array(STD)
        kernel = variables["weight"].transpose(2, 3, 1, 0)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.softmax(3 * (x + variables["bias"]))

    return label, jax.tree.map(jnp.asarray, state_dict)


def hrnet(state_dict):
    """Returns the real network of the third one, and its weights."""
    config = {
        "method": "hrnet_ocr", "num_classes": 5, "tile": 64, "mean": MEAN, "std": STD,
        "dtype": "float32", "remat": False, "model": {}, "loss": {},
    }  # fmt: skip
    method = methods.build(ml_collections.ConfigDict(config))

    def label(variables, images):
        outputs = method.apply(variables, {"views": images[:, None]})
        return jax.nn.softmax(method.logits(outputs))

    return label, method.import_torch(state_dict)


def networks_of(manifest, state_dict):
    """Returns what makes the networks of a stored pass from weights, and those."""
    parts = {}
    for name, value in state_dict.items():
        part, rest = name.split(".", 1)
        parts.setdefault(part, {})[rest] = value
    kind = conv3x3 if manifest["backbone"] == "conv3x3" else hrnet
    label, own = kind(parts["backbone"])
    found = [
        refiner(parts[name], num_classes=manifest["num_classes"])
        for name in ("refine0", "refine1")
    ]
    net = found[0][0]

    def make(own, refiners):
        def refine(stage, fine, coarse):
            logits = net.apply(refiners[stage - 1], fine, coarse, train=False)
            return jax.nn.softmax(logits)

        size = tuple(manifest["input_wh"][::-1])
        return progressive.Networks(size, lambda images: label(own, images), refine)

    return make, (own, [variables for _, variables in found])


def run_stored(case, load_case, run_once, **changes):
    """Returns manifest, arrays, scales, the first map, the last one, the records."""
    manifest, state_dict, arrays = load_case(case)
    make, variables = networks_of(manifest, state_dict)
    crop = manifest["crop_wh"][::-1]
    scales = tuple(
        pyramid.plan_scale(height, width, crop=crop)
        for width, height in manifest["scales_wh"]
    )
    known = {
        "n_points": manifest["n_points"],
        "n_patches": manifest["n_patches"],
        "kernel": manifest["smooth_kernel"],
        "overlap": "released",
    }
    options = progressive.Options(**known | changes)
    patches = [
        jnp.asarray(arrays["patches"][arrays["patch_scale"] == index])
        for index in range(len(scales))
    ]

    def everything(own, refiners):
        networks = make(own, refiners)
        first = networks.label(patches[0])[0]
        last, records = progressive.run(
            networks, first, lambda scale, which: patches[scale][which], scales,
            options, keep=True,
        )  # fmt: skip
        return first, last, records

    return manifest, arrays, scales, *run_once(everything, *variables)


def check_pass(case, load_case, run_once, **changes):
    manifest, arrays, scales, first, last, records = run_stored(
        case, load_case, run_once, **changes
    )
    close(manifest, "stage 0", first, arrays["stage0_probs"][0])
    for stage, record in enumerate(records, start=1):
        scale = scales[stage]

        def stored(name, stage=stage):
            return arrays[f"stage{stage}_{name}"]

        close(
            manifest, "patch uncertainty", record.patch_uncertainty,
            stored("patch_uncertainty"),
        )  # fmt: skip
        corners = scale.corners()[np.asarray(record.selected)]
        expected = stored("selected_coords")[:, [1, 0]] * np.array(scale.size)
        np.testing.assert_array_equal(corners, np.rint(expected))
        close(manifest, "score", record.score, stored("smoothed_score")[0, ..., 0])
        np.testing.assert_array_equal(record.points, stored("points"))
        assert record.points.sum() == manifest["points_per_stage"][stage - 1]
        np.testing.assert_array_equal(record.mask, stored("mask"))
        if stage == 1:
            close(manifest, "stage 1", record.probabilities, stored("probs")[0])
    close(manifest, "last", last, arrays["final_probs"][0])
    return manifest, arrays


def test_a_whole_pass_equals_the_published(load_case, run_once):
    check_pass("magnet_progressive_full", load_case, run_once)


def test_a_fast_pass_equals_the_published_as_corrected(load_case, run_once):
    check_pass("magnet_progressive_fast", load_case, run_once)


def test_a_whole_pass_around_hrnet_equals_the_published(load_case, run_once):
    check_pass("magnet_progressive_hrnet", load_case, run_once)


@pytest.mark.parametrize("chunk", [3, 16])
def test_a_pass_in_chunks_equals_the_published(chunk, load_case, run_once):
    check_pass("magnet_progressive_full", load_case, run_once, patches_at_once=chunk)


def test_where_boxes_tile_the_scene_the_overlap_rule_changes_nothing(
    load_case, run_once
):
    manifest, arrays, *_, last, records = run_stored(
        "magnet_progressive_full", load_case, run_once, overlap="mean"
    )
    close(manifest, "last", last, arrays["final_probs"][0])
    assert records[0].mask is None


@pytest.mark.parametrize(
    "wrong", [{"patch_order": "least"}, {"score": "uncertainty"}, {"kernel": 3}]
)
def test_a_wrong_fast_pass_fails_the_comparison(wrong, load_case, run_once):
    manifest, arrays, *_, last, _ = run_stored(
        "magnet_progressive_fast", load_case, run_once, **wrong
    )
    assert abs(last - arrays["final_probs"][0]).max() > 1000 * manifest["atol"]
