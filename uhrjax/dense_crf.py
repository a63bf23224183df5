"""DenseCRF behind a segmentation, a row of MagNet's tables.

Every px votes for its class at all px that look alike and are near (a Gaussian in place
and colour); mean-field steps settle the votes. `lattice` is the approximation that the
papers use, from the package pydensecrf2 (extra `crf`); `exact` sums over all pairs of
px and is for small images only. Settings: MagNet's supplement; there is no smoothness
term beside the one in place and colour.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax import errors

KINDS = ("", "exact", "lattice")
EXACT_PIXELS = 1 << 16  # of an image; the time grows with their square
BLOCK = 256  # px whose pairs are worked on at a time
FLOOR = 1e-6  # of a probability


@dataclasses.dataclass(frozen=True)
class Settings:
    """How far votes reach."""

    steps: int = 50  # of the mean field
    reach: float = 256.0  # px, the deviation in place
    colour: float = 13.0  # the deviation in each of R, G, B, grey levels
    weight: float = 1.0  # of the votes


def refine(
    image: np.ndarray,
    probabilities: np.ndarray,
    kind: str,
    settings: Settings = Settings(),
) -> np.ndarray:
    """Returns probabilities after the mean field.

    Args:
        image: [H, W, 3] uint8.
        probabilities: [H, W, K] float32.
        kind: of KINDS, not "".
        settings: of the votes.

    Returns:
        [H, W, K] float32.

    Raises:
        errors.InputError: an image too large for `exact`, or no package for `lattice`.
    """
    height, width = image.shape[:2]
    if kind == "lattice":
        return _lattice(image, probabilities, settings)
    if height * width > EXACT_PIXELS:
        raise errors.InputError(
            f"config.magnet.crf='exact': {height} x {width} px are too many pairs, use "
            f"it up to {EXACT_PIXELS} px, or 'lattice' (pip install 'uhrjax[crf]')"
        )
    return np.asarray(mean_field(image, probabilities, settings))


@functools.partial(jax.jit, static_argnums=2)
def mean_field(
    image: jax.Array, probabilities: jax.Array, settings: Settings
) -> jax.Array:
    """Returns what `refine` does, over all pairs of px.

    The kernel is divided by the roots of both px' sums, as the package does.
    """
    height, width, classes = probabilities.shape
    count = height * width
    rows, columns = jnp.divmod(jnp.arange(count), width)
    places = jnp.stack([rows, columns], 1) / settings.reach
    colours = jnp.asarray(image, jnp.float32).reshape(count, 3) / settings.colour
    features = jnp.concatenate([places, colours], 1)  # [P, 5]
    padding = -count % BLOCK
    blocks = jnp.pad(features, ((0, padding), (0, 0))).reshape(-1, BLOCK, 5)

    def filtered(values: jax.Array) -> jax.Array:
        def one(some: jax.Array) -> jax.Array:
            apart = jnp.sum((some[:, None] - features[None]) ** 2, -1)
            return jnp.matmul(
                jnp.exp(-apart / 2), values, precision=jax.lax.Precision.HIGHEST
            )

        return jax.lax.map(one, blocks).reshape(-1, values.shape[1])[:count]

    norm = jax.lax.rsqrt(filtered(jnp.ones((count, 1), jnp.float32)))
    given = jnp.log(jnp.maximum(probabilities.reshape(count, classes), FLOOR))

    def step(_: int, belief: jax.Array) -> jax.Array:
        votes = norm * filtered(norm * belief)
        return jax.nn.softmax(given + settings.weight * votes, axis=-1)

    belief = jax.lax.fori_loop(0, settings.steps, step, jax.nn.softmax(given))
    return belief.reshape(height, width, classes)


def _lattice(
    image: np.ndarray, probabilities: np.ndarray, settings: Settings
) -> np.ndarray:
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise errors.InputError(
            "config.magnet.crf='lattice' needs the package pydensecrf2, which is "
            "compiled when it is installed: pip install 'uhrjax[crf]'"
        ) from error
    height, width, classes = probabilities.shape
    field = densecrf.DenseCRF2D(width, height, classes)
    given = -np.log(np.maximum(probabilities, FLOOR)).astype(np.float32)
    field.setUnaryEnergy(np.ascontiguousarray(given.reshape(-1, classes).T))
    field.addPairwiseBilateral(
        sxy=settings.reach, srgb=settings.colour, compat=settings.weight,
        rgbim=np.ascontiguousarray(image),
    )  # fmt: skip
    found = np.array(field.inference(settings.steps), np.float32)
    return np.ascontiguousarray(found.T).reshape(height, width, classes)
