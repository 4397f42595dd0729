"""Files that survive: deterministic JSON, safetensors, JSON Lines and Parquet; atomic, and never pickled.

Whole files are written beside their place, synced and renamed, so that a reader sees the old file or the new
one. Line files grow by one write per line: a process killed at any instant leaves at most a torn last line,
which readers drop. Headers that come from a file are checked before anything is allocated for them. A file
has one writer at a time.

The safetensors coding is written out here, not taken from the library: bytes must be equal on every machine
(message logs share payloads by content), their number must be known without producing them, and arrays must
go out and come in without a copy. The library and this module read each other's files.

References:
    Safetensors format: u64 header length, JSON header, tensors. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy import ndarray

from rivage.core.errors import StoreError

__all__ = [
    "Tensors",
    "append_jsonl",
    "decode_tensors",
    "dumps",
    "encode_tensors",
    "encoded_size",
    "load_tensors",
    "parse_json",
    "read_json",
    "read_jsonl",
    "read_table",
    "read_text",
    "save_tensors",
    "sync",
    "tensor_chunks",
    "truncate_jsonl",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]

Tensors = Mapping[str, ndarray]
Loaded = tuple[dict[str, ndarray], dict[str, str]]

MAX_HEADER_BYTES = 16 << 20
MAX_TEXT_BYTES = 256 << 20
_RESTORE = "Restore it from a copy, or delete it and run again."
_CODES = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
_CODE_OF = {np.dtype(text): code for code, text in _CODES.items()}

# --- JSON ---------------------------------------------------------------------------------------------------


def dumps(value: Any) -> str:
    """JSON with sorted keys, no spaces, floats by ``repr``, ASCII only: equal values give equal text.

    JSON has no NaN and no infinity: they become null. NumPy scalars and arrays become numbers and lists.
    """
    try:
        return _dumps(value)
    except ValueError:  # a number that JSON cannot say; rare, so the slow pass is only taken here
        return _dumps(_finite(value))


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return _finite(value.tolist()) if isinstance(value, ndarray | np.generic) else value


def parse_json(text: bytes | bytearray, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        StoreError: if it is not JSON; ``where`` says which text.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"is not JSON ({error})", where=where, mend=_RESTORE) from error


# --- safetensors --------------------------------------------------------------------------------------------

_Span = tuple[int, int, np.dtype[Any], tuple[int, ...]]
_Signature = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


def _signature(tensors: Tensors) -> _Signature:
    return tuple((name, array.dtype, array.shape) for name, array in tensors.items())


def _order(signature: _Signature) -> _Signature:
    # Wide numbers first, so that every tensor starts at a multiple of its own width.
    return tuple(sorted(signature, key=lambda entry: (-entry[1].itemsize, entry[0])))


def _header(signature: _Signature, metadata: Mapping[str, str]) -> bytes:
    head: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, dtype, shape in _order(signature):
        assert name != "__metadata__", "safetensors keeps this name for itself"
        code = _CODE_OF.get(dtype.newbyteorder("<"))
        if code is None:
            raise StoreError(
                f'"{name}" has dtype {dtype}', mend=f"Convert it to one of {', '.join(map(str, _CODE_OF))}."
            )
        start, end = end, end + math.prod(shape) * dtype.itemsize
        head[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


@lru_cache(maxsize=256)
def _size(signature: _Signature) -> int:
    data = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in signature)
    return len(_header(signature, {})) + data


def encoded_size(tensors: Tensors) -> int:
    """Exactly ``len(encode_tensors(tensors))``, without serialising: O(number of tensors), no copy."""
    return _size(_signature(tensors))


def tensor_chunks(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Iterator[memoryview]:
    """The pieces of `encode_tensors`, in order: the header, then a view on each contiguous tensor."""
    signature = _signature(tensors)
    yield memoryview(_header(signature, metadata or {}))
    for name, dtype, _ in _order(signature):
        array = np.asarray(tensors[name], dtype.newbyteorder("<"), order="C")
        yield array.reshape(-1).view(np.uint8).data


def encode_tensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """Safetensors bytes; equal tensors and metadata give equal bytes, whatever the order of the names.

    Raises:
        StoreError: for a dtype that safetensors cannot hold (objects, text, complex numbers).
    """
    return b"".join(tensor_chunks(tensors, metadata))


def decode_tensors(buffer: bytes | bytearray, *, where: str = "") -> Loaded:
    """The inverse of `encode_tensors`, and of the safetensors library.

    Args:
        buffer: a bytearray is not copied, the arrays are views on it; bytes are copied once.
        where: what to call the buffer in errors.

    Returns:
        Writable arrays by name, and the metadata.

    Raises:
        StoreError: for anything that is not exactly one well-formed safetensors buffer.
    """
    data = bytearray(buffer) if isinstance(buffer, bytes) else buffer
    with _well_formed(where):
        length = _header_length(data[:8], len(data))
        spans, metadata = _layout(data[8 : 8 + length], len(data) - 8 - length)
        return _views(data, 8 + length, spans), metadata


@contextmanager
def _well_formed(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise StoreError(f"is not a safetensors buffer ({error})", where=where, mend=_RESTORE) from error


def _header_length(opening: bytes | bytearray, size: int) -> int:
    length = int.from_bytes(opening, "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"header length {length} is beyond the {size} bytes or above {MAX_HEADER_BYTES}")
    return length


def _layout(header: bytes | bytearray, size: int) -> tuple[dict[str, _Span], dict[str, str]]:
    """Where each tensor lies in ``size`` bytes of data, which they must fill; and the metadata."""
    head = json.loads(header)
    metadata = head.pop("__metadata__", {}) if isinstance(head, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("the header is not a table of tensors and texts")
    spans = {name: _span(name, entry) for name, entry in head.items()}
    position = 0
    for start, end, _, _ in sorted(spans.values(), key=lambda span: span[:2]):
        if start != position:
            raise ValueError(f"a tensor starts at {start}, not at {position}")
        position = end
    if position != size:
        raise ValueError(f"the tensors take {position} bytes of {size}")
    return spans, metadata


def _span(name: str, entry: Any) -> _Span:
    shape, offsets = entry["shape"], entry["data_offsets"]
    # The product of a hostile shape of a million numbers would take hours: NumPy stops at 64 axes anyway.
    if len(shape) > 64 or not all(type(number) is int and 0 <= number < 2**62 for number in [*shape, *offsets]):
        raise ValueError(f'"{name:.80}" has a malformed shape or place')
    dtype, (start, end) = np.dtype(_CODES[entry["dtype"]]), offsets
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f'"{name:.80}" of shape {shape} does not take bytes {start} to {end}')
    return start, end, dtype, tuple(shape)


def _views(data: bytearray, origin: int, spans: Mapping[str, _Span]) -> dict[str, ndarray]:
    arrays = {}
    for name, (start, _, dtype, shape) in spans.items():
        flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=origin + start)
        # Files of others need not be aligned; what computes on the array may assume that it is.
        arrays[name] = np.require(flat, requirements="A").reshape(shape)
    return arrays


# --- whole files --------------------------------------------------------------------------------------------


def write_bytes(path: Path, *pieces: bytes | memoryview) -> None:
    """Replace a file by these bytes, atomically and durably; missing folders are made."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A fixed name: what a killed writer left behind is overwritten by the next one, not collected.
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # pragma: no cover - Windows can neither open nor sync a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of one deterministic JSON value; NaN and infinities become null."""
    write_bytes(path, dumps(value).encode(), b"\n")


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """An open file and its size."""
    try:
        with Path(path).open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _read(path: Path) -> bytes:
    with _opened(path) as (file, size):
        if size > MAX_TEXT_BYTES:
            what = f"has {size} bytes, more than {MAX_TEXT_BYTES}"
            raise StoreError(what, where=str(path), mend="Check that it is the right file.")
        return file.read()


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"cannot be read ({error.strerror or error})",
        where=str(path),
        mend="Check the path and its permissions.",
    )


def read_text(path: Path) -> str:
    """The text of a UTF-8 file of at most 256 MiB.

    Raises:
        StoreError: if the file is missing, too large or not UTF-8.
    """
    try:
        return _read(path).decode()
    except UnicodeDecodeError as error:
        raise StoreError(f"is not UTF-8 text ({error})", where=str(path), mend=_RESTORE) from error


def read_json(path: Path) -> Any:
    """The value of a JSON file of at most 256 MiB.

    Raises:
        StoreError: if the file is missing, too large or not JSON.
    """
    return parse_json(_read(path), str(path))


def _checksum(tensors: Tensors, metadata: Mapping[str, str]) -> str:
    digest = hashlib.blake2b(dumps(metadata).encode(), digest_size=32)
    for chunk in tensor_chunks(tensors):
        digest.update(chunk)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file whose metadata also holds a checksum of everything in it."""
    metadata = dict(metadata or {})
    assert "checksum" not in metadata, "save_tensors keeps this key for itself"
    write_bytes(path, *tensor_chunks(tensors, {**metadata, "checksum": _checksum(tensors, metadata)}))


def load_tensors(path: Path) -> Loaded:
    """Tensors and metadata of a file of `save_tensors`.

    Raises:
        StoreError: if the file is missing, truncated or changed since it was written.
    """
    with _opened(path) as (file, size), _well_formed(str(path)):
        length = _header_length(file.read(8), size)
        spans, metadata = _layout(file.read(length), size - 8 - length)
        data = bytearray(size - 8 - length)  # only now: the header says the same
        del data[file.readinto(data) :]  # type: ignore[attr-defined]
        tensors = _views(data, 0, spans)
    if metadata.pop("checksum", None) != _checksum(tensors, metadata):
        raise StoreError("has changed since it was written: its checksum differs", where=str(path), mend=_RESTORE)
    return tensors, metadata


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as a Parquet file; None is a missing value."""
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    table = pyarrow.table({name: list(column) for name, column in columns.items()})
    pyarrow.parquet.write_table(table, sink, write_page_checksum=True)
    write_bytes(path, sink.getbuffer())


def read_table(path: Path) -> dict[str, list[Any]]:
    """The columns of a Parquet file of `write_table`.

    Raises:
        StoreError: if the file is missing or corrupt.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        with (
            _opened(path) as (file, _),
            pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as source,
        ):
            table = source.read()
        return {name: table[name].to_pylist() for name in table.column_names}
    except (pyarrow.ArrowException, ValueError) as error:
        raise StoreError(f"is not a Parquet table ({error})", where=str(path), mend=_RESTORE) from error


# --- files of lines -----------------------------------------------------------------------------------------


def append_jsonl(path: Path, value: Mapping[str, Any]) -> int:
    """Add one line by one write, after dropping a torn last line; gives the new size of the file in bytes."""
    line = dumps(value).encode() + b"\n"
    path = Path(path)
    with path.open("r+b" if path.exists() else "x+b", buffering=0) as file:
        size = _whole_lines(file)
        file.truncate(size)
        file.seek(size)
        written = file.write(line)
        if written != len(line):
            raise OSError(f"wrote {written} of {len(line)} bytes to {path}")
    return size + len(line)


def _whole_lines(file: io.FileIO | io.BufferedReader) -> int:
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 65536)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def sync(path: Path) -> None:
    """Bring a file that grows to the disk."""
    with Path(path).open("rb") as file:
        os.fsync(file.fileno())


def truncate_jsonl(path: Path, size: int) -> None:
    """Drop all lines after the first ``size`` bytes.

    Raises:
        StoreError: if the file is shorter, or no line ends there.
    """
    text = f"has no line that ends at byte {size}"
    try:
        with Path(path).open("r+b") as file:
            file.seek(max(size - 1, 0))
            if size and file.read(1) != b"\n":
                raise StoreError(text, where=str(path), mend=_RESTORE)
            file.truncate(size)
    except OSError as error:
        raise _unreadable(path, error) from error


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one line in memory at a time; a torn last line is dropped.

    Raises:
        StoreError: if the file is missing, or a whole line is not a JSON object.
    """
    with _opened(path) as (file, _):
        for number, line in enumerate(iter(lambda: file.readline(MAX_TEXT_BYTES), b""), 1):
            where = f"{path}, line {number}"
            if not line.endswith(b"\n"):
                if len(line) == MAX_TEXT_BYTES:
                    raise StoreError("is too long", where=where, mend=_RESTORE)
                return
            value = parse_json(line, where)
            if not isinstance(value, dict):
                raise StoreError("is not a JSON object", where=where, mend=_RESTORE)
            yield value
