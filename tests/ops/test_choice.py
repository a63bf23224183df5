"""The estimators against the closed-form gradients, and where f is 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.ops import choice


@pytest.fixture
def z():
    return jax.random.normal(jax.random.key(0), (3, 5)) * 2


@pytest.fixture
def g():
    return jax.random.normal(jax.random.key(1), (3, 5))


def gradient(select, z, g):
    return jax.grad(lambda z: jnp.sum(select(z) * g))(z)


def centred(weights, g):
    return weights * (g - jnp.sum(weights * g, -1, keepdims=True))


def test_mean_has_the_gradient_of_a_softmax(z, g):
    f = jax.nn.softmax(z)
    np.testing.assert_allclose(choice.mean(z), f)
    np.testing.assert_allclose(gradient(choice.mean, z, g), centred(f, g), atol=1e-6)


def test_mode_chooses_one_and_has_both_closed_form_gradients(z, g):
    f = jax.nn.softmax(z)
    chosen = choice.mode(z)
    np.testing.assert_array_equal(chosen.argmax(-1), f.argmax(-1))
    np.testing.assert_array_equal(chosen.sum(-1), 1)
    copied = gradient(lambda z: choice.mode(z, "st"), z, g)
    np.testing.assert_allclose(copied, centred(f, g), atol=1e-6)
    divided = gradient(choice.mode, z, g)
    expected = g - f * g.sum(-1, keepdims=True)
    np.testing.assert_allclose(divided, expected, atol=1e-6)
    # The same through the probabilities, as long as none is 0.
    through = gradient(lambda z: choice.mode_of_probabilities(jax.nn.softmax(z)), z, g)
    np.testing.assert_allclose(through, divided, rtol=1e-4, atol=1e-5)


def test_mode_is_safe_where_a_probability_is_zero(g):
    z = jnp.array([[300.0, -300.0, 0.0, 0.0, 0.0]])
    found = gradient(choice.mode, z, g[:1])
    assert np.isfinite(found).all()
    expected = g[:1] - jnp.array([[1.0, 0, 0, 0, 0]]) * g[:1].sum()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    through = gradient(
        lambda z: choice.mode_of_probabilities(jax.nn.softmax(z)), z, g[:1]
    )
    assert not np.isfinite(through).all()


def test_the_first_of_equal_crops_is_chosen():
    np.testing.assert_array_equal(choice.mode(jnp.zeros(4)), [1, 0, 0, 0])
    one = choice.mode(jnp.array([0.0, 2.0, 2.0]))
    np.testing.assert_array_equal(one, [0, 1, 0])


@pytest.mark.parametrize("tau", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("hard", [False, True])
def test_gumbel_softmax_has_the_closed_form_gradient(z, g, tau, hard):
    noise = jax.random.gumbel(jax.random.key(2), z.shape)
    soft = jax.nn.softmax((jax.nn.log_softmax(z) + noise) / tau)
    weights = choice.gumbel(z, noise, tau, hard=hard)
    expected = choice.one_hot(soft) if hard else soft
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    found = gradient(lambda z: choice.gumbel(z, noise, tau, hard=hard), z, g)
    np.testing.assert_allclose(found, centred(soft, g) / tau, rtol=1e-4, atol=1e-5)


def test_samples_follow_the_distribution():
    z = jnp.array([0.0, 1.0, 2.0])
    noise = jax.random.gumbel(jax.random.key(3), (20000, 3))
    drawn, log_p = choice.sample(jnp.broadcast_to(z, noise.shape), noise)
    np.testing.assert_allclose(drawn.mean(0), jax.nn.softmax(z), atol=0.02)
    np.testing.assert_allclose(log_p, (drawn @ jax.nn.log_softmax(z)), atol=1e-6)


def test_reinforce_has_the_gradient_of_the_expected_loss():
    z, losses = jnp.array([0.3, -0.5, 1.0]), jnp.array([2.0, 0.5, 1.0])
    exact = jax.grad(lambda z: jax.nn.softmax(z) @ losses)(z)
    noise = jax.random.gumbel(jax.random.key(4), (40000, 3))

    def surrogate(z, baseline):
        drawn, log_p = choice.sample(jnp.broadcast_to(z, noise.shape), noise)
        return jnp.mean(choice.reinforce(drawn @ losses, log_p, baseline))

    for baseline in (0.0, 1.0):
        found = jax.grad(surrogate)(z, baseline)
        np.testing.assert_allclose(found, exact, atol=0.02)


def test_reinforce_leaves_the_losses_own_gradient_alone():
    def total(scale):
        return choice.reinforce(scale * 3.0, jnp.float32(-1.5), 1.0)

    assert jax.grad(total)(1.0) == 3.0


def test_the_temperature_falls_to_one_over_e_and_the_floor_needs_a_higher_rate():
    assert choice.temperature(0.0) == 1
    np.testing.assert_allclose(choice.temperature(1.0), np.exp(-1), rtol=1e-6)
    np.testing.assert_allclose(choice.temperature(1.0, rate=5.0), 0.1, rtol=1e-6)


def test_entropy_is_largest_where_nothing_is_decided():
    sure, unsure = choice.entropy(jnp.array([[50.0, 0, 0, 0], [0, 0, 0, 0]]))
    assert sure < 1e-6
    np.testing.assert_allclose(unsure, np.log(4), rtol=1e-6)
