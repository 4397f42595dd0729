"""TOML text to a plain mapping and back, and the ``--set`` overrides on the way.

Nothing here knows what the keys mean; `rivage.core.settings` does.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from rivage.core.errors import ConfigError, nearest

__all__ = ["apply_overrides", "format_toml", "load_toml", "parse_toml"]

_POSITION = re.compile(
    r"(?P<fault>.*?)(?: \(at (?:line (?P<line>\d+), column (?P<column>\d+)|end of document)\))?", re.S
)


def parse_toml(text: str, where: str = "") -> dict[str, Any]:
    """The mapping that a TOML text describes.

    Raises:
        ConfigError: for text that is not TOML, with line and column and the line itself.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        match = _POSITION.fullmatch(str(error))
        assert match is not None, "every part of the pattern is optional"
        lines = text.splitlines()
        number = int(match["line"] or len(lines) or 1)
        column = match["column"] or str(len(lines[-1]) + 1 if lines else 1)
        line = lines[number - 1].strip() if number <= len(lines) else ""
        place = f"line {number}, column {column}"
        raise ConfigError(
            f"not valid TOML: {match['fault'][:1].lower()}{match['fault'][1:]}",
            where=f"{where}, {place}" if where else place,
            mend=f"The line reads: {line}" if line else "The file ends too early.",
        ) from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of brackets
        mend = "Shorten the number, or nest fewer brackets."
        raise ConfigError(f"not readable as TOML: {error}", where=where, mend=mend) from None


def load_toml(path: Path) -> dict[str, Any]:
    """The mapping in a TOML file.

    Raises:
        ConfigError: if there is no such file (with the TOML files beside it), or it is not UTF-8 TOML.
    """
    if not path.is_file():
        raise _missing(path)
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} is not UTF-8", where=str(path), mend="Save the file with UTF-8 encoding."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot be read ({error.strerror})", where=str(path), mend="Check its permissions."
        ) from error
    return parse_toml(text, str(path))


def _missing(path: Path) -> ConfigError:
    folder = path if path.is_dir() else path.parent
    what = "is a folder, not a TOML file" if path.is_dir() else "no such file"
    if not folder.is_dir():
        return ConfigError(what, where=str(path), mend=f'The folder "{folder}" does not exist either.')
    beside = sorted(entry.name for entry in folder.glob("*.toml"))
    if not beside:
        return ConfigError(what, where=str(path), mend=f'There is no TOML file in "{folder}".')
    close = nearest(path.name, beside)
    return ConfigError(what, where=str(path), mend=f'TOML files in "{folder}": {", ".join(beside)}. {close}'.strip())


def format_toml(mapping: Mapping[str, Any]) -> str:
    """TOML text of a mapping without None; the inverse of `parse_toml`."""
    import tomli_w

    return tomli_w.dumps(mapping)


def apply_overrides(mapping: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of the mapping with ``path=value`` settings replaced or added, in order.

    A path is made of keys joined by dots; a key that holds a dot is quoted as in TOML. An entry of a list of
    tables is addressed by its ``name``, by its ``kind`` when only one has it, or by its position from 1, as in
    error messages: ``methods.mixture.components=4`` or ``methods.2.components=4``. Values are TOML; what is not
    TOML is text, so that ``run.dtype=float64`` needs no quotes.

    Raises:
        ConfigError: for an override without ``=``, or a path that leads through a value or to no entry.
    """
    result = deepcopy(dict(mapping))
    for override in overrides:
        path, separator, value = override.partition("=")
        keys = _keys(path)
        if not separator or not keys:
            raise ConfigError(
                f'"{override}" is not an override',
                where="--set",
                mend="Write it as KEY=VALUE, e.g. run.rounds=5.",
            )
        _assign(result, keys, _value(value.strip()), f"--set {override}")
    return result


def _keys(path: str) -> list[str]:
    if not {'"', "'"} & set(path):
        keys = [key.strip() for key in path.split(".")]
        return keys if all(keys) else []
    try:
        table: Any = tomllib.loads(f"{path} = 0")
    except tomllib.TOMLDecodeError:
        return []
    keys = []
    while isinstance(table, dict):
        key, table = next(iter(table.items()))
        keys.append(key)
    return keys


def _value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _assign(tree: dict[str, Any], keys: Sequence[str], value: Any, where: str) -> None:
    branch: Any = tree
    for depth, key in enumerate(keys):
        at: Any = key
        if isinstance(branch, list):
            at = _entry(branch, key, keys[:depth], where)
        elif not isinstance(branch, dict):
            walked = ".".join(keys[:depth])
            raise ConfigError(f'"{walked}" holds a value and has no "{key}"', where=where, mend=f"Set {walked} itself.")
        if depth == len(keys) - 1:
            branch[at] = value
        else:
            branch = branch[at] if isinstance(branch, list) else branch.setdefault(at, {})


def _entry(entries: Sequence[Any], key: str, walked: Sequence[str], where: str) -> int:
    """Index from 0 of the entry that ``key`` means: by name, by a kind that is there once, or by position."""
    for label in ("name", "kind"):
        found = [i for i, entry in enumerate(entries) if isinstance(entry, dict) and entry.get(label) == key]
        if len(found) == 1:
            return found[0]
    if key.isdecimal() and 1 <= int(key) <= len(entries):
        return int(key) - 1
    noun = ".".join(walked)
    names = [str(entry.get("name", entry.get("kind"))) for entry in entries if isinstance(entry, dict)]
    known = f"It knows: {', '.join(names)}; or 1 to {len(entries)}." if names else f"It has 1 to {len(entries)}."
    raise ConfigError(f'{noun} has no entry "{key}"', where=where, mend=f"{known} {nearest(key, names)}".strip())
