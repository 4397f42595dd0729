"""Which columns of the input code an attribute, and which values it has: from the schema and the targets' records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest
from rivage.data.population import Schema
from rivage.privacy.questions import Attribute

__all__ = ["attribute_of", "attributes", "columns_of"]

_MOST_VALUES = 6  # of an attribute that is audited without being named, and of one that counts as a category
_MOST_ATTRIBUTES = 3


def columns_of(schema: Schema) -> dict[str, tuple[int, ...]]:
    """Columns of the raw table -> columns of the input: one of a number, one per value of a category."""
    found: dict[str, list[int]] = {}
    for place, feature in enumerate(schema.features):
        found.setdefault(feature.partition("=")[0], []).append(place)
    return {name: tuple(places) for name, places in found.items()}


def attributes(schema: Schema, x: Float[ndarray, "n d"], name: str = "", *, target: str = "") -> list[Attribute]:
    """The attributes to ask for.

    Args:
        schema: of the records.
        x: records of all targets.
        name: column of the raw table; empty for every column of two to six values, the first three.
        target: the column that the model predicts, where it has a name.

    Raises:
        ConfigError: for a column that is not there or has one value only.
    """
    columns = columns_of(schema) if x.ndim == 2 else {}
    if not name:
        kinds = (attribute_of(schema, each, columns[each], x) for each in columns)
        return [kind for kind in kinds if 2 <= len(kind.values) <= _MOST_VALUES][:_MOST_ATTRIBUTES]
    if name not in columns:
        known = f"Its columns are: {', '.join(columns)}." if columns else "These data have no columns with names."
        if name == target:
            what = f'"{name}" is the target, which the model predicts: attacks ask for columns of its input'
            raise ConfigError(what, where="--attribute", mend=known)
        raise ConfigError(
            f'there is no column "{name}"', where="--attribute", mend=f"{nearest(name, columns)} {known}".strip()
        )
    found = attribute_of(schema, name, columns[name], x)
    if len(found.codes) < 2:
        raise ConfigError(
            f'"{name}" is the same in all records of the targets', where="--attribute", mend="Name another column."
        )
    return [found]


def attribute_of(schema: Schema, name: str, columns: Sequence[int], x: Float[ndarray, "n d"]) -> Attribute:
    """One attribute, with the codes that occur in these records, ascending; a number with many values has its range."""
    codes = np.unique(x[:, list(columns)].astype(np.float64), axis=0)
    if len(columns) == 1 and len(codes) > _MOST_VALUES:
        return Attribute(name, tuple(columns), codes[[0, -1]])
    words = {place: schema.features[place].partition("=")[2] for place in columns}
    return Attribute(name, tuple(columns), codes, tuple(_word(code, words) for code in codes))


def _word(code: Float[ndarray, "columns"], words: Mapping[int, str]) -> str:
    """What a value is called: the one whose column is 1; a number by itself."""
    names = list(words.values())
    if all(names) and set(code.tolist()) <= {0.0, 1.0}:
        return next((name for name, one in zip(names, code, strict=True) if one), "other")
    return ", ".join(f"{value:.4g}" for value in code)
