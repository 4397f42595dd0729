"""Files that survive: JSON, tensors, JSON Lines and Parquet; atomic, and never pickled.

Whole files are written beside their place, synced and renamed, so that a reader sees the old file or the new one. Line
files grow by one write per line: a process killed at any instant leaves at most a torn last line, which readers drop.
A file has one writer at a time.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from rivage.core.encoding import (
    MAX_TEXT_BYTES,
    RESTORE,
    Loaded,
    Tensors,
    dumps,
    header_length,
    layout,
    parse_json,
    tensor_chunks,
    views,
    well_formed,
)
from rivage.core.errors import StoreError

__all__ = [
    "append_jsonl",
    "load_tensors",
    "read_json",
    "read_jsonl",
    "read_table",
    "read_text",
    "save_tensors",
    "sync",
    "truncate_jsonl",
    "write_bytes",
    "write_json",
    "write_table",
    "write_text",
]

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
        raise StoreError(f"is not UTF-8 text ({error})", where=str(path), mend=RESTORE) from error


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
    with _opened(path) as (file, size), well_formed(str(path)):
        length = header_length(file.read(8), size)
        spans, metadata = layout(file.read(length), size - 8 - length)
        data = bytearray(size - 8 - length)  # only now: the header says the same
        del data[file.readinto(data) :]  # type: ignore[attr-defined]
        tensors = views(data, 0, spans)
    if metadata.pop("checksum", None) != _checksum(tensors, metadata):
        raise StoreError("has changed since it was written: its checksum differs", where=str(path), mend=RESTORE)
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
        raise StoreError(f"is not a Parquet table ({error})", where=str(path), mend=RESTORE) from error


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
                raise StoreError(text, where=str(path), mend=RESTORE)
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
                    raise StoreError("is too long", where=where, mend=RESTORE)
                return
            value = parse_json(line, where)
            if not isinstance(value, dict):
                raise StoreError("is not a JSON object", where=where, mend=RESTORE)
            yield value
