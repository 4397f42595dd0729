"""Messages between the parties of a training, and the log that keeps them.

A `Message` is one payload in one direction, as it is on the wire: `encode` gives its safetensors bytes, and bytes
are counted on that buffer. A `MessageLog` is one append-only file of frames::

    frame  = prefix(magic u32, head bytes u32, body bytes u64) · CRC32 · head (JSON) · CRC32 · body · CRC32

The first frame holds the header of the log; every other one is a message, whose body is the encoded payload. A
payload that is already in the file (a broadcast to many) is not stored again: the head points at its frame. Heads
can be walked without reading bodies, so opening a log takes time in messages, not in bytes. A process killed at any
instant leaves at most one torn frame at the end, which is dropped; damage before the last frame is an error.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedRandom, BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from zlib import crc32

from jaxtyping import Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, StoreError
from rivage.core.store import decode_tensors, dumps, encode_tensors, encoded_size, parse_json, tensor_chunks, write_bytes

__all__ = ["LogPolicy", "Message", "MessageLog", "Payload", "decode", "encode", "encoded_size"]

Payload = Mapping[str, Shaped[ndarray, "..."]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One payload, from one party to another.

    Args:
        round: index of the round, from 0; -1 for the setup before it.
        sender: ``server`` or ``client:17``.
        receiver: the same.
        kind: ``broadcast``, ``update``, ``statistics``, ``vocabulary``, ...
        payload: named arrays, as on the wire; never changed once the message is made.
        time: simulated seconds since the start of the run, finite.
        omitted: bytes of a payload that a log did not keep; None when the payload is here.
    """

    round: int
    sender: str
    receiver: str
    kind: str
    payload: Payload
    time: float = 0.0
    omitted: int | None = None

    @property
    def nbytes(self) -> int:
        """Exact length of the serialised payload."""
        return encoded_size(self.payload) if self.omitted is None else self.omitted


def encode(payload: Payload) -> bytes:
    """The payload as on the wire: safetensors, the same bytes whatever the order of the names."""
    return encode_tensors(payload)


def decode(buffer: bytes | bytearray) -> dict[str, ndarray]:
    """The inverse of `encode`; the arrays are writable.

    Raises:
        StoreError: for a malformed buffer, whatever is wrong with it.
    """
    return decode_tensors(buffer)[0]


@dataclass(frozen=True, slots=True)
class LogPolicy:
    """What a log keeps.

    Args:
        keeps: ``none`` (no message), ``meta`` (who, when, how many bytes), ``clients`` (payloads of some clients,
            the rest as in ``meta``) or ``all``.
        clients: whose payloads ``clients`` keeps, in both directions.
    """

    keeps: Literal["none", "meta", "clients", "all"] = "all"
    clients: frozenset[int] = frozenset()

    @classmethod
    def parse(cls, text: str) -> LogPolicy:
        """The policy written ``none``, ``meta``, ``clients:[0, 5]`` or ``all``.

        Raises:
            ConfigError: for any other text.
        """
        if text in ("none", "meta", "all"):
            return cls(text)  # type: ignore[arg-type]
        match = re.fullmatch(r"clients:\s*\[\s*(\d{1,18}(?:\s*,\s*\d{1,18})*)\s*,?\s*\]", text, re.ASCII)
        if match is None:
            raise ConfigError(f'log is "{text}"', mend='Write "none", "meta", "clients:[0, 5]" or "all".')
        return cls("clients", frozenset(map(int, match[1].split(","))))

    def __str__(self) -> str:
        return f"clients:{sorted(self.clients)}" if self.keeps == "clients" else self.keeps

    def keeps_payload(self, message: Message) -> bool:
        """Whether the log holds what was in this message, not only that it was sent."""
        if self.keeps == "clients":
            return any(_client(party) in self.clients for party in (message.sender, message.receiver))
        return self.keeps == "all"


def _client(party: str) -> int | None:
    role, _, number = party.partition(":")
    return int(number) if role == "client" and number.isdecimal() else None


# --- frames -------------------------------------------------------------------------------------------------

_MAGIC = b"RVG1"
_PREFIX = struct.Struct("<4sIQ")
_CRC = struct.Struct("<I")
_OPENING = _PREFIX.size + _CRC.size
_MAX_HEAD_BYTES = 16 << 20
_MAX_BODY_BYTES = 2 << 30
_BLOCK = 1 << 20
_MEND = "Restore the log from a copy, or delete the run and start it again."


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where a frame lies, what its head says."""

    start: int
    head: dict[str, Any]
    body_start: int
    body_bytes: int

    @property
    def end(self) -> int:
        return self.body_start + self.body_bytes + _CRC.size


class _Damage(Exception):
    """A frame that is not whole."""


def _opening(head: bytes, body_bytes: int) -> bytes:
    prefix = _PREFIX.pack(_MAGIC, len(head), body_bytes)
    return prefix + _CRC.pack(crc32(prefix)) + head + _CRC.pack(crc32(head))


def _lengths(opening: bytes) -> tuple[int, int] | None:
    """Head and body length, if these bytes open a frame."""
    if len(opening) < _OPENING or _CRC.unpack_from(opening, _PREFIX.size) != (crc32(opening[: _PREFIX.size]),):
        return None
    magic, head_bytes, body_bytes = _PREFIX.unpack_from(opening)
    sound = magic == _MAGIC and head_bytes <= _MAX_HEAD_BYTES and body_bytes <= _MAX_BODY_BYTES
    return (head_bytes, body_bytes) if sound else None


class _Frames:
    """Reads the frames of one open log."""

    def __init__(self, file: BufferedReader | BufferedRandom, path: Path) -> None:
        self.file, self.path, self.size = file, path, os.fstat(file.fileno()).st_size

    def at(self, start: int) -> _Frame:
        """The frame that starts here, its body not read; memory is allocated only for bytes that exist."""
        self.file.seek(start)
        lengths = _lengths(self.file.read(_OPENING))
        if lengths is None:
            raise _Damage(start)
        head_bytes, body_bytes = lengths
        body_start = start + _OPENING + head_bytes + _CRC.size
        if body_start + body_bytes + _CRC.size > self.size:
            raise _Damage(start)
        head, check = self.file.read(head_bytes), self.file.read(_CRC.size)
        if check != _CRC.pack(crc32(head)):
            raise _Damage(start)
        fields = parse_json(head, str(self.path))
        if not isinstance(fields, dict):
            raise self.error(start)
        return _Frame(start, fields, body_start, body_bytes)

    def body(self, frame: _Frame) -> bytearray:
        """The body of a frame, checked."""
        self.file.seek(frame.body_start)
        body = bytearray(frame.body_bytes)
        read = self.file.readinto(body)
        if read != len(body) or self.file.read(_CRC.size) != _CRC.pack(crc32(body)):
            raise _Damage(frame.start)
        return body

    def walk(self, visit: Callable[[_Frame], T]) -> Iterator[T]: ...
