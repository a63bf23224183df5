"""Training: one loop, compiled once, resumable bit for bit."""

from __future__ import annotations

import contextlib
import functools
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from uhrjax import (
    checkpoint,
    errors,
    host_memory,
    initialize,
    optimizer,
    report,
    sharding,
)
from uhrjax import (
    config as config_lib,
)
from uhrjax.data import augment, dataset, pipeline
from uhrjax.methods import base

Losses = dict[str, jax.Array]
Step = Callable[[checkpoint.TrainState, Any], tuple[checkpoint.TrainState, Losses]]


def train(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    workdir: pathlib.Path,
    evaluate: Callable[[Any], dict[str, float]],
) -> bool:
    """Trains a method, or goes on with the run that `workdir` holds.

    Args:
        config: the recipe.
        method: built from it.
        data: the prepared data set.
        workdir: the run's folder: checkpoints, metrics.jsonl, config.json.
        evaluate: variables -> scores with `miou`, on the validation split.

    Returns:
        True when all steps are done, False after SIGTERM asked to stop earlier.

    Raises:
        errors.InputError: the folder holds another recipe's run, or a batch that the
            devices cannot share.
        errors.Diverged: the loss is no longer a number.
    """
    host_memory.keep_freed_arrays()
    mesh = sharding.make_mesh()
    sharding.check_batch(config.batch_size // config.accumulate, mesh)
    stream, samples = _open_stream(config, method, data)
    epoch_steps = max(samples // config.batch_size, 1)
    total = config.epochs * epoch_steps
    total = min(total, config.max_steps or total)
    schedule = optimizer.poly_schedule(
        config, total_steps=total, epoch_steps=epoch_steps
    )
    optimize = optimizer.make_optimizer(config, schedule)

    state = _start_state(config, method, optimize, mesh)
    meta = {
        "config": config_lib.to_json(config),
        "data": data.info.name,
        "classes": list(data.info.classes),
        "colours": [list(colour) for colour in data.info.colours],
        "split_hash": data.info.split_hash,
    }
    step_fn = make_step(method, optimize, config, mesh)
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(checkpoint.CheckpointStore(workdir))
        if store.latest is not None:
            _check_same_run(store.meta(store.latest), meta, workdir)
            state = store.restore(store.latest, state)
            print(f"resumed from {store.path(store.latest)}")
        first = int(state.step)
        batches = pipeline.train_batches(
            stream,
            transform=augment.Augment(
                tile=config.tile, **config.data.augment.to_dict()
            ),
            targets=method.targets,
            batch_size=config.batch_size,
            start_step=first,
            threads=config.data.threads,
            process=(jax.process_index(), jax.process_count()),
        )
        log = stack.enter_context(report.MetricLog(workdir, resume_step=first))
        stop = stack.enter_context(_StopRequest())
        bar = stack.enter_context(report.progress("train", "step", total, first))
        pending: list[Losses] = []
        waited, since = 0.0, time.perf_counter()
        for step in range(first, total):
            asked = time.perf_counter()
            batch = sharding.put_batch(
                next(batches), mesh, accumulate=config.accumulate
            )
            waited += time.perf_counter() - asked
            state, losses = step_fn(state, batch)
            pending.append(losses)
            bar.update()
            done = step + 1
            is_eval = done % (config.eval.every * epoch_steps) == 0 or done == total
            stopping = stop.requested  # once: the signal may come at any line
            is_save = is_eval or stopping or done % config.checkpoint_every == 0

            if is_save or done % config.log_every == 0:
                means = _mean_losses(pending, range(done - len(pending), done), store)
                seconds = time.perf_counter() - since
                means["learning_rate"] = float(schedule(jnp.int32(step)))
                means["patches_per_s"] = len(pending) * config.batch_size / seconds
                means["data_wait_share"] = waited / seconds
                log.write(done, "train", means)
                bar.set_postfix_str(report.postfix(means))
                pending = []
                waited, since = 0.0, time.perf_counter()
            if is_save:
                miou = None
                if is_eval and not stopping:
                    found = evaluate(variables(state))
                    miou = found["miou"]
                    log.write(done, config.data.val_split, found)
                    bar.write(f"step {done}: {report.sentence(found)}")
                store.save(state, meta, miou)
                waited, since = 0.0, time.perf_counter()
            if stopping:
                bar.write(f"asked to stop: saved step {done}; the same command goes on")
                return False
    return True


def variables(state: checkpoint.TrainState) -> dict[str, Any]:
    """Returns what `method.apply` takes."""
    return {"params": state.params, "batch_stats": state.batch_stats}


def make_step(
    method: base.Method,
    optimize: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    mesh: jax.sharding.Mesh,
) -> Step:
    """Returns the compiled (state, batch) -> (state, losses); it consumes the state.

    With `config.accumulate` = A > 1 the batch's arrays are [A, B / A, ...] and the step
    uses the mean or the sum of the A gradients.
    """
    root, count = jax.random.key(config.seed), config.accumulate
    gradient = jax.grad(functools.partial(_loss, method), has_aux=True)

    def accumulated(
        state: checkpoint.TrainState, batch: Any, key: jax.Array
    ) -> tuple[Any, tuple[Any, Losses]]:
        def add(carry: Any, inputs: Any) -> tuple[Any, Losses]:
            batch_stats, total = carry
            micro, index = inputs
            grads, (batch_stats, losses) = gradient(
                state.params, batch_stats, micro, jax.random.fold_in(key, index)
            )
            return (batch_stats, jax.tree.map(jnp.add, total, grads)), losses

        zeros = jax.tree.map(jnp.zeros_like, state.params)
        (batch_stats, grads), losses = jax.lax.scan(
            add, (state.batch_stats, zeros), (batch, jnp.arange(count))
        )
        if config.accumulate_how == "mean":
            grads = jax.tree.map(lambda g: g / count, grads)
        return grads, (batch_stats, jax.tree.map(jnp.mean, losses))

    def step(
        state: checkpoint.TrainState, batch: Any
    ) -> tuple[checkpoint.TrainState, Losses]:
        key = jax.random.fold_in(root, state.step)
        if count > 1:
            grads, (batch_stats, losses) = accumulated(state, batch, key)
        else:
            grads, (batch_stats, losses) = gradient(
                state.params, state.batch_stats, batch, key
            )
        losses = {**losses, "grad_norm": optax.global_norm(grads)}
        updates, opt_state = optimize.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return checkpoint.TrainState(
            state.step + 1, params, batch_stats, opt_state
        ), losses

    # Fixed layouts in and out: the second step finds what the first one left.
    everywhere = sharding.replicated(mesh)
    return jax.jit(step, donate_argnums=0, out_shardings=everywhere)


def _loss(
    method: base.Method, params: Any, batch_stats: Any, batch: Any, key: jax.Array
) -> tuple[jax.Array, tuple[Any, Losses]]:
    given = {"params": params, "batch_stats": batch_stats}
    outputs, batch_stats = method.apply(given, batch, train=True, key=key)
    losses = method.loss(outputs, batch)
    return losses["total"], (batch_stats, losses)


def _open_stream(
    config: ml_collections.ConfigDict, method: base.Method, data: dataset.Dataset
) -> tuple[Any, int]:
    """Returns endless shuffled samples and how many make an epoch."""
    split = config.data.train_split
    if config.data.layout == "patches":
        source = data.open_patches(split)
        return pipeline.patch_dataset(source, config.seed), len(source)
    windows = pipeline.RandomWindows(
        data.open_scenes(split), tile=config.tile, views=method.views
    )
    return pipeline.window_dataset(windows, config.seed), int(windows.counts().sum())


def _start_state(
    config: ml_collections.ConfigDict,
    method: base.Method,
    optimize: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> checkpoint.TrainState:
    """Returns fresh or imported weights, copied to every device."""
    start = initialize.start_variables(config, method)
    state = checkpoint.TrainState(
        step=jnp.int32(0),
        params=start["params"],
        batch_stats=start.get("batch_stats", {}),
        opt_state=optimize.init(start["params"]),
    )
    return jax.device_put(state, sharding.replicated(mesh))


def _check_same_run(
    saved: dict[str, Any], meta: dict[str, Any], workdir: pathlib.Path
) -> None:
    changed = config_lib.differences(saved["config"], meta["config"])
    changed += [
        f"{key}: {saved[key]!r} -> {meta[key]!r}"
        for key in ("data", "classes", "split_hash")
        if saved[key] != meta[key]
    ]
    if changed:
        raise errors.InputError(
            f"{workdir} holds a run of another recipe ({'; '.join(changed)}); give "
            "this one its own --workdir, or delete that folder to start again"
        )


def _mean_losses(
    pending: list[Losses], steps: range, store: checkpoint.CheckpointStore
) -> dict[str, float]:
    """Waits for the last steps and returns the mean of their losses."""
    rows = jax.device_get(pending)
    means = {
        name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0]
    }
    bad = [
        step + 1
        for step, row in zip(steps, rows, strict=True)
        if not all(math.isfinite(float(value)) for value in row.values())
    ]
    if bad:
        kept = store.latest
        raise errors.Diverged(
            f"the loss stopped being a number at step {bad[0]} (steps "
            f"{steps.start + 1} to {steps.stop} were looked at); "
            + (
                f"the checkpoint of step {kept} is good"
                if kept is not None
                else "nothing was saved"
            )
            + "; lower config.learning_rate, or use dtype float32, and start again in "
            "another --workdir"
        )
    return means


class _StopRequest:
    """SIGTERM (a scheduler's notice) asks for a checkpoint and a clean end."""

    def __init__(self) -> None:
        self.requested = False
        self._before: Any = None

    def __enter__(self) -> _StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: Any) -> None:
        self.requested = True
