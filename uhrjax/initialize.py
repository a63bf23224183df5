"""Where the first weights come from: random, an ImageNet file, or another run."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from uhrjax import checkpoint, errors, subtree, weights
from uhrjax.methods import base

# (subtree here, run it comes from, subtree there); paths as in `subtree`.
Starts = Sequence[tuple[str, pathlib.Path, str]]
PARTS = ("encoder", "decoder", "foveater")  # Foveation's files


def start_variables(
    config: ml_collections.ConfigDict, method: base.Method, starts: Starts = ()
) -> dict[str, Any]:
    """Returns the variables that training starts from.

    `config.init_from` is "" (random), a run folder of ours, a weight file
    (.safetensors, .npz, .pth) or several, see `_parts`; `config.init_what` says whether
    it fills the whole model or its backbone. Then `starts` overrides subtrees, one
    after the other.

    Raises:
        errors.InputError: with every name that matches on one side only.
        FileNotFoundError: no such file or folder.
    """
    return _from_stages(_from_config(config, method), starts)


def _from_config(
    config: ml_collections.ConfigDict, method: base.Method
) -> dict[str, Any]:
    fresh = method.init(jax.random.key(config.seed))
    if not config.init_from:
        print(f"weights      random, seed {config.seed}")
        return fresh
    whole = config.init_what == "model"
    path = pathlib.Path(config.init_from).expanduser()
    if parts := _parts(config.init_from):
        if not whole:
            raise errors.InputError(
                f"config.init_from={config.init_from!r} are the parts of a whole "
                "network; set --config.init_what=model"
            )
        print(f"weights      model from {', '.join(map(str, parts.values()))}")
        return method.import_torch(_read_parts(parts))
    if not path.exists():
        raise FileNotFoundError(
            f"config.init_from={config.init_from!r} does not exist; give a run folder "
            "or a .safetensors, .npz or .pth file, or the files of the parts "
            "encoder, decoder and foveater, joined by commas"
        )
    if path.is_dir():
        found = read_run(path)
        result = fill(
            fresh, found, only=None if whole else "backbone", origin=str(path)
        )
    else:
        state_dict = weights.read_state_dict(path)
        result = (
            method.import_torch(state_dict)
            if whole
            else method.import_backbone(fresh, state_dict)
        )
    print(f"weights      {config.init_what} from {path}")
    return result


def _parts(given: str) -> dict[str, pathlib.Path]:
    """Returns the files of a network that is published in parts, part -> file.

    Args:
        given: files joined by commas, in the order of `PARTS` unless their names say
            which is which, or a folder of them; else there are no parts.
    """
    paths = [pathlib.Path(word.strip()).expanduser() for word in given.split(",")]
    if len(paths) == 1:
        (folder,) = paths
        if not folder.is_dir() or (folder / "checkpoints").is_dir():
            return {}
        paths = sorted(
            path
            for path in folder.iterdir()
            if any(part in path.stem for part in PARTS)
        )
    named = [[part for part in PARTS if part in path.stem] for path in paths]
    if not any(named) and len(paths) <= len(PARTS):
        named = [[part] for part in PARTS[: len(paths)]]
    words = [part for parts in named for part in parts]
    if not paths or len(words) != len(paths) or len(set(words)) != len(words):
        raise errors.InputError(
            f"config.init_from={given!r}: give one file per part, "
            f"{', '.join(PARTS)} (without a foveation module the first two), in this "
            "order or with these words in their names, or a folder with such files"
        )
    return dict(zip(words, paths, strict=True))


def _read_parts(parts: dict[str, pathlib.Path]) -> dict[str, np.ndarray]:
    """Returns the state dicts of parts as one, every name behind that of its part."""
    merged = {}
    for part, path in parts.items():
        for name, value in weights.read_state_dict(path).items():
            bare = name.removeprefix("module.").removeprefix(f"{part}.")
            merged[f"{part}.{bare}"] = value
    return merged


def _from_stages(variables: dict[str, Any], starts: Starts) -> dict[str, Any]:
    read: dict[pathlib.Path, dict[str, Any]] = {}
    for ours, run, theirs in starts:
        if run not in read:
            read[run] = read_run(run)
        origin = f"{run} ({theirs or 'all'})"
        for kind, tree in variables.items():
            there = _take(read[run].get(kind, {}), theirs)
            here = _take(tree, ours)
            if here is None and there is None:
                continue  # e.g. a subtree without batch statistics
            filled = fill(
                {kind: here or {}}, {kind: there or {}}, only=None, origin=origin
            )
            # Copies: two subtrees may start from one, and training gives both away.
            copied = jax.tree.map(jnp.copy, filled[kind])
            variables = {**variables, kind: subtree.put(tree, ours, copied)}
        print(f"weights      {ours or 'all'} from {origin}")
    return variables


def _take(tree: dict[str, Any], path: str) -> Any:
    try:
        return subtree.take(tree, path)
    except KeyError:
        return None


def read_run(workdir: pathlib.Path) -> dict[str, Any]:
    """Returns `params` and `batch_stats` that stand for a run, as stored."""
    store = checkpoint.open_run(workdir)
    try:
        return store.read_variables(store.selected)
    finally:
        store.close()


def fill(
    target: dict[str, Any], source: dict[str, Any], *, only: str | None, origin: str
) -> dict[str, Any]:
    """Copies weights by name; both sides must agree completely.

    Args:
        target: variables whose structure and shapes are wanted.
        source: variables to take from.
        only: a first path part (`backbone`) that the copy is restricted to; the rest
            of `target` stays.
        origin: for messages.

    Raises:
        errors.InputError: listing all names or shapes that differ.
    """

    def wanted(tree: dict[str, Any]) -> dict[tuple[str, ...], jax.Array]:
        leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
        named = {tuple(str(k.key) for k in path): leaf for path, leaf in leaves}
        return {p: leaf for p, leaf in named.items() if only in (None, p[1])}

    ours, theirs = wanted(target), wanted(source)
    if only and not ours:
        raise errors.InputError(
            f"this network has no {only} of its own to take from {origin}; set "
            "--config.init_what=model to take every weight"
        )
    problems = [f"missing there: {'/'.join(p)}" for p in ours if p not in theirs]
    problems += [f"unknown here: {'/'.join(p)}" for p in theirs if p not in ours]
    problems += [
        f"shape of {'/'.join(p)}: {theirs[p].shape} there, {ours[p].shape} here"
        for p in ours
        if p in theirs and ours[p].shape != theirs[p].shape
    ]
    if problems:
        raise errors.InputError(
            f"the weights of {origin} do not fit this network; nothing was loaded: "
            + "; ".join(problems)
        )

    def pick(path: Any, leaf: jax.Array) -> jax.Array:
        return theirs.get(tuple(str(k.key) for k in path), leaf)

    return jax.tree_util.tree_map_with_path(pick, target)


def weights_hash(variables: dict[str, Any]) -> str:
    """Returns 16 hex digits that change with any weight or name."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(variables)[0]:
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]
