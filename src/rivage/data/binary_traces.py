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

__all__ = ["filled", "read_int32be", "read_oraclegeneral"]

_ORACLE = np.dtype([("time", "<u4"), ("key", "<u8"), ("size", "<u4"), ("next", "<i8")])


def read_int32be(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of big-endian 32-bit keys."""
    for _, keys in _records(path, np.dtype(">i4"), block):
        yield Batch(keys.astype(np.int64), lambda position, column: "")


def read_oraclegeneral(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of libCacheSim's records."""
    for start, records in _records(path, _ORACLE, block):
        columns = {"time_s": records["time"].astype(np.float64), "size_bytes": records["size"].astype(np.int64)}
        yield Batch(records["key"].astype(np.uint64), _record_place(start), columns)


def _record_place(start: int) -> Callable[[int, str], str]:
    return lambda position, column: f"record {start + position}, byte {(start + position) * _ORACLE.itemsize}"


def _records(path: Path, layout: np.dtype[Any], block: int) -> Iterator[tuple[int, Shaped[ndarray, "n"]]]:
    """Blocks of fixed-size records, each with the number of its first."""
    start = 0
    with opened(path) as stream:
        while content := filled(stream, block * layout.itemsize):
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


def filled(stream: io.BufferedReader, size: int) -> bytes:
    """Exactly ``size`` bytes, unless the stream ends before; what is not there takes no memory."""
    pieces, missing = [], size
    while missing and (piece := stream.read(min(missing, 2**20))):
        pieces.append(piece)
        missing -= len(piece)
    return b"".join(pieces)
