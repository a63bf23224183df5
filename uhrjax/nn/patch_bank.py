"""Foveation's patch extractor: crops of one centre and growing side, on the device."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from uhrjax.ops import zoom

ANCHORS = ("corner", "center")


@dataclasses.dataclass(frozen=True)
class PatchBank:
    """D crops around a location, resampled to the side P of the smallest one.

    Location (i, j) of a grid of rate q stands for q x q px of the scene.
    """

    sides: tuple[int, ...]  # px, ascending
    anchor: str = "corner"  # the smallest begins where the location does; or "center"
    border: str = "zero"  # of zoom.BORDERS
    antialias: bool = False  # average all px of a wide crop instead of picking some

    def first(self, rate: int) -> int:
        """Returns where the smallest crop of location 0 begins, px."""
        return rate // 2 - self.sides[0] // 2 if self.anchor == "center" else 0

    def corners(self, place: jax.Array, *, rate: int) -> jax.Array:
        """Returns (top, left) [D, 2] int of the crops at a location [2], scene px."""
        smallest = self.sides[0]
        centre = place * rate + self.first(rate) + smallest // 2
        return centre[None] - np.array(self.sides)[:, None] // 2

    def patches(
        self,
        scenes: jax.Array,
        places: jax.Array,
        shares: jax.Array,
        *,
        rate: int,
        normalise: zoom.Normalise,
        one: bool = False,
    ) -> jax.Array:
        """Cuts and mixes crops; differentiable in their weights.

        Args:
            scenes: [L, H, W, 3] uint8.
            places: [B, 2] int, locations.
            shares: [L, B, D] float32, the weights.
            rate: px per location.
            normalise: applied to px before they are mixed.
            one: only cut the crop with the largest weight, and do not weigh it.

        Returns:
            [L, B, P, P, 3] float32.
        """
        corners = jax.vmap(lambda place: self.corners(place, rate=rate))(places)

        def at_place(scene: jax.Array, corners: jax.Array, shares: jax.Array):
            if one:
                return self._pick(scene, corners, jnp.argmax(shares), normalise)
            return self._mix(scene, corners, shares, normalise)

        mix = jax.vmap(jax.vmap(at_place, (None, 0, 0)), (0, None, 0))
        # The backward pass cuts the crops again; kept, they would need D times P x P.
        return jax.checkpoint(mix)(scenes, corners, shares)

    def labels(
        self, label: jax.Array, places: jax.Array, *, rate: int, stride: int = 1
    ) -> jax.Array:
        """Cuts the labels of the smallest crops.

        Args:
            label: [L, H, W] integers.
            places: [B, 2] int.
            rate: px per location.
            stride: reduce the label first; px of the scene per px of the result.

        Returns:
            [L, B, P // stride, P // stride], dtype of label; 255 beyond the scene.
        """

        def cut(label: jax.Array, place: jax.Array) -> jax.Array:
            corner = self.corners(place, rate=rate)[0]
            return zoom.label_crop(
                label, corner, side=self.sides[0], stride=stride, border=self.border
            )

        return jax.vmap(jax.vmap(cut, (None, 0)), (0, None))(label, places)

    def _mix(
        self,
        scene: jax.Array,
        corners: jax.Array,
        shares: jax.Array,
        normalise: zoom.Normalise,
    ) -> jax.Array:
        total = 0.0
        for index, side in enumerate(self.sides):
            crop = self._crop(scene, corners[index], side, normalise, widest=side)
            total += shares[index] * crop
        return total

    def _pick(
        self,
        scene: jax.Array,
        corners: jax.Array,
        chosen: jax.Array,
        normalise: zoom.Normalise,
    ) -> jax.Array:
        side = jnp.array(self.sides)[chosen]
        return self._crop(
            scene, corners[chosen], side, normalise, widest=self.sides[-1]
        )

    def _crop(
        self,
        scene: jax.Array,
        corner: jax.Array,
        side: int | jax.Array,
        normalise: zoom.Normalise,
        *,
        widest: int,
    ) -> jax.Array:
        smooth = self.antialias and widest > self.sides[0]
        return zoom.crop(
            scene,
            corner,
            side,
            size=self.sides[0],
            normalise=normalise,
            border=self.border,
            widest=widest if smooth else 0,
        )
