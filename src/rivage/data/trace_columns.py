"""The columns of tables of requests: which ones are used, and which ones only look as if they were.

A column of an unknown name is not used. Where it looks like one of ours, that is refused rather than told: what was
meant to count would be left out.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from rivage.core.errors import nearest
from rivage.data.trace_batches import fault

__all__ = ["NUMBERS", "check_names"]

_log = logging.getLogger(__name__)

NUMBERS: dict[str, type] = {"time_s": float, "origin": int, "size_bytes": int, "cost": float, "deadline_ms": float}
"""Columns besides the item, and what they hold."""

_UNITS = {"time_s": "seconds", "size_bytes": "bytes", "deadline_ms": "milliseconds"}
_ITEM = "key id item_id itemid object object_id obj obj_id url uri content content_id product product_id file"
_OTHER_NAMES = {
    "time_s": "time times timestamp timestamps ts time_ms time_us time_sec seconds epoch unix_time",
    "size_bytes": "size sizes bytes byte_size size_b size_kb size_mb obj_size object_size item_size content_length",
    "cost": "costs",
    "origin": "origins origin_id origin_node",
    "deadline_ms": "deadline deadlines deadline_s",
}


def check_names(path: Path, place: str, names: Sequence[str]) -> None:
    """Refuse a header that cannot be meant as it is, and tell which columns are not used.

    Raises:
        DataError: without ``item``, with a column of ours twice, and with one that looks like one of ours which is not
            there.
    """
    if "item" not in names:
        raise fault(path, place, 'there is no column "item"', _which_item(names))
    twice = [name for name in ("item", *NUMBERS) if names.count(name) > 1]
    if twice:
        raise fault(path, place, f'column "{twice[0]}" is there more than once', "Rename or remove the other one.")
    unused = [name for name in names if name not in ("item", *NUMBERS)]
    for name in unused:
        meant = _meant(name)
        if meant is not None and meant not in names:
            unit = f", in {_UNITS[meant]}" if meant in _UNITS else ""
            mend = f'Did you mean "{meant}"{unit}? Rename it; to yet another name if it is something else.'
            raise fault(path, place, f'unknown column "{name[:40]}"', mend)
    if unused:
        _log.warning("%s, %s: columns that are not used: %s", path, place, _shown(unused))


def _which_item(names: Sequence[str]) -> str:
    if len(names) == 1 and any(mark in names[0] for mark in ";\t|"):
        return "Separate columns by commas."
    plain = {_plain(name): name for name in reversed(names)}
    for name in ("item", *_ITEM.split()):
        if name in plain:
            return f'Rename "{plain[name]}" to "item".'
    typo = nearest("item", names)
    return f"{typo} Rename it." if typo else f"Rename one of those there are: {_shown(names)}."


def _meant(name: str) -> str | None:
    """The column that an unknown one looks like: another name, or ours with a slip of the pen."""
    plain = _plain(name)
    for known, others in _OTHER_NAMES.items():
        if plain == known or plain in others.split() or (len(known) > 4 and _slips(plain) & _slips(known)):
            return known
    return None


def _slips(name: str) -> set[str]:
    """What it shares with names that have a letter more, less, changed or exchanged with the next one."""
    return {name, *(name[:place] + name[place + 1 :] for place in range(len(name)))}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(f'"{name[:40]}"' for name in names[:8]) + more
