"""Bytes written to a file from a thread of their own, in order, while the caller goes on.

Copying a megabyte into the kernel's page cache takes a third of a millisecond and a checksum as long, both without the
interpreter's lock. Pages are given back every few megabytes: nobody is going to read them soon, and a file that grows
into memory which a virtual machine has yet to be lent by its host costs six times as much.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO
from zlib import crc32

__all__ = ["Writer"]

_MAX_WAITING_BYTES = 64 << 20
_SMALL = 64 << 10  # bytes that are written sooner than handed over
_PAGES_BYTES = 8 << 20  # of the file that may stay in the page cache


class Writer:
    """Appends to an open file.

    Args:
        file: to write to; closed by `close`.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._thread: ThreadPoolExecutor | None = None
        self._waiting: deque[tuple[int, Future[None]]] = deque()
        self._broken: BaseException | None = None
        self._cached = 0  # bytes since pages were last given back

    def append(self, opening: bytes, body: Sequence[memoryview]) -> None:
        """Write an opening, a body and the CRC32 of the body. What the body shows must not be changed before `flush`.

        Raises:
            OSError: of this or of an earlier call.
        """
        if self._broken is not None:
            raise self._broken
        size = sum(chunk.nbytes for chunk in body)
        while self._waiting and (
            self._waiting[0][1].done() or sum(n for n, _ in self._waiting) + size > _MAX_WAITING_BYTES
        ):
            self._settle_first()
        if not self._waiting and size < _SMALL:
            self._write(opening, body)
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "rivage-writer")
        self._waiting.append((size, self._thread.submit(self._write, opening, body)))

    def flush(self) -> None:
        """Wait until everything is with the operating system.

        Raises:
            OSError: of this or of an earlier call.
        """
        while self._waiting:
            self._settle_first()
        if self._broken is not None:
            raise self._broken
        self._file.flush()

    def close(self) -> None:
        """Flush, and close the file."""
        try:
            self.flush()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
            self._file.close()

    def _settle_first(self) -> None:
        """Wait for the oldest frame; one that failed stays, so that every later call fails as well."""
        self._waiting[0][1].result()
        self._waiting.popleft()

    def _write(self, opening: bytes, body: Sequence[memoryview]) -> None:
        if self._broken is not None:  # what follows a torn frame could not be read
            raise self._broken
        check = 0
        for chunk in body:
            check = crc32(chunk, check)
        try:
            self._file.writelines([opening, *body, check.to_bytes(4, "little")])
            self._give_back(sum(chunk.nbytes for chunk in body))
        except BaseException as error:
            self._broken = error
            raise

    def _give_back(self, written: int) -> None:
        """Let the kernel begin to write out what is due and drop the pages that are on the disk."""
        self._cached += written
        if self._cached >= _PAGES_BYTES and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._cached = 0
