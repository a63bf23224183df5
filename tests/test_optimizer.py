import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from uhrjax import optimizer


def recipe(**changes):
    config = ml_collections.ConfigDict(
        {
            "learning_rate": 0.1,
            "schedule": {
                "power": 0.9, "per": "epoch", "offset": 0, "begin": 0.0, "drops": (),
                "warmup": 0.0,
            },
            "optimizer": {
                "name": "sgd", "momentum": 0.9, "b1": 0.9, "b2": 0.999,
                "weight_decay": 0.01, "decay": "all",
            },
        }
    )  # fmt: skip
    config.update_from_flattened_dict(changes)
    return config


def rates(config, steps, epoch):
    schedule = optimizer.poly_schedule(config, total_steps=steps, epoch_steps=epoch)
    return np.array([schedule(jnp.int32(t)) for t in range(steps)])


def test_poly_per_epoch_is_constant_within_one():
    found = rates(recipe(), 12, 3)
    expected = 0.1 * (1 - np.arange(12) // 3 / 4) ** 0.9
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_poly_offset_one_ends_with_an_epoch_at_rate_zero():
    found = rates(recipe(**{"schedule.offset": 1}), 12, 3)
    np.testing.assert_allclose(found[:3], 0.1 * 0.75**0.9, rtol=1e-6)
    assert (found[-3:] == 0).all()


def test_poly_per_step_is_exact_near_the_end():
    found = rates(recipe(**{"schedule.per": "step"}), 30000, 1)[-1]
    np.testing.assert_allclose(found, 0.1 * (1 / 30000) ** 0.9, rtol=1e-6)


@pytest.mark.parametrize("decay", ["all", "conv"])
def test_sgd_adds_decay_to_the_gradient_before_momentum(decay):
    config = recipe(**{"optimizer.decay": decay})
    optimize = optimizer.make_optimizer(config, lambda step: 0.1)
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    state = optimize.init(params)
    expected = {name: [1.0, 0.0] for name in params}  # weight, momentum, as torch's SGD
    for _ in range(3):
        grads = {"kernel": jnp.full((1, 1), 2.0), "bias": jnp.full(1, 2.0)}
        updates, state = optimize.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, (weight, momentum) in expected.items():
            rate = 0.01 if decay == "all" or name == "kernel" else 0.0
            momentum = 0.9 * momentum + 2.0 + rate * weight
            expected[name] = [weight - 0.1 * momentum, momentum]
    for name, (weight, _) in expected.items():
        np.testing.assert_allclose(np.ravel(params[name]), weight, rtol=1e-6)


def test_adam_couples_its_decay():
    optimize = optimizer.make_optimizer(
        recipe(**{"optimizer.name": "adam"}), lambda step: 0.1
    )
    params = {"kernel": jnp.full((1, 1), 3.0)}
    updates, _ = optimize.update(
        {"kernel": jnp.zeros((1, 1))}, optimize.init(params), params
    )
    # Adam's first step has the size of the rate, whatever the gradient: here the L2.
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-4)


def test_poly_begun_half_way_is_the_second_half_of_twice_as_many_steps():
    found = rates(recipe(**{"schedule.per": "step", "schedule.begin": 0.5}), 50, 1)
    whole = rates(recipe(**{"schedule.per": "step"}), 100, 1)
    np.testing.assert_allclose(found, whole[50:], rtol=1e-5)
    assert found[0] == pytest.approx(0.1 * 0.5**0.9)  # FCtL's code: 2.68e-5 of 5e-5


@pytest.mark.parametrize("drops", [(), (0.8,)])
def test_warmup_rises_linearly_and_then_leaves_the_schedule_alone(drops):
    changes = {"schedule.per": "step", "schedule.drops": drops}
    plain = rates(recipe(**changes), 20, 1)
    found = rates(recipe(**changes, **{"schedule.warmup": 0.25}), 20, 1)
    shares = np.minimum(np.arange(1, 21) / 5, 1)
    np.testing.assert_allclose(found, plain * shares, rtol=1e-6)


def test_drops_divide_the_rate_by_ten_each():
    found = rates(recipe(**{"schedule.drops": (0.5, 0.9)}), 10, 1)
    np.testing.assert_allclose(found, 0.1 * np.repeat([1, 0.1, 0.01], [5, 4, 1]))
