"""Which of D crops to look at: weights from logits, and their gradients.

Sec. 3.3 of https://arxiv.org/abs/2007.15124, in its order. Let f be the softmax of the
logits z over their last axis and g_d the gradient of the loss at weight d. A constant
added to all logits of a place changes nothing, so that log-probabilities serve as well.
"""

import functools

import jax
import jax.numpy as jnp

STRAIGHT_THROUGH = ("st", "st_inv")
FLOOR = 0.1  # of the temperature


def mean(logits: jax.Array) -> jax.Array:
    """Returns f itself [..., D]; the gradient at z_d is f_d (g_d - sum_k f_k g_k)."""
    return jax.nn.softmax(logits, axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def mode(logits: jax.Array, how: str = "st_inv") -> jax.Array:
    """Returns 1 for the most probable crop, the first of equals, and 0 for others.

    Args:
        logits: [..., D] float32.
        how: the gradient at f_d: "st" copies g_d, so that z_d gets what it gets of
            `mean`; "st_inv" is g_d / f_d: z_d gets g_d - f_d sum_k g_k, in which
            nothing is divided.

    Returns:
        [..., D] float32.
    """
    return one_hot(logits)


def _mode_forward(logits, how):
    return mode(logits, how), jax.nn.softmax(logits, axis=-1)


def _mode_backward(how, f, g):
    if how == "st":
        return (f * (g - jnp.sum(f * g, axis=-1, keepdims=True)),)
    return (g - f * jnp.sum(g, axis=-1, keepdims=True),)


mode.defvjp(_mode_forward, _mode_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def mode_of_probabilities(f: jax.Array, how: str = "st_inv") -> jax.Array:
    """Returns what `mode` does, of f; the gradient at f_d is g_d or g_d / f_d.

    Without bounds where f is near 0: `mode` is the same and safe.
    """
    return one_hot(f)


def _of_probabilities_forward(f, how):
    return mode_of_probabilities(f, how), f


def _of_probabilities_backward(how, f, g):
    return (g if how == "st" else g / f,)


mode_of_probabilities.defvjp(_of_probabilities_forward, _of_probabilities_backward)


def gumbel(
    logits: jax.Array, noise: jax.Array, tau: jax.Array, *, hard: bool = False
) -> jax.Array:
    """Returns a = softmax((log f + noise) / tau), the Gumbel-softmax sample.

    Args:
        logits: [..., D] float32.
        noise: [..., D] of the standard Gumbel distribution.
        tau: temperature, above 0.
        hard: return 1 for the largest and 0 for others, with the gradient of a.
    """
    soft = jax.nn.softmax((jax.nn.log_softmax(logits) + noise) / tau, axis=-1)
    if not hard:
        return soft
    return jax.lax.stop_gradient(one_hot(soft) - soft) + soft


def sample(logits: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Draws a crop from f, for REINFORCE.

    Args:
        logits: [..., D] float32.
        noise: [..., D] of the standard Gumbel distribution.

    Returns:
        [..., D] 1 for the crop drawn, without gradient; [...] its log-probability.
    """
    drawn = jax.lax.stop_gradient(one_hot(logits + noise))
    return drawn, jnp.sum(drawn * jax.nn.log_softmax(logits), axis=-1)


def reinforce(
    losses: jax.Array, log_probability: jax.Array, baseline: jax.Array | float = 0.0
) -> jax.Array:
    """Returns losses [...] whose gradient also is the score function's.

    Experimental, in no table of the paper. The value is that of the losses plus
    (loss - baseline) log p; the segmenter only gets the losses' own gradient.
    """
    advantage = jax.lax.stop_gradient(losses - baseline)
    return losses + advantage * log_probability


def temperature(
    progress: jax.Array, *, rate: float = 1.0, floor: float = FLOOR
) -> jax.Array:
    """Returns max(floor, exp(-rate t / T)); progress is t / T in [0, 1].

    At rate 1 it ends at 0.368; the floor needs a rate above 2.3.
    """
    return jnp.maximum(floor, jnp.exp(-rate * progress))


def entropy(logits: jax.Array) -> jax.Array:
    """Returns the entropy of f [...], in nat."""
    log_f = jax.nn.log_softmax(logits, axis=-1)
    return -jnp.sum(jnp.exp(log_f) * log_f, axis=-1)


def one_hot(scores: jax.Array) -> jax.Array:
    """Returns 1 for the largest score, the first of equals, and 0 for others."""
    best = jnp.argmax(scores, axis=-1)
    return jax.nn.one_hot(best, scores.shape[-1], dtype=jnp.float32)
