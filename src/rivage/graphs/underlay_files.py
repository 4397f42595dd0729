"""Networks from files and back: TOML.

A description in TOML is a list of nodes and a list of links::

    name = "two sites"

    [[nodes]]
    name = "Paris"
    access_bps = 1e9            # optional: what it can send and receive; or access_up_bps, access_down_bps
    latitude = 48.86            # optional, as is longitude
    tier = "edge"               # optional

    [[links]]
    ends = ["Paris", "Nice"]
    round_trip_ms = 12.4        # or latency_ms, one way; optional, as is everything about a link
    distance_km = 685.0
    capacity_bps = 10e9

What one node or link has, all must have. The keys are those of `rivage.graphs.underlay_tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rivage.core.errors import ConfigError
from rivage.core.settings import dump, read
from rivage.core.toml import format_toml, parse_toml
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_tables import UnderlayTable, assemble, tabulate

__all__ = ["MAX_BYTES", "format_underlay", "load_underlay", "parse_underlay"]

MAX_BYTES = 64 * 2**20
"""Larger files are refused; a full mesh of 700 nodes in GML takes about 20 MB."""


def load_underlay(path: Path | str) -> Underlay:
    """The network that a file describes.

    Args:
        path: a file whose name ends in ``.toml``.

    Raises:
        ConfigError: for a file that is missing, too large, not of its format, or describes no network; all faults of
            the description are listed, each with its place and how to mend it.
    """
    path = Path(path)
    readers = {".toml": parse_underlay}
    if path.suffix.lower() not in readers:
        raise ConfigError(f'no reader for "{path.suffix}"', where=str(path), mend=f"Readers: {', '.join(readers)}.")
    return readers[path.suffix.lower()](read_text(path), str(path))


def parse_underlay(text: str, where: str = "") -> Underlay:
    """The network that a TOML text describes.

    Args:
        text: of the file.
        where: what it is called in errors.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    return assemble(read(UnderlayTable, parse_toml(text, where), where), where=where)


def format_underlay(underlay: Underlay) -> str:
    """TOML text of a network; the inverse of `parse_underlay`, to the last digit."""
    table = dump(tabulate(underlay))
    head = {key: value for key, value in table.items() if isinstance(value, str) and value}
    blocks = [_lines(head)] if head else []
    blocks += [f"[[{key}]]\n{_lines(entry)}" for key in ("nodes", "links") for entry in table[key]]
    return "\n\n".join(blocks) + "\n"


def _lines(table: Mapping[str, Any]) -> str:
    """Keys and values, lists in one line."""
    return "\n".join(
        f"{key} = [{', '.join(map(_value, value))}]" if isinstance(value, list) else f"{key} = {_value(value)}"
        for key, value in table.items()
    )


def _value(value: Any) -> str:
    return format_toml({"value": value}).removeprefix("value = ").rstrip("\n")


def read_text(path: Path) -> str:
    """The text of a file that is there, not too large, and UTF-8.

    Raises:
        ConfigError: when it is not.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        mend = "Check the name and the permissions."
        raise ConfigError(f"cannot be read ({error.strerror})", where=str(path), mend=mend) from error
    if len(content) > MAX_BYTES:
        raise ConfigError(
            f"the file is larger than {MAX_BYTES // 2**20} MiB", where=str(path), mend="Describe fewer links."
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} is not UTF-8", where=str(path), mend="Save the file with UTF-8 encoding."
        ) from error
