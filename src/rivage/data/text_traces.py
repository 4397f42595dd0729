"""Traces of lines: ``text`` and ``csv``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy import ndarray

from rivage.data.compressed import opened
from rivage.data.trace_batches import Batch, fault
from rivage.data.trace_columns import NUMBERS, check_names

__all__ = ["read_csv", "read_text"]

_LONGEST_LINE = 2**20  # bytes
_LARGEST_BLOCK = 2**26  # bytes of text that a block may hold


def read_text(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of lines, each a key."""
    for number, keys in enumerate(_text_blocks(_lines(path), block)):
        if not number:
            _refuse_header(path, keys[0])
        yield Batch(keys, lambda position, column: "")


def _refuse_header(path: Path, line: str) -> None:
    """Refuse the header of a CSV as a key; one without commas may be any key."""
    with suppress(csv.Error):
        names = [name.strip() for name in next(csv.reader([line], strict=True))]
        if len(names) > 1 and "item" in names:
            raise fault(path, "line 1", "it is the header of a CSV", "Name its format: csv.")


def read_csv(path: Path, block: int) -> Iterator[Batch]:
    """Blocks of rows below a header."""
    lines = _lines(path)
    header = next(lines, None)
    if header is None:
        return
    names = [name.strip() for name in _fields(path, 1, header)]
    check_names(path, "line 1", names)
    number = 2
    for held in _text_blocks(lines, block):
        rows = _rows(path, number, held, names)
        values = dict(zip(names, zip(*rows, strict=True), strict=True))
        if "" in values["item"]:
            place = _csv_place(number, names)(values["item"].index(""), "item")
            raise fault(path, place, "it is empty", "Give every request an item.")
        columns = {
            name: _parsed(path, number, name, names.index(name) + 1, values[name]) for name in NUMBERS if name in values
        }
        yield Batch(list(values["item"]), _csv_place(number, names), columns)
        number += len(held)


def _csv_place(first: int, names: list[str]) -> Callable[[int, str], str]:
    return lambda position, column: f'line {first + position}, column {names.index(column) + 1} ("{column}")'


def _fields(path: Path, number: int, line: str) -> list[str]:
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise fault(path, f"line {number}", f"it is no CSV ({error})", "Close quotes on the line they open.") from error


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
        raise fault(
            path,
            f"line {number}, column {column}",
            f"it has {len(fields)} fields and the header {len(names)}",
            "Give each column one value, quoted where it holds a comma.",
        )
    return fields


def _parsed(path: Path, first: int, name: str, column: int, texts: tuple[str, ...]) -> Shaped[ndarray, "n"]:
    """A column of numbers."""
    kind = NUMBERS[name]
    dtype = np.dtype(np.float64 if kind is float else np.int64)
    with suppress(ValueError, OverflowError):
        values = np.fromiter(map(kind, texts), dtype, len(texts))
        if not any("_" in text for text in texts):  # Python reads 1_000, nobody else does
            return values
    position = next(place for place, text in enumerate(texts) if not _is_number(text, dtype))
    raise fault(
        path,
        f'line {first + position}, column {column} ("{name}")',
        f'"{texts[position][:40]}" is no {"number" if kind is float else "whole number of 64 bits"}',
        "Give the number of the node where the request enters."
        if name == "origin"
        else "Give one, without unit or separator.",
    )


def _is_number(text: str, dtype: np.dtype[Any]) -> bool:
    try:
        np.array([float(text) if dtype.kind == "f" else int(text)], dtype)
    except (ValueError, OverflowError):
        return False
    return "_" not in text


def _lines(path: Path) -> Iterator[str]:
    """The lines without their ends; each is short, not empty, and UTF-8. The last ones may be empty: they are none."""
    with opened(path) as stream:
        number = empty = 0
        while line := stream.readline(_LONGEST_LINE + 1):
            number += 1
            text = _decoded(path, number, line)
            if not text:
                empty = empty or number
            elif empty:
                raise fault(
                    path, f"line {empty}", "it is empty", "Remove empty lines; only at the end they do no harm."
                )
            else:
                yield text


def _decoded(path: Path, number: int, line: bytes) -> str:
    place = f"line {number}"
    if b"\0" in line:
        at = f"{place}, column {line.index(0) + 1}"
        raise fault(path, at, "byte 0x00 is no text", "Save it as UTF-8, or name its format, if it is binary.")
    if len(line) > _LONGEST_LINE:
        raise fault(path, place, f"it is longer than {_LONGEST_LINE} bytes", "Give one request per line.")
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise fault(
            path,
            f"{place}, column {error.start + 1}",
            f"byte 0x{line[error.start]:02x} is no UTF-8",
            "Save it as UTF-8.",
        ) from error


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
