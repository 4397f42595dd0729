"""Networks from files and back.

Read are TOML, CSV matrices (`rivage.graphs.matrices`), GML, GraphML (`rivage.graphs.graph_entries`); TOML is written.

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

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rivage.core.errors import ConfigError, require_one_of
from rivage.core.settings import dump, read
from rivage.core.toml import format_toml, parse_toml
from rivage.graphs.gml import parse_gml
from rivage.graphs.graphml import parse_graphml
from rivage.graphs.matrices import Matrix, Measured, connectivity_of_matrices, parse_matrix, underlay_of_matrices
from rivage.graphs.path_rules import Connectivity
from rivage.graphs.underlay import Underlay
from rivage.graphs.underlay_tables import UnderlayTable, assemble, tabulate

__all__ = ["MAX_BYTES", "format_underlay", "load_connectivity", "load_underlay", "parse_underlay"]

MAX_BYTES = 16 * 2**20
"""Larger files are refused; a full mesh of 500 nodes takes about 8 MB."""

_UNITS = {"bit/s": 1.0, "kbit/s": 1e3, "Mbit/s": 1e6, "Gbit/s": 1e9}
_SPELLINGS = {unit.casefold(): unit for unit in _UNITS} | {
    unit.replace("bit/s", "bps").casefold(): unit for unit in _UNITS
}


def load_underlay(
    path: Path | str,
    *,
    measured: Measured | None = None,
    bandwidth: Path | str | None = None,
    bandwidth_unit: str | None = None,
    max_asymmetry: float = 0.2,
) -> Underlay:
    """The network that a file describes.

    Args:
        path: its name ends in ``.toml``, ``.gml``, ``.graphml``, or in ``.csv`` for a matrix of latencies in ms; the
            arguments below are for matrices only.
        measured: whether latencies are one way or round trips; must be given.
        bandwidth: a second matrix.
        bandwidth_unit: of its cells: bit/s, kbit/s, Mbit/s or Gbit/s; None for what its first cell says, else bit/s.
        max_asymmetry: see `rivage.graphs.matrices.underlay_of_matrices`.

    Raises:
        ConfigError: for a file that is missing, too large, not of its format, or describes no network; all faults of
            the description are listed, each with its place and how to mend it.
    """
    path = Path(path)
    kind = path.suffix.lower()
    require_one_of(kind, f"the ending of {path.name}", (".toml", ".csv", ".gml", ".graphml"))
    if kind == ".csv":
        names, latency, rates = _matrices(path, bandwidth, bandwidth_unit)
        return underlay_of_matrices(
            names,
            latency,
            measured=_stated(measured, path),
            bandwidth_bps=rates,
            max_asymmetry=max_asymmetry,
            name=path.stem,
        )
    if measured is not None or bandwidth is not None:
        raise ConfigError("measured and bandwidth are for CSV matrices", where=str(path), mend="Leave them out.")
    text = read_text(path)
    if kind == ".toml":
        return parse_underlay(text, str(path))
    return (parse_gml if kind == ".gml" else parse_graphml)(text, str(path), name=path.stem)


def load_connectivity(
    path: Path | str,
    *,
    measured: Measured | None = None,
    bandwidth: Path | str | None = None,
    bandwidth_unit: str | None = None,
) -> Connectivity:
    """What matrices in CSV files say of every two nodes, in both directions; arguments as for `load_underlay`.

    Raises:
        ConfigError: naming all that is wrong.
    """
    path = Path(path)
    stated = _stated(measured, path)
    names, latency, rates = _matrices(path, bandwidth, bandwidth_unit)
    return connectivity_of_matrices(names, latency, measured=stated, bandwidth_bps=rates, name=path.stem)


def _stated(measured: Measured | None, path: Path) -> Measured:
    if measured is None:
        raise ConfigError(
            "latencies may be one way or round trips",
            where=str(path),
            mend='Say measured="round_trip_ms", as ping shows them, or measured="latency_ms" for one way.',
        )
    return measured


def _matrices(
    path: Path, bandwidth: Path | str | None, unit: str | None
) -> tuple[tuple[str, ...], Matrix, Matrix | None]:
    """Names, latencies and, in bit/s, bandwidths of the same nodes in the same order."""
    if unit is not None:
        require_one_of(unit, "bandwidth_unit", _UNITS)
    names, latency = parse_matrix(read_text(path), str(path))
    if bandwidth is None:
        return names, latency, None
    text = read_text(Path(bandwidth))
    others, rates = parse_matrix(text, str(bandwidth))
    if set(others) != set(names):
        odd = ", ".join(sorted(set(others) ^ set(names))[:5])
        mend = "Give both matrices the same nodes."
        raise ConfigError(f"{odd} not in both {path} and {bandwidth}", mend=mend)
    order = [others.index(name) for name in names]
    return names, latency, rates[np.ix_(order, order)] * _UNITS[_unit(text, unit, str(bandwidth))]


def _unit(text: str, stated: str | None, where: str) -> str:
    """The unit that is stated, or that the corner of a matrix names; bit/s where neither does."""
    corner = _SPELLINGS.get(re.split(r"[,;\t\n]", text, maxsplit=1)[0].strip(' "').casefold())
    if stated is not None and corner is not None and stated != corner:
        mend = f'Correct one of them: bandwidth_unit = "{corner}", or the first cell.'
        raise ConfigError(f"the first cell says {corner}, and bandwidth_unit is {stated}", where=where, mend=mend)
    return stated or corner or "bit/s"


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
