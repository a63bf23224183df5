"""What all comparisons with stored arrays share."""

import pathlib

import jax
import numpy as np
import pytest
import synthetic_weights

CASES = pathlib.Path(__file__).parent / "data"


@pytest.fixture(autouse=True)
def full_precision():
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture
def load_case():
    """Returns name -> (manifest, state dict, arrays)."""
    return lambda name: synthetic_weights.load_case(name, CASES)


@pytest.fixture
def assert_close():
    """Returns a check |a - b| <= atol + rtol |b| with the manifest's tolerances."""

    def check(manifest, name, actual, expected):
        np.testing.assert_allclose(
            actual,
            expected,
            rtol=manifest["rtol"],
            atol=manifest["atol_per_output"][name],
            err_msg=name,
        )

    return check


@pytest.fixture
def run_once():
    """Returns a runner whose sums are those of a program that users compile.

    What tests/conftest.py asks for adds up long rows one by one.
    """
    is_known = jax.__version_info__ < (0, 11)
    options = {"xla_cpu_use_fusion_emitters": True} if is_known else {}
    return lambda f, *args: jax.jit(f, compiler_options=options)(*args)
