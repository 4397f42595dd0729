"""A folder of tables, one CSV or Parquet file per client: a user's own data.

Types are those of the union of the tables: a column is a number where all tables hold numbers, and a
category where any holds text. A few cells of text among numbers are taken for mistakes and refused: at most
20, and at most 5 % of the values of a column in which no table holds text alone. Parquet files say
themselves what is text. Missing values may stand anywhere but in the target. What becomes of the columns is
decided by the federated treatment of `rivage.data.treatment` and shown in the notes of the population.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, RivageError, nearest, require
from rivage.core.settings import combine
from rivage.data.dataset import Columns, Dataset, as_text

__all__ = ["Tables"]

Column = Shaped[ndarray, "_"]
Table = dict[str, Column]

_SUFFIXES = (".csv", ".parquet")
_MAX_CLASSES = 20  # whole numbers with at most this many values are classes, others are reals
_SECONDS_PER_DAY = 86_400
_STRAYS, _STRAY_SHARE = 20, 0.05  # texts among the numbers of a column up to which they are mistakes
_NUMBER = re.compile(r"\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*", re.ASCII | re.IGNORECASE)
_CELL_WIDTH = 40  # characters of a cell that a message shows


@dataclass(frozen=True, slots=True)
class Tables:
    """One table per client, all with the same columns.

    Args:
        folder: where the ``.csv`` and ``.parquet`` files are; the file name without its ending names the
            client. CSV files have a header and are UTF-8, separated by commas, semicolons or tabs; an empty
            cell, ``NA``, ``NaN``, ``null`` and ``?`` are missing values; dates count as days.
        target: the column to predict.
        target_type: ``class`` or ``real``; left out, text and whole numbers of at most 20 values are classes.
        ignore: columns to leave out: identifiers, free text, what is known only after the target.
        categories: columns that are categories though all or most of their values are numbers: codes, grades.
        max_categories: more different texts than this in a column are refused.
    """

    folder: Path
    target: str
    target_type: Literal["class", "real"] | None = None
    ignore: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    max_categories: int = 100

    def __post_init__(self) -> None:
        require(self.max_categories, "max_categories", least=1)
        if self.target in self.ignore:
            raise ConfigError(f'"{self.target}" is the target and in ignore', mend="Take it out of ignore.")
        if self.target in self.categories:
            raise ConfigError(
                f'"{self.target}" is the target and in categories',
                mend='Take it out of categories, and set target_type = "class".',
            )
        if both := [name for name in self.categories if name in self.ignore]:
            raise ConfigError(f'"{both[0]}" is in ignore and in categories', mend="Take it out of one of them.")

    def load(self, seed: int) -> Dataset:
        """Read all tables.

        Raises:
            DataError: for a missing folder, no table, an empty one, a column that is missing in one of
                them, an unreadable file, a missing target, an infinite number or text among numbers: with
                file, row and column.
        """
        files = self._files()
        opened = {str(file): _open(file) for file in files}
        self._require_known(_union({name: table.column_names for name, table in opened.items()}))
        tables = {name: _columns(table, name, self.ignore) for name, table in opened.items()}
        _require_columns(tables, self.target)
        for name, table in tables.items():
            _require_values(name, table, self.target)
        self._require_numbers(tables)
        for table in tables.values():
            table |= {name: as_text(table[name]) for name in self.categories}
        merged = {column: _merge([table[column] for table in tables.values()]) for column in _union(tables)}
        target = merged.pop(self.target)
        self._require_categories(merged)
        sizes = [len(table[self.target]) for table in tables.values()]
        kind = self.target_type or _infer(target)
        if kind == "real" and target.dtype == object:
            raise DataError(
                f'target "{self.target}" holds text ("{_first_text(target)}") but target_type is "real"',
                where=str(self.folder),
                mend='Correct the tables, or set target_type = "class".',
            )
        return Dataset(
            source=f'tables "{self.folder}"',
            records=Columns(columns=merged, target=target, target_name=self.target, target_type=kind),
            clients=np.repeat(np.arange(len(sizes)), sizes),
            names=_names(files),
        )

    def _files(self) -> list[Path]:
        if not self.folder.is_dir():
            raise DataError(
                f'there is no folder "{self.folder}"',
                where="[data] folder",
                mend="Give the folder that holds one table per client.",
            )
        files = sorted(
            file for file in self.folder.iterdir() if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        )
        if not files:
            raise DataError(
                f'there is no table in "{self.folder}"',
                where="[data] folder",
                mend="Put one .csv or .parquet file per client there.",
            )
        return files

    def _require_known(self, columns: Sequence[str]) -> None:
        for setting, names in (("ignore", self.ignore), ("categories", self.categories)):
            for name in names:
                if name not in columns:
                    raise DataError(
                        f'no table has the column "{name}" named in {setting}',
                        where=str(self.folder),
                        mend=nearest(name, columns) or f"Take it out of {setting}.",
                    )

    def _require_numbers(self, tables: Mapping[str, Table]) -> None:
        """Refuse columns of numbers with a few cells of text, which would make categories of them."""
        declared = {*self.categories, *((self.target,) if self.target_type == "class" else ())}
        problems: list[RivageError] = []
        for name in _union(tables):
            remedy = "remove the row" if name == self.target else "leave the cell empty"
            declare = 'set target_type = "class"' if name == self.target else f'add "{name}" to categories'
            problems += [
                DataError(
                    f'"{text[:_CELL_WIDTH]}" among numbers in column "{name}"',
                    where=f"{file}, row {row}",
                    mend=f"Correct it, {remedy}, or {declare} if it is meant.",
                )
                for file, row, text in ((*_strays(name, tables),) if name not in declared else ())
            ]
        if problems:
            raise combine(problems)

    def _require_categories(self, columns: Mapping[str, Column]) -> None:
        for name, column in columns.items():
            count = len({*as_text(column).tolist()} - {None}) if column.dtype == object else 0
            if count > self.max_categories:
                raise DataError(
                    f'column "{name}" holds {count} different texts, for example "{_first_text(column)}"',
                    where=str(self.folder),
                    mend=f'Add "{name}" to ignore, or raise max_categories ({self.max_categories}).',
                )


def _names(files: Sequence[Path]) -> tuple[str, ...]:
    """File names without their ending, unless two files differ by nothing else."""
    stems = tuple(file.stem for file in files)
    return stems if len({*stems}) == len(stems) else tuple(file.name for file in files)


def _open(file: Path) -> Any:
    """The Arrow table of one file, with distinct column names and at least one row."""
    import pyarrow

    try:
        table = _read_csv(file) if file.suffix.lower() == ".csv" else _read_parquet(file)
    except pyarrow.ArrowInvalid as error:
        raise DataError(
            f"cannot be read ({str(error).splitlines()[0]})",
            where=str(file),
            mend="Give a UTF-8 CSV file with a header and the same number of cells in every line, or Parquet.",
        ) from error
    twice = [name for name in table.column_names if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f'column "{twice[0]}" stands there twice', where=str(file), mend="Rename one of them.")
    if not table.num_rows:
        raise DataError("the table has no rows", where=str(file), mend="Add records, or remove the file.")
    return table


def _columns(table: Any, file: str, ignore: Sequence[str]) -> Table:
    names = [name for name in table.column_names if name not in ignore]
    return {name: _column(table.column(name), f'{file}, column "{name}"') for name in names}


def _read_csv(file: Path) -> Any:
    from pyarrow import csv

    with file.open("rb") as stream:
        header = stream.readline()
    delimiter = max(",;\t", key=lambda mark: header.count(mark.encode()))
    missing = [*csv.ConvertOptions().null_values, "?"]
    return csv.read_csv(
        file,
        parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=csv.ConvertOptions(null_values=missing, strings_can_be_null=True),
    )


def _read_parquet(file: Path) -> Any:
    from pyarrow import parquet

    return parquet.read_table(file)


def _column(column: Any, where: str) -> Column:
    """Float64 with NaN for missing, or objects with None for missing."""
    from pyarrow import types

    kind = column.type
    if types.is_date(kind) or types.is_timestamp(kind):
        seconds = column.cast("timestamp[s]", safe=False).cast("int64")
        return _numbers(seconds) / _SECONDS_PER_DAY
    if types.is_boolean(kind):
        return _numbers(column.cast("int8"))
    if types.is_null(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return _numbers(column)
    if types.is_binary(kind) or types.is_large_binary(kind):
        raise DataError("the text is not UTF-8", where=where, mend="Save it as UTF-8, or name the column in ignore.")
    if types.is_nested(kind):
        raise DataError(f"values of type {kind} cannot be used", where=where, mend="Name the column in ignore.")
    texts = np.empty(len(column), object)
    texts[:] = column.cast("string").to_pylist()
    return texts


def _numbers(column: Any) -> Column:
    return np.asarray(column.cast("float64", safe=False).to_numpy(), np.float64)


def _union(tables: Mapping[str, Iterable[str]]) -> list[str]:
    """Names of all columns, in the order in which they first appear."""
    return list(dict.fromkeys(name for table in tables.values() for name in table))


def _require_columns(tables: Mapping[str, Table], target: str) -> None:
    problems: list[RivageError] = [
        DataError(
            f'no target column "{target}"',
            where=file,
            mend=f"{nearest(target, table)} Its columns are: {', '.join(table)}.".strip(),
        )
        for file, table in tables.items()
        if target not in table
    ]
    for column in _union(tables) if not problems else ():
        holder = next(file for file, table in tables.items() if column in table)
        problems += [
            DataError(
                f'no column "{column}", which {holder} has',
                where=file,
                mend=f"{nearest(column, {*table} - {*tables[holder]})} Add it (its cells may be empty), or name it "
                "in ignore.".strip(),
            )
            for file, table in tables.items()
            if column not in table
        ]
    if problems:
        raise combine(problems)


def _require_values(file: str, table: Table, target: str) -> None:
    for row in _rows(_missing(table[target])):
        raise DataError(f'target "{target}" is missing in row {row}', where=file, mend="Fill it in, or remove the row.")
    for name, column in table.items():
        for row in _rows(np.isinf(column) if column.dtype != object else np.zeros(0, bool)):
            raise DataError(
                f'column "{name}" is {column[row - 1]} in row {row}',
                where=file,
                mend="Give a finite number, or leave the cell empty.",
            )


def _strays(name: str, tables: Mapping[str, Table]) -> Iterator[tuple[str, int, str]]:
    """The few texts among the numbers of a column, with file and row; none where text has its place there."""
    found: list[tuple[str, int, str]] = []
    total = 0
    for file, table in tables.items():
        column = table[name]
        missing = _missing(column)
        total += len(column) - int(missing.sum())
        if column.dtype != object or missing.all():
            continue
        texts = [(row, value) for row, value in enumerate(column.tolist(), 1) if value is not None]
        own = [(file, row, text) for row, text in texts if not _NUMBER.fullmatch(text)]
        if len(own) == len(texts) or not file.lower().endswith(".csv"):
            return
        found += own
    if len(found) <= min(_STRAYS, _STRAY_SHARE * total):
        yield from found


def _rows(found: Bool[ndarray, "n"]) -> Iterator[int]:
    """Numbers of the marked rows as people count them: from 1, without the header."""
    return (int(row) + 1 for row in np.flatnonzero(found))


def _missing(column: Column) -> Bool[ndarray, "n"]:
    if column.dtype != object:
        absent: Bool[ndarray, "n"] = np.isnan(column)
        return absent
    return np.array([value is None or value != value for value in column.tolist()], bool)


def _merge(columns: Sequence[Column]) -> Column:
    """One column of all tables: objects as soon as one table holds text."""
    if all(column.dtype != object for column in columns):
        return np.concatenate(columns)
    return np.concatenate([column.astype(object) for column in columns])


def _infer(target: Column) -> Literal["class", "real"]:
    if target.dtype == object:
        return "class"
    whole = (target == np.floor(target)).all()
    return "class" if whole and len(np.unique(target)) <= _MAX_CLASSES else "real"


def _first_text(column: Column) -> str:
    return next(value for value in column.tolist() if isinstance(value, str))
