"""Published PyTorch weights -> linen variables: the one converter and file readers.

A linen leaf `neck/lateral_0/conv/kernel` carries the PyTorch name
`neck.lateral_0.conv.weight`; `_` and `.` count as equal, so `layer1_0/conv1` is also
`layer1.0.conv1`. A model whose own names differ brings (pattern, replacement) pairs.
"""

import math
import pathlib
import re
import zipfile
from collections.abc import Iterable, Mapping

import jax
import numpy as np

from uhrjax.errors import InputError

# Regular expression and replacement, applied in order to a PyTorch name.
Names = Iterable[tuple[str, str]]
_LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def from_torch(
    state_dict: Mapping[str, np.ndarray], template: Mapping, *, names: Names = ()
) -> dict:
    """Fills the leaves of `template` from a state dict; both must match completely.

    `num_batches_tracked` has no counterpart and is dropped; a prefix `module.` is, too.

    Args:
        state_dict: PyTorch name -> array; kernels [out, in, height, width].
        template: {"params": ..., "batch_stats": ...} of arrays or shapes.
        names: renames from PyTorch's names to the template's.

    Returns:
        A tree like `template` of numpy arrays in the template's dtypes.

    Raises:
        InputError: listing every name of either side without a partner and every wrong
            shape.
    """
    names = list(names)
    given, twice = {}, []
    for name, value in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        key = _rename(name.removeprefix("module."), names).replace(".", "_")
        twice += [name] if key in given else []
        given[key] = (name, np.asarray(value))
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    filled, absent, misshapen = [], [], []
    for path, leaf in leaves:
        parts = [entry.key for entry in path[1:]]  # without "params" or "batch_stats"
        wanted = ".".join([*parts[:-1], _LEAF_NAMES.get(parts[-1], parts[-1])])
        name, value = given.pop(wanted.replace(".", "_"), (None, None))
        if name is None:
            absent.append(f"{wanted} {tuple(leaf.shape)}")
            continue
        value = _to_linen(value)
        if (
            leaf.shape == (1, 1, *value.shape[-2:])
            and math.prod(leaf.shape) == value.size
        ):
            value = value.reshape(leaf.shape)  # of a linear or a 1-D layer
        if value.shape != leaf.shape:
            misshapen.append(f"{name} {value.shape}, needed {tuple(leaf.shape)}")
        filled.append(value.astype(leaf.dtype))
    unknown = [f"{name} {value.shape}" for name, value in given.values()]
    _refuse_mismatch(absent=absent, unknown=unknown, misshapen=misshapen, twice=twice)
    return jax.tree_util.tree_unflatten(structure, filled)


def without_wrapper(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns a network that MagNet's code saved together with its loss.

    Its names have "model." in front (or behind "module."), the loss' have "loss.".
    """
    bare = {name.replace("model.", ""): value for name, value in state_dict.items()}
    return {
        name: value
        for name, value in bare.items()
        if not name.removeprefix("module.").startswith("loss.")
    }


def read_state_dict(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """Reads {PyTorch name: array} from a .npz, .safetensors or .pth file.

    A .pth file needs torch; of a training checkpoint its `state_dict` is read.
    """
    path = pathlib.Path(path)
    readers = {
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".pth": _read_pth,
        ".pt": _read_pth,
    }
    if path.suffix not in readers:
        raise InputError(
            f"cannot read weights from {path}: the ending {path.suffix!r} is unknown; "
            f"use one of {', '.join(readers)}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no weights file {path}; check the path")
    return readers[path.suffix](path)


def _rename(name: str, names: Names) -> str:
    for pattern, replacement in names:
        name = re.sub(pattern, replacement, name)
    return name


def _to_linen(value: np.ndarray) -> np.ndarray:
    """[out, in, ...] -> [..., in, out] for kernels of any rank; vectors unchanged."""
    if value.ndim < 2:
        return value
    return value.transpose(*range(2, value.ndim), 1, 0)


def _refuse_mismatch(**lists: list[str]) -> None:
    titles = {
        "absent": "needed by the model, absent from the file",
        "unknown": "in the file, unknown to the model",
        "misshapen": "of another shape (height, width, in, out)",
        "twice": "given twice",
    }
    found = {titles[kind]: entries for kind, entries in lists.items() if entries}
    if not found:
        return
    text = "\n".join(
        f"{title} ({len(entries)}):\n  " + "\n  ".join(sorted(entries))
        for title, entries in found.items()
    )
    raise InputError(
        "the weights do not fit the model; nothing was loaded. Use the config the "
        f"weights were made with, or other weights.\n{text}"
    )


def _unreadable(path: pathlib.Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be read as {path.suffix} ({error}); the file is damaged or has "
        "another format: fetch it again, or give it its true ending"
    )


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise _unreadable(path, error) from error


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import safetensors
        from safetensors import numpy as safetensors_numpy
    except ImportError as error:
        raise InputError(
            f"reading {path} needs the package safetensors; install it "
            "(pip install safetensors) or convert the weights to .npz"
        ) from error
    try:
        return safetensors_numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise _unreadable(path, error) from error


def _read_pth(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"reading {path} needs torch, which is not installed; install it, or "
            "convert the weights to .safetensors or .npz where it is"
        ) from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from KeyError to EOFError here
        raise _unreadable(path, error) from error
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in loaded.values()
    ):
        raise InputError(
            f"{path} holds no state dict; save one with torch.save(model.state_dict())"
        )
    # bfloat16 has no numpy counterpart, float32 holds it exactly.
    return {name: value.float().numpy() for name, value in loaded.items()}
