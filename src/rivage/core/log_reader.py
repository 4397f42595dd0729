"""Reads a message log: heads first, payloads by their place.

Who sent how much to whom and when stands in the heads. Walking them reads no payload, and a payload is decoded when it
is asked for: a broadcast to many, which the log holds once, by its place rather than once per receiver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from numpy import ndarray

from rivage.core.encoding import decode_tensors
from rivage.core.errors import ConfigError
from rivage.core.frames import Damage, Frame, Frames
from rivage.core.messages import LogPolicy

__all__ = ["FORMAT", "Head", "LogReader", "Torn"]

FORMAT = 1
"""Of the header; another one is refused."""


class Torn(Exception):
    """The payload of the last message is not whole: its writer was killed, or is still at work."""


@dataclass(frozen=True, slots=True)
class Head:
    """A message without its payload.

    Args:
        round: index of the round, from 0; -1 for the setup before it.
        sender: ``server`` or ``client:17``.
        receiver: the same.
        kind: ``broadcast``, ``update``, ...
        time: simulated seconds since the start of the run.
        nbytes: exact length of the payload, also where it was not kept.
        start: byte of the file at which the message begins.
        place: byte of the frame that holds its payload, another one's for a broadcast that is there already; None where
            the payload was not kept.
    """

    round: int
    sender: str
    receiver: str
    kind: str
    time: float
    nbytes: int
    start: int
    place: int | None


class LogReader:
    """An open log.

    Args:
        frames: of the file.
        size: bytes that are read at most; all there are by default.

    Raises:
        StoreError: if it is no message log.
    """

    def __init__(self, frames: Frames, size: int | None = None) -> None:
        self._frames = frames
        frames.size = min(frames.size, frames.size if size is None else size)
        self._head = _header(frames)

    @property
    def size(self) -> int:
        """Bytes that are read at most. A log may grow while it is read; what comes later is not looked at."""
        return self._frames.size

    @property
    def header(self) -> dict[str, Any]:
        """What `MessageLog.create` was given."""
        header: dict[str, Any] = self._head["header"]
        return header

    @property
    def policy(self) -> LogPolicy:
        """Which messages and payloads were kept.

        Raises:
            StoreError: if the header does not say.
        """
        try:
            return LogPolicy.parse(str(self._head.get("log")))
        except ConfigError as error:
            raise self._frames.error(0, error.what) from error

    @property
    def torn(self) -> int:
        """Bytes at the end that are no whole message; to be asked when all heads have been walked."""
        return self.size - self._frames.end

    def heads(self, damaged: list[tuple[int, int]] | None = None) -> Iterator[Head]:
        """All messages in order, no payload read, up to a torn one at the end.

        Args:
            damaged: is given the bytes, first and behind the last, of damaged messages, which are left out.

        Raises:
            StoreError: for damage before the end, naming its place, where there is no such list.
        """
        for frame in islice(self._frames.walk(damaged), 1, None):
            yield self._checked(frame)

    def payload(self, head: Head) -> dict[str, ndarray]:
        """The arrays of a message, writable; empty where they were not kept.

        Raises:
            Torn: for the last message, where its payload is not whole.
            StoreError: for a damaged payload before that, or one that does not fit its head.
        """
        if head.place is None:
            return {}
        body = self._own(head) if head.place == head.start else self._shared(head)
        if len(body) != head.nbytes:
            raise self._frames.error(head.start, f"has a payload of {len(body)} bytes, not {head.nbytes}")
        return decode_tensors(body, where=f"{self._frames.path}, byte {head.start}")[0]

    def _own(self, head: Head) -> bytearray:
        try:
            return self._frames.body(self._frames.at(head.start))
        except Damage:
            self._frames.check_last(head.start)
            raise Torn from None

    def _shared(self, head: Head) -> bytearray:
        assert head.place is not None, "asked for where there is one"
        try:
            source = self._frames.at(head.place)
            if source.head.get("payload") == self._frames.at(head.start).head["payload"]:
                return self._frames.body(source)
        except Damage:
            pass
        raise self._frames.error(head.start, f"shares the payload at byte {head.place}, which is not there")

    def _checked(self, frame: Frame) -> Head:
        try:
            return _head(frame)
        except (KeyError, TypeError, ValueError) as error:
            raise self._frames.error(frame.start, f"is not the head of a message ({error})") from error


def _header(frames: Frames) -> dict[str, Any]:
    """The head of the first frame: format, policy, header of the log.

    Raises:
        StoreError: if there is none.
    """
    try:
        head = frames.at(0).head
    except Damage:
        raise frames.error(0, "has no readable header: it is no message log, or damaged") from None
    if head.get("format") != FORMAT or not isinstance(head.get("header"), dict):
        raise frames.error(0, f"is not a message log of format {FORMAT}")
    return head


_KINDS = {"round": int, "sender": str, "receiver": str, "kind": str, "time": float, "bytes": int}


def _head(frame: Frame) -> Head:
    head = frame.head
    for name, kind in _KINDS.items():
        if type(head[name]) is not kind:
            raise TypeError(f"{name} is not {kind.__name__}")
    payload, at = head["payload"], head["at"]
    if head["round"] < -1 or head["bytes"] < 0 or not isinstance(payload, str | None):
        raise ValueError("round, bytes or payload is out of range")
    if at is not None and (type(at) is not int or not 0 < at < frame.start):
        raise ValueError("at is not the place of an earlier message")
    place = None if payload is None else frame.start if at is None else at
    fields = {name: head[name] for name in _KINDS if name != "bytes"}
    return Head(**fields, nbytes=head["bytes"], start=frame.start, place=place)
