"""What methods over an HRNet share."""

from collections.abc import Mapping

import numpy as np

from uhrjax.backbones import hrnet
from uhrjax.methods import base


class HRNetTrunk(base.Method):
    """A method whose module has an HRNet: its ImageNet weights, its fields."""

    def import_backbone(
        self, variables: base.Variables, state_dict: Mapping[str, np.ndarray]
    ) -> base.Variables:
        """Returns `variables` with the trunk of an ImageNet classifier.

        Args:
            variables: of this method; not changed.
            state_dict: PyTorch name -> array; what classifies is dropped.
        """
        return super().import_backbone(variables, hrnet.trunk_of(state_dict))

    def _check_model(self) -> None:
        module = self.module
        base.check_choice("config.model.size", module.size, hrnet.SIZES)
        base.check_choice("config.model.stem_stride", module.stem_stride, (1, 2))
        base.check_range("config.model.width", module.width, low=0)
        base.check_range("config.model.stem_width", module.stem_width, low=1)
