"""Label maps that somebody already has, refined: --mode=refine."""

from __future__ import annotations

import pathlib

from uhrjax import cascade, errors, inference, predict, refine, stepwise, trained
from uhrjax import engine as engine_lib
from uhrjax.data import mask_file, raster

LISTED = 5  # files named in one message
PROBABILITIES = "_probabilities"  # what a prediction adds to the name of its scene


def load_refiner(source: str | pathlib.Path, overrides: list[str]) -> trained.Trained:
    """Loads a run of a refining network; of several stages, the last one.

    Raises:
        FileNotFoundError: there is no such run.
        errors.InputError: it labels images.
    """
    path = pathlib.Path(source).expanduser()
    if order := trained.stage_order(path):
        path = path / order[-1]
    run = trained.load_run(path, overrides)
    if not (run.method.reads_labels or looks_at_images(run)):
        raise errors.InputError(
            f"{source} is a run of {run.config.method}, which labels images; "
            "--mode=refine takes a run that refines label maps (configs/refinement.py, "
            "configs/cascadepsp.py, configs/magnet.py), --mode=predict this one"
        )
    return run


def refine_files(
    run: trained.Trained, pattern: str, images: str, folder: str | pathlib.Path
) -> dict[pathlib.Path, str]:
    """Refines label maps; all else is as in `predict.label_files`.

    Args:
        run: from `load_refiner`.
        pattern: a label map, a folder of them, or a glob.
        images: the same of what they label, each named as its label map; "": none.
        folder: for the output; made if absent.

    Returns:
        The files that failed, with the reason.

    Raises:
        FileNotFoundError: nothing is there.
        errors.InputError: label maps lack an image that the run looks at.
    """
    paths = mask_file.leave_out_other_files(raster.list_scenes(pattern))
    if looks_at_images(run) and not images:
        raise errors.InputError(
            f"{run.config.method} looks at the images, too: --images='scenes/*.tif', "
            "each named as its label map"
        )
    found = _match(paths, raster.list_scenes(images)) if images else {}
    reading = predict.read_options(run.config)

    def open_scene(path: pathlib.Path) -> mask_file.MaskFile:
        image = found.get(path)
        return mask_file.open_mask(
            path, run.classes, image=image, reading=reading,
            probabilities=run.method.progressive,
        )  # fmt: skip

    return predict.label_files(run, make_engine(run), paths, open_scene, folder)


def looks_at_images(run: trained.Trained) -> bool:
    """Whether a run refines label maps by the images that they label."""
    return run.method.refines or run.method.progressive


def make_engine(
    run: trained.Trained,
) -> inference.Engine | refine.MaskEngine | stepwise.MapEngine:
    """Returns the engine that refines label maps with a run."""
    if run.method.progressive:
        return stepwise.MapEngine(engine_lib.make_engine(run.method, run.config))
    if run.method.reads_labels:
        return engine_lib.make_engine(run.method, run.config, tta=False)
    if engine_lib.output_options(run.config).needs_probabilities:
        engine_lib.refuse_probabilities(run)
    return refine.MaskEngine(run.method, side=run.config.coarse.side or cascade.SIDE)


def _match(
    masks: list[pathlib.Path], images: list[pathlib.Path]
) -> dict[pathlib.Path, pathlib.Path]:
    """Returns the image of every label map, by the name without its ending."""
    stems = {mask: mask.stem.removesuffix(PROBABILITIES) for mask in masks}
    by_stem: dict[str, pathlib.Path] = {}
    for image in images:
        other = by_stem.setdefault(image.stem, image)
        if other != image:
            raise errors.InputError(
                f"{other} and {image} are both named {image.stem}; give --images that "
                "tell which belongs to the label map of that name"
            )
    lonely = [mask.name for mask in masks if stems[mask] not in by_stem]
    if lonely:
        more = f" and {len(lonely) - LISTED} more" if len(lonely) > LISTED else ""
        raise errors.InputError(
            f"{len(lonely)} label maps have no image of their name among --images: "
            f"{', '.join(lonely[:LISTED])}{more}; a.png belongs to a.tif"
        )
    return {mask: by_stem[stems[mask]] for mask in masks}
