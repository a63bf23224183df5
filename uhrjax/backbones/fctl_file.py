"""Published files of FCtL: what of them counts, and our names for it."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from uhrjax.backbones import vgg
from uhrjax.nn import correlation, fcn8

TWICE = r"(local\.)?(vgg\.|big_pool|up_(output|pool4_out|final)\.)"  # or fixed
# With one context the other streams and the fusion are there all the same.
UNUSED = r"(local\.)?big_attention\.(in_|out_|trans|.*_[12](\.|$))"


def used(
    state_dict: Mapping[str, np.ndarray], stages: Sequence[str], *, streams: int
) -> dict[str, np.ndarray]:
    """Leaves out what published files hold twice, fixed or without use.

    Args:
        state_dict: one file, or several under the prefixes "local." and of `stages`.
        stages: names of the trainings whose encoders the contexts have, in order.
        streams: how many contexts there are, the local one counts.
    """
    skipped = f"{TWICE}|{UNUSED}" if streams == 1 else TWICE
    kept = {}
    for name, value in state_dict.items():
        name = name.replace("module.", "", 1)
        prefix, _, rest = name.partition(".")
        of_context = prefix in stages
        if rest.startswith("big_pool") if of_context else not re.match(skipped, name):
            kept[name] = value
    return kept


def torch_names(stages: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Returns (name in the file, ours) as patterns; `stages` as in `used`."""
    encoders = tuple(
        (rf"^{stage}\.big_pool", f"context_{index}.pool")
        for index, stage in enumerate(stages)
    )
    return (
        (r"^local\.", ""),
        (r"^pool", "backbone.pool"),
        *encoders,
        *vgg.FCTL_NAMES,
        (r"^big_attention\.", "attention."),
        *correlation.TORCH_NAMES,
        *fcn8.TORCH_NAMES,
    )
