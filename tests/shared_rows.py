"""Steps of a small network on meshes of eight devices; prints figures as JSON.

python tests/shared_rows.py, with eight devices and the repository in PYTHONPATH
"""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pixel
import suspects
from jax.sharding import AxisType, Mesh

from uhrjax import checkpoint, optimizer, sharding, update

MESHES = {"one": (1, 1), "space": (1, 8), "both": (2, 4), "data": (8, 1)}
GATHERS = r"= (.*?) (all-gather|all-reduce|collective-permute|all-to-all)(?:-start)?\("


def make_mesh(name):
    data, space = MESHES[name]
    devices = np.array(jax.devices()[: data * space]).reshape(data, space)
    return Mesh(devices, ("data", "space"), axis_types=(AxisType.Auto,) * 2)


def elements(shapes):
    """Returns the elements of the largest array in the result of an HLO operation."""
    found = re.findall(r"\[([\d,]*)\]", shapes)
    return max(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in found)


class Run:
    """One network and its batches of a certain size."""

    def __init__(self, side, batch_size):
        config = pixel.get_config()
        config.num_classes, config.tile, config.batch_size = 3, side, batch_size
        config.loss.ohem_min_kept, config.loss.loss_group = 100, 1
        self.config, self.method = config, suspects.SuspectsMethod(config)
        schedule = optimizer.poly_schedule(config, total_steps=10, epoch_steps=5)
        self.optimize = optimizer.make_optimizer(config, schedule)
        rng = np.random.default_rng(0)
        shape = (batch_size, side, side)
        self.batch = {
            "views": rng.integers(0, 256, (batch_size, 1, side, side, 3), np.uint8),
            "label": rng.integers(0, 3, shape, np.uint8),
        }

    def state(self):
        start = self.method.init(jax.random.key(0))
        return checkpoint.TrainState(
            jnp.int32(0), start["params"], start["batch_stats"],
            self.optimize.init(start["params"]),
        )  # fmt: skip

    def step(self, name):
        """Returns losses, weights after a step, and the step itself."""
        mesh = make_mesh(name)
        take = update.Update(self.method, self.optimize, self.config, mesh)
        state, losses = take(sharding.replicate(self.state(), mesh), [self.batch])
        return jax.device_get((losses, state.params, state.batch_stats)), take

    def compiled(self, name):
        """Returns the program of a step, compiled but not run."""
        mesh = make_mesh(name)
        take = update.Update(self.method, self.optimize, self.config, mesh)
        state = sharding.replicate(self.state(), mesh)
        with sharding.rows_shared(mesh):
            placed = sharding.put_batch(self.batch, mesh)
            return take._step.lower(state, placed).compile()


def distance(one, other):
    """Returns the largest difference in units of each array's largest value."""

    def of(a, b):
        return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-3))

    return max(jax.tree.leaves(jax.tree.map(of, one, other)))


def main():
    run = Run(side=64, batch_size=8)
    expected, _ = run.step("one")
    found = {"distance": {}, "collectives": {}, "temporary": {}}
    for name in ("both", "data"):
        ours, _ = run.step(name)
        pairs = zip(ours, expected, strict=True)
        found["distance"][name] = [distance(a, b) for a, b in pairs]
        text = run.compiled(name).as_text()
        kinds = found["collectives"][name] = {}
        for shapes, kind in re.findall(GATHERS, text):
            kinds.setdefault(kind, []).append(elements(shapes))
    large = Run(side=512, batch_size=1)
    for name in ("one", "space"):
        memory = large.compiled(name).memory_analysis()
        found["temporary"][name] = memory.temp_size_in_bytes
    print("FOUND " + json.dumps(found))


if __name__ == "__main__":
    main()
