"""Demands from a file, CSV or Parquet: one line for every slot and agent, what it weighs and how much it wants.

::

    slot,agent,weight,demand
    0,training,1,0.7
    0,web,1,0.9
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import DataError, nearest
from rivage.core.settings import combine
from rivage.core.store import read_table

__all__ = ["Wanted", "read_demands"]

_NEEDED, _MORE = ("slot", "agent"), ("weight", "demand", "scale")
_SHOWN = 20  # faults listed
_MOST_BYTES = 2**30
_LARGEST = 50_000_000  # numbers of the table of all slots and agents

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """What agents want.

    Args:
        agents: their names.
        weights: of every slot and agent, >= 0.
        levels: demands, or scales of form "log", see `rivage.online.demands`.
        form: of the utilities.
        name: for records.
    """

    agents: tuple[str, ...]
    weights: Float64[ndarray, "slots agents"]
    levels: Float64[ndarray, "slots agents"]
    form: Literal["capped", "log"]
    name: str


def read_demands(path: Path, form: Literal["capped", "log"]) -> Wanted:
    """What agents want.

    Args:
        path: of the file.
        form: of utilities.

    Raises:
        DataError: for a file that is missing, unreadable, or has wrong lines: all of them are listed with their places.
    """
    cells: dict[tuple[int, str], tuple[float, float]] = {}
    problems: list[DataError] = []
    for place, row in _rows(path):
        try:
            key, cell = _cell(row, form)
            if key in cells:
                raise DataError(f'slot {key[0]} of "{key[1]}" is there twice', mend="Give each pair once.")
            cells[key] = cell
        except DataError as error:
            problems.append(error.at(place))  # type: ignore[arg-type]
    if problems:
        more = [] if len(problems) <= _SHOWN else [DataError(f"{len(problems) - _SHOWN} more lines are wrong")]
        raise combine([*problems[:_SHOWN], *more], str(path))
    if not cells:
        raise DataError("there is no line", where=str(path), mend='Give lines such as "0,web,1,0.9".')
    return _table(path, cells, form)


def _table(path: Path, cells: dict[tuple[int, str], tuple[float, float]], form: Literal["capped", "log"]) -> Wanted:
    slots = {slot: place for place, slot in enumerate(sorted({slot for slot, _ in cells}))}
    agents = {agent: place for place, agent in enumerate(dict.fromkeys(agent for _, agent in cells))}
    if len(slots) * len(agents) > _LARGEST:
        raise DataError(
            f"{len(slots):,} slots of {len(agents):,} agents are more than {_LARGEST:,}",
            where=str(path),
            mend="Join slots, or agents.",
        )
    weights = np.zeros((len(slots), len(agents)))
    levels = np.full(weights.shape, 0.0 if form == "capped" else 1.0)
    for (slot, agent), cell in cells.items():
        weights[slots[slot], agents[agent]], levels[slots[slot], agents[agent]] = cell
    return Wanted(tuple(agents), weights, levels, form, path.name)


def _cell(row: Row, form: Literal["capped", "log"]) -> tuple[tuple[int, str], tuple[float, float]]:
    """Slot and agent, weight and level of a line."""
    if None in row or None in (row["slot"], row["agent"]):
        raise DataError("it has not as many columns as the header", mend="Separate columns by commas.")
    slot, agent = _slot(row["slot"]), str(row["agent"]).strip()
    if not agent or not agent.isprintable():
        raise DataError(f"agent is {agent!r}", mend="Give a name of visible characters.")
    weight = _number(row.get("weight"), "weight", 1.0)
    if form == "log":
        level = _number(row.get("scale"), "scale", 1.0)
        if not level:
            raise DataError("scale is 0", mend="Give a number above 0.")
    else:
        level = _number(row.get("demand"), "demand", math.inf)
    return (slot, agent), (weight, level)


def _slot(given: Any) -> int:
    try:
        slot = _number(given, "slot")
    except DataError:
        slot = math.nan
    if math.isnan(slot) or slot != math.floor(slot):
        raise DataError(f'slot is "{given}"', mend="Number the slots: whole numbers of at least 0, such as hours.")
    return int(slot)


def _number(given: Any, name: str, default: float | None = None) -> float:
    """A finite number >= 0; the default for an empty cell."""
    if default is not None and (given is None or not str(given).strip()):
        return default
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise DataError(f'{name} is "{given}"', mend="Give a finite number of at least 0.")
    return value


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """Places and lines, of a file whose header is as it must be."""
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(
            f'there is no file "{path}"',
            mend=nearest(path.name, beside) or "Give the path of a CSV or Parquet file with the columns slot, agent.",
        )
    if path.stat().st_size > _MOST_BYTES:
        raise DataError(f"the file is larger than {_MOST_BYTES // 2**30} GiB", where=str(path), mend="Join slots.")
    if path.suffix == ".parquet":
        columns = read_table(path)
        _require_header(path, tuple(columns), "")
        for number, values in enumerate(zip(*columns.values(), strict=True), 1):
            yield f"row {number}", dict(zip(columns, values, strict=True))
        return
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            _require_header(path, tuple(rows.fieldnames or ()), ", line 1")
            for row in rows:
                yield f"line {rows.line_num}", row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"it is no CSV in UTF-8 ({error})", where=str(path), mend="Save it as CSV, UTF-8.") from error


def _require_header(path: Path, names: tuple[str, ...], at: str) -> None:
    wrong = [name for name in names if name not in (*_NEEDED, *_MORE)]
    if set(_NEEDED) <= set(names) and not wrong and len(set(names)) == len(names):
        return
    shown = ", ".join(f'"{name[:40]}"' for name in names) or "none"
    raise DataError(
        f"its columns are {shown}",
        where=f"{path}{at}",
        mend=f"It needs {' and '.join(_NEEDED)}, and may have {', '.join(_MORE)}.",
    )
