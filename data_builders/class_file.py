"""Class tables of the user: from a command line, a TOML or a JSON file.

On the command line: names in label order, each with the value that stands for it in the
masks if that is not its position: `background,building`, `ground=0,roof=255`,
`ground=#000000,roof=#ff0000`. In a file (`classes.toml`; JSON with the same keys):

    ignore = [255]              # mask ids, or colours "#rrggbb", that do not count

    [[classes]]
    name = "building"
    id = 1                      # in single-band masks; default: the position, from 0
    colour = "#ff0000"          # or [255, 0, 0]; in RGB masks, and to draw with
"""

import json
import pathlib
import tomllib
from collections.abc import Sequence
from typing import Any

from data_builders import label as labels
from uhrjax import errors


def find(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the class table that lies in a folder, if one does."""
    for name in ("classes.toml", "classes.json"):
        if (folder / name).is_file():
            return folder / name
    return None


def parse(given: str | Sequence[str] | pathlib.Path) -> labels.ClassTable:
    """Returns the class table that a user gave.

    Args:
        given: names as on the command line, a list of names, or a TOML or JSON file.

    Raises:
        errors.InputError: it is no class table; says what one looks like.
    """
    if isinstance(given, (list, tuple)):
        return _table([_parse_word(word) for word in given], [], "--classes")
    if str(given).endswith((".toml", ".json")):
        return _parse_file(pathlib.Path(given).expanduser())
    words = [word.strip() for word in str(given).split(",")]
    return _table([_parse_word(word) for word in words], [], "--classes")


def read_structured(path: pathlib.Path) -> Any:
    """Reads a TOML or JSON file."""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except FileNotFoundError as error:
        raise errors.InputError(f"no such file: {path}") from error
    except ValueError as error:
        kind = path.suffix[1:].upper()
        raise errors.InputError(f"{path} is no valid {kind}: {error}") from error


def _parse_file(path: pathlib.Path) -> labels.ClassTable:
    stored = read_structured(path)
    if not isinstance(stored, dict):
        stored = {"classes": stored}
    unknown = stored.keys() - {"classes", "ignore"}
    listed = stored.get("classes")
    if unknown or not isinstance(listed, list):
        raise errors.InputError(
            f"{path}: a class table has the keys 'classes' (a list) and, if wanted, "
            f"'ignore'; found {sorted(stored)}"
        )
    entries = []
    for entry in listed:
        entry = {"name": entry} if isinstance(entry, str) else dict(entry)
        entry["colour"] = entry.pop("color", entry.get("colour"))
        if entry.keys() - {"name", "id", "colour"} or "name" not in entry:
            raise errors.InputError(
                f"{path}: class {entry} needs a name and may have an id and a colour, "
                "nothing else"
            )
        if entry["colour"] is not None:
            entry["colour"] = _colour(entry["colour"], path)
        entries.append(entry)
    return _table(entries, stored.get("ignore", []), str(path))


def _parse_word(word: str) -> dict[str, Any]:
    name, _, value = word.partition("=")
    if not value:
        return {"name": name}
    if value.startswith("#"):
        return {"name": name, "colour": _colour(value, "--classes")}
    if not value.isdecimal():
        raise errors.InputError(
            f"--classes: {word!r}; write name, name=ID or name=#rrggbb"
        )
    return {"name": name, "id": int(value)}


def _table(
    entries: list[dict[str, Any]], ignored: list[Any], where: str
) -> labels.ClassTable:
    """Checks the entries and builds the table."""
    names = [str(entry["name"]) for entry in entries]
    if len(set(names)) < len(names) or not all(names):
        raise errors.InputError(f"{where}: class names must differ, found {names}")
    if not 2 <= len(names) <= labels.MAX_CLASSES:
        raise errors.InputError(
            f"{where}: {len(names)} class(es); give 2 to {labels.MAX_CLASSES}, "
            'background included, e.g. --classes="background,building"'
        )
    own = [entry.get("id", label) for label, entry in enumerate(entries)]
    colours = [entry.get("colour") for entry in entries]
    given = [colour for colour in colours if colour is not None]
    if given and len(given) < len(colours):
        raise errors.InputError(f"{where}: give a colour to every class or to none")
    for kind, values in (("id", own), ("colour", given)):
        if len(set(values)) < len(values):
            raise errors.InputError(
                f"{where}: two classes have one {kind}, found {values}"
            )
    if not all(isinstance(value, int) and 0 <= value < 2**31 for value in own):
        raise errors.InputError(f"{where}: class ids are integers >= 0, found {own}")
    ids = {labels.IGNORE: labels.IGNORE}
    codes = {colour: label for label, colour in enumerate(given)}
    for value in ignored:
        if isinstance(value, int):
            ids[value] = labels.IGNORE
        else:
            codes[_colour(value, where)] = labels.IGNORE
    ids |= {value: label for label, value in enumerate(own)}
    if clash := {value for value in ignored if value in own}:
        raise errors.InputError(f"{where}: {clash} are both a class and ignored")
    drawn = tuple(given) or labels.palette(len(names))
    return labels.ClassTable(tuple(names), drawn, ids, codes if given else {})


def _colour(value: Any, where: object) -> labels.Colour:
    """Returns (R, G, B) of "#rrggbb" or of three numbers."""
    try:
        if isinstance(value, str):
            parts = tuple(bytes.fromhex(value.removeprefix("#")))
        else:
            parts = tuple(int(part) for part in value)
    except (ValueError, TypeError):
        parts = ()
    if len(parts) != 3 or not all(0 <= part <= 255 for part in parts):
        raise errors.InputError(
            f'{where}: colour {value!r}; write "#rrggbb" or [r, g, b] with 0 to 255'
        )
    return parts
