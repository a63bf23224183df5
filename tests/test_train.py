"""The training step alone, on a method small enough to compute by hand."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from uhrjax import checkpoint, sharding, train


class Line:
    """A method of two weights: logits = a * views + b, squared error."""

    def apply(self, variables, batch, *, train, key):
        p = variables["params"]
        return p["a"] * batch["views"] + p["b"], variables["batch_stats"]

    def loss(self, outputs, batch):
        return {"total": jnp.mean((outputs - batch["label"]) ** 2)}


def one_step(accumulate, how):
    config = ml_collections.ConfigDict(
        {"seed": 0, "accumulate": accumulate, "accumulate_how": how}
    )
    mesh, optimize = sharding.make_mesh(), optax.sgd(0.1)
    params = {"a": jnp.float32(1.0), "b": jnp.float32(0.0)}
    state = checkpoint.TrainState(jnp.int32(0), params, {}, optimize.init(params))
    state = jax.device_put(state, sharding.replicated(mesh))
    batch = {"views": np.arange(8.0, dtype=np.float32)}
    batch["label"] = 3 * batch["views"] + 1
    placed = sharding.put_batch(batch, mesh, accumulate=accumulate)
    step = train.make_step(Line(), optimize, config, mesh)
    state, losses = step(state, placed)
    assert int(state.step) == 1
    return {k: float(v) for k, v in state.params.items()}, float(losses["total"])


def test_mean_of_micro_batches_equals_the_whole_batch():
    whole, loss = one_step(1, "mean")
    parts, part_loss = one_step(4, "mean")
    assert parts == pytest.approx(whole) and part_loss == pytest.approx(loss)
    assert whole["a"] == pytest.approx(1 - 0.1 * np.mean(2 * -(2 * np.arange(8) + 1)
                                                         * np.arange(8)))  # fmt: skip


def test_sum_of_micro_batches_is_their_number_times_the_mean():
    whole, _ = one_step(1, "mean")
    parts, _ = one_step(4, "sum")
    assert parts["a"] - 1 == pytest.approx(4 * (whole["a"] - 1))
