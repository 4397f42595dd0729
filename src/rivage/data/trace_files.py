"""Request traces in files: whole, or as a stream of blocks in bounded memory.

====================  ==============================================================================================
``int32be``           big-endian signed 32-bit keys, one per request, no header (the cache2k benchmark traces)
``oraclegeneral``     libCacheSim's records of 24 bytes, little-endian: uint32 seconds, uint64 key, uint32 size,
                      int64 next access (not used)
``text``              one key per line, UTF-8
``csv``               a header with ``item`` and, optionally, ``time_s``, ``size_bytes``, ``cost``, ``origin``,
                      ``deadline_ms``; one request per line; keys are text; further columns are ignored
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

import codecs
import csv
import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, nearest, require
from rivage.core.seeding import Streams
from rivage.data.compressed import DECODERS, opened
from rivage.data.keys import Book, Keys, book_for
from rivage.data.requests import RequestTrace, first_flaw

__all__ = ["Format", "TraceFile", "read_trace", "stream_trace"]

Format = Literal["auto", "int32be", "oraclegeneral", "text", "csv", "parquet"]

_LONGEST_LINE = 2**20  # bytes
_LARGEST_BLOCK = 2**26  # bytes of text that a block may hold
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
        _known(self.format)
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
    _known(format)
    require(block, "block", least=1)
    if not path.is_file():
        if path.is_dir():
            raise DataError(f'"{path}" is a folder', mend="Give the path of one file of requests.")
        beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f'there is no file "{path}"', mend=nearest(path.name, beside) or "Give the path of a trace.")
    if path.suffix.lower() in DECODERS:
        DECODERS[path.suffix.lower()]()  # is there one?
    read = _READERS[_recognized(path) if format == "auto" else format]
    return _numbered(path, read(path, block))


@dataclass(frozen=True, slots=True)
class _Batch:
    """One block as it stands in the file.

    Args:
        keys: one per request.
        place: tells where a value stands, from its position here and the name of its column.
        columns: what else there is; values in order, of the types of `RequestTrace`.
    """

    keys: Keys
    place: Callable[[int, str], str]
    columns: Mapping[str, Shaped[ndarray, "n"]] = field(default_factory=dict)


def _numbered(path: Path, batches: Iterator[_Batch]) -> Iterator[RequestTrace]:
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
                raise _fault(path, batch.place(0, "time_s"), f"time_s is {times[0]} after {time}", "Sort by time.")
            time = times[-1]
        item = book.number(batch.keys)
        yield RequestTrace(item=item, items=len(book), keys=book.keys, name=path.name, **batch.columns)
    if book is None:
        raise DataError("the file holds no request", where=str(path), mend="Give a trace of at least one request.")


def _check(path: Path, batch: _Batch, name: str, column: Shaped[ndarray, "n"]) -> None:
    flaw = first_flaw(name, column)
    if flaw is not None:
        raise _fault(path, batch.place(flaw[0], name), *flaw[1:])


def _fault(path: Path, place: str, what: str, mend: str) -> DataError:
    return DataError(what, where=f"{path}, {place}" if place else str(path), mend=mend)


def _records(path: Path, layout: np.dtype[Any], block: int) -> Iterator[tuple[int, Shaped[ndarray, "n"]]]:
    """Blocks of fixed-size records, each with the number of its first."""
    start = 0
    with opened(path) as stream:
        while content := _filled(stream, block * layout.itemsize):
            whole = len(content) // layout.itemsize
            if whole * layout.itemsize != len(content):
                offset = (start + whole) * layout.itemsize
                raise _fault(
                    path,
                    f"byte {offset}",
                    f"the record there has {len(content) - whole * layout.itemsize} of {layout.itemsize} bytes",
                    "The file is truncated or of another format: get it again, or name its format.",
                )
            yield start, np.frombuffer(content, layout)
            start += whole


def _filled(stream: io.BufferedReader, size: int) -> bytes:
    """Exactly ``size`` bytes, unless the stream ends before; what is not there takes no memory."""
    pieces, missing = [], size
    while missing and (piece := stream.read(min(missing, 2**20))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)


def _int32be(path: Path, block: int) -> Iterator[_Batch]:
    for _, keys in _records(path, np.dtype(">i4"), block):
        yield _Batch(keys.astype(np.int64), lambda position, column: "")


_ORACLE = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])


def _oraclegeneral(path: Path, block: int) -> Iterator[_Batch]:
    for start, records in _records(path, _ORACLE, block):
        columns = {"time_s": records["time"].astype(np.float64), "size_bytes": records["size"].astype(np.int64)}
        yield _Batch(records["key"].astype(np.uint64), _record_place(start), columns)


def _record_place(start: int) -> Callable[[int, str], str]:
    return lambda position, column: f"record {start + position}, byte {(start + position) * _ORACLE.itemsize}"


def _lines(path: Path) -> Iterator[str]:
    """The lines without their ends; each is short, not empty, and UTF-8."""
    with opened(path) as stream:
        number = 0
        while line := stream.readline(_LONGEST_LINE + 1):
            number += 1
            yield _decoded(path, number, line)


def _decoded(path: Path, number: int, line: bytes) -> str:
    place = f"line {number}"
    if len(line) > _LONGEST_LINE:
        raise _fault(path, place, f"it is longer than {_LONGEST_LINE} bytes", "Give one request per line.")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise _fault(
            path,
            f"{place}, column {error.start + 1}",
            f"byte 0x{line[error.start]:02x} is no UTF-8",
            "Save it as UTF-8.",
        ) from error
    if not text:
        raise _fault(path, place, "it is empty", "Remove empty lines.")
    return text


def _text_blocks(lines: Iterator[str], block: int) -> Iterator[list[str]]:
    """Lines by the block; blocks with much text end early."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if len(held) == block or size > _LARGEST_BLOCK:
            yield held
            held, size = [], 0
    if held:
        yield held


def _text(path: Path, block: int) -> Iterator[_Batch]:
    for keys in _text_blocks(_lines(path), block):
        yield _Batch(keys, lambda position, column: "")


_NUMBERS: dict[str, type] = {"time_s": float, "origin": int, "size_bytes": int, "cost": float, "deadline_ms": float}


def _csv(path: Path, block: int) -> Iterator[_Batch]:
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        return
    names = [name.strip() for name in _fields(path, 1, header)]
    _check_names(path, "line 1", names)
    number = 2
    for held in _text_blocks(lines, block):
        rows = _rows(path, number, held, names)
        values = dict(zip(names, zip(*rows, strict=True), strict=True))
        if "" in values["item"]:
            place = _csv_place(number, names)(values["item"].index(""), "item")
            raise _fault(path, place, "it is empty", "Give every request an item.")
        columns = {
            name: _parsed(path, number, name, names.index(name) + 1, values[name])
            for name in _NUMBERS
            if name in values
        }
        yield _Batch(list(values["item"]), _csv_place(number, names), columns)
        number += len(held)


def _csv_place(first: int, names: list[str]) -> Callable[[int, str], str]:
    return lambda position, column: f'line {first + position}, column {names.index(column) + 1} ("{column}")'


def _fields(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise _fault(
            path, f"line {number}", f"it is no CSV ({error})", "Close quotes on the line they open."
        ) from error


def _rows(path: Path, first: int, lines: list[str], names: list[str]) -> list[list[str]]:
    """The fields of each line, as many as there are names."""
    with suppress(csv.Error):
        rows = list(csv.reader(lines, strict=True))
        if len(rows) == len(lines) and all(len(row) == len(names) for row in rows):  # no quote spans two lines
            return rows
    return [_row(path, first + offset, line, names) for offset, line in enumerate(lines)]


def _row(path: Path, number: int, line: str, names: list[str]) -> list[str]:
    fields = _fields(path, number, line)
    if len(fields) != len(names):
        column = min(len(fields), len(names)) + 1
        raise _fault(
            path,
            f"line {number}, column {column}",
            f"it has {len(fields)} fields and the header {len(names)}",
            "Give each column one value, quoted where it holds a comma.",
        )
    return fields


def _check_names(path: Path, place: str, names: list[str]) -> None:
    shown = ", ".join(f'"{name[:40]}"' for name in names[:8])
    if "item" not in names:
        raise _fault(path, place, 'there is no column "item"', f"Rename one of those there are: {shown}.")
    twice = [name for name in ("item", *_NUMBERS) if names.count(name) > 1]
    if twice:
        raise _fault(path, place, f'column "{twice[0]}" is there more than once', "Rename or remove the other one.")


def _parsed(path: Path, first: int, name: str, column: int, texts: tuple[str, ...]) -> Shaped[ndarray, "n"]:
    """A column of numbers."""
    kind = _NUMBERS[name]
    dtype = np.dtype(np.float64 if kind is float else np.int64)
    with suppress(ValueError, OverflowError):
        values = np.fromiter(map(kind, texts), dtype, len(texts))
        if not any("_" in text for text in texts):  # Python reads 1_000, nobody else does
            return values
    position = next(place for place, text in enumerate(texts) if not _is_number(text, dtype))
    raise _fault(
        path,
        f'line {first + position}, column {column} ("{name}")',
        f'"{texts[position][:40]}" is no {"number" if kind is float else "whole number of 64 bits"}',
        "Give one, without unit or separator.",
    )


def _is_number(text: str, dtype: np.dtype[Any]) -> bool:
    try:
        np.array([float(text) if dtype.kind == "f" else int(text)], dtype)
    except (ValueError, OverflowError):
        return False
    return "_" not in text


def _parquet(path: Path, block: int) -> Iterator[_Batch]:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_names(path, "schema", names)
            start = 0
            for batch in file.iter_batches(block, columns=[name for name in ("item", *_NUMBERS) if name in names]):
                if len(batch):
                    yield _parquet_batch(path, start, batch)
                start += len(batch)
    except (arrow.ArrowException, OSError) as error:
        raise _fault(path, "", f"it is no Parquet file that can be read ({error})", "Get or write it again.") from error


def _parquet_batch(path: Path, start: int, batch: Any) -> _Batch:
    import pyarrow as arrow

    def place(position: int, column: str) -> str:
        return f'row {start + position}, column "{column}"'

    columns: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count:
            position = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise _fault(path, place(position, name), "it is null", "Give every request a value.")
        kind = column.type.value_type if arrow.types.is_dictionary(column.type) else column.type
        if name == "item" and (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
            columns[name] = column.to_pylist()
            continue
        whole = arrow.types.is_integer(kind)
        if not whole and (_NUMBERS.get(name) is not float or not arrow.types.is_floating(kind)):
            wanted = (
                "whole numbers or text" if name == "item" else "numbers" if _NUMBERS[name] is float else "whole numbers"
            )
            raise _fault(path, f'column "{name}"', f"it holds {kind}", f"Give {wanted}.")
        unsigned = name == "item" and arrow.types.is_uint64(kind)
        to = arrow.uint64() if unsigned else arrow.int64() if _NUMBERS.get(name) is not float else arrow.float64()
        columns[name] = column.cast(to).to_numpy(zero_copy_only=False)
    return _Batch(columns.pop("item"), place, columns)


_READERS: dict[str, Callable[[Path, int], Iterator[_Batch]]] = {
    "int32be": _int32be,
    "oraclegeneral": _oraclegeneral,
    "text": _text,
    "csv": _csv,
    "parquet": _parquet,
}


def _known(format: str) -> None:
    if format != "auto" and format not in _READERS:
        mend = nearest(format, _READERS) or f"Known formats: auto, {', '.join(_READERS)}."
        raise ConfigError(f'unknown trace format "{format}"', mend=mend)


def _recognized(path: Path) -> str:
    """The format of a file, by its name without what tells the compression, else by its first 4 KiB.

    Raises:
        DataError: for bytes that no name explains: a wrong guess would be read as nonsense.
    """
    name = path.name.lower()
    plain = Path(name).stem if Path(name).suffix in DECODERS else name
    for ending, format in ((".csv", "csv"), (".txt", "text"), (".parquet", "parquet"), (".int32be", "int32be")):
        if plain.endswith(ending):
            return format
    if "oraclegeneral" in plain:
        return "oraclegeneral"
    with opened(path) as stream:
        head = _filled(stream, 2**12)
    if head.startswith(b"PAR1"):
        return "parquet"
    text = _as_text(head)
    if text is not None:
        names = text.splitlines()[0].replace('"', "").split(",") if text else []
        return "csv" if "item" in names else "text"
    if plain.endswith(".trace"):
        return "int32be"
    raise DataError(
        "the format cannot be told from the name or the content",
        where=str(path),
        mend=f"Name it: {', '.join(_READERS)}.",
    )


def _as_text(head: bytes) -> str | None:
    """The beginning of a file as text, unless it is none."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
