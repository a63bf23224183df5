"""UPerNet, the "baseline + PPM" of PFNet (https://arxiv.org/abs/2103.06564, Table 2).

A feature pyramid network over a residual backbone whose coarsest map passes through
pyramid pooling. Every coarser map is upsampled and added to the next finer one; all
levels together classify at stride 4. It is PFNet with each point flow replaced by
bilinear upsampling.

`design="original"` is the network of the paper's authors (https://arxiv.org/abs/1807.10221)
without the tasks that are not segmentation; Foveation trains it on DeepGlobe with the
deep stem, dilation "none", 512 channels and no dropout, its loss at stride 4.

The default differs from it, as the baseline's code does:
- pyramid pooling ends in a 1x1 instead of a 3x3 convolution, its branches in no ReLU,
  and they are upsampled behind their convolution, not in front of it;
- laterals have a bias, 256 channels; maps are resized with aligned corners;
- the 3x3 convolutions of the backbone's last two stages are dilated at full stride;
- the loss is taken at the image's size.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Dtype

from uhrjax import losses
from uhrjax.backbones import resnet
from uhrjax.methods import base
from uhrjax.nn import conv, fpn
from uhrjax.ops import resize

DESIGNS = ("pfnet", "original")


class UPerNet(nn.Module):
    """Image -> logits at the image's size."""

    num_classes: int
    backbone: str = "resnet50"
    stem: str = "deep"
    dilation: str = "keep_stride"
    width: int = 64  # of the backbone
    fpn_dim: int = 256
    dropout: float = 0.1  # of whole channels, behind the pyramid pooling
    design: str = "pfnet"  # or "original", see above
    remat: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        """Maps [B, H, W, 3] to "coarse", [B, H / 4, W / 4, num_classes] float32, and
        "logits", the same at the size of the images; the "features" C2."""
        original = self.design == "original"
        common = {"features": self.fpn_dim, "original": original, "dtype": self.dtype}
        maps = resnet.of_fields(self)(images, train=train)
        finest = maps[0]
        maps = fpn.PyramidInput(**common, dropout=self.dropout, name="neck")(
            maps, train=train
        )
        coarse = fpn.PyramidOutput(**common, num_classes=self.num_classes, name="head")(
            fpn.add_top_down(maps, align_corners=not original), train=train
        )
        size = images.shape[1:3]
        full = resize.bilinear(coarse, size, align_corners=not original)
        return {"coarse": coarse, "logits": full, "features": finest}


class UPerNetMethod(base.Method):
    """UPerNet with a cross-entropy loss."""

    module_class = UPerNet
    loss_class = losses.SegmentationLoss

    @property
    def label_stride(self) -> int:
        """Returns image px per px of the label that the loss reads."""
        return 4 if self.is_original else 1

    @property
    def multiple(self) -> int:
        """Returns what image sides must be multiples of, px."""
        return self.label_stride

    @property
    def is_original(self) -> bool:
        """Whether this is the network of UPerNet's authors."""
        return self.module.design == "original"

    @property
    def torch_names(self) -> tuple[tuple[str, str], ...]:
        """Returns the names in published files and ours."""
        if not self.is_original:
            return (*resnet.TORCH_NAMES, *fpn.TORCH_NAMES)
        return ((r"^encoder\.", "backbone."), *fpn.ORIGINAL_NAMES)

    @property
    def initial_rules(self) -> tuple[tuple[str, str], ...]:
        """Returns where weights differ from PyTorch's default."""
        if not self.is_original:
            return ()
        return (
            ("/(neck|head)/.*kernel$", "he_in"),
            ("/(neck|head)/.*norm/bias$", f"constant {conv.SHIFT}"),
        )

    def loss(
        self, outputs: Mapping[str, Any], batch: base.Batch
    ) -> dict[str, jax.Array]:
        """Returns "total" and "seg"; the original takes a label reduced by 4, too."""
        if not self.is_original:
            return super().loss(outputs, batch)
        part = losses.coarse_loss(self.loss_rule, outputs["coarse"], batch["label"])
        return {"total": part, "seg": part}

    def import_torch(self, state_dict: Mapping[str, np.ndarray]) -> base.Variables:
        """Returns variables filled with published weights of the whole network.

        Args:
            state_dict: PyTorch name -> array; of the original, its two files merged
                under the prefixes "encoder." and "decoder.".
        """
        if self.is_original:
            state_dict = {
                _with_stem(name, "encoder."): v for name, v in state_dict.items()
            }
        return super().import_torch(state_dict)

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with the backbone of a bare ImageNet classifier.

        Args:
            variables: of this method; not changed.
            state_dict: PyTorch name -> array; the layers of a deep stem may be numbered
                within its sequence or, as in Foveation's code, from 1 to 3.
        """
        if any(name.removeprefix("module.") == "conv2.weight" for name in state_dict):
            state_dict = {
                f"backbone.{_with_stem(name, '')}": value
                for name, value in state_dict.items()
                if not name.removeprefix("module.").startswith("fc.")
            }
        return super().import_backbone(variables, state_dict)

    def _check_model(self) -> None:
        super()._check_model()
        base.check_choice("config.model.design", self.module.design, DESIGNS)


def _with_stem(name: str, prefix: str) -> str:
    """Renames the deep stem of a backbone whose names begin with `prefix`."""
    name = name.removeprefix("module.")
    if not name.startswith(prefix):
        return name
    return prefix + resnet.named_stem(name.removeprefix(prefix))
