"""Training scene by scene against three steps of FCtL's published training loop."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import checkpoint, inference, losses, metrics, optimizer, sharding, update
from uhrjax.data import augment, pipeline, prepared
from uhrjax.tiling import plan, view, window

MIN_OVERLAP = 50  # px, of FCtL's grid


class StandIn:
    """FCtL's network reduced to one convolution per context."""

    overview = None
    reads_labels = collects = False
    frozen = ("conv_large",)  # without any effect on the result: no gradient, no decay

    def __init__(self, manifest):
        scales = manifest["multipliers"][: manifest["mode"] - 1]
        self.views = (view.View(), *(view.View(s, "pillow") for s in scales))
        self.num_classes = manifest["n_class"]

    def apply(self, variables, batch, *, train, key=None):
        params = variables["params"]
        views = batch["views"].astype(jnp.float32) / 255
        total = params["conv_local"]["bias"]
        for k, name in enumerate(("conv_local", "conv_medium")[: views.shape[1]]):
            total = total + jax.lax.conv_general_dilated(
                views[:, k], params[name]["kernel"], (1, 1), "SAME",
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )  # fmt: skip
        return (total, {}) if train else total

    def logits(self, outputs):
        return outputs

    def points(self, outputs):
        return {}

    def loss(self, outputs, batch):
        return {"total": losses.FocalLoss().segmentation(outputs, batch["label"])}


class ArrayGrid:
    """The even grid of images in memory."""

    def __init__(self, images, labels, tile, views):
        self.images, self.labels, self.tile, self.views = images, labels, tile, views
        self.scenes = [
            prepared.SceneInfo(str(i), *image.shape[:2])
            for i, image in enumerate(images)
        ]

    def windows(self, scene):
        height, width = self.images[scene].shape[:2]
        return window.plan_windows(
            height, width, tile=self.tile, stride=self.tile - MIN_OVERLAP,
            spacing="even",
        )  # fmt: skip

    def count(self, scene):
        return len(self.windows(scene))

    def read(self, scene, patch):
        place = self.windows(scene)[patch]
        size = self.images[scene].shape[:2]
        return {
            "views": view.cut_views(
                lambda w: window.cut(self.images[scene], w, fill=0), place, self.views
            ),
            "label": window.cut(self.labels[scene], place, fill=255),
            "position": np.array(place[:2], np.int32),
            "scene_size": np.array(size, np.int32),
            "scene_id": str(scene),
        }


class ArrayScene:
    """One image in memory."""

    def __init__(self, pixels):
        self.pixels = pixels
        self.info = prepared.SceneInfo("scene", *pixels.shape[:2])

    def read(self, place):
        return window.cut(self.pixels, place, fill=0)

    def read_valid(self, place):
        return None


def to_tree(arrays):
    tree = {}
    for name, value in arrays.items():
        layer, leaf = name.split(".")
        is_kernel = leaf == "weight"
        value = jnp.asarray(value.transpose(2, 3, 1, 0) if is_kernel else value)
        tree.setdefault(layer, {})["kernel" if is_kernel else "bias"] = value
    return tree


def with_prefix(arrays, prefix):
    found = {k: v for k, v in arrays.items() if k.startswith(prefix)}
    return to_tree({name.removeprefix(prefix): v for name, v in found.items()})


def test_three_steps_equal_the_published_loop(load_case):
    manifest, state_dict, arrays = load_case("fctl_train_step")
    method = StandIn(manifest)
    config = ml_collections.ConfigDict(
        {
            "seed": 0, "accumulate": 1, "accumulate_how": "sum",
            "data": {"unit": "scenes"}, "learning_rate": manifest["base_lr"],
            "schedule": {
                "power": 0.9, "per": "step", "offset": 0, "begin": 0.0, "drops": (),
                "warmup": 0.0,
            },
            "optimizer": {
                "name": "adam", "b1": 0.9, "b2": 0.999, "decay": "all",
                "weight_decay": manifest["weight_decay"],
            },
        }
    )  # fmt: skip
    epoch_steps = manifest["iters_per_epoch"]
    schedule = optimizer.poly_schedule(
        config, total_steps=manifest["epochs"] * epoch_steps, epoch_steps=epoch_steps
    )
    optimize, mesh = optimizer.make_optimizer(config, schedule), sharding.make_mesh()
    params = to_tree(state_dict)
    state = checkpoint.TrainState(
        jnp.int32(0), params, {}, optimize.init(update.trainable(method, params))
    )
    grid = ArrayGrid(
        arrays["images"], arrays["labels"], manifest["patch"], method.views
    )
    stream = pipeline.scene_batches(
        grid, transform=augment.Augment(tile=manifest["patch"]),
        targets=lambda label, rng: {}, scenes_per_step=2,
        sub_batch=manifest["sub_batch"], seed=0,
    )  # fmt: skip
    tolerance = {"rtol": manifest["rtol"], "atol": manifest["atol"]}
    tiling = plan.Tiling(
        manifest["patch"], manifest["patch"] - MIN_OVERLAP, 3, grid="even",
        score="logits",
    )  # fmt: skip
    engine = inference.Engine(method, tiling)
    step, counts = update.Update(method, optimize, config, mesh), 0
    frozen = np.asarray(params["conv_large"]["kernel"])
    for number in range(3):
        np.testing.assert_allclose(schedule(number), manifest["lr"][number], rtol=1e-6)
        for image, label in zip(arrays["images"], arrays["labels"], strict=True):
            rows = engine.label({"params": state.params}, ArrayScene(image))
            labels = np.concatenate([r.labels for r in rows])
            counts += metrics.confusion(label, labels, method.num_classes)
        micros = []
        for micro, is_last in stream:
            micros.append(micro)
            if is_last:
                break
        if number == 0:
            expected = with_prefix(arrays, "grad1/")
            total = [step.gradient(state.params, {}, m, None)[0] for m in micros]
            total = jax.tree.map(lambda *leaves: sum(leaves), *total)
            for name in total:
                for leaf, value in total[name].items():
                    np.testing.assert_allclose(value, expected[name][leaf], **tolerance)
        state, _ = step(state, micros)
        expected = with_prefix(arrays, f"step{number + 1}/")
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
            state.params, expected,
        )  # fmt: skip
    np.testing.assert_array_equal(state.params["conv_large"]["kernel"], frozen)
    stream.close()
    # Sums of logits in another order: a pixel in a tie may fall to the other class.
    assert np.abs(counts - arrays["train_confusion"]).sum() <= 4
