"""The formats of traces, and which one a file has."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from rivage.core.errors import ConfigError, DataError, nearest
from rivage.data.binary_traces import filled, read_int32be, read_oraclegeneral
from rivage.data.compressed import DECODERS, opened
from rivage.data.parquet_traces import read_parquet
from rivage.data.text_traces import read_csv, read_text
from rivage.data.trace_batches import Batch
from rivage.data.trace_heads import HEAD, as_text, is_oraclegeneral

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
        head = filled(stream, HEAD)
    if head.startswith(b"PAR1"):
        return "parquet"
    text = as_text(head)
    if text is not None:
        first = text.splitlines()[0] if text else ""
        names = [name.strip() for name in first.replace('"', "").split(",")]
        return "csv" if "item" in names else "text"
    if is_oraclegeneral(head):
        return "oraclegeneral"
    if plain.endswith(".trace"):
        return "int32be"
    raise DataError(
        "the format cannot be told from the name or the content",
        where=str(path),
        mend=f"Name it: {', '.join(READERS)}.",
    )
