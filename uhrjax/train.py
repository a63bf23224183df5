"""Training: one loop, compiled once, resumable bit for bit."""

from __future__ import annotations

import contextlib
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.experimental import multihost_utils

from uhrjax import (
    checkpoint,
    errors,
    feed,
    host_memory,
    hosts,
    initialize,
    optimizer,
    report,
    sharding,
    update,
)
from uhrjax import (
    config as config_lib,
)
from uhrjax.data import dataset
from uhrjax.methods import base


def train(
    config: ml_collections.ConfigDict,
    method: base.Method,
    data: dataset.Dataset,
    workdir: pathlib.Path,
    evaluate: Callable[[Any], dict[str, float]],
    starts: initialize.Starts = (),
    maps: pathlib.Path | None = None,
) -> bool:
    """Trains a method, or goes on with the run that `workdir` holds.

    Args:
        config: the recipe.
        method: built from it.
        data: the prepared data set.
        workdir: the run's folder: checkpoints, metrics.jsonl, config.json.
        evaluate: variables -> scores with `miou`, on the validation split.
        starts: subtrees of the weights that come from runs of earlier stages.
        maps: folder of label maps per split, for a network that refines them.

    Returns:
        True when all steps are done, False after SIGTERM asked to stop earlier.

    Raises:
        errors.InputError: the folder holds another recipe's run, or a batch that the
            devices cannot share.
        errors.Diverged: the loss is no longer a number.
    """
    host_memory.keep_freed_arrays()
    mesh = sharding.make_mesh(config_lib.space(config))
    source = feed.open_feed(config, method, data, mesh, maps)
    epoch_steps = source.epoch_steps
    total = feed.total_steps(config, epoch_steps)
    schedule = optimizer.poly_schedule(
        config, total_steps=total, epoch_steps=epoch_steps
    )
    optimize = optimizer.make_optimizer(config, schedule)

    state = _start_state(config, method, optimize, mesh, starts)
    meta = {
        "config": config_lib.to_json(config),
        "data": data.info.name,
        "classes": list(data.info.classes),
        "colours": [list(colour) for colour in data.info.colours],
        "split_hash": data.info.split_hash,
        "epoch_steps": epoch_steps,
    }
    take_step = update.Update(method, optimize, config, mesh)
    with contextlib.ExitStack() as stack:
        keep = [epoch * epoch_steps for epoch in config.keep_epochs]
        store = stack.enter_context(checkpoint.CheckpointStore(workdir, keep))
        if store.latest is not None:
            _check_same_run(store.meta(store.latest), meta, workdir)
            state = store.restore(store.latest, state)
            print(f"resumed from {store.path(store.latest)}")
        first = int(state.step)
        steps = source.steps(first)
        log = stack.enter_context(report.MetricLog(workdir, resume_step=first))
        stop = stack.enter_context(_StopRequest())
        bar = stack.enter_context(report.progress("train", "step", total, first))
        pending: list[update.Losses] = []
        clock = _Clock()
        for step in range(first, total):
            state, losses = take_step(state, clock.waiting(next(steps)))
            pending.append(losses)
            bar.update()
            done = step + 1
            is_eval = done % (config.eval.every * epoch_steps) == 0 or done == total
            stopping = stop.is_due(done)  # once: the signal may come at any line
            is_save = is_eval or stopping or done % config.checkpoint_every == 0
            is_save |= done in keep

            if is_save or done % config.log_every == 0:
                means = _mean_losses(pending, range(done - len(pending), done), store)
                means["learning_rate"] = float(schedule(jnp.int32(step)))
                means |= clock.rates() | _scalars(state.params)
                log.write(done, "train", means)
                bar.set_postfix_str(report.postfix(means))
                pending, clock = [], _Clock()
            if is_save:
                miou = None
                if is_eval and not stopping:
                    found = evaluate(variables(state))
                    miou = found["miou"]
                    log.write(done, config.data.val_split, found)
                    bar.write(f"step {done}: {report.sentence(found)}")
                store.save(state, meta, miou)
                clock = _Clock()
            if stopping:
                bar.write(f"asked to stop: saved step {done}; the same command goes on")
                return False
    return True


def variables(state: checkpoint.TrainState) -> dict[str, Any]:
    """Returns what `method.apply` takes, on the devices of this process."""
    return sharding.local({"params": state.params, "batch_stats": state.batch_stats})


def _start_state(
    config: ml_collections.ConfigDict,
    method: base.Method,
    optimize: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    starts: initialize.Starts,
) -> checkpoint.TrainState:
    """Returns fresh or imported weights, copied to every device."""
    start = initialize.start_variables(config, method, starts)
    state = checkpoint.TrainState(
        step=jnp.int32(0),
        params=start["params"],
        batch_stats=start.get("batch_stats", {}),
        opt_state=optimize.init(update.trainable(method, start["params"])),
    )
    return sharding.replicate(state, mesh)


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
    pending: list[update.Losses], steps: range, store: checkpoint.CheckpointStore
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


def _scalars(params: Any) -> dict[str, float]:
    """Returns weights that are one number, such as the factor of an attention."""
    found = jax.tree_util.tree_flatten_with_path(params)[0]
    return {
        "/".join(entry.key for entry in path): float(np.asarray(leaf).ravel()[0])
        for path, leaf in found
        if leaf.size == 1
    }


class _Clock:
    """Time between two log entries, and how much of it went into waiting for data."""

    def __init__(self) -> None:
        self._began, self._waited, self._samples = time.perf_counter(), 0.0, 0

    def waiting(self, micros: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Hands micro-batches through and counts them."""
        asked = time.perf_counter()
        for micro in micros:
            self._waited += time.perf_counter() - asked
            self._samples += feed.count_samples(micro)
            yield micro
            asked = time.perf_counter()

    def rates(self) -> dict[str, float]:
        """Returns the samples of this process per second, and the share of waiting."""
        seconds = time.perf_counter() - self._began
        return {
            "patches_per_s": self._samples * jax.process_count() / seconds,
            "data_wait_share": self._waited / seconds,
        }


class _StopRequest:
    """SIGTERM (a scheduler's notice) asks for a checkpoint and a clean end."""

    def __init__(self) -> None:
        self._requested = False
        self._before: Any = None

    def is_due(self, step: int) -> bool:
        """Whether to stop after this step; the same in all processes."""
        if hosts.is_one_of_several():  # JAX hears the signal, and they agree on a step
            return multihost_utils.reached_preemption_sync_point(step)
        return self._requested

    def __enter__(self) -> _StopRequest:
        if hosts.is_one_of_several():
            return self
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, *_: Any) -> None:
        self._requested = True
