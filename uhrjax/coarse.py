"""Label maps that a refining network is trained and scored on."""

from __future__ import annotations

import json
import pathlib

import ml_collections

from uhrjax import (
    checkpoint,
    engine,
    errors,
    evaluate,
    hosts,
    output,
    report,
    trained,
)
from uhrjax.data import dataset, scenes

ORIGIN = "origin.json"  # beside the maps of a split: what made them


def prepare(
    config: ml_collections.ConfigDict, data: dataset.Dataset, folder: pathlib.Path
) -> pathlib.Path:
    """Returns a folder with one folder of label maps per split, made if need be.

    `config.coarse.masks` is such a folder. Otherwise the run `config.coarse.run` labels
    the scenes: those of the training split with its weights of `config.coarse.epoch`
    (maps that are too good on them teach nothing), the others with its final ones.

    Args:
        config: of the refining network.
        data: to label.
        folder: of the run that is to be trained.

    Raises:
        errors.InputError: neither is given, or there is no such checkpoint.
    """
    if config.coarse.masks:
        return pathlib.Path(config.coarse.masks).expanduser()
    if not config.coarse.run:
        raise errors.InputError(
            f"{config.method} refines label maps: name the run that makes them, "
            "--config.coarse.run=runs/pfnet, or a folder with train/ and val/ of maps, "
            "--config.coarse.masks=FOLDER"
        )
    source = pathlib.Path(config.coarse.run).expanduser()
    for split in {config.data.train_split, config.data.val_split, config.data.split}:
        epoch = config.coarse.epoch if split == config.data.train_split else 0
        run = trained.load_run(_checkpoint_of(source, epoch))
        if run.classes != data.info.classes:
            raise errors.InputError(
                f"config.coarse.run={config.coarse.run} labels {', '.join(run.classes)}"
                f"; {data.info.name} has {', '.join(data.info.classes)}: give a run "
                "that was trained on the same classes"
            )
        _label_split(run, data, split, folder / "coarse" / split)
    return folder / "coarse"


def _checkpoint_of(run: pathlib.Path, epoch: int) -> pathlib.Path:
    """Returns the folder of a run, or of its checkpoint after an epoch."""
    if not epoch:
        return run
    with checkpoint.open_run(run) as store:
        step = epoch * store.meta(store.latest)["epoch_steps"]
        if step not in store.steps:
            raise errors.InputError(
                f"{run} has no checkpoint of epoch {epoch} (step {step}), only of the "
                f"steps {store.steps}; train it with --config.keep_epochs=({epoch},), "
                "or set --config.coarse.epoch=0 for its final weights"
            )
        return store.path(step)


def _label_split(
    run: trained.Trained, data: dataset.Dataset, split: str, target: pathlib.Path
) -> None:
    """Writes the label maps of a split, unless they are there already."""
    origin = {"weights": run.weights_hash, "split": data.info.split_hash}
    done = target / ORIGIN
    if done.is_file() and json.loads(done.read_text()) == origin:
        return
    target.mkdir(parents=True, exist_ok=True)
    reader = scenes.open_scenes(data.scenes_dir, split)
    label = engine.make_engine(run.method, run.config, tta=False, probabilities=False)
    shown = [scenes.PreparedScene(reader, index) for index in range(len(reader))]

    def label_own() -> None:
        own = len(hosts.share(shown))
        with report.progress(f"label {split}", "scene", own) as bar:
            for scene in evaluate.predict_scenes(label, run.variables, shown):
                info = reader.scenes[scene.index]
                output.write_mask(
                    target, scene.labels, info, data.info.colours, data.info.classes
                )
                bar.update()

    hosts.together(label_own)
    report.write_json(done, origin)
    hosts.wait()
