"""Point flow against a pixel-by-pixel restatement in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from uhrjax.nn import initial, point_flow


def run(x_high, x_low, *, train=False, **fields):
    """Returns (flow, variables) of a randomly initialised module."""
    module = point_flow.PointFlow(
        **{"reduce_dim": 4, "edge_points": 5, "maxpool_size": 3, "avgpool_size": 2}
        | fields
    )
    shapes = jax.eval_shape(
        lambda *maps: module.init(jax.random.key(0), *maps, train=False), x_high, x_low
    )
    variables = initial.draw(shapes, jax.random.key(3))
    rngs = {"dropout": jax.random.key(4)}

    def apply(*args):
        if not train:
            return module.apply(*args, train=False)
        return module.apply(*args, train=True, rngs=rngs, mutable="batch_stats")[0]

    flow = jax.jit(apply)(variables, x_high, x_low)
    return flow, variables


def random_maps(ratio, *, batch=2, size=(4, 6), channels=8):
    rng = np.random.default_rng(ratio)
    height, width = size
    high = rng.normal(size=(batch, height, width, channels))
    low = rng.normal(size=(batch, ratio * height, ratio * width, channels))
    return jnp.asarray(high, jnp.float32), jnp.asarray(low, jnp.float32)


def attend(kept, sent):
    scores = kept @ sent.T
    weight = np.exp(scores - scores.max(1, keepdims=True))
    return kept + weight / weight.sum(1, keepdims=True) @ sent


@pytest.mark.parametrize("onto_fine", [True, False])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_boundary_points_read_block_centres_and_write_top_left(ratio, onto_fine):
    x_high, x_low = random_maps(ratio)
    flow, _ = run(x_high, x_low, salient="none", onto_fine=onto_fine)
    expected = np.array(x_low if onto_fine else x_high)
    taps = {(ratio - 1) // 2, ratio // 2}
    for image in range(2):
        edge = np.array(flow.edge[image, ..., 0])
        chosen = np.argsort(-edge.ravel())[:5]
        assert set(chosen) == set(np.array(flow.boundary[image]))
        pixels = [divmod(int(q), 6) for q in chosen]
        high = np.array([x_high[image, y, x] for y, x in pixels])
        low = np.array(
            [
                np.mean(
                    [
                        x_low[image, y * ratio + dy, x * ratio + dx]
                        for dy in taps
                        for dx in taps
                    ],
                    axis=0,
                )
                for y, x in pixels
            ]
        )
        new = attend(low, high) if onto_fine else attend(high, low)
        step = ratio if onto_fine else 1
        for (y, x), value in zip(pixels, new, strict=True):
            expected[image, y * step, x * step] = value
    np.testing.assert_allclose(flow.features, expected, atol=2e-5)


@pytest.mark.parametrize("salient", ["max_pool", "attention", "uniform"])
def test_salient_points_overwrite_only_their_own_pixels(salient):
    x_high, x_low = random_maps(2, size=(8, 9))
    flow, _ = run(x_high, x_low, salient=salient, boundary=False)
    assert flow.edge is None and flow.boundary is None
    changed = np.array((flow.features != x_low).any(-1))
    for image in range(2):
        rows, columns = np.divmod(np.unique(flow.salient[image]), 9)
        expected = np.zeros_like(changed[image])
        expected[rows * 2, columns * 2] = True
        np.testing.assert_array_equal(changed[image], expected)


def test_salient_points_win_over_boundary_points():
    x_high, x_low = random_maps(2)
    every = {"edge_points": 24, "maxpool_size": 6}  # all pixels are both
    both, variables = run(x_high, x_low, **every)
    module = point_flow.PointFlow(reduce_dim=4, boundary=False, maxpool_size=6)
    alone = module.apply(variables, x_high, x_low, train=False)
    meeting = np.unique(both.salient[0])
    rows, columns = np.divmod(meeting, 6)
    np.testing.assert_array_equal(
        both.features[0, rows * 2, columns * 2],
        alone.features[0, rows * 2, columns * 2],
    )


def test_uniform_points_are_one_per_cell_fixed_in_evaluation_random_in_training():
    x_high, x_low = random_maps(1, size=(9, 16))
    fields = {"salient": "uniform", "boundary": False}
    index = np.array(run(x_high, x_low, **fields)[0].salient)
    cells = {(q // 16 // 7, q % 16 // 7) for q in index[0]}
    assert len(cells) == index.shape[1] == 2 * 3
    again = run(x_high, x_low, **fields)[0].salient
    np.testing.assert_array_equal(index, again)
    drawn = run(x_high, x_low, train=True, **fields)[0].salient
    assert (np.array(drawn) != index).any()


def test_attention_takes_the_most_salient_pixels():
    x_high, x_low = random_maps(1, size=(16, 16))
    flow, _ = run(x_high, x_low, salient="attention", boundary=False)
    assert flow.salient.shape == (2, point_flow.ATTENTION_POINTS)
    assert len(np.unique(flow.salient[0])) == point_flow.ATTENTION_POINTS


def test_parts_that_are_switched_off_have_no_parameters():
    x_high, x_low = random_maps(2)

    def parts(**fields):
        return set(run(x_high, x_low, **fields)[1]["params"])

    saliency = {"compress_high", "compress_low", "saliency"}
    edge = {"edge_features", "edge"}
    assert parts() == saliency | edge
    assert parts(boundary=False) == saliency
    assert parts(salient="none") == saliency | edge
    assert parts(salient="none", edge_prediction="direct") == edge


def test_a_batch_equals_its_single_images():
    x_high, x_low = random_maps(2)
    both, _ = run(x_high, x_low)
    for image in range(2):
        one, _ = run(x_high[image : image + 1], x_low[image : image + 1])
        np.testing.assert_array_equal(both.boundary[image], one.boundary[0])
        np.testing.assert_allclose(both.features[image], one.features[0], atol=1e-5)


def test_maps_without_a_whole_ratio_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        run(jnp.zeros((1, 4, 4, 8)), jnp.zeros((1, 9, 8, 8)))
