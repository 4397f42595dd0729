"""Raw table columns -> arrays for a model, without any row leaving its client.

Four exchanges before round 0, each one message up from every client and one answer down to all:

1. ``types``: which columns hold text here? A column is a category if any client has text in it.
2. ``vocabulary``: the texts of the category columns. Down: their sorted union, encoded one-hot; missing is all zero.
3. ``statistics``: count and sum of the number columns. Down: means, which stand for missing numbers.
4. ``statistics``: sums of squared deviations from these means. Down: standard deviations; 0 counts as 1.

All sums run over training records only; a text that only other records have is encoded as missing. The classes of the
target come from all records: a class must have a name even where a site only tests on it. Sums can be taken under
secure aggregation. Two exchanges instead of one sum of squares keep the result exact for columns far from 0. A real
target is scaled like a column; `Schema` remembers how, so that errors and predictions are in its own unit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt8
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.core.messages import Message, Payload
from rivage.data.dataset import Arrays, Columns, as_text
from rivage.data.population import Schema

__all__ = ["Treated", "decode_words", "treat"]

Rows = Int64[ndarray, "_"]
Words = Mapping[str, Shaped[ndarray, "n"]]
Numbers = Mapping[str, Float64[ndarray, "n"]]
Vocabularies = Mapping[str, tuple[str, ...]]

_SHOWN = 8  # texts of a category that the notes list


@dataclass(frozen=True, slots=True)
class Treated:
    """The result of a treatment.

    Args:
        records: all rows of all clients, in the order of the columns.
        setup: the messages of the exchanges, in order.
        notes: what became of each column and of the target.
    """

    records: Arrays
    setup: tuple[Message, ...]
    notes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Scale:
    """What the clients learn about one number column."""

    count: float
    mean: float
    deviation: float

    def apply(self, column: Float64[ndarray, "n"]) -> Float32[ndarray, "n"]:
        return ((column - self.mean) / self.deviation).astype(np.float32)


def treat(columns: Columns, rows: Sequence[Rows], train: Sequence[Rows], source: str) -> Treated:
    """Encode and scale columns by what clients tell about their training records.

    Args:
        columns: all rows of all clients.
        rows: the rows of each client.
        train: of these, the training records.
        source: what errors call the data.

    Raises:
        DataError: if no column can be used.
    """
    if not columns.columns:
        raise _nothing(source)
    target = columns.target_name
    words = {name: as_text(column) for name, column in columns.columns.items() if column.dtype == object}
    numbers = {name: column for name, column in columns.columns.items() if name not in words}
    seen = dict.fromkeys(words, train)
    if columns.target_type == "class":
        words[target], seen[target] = as_text(columns.target), rows
    else:
        numbers[target] = columns.target.astype(np.float64)

    types = _types(columns, rows)
    vocabularies, told = _vocabularies(words, seen, len(rows))
    scales, summed = _scales(numbers, train)
    blocks = _blocks(columns, words, numbers, vocabularies, scales)
    if not blocks:
        raise _nothing(source)
    x = np.stack([*blocks.values()], axis=1)
    y, schema = _target(target, words, numbers, vocabularies, scales, tuple(blocks))
    notes = {
        "columns": _described(columns, vocabularies, scales),
        "target": _outcome(target, vocabularies, scales),
    }
    return Treated(Arrays(x, y, schema), (*types, *told, *summed), notes)


def _nothing(source: str) -> DataError:
    return DataError(
        "no column is left to learn from", where=source, mend="Give at least one with values beside the target."
    )


def decode_words(payload: UInt8[ndarray, "_"]) -> tuple[str, ...]:
    """The texts of one entry of a ``vocabulary`` message."""
    return tuple(json.loads(payload.tobytes()))


def _encode_words(words: Sequence[str]) -> UInt8[ndarray, "_"]:
    return np.frombuffer(json.dumps(words, ensure_ascii=False).encode(), np.uint8)


def _exchange(kind: str, uploads: Sequence[Payload], answer: Payload) -> tuple[Message, ...]:
    """One message up from every client, then the answer down to all of them."""
    up = [
        Message(round=-1, sender=f"client:{client}", receiver="server", kind=kind, payload=payload)
        for client, payload in enumerate(uploads)
    ]
    down = [
        Message(round=-1, sender="server", receiver=f"client:{client}", kind=kind, payload=answer)
        for client in range(len(uploads))
    ]
    return (*up, *down)


def _types(columns: Columns, rows: Sequence[Rows]) -> tuple[Message, ...]:
    """Which columns hold text: each client for itself, then the union."""
    text = np.stack([_is_text(column) for column in columns.columns.values()], axis=1)
    uploads = [{"text": np.logical_or.reduce(text[own])} for own in rows]
    return _exchange("types", uploads, {"text": np.logical_or.reduce(text)})


def _is_text(column: Shaped[ndarray, "n"]) -> Bool[ndarray, "n"]:
    if column.dtype != object:
        return np.zeros(len(column), bool)
    return np.array([isinstance(value, str) for value in column.tolist()], bool)


def _vocabularies(
    words: Words, seen: Mapping[str, Sequence[Rows]], num_clients: int
) -> tuple[Vocabularies, tuple[Message, ...]]:
    """Sorted union of the texts of each column, over the rows that a client speaks about."""
    if not words:
        return {}, ()
    own = [
        {name: _ordered({*column[seen[name][client]].tolist()}) for name, column in words.items()}
        for client in range(num_clients)
    ]
    union = {name: _ordered({word for client in own for word in client[name]}) for name in words}
    uploads = [{name: _encode_words(texts) for name, texts in client.items()} for client in own]
    answer = {name: _encode_words(texts) for name, texts in union.items()}
    return union, _exchange("vocabulary", uploads, answer)


def _ordered(words: set[str | None]) -> tuple[str, ...]:
    """Numbers by value, everything else by spelling."""
    texts = [word for word in words if word is not None]
    try:
        return tuple(sorted(texts, key=lambda word: (float(word), word)))
    except ValueError:
        return tuple(sorted(texts))


def _scales(numbers: Numbers, train: Sequence[Rows]) -> tuple[dict[str, _Scale], tuple[Message, ...]]:
    """Mean and standard deviation of each column, from sums over the clients."""
    if not numbers:
        return {}, ()
    table = np.stack([*numbers.values()], axis=1)
    known = ~np.isnan(table)
    first = [{"count": known[own].sum(axis=0, dtype=np.float64), "sum": np.nansum(table[own], axis=0)} for own in train]
    count = _total(first, "count")
    mean = np.divide(_total(first, "sum"), count, out=np.zeros_like(count), where=count > 0)
    second = [{"squares": np.nansum((table[own] - mean) ** 2, axis=0)} for own in train]
    variance = np.divide(_total(second, "squares"), count, out=np.zeros_like(count), where=count > 0)
    deviation = np.where(variance > 0, np.sqrt(variance), 1.0)
    messages = _exchange("statistics", first, {"mean": mean})
    messages += _exchange("statistics", second, {"deviation": deviation})
    merged = zip(count.tolist(), mean.tolist(), deviation.tolist(), strict=True)
    return {name: _Scale(*values) for name, values in zip(numbers, merged, strict=True)}, messages


def _total(payloads: Sequence[Payload], name: str) -> Float64[ndarray, "numbers"]:
    total: Float64[ndarray, "numbers"] = np.sum([payload[name] for payload in payloads], axis=0)
    return total


def _blocks(
    columns: Columns, words: Words, numbers: Numbers, vocabularies: Vocabularies, scales: Mapping[str, _Scale]
) -> dict[str, Float32[ndarray, "n"]]:
    """Input features by name, in the order of the columns."""
    blocks: dict[str, Float32[ndarray, "n"]] = {}
    for name in columns.columns:
        if name in numbers:
            blocks[name] = np.nan_to_num(scales[name].apply(numbers[name]), nan=0.0)
        else:
            codes = _codes(words[name], vocabularies[name])
            for code, word in enumerate(vocabularies[name]):
                blocks[f"{name}={word}"] = (codes == code).astype(np.float32)
    return blocks


def _codes(words: Shaped[ndarray, "n"], vocabulary: Sequence[str]) -> Int64[ndarray, "n"]:
    """Position of each text in the vocabulary; -1 for what is not there."""
    position = {word: code for code, word in enumerate(vocabulary)}
    return np.array([position.get(word, -1) for word in words.tolist()], np.int64)


def _target(
    name: str,
    words: Words,
    numbers: Numbers,
    vocabularies: Vocabularies,
    scales: Mapping[str, _Scale],
    features: tuple[str, ...],
) -> tuple[Shaped[ndarray, "n"], Schema]:
    shape = (len(features),)
    if name in numbers:
        scale = scales[name]
        schema = Schema(
            input_shape=shape,
            target="real",
            num_outputs=1,
            center=scale.mean,
            unit=scale.deviation,
            features=features,
        )
        return scale.apply(numbers[name]), schema
    classes = vocabularies[name]
    schema = Schema(input_shape=shape, target="class", num_classes=len(classes), features=features, classes=classes)
    return _codes(words[name], classes), schema


def _described(columns: Columns, vocabularies: Vocabularies, scales: Mapping[str, _Scale]) -> dict[str, str]:
    return {
        name: _numeric(scales[name]) if name in scales else _categorical(column, vocabularies[name])
        for name, column in columns.columns.items()
    }


def _outcome(name: str, vocabularies: Vocabularies, scales: Mapping[str, _Scale]) -> dict[str, Any]:
    if name in vocabularies:
        return {"name": name, "type": "class", "classes": list(vocabularies[name])}
    scale = scales[name]
    return {"name": name, "type": "real", "mean": scale.mean, "deviation": scale.deviation}


def _numeric(scale: _Scale) -> str:
    if not scale.count:
        return "number, always missing"
    return f"number, mean {scale.mean:.4g}, standard deviation {scale.deviation:.4g}"


def _categorical(column: Shaped[ndarray, "n"], vocabulary: Sequence[str]) -> str:
    shown = ", ".join(vocabulary[:_SHOWN]) + (f", … ({len(vocabulary)})" if len(vocabulary) > _SHOWN else "")
    mixed = any(isinstance(value, float) and value == value for value in column.tolist())
    return f"category{' (text in some tables, numbers in others)' if mixed else ''}: {shown}"
