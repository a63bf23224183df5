"""All that touches orbax: the latest and the best checkpoint of a run, safely.

A step's folder holds the items `params`, `batch_stats`, `opt_state` and `meta` (JSON:
config, classes, colours, split hash, scores), so that evaluation and fine-tuning read
only what they need and know what they read.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import flax.struct
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from uhrjax import errors

ITEMS = ("params", "batch_stats", "opt_state")


@flax.struct.dataclass
class TrainState:
    """Everything a training step changes."""

    step: jax.Array  # int32 scalar, steps done
    params: Any
    batch_stats: Any
    opt_state: Any


class CheckpointStore:
    """The checkpoints of one run, in `<workdir>/checkpoints`."""

    def __init__(self, workdir: str | pathlib.Path, keep: Sequence[int] = ()):
        """Opens or makes them.

        Args:
            workdir: of the run.
            keep: steps that are kept beside the latest and the best.
        """
        self._dir = pathlib.Path(workdir).resolve() / "checkpoints"
        self._dir.mkdir(parents=True, exist_ok=True)

        def miou(metrics: dict[str, float]) -> float:
            return metrics["miou"]

        keep = checkpoint_managers.AnyPreservationPolicy(
            [
                checkpoint_managers.LatestN(1),
                checkpoint_managers.CustomSteps(list(keep)),
                checkpoint_managers.BestN(
                    get_metric_fn=miou, n=1, keep_checkpoints_without_metrics=False
                ),
            ]
        )
        self._manager = ocp.CheckpointManager(
            self._dir,
            options=ocp.CheckpointManagerOptions(
                best_fn=miou, preservation_policy=keep, cleanup_tmp_directories=True
            ),
        )

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @property
    def best(self) -> int | None:
        """Step of the highest validation mIoU; the latest where none has a score."""
        best = self._manager.best_step()
        return self.latest if best is None else best

    @property
    def selected(self) -> int | None:
        """The step that stands for the run, as its `config.eval.select` says."""
        if self.latest is None:
            return None
        last = self.meta(self.latest)["config"]["eval"].get("select") == "last"
        return self.latest if last else self.best

    @property
    def steps(self) -> list[int]:
        """All steps that are there, rising."""
        return sorted(self._manager.all_steps())

    def path(self, step: int) -> pathlib.Path:
        """Returns the folder of a step."""
        return self._dir / str(step)

    def save(
        self, state: TrainState, meta: dict[str, Any], miou: float | None = None
    ) -> None:
        """Saves a state; it appears under its final name only when it is complete.

        Returns at once, the writing goes on behind; `wait` ends it.

        Raises:
            OSError: the disk is too full (checked before anything is written).
        """
        step = int(state.step)
        self.wait()
        self._check_space(state)
        items = {
            name: ocp.args.StandardSave(getattr(state, name))
            for name in ITEMS
            if jax.tree.leaves(getattr(state, name))
        }
        items["meta"] = ocp.args.JsonSave({**meta, "step": step, "miou": miou})
        metrics = None if miou is None else {"miou": miou}
        with _plain_disk_errors(self._dir):
            self._manager.save(
                step, args=ocp.args.Composite(**items), metrics=metrics, force=True
            )

    def meta(self, step: int) -> dict[str, Any]:
        """Returns the JSON beside the weights of a step."""
        with _plain_read_errors(self.path(step)):
            args = ocp.args.Composite(meta=ocp.args.JsonRestore())
            return self._manager.restore(step, args=args)["meta"]

    def restore(
        self, step: int, state: TrainState, names: tuple[str, ...] = ITEMS
    ) -> TrainState:
        """Reads items of a step.

        Args:
            step: one of this run's.
            state: gives structure, shapes and shardings (arrays or ShapeDtypeStructs).
            names: which items; the others stay as in `state`.

        Returns:
            The state with the items read and `step` set.
        """
        items = {
            name: ocp.args.StandardRestore(
                jax.tree.map(ocp.utils.to_shape_dtype_struct, getattr(state, name))
            )
            for name in names
            if jax.tree.leaves(getattr(state, name))
        }
        with _plain_read_errors(self.path(step)):
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        step_array = jax.device_put(jax.numpy.int32(step), state.step.sharding)
        return state.replace(step=step_array, **{n: found[n] for n in items})

    def read_variables(self, step: int) -> dict[str, Any]:
        """Returns `params` and `batch_stats` of a step as they are stored."""
        folder, found = self.path(step), {}
        with _plain_read_errors(folder):
            for name in ("params", "batch_stats"):
                if (folder / name).is_dir():
                    found[name] = _read_whole(folder / name)
        return jax.tree.map(jax.numpy.asarray, found)

    def wait(self) -> None:
        """Returns when everything saved so far is on the disk."""
        with _plain_disk_errors(self._dir):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def close(self) -> None:
        """Finishes writing and lets go of the folder."""
        self.wait()
        self._manager.close()

    def _check_space(self, state: TrainState) -> None:
        need = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        free = shutil.disk_usage(self._dir).free
        if free < 1.1 * need:
            raise OSError(
                f"no room for a checkpoint in {self._dir}: it takes {need / 1e6:.0f} "
                f"MB, {free / 1e6:.0f} MB are free; the last complete one is step "
                f"{self.latest}; make room and run the same command to go on from it"
            )


def _read_whole(folder: pathlib.Path) -> Any:
    """Returns a tree of numpy arrays, whatever devices it was saved from."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(folder).item_metadata.tree
        plain = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return reader.restore(folder, args=ocp.args.PyTreeRestore(restore_args=plain))


@contextlib.contextmanager
def _plain_disk_errors(where: pathlib.Path) -> Iterator[None]:
    """Turns orbax' and tensorstore's reports of a failed write into one OSError."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        signs = ("No space left", "RESOURCE_EXHAUSTED", "File too large", "Disk quota")
        if not isinstance(error, OSError) and not any(sign in text for sign in signs):
            raise
        raise OSError(
            f"could not write a checkpoint to {where}: {text[:300]}; the last complete "
            "one is untouched: make room (or pick another --workdir) and run the same "
            "command to go on from it"
        ) from error


@contextlib.contextmanager
def _plain_read_errors(path: pathlib.Path) -> Iterator[None]:
    """Turns what goes wrong while reading a checkpoint into one InputError."""
    try:
        yield
    except Exception as error:
        text = " ".join(str(error).split())
        raise errors.InputError(
            f"checkpoint {path} cannot be read: {text[:300]}; it is damaged or belongs "
            "to another network; delete that folder to go on from an earlier one, or "
            "give the run another --workdir"
        ) from error


def open_run(workdir: str | pathlib.Path) -> CheckpointStore:
    """Opens the checkpoints of an existing run.

    Raises:
        FileNotFoundError: there is no complete checkpoint in `workdir`.
    """
    path = pathlib.Path(workdir)
    if not (path / "checkpoints").is_dir():
        raise FileNotFoundError(
            f"{path} holds no run: no folder 'checkpoints' in it; give the --workdir "
            "of a training run"
        )
    store = CheckpointStore(path)
    if store.latest is None:
        raise FileNotFoundError(
            f"{path} holds no complete checkpoint yet; train first, or look for "
            "another run"
        )
    return store
