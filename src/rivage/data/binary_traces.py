"""Traces of fixed-size records: ``int32be`` and ``oraclegeneral``."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from rivage.data.compressed import opened
from rivage.data.trace_batches import Batch, fault
from rivage.data.trace_heads import HEAD, ORACLE, is_oraclegeneral, is_text

__all__ = ["filled", "read_int32be", "read_oraclegeneral"]

_OTHERS = {b"PAR1": ("a Parquet table", "Name its format: parquet."), b"\x93NUMPY": ("a NumPy array", "Write text.")}


def read_int32be(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of big-endian 32-bit keys."""
    for _, keys in _records(path, "int32be", np.dtype(">i4"), block):
        yield Batch(keys.astype(np.int64), lambda position, column: "")


def read_oraclegeneral(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of libCacheSim's records."""
    for start, records in _records(path, "oraclegeneral", ORACLE, block):
        columns = {"time_s": records["time"].astype(np.float64), "size_bytes": records["size"].astype(np.int64)}
        yield Batch(
            records["key"].astype(np.uint64), _record_place(start), columns, " Or name its format, if it is another."
        )


def _record_place(start: int) -> Callable[[int, str], str]:
    return lambda position, column: f"record {start + position}, byte {(start + position) * ORACLE.itemsize}"


def _records(path: Path, format: str, layout: np.dtype[Any], block: int) -> Iterator[tuple[int, Shaped[ndarray, "n"]]]:
    """Blocks of fixed-size records, each with the number of its first."""
    start = 0
    with opened(path) as stream:
        for content in _pieces(path, format, stream, block * layout.itemsize):
            whole = len(content) // layout.itemsize
            if whole * layout.itemsize != len(content):
                offset = (start + whole) * layout.itemsize
                raise fault(
                    path,
                    f"byte {offset}",
                    f"the record there has {len(content) - whole * layout.itemsize} of {layout.itemsize} bytes",
                    "The file is truncated or of another format: get it again, or name its format.",
                )
            yield start, np.frombuffer(content, layout)
            start += whole


def _pieces(path: Path, format: str, stream: io.BufferedReader, size: int) -> Iterator[bytes]:
    """So many bytes at a time, once the first ones have been looked at."""
    content = filled(stream, max(size, HEAD))
    _refuse_others(path, format, content[:HEAD])
    while content:
        yield content[:size]
        content = content[size:]
        content += filled(stream, max(size - len(content), 0))


def _refuse_others(path: Path, format: str, head: bytes) -> None:
    """Refuse a file that has not this format: most files can be cut into records, of nonsense."""
    if is_text(head):
        raise fault(path, "", f"it is text, and {format} is not", "Name its format: text, or csv.")
    if format == "int32be" and is_oraclegeneral(head):
        raise fault(path, "", "it holds records of libCacheSim", "Name its format: oraclegeneral.")
    for beginning, (what, mend) in _OTHERS.items():
        if head.startswith(beginning):
            raise fault(path, "", f"it is {what}", mend)


def filled(stream: io.BufferedReader, size: int) -> bytes:
    """Exactly ``size`` bytes, unless the stream ends before; what is not there takes no memory."""
    pieces, missing = [], size
    while missing and (piece := stream.read(min(missing, 2**20))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
