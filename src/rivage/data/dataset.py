"""Records as a source hands them over, before they are split among clients.

A source (``kind`` of ``[data]``) reads or generates one `Dataset`: either `Arrays`, ready for a model, or
`Columns`, raw table columns that become arrays only after a federated treatment (`rivage.data.treatment`),
because scaling and vocabularies may not look across clients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError
from rivage.data.population import Schema

__all__ = ["Arrays", "Columns", "Dataset", "Source", "TargetType", "as_text", "dataset_of", "require_share"]

TargetType = Literal["class", "real", "tokens"]


@dataclass(frozen=True, slots=True)
class Arrays:
    """Records ready for a model.

    Args:
        x: inputs as in `Samples`.
        y: targets as in `Samples`.
        schema: what they look like.
    """

    x: Shaped[ndarray, "n *input"]
    y: Shaped[ndarray, "n *target"]
    schema: Schema

    @property
    def labels(self) -> Int64[ndarray, "n"] | None:
        """The class of each record; None if the target is no class."""
        return self.y if self.schema.target == "class" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Raw columns of tables.

    Args:
        columns: name -> float64 numbers with NaN for missing, or objects (text, number, or None for missing).
        target: the column to predict, in the same form, nothing missing.
        target_name: its name.
        target_type: a class per distinct value, or a number.
    """

    columns: Mapping[str, Shaped[ndarray, "n"]]
    target: Shaped[ndarray, "n"]
    target_name: str
    target_type: Literal["class", "real"]

    @property
    def labels(self) -> Int64[ndarray, "n"] | None:
        """The class of each record; None if the target is no class."""
        if self.target_type == "real":
            return None
        return np.unique(as_text(self.target).astype(str), return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Everything a source knows.

    Args:
        source: what errors call it, for example ``tables "sites/"``.
        records: the records, n of them.
        clients: who holds each record, an index into ``names``; None when the records are not split yet.
        names: names of the clients.
        test: records set aside by the publisher; None to draw a share of each client's.
        coarse: super-class of each record, for the Pachinko partition.
        attributes: name -> text per record by which ``natural`` may split.
        natural: the attribute that makes the clients when no partition is asked for.
        ordered: records follow one another; validation takes the last ones instead of a random share.
        notes: facts the user should see; JSON values only.
    """

    source: str
    records: Arrays | Columns
    clients: Int64[ndarray, "n"] | None = None
    names: tuple[str, ...] = ()
    test: Bool[ndarray, "n"] | None = None
    coarse: Int64[ndarray, "n"] | None = None
    attributes: Mapping[str, Shaped[ndarray, "n"]] = field(default_factory=dict)
    natural: str | None = None
    ordered: bool = False
    notes: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        records = self.records
        return len(records.target) if isinstance(records, Columns) else len(records.y)

    def validate(self) -> None:
        """Refuse records nobody can learn from. O(size of the data).

        Raises:
            DataError: no record at all; a value that is NaN or infinite (missing values of `Columns` are
                fine); a single class over all clients together.
        """
        if not len(self):
            raise DataError("there is no record at all", where=self.source, mend="Give at least one record.")
        if isinstance(self.records, Arrays):
            self._require_finite(self.records.x, "input", self.records.schema.features)
            self._require_finite(self.records.y, "target", ())
        labels = self.records.labels
        if labels is not None and (labels == labels[0]).all():
            raise DataError(
                "all records of all clients together have one and the same class",
                where=self.source,
                mend="Add records of another class, or predict another column.",
            )

    def _require_finite(self, values: Shaped[ndarray, "n *k"], what: str, columns: tuple[str, ...]) -> None:
        if values.dtype.kind != "f" or np.isfinite(values).all():
            return
        row, *rest = (int(position) for position in np.argwhere(~np.isfinite(values))[0])
        column = rest[0] if len(rest) == 1 else tuple(rest)
        name = f' ("{columns[rest[0]]}")' if columns and len(rest) == 1 else ""
        raise DataError(
            f"{what} is {values[(row, *rest)]}" + (f" in column {column}{name}" if rest else ""),
            where=f"{self.source}, {self._place(row)}",
            mend="Replace or drop missing and infinite values.",
        )

    def _place(self, row: int) -> str:
        """Where a person finds a row: within its client if there are clients."""
        if self.clients is None:
            return f"record {row}"
        client = self.clients[row]
        return f'client "{self.names[client]}", record {np.count_nonzero(self.clients[:row] == client)}'


@runtime_checkable
class Source(Protocol):
    """A registered kind of ``[data]``: a frozen dataclass whose fields are its settings."""

    def load(self, seed: int) -> Dataset:
        """The records; generators draw them from ``seed``, readers ignore it."""
        ...


def dataset_of(
    x: Any,
    y: Any,
    *,
    source: str,
    target_type: TargetType | None = None,
    features: tuple[str, ...] = (),
    **placed: Any,
) -> Dataset:
    """Records from any pair of arrays, with the schema read off them.

    Args:
        x: ``[n, ...]`` numbers; integers become float32 unless the target is tokens.
        y: ``[n]`` integers, text or truth values (classes), ``[n]`` or ``[n, outputs]`` reals, or ``[n,
            length]`` integers beside integer inputs of the same shape (tokens).
        source: what errors call the data.
        target_type: what y is, where its type does not tell.
        features: names of the input columns.
        **placed: other fields of `Dataset`.

    Raises:
        DataError: for arrays that do not fit together or hold no numbers.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiubU":
        raise DataError(
            f"x has type {x.dtype} and y has type {y.dtype}",
            where=source,
            mend="Give x as numbers, and y as numbers or text.",
        )
    if x.ndim < 2 or y.ndim < 1 or len(x) != len(y):
        raise DataError(
            f"x has shape {x.shape} and y has shape {y.shape}",
            where=source,
            mend="Give one row of x, with at least one column, and one row of y for each record.",
        )
    kind = target_type or _target_type(x, y)
    encoders = {"class": _classes, "real": _reals, "tokens": _tokens}
    x, y, shape = encoders[kind](x, y, source)
    schema = Schema(input_shape=x.shape[1:], target=kind, features=features, **shape)
    return Dataset(source=source, records=Arrays(x, y, schema), **placed)


Encoded = tuple[Shaped[ndarray, "n *input"], Shaped[ndarray, "n *target"], dict[str, Any]]


def _target_type(x: Shaped[ndarray, "n *input"], y: Shaped[ndarray, "n *target"]) -> TargetType:
    if y.dtype.kind == "f":
        return "real"
    return "tokens" if y.ndim == 2 and x.dtype.kind in "iu" and y.shape == x.shape else "class"


def _classes(x: Shaped[ndarray, "n *input"], y: Shaped[ndarray, "n *target"], source: str) -> Encoded:
    if y.ndim != 1:
        raise DataError(
            f"classes have shape {y.shape}",
            where=source,
            mend="Give one class for each record, y of shape [n].",
        )
    if y.dtype.kind == "f" and np.isnan(y).any():
        row = int(np.flatnonzero(np.isnan(y))[0])
        raise DataError("target is nan", where=f"{source}, record {row}", mend="Drop records without a target.")
    values, codes = np.unique(y, return_inverse=True)
    names = tuple(str(value) for value in values.tolist())
    return x.astype(np.float32), codes.astype(np.int64), {"num_classes": len(names), "classes": names}


def _reals(x: Shaped[ndarray, "n *input"], y: Shaped[ndarray, "n *target"], source: str) -> Encoded:
    if y.dtype.kind == "U" or y.ndim > 2:
        raise DataError(
            f"real targets have type {y.dtype} and shape {y.shape}",
            where=source,
            mend="Give numbers, y of shape [n] or [n, outputs].",
        )
    return x.astype(np.float32), y.astype(np.float32), {"num_outputs": 1 if y.ndim == 1 else y.shape[1]}


def _tokens(x: Shaped[ndarray, "n *input"], y: Shaped[ndarray, "n *target"], source: str) -> Encoded:
    if x.dtype.kind not in "iu" or y.dtype.kind not in "iu" or x.shape != y.shape or x.min() < 0 or y.min() < 0:
        raise DataError(
            f"tokens have types {x.dtype}, {y.dtype} and shapes {x.shape}, {y.shape}",
            where=source,
            mend="Give x and y as integers from 0 of the same shape [n, length].",
        )
    return x.astype(np.int64), y.astype(np.int64), {"num_classes": int(max(x.max(), y.max())) + 1}


def as_text(column: Shaped[ndarray, "n"]) -> Shaped[ndarray, "n"]:
    """A column as objects: text, or None for missing; the number ``1.0`` is spelt ``1``."""
    words = np.empty(len(column), object)
    words[:] = [_word(value) for value in column.tolist()]
    return words


def _word(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def require_share(value: float, name: str) -> None:
    """Refuse a share that is not in [0, 1).

    Raises:
        ConfigError: naming the value.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{name} is {value}", mend="Give a share of at least 0 and below 1.")
