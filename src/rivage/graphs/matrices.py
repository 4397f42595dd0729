"""Networks measured between every two nodes: CSV matrices of latency and bandwidth, as ping and iperf give them.

A matrix has the names of its nodes in the first row and in the first column, in any order, and in each cell what was
measured from the node of the row to the node of the column. Cells are separated by commas, semicolons or tabs; names
that hold one stand in quotation marks. The diagonal is not read::

    ms,Paris,Nice,Lyon
    Paris,,12.4,6.1
    Nice,12.6,,8
    Lyon,6.0,8.2,

Nobody can see from the numbers whether a latency is one way or a round trip, so the caller says which.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, RivageError, nearest, require_one_of
from rivage.core.settings import combine
from rivage.graphs.path_rules import Connectivity
from rivage.graphs.underlay import Underlay

__all__ = ["Measured", "connectivity_of_matrices", "parse_matrix", "underlay_of_matrices"]

Measured = Literal["round_trip_ms", "latency_ms"]
"""What a matrix of latencies holds: there and back, as ``ping`` shows, or one way."""

_BLANK = {"", "-", "–", "na", "n/a", "nan", "null", "?"}
_SHOWN = 5

Matrix = Float64[ndarray, "nodes nodes"]


def parse_matrix(text: str, where: str = "") -> tuple[tuple[str, ...], Matrix]:
    """Names and numbers of a CSV matrix: rows in the order of the columns, NaN for blank cells and the diagonal.

    Raises:
        ConfigError: listing everything that is wrong, with lines.
    """
    try:
        rows = list(_rows(text))
    except RivageError as error:
        raise (error.at(where) if where else error) from None
    names = tuple(rows[0][1][1:]) if rows else ()
    problems: list[RivageError] = list(_row_problems(names, rows))
    places = {name: place for place, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for line, (name, *cells) in rows[1:]:
        for column, cell in enumerate(cells[: len(names)]):
            if name not in places or column == places[name] or cell.casefold() in _BLANK:
                continue
            try:
                values[places[name], column] = _number(cell)
            except RivageError as error:
                problems.append(error.at(f"line {line}, column {names[column]}"))
    if problems:
        raise combine(problems, where)
    return names, values


def underlay_of_matrices(
    names: tuple[str, ...],
    latency: Matrix,
    *,
    measured: Measured,
    bandwidth_bps: Matrix | None = None,
    max_asymmetry: float = 0.2,
    name: str = "underlay",
) -> Underlay:
    """The network whose links are the pairs with a latency.

    A link has one latency, the mean of both directions, so that a round trip takes what it took; and one capacity, the
    smaller one. One direction is enough. `connectivity_of_matrices` keeps both.

    Args:
        names: of rows and columns.
        latency: in ms; NaN says that there is no link.
        measured: whether these are round trips or one way.
        bandwidth_bps: in bit/s, for the same pairs.
        max_asymmetry: how far the smaller of two directions may lie below the larger, as a share of it, in [0, 1].
        name: of the network.

    Raises:
        ConfigError: listing everything that is wrong.
    """
    _require_measured(measured)
    if not 0 <= max_asymmetry <= 1:
        raise ConfigError(f"max_asymmetry is {max_asymmetry}", mend="Give a share from 0 to 1.")
    problems: list[RivageError] = list(_uneven("latency", names, latency, max_asymmetry))
    both = _mirrored(latency)
    known = np.isfinite(both)
    edges = np.argwhere(np.triu(known, 1)).astype(np.int64)
    one, other = edges.T
    capacities = None
    if bandwidth_bps is not None:
        problems += _uneven("bandwidth", names, bandwidth_bps, max_asymmetry)
        rates = _mirrored(bandwidth_bps)
        problems += _mismatched(names, known, np.isfinite(rates))
        capacities = np.minimum(rates[one, other], rates[other, one])
    if problems:
        raise combine(problems, f'underlay "{name}"')
    return Underlay(
        names=names,
        edges=edges,
        latency_ms=(both[one, other] + both[other, one]) / (4 if measured == "round_trip_ms" else 2),
        capacity_bps=capacities,
        name=name,
    )


def connectivity_of_matrices(
    names: tuple[str, ...],
    latency: Matrix,
    *,
    measured: Measured,
    bandwidth_bps: Matrix | None = None,
    name: str = "connectivity",
) -> Connectivity:
    """What was measured between every two nodes, in both directions; no path through others is considered.

    Arguments as for `underlay_of_matrices`; no pair may be blank, in either direction.

    Raises:
        ConfigError: naming all that is wrong.
    """
    _require_measured(measured)
    off = ~np.eye(len(names), dtype=bool)
    given = {"latency": latency} | ({} if bandwidth_bps is None else {"bandwidth": bandwidth_bps})
    problems: list[RivageError] = [
        ConfigError(
            f"no {what} {_pairs(names, np.isnan(values) & off)}",
            mend="Measure every pair in both directions; or read an underlay, whose paths lead through other nodes.",
        )
        for what, values in given.items()
        if (np.isnan(values) & off).any()
    ]
    if problems:
        raise combine(problems, f'network "{name}"')
    one_way = latency / (2 if measured == "round_trip_ms" else 1)
    return Connectivity(
        names=names,
        latency_ms=np.where(off, one_way, 0),
        available_bps=None if bandwidth_bps is None else np.where(off, bandwidth_bps, np.inf),
        name=name,
    )


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with their lines."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    unquoted = re.sub(r'"[^"]*"', "", lines[0])
    reader = csv.reader(lines, delimiter=max(",;\t", key=unquoted.count))
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, [cell.strip() for cell in cells]
    except csv.Error as error:
        raise ConfigError(f"no CSV: {error}", where=f"line {reader.line_num}", mend="Give plain cells.") from None


def _row_problems(names: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> Iterator[RivageError]:
    if not names:
        yield ConfigError("no names in the first row", mend="Write names of nodes in the first row and column.")
    if "" in names or len(set(names)) < len(names):
        twice = ", ".join(dict.fromkeys(name for name in names if names.count(name) > 1)) or "one is blank"
        yield ConfigError(f"names of columns: {twice}", where="line 1", mend="Give each node a name of its own.")
    seen: dict[str, int] = {}
    for line, (name, *cells) in rows[1:]:
        if name not in names:
            known = f"Columns are {', '.join(names[:30])}. {nearest(name, names)}"
            yield ConfigError(f'no column "{name}"', where=f"line {line}", mend=known.strip())
        if name in seen:
            mend = "Give each node one row."
            yield ConfigError(f'"{name}" has line {seen[name]} too', where=f"line {line}", mend=mend)
        if len(cells) != len(names):
            mend = "Give each row a cell for each column, blank where there is no link."
            yield ConfigError(f"{len(cells)} cells for {len(names)} columns", where=f"line {line}", mend=mend)
        seen.setdefault(name, line)
    missing = [name for name in names if name not in seen]
    if missing:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        yield ConfigError(f"no row for {', '.join(missing[:_SHOWN])}{more}", mend="Give each column its row.")


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise ConfigError(f'"{cell[:40]}" is no number', mend="Write it with a decimal point and no unit.") from None
    if not 0 <= value < np.inf:
        raise ConfigError(f"{cell} is no latency or bandwidth", mend="Give a finite number >= 0, or leave it blank.")
    return value


def _require_measured(measured: str) -> None:
    require_one_of(measured, "measured", get_args(Measured))


def _mirrored(values: Matrix) -> Matrix:
    """What is blank in one direction is as in the other."""
    return np.where(np.isnan(values), values.T, values)


def _uneven(what: str, names: Sequence[str], values: Matrix, share: float) -> Iterator[ConfigError]:
    """Pairs whose two directions are too far from each other for one number."""
    low, high = np.minimum(values, values.T), np.maximum(values, values.T)
    apart = np.triu(low < (1 - share) * high, 1)
    if apart.any():
        one, other = np.argwhere(apart)[0].tolist()
        yield ConfigError(
            f"{what} {_pairs(names, apart)} differs by direction ({values[one, other]:g} and {values[other, one]:g})",
            mend="Measure again; or read it as a connectivity graph, which keeps both directions; or raise "
            f"max_asymmetry (now {share:g}) to take {'the mean' if what == 'latency' else 'the smaller one'}.",
        )


def _mismatched(
    names: Sequence[str], links: Bool[ndarray, "nodes nodes"], rates: Bool[ndarray, "nodes nodes"]
) -> Iterator[ConfigError]:
    for what, chosen in (("latency without bandwidth", links & ~rates), ("bandwidth without latency", rates & ~links)):
        if chosen.any():
            mend = "Fill both cells or none."
            yield ConfigError(f"{what} {_pairs(names, np.triu(chosen, 1))}", mend=mend)


def _pairs(names: Sequence[str], chosen: Bool[ndarray, "nodes nodes"]) -> str:
    pairs = np.argwhere(chosen).tolist()
    more = f" and {len(pairs) - _SHOWN} more pairs" if len(pairs) > _SHOWN else ""
    return f"between {', '.join(f'{names[one]} and {names[other]}' for one, other in pairs[:_SHOWN])}{more}"
