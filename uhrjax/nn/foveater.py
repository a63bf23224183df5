"""The foveation module: which field of view to take at every place of a scene.

Sec. 3.1 of https://arxiv.org/abs/2007.15124: three 3x3 convolutions over the scene made
small, 8 D channels between D crops. As in the code, ReLU is clipped at 6 and the last
norm is followed by none (the text has plain ReLU three times).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax.nn import conv, patch_bank
from uhrjax.ops import choice

LEARNED = ("mean", "mode", "gsm", "reinforce")
FIXED = ("patch", "random", "average")
GSM_EVAL = ("sample", "mode", "mean")
ACTIVATIONS = {
    "relu6": nn.relu6,
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,  # slope 0.01
}
# Names in published files -> names below `foveater`.
TORCH_NAMES = (
    (r"^foveater\.", ""),
    (r"^fov_expand_([12])\.", r"conv\1."),
    (r"^fov_squeeze_1\.", "conv3."),
    (r"^(conv[123]|norm[123])\.", r"foveater.\1."),
)
# Book-keeping of a synchronised batch norm, without effect.
UNUSED = ("_tmp_running_mean", "_tmp_running_var", "_running_iter")
INITIAL_RULES = (("kernel$", "he_in"), ("norm[123]/bias$", f"constant {conv.SHIFT}"))


class Foveater(nn.Module):
    """Small scenes -> logits of D crops at each of their pixels."""

    crops: int  # D
    activation: str = "relu6"  # a key of ACTIVATIONS
    final_relu: bool = False  # also behind the last norm
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, overviews: jax.Array, *, train: bool) -> jax.Array:
        """Maps [L, h, w, 3] float, normalised, to [L, h, w, D] float32.

        With `train` the statistics are those of all L h w pixels.
        """
        activate = ACTIVATIONS[self.activation]
        x = overviews
        for index, features in enumerate((8 * self.crops, 8 * self.crops, self.crops)):
            last = index == 2
            x = conv.Conv(
                features=features,
                kernel=3,
                kernel_init=conv.he_in_init,
                dtype=self.dtype,
                name=f"conv{index + 1}",
            )(x)
            x = conv.batch_norm(
                train=train,
                dtype=jnp.float32 if last else self.dtype,
                name=f"norm{index + 1}",
                shift=conv.SHIFT,
                unbiased=True,
            )(x)
            x = x if last and not self.final_relu else activate(x)
        return x.astype(jnp.float32)


class Foveation(nn.Module):
    """Small scenes -> logits of D patches; how they are used is in its fields."""

    num_classes: int
    selection: str = "mean"  # of LEARNED, or without a network of FIXED
    patch: int = 1  # of selection "patch": which of the bank, from 1
    bank: tuple[int, ...] = (500, 1000, 1500, 2000, 2448)  # sides of the patches, px
    scale: int = 24  # scene px per px of the small scene
    anchor: str = "corner"  # of the smallest patch, or "center"
    border: str = "zero"  # or "reflect"
    antialias: bool = False  # average all px of a wide patch instead of picking some
    straight_through: str = "st_inv"  # of mode, see choice.mode
    hard: bool = False  # gsm: one patch instead of a mixture
    anneal: bool = True  # gsm: let the temperature fall from 1
    tau_rate: float = 1.0  # gsm: it ends at exp(-rate), but not below 0.1
    gsm_eval: str = "sample"  # outside of training, or "mode" or "mean"
    baseline: bool = True  # reinforce: subtract the mean loss of the other patches
    activation: str = "relu6"
    final_relu: bool = False
    remat: bool = False
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        self.foveater = Foveater(
            crops=len(self.bank),
            activation=self.activation,
            final_relu=self.final_relu,
            dtype=self.dtype,
        )

    def __call__(self, overviews: jax.Array, *, train: bool) -> jax.Array:
        """Maps [L, h, w, 3] float to [L, h, w, D] float32."""
        return self.foveater(overviews, train=train)

    @property
    def learns(self) -> bool:
        """Whether there is something to learn, not a fixed rule."""
        return self.selection in LEARNED

    @property
    def crops(self) -> patch_bank.PatchBank:
        """Returns what cuts the patches."""
        return patch_bank.PatchBank(self.bank, self.anchor, self.border, self.antialias)

    @nn.nowrap
    def temperature(self, progress: jax.Array | None = None) -> jax.Array:
        """Returns that of Gumbel-softmax; without progress ([1]) at the end."""
        if not self.anneal:
            return jnp.float32(1)
        done = jnp.float32(1) if progress is None else progress[0]
        return choice.temperature(done, rate=self.tau_rate)

    @nn.nowrap
    def select(
        self, logits: jax.Array, key: jax.Array, tau: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Returns the weights of patches by the config's rule.

        Args:
            logits: [..., D] float32, log-probabilities do, too.
            key: for what is drawn.
            tau: temperature.
            train: in training; some rules do not draw elsewhere.

        Returns:
            [..., D] float32 that sum to 1; [...] log-probability of what REINFORCE
            drew, else 0.
        """
        none = jnp.zeros(logits.shape[:-1], jnp.float32)
        rule = self.selection
        if rule == "gsm" and not train and self.gsm_eval != "sample":
            rule = self.gsm_eval
        if rule == "reinforce" and not train:
            rule = "mode"
        if rule == "mean":
            return choice.mean(logits), none
        if rule == "mode":
            return choice.mode(logits, self.straight_through), none
        if rule in ("patch", "average"):
            count = len(self.bank)
            fixed = np.full(count, 1 / count, np.float32)
            if rule == "patch":
                fixed = np.eye(count, dtype=np.float32)[self.patch - 1]
            return jnp.broadcast_to(fixed, logits.shape), none
        noise = jax.random.gumbel(key, logits.shape)
        if rule == "random":
            return choice.one_hot(noise), none
        if rule == "gsm":
            return choice.gumbel(logits, noise, tau, hard=self.hard), none
        return choice.sample(logits, noise)

    @nn.nowrap
    def mixes(self) -> bool:
        """Whether patches are mixtures outside of training."""
        rule = self.selection
        if rule == "gsm":
            return self.gsm_eval == "mean" or (
                self.gsm_eval == "sample" and not self.hard
            )
        return rule in ("mean", "average")
