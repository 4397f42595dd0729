"""The frames of a message log: checked opening, JSON head, body.

::

    frame  = prefix(magic u32, head bytes u32, body bytes u64) · CRC32 · head (JSON) · CRC32 · body · CRC32

The length of head and body stand in front, under a checksum of their own, so that frames can be walked without reading
bodies, and nothing is allocated for lengths that a damaged file claims. What heads say is the business of
`rivage.core.message_log`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from rivage.core.encoding import parse_json
from rivage.core.errors import StoreError

__all__ = [
    "BODY_END",
    "MAX_BODY_BYTES",
    "MAX_HEAD_BYTES",
    "MEND",
    "NO_BODY",
    "Damage",
    "Frame",
    "Frames",
    "frames_of",
    "opening",
]

_MAGIC = b"RVG1"
_PREFIX = struct.Struct("<4sIQ")
_CRC = struct.Struct("<I")
_OPENING = _PREFIX.size + _CRC.size
_BLOCK = 1 << 20
BODY_END = _CRC.size
"""Bytes behind a body."""
NO_BODY = _CRC.pack(crc32(b""))
"""What stands behind a body of no bytes."""
MAX_HEAD_BYTES = 16 << 20
MAX_BODY_BYTES = 2 << 30
_BURIED = "is damaged, and messages follow"
MEND = "Restore the log from a copy, or delete the run and start it again."


class Damage(Exception):
    """A frame that is not whole."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a frame lies, what its head says."""

    start: int
    head: dict[str, Any]
    body_start: int
    body_bytes: int

    @property
    def end(self) -> int:
        """Where the next frame starts."""
        return self.body_start + self.body_bytes + _CRC.size


def opening(head: bytes, body_bytes: int) -> bytes:
    """Prefix and head of a frame, with their checksums."""
    prefix = _PREFIX.pack(_MAGIC, len(head), body_bytes)
    return prefix + _CRC.pack(crc32(prefix)) + head + _CRC.pack(crc32(head))


def _lengths(start: bytes) -> tuple[int, int] | None:
    """Head and body length, if these bytes open a frame."""
    if len(start) < _OPENING or start[_PREFIX.size : _OPENING] != _CRC.pack(crc32(start[: _PREFIX.size])):
        return None
    magic, head_bytes, body_bytes = _PREFIX.unpack_from(start)
    sound = magic == _MAGIC and head_bytes <= MAX_HEAD_BYTES and body_bytes <= MAX_BODY_BYTES
    return (head_bytes, body_bytes) if sound else None


class Frames:
    """Reads the frames of one open file.

    Args:
        file: open for reading.
        path: what errors call it.

    Attributes:
        size: bytes that are read at most; those that a writer adds later are not looked at.
        end: of the last whole frame that `walk` has come to.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.size = file, path, os.fstat(file.fileno()).st_size
        self.end = 0

    def at(self, start: int) -> Frame:
        """The frame that starts here, its body not read; allocates only for bytes that are there.

        Raises:
            Damage: if there is no whole frame.
        """
        self.file.seek(start)
        lengths = _lengths(self.file.read(_OPENING))
        if lengths is None:
            raise Damage
        head_bytes, body_bytes = lengths
        body_start = start + _OPENING + head_bytes + _CRC.size
        if body_start + body_bytes + _CRC.size > self.size:
            raise Damage
        head, check = self.file.read(head_bytes), self.file.read(_CRC.size)
        if check != _CRC.pack(crc32(head)) or not (body_bytes or self.file.read(_CRC.size) == NO_BODY):
            raise Damage
        fields = parse_json(head, f"{self.path}, byte {start}")
        if not isinstance(fields, dict):
            raise self.error(start, "is not the head of a message")
        return Frame(start, fields, body_start, body_bytes)

    def body(self, frame: Frame) -> bytearray:
        """The body of a frame.

        Raises:
            Damage: if it is not what was written.
        """
        self.file.seek(frame.body_start)
        body = bytearray(frame.body_bytes)  # read into its place: no second copy, not even for a moment
        read = self.file.readinto(body)  # type: ignore[attr-defined]
        if read != frame.body_bytes or self.file.read(_CRC.size) != _CRC.pack(crc32(body)):
            raise Damage
        return body

    def walk(self, damaged: list[tuple[int, int]] | None = None) -> Iterator[Frame]:
        """All frames, bodies not read, up to a torn one at the end.

        Args:
            damaged: is given the bytes, first and behind the last, of damaged frames, which are left out.

        Raises:
            StoreError: for a damaged frame, where there is no such list.
        """
        self.end = 0
        while self.end < self.size:
            try:
                frame = self.at(self.end)
            except Damage:
                follows = self._next(self.end)
                if follows is None:
                    return
                if damaged is None:
                    raise self.error(self.end, _BURIED) from None
                damaged.append((self.end, follows))
                self.end = follows
                continue
            yield frame
            self.end = frame.end

    def check_last(self, start: int) -> None:
        """Nothing, if the damaged frame that starts here is the last one.

        Raises:
            StoreError: if a sound frame opens anywhere behind it.
        """
        if self._next(start) is not None:
            raise self.error(start, _BURIED)

    def _next(self, start: int) -> int | None:
        """Where the next sound frame opens."""
        start += 1
        while start < self.size:
            self.file.seek(start)
            block = self.file.read(min(_BLOCK + _OPENING - 1, self.size - start))
            found = block.find(_MAGIC)
            while found >= 0:
                if _lengths(block[found : found + _OPENING]):
                    return start + found
                found = block.find(_MAGIC, found + 1)
            start += _BLOCK
        return None

    def error(self, start: int, what: str) -> StoreError:
        """An error that names the place."""
        return StoreError(what, where=f"{self.path}, byte {start}", mend=MEND)


@contextmanager
def frames_of(path: Path) -> Iterator[Frames]:
    """The frames of a file, which is closed afterwards.

    Raises:
        StoreError: if it cannot be read.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(
            f"cannot be read ({error.strerror})", where=str(path), mend="Check the path and its permissions."
        ) from error
    with file:
        yield Frames(file, path)
