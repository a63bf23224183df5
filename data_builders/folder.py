"""Your own images and label masks: `--dir=PATH`.

Layouts, the first that fits is taken:

    PATH/{train,val,test}/images/*  PATH/{train,val,test}/masks/*   split by folder
    PATH/images/*                   PATH/masks/*
    PATH/a_image.tif                PATH/a_mask.tif                 flat pairs

`masks` may be called `labels`. An image and its mask have the same name, apart from
the ending and from the words _image, _img, _sat, _rgb and _mask, _label, _labels, _gt
at the end. PNG, JPEG, TIFF and GeoTIFF are told by content (TIFF needs rasterio);
files with other endings are no part of the data set.

Images have 8 bit and 1 band (repeated), 3 bands, or these plus alpha (dropped; labels
under transparent pixels are kept as they are). Masks hold integer ids (of palette
images the index) or RGB colours; 255 is ignored unless the class table says otherwise.
The class table comes from --classes or PATH/classes.toml|json, see `class_file.py`;
without one the ids must run from 0 without a gap.

Splits: by folder; else from PATH/splits.toml|json ({"train": [ids], "val": [ids]}), or
--train, --val and --test with ids ("a,b" or a text file, one id a line) or a fraction
of the scenes; scenes not named go to train. Without any of these: --val=0.2.
"""

import argparse
import collections
import filecmp
import hashlib
import json
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from data_builders import base, class_file
from data_builders import label as labels
from uhrjax import errors

SPLITS = ("train", "val", "test")
ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
IMAGE_WORDS = ("_image", "_img", "_sat", "_rgb")
MASK_WORDS = ("_mask", "_label", "_labels", "_gt")
MASK_FOLDERS = ("masks", "labels")
DEFAULT_VAL = 0.2  # fraction of the scenes

Pair = tuple[str, pathlib.Path, pathlib.Path]  # id, image, mask
SplitSpec = float | str | Sequence[str] | None


class Folder(base.Builder):
    """`folder/<its name>-<fingerprint>`: a changed folder is prepared anew."""

    name = "folder"
    about = "your own images and label masks"
    getting = "--dir=PATH [--classes=...] [--val=0.2]; see data_builders/folder.py"

    def __init__(
        self,
        *,
        dir: str | pathlib.Path | None = None,  # as the flag is called
        classes: str | Sequence[str] | None = None,
        train: SplitSpec = None,
        val: SplitSpec = None,
        test: SplitSpec = None,
        seed: int = 0,
    ) -> None:
        if not dir:
            raise errors.InputError("folder: say where the images are, --dir=PATH")
        root = pathlib.Path(dir).expanduser().resolve()
        if not root.is_dir():
            raise FileNotFoundError(f"--dir={dir}: no such folder")
        given = classes or class_file.find(root)
        self._named = bool(given)
        self.table = class_file.parse(given) if given else _any_table()
        self._problems: list[str] = []
        wanted = {"train": train, "val": val, "test": test}
        self._pairs, self._notes = _inventory(root, wanted, seed, self._problems)
        self._name = (
            f"{_plain(root.name)}-{_fingerprint(root, self._pairs, self.table)}"
        )
        self.source = f"folder {root.name}"

    @property
    def full_name(self) -> str:
        return f"{self.name}/{self._name}"

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dir", help="folder with images and masks")
        parser.add_argument("--classes", help='"background,building" or a .toml/.json')
        for split in SPLITS:
            parser.add_argument(f"--{split}", help=f"{split}: ids, file, or fraction")
        parser.add_argument("--seed", type=int, help="of split fractions")

    def scenes(self) -> dict[str, list[base.RawScene]]:
        def make(
            scene_id: str, image: pathlib.Path, mask: pathlib.Path
        ) -> base.RawScene:
            return base.file_scene(scene_id, image, mask, self.table)

        return base.open_pairs(self._pairs, make, self._problems)

    def settle(
        self, histogram: np.ndarray, unknown: collections.Counter[str]
    ) -> tuple[labels.ClassTable, tuple[str, ...]]:
        found = np.flatnonzero(histogram[: labels.IGNORE]).tolist()
        ignored = int(histogram[labels.IGNORE])
        if not self._named:
            return _table_of_ids(found, ignored), self._notes
        names = self.table.names
        if (
            len(found) < 2
            and ignored
            and self.table.ids[labels.IGNORE] == labels.IGNORE
        ):
            raise errors.InputError(
                f"the masks hold only {[names[i] for i in found]} and {ignored} px of "
                f"{labels.IGNORE}, which is ignored; if {labels.IGNORE} stands for a "
                f'class, say so: --classes="{names[0]}=0,{names[1]}=255"'
            )
        absent = [name for i, name in enumerate(names) if i not in found]
        note = (f"never in a mask: {', '.join(absent)}",) if absent else ()
        return self.table, (*self._notes, *note)


def _any_table() -> labels.ClassTable:
    """Returns a table that takes every id from 0 to 255 as it is."""
    return labels.ClassTable((), (), {value: value for value in range(256)})


def _table_of_ids(found: list[int], ignored: int) -> labels.ClassTable:
    """Returns class_0 .. class_n for ids that leave no other reading."""
    if len(found) < 2 or found != list(range(len(found))):
        seen = found + [labels.IGNORE] * bool(ignored)
        named = ",".join(f"class_{value}={value}" for value in seen[:3])
        raise errors.InputError(
            f"the masks hold the ids {seen}; without a class table they must be 0, 1, "
            f'..., at least two (255 = ignored); name them, e.g. --classes="{named}"'
        )
    names = [f"class_{value}" for value in found]
    return labels.table(names, labels.palette(len(names)))


def _inventory(
    root: pathlib.Path, wanted: dict[str, SplitSpec], seed: int, problems: list[str]
) -> tuple[dict[str, list[Pair]], tuple[str, ...]]:
    """Returns the pairs by split, and notes; what is wrong goes into `problems`."""
    by_folder = [split for split in SPLITS if (root / split / "images").is_dir()]
    given = [split for split, spec in wanted.items() if spec not in (None, "")]
    listed = [root / f"splits{end}" for end in (".toml", ".json")]
    listed = [path for path in listed if path.is_file()]
    if by_folder:
        if given or listed:
            raise errors.InputError(
                f"{root} has the split folders {', '.join(by_folder)}; leave out "
                f"{'--' + given[0] if given else listed[0].name}"
            )
        pairs = {split: _folder_pairs(root / split, problems) for split in by_folder}
        _refuse_copies(pairs, problems)
        return pairs, ()
    pairs = _folder_pairs(root, problems) if (root / "images").is_dir() else None
    if pairs is None:
        pairs = _flat_pairs(root, problems)
    if not pairs and not problems:
        raise errors.InputError(
            f"no image in {root}; expected are {root.name}/images/* with "
            f"{root.name}/masks/*, or a_image.png with a_mask.png, or "
            f"{root.name}/train/images/* and so on"
        )
    if listed and not given:
        wanted = class_file.read_structured(listed[0])
        if not isinstance(wanted, dict) or wanted.keys() - set(SPLITS):
            raise errors.InputError(f"{listed[0]}: the keys are {', '.join(SPLITS)}")
        wanted = {split: wanted.get(split) or None for split in SPLITS}
    elif not given:
        wanted = {**wanted, "val": DEFAULT_VAL}
    return _split(pairs, wanted, seed, problems)


def _folder_pairs(folder: pathlib.Path, problems: list[str]) -> list[Pair]:
    """Returns the pairs of images/ and masks/ (or labels/)."""
    masks = next(
        (folder / n for n in MASK_FOLDERS if (folder / n).is_dir()), folder / "masks"
    )
    return _match(_rasters(folder / "images"), _rasters(masks), folder, problems)


def _flat_pairs(folder: pathlib.Path, problems: list[str]) -> list[Pair]:
    files = _rasters(folder)
    masks = [path for path in files if path.stem.lower().endswith(MASK_WORDS)]
    images = [path for path in files if path not in set(masks)]
    return _match(images, masks, folder, problems)


def _match(
    images: list[pathlib.Path],
    masks: list[pathlib.Path],
    folder: pathlib.Path,
    problems: list[str],
) -> list[Pair]:
    """Pairs images with masks by name; reports what is missing or double."""
    by_id: dict[str, pathlib.Path] = {}
    for image in images:
        scene_id = _strip(image.stem, IMAGE_WORDS)
        if scene_id in by_id:
            problems.append(f"{image}: a second image {scene_id!r}, {by_id[scene_id]}")
        by_id.setdefault(scene_id, image)
    mask_of: dict[str, pathlib.Path] = {}
    for mask in masks:
        stems = (mask.stem, _strip(mask.stem, MASK_WORDS))
        ids = [_strip(stem, IMAGE_WORDS) for stem in stems]
        scene_id = next((name for name in ids if name in by_id), None)
        if scene_id is None:
            problems.append(f"{mask}: no image of that name beside it")
        elif scene_id in mask_of:
            problems.append(
                f"{mask}: a second mask of {scene_id!r}, {mask_of[scene_id]}"
            )
        else:
            mask_of[scene_id] = mask
    for scene_id in sorted(by_id.keys() - mask_of.keys()):
        problems.append(f"{by_id[scene_id]}: no mask found for it in {folder}")
    return [(name, by_id[name], mask_of[name]) for name in sorted(mask_of)]


def _refuse_copies(pairs: dict[str, list[Pair]], problems: list[str]) -> None:
    """Reports images that are in two splits under one name, byte for byte."""
    first: dict[str, pathlib.Path] = {}
    for listed in pairs.values():
        for scene_id, image, _ in listed:
            twin = first.setdefault(scene_id, image)
            if twin != image and filecmp.cmp(twin, image, shallow=False):
                problems.append(f"{image}: the same image as {twin} of another split")


def _split(
    pairs: list[Pair], wanted: dict[str, SplitSpec], seed: int, problems: list[str]
) -> tuple[dict[str, list[Pair]], tuple[str, ...]]:
    """Deals the pairs out to the splits that were asked for."""
    by_id = {pair[0]: pair for pair in pairs}
    split_of: dict[str, str] = {}
    shares: dict[str, float] = {}
    for split, spec in wanted.items():
        spec = _parse_spec(split, spec)
        if isinstance(spec, float):
            shares[split] = spec
            continue
        for name in spec:
            scene_id = name if name in by_id else _strip(name, IMAGE_WORDS)
            if scene_id not in by_id:
                problems.append(f"--{split}: there is no scene {name!r} with a mask")
            elif scene_id in split_of:
                problems.append(
                    f"scene {scene_id!r} is in {split_of[scene_id]} and {split}"
                )
            else:
                split_of[scene_id] = split
    rest = sorted(by_id.keys() - split_of.keys(), key=lambda name: _draw(name, seed))
    for split, share in shares.items():
        if split != "train":
            count = max(1, round(share * len(by_id)))
            split_of |= dict.fromkeys(rest[:count], split)
            rest = rest[count:]
    notes = ()
    if wanted.get("train") in (None, "") or "train" in shares:
        split_of |= dict.fromkeys(rest, "train")
    elif rest:
        notes = (f"in no split and left out: {', '.join(sorted(rest))}",)
    dealt = {
        split: [by_id[name] for name in sorted(by_id) if split_of.get(name) == split]
        for split in SPLITS
    }
    if pairs and not dealt["train"]:
        raise errors.InputError(
            f"{len(by_id)} scene(s) leave none for train; add scenes or say which go "
            "where: --train=IDS --val=IDS"
        )
    return {split: listed for split, listed in dealt.items() if listed}, notes


def _parse_spec(split: str, spec: SplitSpec) -> float | list[str]:
    """Returns a fraction or a list of ids."""
    if spec in (None, ""):
        return []
    if isinstance(spec, str):
        path = pathlib.Path(spec).expanduser()
        if path.suffix == ".txt":
            if not path.is_file():
                raise errors.InputError(f"--{split}={spec}: no such file")
            return path.read_text(encoding="utf-8").split()
        if re.fullmatch(r"-?\d*\.\d*", spec):
            spec = float(spec)
        else:
            return [name.strip() for name in spec.split(",")]
    if isinstance(spec, (int, float)):
        if not 0 < spec < 1:
            raise errors.InputError(
                f"--{split}={spec}: a fraction lies between 0 and 1"
            )
        return float(spec)
    return [str(name) for name in spec]


def _draw(name: str, seed: int) -> str:
    """Orders scenes at random, the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()


def _rasters(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in ENDINGS and not path.name.startswith(".")
    )


def _strip(stem: str, words: tuple[str, ...]) -> str:
    for word in words:
        if stem.lower().endswith(word) and len(stem) > len(word):
            return stem[: -len(word)]
    return stem


def _plain(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return plain if plain[:1].isalpha() else f"set_{plain}"


def _fingerprint(
    root: pathlib.Path, pairs: dict[str, list[Pair]], table: labels.ClassTable
) -> str:
    """Returns 8 hex digits that change with a file, the classes or the splits."""
    files = []
    for split, listed in pairs.items():
        for scene_id, *paths in listed:
            for path in paths:
                stat = path.stat()
                place = path.relative_to(root).as_posix()
                files.append((split, scene_id, place, stat.st_size, stat.st_mtime_ns))
    classes = (table.names, table.colours, sorted(table.ids.items()))
    codes = sorted(table.codes.items())
    described = json.dumps([files, classes, codes])
    return hashlib.sha256(described.encode()).hexdigest()[:8]
