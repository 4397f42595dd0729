"""The formats of traces, and which one a file has."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from rivage.core.errors import ConfigError, DataError, nearest
from rivage.data.binary_traces import filled, read_int32be, read_oraclegeneral
from rivage.data.compressed import DECODERS, opened
from rivage.data.parquet_traces import read_parquet
from rivage.data.text_traces import read_csv, read_text
from rivage.data.trace_batches import Batch

__all__ = ["READERS", "Format", "recognized", "require_known"]

Format = Literal["auto", "int32be", "oraclegeneral", "text", "csv", "parquet"]

READERS: dict[str, Callable[[Path, int], Iterator[Batch]]] = {
    "int32be": read_int32be,
    "oraclegeneral": read_oraclegeneral,
    "text": read_text,
    "csv": read_csv,
    "parquet": read_parquet,
}
"""Format -> what reads blocks of so many requests from a file."""


def require_known(format: str) -> None:
    """Refuse a format that nobody knows.

    Raises:
        ConfigError: with the formats there are.
    """
    if format != "auto" and format not in READERS:
        mend = nearest(format, READERS) or f"Known formats: auto, {', '.join(READERS)}."
        raise ConfigError(f'unknown trace format "{format}"', mend=mend)


def recognized(path: Path) -> str:
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
        head = filled(stream, 2**12)
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
        mend=f"Name it: {', '.join(READERS)}.",
    )


def _as_text(head: bytes) -> str | None:
    """The beginning of a file as text, unless it is none."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head):
        return None
    try:
        return codecs.getincrementaldecoder("utf-8-sig")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return None
