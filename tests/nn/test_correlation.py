"""Attention in pieces, gammas, and the ways to weigh contexts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.nn import correlation, initial


def random(*shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def dense(query, key, value):
    attention = jax.nn.softmax(jnp.einsum("bic,bjc->bij", query, key), axis=-1)
    return jnp.einsum("bij,bjc->bic", attention, value)


@pytest.mark.parametrize("queries", [1, 4, 7, 19, 100])
@pytest.mark.parametrize("shared", [False, True])
def test_attention_in_pieces_equals_the_whole_with_its_gradient(queries, shared):
    count = 1 if shared else 3
    given = (random(3, 19, 4), random(count, 11, 4, seed=1), random(count, 11, 4))

    def pieces(q, k, v):
        return correlation.attend(q, k, v, queries=queries)

    def whole(q, k, v):
        return dense(q, *(jnp.broadcast_to(x, (3, 11, 4)) for x in (k, v)))

    np.testing.assert_allclose(pieces(*given), whole(*given), atol=1e-5)
    gradients = [
        jax.grad(lambda *g, f=f: jnp.sum(f(*g) ** 2), argnums=(0, 1, 2))(*given)
        for f in (pieces, whole)
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *gradients)


def largest_array(jaxpr):
    """Elements of the largest array in a program, whatever it is nested in."""
    sizes = [0]
    for equation in jaxpr.eqns:
        sizes += [v.aval.size for v in equation.outvars]
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                sizes.append(largest_array(inner))
    return max(sizes)


@pytest.mark.parametrize("context", [1, 2])
def test_no_attention_map_exists_as_a_whole_not_even_backward(context):
    net = correlation.Correlation(dtype=jnp.bfloat16)
    x, y = random(2, 23, 23, 4), random(context, 23, 23, 4)
    variables = net.init(jax.random.key(0), x, y)
    program = jax.make_jaxpr(
        jax.grad(lambda v: net.apply(v, x, y)[0].astype(jnp.float32).sum())
    )(variables)
    assert largest_array(program.jaxpr) < 2 * 529 * 529 / 3


def test_gamma_0_returns_the_patch_and_gamma_1_does_not():
    x, contexts = random(2, 3, 4, 8), [random(2, 5, 2, 8), random(1, 3, 4, 8)]
    for gamma in (0.0, 1.0):
        net = correlation.ContextFusion(gamma_init=gamma)
        fused, _ = net.init_with_output(jax.random.key(0), x, contexts)
        assert (fused.features == x).all() == (gamma == 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("fusion", "spatial_only"),
    [
        ("adaptive", False),
        ("adaptive_paper", False),
        ("adaptive_paper", True),
        ("average", False),
        ("weighted", False),
    ],
)
def test_weights_sum_to_one_for_any_number_of_contexts(fusion, spatial_only, count):
    x = random(2, 3, 4, 6)
    sizes = ((2, 3, 4), (1, 3, 4), (2, 5, 2), (1, 1, 1))
    contexts = [random(*size, 6, seed=i) for i, size in enumerate(sizes[:count])]
    net = correlation.ContextFusion(
        fusion=fusion, spatial_only=spatial_only, gamma_init=2.0
    )
    variables = net.init(jax.random.key(0), x, contexts)
    grown = jax.tree.map(lambda leaf: leaf + 0.2, variables)
    fused = net.apply(grown, x, contexts, details=True)
    assert fused.features.shape == x.shape
    for attention, context in zip(fused.attention, contexts, strict=True):
        places = context.shape[1] * context.shape[2]
        assert attention.shape == (2, 12, places)
        np.testing.assert_allclose(attention.sum(-1), 1, atol=1e-5)
    if count == 1:
        assert fused.weights is None
        assert set(variables["params"]) == {"stream_0"}
        return
    assert fused.weights.shape == (count, 2, 3, 4, 6)
    np.testing.assert_allclose(fused.weights.sum(0), 1, atol=1e-5)
    same = fused.weights == fused.weights[..., :1]
    assert same.all() == (spatial_only or fusion in ("average", "weighted"))
    if fusion == "average":
        np.testing.assert_allclose(fused.weights, 1 / count)
    plain = net.apply(grown, x, contexts)
    assert plain.attention == () and plain.weights is None
    np.testing.assert_array_equal(plain.features, fused.features)


def test_adaptive_weights_of_three_stay_within_the_sigmoids_bounds():
    x = random(1, 3, 4, 6)
    net = correlation.ContextFusion(gamma_init=100.0)
    contexts = [x, random(1, 3, 4, 6, seed=1), random(1, 3, 4, 6, seed=2)]
    variables = net.init(jax.random.key(0), x, contexts)
    wild = jax.tree.map(lambda leaf: 100 * leaf, variables)
    weights = net.apply(wild, x, contexts, details=True).weights
    assert weights.min() >= 1 / (1 + 2 * np.e) - 1e-6
    assert weights.max() <= np.e / (np.e + 2) + 1e-6
    assert weights.max() - weights.min() > 0.3


def test_concat_mixes_patch_and_contexts_without_correlation():
    x = random(2, 3, 4, 6)
    net = correlation.ContextFusion(fusion="concat")
    contexts = [random(1, 3, 4, 6, seed=1), random(2, 3, 4, 6, seed=2)]
    fused, variables = net.init_with_output(jax.random.key(0), x, contexts)
    assert variables["params"]["fuse"]["kernel"].shape == (1, 1, 18, 6)
    assert set(variables["params"]) == {"fuse"} and fused.features.shape == x.shape


def test_local_values_come_from_the_patch_and_need_its_size():
    x, other = random(1, 3, 4, 6), random(1, 3, 4, 6, seed=1)
    net = correlation.Correlation(value="local", gamma_init=1.0)
    variables = net.init(jax.random.key(0), x, other)
    without_keys = jax.tree.map(jnp.asarray, variables)
    without_keys["params"]["key"]["kernel"] *= 0  # attends to all alike
    stream, _ = net.apply(without_keys, x, other)
    value = jnp.einsum("bhwc,cd->bhwd", x, variables["params"]["value"]["kernel"][0, 0])
    expected = jnp.broadcast_to(value.mean((1, 2), keepdims=True), x.shape)
    np.testing.assert_allclose(stream, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"patch's size \(3, 4\), not \(2, 2\)"):
        net.apply(variables, x, random(1, 2, 2, 6))


def test_softmax_is_float32_in_bfloat16_computation():
    x = random(1, 3, 4, 6)
    net = correlation.ContextFusion(dtype=jnp.bfloat16, gamma_init=1.0)
    fused, variables = net.init_with_output(
        jax.random.key(0), x, [x, x[:, :2]], details=True
    )
    assert fused.features.dtype == jnp.bfloat16
    assert fused.weights.dtype == fused.attention[0].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}


def test_host_numbers_have_the_distribution_the_module_declares():
    net = correlation.ContextFusion(gamma_init=0.25)
    x = random(1, 3, 4, 64)
    declared = net.init(jax.random.key(0), x, [x, x])
    wrapped = {"params": {"attention": declared["params"]}}
    rules = correlation.initial_rules("attention", gamma_init=0.25)
    drawn = initial.draw(wrapped, jax.random.key(0), rules=rules)
    for path, leaf in jax.tree_util.tree_leaves_with_path(drawn["params"]["attention"]):
        last = path[-1].key
        if last == "kernel":
            assert np.std(leaf) == pytest.approx(0.01, rel=0.1)
        else:
            assert (leaf == (0.25 if last == "gamma" else 0)).all()
    assert (declared["params"]["stream_1"]["gamma"] == 0.25).all()
