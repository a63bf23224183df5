"""GLNet's network: two backbones with pyramids that guide each other, and their heads.

Paper and modes: `methods/glnet.py`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype

from uhrjax.backbones import resnet
from uhrjax.nn import collection, guided_fpn
from uhrjax.ops import resize

MODES = ("global", "local", "joint", "local_alone")


class GLNet(nn.Module):
    """The branches; which there are follows from the mode."""

    num_classes: int
    mode: str = "joint"  # see MODES
    backbone: str = "resnet50"  # of every branch
    stem: str = "classic"
    dilation: str = "none"
    width: int = 64
    fpn_dim: int = 256
    remat: bool = False
    dtype: Dtype = jnp.float32

    def setup(self) -> None:
        def pyramid(name: str) -> guided_fpn.GuidedPyramid:
            return guided_fpn.GuidedPyramid(self.fpn_dim, self.dtype, name=name)

        def head(name: str) -> nn.Module:  # float32: its result goes into a softmax
            return guided_fpn.small_conv(self.num_classes, 3, name=name)

        self.global_net = resnet.of_fields(self)
        self.global_pyramid = pyramid("global_fpn")
        self.global_classify = head("global_head")
        if self.is_guided:
            self.local_net = resnet.of_fields(self, name="local_backbone")
            self.local_pyramid = pyramid("local_fpn")
            self.local_classify = head("local_head")
            self.classify_both = head("ensemble")
        if self.mode == "joint":
            self.fixed_net = resnet.of_fields(self, name="fixed_backbone")
            self.joint_pyramid = pyramid("joint_fpn")

    @property
    def is_guided(self) -> bool:
        """Whether there are two branches."""
        return self.mode in ("local", "joint")

    def __call__(
        self,
        images: jax.Array,
        overview: jax.Array | None = None,
        position: jax.Array | None = None,
        scene_size: jax.Array | None = None,
        *,
        train: bool,
    ) -> dict[str, jax.Array]:
        """Labels windows, or with one branch whole images.

        Args:
            images: [B, P, Q, 3]; in mode "joint" all windows of one scene.
            overview: [B or 1, h, w, 3], of the windows' scenes; "joint": [1, h, w, 3].
            position: [B, 2] int, (top, left) of the windows, scene px.
            scene_size: [B, 2] int, (height, width), px.
            train: the branch that the mode trains uses the batch's statistics.

        Returns:
            "global", "local" and "ensemble", as far as the mode has them: logits at a
            quarter of the size of what the branch sees, [B or 1, h / 4, w / 4, K]
            float32; "logits", the best of them at the size of the images; "difference",
            [B] float32, mean squared difference of both branches' joined maps.
        """
        if not self.is_guided:
            quarter = self.global_classify(self.look(images, train=train).joined)
            full = resize.nearest(quarter, images.shape[1:3])
            return {"global": quarter, "logits": full}
        place = collection.Place(position, scene_size)
        guide = jax.lax.stop_gradient(self.look(overview, train=False))
        # The joint stage trains neither the guide nor the local branch.
        learns = train and self.mode == "local"
        local = self.look_closely(images, guide, place, train=learns)
        found = {"global": self.global_classify(guide.joined)}
        joined = guide.joined
        if self.mode == "joint":
            local = jax.lax.stop_gradient(local)
            empty = collection.empty_collection(guide)
            collected = collection.add_windows(
                empty, local, place, window=images.shape[1:3]
            )
            joined, found["global"] = self.look_again(overview, collected, train=train)
        return found | self.classify(local.joined, joined, place, images.shape[1:3])

    def look(self, images: jax.Array, *, train: bool) -> guided_fpn.PyramidMaps:
        """Returns the maps of the unguided branch for images [B, h, w, 3].

        In mode "joint" it is the branch as the first stage left it.
        """
        net = self.fixed_net if self.mode == "joint" else self.global_net
        return self.global_pyramid(tuple(net(images, train=train)))

    def look_closely(
        self,
        images: jax.Array,
        guide: guided_fpn.PyramidMaps,
        place: collection.Place,
        *,
        train: bool,
    ) -> guided_fpn.PyramidMaps:
        """Returns the maps of the local branch for windows [B, P, Q, 3].

        The guide, maps of the windows' scenes, is [B or 1, ...].
        """
        features = tuple(self.local_net(images, train=train))
        crops = collection.crop_maps(guide, features, place, window=images.shape[1:3])
        return self.local_pyramid(features, crops)

    def look_again(
        self, overview: jax.Array, collected: collection.Collection, *, train: bool
    ) -> tuple[jax.Array, jax.Array]:
        """Returns joined maps and logits of an overview [1, h, w, 3], guided by all
        windows of its scene."""
        features = tuple(self.global_net(overview, train=train))
        joined = self.joint_pyramid(features, collected.mean()).joined
        return joined, self.global_classify(joined)

    def classify(
        self,
        local: jax.Array,
        joined: jax.Array,
        place: collection.Place,
        window: tuple[int, int],
    ) -> dict[str, jax.Array]:
        """Returns what `__call__` does of both branches.

        Args:
            local: [B, h, w, C], joined maps of windows.
            joined: [B or 1, H, W, C], joined maps of their scenes.
            place: of the windows.
            window: (height, width), px.
        """
        cut = collection.crop_like(joined, local, place, window=window)
        quarter = self.classify_both(jnp.concatenate([local, cut], axis=-1))
        apart = local.astype(jnp.float32) - cut.astype(jnp.float32)
        return {
            "local": self.local_classify(local),
            "ensemble": quarter,
            "logits": resize.nearest(quarter, window),
            "difference": jnp.mean(apart**2, axis=(1, 2, 3)),
        }
