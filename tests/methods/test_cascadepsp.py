"""CascadePSP's training: worse masks, losses, passes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small

from uhrjax import methods
from uhrjax.errors import InputError
from uhrjax.methods import cascadepsp


@pytest.fixture(scope="module")
def method():
    return methods.build(small.config("cascadepsp"))


def blob(size=(96, 80)):
    """Returns a disc with a hole, [H, W] uint8."""
    y, x = np.indices(size)
    away = np.hypot(y - 45, x - 40)
    return ((away < 30) & (away > 10)).astype(np.uint8)


def overlap(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def test_a_worse_mask_agrees_as_well_as_a_coarse_segmentation_would():
    mask = blob()
    found = []
    for seed in range(40):
        worse = cascadepsp.worsen(mask, np.random.default_rng(seed))
        assert worse.dtype == np.uint8 and worse.shape == mask.shape
        assert set(np.unique(worse)) <= {0, 1}
        found.append(overlap(mask, worse))
    # Drawn from 0.8 to 1, from which one change may take a little.
    assert 0.65 < min(found) < 0.85 and 0.94 < max(found) <= 1
    assert 0.8 < np.mean(found) < 0.95
    again = [cascadepsp.worsen(mask, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_making_worse_leaves_its_input_and_keeps_a_hole():
    mask = blob()
    before = mask.copy()
    worse = [cascadepsp.worsen(mask, np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(mask, before)
    assert np.mean([part[45, 40] for part in worse]) < 0.2


@pytest.mark.parametrize("value", [0, 1])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (64, 64)])
def test_masks_without_an_outline_come_back_in_time(size, value):
    mask = np.full(size, value, np.uint8)
    worse = cascadepsp.worsen(mask, np.random.default_rng(0))
    assert worse.shape == size and worse.max() <= 1


def test_targets_are_one_present_class_and_what_is_ignored(method):
    label = np.full((64, 64), 3, np.uint8)
    label[20:40, 10:50], label[50:] = 1, 255
    chosen = set()
    for seed in range(20):
        found = method.targets(label, np.random.default_rng(seed))
        binary, coarse = found["binary"], found["coarse"]
        assert (binary[50:] == 255).all() and (binary[:50] <= 1).all()
        of_class = label[binary == 1]
        assert (of_class == of_class[0]).all()
        assert (label == of_class[0]).sum() == len(of_class)
        assert coarse.max() <= 1 and overlap(binary == 1, coarse > 0) > 0.6
        chosen.add(int(of_class[0]))
    assert chosen == {1, 3}


def test_a_crop_without_label_has_nothing_to_learn_from(method):
    label = np.full((64, 64), 255, np.uint8)
    found = method.targets(label, np.random.default_rng(0))
    assert (found["binary"] == 255).all() and not found["coarse"].any()
    logits = jnp.ones((1, 64, 64, 1))
    outputs = {"logits": logits, "stride_8": (logits,) * 3, "stride_4": (logits,) * 2}
    batch = {"label": label[None], "binary": found["binary"][None]}
    assert method.loss(outputs, batch)["total"] == 0


def test_the_loss_is_zero_for_a_sure_answer_and_ignores_255(method):
    label = np.zeros((1, 64, 64), np.uint8)
    label[:, 10:40, 10:40], label[:, 50:] = 1, 255
    binary = label.copy()
    logits = jnp.where(jnp.asarray(label) == 1, 40.0, -40.0)[..., None]
    logits = logits.at[:, 50:].set(7.0)
    outputs = {"logits": logits, "stride_8": (logits,) * 3, "stride_4": (logits,) * 2}
    sure = method.loss(outputs, {"label": label, "binary": binary})
    assert set(sure) == {
        "total", "final", "stride_8_1", "stride_8_2", "stride_8_3", "stride_4_2",
        "stride_4_3",
    }  # fmt: skip
    assert all(abs(value) < 1e-5 for value in sure.values())
    wrong = method.loss(
        {**outputs, "logits": -logits}, {"label": label, "binary": binary}
    )
    # L1 and L2 of every pixel; of the outlines only that of the crop is new.
    assert 2 <= wrong["final"] < 2.5


def test_outline_strength_is_sobels_of_the_smoothed_map():
    x = np.zeros((9, 9), np.float32)
    x[:, 5:] = 1
    found = cascadepsp._edges(jnp.asarray(x)[None])[0, 4]
    # A step of height 1 smoothed over 3 px: slopes of 1/3 and 2/3 over two px each.
    expected = np.sqrt(np.array([0, 0, 0, 1 / 3, 2 / 3, 2 / 3, 1 / 3]) ** 2 + 1e-4)
    np.testing.assert_allclose(found[:7], expected, atol=1e-5)


def test_given_masks_spare_the_passes_that_would_make_them(method):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    mask = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    for given, passes in (((), (3, 2)), ((mask,), (2, 2)), ((mask, mask), (1, 1))):
        outputs = jax.eval_shape(
            lambda v, *x: method.module.apply(v, *x, train=False),
            method.shapes(), image, mask, *given,
        )  # fmt: skip
        found = (len(outputs["stride_8"]), len(outputs["stride_4"]))
        assert found == passes and outputs["logits"].shape == (1, 64, 64, 1)


def test_imagenet_weights_know_no_masks(method):
    variables = method.init(jax.random.key(0))
    state_dict, rng = {}, np.random.default_rng(0)
    endings = {
        "kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean",
        "var": "running_var",
    }  # fmt: skip
    for kind in ("params", "batch_stats"):
        tree = variables[kind]["backbone"]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            *modules, last = (entry.key for entry in path)
            name = "_".join(modules).replace("_", ".")
            sides = (
                [leaf.shape[k] for k in (3, 2, 0, 1)] if leaf.ndim == 4 else leaf.shape
            )
            state_dict[f"{name}.{endings[last]}"] = rng.random(sides).astype(np.float32)
    three = state_dict["conv1.weight"] = state_dict["conv1.weight"][:, :3]
    loaded = method.import_backbone(variables, state_dict)
    kernel = loaded["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, :3], three.transpose(2, 3, 1, 0))
    assert kernel.shape[2] == 6 and not kernel[:, :, 3:].any()


def test_labelling_without_a_mask_says_what_to_do(method):
    with pytest.raises(InputError, match=r"--config\.refine=FOLDER"):
        method.apply(method.shapes(), small.batch())


def test_training_lowers_the_loss_of_one_mask(method):
    label = blob()[20:60, 20:60]
    batch = {
        "views": np.stack([label * 120 + 60] * 3, -1)[None, None],
        "label": label[None],
        "binary": label[None],
        "coarse": cascadepsp.worsen(label, np.random.default_rng(1))[None],
    }
    variables = method.init(jax.random.key(0))

    @jax.jit
    def step(params):
        def loss(params):
            given = {**variables, "params": params}
            outputs, _ = method.apply(given, batch, train=True, key=jax.random.key(0))
            return method.loss(outputs, batch)["total"]

        value, gradient = jax.value_and_grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.03 * g, params, gradient), value

    params, values = variables["params"], []
    for _ in range(8):
        params, value = step(params)
        values.append(float(value))
    assert values[-1] < 0.85 * values[0]
