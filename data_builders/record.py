"""Writes records as a TFDS data set in ArrayRecord files, complete or not at all.

TFDS' `GeneratorBasedBuilder` is not used: it keeps up to 1 GB of finished records in
memory and needs TensorFlow beyond that. Its `SequentialWriter` streams and keeps the
order; the result is read by `tfds.builder_from_directory` like any other data set.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from uhrjax.data import prepared

TILES_PER_SHARD = 4096  # about 0.4 GB of aerial images
PATCHES_PER_SHARD = 512  # about 0.7 GB of patches of 896 px
RESERVE_BYTES = 16 * 2**20  # left free on the disk: for the shards' indices


class RecordWriter:
    """Writes one config of a data set into a folder that nobody reads yet."""

    def __init__(
        self,
        folder: pathlib.Path,
        info: prepared.DataInfo,
        *,
        about: str,
        page: str,
        module: str,
    ) -> None:
        """Starts a data set.

        Args:
            folder: an empty folder.
            info: what is going to be in it; `close` stores it in its final state.
            about: one line on the data set.
            page: its home page, or "".
            module: the Python module of its builder.
        """
        import tensorflow_datasets as tfds  # slow; worker processes do without

        self._folder = folder
        self._info = info
        self._metadata = tfds.core.MetadataDict()
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=pathlib.PurePosixPath(info.name).name,
            version=tfds.core.Version(prepared.VERSION),
            data_dir=os.fspath(folder),
            module_name=module,
            config_name=info.config,
        )
        described = tfds.core.DatasetInfo(
            builder=identity,
            description=about,
            features=_features(info),
            homepage=page or None,
            disable_shuffling=True,
            metadata=self._metadata,
        )
        tiles = info.config == prepared.SCENES
        self._writer = tfds.core.SequentialWriter(
            described,
            TILES_PER_SHARD if tiles else PATCHES_PER_SHARD,
            file_format="array_record",
        )
        # TFDS orders the fields of a record by chance, another one in every process.
        self._writer._serializer = _make_serializer(described)
        self._written = dict.fromkeys(info.scenes, 0)
        with _disk_errors(folder):
            self._writer.initialize_splits(list(info.scenes))

    def add(self, split: str, records: Sequence[dict[str, Any]]) -> None:
        """Appends records, in order."""
        if not records:
            return
        with _disk_errors(self._folder):
            _need_space(self._folder, sum(_size(record) for record in records))
            self._writer.add_examples({split: list(records)})
        self._written[split] += len(records)

    def close(self) -> None:
        """Ends all files and checks that every record arrived in them."""
        self._metadata.update(prepared.info_to_json(self._info))
        with _disk_errors(self._folder):
            self._writer.close_all()
            for split, count in self._written.items():
                found = sum(map(_count_records, self._folder.glob(f"*-{split}.*")))
                if found != count:
                    raise OSError(
                        errno.EIO,
                        f"{found} of {count} records of split {split!r} arrived in "
                        f"{self._folder}; check the disk and prepare again",
                    )


def _features(info: prepared.DataInfo) -> Any:
    import tensorflow_datasets as tfds

    grey = tfds.features.Image(shape=(None, None, 1), encoding_format="png")
    rgb = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
    if info.config == prepared.SCENES:
        maps = dict.fromkeys(("label", *info.extras), grey)
        return tfds.features.FeaturesDict({"image": rgb, **maps})
    if info.config.startswith("overview"):
        text = tfds.features.Text()
        return tfds.features.FeaturesDict(
            {"overview": rgb, "label": grey, "scene_id": text}
        )
    pair = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    return tfds.features.FeaturesDict(
        {
            "views": {f"x{word}": rgb for word in info.views},
            "label": grey,
            "position": pair,
            "scene_size": pair,
            "scene_id": tfds.features.Text(),
        }
    )


def _make_serializer(described: Any) -> Any:
    """Returns TFDS' serializer, made to write the same bytes in every process."""
    from tensorflow_datasets.core import example_serializer

    class Ordered(example_serializer.ExampleSerializer):
        def serialize_example(self, example: dict[str, Any]) -> bytes:
            return self.get_tf_example(example).SerializeToString(deterministic=True)

    return Ordered(described.features.get_serialized_info())


@contextlib.contextmanager
def replacing(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a folder to fill that takes the place of `final` if the block succeeds.

    Whatever happens, `final` is what it was before, or complete.
    """
    holder = final.parent
    holder.mkdir(parents=True, exist_ok=True)
    filling = holder / f".incomplete_{final.name}"
    replaced = holder / f".replaced_{final.name}"
    for stale in (filling, replaced):
        shutil.rmtree(stale, ignore_errors=True)
    filling.mkdir()
    try:
        yield filling
        if final.exists():
            final.rename(replaced)
        filling.rename(final)
    finally:
        shutil.rmtree(filling, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
        _remove_empty(holder)


@contextlib.contextmanager
def one_at_a_time(folder: pathlib.Path) -> Iterator[None]:
    """Lets one process at a time prepare into a folder; others wait here."""
    lock = folder / ".lock"
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(lock, "w")  # noqa: SIM115, it outlives this loop
        fcntl.flock(file, fcntl.LOCK_EX)
        if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            break
        file.close()  # the one who held it took it away with the empty folder
    try:
        yield
    finally:
        lock.unlink()
        file.close()
        _remove_empty(folder)


@contextlib.contextmanager
def _disk_errors(folder: pathlib.Path) -> Iterator[None]:
    """Turns a writer's error of any kind into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(folder) from error
        raise
    except RuntimeError as error:  # what ArrayRecord raises
        if "No space left" in str(error) or "quota" in str(error):
            raise _full(folder) from error
        first = str(error).splitlines()[0]
        raise OSError(errno.EIO, f"writing to {folder} failed: {first}") from error


def _remove_empty(folder: pathlib.Path) -> None:
    """Removes the folder if nothing came of it."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _need_space(folder: pathlib.Path, wanted: int) -> None:
    if shutil.disk_usage(folder).free < wanted + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, "disk full")


def _full(folder: pathlib.Path) -> OSError:
    free = shutil.disk_usage(folder).free / 2**20
    return OSError(
        errno.ENOSPC,
        f"the disk of {folder.parent} is full ({free:.0f} MiB left), nothing was kept; "
        "free some space or choose another --data_dir",
    )


def _size(record: dict[str, Any]) -> int:
    parts = [*record.values(), *record.get("views", {}).values()]
    return sum(len(part) for part in parts if isinstance(part, bytes))


def _count_records(shard: pathlib.Path) -> int:
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(os.fspath(shard))
    try:
        return reader.num_records()
    finally:
        reader.close()
