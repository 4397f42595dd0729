"""Networks as CSV: one line for each link, and one line for each item that a node serves.

::

    from,to,cost                 item,server
    Paris,Lyon,4.5               film-1,cloud
    Lyon,cloud,20                film-2,Paris

Nodes are those that links name, in the order in which they first appear. Without ``cost`` every link costs 1.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rivage.core.errors import ConfigError, nearest
from rivage.core.settings import combine
from rivage.graphs.network import Network

__all__ = ["read_links", "read_servers"]

_MOST_BYTES = 64 * 2**20
_SHOWN = 20  # faults listed
_UNEVEN = ("it has not as many columns as the header", "Separate columns by commas, quote names that have some.")


def read_links(path: Path) -> Network:
    """The network of a CSV file.

    Args:
        path: of the file, UTF-8.

    Raises:
        ConfigError: for a file that is missing, no CSV, or has wrong lines: all of them are listed with their places.
    """
    names: dict[str, int] = {}
    links: dict[tuple[int, int], float] = {}
    problems: list[ConfigError] = []
    for line, row in _rows(path, ("from", "to"), ("cost",)):
        if (fault := _fault(row, names, links)) is not None:
            problems.append(ConfigError(fault[0], where=f"line {line}", mend=fault[1]))
            continue
        one, other = (names.setdefault(row[end].strip(), len(names)) for end in ("from", "to"))
        links[one, other] = float(row.get("cost") or 1)
    if problems:
        raise combine(problems[:_SHOWN], str(path))
    if not links:
        raise ConfigError("there is no link", where=str(path), mend='Give lines such as "Paris,Lyon,4.5".')
    network = Network.of(len(names), links, list(links.values()), names=tuple(names), name=path.stem)
    if not network.is_connected:
        raise ConfigError("some nodes cannot be reached from others", where=str(path), mend=_apart(network))
    return network


def read_servers(path: Path) -> dict[str, tuple[str, int]]:
    """Item -> the node that serves it, and the line that says so.

    Args:
        path: of the file, UTF-8.

    Raises:
        ConfigError: for a file that is missing, no CSV, or has wrong lines: all of them are listed with their places.
    """
    found: dict[str, tuple[str, int]] = {}
    problems: list[ConfigError] = []
    for line, row in _rows(path, ("item", "server"), ()):
        if None in row or None in row.values():
            problems.append(ConfigError(_UNEVEN[0], where=f"line {line}", mend=_UNEVEN[1]))
        elif row["item"] in found:
            what = f'item "{row["item"]}" is in line {found[row["item"]][1]} too'
            problems.append(ConfigError(what, where=f"line {line}", mend="Give each item one server."))
        else:
            found[row["item"]] = row["server"].strip(), line
    if problems:
        raise combine(problems[:_SHOWN], str(path))
    return found


def _rows(path: Path, needed: Sequence[str], optional: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Lines and their columns, of a file whose header is as it must be."""
    if not path.is_file():
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        columns = ", ".join([*needed, *optional])
        raise ConfigError(
            f'there is no file "{path}"',
            mend=nearest(path.name, beside) or f"Give the path of a CSV file with the columns {columns}.",
        )
    if path.stat().st_size > _MOST_BYTES:
        raise ConfigError(f"the file is larger than {_MOST_BYTES // 2**20} MiB", where=str(path), mend="Give fewer.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            _require_header(path, list(rows.fieldnames or ()), needed, optional)
            for row in rows:
                yield rows.line_num, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"it is no CSV in UTF-8 ({error})", where=str(path), mend="Save it as CSV, UTF-8.") from error


def _require_header(path: Path, names: Sequence[str], needed: Sequence[str], optional: Sequence[str]) -> None:
    wrong = [name for name in names if name not in (*needed, *optional)]
    if set(needed) <= set(names) and not wrong and len(set(names)) == len(names):
        return
    shown = ", ".join(f'"{name[:40]}"' for name in names) or "none"
    also = f", and may have {_quoted(optional)}" if optional else ""
    raise ConfigError(
        f"its columns are {shown}", where=f"{path}, line 1", mend=f"It needs {_quoted(needed)}{also}, no others."
    )


def _quoted(names: Sequence[str]) -> str:
    return " and ".join(f'"{name}"' for name in names)


def _fault(row: dict[str, Any], names: dict[str, int], links: dict[tuple[int, int], float]) -> tuple[str, str] | None:
    """What is wrong with a line, and how to mend it."""
    if None in row or None in row.values():
        return _UNEVEN
    one, other = (row[end].strip() for end in ("from", "to"))
    if not one or not other:
        return "a node has no name", "Name both."
    if one == other:
        return f'a link from "{one}" to itself', "Remove it."
    pair = names.get(one, -1), names.get(other, -1)
    if pair in links or pair[::-1] in links:
        return f"link {one}–{other} is there twice", "Give each link once; links are the same in both directions."
    return _cost_fault(row.get("cost", "1"))


def _cost_fault(text: str) -> tuple[str, str] | None:
    try:
        cost = float(text)
    except ValueError:
        cost = math.nan
    return None if 0 <= cost < math.inf else (f'cost is "{text}"', "Give a finite number of at least 0.")


def _apart(network: Network) -> str:
    """Which nodes the first one does not reach."""
    seen, front = {0}, [0]
    while front:
        fresh = set(network.neighbours(front.pop()).tolist()) - seen
        seen |= fresh
        front += fresh
    far = [network.label(node) for node in range(network.nodes) if node not in seen]
    more = f" and {len(far) - 5} more" if len(far) > 5 else ""
    return f"Add links from {network.label(0)} to {', '.join(far[:5])}{more}."
