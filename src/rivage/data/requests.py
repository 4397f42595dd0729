"""Request traces: what is asked for, in which order, as columns.

Items are numbered densely, 0 … N − 1. Traces come from files, `rivage.data.trace_files`, and from laws and adversaries,
`rivage.data.request_laws` and `rivage.data.adversarial_requests`. For each of these there is a frozen dataclass in
`rivage.data.request_kinds`, the ``kind`` of a study's trace, that holds the settings and calls it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, require
from rivage.core.registry import Registry

__all__ = ["REQUESTS", "RequestTrace", "first_flaw"]

_COLUMNS = {
    "item": np.dtype(np.int64),
    "time_s": np.dtype(np.float64),
    "origin": np.dtype(np.int64),
    "size_bytes": np.dtype(np.int64),
    "cost": np.dtype(np.float64),
    "deadline_ms": np.dtype(np.float64),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RequestTrace:
    """A sequence of T requests for N items, as columns.

    The arrays are kept as they are given, not copied, and nothing here writes to them.

    Args:
        item: what each request asks for, 0 <= item < N.
        items: catalog size N, >= 1; it may exceed what is asked for.
        time_s: when, in seconds; finite and never falling.
        origin: number of the node where each request enters, >= 0.
        size_bytes: size of what is asked for, >= 0.
        cost: of serving the request from afar, finite, >= 0.
        deadline_ms: time left to answer, in milliseconds, finite, >= 0.
        keys: what the items were called where they came from, one per item.
        name: of the trace, in messages and reports.

    Raises:
        DataError: naming the column, the first bad position and how to mend it. The check is O(T).
    """

    item: Int64[ndarray, "requests"]
    items: int
    time_s: Float64[ndarray, "requests"] | None = None
    origin: Int64[ndarray, "requests"] | None = None
    size_bytes: Int64[ndarray, "requests"] | None = None
    cost: Float64[ndarray, "requests"] | None = None
    deadline_ms: Float64[ndarray, "requests"] | None = None
    keys: Shaped[ndarray, "items"] | None = None
    name: str = "trace"

    def __post_init__(self) -> None:
        if self.items < 1:
            raise self._fault(f"items is {self.items}", "Give the number of items, at least 1.")
        if self.keys is not None and self.keys.shape != (self.items,):
            raise self._fault(f"keys have shape {self.keys.shape}", f"Give one key for each of the {self.items} items.")
        for name, column in self.columns().items():
            self._check(name, column)
        if self.item.size and self.item.max() >= self.items:
            place = int(np.argmax(self.item >= self.items))
            raise self._fault(
                f"item is {self.item[place]} at request {place}, but items are 0 to {self.items - 1}",
                "Number the items densely, or give a larger catalog.",
            )

    def _check(self, name: str, column: Shaped[ndarray, "..."]) -> None:
        if column.dtype != _COLUMNS[name] or column.ndim != 1:
            raise self._fault(
                f"{name} is an array of {column.dtype} with shape {column.shape}",
                f"Give one {_COLUMNS[name]} per request.",
            )
        if column.shape != self.item.shape:
            raise self._fault(f"{name} has {len(column)} values for {len(self)} requests", "Give one per request.")
        flaw = first_flaw(name, column)
        if flaw is not None:
            place, what, mend = flaw
            raise self._fault(f"{what} at request {place}", mend)

    def _fault(self, what: str, mend: str) -> DataError:
        return DataError(what, where=f'trace "{self.name}"', mend=mend)

    def columns(self) -> dict[str, Shaped[ndarray, "requests"]]:
        """The columns that are there, by name."""
        found = {name: getattr(self, name) for name in _COLUMNS}
        return {name: column for name, column in found.items() if column is not None}

    def __len__(self) -> int:
        return len(self.item)

    def __getitem__(self, part: slice) -> RequestTrace:
        """A part of the requests, in order; the columns are views and are not checked again. O(1)."""
        if not isinstance(part, slice) or (part.step is not None and part.step < 1):
            raise ConfigError(f"a trace cannot be cut by {part}", mend="Give a slice that runs forward, trace[a:b].")
        view = object.__new__(RequestTrace)
        for name in ("items", "keys", "name"):
            object.__setattr__(view, name, getattr(self, name))
        for name in _COLUMNS:
            column = getattr(self, name)
            object.__setattr__(view, name, None if column is None else column[part])
        return view

    def blocks(self, size: int) -> Iterator[RequestTrace]:
        """The trace cut into parts of ``size`` requests, the last one shorter; views."""
        require(size, "size", least=1)
        return (self[start : start + size] for start in range(0, len(self), size))

    def popularity(self) -> Int64[ndarray, "items"]:
        """How often each item is asked for. O(T + N)."""
        return np.bincount(self.item, minlength=self.items)

    def describe(self) -> dict[str, int | float]:
        """What the trace is like, in a few numbers. O(T + N).

        Returns:
            ``requests`` T; ``items`` N; ``distinct`` items asked for at all; ``one_hit_share`` of those, the ones asked
            for once; ``infinite_cache_hit_ratio`` of a cache that holds everything it has seen.
        """
        counts = self.popularity()
        distinct = int(np.count_nonzero(counts))
        return {
            "requests": len(self),
            "items": self.items,
            "distinct": distinct,
            "one_hit_share": int(np.count_nonzero(counts == 1)) / max(distinct, 1),
            "infinite_cache_hit_ratio": 1.0 - distinct / max(len(self), 1),
        }


def first_flaw(name: str, column: Shaped[ndarray, "n"]) -> tuple[int, str, str] | None:
    """Position of the first value that a column must not hold, what is wrong with it, and how to mend it."""
    if name == "time_s":
        bad, mend = ~np.isfinite(column), "Give finite seconds."
        if not bad.any():
            bad, mend = np.concatenate([[False], column[1:] < column[:-1]]), "Sort the requests by time."
    else:
        bad, mend = ~((column >= 0) & (column < np.inf)), "Give finite values of at least 0."
    if not bad.any():
        return None
    place = int(np.argmax(bad))
    before = f" after {column[place - 1]}" if mend.startswith("Sort") else ""
    return place, f"{name} is {column[place]}{before}", mend


REQUESTS = Registry(
    "rivage.requests",
    "trace",
    {
        "cyclic": "rivage.data.request_kinds:Cyclic",
        "file": "rivage.data.trace_files:TraceFile",
        "global_change": "rivage.data.request_kinds:GlobalChange",
        "oscillator": "rivage.data.request_kinds:Oscillator",
        "partial_change": "rivage.data.request_kinds:PartialChange",
        "rolled": "rivage.data.request_kinds:Rolled",
        "roundwise": "rivage.data.request_kinds:Roundwise",
        "shot_noise": "rivage.data.request_kinds:ShotNoise",
        "zipf": "rivage.data.request_kinds:Zipf",
    },
)
