"""Config files and flags -> one locked ConfigDict; mistakes become sentences."""

from __future__ import annotations

import difflib
import importlib.util
import json
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from uhrjax import errors

# May differ between a run and its resumption: none of them changes a trained weight.
HARMLESS = (
    "checkpoint_every", "data.dir", "data.root", "data.split", "data.threads",
    "coarse.masks", "coarse.run", "coarse.side", "eval.", "log_every", "magnet.",
    "mesh.", "predict.", "refine",
)  # fmt: skip

SEGMENTER = "--config.segmenter="


def load_config(spec: str) -> ml_collections.ConfigDict:
    """Loads a config file.

    Args:
        spec: `path/to/file.py` or `path/to/file.py:variant`; the variant, words joined
            by commas, is handed to the file's `get_config`.

    Returns:
        The locked config: unknown keys and wrong types are refused.

    Raises:
        errors.InputError: no such file, no `get_config` in it, or an unknown variant.
    """
    name, _, variant = spec.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        folder = path.parent if path.parent.is_dir() else pathlib.Path("configs")
        known = sorted(str(p) for p in folder.glob("*.py") if p.stem != "base")
        raise errors.InputError(
            f"no config file {name!r}; found here: {', '.join(known) or 'none'} "
            "(run from the repository's root or give the full path)"
        )
    root = str(path.resolve().parent.parent)  # for `from configs import base`
    sys.path.insert(0, root)
    try:
        found = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise errors.InputError(
                f"{name} has no function get_config(variant), so it is no config file"
            )
        config = module.get_config(variant)
    except SyntaxError as error:
        raise errors.InputError(
            f"{error.filename}:{error.lineno}: {error.msg}"
        ) from error
    finally:
        sys.path.remove(root)
    return config.lock()


def parse_flags(argv: list[str]) -> tuple[str | None, list[str]]:
    """Reads `--config=FILE[:VARIANT]`, its overrides `--config.a.b=v`, and other flags.

    Args:
        argv: the command line with the program's name first; flags that are not about
            the config are parsed into `flags.FLAGS`.

    Returns:
        FILE[:VARIANT] if it was given, and the overrides.

    Raises:
        errors.InputError: an unknown flag, or a wrong value.
    """
    spec, overrides, rest = _split(argv)
    flags.FLAGS.unparse_flags()  # of a call before in this process
    try:
        left = flags.FLAGS(rest)
    except flags.Error as error:
        raise errors.InputError(str(error).replace("\n", " ")) from error
    if len(left) > 1:
        raise errors.InputError(
            f"unknown argument {left[1]!r}; flags look like --config.key=value"
        )
    return spec, overrides


def from_command(spec: str | None, overrides: list[str]) -> ml_collections.ConfigDict:
    """Returns the config that a command line asks for, checked."""
    if spec is None:
        raise errors.InputError(
            "no --config; say which recipe, e.g. --config=configs/pfnet.py:synthetic"
        )
    config = override(load_config(spec), overrides)
    check(config)
    return config


def override(
    config: ml_collections.ConfigDict, overrides: list[str]
) -> ml_collections.ConfigDict:
    """Returns the config with `--config.key=value` arguments applied to it.

    Raises:
        errors.InputError: an unknown key, or a value of another type.
    """
    for argument in overrides:
        key = argument[len("--config.") :].partition("=")[0]
        _make_room(config, key)
        _check_key(config, key)
    parsed, line = flags.FlagValues(), ["config", *overrides]
    holder = config_flags.DEFINE_config_dict(
        "config", config, flag_values=parsed, sys_argv=line
    )
    try:
        parsed(line)
    except (flags.Error, TypeError, ValueError, SyntaxError) as error:
        text = str(error).replace("\n", " ")
        raise errors.InputError(f"{text} (of {' '.join(overrides)})") from error
    return holder.value


def _make_room(config: ml_collections.ConfigDict, key: str) -> None:
    """Lets `stages.NAME.KEY` be set for every KEY of the config."""
    group, _, rest = key.partition(".")
    name, _, own = rest.partition(".")
    if group != "stages" or not own or "stages" not in config:
        return
    _check_key(config, own)
    *path, leaf = own.split(".")
    with config.unlocked():
        node, common = config.stages, config
        for part in (name, *path):
            node[part] = node.get(part, ml_collections.ConfigDict())
            node = node[part]
        for part in path:
            common = common[part]
        if leaf not in node:
            node[leaf] = common[leaf]


def _split(argv: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Splits a command line into the spec, the config's overrides, and the rest."""
    spec, overrides, rest = None, [], []
    words = iter(argv)
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("--", "-", 1)
        if name != "-config" and not name.startswith("-config."):
            rest.append(word)
            continue
        if not equals:
            value = next(words, "")
        if name == "-config":
            spec = value
        else:
            overrides.append(f"-{name}={value}")
    if spec is not None:  # a network's name is a word of recipes with one inside
        for argument in filter(lambda a: a.startswith(SEGMENTER), list(overrides)):
            overrides.remove(argument)
            spec += ("," if ":" in spec else ":") + argument.removeprefix(SEGMENTER)
    return spec, overrides, rest


def _check_key(config: ml_collections.ConfigDict, key: str) -> None:
    node: Any = config
    for depth, part in enumerate(key.split(".")):
        known = list(node) if isinstance(node, ml_collections.ConfigDict) else []
        if part not in known:
            where = ".".join(["config", *key.split(".")[:depth]])
            near = difflib.get_close_matches(part, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise errors.InputError(
                f"unknown config key {key!r}{hint} {where} has: {', '.join(known)}"
            )
        node = node[part]
    if isinstance(node, ml_collections.ConfigDict):
        raise errors.InputError(
            f"config.{key} is a group; set one of its keys: {', '.join(node)}"
        )


CHOICES = {
    "dtype": ("float32", "bfloat16"),
    "grid": ("shifted", "even"),
    "accumulate_how": ("mean", "sum"),
    "optimizer.name": ("sgd", "adam"),
    "optimizer.decay": ("all", "conv"),
    "schedule.per": ("epoch", "step"),
    "data.layout": ("patches", "scenes"),
    "data.unit": ("patches", "scenes", "overviews", "scales", "resident"),
    "eval.select": ("best", "last"),
    "eval.protocol": ("scene", "crops"),
    "eval.blend": ("average", "hann", "gaussian", "montage"),
    "eval.score": ("probabilities", "logits"),
    "init_what": ("backbone", "model"),
}
AT_LEAST = {
    "tile": 1, "stride": 1, "batch_size": 1, "accumulate": 1, "epochs": 1,
    "log_every": 1, "checkpoint_every": 1, "max_steps": 0, "seed": 0, "sub_batch": 0,
    "num_classes": 0, "data.threads": 1, "eval.every": 1, "eval.stride": 1,
    "eval.batch_size": 0, "eval.panels": 0, "optimizer.weight_decay": 0,
    "schedule.offset": 0, "schedule.power": 0, "schedule.warmup": 0,
}  # fmt: skip


def check(config: ml_collections.ConfigDict) -> None:
    """Refuses values that cannot work, before anything is loaded or compiled."""
    values = flatten(config.to_dict())
    missing = [key for key in (*AT_LEAST, *CHOICES) if key not in values]
    if missing:
        raise errors.InputError(
            f"the config lacks {', '.join(missing)}; it was made for another version "
            "of uhrjax: train again, or use that version"
        )

    def need(claim: bool, key: str, allowed: str) -> None:
        if not claim:
            raise errors.InputError(
                f"config.{key}={values[key]!r} does not work: {allowed}"
            )

    for key, lowest in AT_LEAST.items():
        need(values[key] >= lowest, key, f"use {lowest} or more")
    for key, allowed in CHOICES.items():
        need(values[key] in allowed, key, f"use one of {', '.join(allowed)}")
    for key in ("stride", "eval.stride"):
        gap = f"use at most tile = {config.tile} (stride = tile - overlap)"
        need(values[key] <= config.tile, key, gap)
    divisor = f"use a divisor of batch_size = {config.batch_size}"
    need(config.batch_size % config.accumulate == 0, "accumulate", divisor)
    need(config.learning_rate > 0, "learning_rate", "use a number above 0")
    share = "use a share of all steps, below 1"
    need(config.schedule.warmup < 1, "schedule.warmup", share)
    for key in ("data.augment.scale", "data.augment.blur"):
        pair = "use () for none or (lowest, highest), both above 0"
        value = values[key]
        need(len(value) in (0, 2) and all(v > 0 for v in value), key, pair)
    whole = "batches of scenes or overviews are not divided; use 1 (and sub_batch)"
    need(config.accumulate == 1 or config.data.unit == "patches", "accumulate", whole)
    if "mesh.space" in values:
        need(config.mesh.space >= 1, "mesh.space", "use 1 (no sharing) or more")
        whole = config.data.unit in ("resident", "scales")
        only = "scenes on the device are not shared; use 1"
        need(config.mesh.space == 1 or not whole, "mesh.space", only)
    if config.data.unit == "resident":
        _check_resident(values, need)
    if config.data.unit == "scales":
        own = "recipes like configs/magnet.py have the keys for it; use 'patches'"
        need({"magnet.n_points", "magnet.crf"} <= set(values), "data.unit", own)
        for key, only in (("data.layout", "scenes"), ("eval.protocol", "scene")):
            need(values[key] == only, key, f"whole scenes are labelled; use {only!r}")
    one_scale = "random windows of scenes have one scale; use () or layout 'patches'"
    scaled = config.data.augment.scale and config.data.layout == "scenes"
    scaled = scaled and config.data.unit != "scales"
    need(not scaled, "data.augment.scale", one_scale)


def _check_resident(values: Mapping[str, Any], need: Callable[..., None]) -> None:
    """Checks the keys of runs whose scenes lie on the device."""
    own = "recipes like configs/foveation.py have the keys for it; use 'patches'"
    need({"locations.per_step", "eval.rate"} <= set(values), "data.unit", own)
    for key in ("per_step", "per_iteration", "repeats"):
        need(values[f"locations.{key}"] >= 1, f"locations.{key}", "use 1 or more")
    together = values["locations.per_step"]
    whole = f"use a multiple of locations.per_step = {together}"
    exact = values["locations.per_iteration"] % together == 0
    need(exact, "locations.per_iteration", whole)
    need(values["eval.rate"] >= 0, "eval.rate", "use 0 (the model's scale) or more")
    known = ("sum", "max_score")
    rule = f"use one of {', '.join(known)}"
    need(values["eval.aggregation"] in known, "eval.aggregation", rule)
    for key, only, why in (
        ("data.layout", "scenes", "whole scenes are trained on; use 'scenes'"),
        ("eval.protocol", "scene", "whole scenes are labelled; use 'scene'"),
        ("data.augment.scale", (), "whole scenes are trained on; use ()"),
    ):
        need(values[key] == only, key, why)


def for_stage(
    config: ml_collections.ConfigDict, name: str, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Returns the config of one stage, checked.

    Args:
        config: of all stages.
        name: of this one; `config.stages.<name>` comes after `changes`.
        changes: dotted key -> value.
    """
    own = config.stages.get(name, ml_collections.ConfigDict())
    changed = ml_collections.ConfigDict(config.to_dict())
    for key, value in {**changes, **flatten(own.to_dict())}.items():
        group, _, leaf = key.rpartition(".")
        if isinstance(value, Mapping):  # a whole group, of another method
            value = ml_collections.ConfigDict(value)
        else:
            _check_key(changed, key)
        node = changed
        for part in filter(None, group.split(".")):
            node = node[part]
        node[leaf] = value
    changed.stage, changed.stages = name, ml_collections.ConfigDict()
    changed.refiner = ml_collections.ConfigDict()
    check(changed)
    return changed.lock()


def space(config: ml_collections.ConfigDict) -> int:
    """Returns how many devices share the rows of one sample."""
    return config.mesh.space if "mesh" in config else 1  # runs of older versions


def to_json(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the config as plain JSON values (tuples become lists)."""
    return json.loads(config.to_json_best_effort())


def from_json(tree: dict[str, Any]) -> ml_collections.ConfigDict:
    """Returns the locked config that `to_json` was given (lists become tuples)."""

    def restore(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: restore(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return tuple(restore(inner) for inner in value)
        return value

    return ml_collections.ConfigDict(restore(tree)).lock()


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns `key: old -> new` for every key that matters and differs."""
    flat_one, flat_other = flatten(one), flatten(other)
    return [
        f"{key}: {flat_one.get(key)!r} -> {flat_other.get(key)!r}"
        for key in sorted(flat_one.keys() | flat_other.keys())
        if flat_one.get(key) != flat_other.get(key) and not key.startswith(HARMLESS)
    ]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns {"a.b": value} of nested mappings."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def slug(settings: Iterable[tuple[str, str]]) -> list[str]:
    """Returns settings, (key, value) pairs, as parts of a folder's name."""
    return [f"{key.rpartition('.')[2]}={_word(value)}" for key, value in settings]


def _word(value: str) -> str:
    """Returns a value in characters that every shell and file system takes."""
    kept = re.sub("[^A-Za-z0-9_.,-]", "", value).strip(",")
    return kept.replace(",", "+") or "none"
