"""Poly schedule, SGD and Adam with the papers' weight decay, as config fields."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax


def poly_schedule(
    config: ml_collections.ConfigDict, *, total_steps: int, epoch_steps: int
) -> optax.Schedule:
    """Returns step -> learning rate, `lr * ((1 - begin) * (T - t) / T) ** power`.

    t counts epochs (`schedule.per = "epoch"`: constant within one) or steps, plus
    `schedule.offset`; with offset 1 per epoch the last epoch trains at rate 0, as the
    PFNet repository does. `schedule.begin` is the share of the schedule that counts as
    passed: FCtL's code trains epochs 50 to 99 of 100, which is 0.5. With
    `schedule.drops` the rate is constant and falls to a tenth after each of these
    shares of all steps (CascadePSP). During the first `schedule.warmup` (a share) of
    all steps the rate also rises linearly, from nearly 0: ours.
    """
    rising = max(config.schedule.warmup * total_steps, 1.0)
    if config.schedule.drops:
        drops = jnp.array([share * total_steps for share in config.schedule.drops])
        highest = config.learning_rate

        def stairs(step: jax.Array) -> jax.Array:
            return _risen(step, rising) * highest * 0.1 ** jnp.sum(step >= drops)

        return stairs
    per_epoch = config.schedule.per == "epoch"
    unit = epoch_steps if per_epoch else 1
    total = max(-(-total_steps // unit), 1)

    def rate(step: jax.Array) -> jax.Array:
        done = jnp.minimum(step // unit + config.schedule.offset, total)
        left = (total - done).astype(jnp.float32) / total  # exact integers first
        left = left * (1 - config.schedule.begin)
        return _risen(step, rising) * config.learning_rate * left**config.schedule.power

    return rate


def _risen(step: jax.Array, steps: float) -> jax.Array:
    """Returns the share, up to 1, to which a rate has risen that does so in steps."""
    return jnp.minimum((step + 1) / steps, 1.0)


def make_optimizer(
    config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """Returns torch's SGD or Adam: L2 is added to the gradient before the moments."""
    settings = config.optimizer
    decay = optax.add_decayed_weights(
        settings.weight_decay, mask=_kernels if settings.decay == "conv" else None
    )
    if settings.name == "sgd":
        direction = optax.trace(settings.momentum)
    else:
        direction = optax.scale_by_adam(settings.b1, settings.b2)
    return optax.chain(decay, direction, optax.scale_by_learning_rate(schedule))


def _kernels(params: Any) -> Any:
    """Marks convolution and dense kernels (two or more axes), not biases and norms."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)
