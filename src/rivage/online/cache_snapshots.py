"""A no-regret cache as bytes: keys in JSON, numbers in arrays, no pickle.

What stands in a snapshot is what decides: values, permanent numbers, which keys are cached, sums. The wheels follow
from it and are made anew, so that bytes from outside cannot lead the compiled code astray; all of it is checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy import ndarray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rivage.core.errors import DataError
from rivage.online import no_regret_memory as words
from rivage.online import wheels
from rivage.online.key_slots import NOBODY, KeySlots
from rivage.online.wheels import (
    CACHED,
    CARRY,
    FRACTIONAL,
    FREE,
    HITS,
    INSERTED,
    POSITIVE,
    RHO,
    TIME,
)

__all__ = ["image", "reopened", "settings_of"]

_VERSION = 1
_INTS = (TIME, HITS, INSERTED, words.EVICTED, words.LOST, words.CROWDED, words.FINE)
_FLOATS = (RHO, CARRY, FREE, FRACTIONAL)
_MEND = "Give the bytes that snapshot() returned."


def image(table: KeySlots[Any], settings: Mapping[str, Any], sizes: Mapping[Any, int]) -> bytes:
    """The bytes of a tidy table.

    Args:
        table: the keys and their state.
        settings: JSON.
        sizes: bytes of cached keys.
    """
    store, holds = table.store, [key is not NOBODY for key in table.keys]
    head = {
        "version": _VERSION,
        "settings": dict(settings),
        "bits": table.bits,
        "keys": [_written(key) for key in table.keys if key is not NOBODY],
    }
    return save(
        {
            "head": np.frombuffer(json.dumps(head).encode(), np.uint8),
            "held": np.array(holds, np.uint8),
            "key": store.key,
            "number": store.number,
            "cached": (store.shelf != wheels.OUT).astype(np.uint8),
            "asked": store.asked,
            "bytes": np.array([sizes.get(key, 0) for key in table.keys], np.int64),
            "ints": store.ints[list(_INTS)],
            "floats": store.floats[list(_FLOATS)],
        }
    )


def settings_of(data: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, ndarray]]:
    """Settings of a cache, the rest of the head, and the arrays.

    Raises:
        DataError: for other bytes.
    """
    try:
        arrays = load(data)
        head = json.loads(arrays.pop("head").tobytes())
        settings = head["settings"]
        if head["version"] != _VERSION:
            raise DataError(f"a snapshot of version {head['version']}", mend=f"This release reads {_VERSION}.")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError("these bytes are no snapshot of a cache", mend=_MEND) from error
    return settings, head, arrays


def reopened(
    head: Mapping[str, Any], arrays: Mapping[str, ndarray], make: Callable[[int, int], ndarray], *, forgets: bool
) -> tuple[KeySlots[Any], dict[Any, int]]:
    """The table of a snapshot and the sizes of cached keys.

    Args:
        head: from `settings_of`.
        arrays: from there.
        make: an empty memory for so many slots and bits.
        forgets: whether the table takes slots back.

    Raises:
        DataError: for arrays that are no state of a cache.
    """
    try:
        keys, bits = [_read(key) for key in head["keys"]], int(head["bits"])
        slots = len(arrays["key"])
        bad = not 10 <= bits <= 22 or slots % 2 or slots < 2
        memory = make(slots, bits) if not bad else make(2, 10)
        bad = bad or _impossible(arrays, keys, words.opened(memory))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError("a snapshot with missing parts", mend=_MEND) from error
    if bad:
        raise DataError("a snapshot whose arrays are no state of a cache", mend=_MEND)
    _fill(memory, arrays)
    table: KeySlots[Any] = KeySlots(memory, bits, forgets=forgets)
    places = np.flatnonzero(arrays["held"]).tolist()
    for slot, key in zip(places, keys, strict=True):
        table.index[key], table.keys[slot] = slot, key
    table.free = np.flatnonzero(arrays["held"] == 0)[::-1].tolist()
    sizes = {key: int(arrays["bytes"][slot]) for slot, key in zip(places, keys, strict=True) if arrays["bytes"][slot]}
    return table, sizes


def _fill(memory: ndarray, arrays: Mapping[str, ndarray]) -> None:
    store, cached = words.opened(memory), arrays["cached"] != 0
    store.key[:], store.number[:], store.asked[:] = arrays["key"], arrays["number"], arrays["asked"]
    store.ints[list(_INTS)], store.floats[list(_FLOATS)] = arrays["ints"], arrays["floats"]
    store.ints[[POSITIVE, CACHED]] = np.isfinite(store.key).sum(), cached.sum()
    words.chain(memory, cached)


def _impossible(arrays: Mapping[str, ndarray], keys: Sequence[Hashable], empty: words.Store) -> bool:
    key, number, cached, held = (arrays[name] for name in ("key", "number", "cached", "held"))
    slots, shapes = len(empty.key), {name: array.shape for name, array in arrays.items()}
    wanted = {name: (slots,) for name in ("key", "number", "cached", "held", "bytes")}
    wanted |= {"asked": empty.asked.shape, "ints": (len(_INTS),), "floats": (len(_FLOATS),)}
    kinds = {"key": "f8", "number": "f8", "floats": "f8", "asked": "i8", "bytes": "i8", "ints": "i8"}
    kinds |= {"cached": "u1", "held": "u1"}
    if shapes != wanted or any(arrays[name].dtype != kind for name, kind in kinds.items()):
        return True
    rho, _, free, gained = arrays["floats"].tolist()
    positive = key != wheels.ABSENT
    value = key[positive] - rho
    return not (
        len(set(keys)) == len(keys) == int((held != 0).sum())
        and np.isfinite(arrays["floats"]).all()
        and 0 <= rho <= 2 * wheels.REBASE
        and min(free, gained) >= 0
        and bool((arrays["ints"] >= 0).all())
        and bool((arrays["asked"] >= 0).all())
        and bool((arrays["bytes"] >= 0).all())
        and bool((np.abs(value - 0.5) <= 0.5 + 1e-6).all())
        and value.sum() + free <= (1 + 1e-6) * empty.floats[FREE] + 1e-6
        and bool(((number > 0) & (number <= 1))[held != 0].all())
        and not ((positive | (cached != 0)) & (held == 0)).any()
        and not ((cached != 0) & ~positive).any()
    )


def _written(key: Hashable) -> Any:
    if isinstance(key, str | int | float):
        return key
    if isinstance(key, np.integer):
        return int(key)
    if isinstance(key, bytes):
        return {"bytes": key.hex()}
    if isinstance(key, tuple):
        return [_written(part) for part in key]
    raise DataError(
        f"a key of type {type(key).__name__} has no place in a snapshot",
        mend="Use str, int, float, bool, bytes or tuples of these as keys.",
    )


def _read(key: Any) -> Hashable:
    if isinstance(key, dict):
        return bytes.fromhex(key["bytes"])
    if isinstance(key, list):
        return tuple(_read(part) for part in key)
    if isinstance(key, str | int | float):
        return key
    raise TypeError(key)
