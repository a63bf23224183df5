"""The training step alone, on a method small enough to compute by hand."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from uhrjax import checkpoint, sharding, update


class Line:
    """A method of two weights: logits = a * views + b, squared error."""

    frozen = ()

    def apply(self, variables, batch, *, train, key):
        p = variables["params"]
        return p["a"] * batch["views"] + p["b"], variables["batch_stats"]

    def loss(self, outputs, batch):
        return {"total": jnp.mean((outputs - batch["label"]) ** 2)}


def one_step(accumulate, how):
    config = ml_collections.ConfigDict(
        {"seed": 0, "accumulate": accumulate, "accumulate_how": how}
    )
    config.data = ml_collections.ConfigDict({"unit": "patches"})
    mesh, optimize = sharding.make_mesh(), optax.sgd(0.1)
    params = {"a": jnp.float32(1.0), "b": jnp.float32(0.0)}
    state = checkpoint.TrainState(jnp.int32(0), params, {}, optimize.init(params))
    state = jax.device_put(state, sharding.replicated(mesh))
    batch = {"views": np.arange(8.0, dtype=np.float32)}
    batch["label"] = 3 * batch["views"] + 1
    parts = zip(*(np.split(v, accumulate) for v in batch.values()), strict=True)
    micros = [dict(zip(("views", "label"), part, strict=True)) for part in parts]
    step = update.Update(Line(), optimize, config, mesh)
    state, losses = step(state, micros)
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


class HalfFrozen(Line):
    frozen = ("b",)


def test_frozen_weights_stay_as_they_are_even_with_decay():
    config = ml_collections.ConfigDict(
        {"seed": 0, "accumulate": 1, "accumulate_how": "mean"}
    )
    config.data = ml_collections.ConfigDict({"unit": "scenes"})
    mesh, method = sharding.make_mesh(), HalfFrozen()
    optimize = optax.chain(optax.add_decayed_weights(0.1), optax.adam(0.1))
    params = {"a": jnp.float32(1.0), "b": jnp.float32(0.5)}
    moments = optimize.init(update.trainable(method, params))
    state = checkpoint.TrainState(jnp.int32(0), params, {}, moments)
    step = update.Update(method, optimize, config, mesh)
    micro = {"views": np.ones(8, np.float32), "label": np.zeros(8, np.float32)}
    for _ in range(3):
        state, _ = step(state, [micro] * 2)
    assert float(state.params["b"]) == 0.5 and float(state.params["a"]) < 0.8
