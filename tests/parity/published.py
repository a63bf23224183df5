"""A network as published, without a recipe around it."""

import ml_collections

from uhrjax import methods


def build(name, *, num_classes, **model):
    """Returns a method; `model` are the fields of its network."""
    return methods.build(
        ml_collections.ConfigDict(
            {
                "method": name,
                "num_classes": num_classes,
                "tile": 64,
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "dtype": "float32",
                "remat": False,
                "model": model,
                "loss": {},
            }
        )
    )
