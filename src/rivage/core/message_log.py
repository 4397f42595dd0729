"""The log of a training's messages: one append-only file of frames.

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rivage.core.encoding import dumps, tensor_chunks
from rivage.core.errors import StoreError
from rivage.core.frames import (
    BODY_END,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    MEND,
    NO_BODY,
    Damage,
    Frame,
    Frames,
    frames_of,
    opening,
)
from rivage.core.log_reader import FORMAT, LogReader, Torn
from rivage.core.messages import LogPolicy, Message
from rivage.core.store import write_bytes
from rivage.core.writer import Writer

__all__ = ["LOG_NAME", "MessageLog"]

LOG_NAME = "messages.rvg"
"""What the log of a trial is called in its folder."""


_SHARED = "broadcast"  # the kind of message whose payload may be in the file already


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
        head = dumps({"format": FORMAT, "header": header, "log": str(policy)}).encode()
        if len(head) > MAX_HEAD_BYTES:
            raise StoreError(
                f"the header has {len(head)} bytes, more than {MAX_HEAD_BYTES}",
                where=str(path),
                mend="Describe fewer parameters.",
            )
        write_bytes(path, opening(head, 0), NO_BODY)
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> MessageLog:
        """Continue a log, after dropping a torn frame at its end. Time: O(messages), not bytes.

        Raises:
            StoreError: if the file is missing, no message log, or damaged before its end.
        """
        path = Path(path)
        with frames_of(path) as frames:
            policy = LogReader(frames).policy
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
        if size > MAX_BODY_BYTES:
            raise StoreError(
                f"a payload of {size} bytes is above the {MAX_BODY_BYTES} of a message log",
                where=str(self.path),
                mend='Set log = "meta".',
            )
        front = opening(dumps(head).encode(), size)
        with self._explained():
            self._writer.append(front, chunks)
        self._offset += len(front) + size + BODY_END

    def truncate(self, offset: int) -> None:
        """Drop every message from this offset on, as if it had never been written.

        Raises:
            StoreError: if no message ends there.
        """
        self.flush()
        with frames_of(self.path) as frames:
            frames.size = min(offset, frames.size)
            self._places, end = _index(frames)
        if not 0 < offset == end:
            raise StoreError(f"no message ends at byte {offset}", where=str(self.path), mend=MEND)
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
        with MessageLog.reader(path) as reader:
            return reader.header

    @staticmethod
    def read(path: Path, *, payloads: bool = True) -> Iterator[Message]:
        """The messages in order, one in memory at a time; a torn one at the end is left out.

        Args:
            path: a log, which may still be growing.
            payloads: False leaves payloads out and reads none of their bytes; `Message.nbytes` stays right.

        Raises:
            StoreError: if the file is missing, no message log, or damaged before its end.
        """
        with MessageLog.reader(path) as reader:
            for head in reader.heads():
                kept = payloads and head.place is not None
                try:
                    payload = reader.payload(head) if kept else {}
                except Torn:
                    return
                yield Message(
                    round=head.round,
                    sender=head.sender,
                    receiver=head.receiver,
                    kind=head.kind,
                    time=head.time,
                    payload=payload,
                    omitted=None if kept else head.nbytes,
                )

    @staticmethod
    @contextmanager
    def reader(path: Path, size: int | None = None) -> Iterator[LogReader]:
        """An open log, whose messages can be walked without their payloads; it is closed afterwards.

        Args:
            path: a log, which may still be growing.
            size: bytes of it that are read at most.

        Raises:
            StoreError: if the file is missing or no message log.
        """
        with frames_of(Path(path)) as frames:
            yield LogReader(frames, size)


def _index(frames: Frames) -> tuple[dict[str, int], int]:
    """Frame of each payload in the file, by content hash, and where the last whole frame ends."""
    places: dict[str, int] = {}
    last: Frame | None = None
    for last in frames.walk():
        digest = last.head.get("payload")
        if isinstance(digest, str) and digest and last.head.get("at") is None:
            places.setdefault(digest, last.start)
    if last is None:
        return places, 0
    try:  # Frames before the last one are whole: the file has been written behind them.
        frames.body(last)
    except Damage:
        return {digest: place for digest, place in places.items() if place != last.start}, last.start
    return places, last.end
