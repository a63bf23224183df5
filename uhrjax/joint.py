"""Fewer scenes than processes: all of them label one scene together, some rows each.

The label map of a scene is finished first (in a file where it is large) and comes out
of process 0; an interrupted scene is labelled again from its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from uhrjax import errors, hosts, inference
from uhrjax.data import band as band_lib
from uhrjax.tiling import plan

T = TypeVar("T")


class JointEngine:
    """An engine of which every process runs its share of the bands of a scene."""

    def __init__(self, engine: inference.Engine):
        self._engine, self.settings = engine, engine.settings
        self.method, self.tiling = engine.method, engine.tiling

    def count_windows(self, scene: band_lib.Scene, *, first_row: int = 0) -> int:
        """Returns how many windows this process will run or skip."""
        top, bottom = self._share(scene)
        size = (scene.info.height, scene.info.width)
        bands = plan.plan_bands(*size, self.tiling, first_row=top)
        own = [band for band in bands if band.top < bottom]
        return max(sum(int(call.valid.sum()) for b in own for call in b.calls), 1)

    def label(
        self,
        variables: Any,
        scene: band_lib.Scene,
        *,
        first_row: int = 0,
        on_windows: inference.OnWindows = lambda done, skipped: None,
    ) -> Iterator[inference.Rows]:
        """Yields rows as `inference.Engine.label` does, in process 0 only.

        All processes must call it, and use up what it yields.
        """
        height, width = scene.info.height, scene.info.width
        labels = None
        if hosts.is_first():
            labels = inference.label_array(height, width)
        points: dict[str, list[np.ndarray]] = {}
        for rows in self._strips(variables, scene, on_windows):
            if labels is not None:
                labels[rows.top : rows.top + len(rows.labels)] = rows.labels
                for name, places in rows.points.items():
                    points.setdefault(name, []).append(places)
        if labels is None:
            return
        joined = {name: np.concatenate(parts) for name, parts in points.items()}
        for top in range(first_row, height, self.tiling.tile):
            strip = labels[top : top + self.tiling.tile]
            yield inference.Rows(top, strip, None, joined)
            joined = {}

    def _strips(
        self, variables: Any, scene: band_lib.Scene, on_windows: inference.OnWindows
    ) -> Iterator[inference.Rows]:
        """Yields the strips of all processes, in every process; in no order."""
        own = self._own(variables, scene, on_windows)
        while True:
            strip, problem = None, ""
            try:
                strip = next(own, None)
            except (errors.InputError, OSError) as error:
                problem = str(error)
            found = hosts.gather((strip, problem))
            for problem in filter(None, (said for _, said in found)):
                raise errors.InputError(problem)
            strips = [part for part, _ in found if part is not None]
            if not strips:
                return
            yield from strips

    def _own(
        self, variables: Any, scene: band_lib.Scene, on_windows: inference.OnWindows
    ) -> Iterator[inference.Rows]:
        """Yields the strips of this process."""
        top, bottom = self._share(scene)
        if top == bottom:
            return
        for rows in self._engine.label(
            variables, scene, first_row=top, on_windows=on_windows
        ):
            if rows.top >= bottom:
                return
            yield rows

    def _share(self, scene: band_lib.Scene) -> tuple[int, int]:
        """Returns this process's rows [top, bottom), whole bands."""
        height = scene.info.height
        bands = plan.plan_bands(height, scene.info.width, self.tiling)
        tops = [*(band.top for band in bands), height]
        index, count = jax.process_index(), jax.process_count()
        return tuple(tops[k * len(bands) // count] for k in (index, index + 1))


def divide(engine: Any, scenes: Sequence[T]) -> tuple[Any, Sequence[T]]:
    """Returns the engine and the scenes that this process labels with it.

    Each scene is one process's, unless there are fewer of them than processes and the
    engine can be joined: its windows are independent and labels are all that is wanted.
    """
    enough = len(scenes) >= jax.process_count()
    if enough or type(engine) is not inference.Engine or engine.tiling.probabilities:
        return engine, hosts.share(scenes)
    return JointEngine(engine), scenes


def is_joint(engine: Any) -> bool:
    """Whether all processes label the same scene with this engine."""
    return isinstance(engine, JointEngine)


def only_helps(engine: Any) -> bool:
    """Whether this process labels rows that process 0 collects and writes."""
    return is_joint(engine) and not hosts.is_first()


def agreed(engine: Any, work: Callable[[], T]) -> T:
    """Does some work; with a joint engine it fails in all processes or in none."""
    return hosts.together(work) if is_joint(engine) else work()


def ask_for_help(engine: Any, *, is_needed: bool) -> None:
    """Tells those that only help whether process 0 is going to label a scene."""
    if is_joint(engine):
        hosts.gather(is_needed)


def help_out(engine: JointEngine, variables: Any, scene: band_lib.Scene) -> None:
    """Labels this process's rows of a scene if process 0 asks for help."""
    if hosts.gather(False)[0]:
        for _ in engine.label(variables, scene):
            pass
