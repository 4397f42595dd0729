"""A trace that is read once and played many times: numbered, counted, priced, and kept on the disk.

Whoever plays a trace must know beforehand how many items there are, and often how many requests. `Replay.of` finds out
while it reads the requests, a block at a time, and writes their item numbers to a temporary file, 4 bytes each, from
which `Replay.blocks` gives them back as often as wanted. Memory is that of the keys and of one block.

Costs become *weights*, one for each item. Where the requests for an item cost different amounts, it counts with their
mean: what all requests cost together stays the same.
"""

from __future__ import annotations

import csv
import hashlib
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.data.requests import RequestTrace

__all__ = ["Replay"]

_MOST_ITEMS = 2**31 - 1
_WIDTH = np.dtype("<i4")
_COSTS = (1e-150, 1e150)  # of all requests together: policies add up squares of costs, which must be numbers too


@dataclass(frozen=True, eq=False, kw_only=True)
class Replay:
    """The requests of a trace.

    Args:
        name: of the trace.
        items: catalog size N.
        requests: how many, T >= 1.
        distinct: items asked for at all.
        weights: cost of fetching each item; None where all cost the same.
        varying: items whose requests cost different amounts.
        fingerprint: of all of this but the name.
        file: the numbers of the items, closed with the replay.
    """

    name: str
    items: int
    requests: int
    distinct: int
    weights: Float64[ndarray, "items"] | None
    varying: int
    fingerprint: str
    file: IO[bytes]

    def __post_init__(self) -> None:
        weakref.finalize(self, self.file.close)

    @classmethod
    def of(cls, parts: Iterable[RequestTrace], *, costs: str = "none") -> Replay:
        """Read a trace to its end. O(T + N).

        Args:
            parts: of one trace, in order; the keys of its items may grow from part to part.
            costs: ``none`` ignores them, ``trace`` takes those of the requests, anything else is the path of a CSV
                file with the columns ``item`` and ``cost``.

        Raises:
            DataError: for a trace without requests or with too many items, and for costs that are missing, not
                numbers, negative, 0 for all that is asked for, or too large or small to be added up.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the replay
        try:
            return cls._read(parts, costs, file)
        except BaseException:
            file.close()
            raise

    @classmethod
    def _read(cls, parts: Iterable[RequestTrace], costs: str, file: IO[bytes]) -> Replay:
        survey, digest, last = _Survey(costs == "trace"), hashlib.blake2b(digest_size=16), None
        for last in parts:
            survey.add(last)
            content = last.item.astype(_WIDTH).tobytes()
            digest.update(content)
            file.write(content)
        if last is None or not survey.requests:
            raise DataError("there is no request", where="[trace]", mend="Give a trace of at least one request.")
        file.flush()
        weights = survey.weights() if costs == "trace" else None if costs == "none" else _priced(last, survey, costs)
        if weights is not None:
            _require_sums(weights, survey.counts[: survey.items], last, "[trace]" if costs == "trace" else costs)
        digest.update(f"{survey.items}".encode())
        digest.update(b"" if weights is None else weights.tobytes())
        return cls(
            name=last.name,
            items=survey.items,
            requests=survey.requests,
            distinct=int(np.count_nonzero(survey.counts)),
            weights=weights,
            varying=survey.varying,
            fingerprint=digest.hexdigest(),
            file=file,
        )

    def blocks(self, size: int) -> Iterable[Int64[ndarray, "n"]]:
        """The item numbers, ``size`` at a time, as often as wanted; one iterator at a time."""
        return _Blocks(self, size)

    def describe(self) -> dict[str, Any]:
        """What a record says of the trace."""
        return {
            "name": self.name,
            "requests": self.requests,
            "items": self.items,
            "distinct": self.distinct,
            "weighted": self.weights is not None,
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, slots=True)
class _Blocks:
    """The requests of a replay, every time anew."""

    replay: Replay
    size: int

    def __iter__(self) -> Iterator[Int64[ndarray, "n"]]:
        file = self.replay.file
        file.seek(0)
        while content := file.read(self.size * _WIDTH.itemsize):
            yield np.frombuffer(content, _WIDTH).astype(np.int64)


class _Survey:
    """What is known of a trace when all of it has been seen."""

    def __init__(self, priced: bool) -> None:
        self.requests = self.items = 0
        self.counts = np.zeros(0, np.int64)
        self._priced = priced
        self._sums, self._least, self._most = np.zeros(0), np.zeros(0), np.zeros(0)

    def add(self, part: RequestTrace) -> None:
        """One part; the catalog of a part of a file may be ahead of what it holds."""
        numbered = int(part.item.max()) + 1 if len(part) else 0
        self.items = max(self.items, numbered if part.keys is not None else part.items)
        if self.items > _MOST_ITEMS:
            raise DataError(
                f"there are more than {_MOST_ITEMS} items", where=part.name, mend="Use the first part of it: limit."
            )
        self.requests += len(part)
        self.counts = _longer(self.counts, self.items)
        np.add.at(self.counts, part.item, 1)  # as large as the part: its catalog may be a thousand times larger
        if self._priced:
            self._price(part)

    def _price(self, part: RequestTrace) -> None:
        if part.cost is None:
            raise DataError(
                "it has no costs", where=f'trace "{part.name}"', mend='Give it a column "cost", or set cache.costs.'
            )
        self._sums = _longer(self._sums, self.items)
        with np.errstate(over="ignore"):  # refused when all is known, see _require_sums
            np.add.at(self._sums, part.item, part.cost)
        self._least, self._most = _longer(self._least, self.items, np.inf), _longer(self._most, self.items, -np.inf)
        np.minimum.at(self._least, part.item, part.cost)
        np.maximum.at(self._most, part.item, part.cost)

    @property
    def varying(self) -> int:
        """Items whose requests cost different amounts."""
        return int(np.count_nonzero(self._least < self._most))

    def weights(self) -> Float64[ndarray, "items"]:
        """The mean cost of each item, 0 for items that nobody asks for."""
        sums, counts = self._sums[: self.items], self.counts[: self.items]
        weights: Float64[ndarray, "items"] = np.divide(sums, counts, out=np.zeros(self.items), where=counts > 0)
        return weights


def _longer(values: Shaped[ndarray, "n"], size: int, fill: float = 0) -> Shaped[ndarray, "m"]:
    """The values, at least so many, with ``fill`` behind them; twice as many where that is not enough."""
    if size <= len(values):
        return values
    return np.concatenate([values, np.full(max(size, 2 * len(values)) - len(values), fill, values.dtype)])


def _require_sums(
    weights: Float64[ndarray, "items"], counts: Int64[ndarray, "items"], last: RequestTrace, where: str
) -> None:
    """Refuse costs that nothing can be computed from, naming the item that all of its requests make the dearest."""
    with np.errstate(over="ignore"):
        asked = np.multiply(weights, counts, out=np.zeros(len(counts)), where=counts > 0)
        total, dearest = float(asked.sum()), int(asked.argmax())
    if total == 0:
        raise DataError(
            "all costs are 0: there is nothing to save",
            where=where,
            mend="Give at least one item that is asked for a cost above 0.",
        )
    if not _COSTS[0] <= total <= _COSTS[1]:
        name = dearest if last.keys is None else last.keys[dearest]
        raise DataError(
            f'the {counts[dearest]} requests for item "{name}" cost {asked[dearest]:.3g}',
            where=where,
            mend=f"Give costs in another unit: all requests together may cost from {_COSTS[0]:g} to {_COSTS[1]:g}.",
        )


def _priced(last: RequestTrace, survey: _Survey, costs: str) -> Float64[ndarray, "items"]:
    """The costs of a file, for the items of the trace."""
    prices = _prices(Path(costs))
    keys = range(survey.items) if last.keys is None else last.keys[: survey.items].tolist()
    missing = [key for key in keys if str(key) not in prices]
    if missing:
        more = f" and {len(missing) - 1} others have" if len(missing) > 1 else " has"
        raise DataError(
            f'item "{missing[0]}" of the trace{more} no cost', where=costs, mend="Give every item of the trace a line."
        )
    return np.array([prices[str(key)] for key in keys])


def _prices(path: Path) -> dict[str, float]:
    """Item -> cost, from a CSV file."""
    if not path.is_file():
        raise DataError(
            f'there is no file "{path}"',
            where="[cache] costs",
            mend='Give the path of a CSV file with the columns "item" and "cost", "trace", or "none".',
        )
    prices: dict[str, float] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            if not {"item", "cost"} <= set(rows.fieldnames or ()):
                shown = ", ".join(f'"{name}"' for name in rows.fieldnames or ()) or "none"
                raise DataError(f"its columns are {shown}", where=f"{path}, line 1", mend='It needs "item" and "cost".')
            for row in rows:
                _enter(prices, row, f"{path}, line {rows.line_num}")
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"it is no CSV in UTF-8 ({error})", where=str(path), mend="Save it as CSV, UTF-8.") from error
    return prices


def _enter(prices: dict[str, float], row: dict[str, Any], where: str) -> None:
    item, text = row["item"], row["cost"]
    try:
        cost = float(text)
    except (TypeError, ValueError):
        cost = float("nan")
    if not 0 <= cost < float("inf"):
        raise DataError(f'cost is "{text}"', where=where, mend="Give a finite number of at least 0.")
    if item in prices:
        raise DataError(f'item "{item}" is there twice', where=where, mend="Give each item one line.")
    prices[item] = cost
