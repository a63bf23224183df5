"""Foveation around several networks: what trains, what is drawn, what it refuses."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest
import small
from flax.typing import Dtype

from uhrjax import initialize, methods
from uhrjax import losses as losses_lib
from uhrjax.errors import InputError
from uhrjax.methods import base, foveation

PFNET = {"method": "pfnet", "model": small.SMALL_PFNET, "loss": {"ohem_min_kept": 500}}
FCN8 = {
    "method": "fctl",
    "model": {"contexts": (), "width": 2, "fc_features": 8, "wide_border": False},
}
HRNET = {"method": "hrnet", "model": small.SMALL_HRNET}
UPERNET = {
    "method": "upernet",
    "model": small.SMALL | {"design": "original", "dilation": "none"},
    "loss": {"ohem": False, "loss_group": 0},
}


class PixelNet(nn.Module):
    """One convolution, for what does not depend on the network."""

    num_classes: int
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images, *, train):
        return {"logits": nn.Conv(self.num_classes, (3, 3))(images)}


class PixelMethod(base.Method):
    module_class = PixelNet
    loss_class = losses_lib.PlainLoss

    def _check_model(self):
        pass


def build(*, segmenter=None, tile=64, loss=None, **model):
    """Returns the method around a network, or around a single convolution."""
    changes = {"tile": tile, "loss": loss or {}}
    if segmenter is not None:
        changes["segmenter"] = segmenter
    config = small.config("foveation", model=model, **changes)
    if segmenter is not None:
        return methods.build(config)
    config.segmenter.model, config.segmenter.loss = {}, {}
    inner = foveation.FoveationMethod.inner(config)
    return foveation.FoveationMethod(config, PixelMethod(inner))


def gradients(method, variables, batch):
    """Returns the gradients, the losses and the outputs of a training step."""
    key = jax.random.key(3)

    def loss(params):
        outputs, _ = method.apply(
            {**variables, "params": params}, batch, train=True, key=key
        )
        found = method.loss(outputs, batch)
        return found["total"], (found, outputs)

    step = jax.grad(loss, has_aux=True)
    found, (losses, outputs) = small.run_once(step, variables["params"])
    return found, losses, outputs


def has_signal(tree):
    return all(
        bool(jnp.isfinite(leaf).all() and leaf.any()) for leaf in jax.tree.leaves(tree)
    )


@pytest.mark.parametrize("segmenter", [PFNET, FCN8], ids=["pfnet", "fcn8"])
def test_any_network_is_wrapped_by_config_alone(segmenter):
    method = build(segmenter=segmenter)
    variables = method.init(jax.random.key(0))
    batch = small.scenes(locations=2)
    found, losses, outputs = gradients(method, variables, batch)
    assert outputs["logits"].shape == (4, 64, 64, 5)
    assert jnp.isfinite(losses["total"])
    assert has_signal(found["foveater"]["conv3"])
    assert any(leaf.any() for leaf in jax.tree.leaves(found["segmenter"]))


@pytest.mark.parametrize("segmenter", [HRNET, UPERNET], ids=["hrnet", "upernet"])
def test_its_two_networks_compare_at_a_quarter_of_the_patch(segmenter):
    method = build(segmenter=segmenter)
    variables = method.init(jax.random.key(0))
    batch = small.scenes(locations=2)
    outputs = small.run_once(method.apply, variables, batch)
    assert outputs["coarse"].shape == (4, 16, 16, 5)
    label = method.module.crops.labels(
        batch["label"], batch["locations"][0], rate=16, stride=4
    )
    label = np.asarray(label).reshape(4, 16, 16)
    log_p = np.asarray(jax.nn.log_softmax(outputs["coarse"]))
    known = label != 255
    picked = np.take_along_axis(log_p, np.where(known, label, 0)[..., None], -1)[..., 0]
    np.testing.assert_allclose(
        method.loss(outputs, batch)["seg"], -picked[known].mean(), rtol=1e-5
    )


def test_the_first_patch_alone_is_the_plain_network_on_one_view():
    method = build(selection="patch", patch=1)
    variables = method.init(jax.random.key(0))
    assert set(variables["params"]) == {"segmenter"}
    batch = small.scenes(count=1)
    batch["locations"] = np.array([[[2, 3]]], np.int32)
    outputs = small.run_once(method.apply, variables, batch)
    view = batch["scene"][:, None, 32:96, 48:112]
    own = {kind: tree["segmenter"] for kind, tree in variables.items()}
    plain = small.run_once(method.segmenter.apply, own, {"views": view})
    np.testing.assert_allclose(outputs["logits"], plain["logits"], atol=1e-4)


@pytest.mark.parametrize("selection", ["mean", "mode", "gsm", "reinforce"])
def test_the_loss_reaches_the_foveation_module_through_the_weights(selection):
    method = build(selection=selection)
    variables = method.init(jax.random.key(0))
    found, losses, _ = gradients(method, variables, small.scenes(locations=2))
    assert has_signal(found["foveater"])
    parts = sum(value for name, value in losses.items() if name != "total")
    np.testing.assert_allclose(losses["total"], parts, rtol=1e-6)


def test_reinforce_adds_nothing_to_the_networks_own_gradient():
    scored, plain = (
        build(selection="reinforce", baseline=baseline) for baseline in (True, False)
    )
    variables = scored.init(jax.random.key(0))
    batch = small.scenes(locations=2)
    found = [gradients(method, variables, batch) for method in (scored, plain)]
    for _, losses, outputs in found:
        assert losses["reinforce"] == 0
        assert set(np.unique(outputs["weights"])) == {0, 1}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        found[0][0]["segmenter"],
        found[1][0]["segmenter"],
    )
    kernels = [f[0]["foveater"]["conv1"]["kernel"] for f in found]
    assert not np.allclose(*kernels, rtol=0.01)  # the baseline changes it


def test_weights_of_patches_follow_the_selection():
    logits = jax.random.normal(jax.random.key(0), (4, 50, 3))
    key = jax.random.key(1)
    f = jax.nn.softmax(logits)

    def weights(*, train=False, tau=0.5, **model):
        return np.asarray(
            build(**model).module.select(logits, key, tau, train=train)[0]
        )

    np.testing.assert_allclose(weights(), f, rtol=1e-5)
    np.testing.assert_allclose(weights(selection="average"), 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(weights(selection="patch", patch=2)[..., 1], 1)
    random = weights(selection="random")
    np.testing.assert_allclose(random.mean((0, 1)), 1 / 3, atol=0.1)
    assert (random[0] != random[1]).any()  # drawn for every image by itself
    soft, hard = weights(selection="gsm"), weights(selection="gsm", hard=True)
    np.testing.assert_array_equal(soft.argmax(-1), hard.argmax(-1))
    assert 0 < soft.max(-1).min() < 1 and set(np.unique(hard)) == {0, 1}
    np.testing.assert_allclose(weights(selection="gsm", gsm_eval="mean"), f, rtol=1e-5)
    most = weights(selection="gsm", gsm_eval="mode")
    np.testing.assert_array_equal(most.argmax(-1), f.argmax(-1))
    np.testing.assert_array_equal(
        weights(selection="gsm", gsm_eval="mode", train=True), soft
    )


def test_the_temperature_falls_with_progress_unless_it_is_fixed():
    falling, fixed = build(selection="gsm"), build(selection="gsm", anneal=False)
    at = [falling.module.temperature(jnp.array([p])) for p in (0.0, 0.5)]
    np.testing.assert_allclose(at, [1, np.exp(-0.5)], rtol=1e-6)
    np.testing.assert_allclose(falling.module.temperature(), np.exp(-1), rtol=1e-6)
    assert fixed.module.temperature(jnp.array([0.5])) == 1


@pytest.mark.parametrize("antialias", [False, True])
def test_one_crop_where_one_is_chosen_is_the_crop_of_its_mixture(antialias):
    method = build(selection="mode", antialias=antialias)
    batch = small.scenes(locations=3)
    shares = jax.nn.one_hot(jnp.array([[0, 1, 2], [2, 0, 1]]), 3)
    places = batch["locations"][0]
    one, all_of_them = (
        small.run_once(
            lambda shares, train=train: method.patches(
                batch["scene"], places, shares, train=train
            ),
            shares,
        )
        for train in (False, True)
    )
    np.testing.assert_allclose(one, all_of_them, atol=1e-5)


@pytest.mark.parametrize("border", ["zero", "reflect"])
@pytest.mark.parametrize("anchor", ["corner", "center"])
def test_a_bank_larger_than_the_scene_trains(border, anchor):
    method = build(border=border, anchor=anchor, bank=(64, 200, 640))
    variables = method.init(jax.random.key(0))
    batch = small.scenes(size=(80, 90), locations=1)
    batch["locations"] = np.array([[[4, 0]]], np.int32)
    found, losses, _ = gradients(method, variables, batch)
    assert jnp.isfinite(losses["total"]) and has_signal(found["foveater"])


def test_a_patch_without_labels_has_no_loss():
    method = build()
    batch = small.scenes()
    batch["label"][:] = 255
    outputs = small.run_once(method.apply, method.init(jax.random.key(0)), batch)
    assert method.loss(outputs, batch)["total"] == 0


def test_entropy_can_be_added_to_the_loss():
    method = build(loss={"entropy_weight": 2.0})
    batch = small.scenes()
    outputs = small.run_once(method.apply, method.init(jax.random.key(0)), batch)
    losses = method.loss(outputs, batch)
    f = np.asarray(outputs["weights"])
    np.testing.assert_allclose(
        losses["entropy"], -2 * (f * np.log(f)).sum(-1).mean(), rtol=1e-5
    )


def test_memory_of_a_step_does_not_grow_with_the_scene():
    temporary = []
    for side, scale in ((512, 16), (1024, 32)):
        method = build(scale=scale)
        shapes = method.shapes()
        batch = {
            "scene": jax.ShapeDtypeStruct((2, side, side, 3), jnp.uint8),
            "label": jax.ShapeDtypeStruct((2, side, side), jnp.uint8),
            "locations": jax.ShapeDtypeStruct((1, 2, 2), jnp.int32),
            "progress": jax.ShapeDtypeStruct((1,), jnp.float32),
        }

        def step(params, stats, batch, method=method):
            def loss(params):
                given = {"params": params, "batch_stats": stats}
                outputs, _ = method.apply(
                    given, batch, train=True, key=jax.random.key(0)
                )
                return method.loss(outputs, batch)["total"]

            return jax.grad(loss)(params)

        compiled = (
            jax.jit(step)
            .lower(shapes["params"], shapes["batch_stats"], batch)
            .compile()
        )
        temporary.append(compiled.memory_analysis().temp_size_in_bytes)
    assert temporary[1] == pytest.approx(temporary[0], rel=0.01)


def torch_names(tree, prefix):
    """Returns a state dict with the module names of a tree of shapes."""
    leaf_names = {"mean": "running_mean", "var": "running_var", "bias": "bias"}
    rng, found = np.random.default_rng(0), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        *modules, last = (entry.key for entry in path)
        shape = leaf.shape
        if len(shape) == 4:
            shape = (shape[3], shape[2], *shape[:2])
        name = ".".join([*modules, leaf_names.get(last, "weight")])
        if name.split(".")[0] not in ("hidden", "classify"):
            name = name.replace("layer1_", "layer1.").replace("_", ".")
            name = name.replace("running.", "running_").replace("fuse.l", "fuse_l")
        found[prefix + name] = rng.random(shape).astype(np.float32)
    return found


def published(method):
    """Returns the three published files of a wrapped HRNet, merged."""
    found = {}
    for tree in method.shapes().values():
        network = tree["segmenter"]
        found |= torch_names(network["backbone"], "encoder.")
        head = torch_names(network["head"], "decoder.")
        renames = (("hidden.conv", "cbr.0"), ("hidden.norm", "cbr.1"),
                   ("classify", "conv_last"))  # fmt: skip
        for name, value in head.items():
            for ours, theirs in renames:
                name = name.replace(ours, theirs)
            found[name] = value
        if "foveater" not in tree:
            continue
        for name, value in torch_names(tree["foveater"], "foveater.").items():
            for ours, theirs in (("conv1", "fov_expand_1"), ("conv2", "fov_expand_2"),
                                 ("conv3", "fov_squeeze_1")):  # fmt: skip
                name = name.replace(ours, theirs)
            found[name] = value
    return found


def test_published_files_fill_the_network_and_the_module():
    method = build(segmenter=HRNET)
    given = published(method)
    given["foveater.norm1._tmp_running_mean"] = np.zeros(24, np.float32)
    variables = method.import_torch(given)
    np.testing.assert_array_equal(
        variables["params"]["foveater"]["conv3"]["kernel"],
        given["foveater.fov_squeeze_1.weight"].transpose(2, 3, 1, 0),
    )
    np.testing.assert_array_equal(
        variables["batch_stats"]["segmenter"]["head"]["hidden"]["norm"]["var"],
        given["decoder.cbr.1.running_var"],
    )
    fixed = build(segmenter=HRNET, selection="average")
    with pytest.raises(InputError, match="unknown to the model"):
        fixed.import_torch(given)
    own = {k: v for k, v in given.items() if not k.startswith("foveater.")}
    assert set(fixed.import_torch(own)["params"]) == {"segmenter"}


def test_an_imagenet_hrnet_fills_the_trunk_and_drops_its_classifier():
    method = build(segmenter=HRNET)
    variables = method.init(jax.random.key(0))
    given = {}
    for tree in method.shapes().values():
        given |= torch_names(tree["segmenter"]["backbone"], "")
    given["final_layer.0.weight"] = np.zeros((8, 4, 1, 1))
    given["classifier.bias"] = np.zeros(10)
    filled = method.import_backbone(variables, given)
    assert jax.tree.structure(filled) == jax.tree.structure(variables)
    backbone = filled["params"]["segmenter"]["backbone"]
    np.testing.assert_array_equal(backbone["bn1"]["scale"], given["bn1.weight"])
    assert filled["params"]["foveater"] is variables["params"]["foveater"]
    del given["bn2.bias"]
    with pytest.raises(InputError, match=r"backbone\.bn2\.bias"):
        method.import_backbone(variables, given)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"selection": "best"}, "'best'; use one of mean, mode"),
        ({"bank": ()}, "use ascending sides"),
        ({"bank": (64, 64)}, "use ascending sides"),
        ({"bank": (32, 64)}, "another side than config.tile = 64"),
        ({"bank": (64,)}, "nothing to choose from; use two sides or more"),
        ({"selection": "patch", "patch": 4}, "the bank has the patches 1 to 3"),
        ({"scale": 0}, "scale = 0; use 1 or more"),
        ({"border": "black"}, "'black'; use one of zero, reflect"),
        ({"anchor": "middle"}, "'middle'; use one of corner, center"),
        ({"straight_through": "copy"}, "use one of st, st_inv"),
        ({"gsm_eval": "all"}, "use one of sample, mode, mean"),
        ({"activation": "gelu"}, "use one of relu6, relu"),
        ({"segmenter": {}}, "config.segmenter.method is not set"),
        ({"segmenter": {"method": "vnet"}}, "'vnet' is unknown"),
        (
            {"segmenter": {"method": "fctl", "model": {"contexts": ("2",)}}},
            "use a network of one view",
        ),
        ({"segmenter": {"method": "cascadepsp"}}, "refines label maps"),
        (
            {"segmenter": HRNET, "tile": 66, "bank": (66, 96)},
            "HRNetMethod takes multiples of 4 px: use 68",
        ),
        (
            {"segmenter": UPERNET, "tile": 66, "bank": (66, 96)},
            "UPerNetMethod takes multiples of 4 px: use 68",
        ),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


def test_a_bank_of_one_is_fine_where_nothing_is_chosen():
    method = build(bank=(64,), selection="patch")
    batch = small.scenes()
    outputs = small.run_once(method.apply, method.init(jax.random.key(0)), batch)
    assert outputs["weights"].shape == (2, 1, 1)


def test_three_files_without_prefixes_start_a_run(tmp_path):
    method = build(segmenter=HRNET)
    given, files = published(method), {}
    for part in ("encoder", "decoder", "foveater"):
        own = {
            name.removeprefix(f"{part}."): value
            for name, value in given.items()
            if name.startswith(f"{part}.")
        }
        files[part] = tmp_path / f"{part}_epoch_50.npz"
        np.savez(files[part], **own)
    expected = method.import_torch(given)

    def start(init_from, what="model"):
        config = ml_collections.ConfigDict(
            {"seed": 0, "init_from": init_from, "init_what": what}
        )
        return initialize.start_variables(config, method)

    plain = [tmp_path / name for name in ("a.npz", "b.npz", "c.npz")]
    for path, file in zip(plain, files.values(), strict=True):
        path.write_bytes(file.read_bytes())
    for init_from in (
        ",".join(str(files[part]) for part in ("foveater", "encoder", "decoder")),
        ", ".join(map(str, plain)),
        str(tmp_path),
    ):
        jax.tree.map(np.testing.assert_array_equal, start(init_from), expected)
    with pytest.raises(InputError, match=r"set --config\.init_what=model"):
        start(str(tmp_path), "backbone")
    for wrong in (f"{files['encoder']},{plain[1]}", ",".join(["a.npz"] * 4)):
        with pytest.raises(InputError, match="give one file per part, encoder, dec"):
            start(wrong)
    files["decoder"].unlink()
    with pytest.raises(InputError, match=r"absent from the file \(7\)"):
        start(str(tmp_path))


def test_pretraining_shows_one_field_of_view_and_hands_over_the_network():
    config = small.config("foveation", stages={"pretrain": {"epochs": 1}})
    first, last = foveation.FoveationMethod.stages(config)
    assert first.changes == {"model.selection": "patch"} and last.changes == {}
    assert last.start == (("segmenter", "pretrain", "segmenter"),)
    plain = foveation.FoveationMethod.stages(small.config("foveation"))
    assert [stage.name for stage in plain] == ["main"]
