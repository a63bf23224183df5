"""Rules for random parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.nn import conv, initial


def shapes(**params):
    tree = {
        name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in params.items()
    }
    return {"params": {"part": tree}}


def draw(rules, **params):
    drawn = initial.draw(shapes(**params), jax.random.key(0), rules=rules)
    return drawn["params"]["part"]


def test_the_first_rule_that_matches_a_path_decides():
    rules = [("part/kernel$", "normal 0.5"), ("kernel$", "constant 7")]
    assert np.std(draw(rules, kernel=(1, 1, 50, 50))["kernel"]) == pytest.approx(
        0.5, rel=0.05
    )
    assert (draw(rules[::-1], kernel=(1, 1, 50, 50))["kernel"] == 7).all()


@pytest.mark.parametrize(
    ("kind", "std"), [("he_in", (2 / 90) ** 0.5), ("he_out", (2 / 900) ** 0.5)]
)
def test_he_rules_count_the_fan_in_or_out(kind, std):
    kernel = draw([(".", kind)], kernel=(3, 3, 10, 100))["kernel"]
    assert np.std(kernel) == pytest.approx(std, rel=0.05)


def test_centred_kernels_ignore_the_mean_and_keep_the_variance_behind_relu():
    drawn = draw([(".", "centred")], kernel=(1, 1, 200, 300))
    kernel = np.array(drawn["kernel"][0, 0])
    np.testing.assert_allclose(kernel.sum(0), 0, atol=1e-5)
    shape = (1, 1, 200, 300)
    declared = np.array(conv.centred_init(jax.random.key(0), shape, jnp.float32))
    np.testing.assert_allclose(declared.sum((0, 1, 2)), 0, atol=1e-5)
    assert np.std(declared) == pytest.approx(np.std(kernel), rel=0.02)
    x = np.maximum(np.random.default_rng(0).normal(size=(1000, 200)), 0)
    assert np.std((x + 5) @ kernel) == pytest.approx(1, rel=0.05)


def test_a_bias_knows_the_kernel_beside_it():
    drawn = draw((), kernel=(1, 1, 25, 500), bias=(500,))
    assert 0.19 < abs(drawn["bias"]).max() <= 0.2
    zero = draw([("bias$", "constant 0")], kernel=(1, 1, 25, 500), bias=(500,))
    assert not zero["bias"].any() and zero["kernel"].any()


def test_a_parameter_without_a_rule_says_which_kinds_there_are():
    with pytest.raises(ValueError, match=r"params/part/gamma.*constant <value>"):
        draw((), gamma=(1,))
    assert draw([("gamma$", "constant 0.5")], gamma=(1,))["gamma"] == 0.5
