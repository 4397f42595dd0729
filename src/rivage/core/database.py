"""One SQLite file: a document, and records by number, changed together or not at all.

The document is a short list of byte strings that are always read and written whole. Records are many, each with a
number, the round in which it was last written, and its bytes; a batch of them is read or written in ascending order.

A transaction that is interrupted at any instant, even by the death of the process, leaves what was there before it.
Every byte string is kept with a checksum, which SQLite does not do; the structure of the file is checked when it is
opened. One process has the file at a time. An open database must not be carried into a forked process.

References:
    Write-ahead logging, https://sqlite.org/wal.html: ``<name>-wal`` lies beside the file while it is open, and after
    the death of a process. It belongs to the file.
"""

from __future__ import annotations

import sqlite3
import struct
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

from rivage.core.encoding import RESTORE
from rivage.core.errors import StoreError
from rivage.core.store import write_bytes

__all__ = ["Database"]

_APPLICATION, _FORMAT = 0x52564731, 1  # "RVG1"
_PAGE_BYTES = 16 << 10  # records are mostly models: with 4 KiB they take twice as long, small ones a third less
_SCHEMA = f"""
PRAGMA page_size = {_PAGE_BYTES};
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_FORMAT};
PRAGMA journal_mode = WAL;
CREATE TABLE document (part INTEGER PRIMARY KEY, blob BLOB NOT NULL, crc INTEGER NOT NULL);
CREATE TABLE records (id INTEGER PRIMARY KEY, round INTEGER NOT NULL, blob BLOB NOT NULL, crc INTEGER NOT NULL);
"""
_PART_BYTES = 256 << 20  # SQLite holds no blob above 10^9 bytes
_BATCH = 500  # numbers per query; old SQLite takes 999
_WAIT_S = 5.0  # for the lock of a process that is just ending
_KEY = struct.Struct("<qq")
_ELSEWHERE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_SYSTEM = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}

Record = tuple[int, int, bytes]
"""Number (0 <= number < 2**63), round, bytes."""


class Database:
    """An open file.

    Args:
        path: the file; made, empty, if missing. Its folder must be there.

    Raises:
        StoreError: if the file is no database of ours, is damaged, or is open in another process.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            # Never a half-made file under this name: an empty one could not be told from a damaged one.
            write_bytes(self.path, _empty())
        with self._explained():
            self._connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None)
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        with self._explained():
            self._pragma("locking_mode = EXCLUSIVE")  # before anything is read: then no shared memory is needed
            kind = self._pragma("application_id"), self._pragma("user_version")
            if kind != (_APPLICATION, _FORMAT):
                raise self._damage("is not a database of this version")
            self._pragma("journal_mode = WAL")
            self._pragma("synchronous = NORMAL")
            with self.transaction():  # takes the lock, now and for good
                verdict = self._pragma("quick_check(1)")
        if verdict != "ok":
            raise self._damage(f"is damaged ({verdict})")

    def _pragma(self, text: str) -> object:
        row = self._connection.execute(f"PRAGMA {text}").fetchone()
        return None if row is None else row[0]

    # --- transactions ---------------------------------------------------------------------------------------

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside the block happens, or nothing of it.

        Raises:
            StoreError: if the disk is full or cannot be written to.
        """
        with self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # some failures have ended it already
                    self._connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Fold ``<name>-wal`` into the file and close it."""
        with self._explained():
            self._connection.close()

    # --- the document ---------------------------------------------------------------------------------------

    def document(self) -> list[bytes]:
        """Its parts; none before the first `write_document`.

        Raises:
            StoreError: if it is not what was written.
        """
        with self._explained():
            rows = self._connection.execute("SELECT part, blob, crc FROM document ORDER BY part").fetchall()
        parts: dict[int, list[bytes]] = {}
        for number, data, check in rows:
            self._require(data, check, number, 0)
            parts.setdefault(number >> 32, []).append(data)
        return [b"".join(pieces) if len(pieces) > 1 else pieces[0] for pieces in parts.values()]

    def write_document(self, parts: Iterable[bytes | memoryview]) -> None:
        """Replace it; inside a `transaction`."""
        self._connection.execute("DELETE FROM document")
        for part, data in enumerate(parts):
            for piece in range(max(1, -(-len(data) // _PART_BYTES))):
                number = (part << 32) + piece
                bytes_ = memoryview(data)[piece * _PART_BYTES : (piece + 1) * _PART_BYTES]
                self._connection.execute(
                    "INSERT INTO document VALUES (?, ?, ?)", (number, bytes_, _check(bytes_, number, 0))
                )

    # --- records --------------------------------------------------------------------------------------------

    def records(self, numbers: Sequence[int]) -> Iterator[Record]:
        """Those of these records that are there, one in memory at a time.

        Args:
            numbers: distinct, best ascending.

        Raises:
            StoreError: if one is not what was written.
        """
        for start in range(0, len(numbers), _BATCH):
            batch = tuple(numbers[start : start + _BATCH])
            marks = ",".join("?" * len(batch))
            with self._explained():
                found = self._connection.execute(
                    f"SELECT id, round, blob, crc FROM records WHERE id IN ({marks}) ORDER BY id", batch
                )
                for number, round, data, check in found:
                    self._require(data, check, number, round)
                    yield number, round, data

    def rounds(self) -> Iterator[tuple[int, int]]:
        """(number, round) of every record, in no particular order."""
        with self._explained():
            yield from self._connection.execute("SELECT id, round FROM records")

    def write_records(self, records: Iterable[Record]) -> None:
        """Add or replace records, best in ascending order; inside a `transaction`."""
        rows = ((number, round, data, _check(data, number, round)) for number, round, data in records)
        self._connection.executemany("REPLACE INTO records VALUES (?, ?, ?, ?)", rows)

    def drop_records(self, numbers: Iterable[int]) -> None:
        """Delete records, best in ascending order; inside a `transaction`."""
        self._connection.executemany("DELETE FROM records WHERE id = ?", ((number,) for number in numbers))

    # --- what goes wrong ------------------------------------------------------------------------------------

    def _require(self, data: object, check: object, number: object, round: object) -> None:
        numbers = isinstance(number, int) and isinstance(round, int)
        if not (numbers and isinstance(data, bytes) and check == _check(data, int(number), int(round))):  # type: ignore[call-overload]
            raise self._damage("has changed since it was written: a checksum differs")

    def _damage(self, what: str) -> StoreError:
        return StoreError(what, where=str(self.path), mend=RESTORE)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What SQLite reports becomes a `StoreError`."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", None)
            if code is None:  # a mistake of ours in using the module
                raise
            if code & 0xFF in _ELSEWHERE:
                what, mend = "is open in another process", "Wait until that ends, or stop it."
            elif code & 0xFF in _SYSTEM:
                what, mend = f"cannot be read or written ({error})", "Check its folder's permissions and free space."
            else:
                what, mend = f"is damaged, or no database ({error})", RESTORE
            raise StoreError(what, where=str(self.path), mend=mend) from error


def _check(data: bytes | memoryview, number: int, round: int) -> int:
    return crc32(data, crc32(_KEY.pack(number, round)))


def _empty() -> bytes:
    """The bytes of a database with nothing in it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.executescript(_SCHEMA)
        finally:
            connection.close()
        return path.read_bytes()
