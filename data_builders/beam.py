"""Encodes scenes on an Apache Beam runner: `prepare NAME --beam [--runner=...]`.

For data sets that outgrow one machine. The elements are scenes; every worker needs this
package, the raw files and the data folder under the same paths (a shared disk). What
the workers encode waits in the data folder until this process has written it into the
shards, in order, so that the files are the same as without Beam. Extra: `beam`.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import pickle
import shlex
import tempfile
from collections.abc import Iterator, Sequence

from data_builders import encode
from uhrjax import errors

DEFAULT_RUNNER = "DirectRunner"


def encode_all(
    units: Sequence[encode.Unit], *, runner: str, folder: pathlib.Path
) -> Iterator[encode.Encoded]:
    """Encodes all units on a runner and yields them in order.

    Args:
        units: of all scenes, those of a scene one after the other.
        runner: name of a Beam runner, perhaps with its flags behind:
            `FlinkRunner --flink_master=host:8081`.
        folder: that all workers reach; everything put into it is removed again.

    Raises:
        errors.InputError: Beam is not installed, or does not know the runner.
        OSError: the pipeline failed.
    """
    scenes = [
        list(group)
        for _, group in itertools.groupby(units, lambda u: (u.split, u.scene.id))
    ]
    with tempfile.TemporaryDirectory(prefix=".beam_", dir=folder) as name:
        places = [pathlib.Path(name) / f"{i}.pickle" for i in range(len(scenes))]
        _run(list(zip(places, scenes, strict=True)), runner)
        for place, group in zip(places, scenes, strict=True):
            with open(place, "rb") as file:
                for _ in group:
                    yield pickle.load(file)
            place.unlink()


def _run(elements: list[tuple[pathlib.Path, list[encode.Unit]]], runner: str) -> None:
    """Runs the pipeline to its end."""
    try:
        import apache_beam as beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise errors.InputError(
            "--beam needs Apache Beam, which is not installed; run: pip install "
            "'uhrjax[beam]'"
        ) from error
    name, *flags = shlex.split(runner)
    try:
        pipeline = beam.Pipeline(options=PipelineOptions([f"--runner={name}", *flags]))
    except (ValueError, ImportError, AttributeError) as error:
        raise errors.InputError(f"--runner={runner}: {error}") from error
    _ = (
        pipeline
        | "scenes" >> beam.Create(elements)
        | "spread" >> beam.Reshuffle()
        | "encode" >> beam.MapTuple(_encode_scene)
    )
    try:
        pipeline.run().wait_until_finish()
    except Exception as error:  # runners raise whatever they like
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise OSError(f"the Beam pipeline failed on {name}: {last[0]}") from error


def _encode_scene(place: pathlib.Path, units: list[encode.Unit]) -> None:
    """Encodes one scene into a file; runs on a worker, perhaps more than once."""
    filling = tempfile.NamedTemporaryFile(dir=place.parent, delete=False)  # noqa: SIM115
    try:
        with filling:
            for unit in units:
                pickle.dump(encode.encode(unit), filling)
        pathlib.Path(filling.name).replace(place)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(filling.name).unlink()
        raise
