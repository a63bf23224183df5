import jax.numpy as jnp
import numpy as np

from uhrjax.ops import symmetry


def test_there_are_eight_symmetries_and_each_is_undone():
    x = jnp.arange(2 * 9 * 3).reshape(2, 3, 3, 3)
    seen = set()
    for turn, back in zip(symmetry.turns(1), symmetry.turns(1, back=True), strict=True):
        seen.add(np.asarray(turn(x)).tobytes())
        np.testing.assert_array_equal(back(turn(x)), x)
    assert len(seen) == 8
