"""Request traces in files: whole, or as a stream of blocks in bounded memory.

====================  ==============================================================================================
``int32be``           big-endian signed 32-bit keys, one per request, no header (the cache2k benchmark traces)
``oraclegeneral``     libCacheSim's records of 24 bytes, little-endian: uint32 seconds, uint64 key, uint32 size,
                      int64 next access (not used)
``text``              one key per line, UTF-8
``csv``               a header with ``item`` and, optionally, ``time_s``, ``size_bytes``, ``cost``, ``origin``,
                      ``deadline_ms``; one request per line; keys are text; other columns are not used, which is logged;
                      one that looks like these is refused
``parquet``           the same columns; keys are integers or text
====================  ==============================================================================================

All but ``parquet`` may be compressed, which the last suffix tells: ``.gz``, ``.xz``, ``.zst``.

Keys become items 0, 1, … in the order in which they first appear, so that a stream and the whole file agree. The
files are taken for hostile: what is malformed is refused with its place, a line, a record or a decompressor that asks
for much memory as well, and nothing in them is executed.

References:
    Yang, Yue, Rashmi. A large-scale analysis of hundreds of in-memory key-value cache clusters at Twitter. ACM TOS
    17(3), 2021, and the libCacheSim project (the record of ``oraclegeneral``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from rivage.core.errors import DataError, nearest, require
from rivage.core.seeding import Streams
from rivage.data.compressed import DECODERS
from rivage.data.keys import Book, book_for
from rivage.data.requests import RequestTrace, first_flaw
from rivage.data.trace_batches import Batch, fault
from rivage.data.trace_formats import READERS, Format, recognized, require_known

__all__ = ["TraceFile", "read_trace", "stream_trace"]

_MOST_REQUESTS = 2**30  # that a trace may hold in memory


@dataclass(frozen=True, slots=True)
class TraceFile:
    """A trace of yours.

    Args:
        path: the file.
        format: one of those above; ``auto`` goes by suffix and content.
        limit: use the first so many requests; all if left out.
    """

    path: Path
    format: Format = "auto"
    limit: int | None = None

    def __post_init__(self) -> None:
        require_known(self.format)
        if self.limit is not None:
            require(self.limit, "limit", least=1)

    def build(self, streams: Streams) -> RequestTrace:
        """Read the file; the seed is not used.

        Raises:
            DataError: if it is missing or malformed.
        """
        return read_trace(self.path, self.format, limit=self.limit)

    def stream(self, block: int) -> Iterator[RequestTrace]:
        """The same requests a block at a time, in bounded memory; see `stream_trace`."""
        left = self.limit
        for part in stream_trace(self.path, self.format, block):
            yield part if left is None else part[:left]
            left = None if left is None else left - len(part)
            if left is not None and left <= 0:
                return


def read_trace(path: Path | str, format: Format = "auto", *, limit: int | None = None) -> RequestTrace:
    """The requests of a file.

    Args:
        path: the file.
        format: one of those above; ``auto`` goes by suffix and content.
        limit: stop after so many requests; all if left out.

    Raises:
        DataError: for a file that is missing, empty, malformed (with the place), or larger than 2^30 requests.
        ConfigError: for an unknown format.
        MissingExtra: for a ``.zst`` file without zstandard.

    Time O(T log N), memory O(T + N).
    """
    if limit is not None:
        require(limit, "limit", least=1)
    parts, size = [], 0
    for block in stream_trace(path, format):
        parts.append(block[: None if limit is None else limit - size])
        size += len(parts[-1])
        if size == limit:
            break
        if limit is None and size > _MOST_REQUESTS:
            raise DataError(
                f"there are more than {_MOST_REQUESTS} requests",
                where=str(path),
                mend="Give a limit, or read the file with stream_trace.",
            )
    return _joined(parts)


def _joined(parts: list[RequestTrace]) -> RequestTrace:
    columns = {name: np.concatenate([part.columns()[name] for part in parts]) for name in parts[0].columns()}
    items = int(columns["item"].max()) + 1  # the last block may have been cut, its catalog not
    keys = parts[-1].keys
    assert keys is not None, "a file has keys"
    return RequestTrace(**columns, items=items, keys=keys[:items].copy(), name=parts[0].name)


def stream_trace(path: Path | str, format: Format = "auto", block: int = 2**16) -> Iterator[RequestTrace]:
    """The requests of a file, a block at a time.

    The catalog grows: ``items`` and ``keys`` of a block are those seen so far, and an item keeps its number. The
    memory is that of one block and of the keys: 24 bytes for an integer, a Python string and its place in a
    dictionary for a text.

    Args:
        path: the file.
        format: one of those above; ``auto`` goes by suffix and content.
        block: requests per block, >= 1; the last one is shorter, as are blocks of more than 64 MiB of text.

    Returns:
        An iterator, which raises `DataError` when it comes to what is malformed: blocks that came before were fine.

    Raises:
        DataError: at once for a file that is missing, or whose format cannot be told.
        ConfigError: for an unknown format, or a block below 1.
        MissingExtra: for a ``.zst`` file without zstandard.
    """
    path = Path(path)
    require_known(format)
    require(block, "block", least=1)
    if not path.is_file():
        if path.is_dir():
            raise DataError(f'"{path}" is a folder', mend="Give the path of one file of requests.")
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f'there is no file "{path}"', mend=nearest(path.name, beside) or "Give the path of a trace.")
    if path.suffix.lower() in DECODERS:
        DECODERS[path.suffix.lower()]()  # is there one?
    read = READERS[recognized(path) if format == "auto" else format]
    return _numbered(path, read(path, block))


def _numbered(path: Path, batches: Iterator[Batch]) -> Iterator[RequestTrace]:
    """Requests for dense items; the values of every column are checked here, with their place in the file."""
    book: Book | None = None
    time = -np.inf
    for batch in batches:
        book = book or book_for(batch.keys)
        for name, column in batch.columns.items():
            _check(path, batch, name, column)
        if "time_s" in batch.columns:
            times = batch.columns["time_s"]
            if times[0] < time:
                what, mend = f"time_s is {times[0]} after {time}", f"Sort the requests by time.{batch.hint}"
                raise fault(path, batch.place(0, "time_s"), what, mend)
            time = times[-1]
        item = book.number(batch.keys)
        yield RequestTrace(item=item, items=len(book), keys=book.keys, name=path.name, **batch.columns)
    if book is None:
        raise DataError("the file holds no request", where=str(path), mend="Give a trace of at least one request.")


def _check(path: Path, batch: Batch, name: str, column: Shaped[ndarray, "n"]) -> None:
    flaw = first_flaw(name, column)
    if flaw is not None:
        place, what, mend = flaw
        raise fault(path, batch.place(place, name), what, mend + batch.hint)
