"""Conversion of published weights and the readers of their files."""

import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from uhrjax import weights
from uhrjax.errors import InputError


def shape(*sides):
    return jax.ShapeDtypeStruct(sides, np.float32)


TEMPLATE = {
    "params": {
        "stem_0": {"conv": {"kernel": shape(3, 5, 2, 4), "bias": shape(4)}},
        "stem_1": {"scale": shape(4), "bias": shape(4)},
    },
    "batch_stats": {"stem_1": {"mean": shape(4), "var": shape(4)}},
}
NAMES = ((r"^stem\.0\.", "stem.0.conv."),)


@pytest.fixture
def state_dict():
    rng = np.random.default_rng(0)
    return {
        "stem.0.weight": rng.normal(size=(4, 2, 3, 5)),
        "stem.0.bias": rng.normal(size=4),
        "stem.1.weight": rng.normal(size=4),
        "stem.1.bias": rng.normal(size=4),
        "stem.1.running_mean": rng.normal(size=4),
        "stem.1.running_var": rng.random(4),
        "stem.1.num_batches_tracked": np.array(7),
    }


@pytest.mark.parametrize("prefix", ["", "module."])
def test_conversion_moves_axes_and_renames_leaves(state_dict, prefix):
    given = {prefix + name: value for name, value in state_dict.items()}
    filled = weights.from_torch(given, TEMPLATE, names=NAMES)
    kernel = filled["params"]["stem_0"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    assert kernel[2, 4, 1, 3] == np.float32(state_dict["stem.0.weight"][3, 1, 2, 4])
    norm = filled["batch_stats"]["stem_1"]
    np.testing.assert_allclose(norm["var"], state_dict["stem.1.running_var"], 1e-6)


def test_every_name_without_a_partner_is_listed_on_both_sides(state_dict):
    del state_dict["stem.1.bias"], state_dict["stem.1.running_mean"]
    state_dict |= {"fc.weight": np.zeros((9, 4)), "fc.bias": np.zeros(9)}
    state_dict["stem.0.bias"] = np.zeros(5)
    with pytest.raises(InputError) as error:
        weights.from_torch(state_dict, TEMPLATE, names=NAMES)
    text = str(error.value)
    assert "absent from the file (2)" in text and "unknown to the model (2)" in text
    for name in ("stem_1.bias", "stem_1.running_mean", "fc.weight", "fc.bias"):
        assert name in text
    assert "stem.0.bias (5,), needed (4,)" in text


def test_a_name_given_twice_is_refused(state_dict):
    state_dict["module.stem.0.bias"] = np.zeros(4)
    with pytest.raises(InputError, match="given twice"):
        weights.from_torch(state_dict, TEMPLATE, names=NAMES)


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_files_are_read_as_written(tmp_path, state_dict, ending):
    path = tmp_path / f"weights{ending}"
    if ending == ".npz":
        np.savez(path, **state_dict)
    else:
        safetensors.numpy.save_file(state_dict, path)
    found = weights.read_state_dict(path)
    assert found.keys() == state_dict.keys()
    for name, value in state_dict.items():
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut short"])
@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_damaged_file_says_so(tmp_path, ending, content):
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match="fetch it again"):
        weights.read_state_dict(path)


def test_a_truncated_npz_says_so(tmp_path, state_dict):
    path = tmp_path / "weights.npz"
    np.savez(path, **state_dict)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match="fetch it again"):
        weights.read_state_dict(path)


def test_pickled_arrays_are_not_loaded(tmp_path):
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="cannot be read"):
        weights.read_state_dict(path)


def test_pth_without_torch_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    path = tmp_path / "weights.pth"
    path.touch()
    with pytest.raises(InputError, match="needs torch"):
        weights.read_state_dict(path)


def test_absent_files_and_unknown_endings_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        weights.read_state_dict(tmp_path / "a.npz")
    with pytest.raises(InputError, match=r"use one of \.npz"):
        weights.read_state_dict(tmp_path / "a.h5")


@pytest.mark.parametrize("sides", [(4, 6), (4, 6, 1), (4, 6, 1, 1)])
def test_a_linear_and_a_one_dimensional_layer_fit_a_1x1_convolution(sides):
    kernel = np.random.default_rng(0).normal(size=sides)
    template = {"params": {"head": {"kernel": shape(1, 1, 6, 4)}}}
    found = weights.from_torch({"head.weight": kernel}, template)
    expected = kernel.reshape(4, 6).T.astype(np.float32)
    np.testing.assert_array_equal(found["params"]["head"]["kernel"][0, 0], expected)


def test_a_wider_layer_does_not_fit_a_1x1_convolution():
    template = {"params": {"head": {"kernel": shape(1, 1, 6, 4)}}}
    with pytest.raises(InputError, match="of another shape"):
        weights.from_torch({"head.weight": np.zeros((4, 6, 2))}, template)
