"""The training step: gradients and their use, compiled once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax

from uhrjax import checkpoint, sharding, subtree
from uhrjax.methods import base

Losses = dict[str, jax.Array]


class _Sums(NamedTuple):
    """What micro-batches add up to."""

    batch_stats: Any
    gradients: Any
    losses: Losses


class Update:
    """(state, micro-batches) -> (state, losses); it consumes the state.

    A step of one micro-batch is one program. With several, each adds its gradient in a
    program of its own, so that a step may be as large as it likes: only one micro-batch
    is on the device at a time. Frozen weights get neither gradient nor decay.
    """

    def __init__(
        self,
        method: base.Method,
        optimize: optax.GradientTransformation,
        config: ml_collections.ConfigDict,
        mesh: jax.sharding.Mesh,
    ):
        """Compiles nothing yet.

        Args:
            method: whose loss is minimised.
            optimize: initialised with the trainable weights (`trainable`).
            config: seed, accumulate, accumulate_how, data.unit.
            mesh: over all devices.
        """
        self._method, self._optimize, self._mesh = method, optimize, mesh
        self._root = jax.random.key(config.seed)
        self._mean = config.accumulate_how == "mean"
        self._several = config.accumulate > 1 or config.data.unit == "scenes"
        # Fixed layouts in and out: the second step finds what the first one left.
        everywhere = sharding.replicated(mesh)
        self._step = jax.jit(self._at_once, donate_argnums=0, out_shardings=everywhere)
        self._open = jax.jit(self._zeros, out_shardings=everywhere)
        self._add = jax.jit(self._one_more, donate_argnums=0, out_shardings=everywhere)
        self._close = jax.jit(self._use, donate_argnums=0, out_shardings=everywhere)

    def __call__(
        self, state: checkpoint.TrainState, micros: Iterable[Mapping[str, Any]]
    ) -> tuple[checkpoint.TrainState, Losses]:
        """Takes one step.

        Args:
            state: gone afterwards.
            micros: this process's share of each micro-batch, on the host.

        Returns:
            The new state and the mean losses, with the norm of the gradient.
        """
        placed = (sharding.put_batch(micro, self._mesh) for micro in micros)
        with sharding.rows_shared(self._mesh):
            if not self._several:
                (batch,) = placed
                return self._step(state, batch)
            sums, count = self._open(state, first := next(placed)), 0
            for batch in _again(first, placed):
                sums = self._add(sums, state.params, state.step, count, batch)
                count += 1
            return self._close(state, sums, count)

    def lower(
        self, state: checkpoint.TrainState, micro: Mapping[str, Any]
    ) -> dict[str, jax.stages.Lowered]:
        """Returns the programs of a step, not compiled yet; nothing is run."""
        batch = sharding.put_batch(micro, self._mesh)
        with sharding.rows_shared(self._mesh):
            if not self._several:
                return {"step": self._step.lower(state, batch)}
            everywhere = sharding.replicated(self._mesh)
            sums = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(
                    leaf.shape, leaf.dtype, sharding=everywhere
                ),
                jax.eval_shape(self._zeros, state, batch),
            )
            return {
                "open": self._open.lower(state, batch),
                "add": self._add.lower(sums, state.params, state.step, 0, batch),
                "close": self._close.lower(state, sums, 1),
            }

    def gradient(
        self, params: Any, batch_stats: Any, batch: Any, key: jax.Array
    ) -> tuple[Any, Any, Losses]:
        """Returns the gradient of a micro-batch, the new statistics and the losses."""
        free, frozen = subtree.split(params, self._method.frozen)

        def loss(free: Any) -> tuple[jax.Array, tuple[Any, Losses]]:
            given = {"params": subtree.merge(free, frozen), "batch_stats": batch_stats}
            outputs, stats = self._method.apply(given, batch, train=True, key=key)
            losses = self._method.loss(outputs, batch)
            return losses["total"], (stats, losses)

        gradients, (stats, losses) = jax.grad(loss, has_aux=True)(free)
        return gradients, stats, losses

    def _advance(
        self, state: checkpoint.TrainState, gradients: Any, batch_stats: Any
    ) -> checkpoint.TrainState:
        free, frozen = subtree.split(state.params, self._method.frozen)
        updates, opt_state = self._optimize.update(gradients, state.opt_state, free)
        params = subtree.merge(optax.apply_updates(free, updates), frozen)
        return checkpoint.TrainState(state.step + 1, params, batch_stats, opt_state)

    def _at_once(
        self, state: checkpoint.TrainState, batch: Any
    ) -> tuple[checkpoint.TrainState, Losses]:
        key = jax.random.fold_in(self._root, state.step)
        gradients, stats, losses = self.gradient(
            state.params, state.batch_stats, batch, key
        )
        losses = {**losses, "grad_norm": optax.global_norm(gradients)}
        return self._advance(state, gradients, stats), losses

    def _zeros(self, state: checkpoint.TrainState, batch: Any) -> _Sums:
        """Returns sums of nothing, with the statistics as they are."""
        shapes = jax.eval_shape(
            self.gradient, state.params, state.batch_stats, batch, self._root
        )
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        # A copy: the sums are given away while the state is still needed.
        stats = jax.tree.map(jnp.copy, state.batch_stats)
        return _Sums(stats, zeros[0], zeros[2])

    def _one_more(
        self, sums: _Sums, params: Any, step: jax.Array, index: jax.Array, batch: Any
    ) -> _Sums:
        key = jax.random.fold_in(jax.random.fold_in(self._root, step), index)
        gradients, stats, losses = self.gradient(params, sums.batch_stats, batch, key)
        added = jax.tree.map(jnp.add, sums[1:], (gradients, losses))
        return _Sums(stats, *added)

    def _use(
        self, state: checkpoint.TrainState, sums: _Sums, count: jax.Array
    ) -> tuple[checkpoint.TrainState, Losses]:
        gradients = sums.gradients
        if self._mean:
            gradients = jax.tree.map(lambda leaf: leaf / count, gradients)
        losses = jax.tree.map(lambda leaf: leaf / count, sums.losses)
        losses["grad_norm"] = optax.global_norm(gradients)
        return self._advance(state, gradients, sums.batch_stats), losses


def trainable(method: base.Method, params: Any) -> Any:
    """Returns the weights that training moves."""
    return subtree.split(params, method.frozen)[0]


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
