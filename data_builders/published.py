"""Data sets that are downloaded by hand: files found by name, dealt out by protocol.

A protocol is a published way to split the scenes. Its ids are facts: they stand in
`splits/<data set>_<protocol>.json`, or the download itself has a folder per split. The
protocol, and every option that changes a label, is part of the prepared name
(`deepglobe/glnet`, `deepglobe/glnet-unknown_class`), so that two are never mixed.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import re
from typing import ClassVar

import numpy as np

from data_builders import base, files
from data_builders import label as labels
from uhrjax import errors

SPLITS = pathlib.Path(__file__).parent / "splits"
PARTIAL = ("no", "yes")  # whether fewer scenes than the protocol has are accepted

Key = tuple[str, str]  # split ("" where the name does not tell) and id
Found = dict[Key, dict[str, files.File]]  # files of a scene by rater ("" if one)


class Published(base.Builder):
    """One downloaded data set; a subclass states its facts.

    In `image` and `mask`, matched with the end of a file's place in the download, the
    group `id` is the scene; `split` and `rater` are given where the place tells them.
    """

    size: ClassVar[str]  # of a scene, for the table of data sets
    layout: ClassVar[str]  # of the download, for the instructions
    image: str  # regular expression
    mask: str
    image_name: ClassVar[str]  # with {id}, for messages
    mask_name: ClassVar[str]
    counts: ClassVar[dict[str, dict[str, int]]]  # scenes by protocol and split
    smaller: ClassVar[dict[int, str]] = {}  # scenes in all that will do -> why
    choices: ClassVar[dict[str, tuple[str, ...]]] = {}  # further options, default first
    skipped: ClassVar[frozenset[str]] = frozenset()  # ids that are left out
    skipped_places: ClassVar[str] = ""  # files with this in their place are not used

    def __init__(self, *, manual_dir: str | None = None, **options: str) -> None:
        self._root = pathlib.Path(manual_dir).expanduser() if manual_dir else None
        known = self._options()
        self.chosen = {name: values[0] for name, values in known.items()} | options
        for name, value in self.chosen.items():
            if value not in known[name]:
                raise errors.InputError(
                    f"{self.name}: --{name}={value}; choose from "
                    f"{', '.join(known[name])}"
                )
        self.protocol = self.chosen.get("protocol", next(iter(self.counts)))
        self.source = self.page
        if self.protocol:
            self.source += f", protocol {self.protocol}"
        self.table = self.make_table()
        self._notes: list[str] = []
        self._shortage = ""
        self._packed: list[str] = []  # archives within archives

    def make_table(self) -> labels.ClassTable:
        """Returns the class table of the options chosen."""
        raise NotImplementedError

    @classmethod
    def _options(cls) -> dict[str, tuple[str, ...]]:
        named = {"protocol": tuple(cls.counts)} if "" not in cls.counts else {}
        return {**named, **cls.choices, "partial": PARTIAL}

    @classmethod
    def option_names(cls) -> list[str]:
        return ["manual_dir", *cls._options()]

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--manual_dir", help="folder of the download, or archive")
        for name, values in cls._options().items():
            listed = ", ".join([f"{values[0]} (default)", *values[1:]])
            parser.add_argument(f"--{name}", help=listed)

    @classmethod
    def parse_subset(cls, subset: str) -> dict[str, str]:
        given = {}
        for word in filter(None, subset.split("-")):
            option, _, value = word.partition("_")
            given |= {option: value} if value else {"protocol": option}
        return given

    @classmethod
    def contents(cls) -> str:
        splits = "; ".join(
            f"{protocol + ': ' if protocol else ''}"
            + ", ".join(f"{split} {count}" for split, count in counts.items())
            for protocol, counts in cls.counts.items()
        )
        return f"{cls.size}; {len(cls().table.names)} classes; {splits}"

    @property
    def full_name(self) -> str:
        known = self._options()
        words = [self.chosen["protocol"]] if "protocol" in known else []
        words += [
            f"{name}_{value}"
            for name, value in self.chosen.items()
            if name != "protocol" and value != known[name][0]
        ]
        return f"{self.name}/{'-'.join(words)}" if words else self.name

    def scenes(self) -> dict[str, list[base.RawScene]]:
        entries = files.list_files(self._check_root())
        self._packed = files.find_nested(entries)
        if skipped := self.skipped_places:
            entries = [entry for entry in entries if skipped not in entry.place]
        problems: list[str] = []
        images = self._match(self.image, entries, problems)
        masks = self._match(self.mask, entries, problems)
        if not images and not masks and not problems:
            raise FileNotFoundError(self._say_nothing_found())
        keys = self._deal(images, masks)
        pairs = {
            split: [(key[1], *images[key].values(), masks[key]) for key in listed]
            for split, listed in keys.items()
        }
        return base.open_pairs(pairs, self.make_scene, problems)

    def make_scene(
        self, scene_id: str, image: files.File, masks: dict[str, files.File]
    ) -> base.RawScene:
        """Makes a scene of its files, after a look at their headers."""
        (mask,) = masks.values()
        return base.file_scene(scene_id, image, mask, self.table)

    def checked(self) -> str:
        if self._is_partial:
            return f"only a part of {self.name}: --partial=yes"
        if self._shortage:
            return self._shortage
        split = f"protocol {self.protocol!r}" if self.protocol else "published splits"
        return f"all scenes of the {split} are there, and no others"

    def settle(
        self, histogram: np.ndarray, unknown: collections.Counter[str]
    ) -> tuple[labels.ClassTable, tuple[str, ...]]:
        table, notes = super().settle(histogram, unknown)
        absent = [name for i, name in enumerate(table.names) if not histogram[i]]
        if len(absent) >= len(table.names) - 1 and not self._is_partial:
            raise errors.InputError(
                f"the masks of {self.name} hold nearly nothing of {', '.join(absent)}: "
                "these are not the published masks, or their values were changed"
            )
        if absent:
            self._notes.append(f"never in a mask: {', '.join(absent)}")
        return table, (*self._notes, *notes)

    @property
    def _is_partial(self) -> bool:
        return self.chosen["partial"] == "yes"

    def _check_root(self) -> pathlib.Path:
        if self._root is None:
            raise FileNotFoundError(f"no --manual_dir. {self.instructions()}")
        if not self._root.exists():
            raise FileNotFoundError(
                f"{self._root}: no such folder or archive. {self.instructions()}"
            )
        return self._root

    def instructions(self) -> str:
        """Returns what to download, and the command to run then."""
        return (
            f"{self.name} is downloaded by hand: {self.page} ({self.licence}). Below "
            "PATH, in folders or in zip and tar files as they were published, are "
            f"expected: {self.layout}. Then run: python -m data_builders.prepare "
            f"{self.name} --manual_dir=PATH"
        )

    def _say_nothing_found(self) -> str:
        self._packed += files.find_packed(self._root)
        hint = f" (unpack {self._list_packed()} first)" if self._packed else ""
        wanted = self.image_name.format(id="ID")
        return f"no file like {wanted} in {self._root}{hint}. {self.instructions()}"

    def _list_packed(self) -> str:
        return ", ".join(self._packed[:5]) + " ..." * (len(self._packed) > 5)

    def _match(
        self, pattern: str, entries: list[files.Entry], problems: list[str]
    ) -> Found:
        """Returns the files whose place fits; the same one twice is a problem."""
        found: Found = {}
        ends = re.compile(f"(?:^|.*/)(?:{pattern})")
        for entry in entries:
            match = ends.fullmatch(entry.place)
            if not match:
                continue
            parts = match.groupdict()
            raters = found.setdefault((parts.get("split") or "", match["id"]), {})
            first = raters.setdefault(parts.get("rater") or "", entry.file)
            if first is not entry.file:
                problems.append(f"{entry.file}: a second {match['id']!r}, {first}")
        return found

    def _deal(self, images: Found, masks: Found) -> dict[str, list[Key]]:
        """Returns the scenes by split, as the protocol says; all must be there."""
        wanted = self._wanted(images, masks)
        known = {key for keys in wanted.values() for key in keys}
        extra = sorted(key[1] for key in masks.keys() - known)
        here = {
            split: [key for key in keys if key in images and key in masks]
            for split, keys in self._without_skipped(wanted).items()
        }
        wrong = self._count(here, images, wanted)
        if self._is_partial:
            self._notes += wrong
            if extra:
                self._notes.append(f"in no split and left out: {', '.join(extra)}")
            return {split: keys for split, keys in here.items() if keys}
        missing = self._list_missing(images, masks, wanted)
        found = sum(map(len, here.values()))
        if found in self.smaller and missing:
            self._shortage = f"{self.smaller[found]} ({'; '.join(wrong)})"
            self._notes.append(self._shortage)
            wrong, missing = [], []
        problems = wrong + missing
        if problems and self._packed:
            said = f"{self._list_packed()}: not read, an archive within an archive"
            problems.insert(0, f"{said}; unpack the outer one")
        problems += [f"{name}: in no split of {self.full_name}" for name in extra]
        if problems:
            raise errors.InputError(
                base.list_problems(
                    f"{self._root} is not the whole of {self.full_name}, or more "
                    "(--partial=yes takes what is there, under a name of its own)",
                    problems,
                )
            )
        if unlabelled := len(images.keys() - known):
            self._notes.append(f"{unlabelled} images without a mask are left out")
        return here

    def _without_skipped(self, wanted: dict[str, list[Key]]) -> dict[str, list[Key]]:
        return {
            split: [key for key in keys if key[1] not in self.skipped]
            for split, keys in wanted.items()
        }

    def _count(
        self, here: dict[str, list[Key]], images: Found, wanted: dict[str, list[Key]]
    ) -> list[str]:
        """Returns which splits have another number of scenes than was published."""
        wrong = []
        for split, count in self.counts[self.protocol].items():
            kept = len(here[split])
            # Scenes that are left out may or may not be in the published number.
            skipped = sum(k in images for k in wanted[split] if k[1] in self.skipped)
            if count not in (kept, kept + skipped):
                wrong.append(f"split {split} has {kept + skipped} scenes of {count}")
        return wrong

    def _list_missing(
        self, images: Found, masks: Found, wanted: dict[str, list[Key]]
    ) -> list[str]:
        missing = []
        for split, keys in self._without_skipped(wanted).items():
            for key in keys:
                where = f"(split {split}, scene {key[1]})"
                if key not in images:
                    missing.append(f"{self.image_name.format(id=key[1])} {where}")
                if key not in masks:
                    missing.append(f"{self.mask_name.format(id=key[1])} {where}")
        return missing

    def _wanted(self, images: Found, masks: Found) -> dict[str, list[Key]]:
        """Returns the scenes that the protocol has, sorted within a split."""
        counts = self.counts[self.protocol]
        listed = SPLITS / f"{self.name}_{self.protocol}.json"
        if listed.is_file():
            stored = json.loads(listed.read_text(encoding="utf-8"))
            return {split: [("", name) for name in stored[split]] for split in counts}
        found = sorted(images.keys() | masks.keys())
        return {split: [key for key in found if key[0] == split] for split in counts}
