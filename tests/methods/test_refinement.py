"""The refinement network: its inputs, its start as a U-Net, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small

from uhrjax import cost, methods
from uhrjax.errors import InputError
from uhrjax.methods import refinement


def build(*, tile=64, num_classes=5, **model):
    return methods.build(
        small.config("refinement", tile=tile, num_classes=num_classes, model=model)
    )


def coarse_of(*shape, classes=5, seed=0):
    return np.random.default_rng(seed).integers(0, classes, shape, np.uint8)


@pytest.mark.parametrize(("context", "size"), [(2.0, (33, 20)), (1.5, (16, 50))])
@pytest.mark.parametrize("switches", [{}, {"context_skips": True, "value": "local"}])
def test_logits_have_the_patch_s_size_whatever_it_is(context, size, switches):
    method = build(context=context, **switches)
    wide = (round(side * context) for side in size)
    batch = {"coarse": coarse_of(2, *wide)}
    shape = jax.eval_shape(lambda v: method.apply(v, batch), method.shapes())
    assert shape["logits"].shape == (2, *size, 5)


def test_the_patch_is_the_centre_and_the_context_its_surroundings():
    method = build(num_classes=3)
    coarse = np.full((1, 14, 22), 255, np.uint8)
    coarse[0, 3:10, 5:16] = 1
    local, context = method.model_inputs({"coarse": coarse})
    assert local.shape == context.shape == (1, 7, 11, 3)
    # Where no centre in whole pixels exists, the window lies up and left of the patch.
    assert (local[:, :-1, :-1, 1] == 1).all() and (local[..., 0] == 0).all()
    assert (local[:, -1] == 0).all() and (local[:, :, -1] == 0).all()
    assert context[0, 0].max() == 0 and context[0, 3, 5, 1] == 1
    assert 0.2 < context[..., 1].mean() < 0.3


@pytest.mark.parametrize("size", [(6, 7), (4, 10), (12, 14)])
def test_shares_are_the_antialiased_reduction_of_the_one_hot_map(size):
    labels = coarse_of(2, 12, 14)
    labels[:, :3] = 255
    found = refinement.class_shares(jnp.asarray(labels), size, 5)
    expected = jax.image.resize(
        refinement.one_hot(jnp.asarray(labels), 5), (2, *size, 5), "linear"
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.sum(-1).max() <= 1 + 1e-6


def test_gamma_0_is_a_u_net_of_the_patch_alone():
    method = build(gamma_init=0.0)
    variables = method.init(jax.random.key(0))
    one = {"coarse": coarse_of(1, 64, 64)}
    other = {"coarse": coarse_of(1, 64, 64, seed=1)}
    other["coarse"][:, 16:48, 16:48] = one["coarse"][:, 16:48, 16:48]
    run = jax.jit(lambda v, b: method.apply(v, b)["logits"])
    np.testing.assert_array_equal(run(variables, one), run(variables, other))
    relevance = variables["params"]["relevance"]
    relevance["gamma"] = jnp.ones(1) * 100
    assert (run(variables, one) != run(variables, other)).any()


def test_what_lies_beyond_the_scene_is_of_no_class():
    labels = jnp.asarray([[[0, 1, 255]]], jnp.uint8)
    np.testing.assert_array_equal(
        refinement.one_hot(labels, 2)[0, 0], [[1, 0], [0, 1], [0, 0]]
    )


def test_it_learns_to_repair_one_image():
    # Blocks of 4 px are shifted by 2 px and a tenth of the pixels is noise.
    blocks = coarse_of(8, 8, classes=3).repeat(4, 0).repeat(4, 1)
    label = blocks[None]
    coarse = np.full((1, 64, 64), 255, np.uint8)
    spoilt = np.roll(blocks, 2, axis=1)
    noise = np.random.default_rng(1).random(spoilt.shape) < 0.1
    coarse[0, 16:48, 16:48] = np.where(noise, 0, spoilt)
    method = build(tile=32, num_classes=3, width=4, gamma_init=0.0)
    batch = {"coarse": coarse, "label": label}
    variables = method.init(jax.random.key(0))
    key, optimizer = jax.random.key(0), optax.adam(0.01)

    @jax.jit
    def step(params, stats, state):
        def loss(params):
            outputs, new = method.apply(
                {"params": params, "batch_stats": stats}, batch, train=True, key=key
            )
            right = (method.logits(outputs).argmax(-1) == label).mean()
            return method.loss(outputs, batch)["total"], (new, right)

        (value, (stats, right)), gradient = jax.value_and_grad(loss, has_aux=True)(
            params
        )
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), stats, state, value, right

    params, stats = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)
    assert (coarse[0, 16:48, 16:48] == label[0]).mean() < 0.75
    for _ in range(150):
        params, stats, state, _value, right = step(params, stats, state)
    assert right > 0.97


def test_cost_and_size_are_the_designs():
    for width, gmac, weights in ((64, 244, 30.8e6), (8, 4.2, 0.48e6)):
        method = build(tile=508, num_classes=7, width=width)
        batch = {"coarse": jax.ShapeDtypeStruct((1, 1016, 1016), jnp.uint8)}
        shapes = method.shapes()
        run = lambda v, b, m=method: m.apply(v, b)["logits"]  # noqa: E731
        found = cost.multiply_accumulates(run, shapes, batch) / 1e9
        assert found == pytest.approx(gmac, rel=0.01)
        found = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
        assert found == pytest.approx(weights, rel=0.01)


def test_a_shared_encoder_halves_the_encoders():
    own, shared = (
        build(share_encoders=share).shapes()["params"] for share in (False, True)
    )
    assert set(own) - set(shared) == {"encoder_context"}


def test_explained_outputs_hold_the_attention():
    method = build()
    variables = method.init(jax.random.key(0))
    found = small.run_once(method.explain, variables, {"coarse": coarse_of(1, 64, 64)})
    assert found["attention"].shape == (1, 4, 4)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({}, "no 'coarse'.*config.data.masks"),
        ({"coarse": np.zeros((1, 64, 63), np.uint8)}, "64 x 63 px.*use 64 x 64"),
        ({"coarse": np.zeros((1, 64, 64), np.int32)}, "int32; use .* uint8"),
        ({"coarse": np.zeros((64, 64), np.uint8)}, "use .batch, height, width"),
    ],
)
def test_label_maps_that_do_not_fit_say_what_is_allowed(batch, message):
    with pytest.raises(InputError, match=message):
        build().model_inputs(batch)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"context": 0.5}, "context = 0.5; use 1 or more"),
        ({"context": 1.3}, "config.model.context: .*use windows of 60 or 70"),
        ({"value": "both"}, "'both'; use one of context, local"),
        ({"width": 0}, "width = 0; use 1 or more"),
    ],
)
def test_a_config_that_cannot_work_says_what_is_allowed(model, message):
    with pytest.raises(InputError, match=message):
        build(**model)


def test_imagenet_weights_are_refused():
    method = build()
    with pytest.raises(InputError, match="no ImageNet part"):
        method.import_backbone(method.shapes(), {})
