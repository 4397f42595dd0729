"""Values as bytes: deterministic JSON, and tensors in the safetensors format. No files here.

The safetensors coding is written out, not taken from the library: bytes must be equal on every machine (message logs
share payloads by content), their number must be known without producing them, and arrays must go out and come in
without a copy. The library and this module read each other's files. Headers are checked before anything is allocated
for them.

References:
    Safetensors format: u64 header length, JSON header, tensors. https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy import ndarray

from rivage.core.errors import StoreError

__all__ = [
    "Loaded",
    "Tensors",
    "decode_tensors",
    "dumps",
    "encode_tensors",
    "encoded_size",
    "header_length",
    "layout",
    "parse_json",
    "tensor_chunks",
    "views",
    "well_formed",
]

Tensors = Mapping[str, ndarray]
Loaded = tuple[dict[str, ndarray], dict[str, str]]

MAX_HEADER_BYTES = 16 << 20
MAX_TEXT_BYTES = 256 << 20
RESTORE = "Restore it from a copy, or delete it and run again."
_CODES = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
_CODE_OF = {np.dtype(text): code for code, text in _CODES.items()}

# --- JSON ---------------------------------------------------------------------------------------------------


def dumps(value: Any) -> str:
    """JSON with sorted keys, no spaces, floats by ``repr``, ASCII only: equal values give equal text.

    JSON has no NaN and no infinity: they become null. NumPy scalars and arrays become numbers and lists.
    """
    try:
        return _dumps(value)
    except ValueError:  # a number that JSON cannot say; rare, so the slow pass is only taken here
        return _dumps(_finite(value))


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return _finite(value.tolist()) if isinstance(value, ndarray | np.generic) else value


def parse_json(text: bytes | bytearray, where: str) -> Any:
    """The value of a JSON text.

    Raises:
        StoreError: if it is not JSON; ``where`` says which text.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"is not JSON ({error})", where=where, mend=RESTORE) from error


# --- safetensors --------------------------------------------------------------------------------------------

_Span = tuple[int, int, np.dtype[Any], tuple[int, ...]]
_Signature = tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]


def _signature(tensors: Tensors) -> _Signature:
    return tuple((name, array.dtype, array.shape) for name, array in tensors.items())


def _order(signature: _Signature) -> _Signature:
    # Wide numbers first, so that every tensor starts at a multiple of its own width.
    return tuple(sorted(signature, key=lambda entry: (-entry[1].itemsize, entry[0])))


def _header(signature: _Signature, metadata: Mapping[str, str]) -> bytes:
    head: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name, dtype, shape in _order(signature):
        assert name != "__metadata__", "safetensors keeps this name for itself"
        code = _CODE_OF.get(dtype.newbyteorder("<"))
        if code is None:
            raise StoreError(
                f'"{name}" has dtype {dtype}', mend=f"Convert it to one of {', '.join(map(str, _CODE_OF))}."
            )
        start, end = end, end + math.prod(shape) * dtype.itemsize
        head[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


@lru_cache(maxsize=256)
def _size(signature: _Signature) -> int:
    data = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in signature)
    return len(_header(signature, {})) + data


def encoded_size(tensors: Tensors) -> int:
    """Exactly ``len(encode_tensors(tensors))``, without serialising: O(number of tensors), no copy."""
    return _size(_signature(tensors))


def tensor_chunks(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Iterator[memoryview]:
    """The pieces of `encode_tensors`, in order: the header, then a view on each contiguous tensor."""
    signature = _signature(tensors)
    yield memoryview(_header(signature, metadata or {}))
    for name, dtype, _ in _order(signature):
        array = np.asarray(tensors[name], dtype.newbyteorder("<"), order="C")
        yield array.reshape(-1).view(np.uint8).data


def encode_tensors(tensors: Tensors, metadata: Mapping[str, str] | None = None) -> bytes:
    """Safetensors bytes; equal tensors and metadata give equal bytes, whatever the order of the names.

    Raises:
        StoreError: for a dtype that safetensors cannot hold (objects, text, complex numbers).
    """
    return b"".join(tensor_chunks(tensors, metadata))


def decode_tensors(buffer: bytes | bytearray, *, where: str = "") -> Loaded:
    """The inverse of `encode_tensors`, and of the safetensors library.

    Args:
        buffer: a bytearray is not copied, the arrays are views on it; bytes are copied once.
        where: what to call the buffer in errors.

    Returns:
        Writable arrays by name, and the metadata.

    Raises:
        StoreError: for anything that is not exactly one well-formed safetensors buffer.
    """
    data = bytearray(buffer) if isinstance(buffer, bytes) else buffer
    with well_formed(where):
        length = header_length(data[:8], len(data))
        spans, metadata = layout(data[8 : 8 + length], len(data) - 8 - length)
        return views(data, 8 + length, spans), metadata


@contextmanager
def well_formed(where: str) -> Iterator[None]:
    """Whatever goes wrong in reading a buffer becomes a `StoreError` with its place."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise StoreError(f"is not a safetensors buffer ({error})", where=where, mend=RESTORE) from error


def header_length(opening: bytes | bytearray, size: int) -> int:
    """Length of the JSON header, from the first 8 of ``size`` bytes."""
    length = int.from_bytes(opening, "little")
    if size < 8 or length > min(MAX_HEADER_BYTES, size - 8):
        raise ValueError(f"header length {length} is beyond the {size} bytes or above {MAX_HEADER_BYTES}")
    return length


def layout(header: bytes | bytearray, size: int) -> tuple[dict[str, _Span], dict[str, str]]:
    """Where each tensor lies in ``size`` bytes of data, which they must fill; and the metadata."""
    head = json.loads(header)
    metadata = head.pop("__metadata__", {}) if isinstance(head, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TypeError("the header is not a table of tensors and texts")
    spans = {name: _span(name, entry) for name, entry in head.items()}
    position = 0
    for start, end, _, _ in sorted(spans.values(), key=lambda span: span[:2]):
        if start != position:
            raise ValueError(f"a tensor starts at {start}, not at {position}")
        position = end
    if position != size:
        raise ValueError(f"the tensors take {position} bytes of {size}")
    return spans, metadata


def _span(name: str, entry: Any) -> _Span:
    shape, offsets = entry["shape"], entry["data_offsets"]
    # The product of a hostile shape of a million numbers would take hours: NumPy stops at 64 axes anyway.
    if len(shape) > 64 or not all(type(number) is int and 0 <= number < 2**62 for number in [*shape, *offsets]):
        raise ValueError(f'"{name:.80}" has a malformed shape or place')
    dtype, (start, end) = np.dtype(_CODES[entry["dtype"]]), offsets
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f'"{name:.80}" of shape {shape} does not take bytes {start} to {end}')
    return start, end, dtype, tuple(shape)


def views(data: bytearray, origin: int, spans: Mapping[str, _Span]) -> dict[str, ndarray]:
    """The tensors as views of ``data``, whose first number lies at ``origin``."""
    arrays = {}
    for name, (start, _, dtype, shape) in spans.items():
        flat = np.frombuffer(data, dtype, count=math.prod(shape), offset=origin + start)
        # Files of others need not be aligned; what computes on the array may assume that it is.
        arrays[name] = np.require(flat, requirements="A").reshape(shape)
    return arrays
