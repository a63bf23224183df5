"""What every method promises to training, evaluation and prediction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import methods
from uhrjax.errors import InputError

VARIANTS = {
    "cascadepsp": ("cascadepsp", {}),
    "ccnet": ("ccnet", {}),
    "danet": ("danet", {}),
    "danet, point flow": ("danet", {"decoder": "pf"}),
    "deeplabv3": ("deeplabv3", {}),
    "deeplabv3plus": ("deeplabv3plus", {}),
    "denseaspp": ("denseaspp", {}),
    "dgf": ("dgf", {}),
    "downsample": ("downsample", {}),
    "emanet": ("emanet", {}),
    "encnet": ("encnet", {"presence": True}),
    "farseg": ("farseg", {}),
    "fcn": ("fcn", {}),
    "fctl": ("fctl", {}),
    "fctl, one encoder": (
        "fctl",
        {"contexts": ("1.5",), "encoders": "shared", "value": "local"},
    ),
    "fctl, Eq. 1": ("fctl", {"contexts": ("2", "local"), "fusion": "adaptive_paper"}),
    "fctl, no context": ("fctl", {"contexts": ()}),
    "foveation": ("foveation", {}),
    "foveation, gsm": ("foveation", {"selection": "gsm", "gsm_eval": "mean"}),
    "glnet": ("glnet", {}),
    "glnet, one branch": ("glnet", {"mode": "local_alone"}),
    "gscnn": ("gscnn", {}),
    "hrnet": ("hrnet", {}),
    "hrnet_ocr": ("hrnet_ocr", {}),
    "hrnetv2": ("hrnetv2", {}),
    "icnet": ("icnet", {}),
    "magnet": ("magnet", {"trained": 1}),
    "pfnet": ("pfnet", {}),
    "pfnet, two passes": (
        "pfnet",
        {"direction": "top_down_bottom_up", "levels": ("F4", "F5"), "ppm": False},
    ),
    "pfnet, bottom up": (
        "pfnet",
        {"direction": "bottom_up", "edge_prediction": "direct", "levels": ("F3",)},
    ),
    "magnet_pspnet": ("magnet_pspnet", {}),
    "ocnet": ("ocnet", {}),
    "pointrend": ("pointrend", {}),
    "pspnet": ("pspnet", {"auxiliary": True}),
    "refinement": ("refinement", {}),
    "refinement, all switches": (
        "refinement",
        {"context": 1.5, "share_encoders": True, "context_skips": True},
    ),
    "ranet": ("ranet", {}),
    "refinenet": ("refinenet", {}),
    "rendered": ("rendered", {}),
    "resnet_fpn": ("resnet_fpn", {}),
    "segfix": ("segfix", {}),
    "segnet": ("segnet", {}),
    "sfnet": ("sfnet", {}),
    "unet": ("unet", {}),
    "upernet": ("upernet", {}),
    "upernet, original": ("upernet", {"design": "original", "dilation": "none"}),
    "semantic_fpn": ("semantic_fpn", {}),
}


NETWORKS = [name for name, path in methods.METHODS.items() if "networks" in path]
# Of the networks, which differ little in this, those that say how weights start, and
# some that have more than convolutions: compiling each takes seconds.
DRAWN = [
    name
    for name in methods.METHODS
    if name not in NETWORKS or methods.find(name).initial_rules != ()
]
ROUNDED = [name for name in methods.METHODS if name not in NETWORKS] + [
    "ccnet", "danet", "encnet", "hrnet_ocr", "segnet",
]  # fmt: skip


@pytest.fixture(scope="module", params=VARIANTS)
def built(request):
    """Returns a method and its variables."""
    name, model = VARIANTS[request.param]
    method = methods.build(small.config(name, model=model))
    return method, method.init(jax.random.key(0))


def test_every_method_of_the_table_is_tested():
    assert {name for name, _ in VARIANTS.values()} == set(methods.METHODS)


def test_loss_is_finite_and_its_gradient_reaches_every_weight(built):
    method, variables = built
    batch = {k: jnp.asarray(v) for k, v in small.batch_for(method).items()}

    def loss(params):
        # Running statistics: batch norm would cancel the biases in front of it.
        outputs = method.apply({**variables, "params": params}, batch)
        losses = method.loss(outputs, batch)
        return losses["total"], (losses, method.logits(outputs))

    gradients, (losses, logits) = small.run_once(
        jax.grad(loss, has_aux=True), variables["params"]
    )
    answers = 1 if getattr(method, "refines", False) else 5  # inside or not, or classes
    size = (64, 64) if method.whole_scenes else (64, 96)  # of a patch, or a view
    assert logits.shape == (2, *size, answers) and logits.dtype == jnp.float32
    assert all(value.shape == () and jnp.isfinite(value) for value in losses.values())
    parts = sum(value for name, value in losses.items() if name != "total")
    np.testing.assert_allclose(losses["total"], parts, rtol=1e-6)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if not (jnp.isfinite(leaf).all() and leaf.any())
        and path[0].key not in method.frozen
    ]
    assert not still


def test_training_returns_new_statistics_and_depends_on_the_key(built):
    method, variables = built
    # Two images of 64 px leave 8 values per channel to the coarsest batch norm.
    batch = small.batch_for(method, size=(64, 64))

    run = jax.jit(lambda key: method.apply(variables, batch, train=True, key=key))

    outputs, stats = run(jax.random.key(1))
    before = variables.get("batch_stats", {})
    assert jax.tree.structure(stats) == jax.tree.structure(before)
    before, after = (
        {k: v for k, v in tree.items() if k not in method.frozen}
        for tree in (before, stats)
    )
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after, before)
    assert all(jax.tree.leaves(moved))
    again, _ = run(jax.random.key(1))
    np.testing.assert_array_equal(outputs["logits"], again["logits"])
    if getattr(method.module, "dropout", 0) and getattr(method.module, "ppm", True):
        other, _ = run(jax.random.key(2))
        assert (other["logits"] != outputs["logits"]).any()


def test_a_batch_equals_its_single_images_and_uint8_its_normalised_floats(built):
    method, variables = built
    batch = small.batch_for(method)

    run = jax.jit(lambda v, b: method.logits(method.apply(v, b)))
    together = run(variables, batch)
    if type(method).__module__.startswith("uhrjax.networks."):
        # All of these read images by the same code; another program takes seconds.
        swapped = run(variables, {name: v[::-1] for name, v in batch.items()})
        np.testing.assert_allclose(swapped[::-1], together, atol=1e-5)
        beside = {**batch, "views": batch["views"].copy()}
        beside["views"][1] = 255 - beside["views"][1]
        other = run(variables, beside)
        np.testing.assert_allclose(other[0], together[0], atol=1e-5)
        assert (other[1] != together[1]).any()
        return
    for name in ("views", "overview", "scene"):
        if name in batch:
            scaled = (batch[name] / 255 - np.array(method.mean)) / np.array(method.std)
            batch[name] = scaled.astype(np.float32)
    for image in range(2):
        one = {
            name: value[image : image + 1] if len(value) > 1 else value  # for all
            for name, value in batch.items()
        }
        # An HRNet's logits grow with every sum of branches, until statistics are known.
        atol = 2e-4 * max(1.0, float(abs(together).max()) / 10)
        np.testing.assert_allclose(together[image], run(variables, one)[0], atol=atol)


def test_host_targets_and_points_have_the_promised_form(built):
    method, variables = built
    batch = small.batch_for(method)
    targets = method.targets(batch["label"][0], np.random.default_rng(0))
    for name, target in targets.items():
        assert target.shape == (64, 96) and target.dtype == np.uint8, name
    outputs = jax.eval_shape(lambda: method.apply(variables, batch))
    for name, points in method.points(outputs).items():
        assert points.shape[0] == 2 and points.shape[2] == 2, name


@pytest.mark.parametrize("name", DRAWN)
def test_initial_weights_have_the_distribution_the_modules_declare(name):
    wider = {"width": 8, "fpn_dim": 16, "fc_features": 16}
    known = small.config(name).model
    wider = {field: value for field, value in wider.items() if field in known}
    method = methods.build(small.config(name, model=wider))
    ours = method.init(jax.random.key(0))
    # Under a transformation the modules' own initialisers run.
    declared = small.run_once(method.init, jax.random.key(0))
    assert jax.tree.structure(ours) == jax.tree.structure(declared)

    def compare(path, a, b):
        assert a.shape == b.shape and a.dtype == b.dtype == jnp.float32
        a, b = np.array(a), np.array(b)
        assert a.any() == b.any() and (a == 1).all() == (b == 1).all(), path
        if a.size >= 500:
            assert a.std() == pytest.approx(b.std(), rel=0.15), path
        if a.size >= 1000:  # of fewer, an extreme says little
            assert abs(a).max() == pytest.approx(abs(b).max(), rel=0.5), path

    jax.tree_util.tree_map_with_path(compare, ours, declared)


def test_initial_weights_depend_on_the_key_only():
    method = methods.build(small.config())
    first, same, other = (method.init(jax.random.key(k)) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, same)
    kernels = [
        v["params"]["neck"]["lateral_0"]["conv"]["kernel"] for v in (first, other)
    ]
    assert (kernels[0] != kernels[1]).all()


@pytest.mark.parametrize("name", ROUNDED)
def test_bfloat16_computes_near_float32_and_keeps_float32_variables(name):
    exact, rough = (
        methods.build(small.config(name, dtype=dtype))
        for dtype in ("float32", "bfloat16")
    )
    variables = exact.init(jax.random.key(0))
    jax.tree.map(lambda a: a.dtype == jnp.float32 or pytest.fail(), rough.shapes())
    batch = small.batch_for(exact, size=(64, 64), count=1)
    results = []
    for method in (exact, rough):
        run = lambda v, m=method: m.apply(v, batch)["logits"]  # noqa: E731
        results.append(small.run_once(run, variables))
    assert results[1].dtype == jnp.float32
    assert not (results[0] == results[1]).all()
    assert abs(results[0] - results[1]).mean() < 0.1 * results[0].std()


def imagenet_file(method):
    """Returns a state dict with the names of a bare classifier."""
    rng = np.random.default_rng(0)
    leaf_names = {
        "kernel": "weight",
        "scale": "weight",
        "mean": "running_mean",
        "var": "running_var",
    }
    found = {"fc.weight": np.zeros((10, 32)), "fc.bias": np.zeros(10)}
    for tree in method.shapes().values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree["backbone"]):
            *modules, last = (entry.key for entry in path)
            name = "_".join(modules).replace("_", ".")
            sides = leaf.shape
            if len(sides) == 4:
                sides = (sides[3], sides[2], sides[0], sides[1])
            found[f"{name}.{leaf_names.get(last, last)}"] = rng.random(sides)
    return found


@pytest.mark.parametrize("stem", ["classic", "deep"])
def test_import_backbone_replaces_the_backbone_and_nothing_else(stem):
    method = methods.build(small.config(model={"stem": stem}))
    state_dict = imagenet_file(method)
    first_conv = "conv1.weight" if stem == "classic" else "conv1.0.weight"
    assert first_conv in state_dict and "layer1.0.bn2.running_var" in state_dict
    before = method.init(jax.random.key(0))
    after = method.import_backbone(before, state_dict)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    np.testing.assert_array_equal(
        after["params"]["backbone"]["layer2_0"]["downsample_0"]["kernel"][0, 0],
        state_dict["layer2.0.downsample.0.weight"][:, :, 0, 0].T.astype(np.float32),
    )
    assert after["params"]["head"] is before["params"]["head"]
    del state_dict["bn1.bias"]
    state_dict["layer5.weight"] = np.zeros(3)
    with pytest.raises(InputError) as error:
        method.import_backbone(before, state_dict)
    assert "backbone.bn1.bias" in str(error.value)
    assert "layer5.weight" in str(error.value)


def test_variables_convert_back_and_forth_under_our_own_names():
    method = methods.build(small.config())
    variables = method.init(jax.random.key(0))
    leaf_names = {"mean": "running_mean", "var": "running_var"}
    state_dict = {}
    for tree in variables.values():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *modules, last = (entry.key for entry in path)
            last = leaf_names.get(last, "bias" if last == "bias" else "weight")
            value = np.array(leaf)
            if value.ndim == 4:
                value = value.transpose(3, 2, 0, 1)
            state_dict[".".join([*modules, last])] = value
    jax.tree.map(
        np.testing.assert_array_equal, variables, method.import_torch(state_dict)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "pfnets"}, "'pfnets' is unknown; use one of .*pfnet, "),
        ({"dtype": "float16"}, "config.dtype = 'float16'; use one of float32"),
        ({"num_classes": 1}, "num_classes = 1; use 2 to 255"),
        ({"tile": 100}, "config.tile: 100 x 100 px.*use 128 x 128"),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0"),
        (
            {"model": {"levelz": ()}},
            "config.model.levelz is unknown to PFNet; .*levels",
        ),
        ({"model": {"dtype": "x"}}, "config.model.dtype is unknown"),
        ({"model": {"backbone": "vgg16"}}, "'vgg16'; use one of resnet18"),
        ({"model": {"stem": "wide"}}, "'wide'; use one of deep, classic"),
        ({"model": {"dilation": "D"}}, "'D'; use one of none, keep_stride"),
        ({"model": {"fpn_dim": "8"}}, "fpn_dim = '8' is of type str; use int"),
        ({"model": {"dropout": 1.0}}, "dropout = 1.0"),
        ({"model": {"salient": "max"}}, "'max'; use one of max_pool"),
        ({"model": {"levels": ("F2",)}}, "'F2'; use one of F3, F4, F5"),
        ({"model": {"salient": "none", "boundary": False}}, "leave no point to flow"),
        (
            {"model": {"boundary": False, "edge_prediction": "direct"}},
            "needs boundary = True",
        ),
        ({"model": {"levels": (), "direction": "bottom_up"}}, "needs point flow"),
        ({"model": {"maxpool_size": 0}}, "maxpool_size = 0; use 1 or more"),
        ({"loss": {"ohm": True}}, "config.loss.ohm is unknown to PFNetLoss"),
        ({"loss": {"ohem_min_kept": 0}}, "ohem_min_kept = 0; use 1 or more"),
        ({"loss": {"class_weights": (1.0,)}}, "1 numbers for 5 classes; give one each"),
        ({"loss": {"boundary_rule": "all"}}, "'all'; use one of foreground"),
        ({"loss": {"boundary_thickness": 0}}, "thickness = 0; use 1 or more"),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(changes, message):
    with pytest.raises(InputError, match=message):
        methods.build(small.config(**{"method": "pfnet"} | changes))


@pytest.mark.parametrize(
    ("views", "message"),
    [
        (np.zeros((1, 1, 64, 70, 3), np.uint8), "64 x 70 px.*use 64 x 96"),
        (np.zeros((1, 2, 64, 64, 3), np.uint8), r"takes \[batch, 1"),
        (np.zeros((1, 64, 64, 3), np.uint8), r"takes \[batch, 1"),
        (np.zeros((1, 1, 64, 64, 3), np.int32), "int32; use uint8"),
    ],
)
def test_views_that_do_not_fit_say_what_is_allowed(views, message):
    method = methods.build(small.config())
    with pytest.raises(InputError, match=message):
        method.images({"views": views})


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_in_bfloat16_keep_logits_losses_and_variables_in_float32(name):
    method = methods.build(small.config(name, dtype="bfloat16"))
    batch = small.batch_for(method, size=(64, 64), count=1)

    def label(variables):
        outputs = method.apply(variables, batch)
        return outputs["logits"], method.loss(outputs, batch), variables

    for leaf in jax.tree.leaves(jax.eval_shape(label, method.shapes())):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("classes, size", [(2, (50, 37)), (20, (33, 75))])
def test_networks_take_sides_that_are_no_multiple_of_32(name, classes, size):
    config = small.config(name, tile=64, num_classes=classes)
    method = methods.build(config)
    size = tuple(-(-side // method.multiple) * method.multiple for side in size)
    batch = {"views": np.zeros((1, 1, *size, 3), np.uint8)}
    shape = jax.eval_shape(lambda v: method.apply(v, batch), method.shapes())
    assert shape["logits"].shape == (1, *size, classes)


def test_init_under_a_transformation_has_the_same_shapes(built):
    method, variables = built

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    inside = jax.eval_shape(method.init, jax.random.key(0))
    assert shapes(inside) == shapes(variables)
