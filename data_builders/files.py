"""Files of a download: in folders, and in zip and tar archives as they were published.

An archive counts as a folder of its name. Nothing is unpacked: a member is copied into
a temporary file while its scene is read, one scene at a time. Archives within archives
are not read; what is missing for that reason is explained.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator

from uhrjax import errors

ARCHIVES = (".zip", ".tar")
OTHER_ARCHIVES = (".7z", ".001", ".rar", ".gz", ".tgz", ".bz2", ".xz")
ZIP_LOCAL_HEADER = 30  # bytes, before the name


@dataclasses.dataclass(frozen=True)
class Member:
    """A file in an archive, found again without its table of contents."""

    archive: pathlib.Path
    place: pathlib.PurePosixPath  # within the archive
    offset: int  # of its local header (zip) or its bytes (tar)
    packed: int  # bytes stored
    checksum: int | None = None  # CRC-32 of a zip's member
    deflated: bool = False

    def __str__(self) -> str:
        return f"{self.archive}/{self.place}"

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.name

    def read(self) -> bytes:
        """Returns the contents.

        Raises:
            errors.InputError: the archive is damaged there.
        """
        with open(self.archive, "rb") as file:
            start = self.offset
            if self.checksum is not None:
                file.seek(start)
                header = file.read(ZIP_LOCAL_HEADER)
                # The lengths of name and extra field may differ from the directory's.
                start += ZIP_LOCAL_HEADER + int.from_bytes(header[26:28], "little")
                start += int.from_bytes(header[28:30], "little")
            file.seek(start)
            stored = file.read(self.packed)
        with _damaged(self):
            found = zlib.decompress(stored, -15) if self.deflated else stored
            broken = self.checksum is not None and zlib.crc32(found) != self.checksum
            if broken or len(stored) < self.packed:
                raise ValueError("checksum or length do not agree")
        return found


File = pathlib.Path | Member


@dataclasses.dataclass(frozen=True)
class Entry:
    """A file of a download, and its place below the download's folder."""

    place: str  # with slashes; an archive is a folder: "train.zip/images/1.png"
    file: File


def list_files(root: pathlib.Path) -> list[Entry]:
    """Returns all files of a folder, or of one archive, by place.

    Raises:
        errors.InputError: an archive is damaged, or of a kind that is not read.
    """
    if root.is_file():
        return _list_archive(root, "")
    found = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in sorted(names):
            path = pathlib.Path(folder, name)
            place = path.relative_to(root).as_posix()
            if _is_hidden(name):
                continue
            if name.lower().endswith(ARCHIVES):
                found += _list_archive(path, f"{place}/")
            else:
                found.append(Entry(place, path))
    return found


def find_packed(root: pathlib.Path) -> list[str]:
    """Returns the names of the archives of a folder that must be unpacked first."""
    paths = [root] if root.is_file() else root.rglob("*")
    return sorted(p.name for p in paths if p.suffix.lower() in OTHER_ARCHIVES)


def find_nested(entries: list[Entry]) -> list[str]:
    """Returns the archives within archives; the outer ones must be unpacked first."""
    packed = ARCHIVES + OTHER_ARCHIVES
    return [
        str(entry.file)
        for entry in entries
        if isinstance(entry.file, Member) and entry.file.place.suffix.lower() in packed
    ]


@contextlib.contextmanager
def local(file: File) -> Iterator[pathlib.Path]:
    """Gives a path to open a file by; errors within name the file as the user does."""
    if isinstance(file, pathlib.Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="uhrjax_") as folder:
        path = pathlib.Path(folder, file.name)
        path.write_bytes(file.read())
        with naming(path, file):
            yield path


@contextlib.contextmanager
def naming(path: pathlib.Path, file: File) -> Iterator[None]:
    """Puts a file's own name in the place of its temporary path in errors."""
    try:
        yield
    except errors.InputError as error:
        said = str(error).replace(str(path), str(file))
        raise errors.InputError(said) from error


def _list_archive(path: pathlib.Path, prefix: str) -> list[Entry]:
    with _damaged(path):
        if zipfile.is_zipfile(path):
            members = _list_zip(path)
        elif path.suffix.lower() == ".tar" and tarfile.is_tarfile(path):
            members = _list_tar(path)
        else:
            raise errors.InputError(
                f"{path}: no folder, zip or tar file, or only a part of one; zip and "
                "uncompressed tar are read as they are, unpack others first"
            )
    kept = [m for m in members if not any(map(_is_hidden, m.place.parts))]
    return [Entry(f"{prefix}{m.place}", m) for m in kept]


def _list_zip(path: pathlib.Path) -> list[Member]:
    members = []
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            plain = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
            if not plain or info.flag_bits & 1:
                raise errors.InputError(
                    f"{path}/{info.filename}: encrypted, or packed by a rare method; "
                    "unpack the archive first"
                )
            members.append(
                Member(
                    path,
                    pathlib.PurePosixPath(info.filename),
                    info.header_offset,
                    info.compress_size,
                    info.CRC,
                    info.compress_type == zipfile.ZIP_DEFLATED,
                )
            )
    return members


def _list_tar(path: pathlib.Path) -> list[Member]:
    with tarfile.open(path, "r:") as archive:
        return [
            Member(path, pathlib.PurePosixPath(i.name), i.offset_data, i.size)
            for i in archive.getmembers()
            if i.isreg()
        ]


@contextlib.contextmanager
def _damaged(file: object) -> Iterator[None]:
    wrong = (zipfile.BadZipFile, tarfile.TarError, zlib.error, ValueError, EOFError)
    try:
        yield
    except errors.InputError:
        raise
    except wrong as error:
        raise errors.InputError(
            f"{file}: the archive is incomplete or damaged ({error}); download it again"
        ) from error


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
