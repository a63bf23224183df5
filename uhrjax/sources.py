"""The data set a config names: prepared on the fly where nothing must be downloaded."""

from __future__ import annotations

import pathlib

import ml_collections

from uhrjax import errors, methods
from uhrjax.data import dataset, prepared
from uhrjax.tiling import view as view_lib


def open_data(config: ml_collections.ConfigDict) -> dataset.Dataset:
    """Opens the data set of a config and settles what depends on it.

    `synthetic/...` and `folder` are prepared if they are not yet; others are looked up.
    `config.num_classes` 0 becomes the number of classes of the data.

    Raises:
        FileNotFoundError: not prepared, with the command that prepares it.
        errors.InputError: the config and the data disagree.
    """
    data_dir = pathlib.Path(
        config.data.root or prepared.default_data_dir()
    ).expanduser()
    method = methods.find(config.method)
    inputs = method.inputs(config)
    views = _stored_views(config, () if method.reads_labels else inputs.views)
    unit = config.data.unit
    patches = config.data.layout == "patches" and unit not in ("overviews", "scales")
    overview = None if unit == "scales" else inputs.overview  # made of scenes
    name = config.data.name
    if name == "folder" and not config.data.dir:
        raise errors.InputError(
            "which folder? set --config.data.dir=PATH, the folder of your images and "
            "masks (see README.md, 'Your own images')"
        )
    if name == "folder" or name.startswith("synthetic/"):
        from data_builders import prepare  # only here: training needs no builder

        configs = [prepared.SCENES]
        if patches:
            configs.append(
                prepared.patches_config(
                    tile=config.tile, stride=config.stride, views=views,
                    spacing=config.grid,
                )
            )  # fmt: skip
        if overview:
            configs.append(
                prepared.overview_config(height=overview[0], width=overview[1])
            )
        name = prepare.prepare(
            name, data_dir=data_dir, configs=configs, **_folder_options(config)
        ).name
    data = dataset.open_dataset(
        data_dir, name, tile=config.tile, stride=config.stride, views=views,
        patches=patches, spacing=config.grid, overview=overview,
    )  # fmt: skip
    for split in {config.data.train_split, config.data.val_split, config.data.split}:
        data.check_split(split)
    classes = len(data.info.classes)
    if config.num_classes == 0:
        with config.unlocked():
            config.num_classes = classes
    if config.num_classes != classes:
        raise errors.InputError(
            f"config.num_classes={config.num_classes}, but {name} has {classes} "
            f"classes ({', '.join(data.info.classes)}); set it to {classes} or to 0"
        )
    return data


def _stored_views(
    config: ml_collections.ConfigDict, wanted: tuple[view_lib.View, ...]
) -> tuple[view_lib.View, ...]:
    """Returns the views of the patches: the method's, or those of all stages."""
    stored = tuple(
        prepared.parse_view(word, tile=config.tile) for word in config.data.views
    )
    absent = [view for view in wanted if stored and view not in stored]
    if absent:
        raise errors.InputError(
            f"config.data.views = {config.data.views} lacks the view of scale "
            f"{absent[0].scale} that {config.method} takes; use () for its own"
        )
    return stored or wanted or (view_lib.View(),)


def _folder_options(config: ml_collections.ConfigDict) -> dict[str, object]:
    if config.data.name != "folder":
        return {}
    return {
        "dir": config.data.dir,
        "classes": config.data.classes or None,
        "val": config.data.val_fraction or None,
    }
