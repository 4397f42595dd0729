"""Traces in Parquet tables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rivage.data.trace_batches import Batch, fault
from rivage.data.trace_columns import NUMBERS, check_names

__all__ = ["read_parquet"]


def read_parquet(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of rows."""
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            check_names(path, "schema", names)
            start = 0
            for batch in file.iter_batches(block, columns=[name for name in ("item", *NUMBERS) if name in names]):
                if len(batch):
                    yield _parquet_batch(path, start, batch)
                start += len(batch)
    except (arrow.ArrowException, OSError) as error:
        raise fault(path, "", f"it is no Parquet file that can be read ({error})", "Get or write it again.") from error


def _parquet_batch(path: Path, start: int, batch: Any) -> Batch:
    import pyarrow as arrow

    def place(position: int, column: str) -> str:
        return f'row {start + position}, column "{column}"'

    columns: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if column.null_count:
            position = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise fault(path, place(position, name), "it is null", "Give every request a value.")
        kind = column.type.value_type if arrow.types.is_dictionary(column.type) else column.type
        if name == "item" and (arrow.types.is_string(kind) or arrow.types.is_large_string(kind)):
            columns[name] = column.to_pylist()
            continue
        whole = arrow.types.is_integer(kind)
        if not whole and (NUMBERS.get(name) is not float or not arrow.types.is_floating(kind)):
            wanted = (
                "whole numbers or text" if name == "item" else "numbers" if NUMBERS[name] is float else "whole numbers"
            )
            raise fault(path, f'column "{name}"', f"it holds {kind}", f"Give {wanted}.")
        unsigned = name == "item" and arrow.types.is_uint64(kind)
        to = arrow.uint64() if unsigned else arrow.int64() if NUMBERS.get(name) is not float else arrow.float64()
        columns[name] = column.cast(to).to_numpy(zero_copy_only=False)
    return Batch(columns.pop("item"), place, columns)
