"""The log of a training's messages: one append-only file of frames.

::

    frame  = prefix(magic u32, head bytes u32, body bytes u64) · CRC32 · head (JSON) · CRC32 · body · CRC32

The first frame holds the header of the log; every other one is a message, whose body is the encoded payload.
The payload of a broadcast is not stored again for every receiver: the head has its content hash and points at the frame
that holds it. Other payloads are not hashed, which would take as long as writing them.
Heads can be walked without reading bodies, so opening a log takes time in messages, not in bytes. A process
killed at any instant leaves at most one torn frame at the end, which is dropped; damage before the last frame
is an error.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from rivage.core.encoding import decode_tensors, dumps, parse_json, tensor_chunks
from rivage.core.errors import ConfigError, StoreError
from rivage.core.messages import LogPolicy, Message
from rivage.core.store import write_bytes
from rivage.core.writer import Writer

__all__ = ["LOG_NAME", "MessageLog"]

LOG_NAME = "messages.rvg"
"""What the log of a trial is called in its folder."""


# --- frames -------------------------------------------------------------------------------------------------

_FORMAT = 1
_SHARED = "broadcast"  # the kind of message whose payload may be in the file already
_MAGIC = b"RVG1"
_PREFIX = struct.Struct("<4sIQ")
_CRC = struct.Struct("<I")
_NO_BODY = _CRC.pack(crc32(b""))
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
    if len(opening) < _OPENING or opening[_PREFIX.size : _OPENING] != _CRC.pack(crc32(opening[: _PREFIX.size])):
        return None
    magic, head_bytes, body_bytes = _PREFIX.unpack_from(opening)
    sound = magic == _MAGIC and head_bytes <= _MAX_HEAD_BYTES and body_bytes <= _MAX_BODY_BYTES
    return (head_bytes, body_bytes) if sound else None


class _Frames:
    """Reads the frames of one open file."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file, self.path, self.size = file, path, os.fstat(file.fileno()).st_size

    def at(self, start: int) -> _Frame:
        """The frame that starts here, its body not read; allocates only for bytes that are there.

        Raises:
            _Damage: if there is no whole frame.
        """
        self.file.seek(start)
        lengths = _lengths(self.file.read(_OPENING))
        if lengths is None:
            raise _Damage
        head_bytes, body_bytes = lengths
        body_start = start + _OPENING + head_bytes + _CRC.size
        if body_start + body_bytes + _CRC.size > self.size:
            raise _Damage
        head, check = self.file.read(head_bytes), self.file.read(_CRC.size)
        if check != _CRC.pack(crc32(head)) or not (body_bytes or self.file.read(_CRC.size) == _NO_BODY):
            raise _Damage
        fields = parse_json(head, f"{self.path}, byte {start}")
        if not isinstance(fields, dict):
            raise self.error(start, "is not the head of a message")
        return _Frame(start, fields, body_start, body_bytes)

    def body(self, frame: _Frame) -> bytearray:
        """The body of a frame.

        Raises:
            _Damage: if it is not what was written.
        """
        self.file.seek(frame.body_start)
        body = bytearray(self.file.read(frame.body_bytes))
        if self.file.read(_CRC.size) != _CRC.pack(crc32(body)):
            raise _Damage
        return body

    def walk(self) -> Iterator[_Frame]:
        """All frames, bodies not read, up to a torn one at the end."""
        start = 0
        while start < self.size:
            try:
                frame = self.at(start)
            except _Damage:
                self.check_last(start)
                return
            yield frame
            start = frame.end

    def check_last(self, start: int) -> None:
        """Nothing, if the damaged frame that starts here is the last one.

        Raises:
            StoreError: if a sound frame opens anywhere behind it.
        """
        start += 1
        while start < self.size:
            self.file.seek(start)
            block = self.file.read(_BLOCK + _OPENING - 1)
            found = block.find(_MAGIC)
            while found >= 0:
                if _lengths(block[found : found + _OPENING]):
                    raise self.error(start - 1, "is damaged, and messages follow")
                found = block.find(_MAGIC, found + 1)
            start += _BLOCK

    def error(self, start: int, what: str) -> StoreError:
        """An error that names the place."""
        return StoreError(what, where=f"{self.path}, byte {start}", mend=_MEND)

    def header(self) -> dict[str, Any]:
        """The head of the first frame: format, policy, header of the log."""
        try:
            head = self.at(0).head
        except _Damage:
            raise self.error(0, "has no readable header: it is no message log, or damaged") from None
        if head.get("format") != _FORMAT or not isinstance(head.get("header"), dict):
            raise self.error(0, f"is not a message log of format {_FORMAT}")
        return head

    def message(self, frame: _Frame, payloads: bool) -> Message:
        """The message of a frame.

        Raises:
            _Damage: if the frame's own body is damaged.
            StoreError: if the head makes no sense, or the body it points at is damaged.
        """
        try:
            fields = _checked(frame)
        except (KeyError, TypeError, ValueError) as error:
            raise self.error(frame.start, f"is not the head of a message ({error})") from error
        size = frame.head["bytes"]
        if frame.head["payload"] is None or not payloads:
            return Message(**fields, payload={}, omitted=size)
        body = self.body(frame) if frame.head["at"] is None else self._shared(frame)
        if len(body) != size:
            raise self.error(frame.start, f"has a payload of {len(body)} bytes, not {size}")
        return Message(**fields, payload=decode_tensors(body, where=f"{self.path}, byte {frame.start}")[0])

    def _shared(self, frame: _Frame) -> bytearray:
        try:
            source = self.at(frame.head["at"])
            if source.head.get("payload") == frame.head["payload"]:
                return self.body(source)
        except _Damage:
            pass
        raise self.error(frame.start, f"shares the payload at byte {frame.head['at']}, which is not there")


def _checked(frame: _Frame) -> dict[str, Any]:
    head = frame.head
    kinds = {"round": int, "sender": str, "receiver": str, "kind": str, "time": float, "bytes": int}
    for name, kind in kinds.items():
        if type(head[name]) is not kind:
            raise TypeError(f"{name} is not {kind.__name__}")
    if head["round"] < -1 or head["bytes"] < 0 or not isinstance(head["payload"], str | None):
        raise ValueError("round, bytes or payload is out of range")
    if head["at"] is not None and (type(head["at"]) is not int or not 0 < head["at"] < frame.start):
        raise ValueError("at is not the place of an earlier message")
    return {name: head[name] for name in kinds if name != "bytes"}


# --- the log ------------------------------------------------------------------------------------------------


class MessageLog:
    """An append-only file of messages; also a context manager that closes it.

    Equal messages after equal messages give equal bytes: a run that resumes truncates the log to the offset
    of its checkpoint and then writes the file it would have written. Memory: about 200 bytes per distinct
    broadcast and up to 64 MiB of payloads that wait while writing, one message while reading.

    Example:
        >>> with MessageLog.create(path, {"loss": "squared"}) as log:  # doctest: +SKIP
        ...     log.append(message)
        >>> sum(message.nbytes for message in MessageLog.read(path))  # doctest: +SKIP
        4096
    """

    def __init__(self, path: Path, policy: LogPolicy, places: dict[str, int], offset: int) -> None:
        self.path, self.policy = path, policy
        self._places, self._offset = places, offset
        self._last: tuple[Message, str] | None = None
        self._file = path.open("ab")
        self._writer = Writer(self._file)

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any], policy: LogPolicy = LogPolicy()) -> MessageLog:
        """Start a log, replacing what was there.

        Args:
            path: the file.
            header: what an auditor may know of the training: parameters, buffers, loss, hyper-parameters,
                secure aggregation, statement of privacy. Never the seed nor the place of the data.
            policy: which messages and payloads are kept.
        """
        head = dumps({"format": _FORMAT, "header": header, "log": str(policy)}).encode()
        if len(head) > _MAX_HEAD_BYTES:
            raise StoreError(
                f"the header has {len(head)} bytes, more than {_MAX_HEAD_BYTES}",
                where=str(path),
                mend="Describe fewer parameters.",
            )
        write_bytes(path, _opening(head, 0), _NO_BODY)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> MessageLog:
        """Continue a log, after dropping a torn frame at its end. Time: O(messages), not bytes.

        Raises:
            StoreError: if the file is missing, no message log, or damaged before its end.
        """
        path = Path(path)
        with _opened(path) as frames:
            policy = _policy(frames)
            places, end = _index(frames)
        log = cls(path, policy, places, end)
        log._file.truncate(end)
        return log

    @property
    def offset(self) -> int:
        """Bytes of the log so far: what a checkpoint remembers."""
        return self._offset

    def append(self, message: Message) -> None:
        """Add a message, with its payload if the policy keeps it; that must not be changed before `flush`."""
        assert message.omitted is None, "a message without its payload cannot be logged again"
        assert math.isfinite(message.time), "time is finite"
        if self.policy.keeps == "none":
            return
        keeps = self.policy.keeps_payload(message)
        digest = self._digest(message) if keeps and message.kind == _SHARED else ""
        place = self._places.get(digest)
        if digest and place is None:
            self._places[digest] = self._offset
        head = {
            "round": int(message.round),
            "sender": message.sender,
            "receiver": message.receiver,
            "kind": message.kind,
            "time": float(message.time),
            "bytes": message.nbytes,
            "payload": digest if keeps else None,
            "at": place,
        }
        self._write(head, list(tensor_chunks(message.payload)) if keeps and place is None else [])

    def _digest(self, message: Message) -> str:
        # A broadcast to many is one object: it is hashed once. Not across rounds, where an engine may fill
        # the same arrays anew.
        if self._last and self._last[0].payload is message.payload and self._last[0].round == message.round:
            return self._last[1]
        digest = hashlib.sha256()  # processors have instructions for it: twice as fast as blake2b
        for chunk in tensor_chunks(message.payload):
            digest.update(chunk)
        self._last = message, digest.hexdigest()[:32]
        return self._last[1]

    def _write(self, head: Mapping[str, Any], chunks: Sequence[memoryview]) -> None:
        size = sum(chunk.nbytes for chunk in chunks)
        if size > _MAX_BODY_BYTES:
            raise StoreError(
                f"a payload of {size} bytes is above the {_MAX_BODY_BYTES} of a message log",
                where=str(self.path),
                mend='Set log = "meta".',
            )
        opening = _opening(dumps(head).encode(), size)
        with self._explained():
            self._writer.append(opening, chunks)
        self._offset += len(opening) + size + _CRC.size

    def truncate(self, offset: int) -> None:
        """Drop every message from this offset on, as if it had never been written.

        Raises:
            StoreError: if no message ends there.
        """
        self.flush()
        with _opened(self.path) as frames:
            frames.size = min(offset, frames.size)
            self._places, end = _index(frames)
        if not 0 < offset == end:
            raise StoreError(f"no message ends at byte {offset}", where=str(self.path), mend=_MEND)
        self._file.truncate(offset)
        self._offset, self._last = offset, None

    def drain(self) -> None:
        """Wait until everything so far is with the operating system."""
        with self._explained():
            self._writer.flush()

    def flush(self) -> None:
        """Bring everything so far to the disk; to be called before a checkpoint that remembers `offset`."""
        self.drain()
        with self._explained():
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is buffered and close the file."""
        with self._explained():
            self._writer.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"the message log cannot be written ({error.strerror or error})",
                where=str(self.path),
                mend="Make room on the disk and run the same command again; the last checkpoint is kept.",
            ) from error

    def __enter__(self) -> MessageLog:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @staticmethod
    def read_header(path: Path) -> dict[str, Any]:
        """The header that `create` was given.

        Raises:
            StoreError: if the file is missing or no message log.
        """
        with _opened(Path(path)) as frames:
            header: dict[str, Any] = frames.header()["header"]
            return header

    @staticmethod
    def read(path: Path, *, payloads: bool = True) -> Iterator[Message]:
        """The messages in order, one in memory at a time; a torn one at the end is left out.

        Args:
            path: a log, which may still be growing.
            payloads: False leaves payloads out and reads none of their bytes; `Message.nbytes` stays right.

        Raises:
            StoreError: if the file is missing, no message log, or damaged before its end.
        """
        with _opened(Path(path)) as frames:
            frames.header()
            for frame in islice(frames.walk(), 1, None):
                try:
                    message = frames.message(frame, payloads)
                except _Damage:
                    frames.check_last(frame.start)
                    return
                yield message


@contextmanager
def _opened(path: Path) -> Iterator[_Frames]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise StoreError(
            f"cannot be read ({error.strerror})", where=str(path), mend="Check the path and its permissions."
        ) from error
    with file:
        yield _Frames(file, path)


def _policy(frames: _Frames) -> LogPolicy:
    try:
        return LogPolicy.parse(str(frames.header().get("log")))
    except ConfigError as error:
        raise frames.error(0, error.what) from error


def _index(frames: _Frames) -> tuple[dict[str, int], int]:
    """Frame of each payload in the file, by content hash, and where the last whole frame ends."""
    places: dict[str, int] = {}
    last: _Frame | None = None
    for last in frames.walk():
        digest = last.head.get("payload")
        if isinstance(digest, str) and digest and last.head.get("at") is None:
            places.setdefault(digest, last.start)
    if last is None:
        return places, 0
    try:  # Frames before the last one are whole: the file has been written behind them.
        frames.body(last)
    except _Damage:
        return {digest: place for digest, place in places.items() if place != last.start}, last.start
    return places, last.end
