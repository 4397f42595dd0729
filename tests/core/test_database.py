"""The SQLite file: round trips, all or nothing, damage and disk faults told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.database import Database
from rivage.core.errors import StoreError


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(tmp_path / "a b?c.sqlite")) as database:
        yield database


def test_a_new_one_is_empty(database: Database) -> None:
    assert database.document() == []
    assert list(database.records(range(2000))) == []
    assert list(database.rounds()) == []


@given(
    parts=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    records=st.dictionaries(st.integers(0, 2**63 - 1), st.tuples(st.integers(0, 2**40), st.binary(max_size=9000))),
)
def test_everything_comes_back(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], records: dict[int, tuple[int, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("folder") / "x.sqlite"
    rows = [(number, *records[number]) for number in sorted(records)]
    with closing(Database(path)) as database, database.transaction():
        database.write_document([b"old", b"older", *parts])
        database.write_document(parts)
        database.write_records((number, 0, b"old") for number in records)
        database.write_records(rows)
    with closing(Database(path)) as database:
        assert database.document() == parts
        assert list(database.records(sorted(records))) == rows
        assert sorted(database.rounds()) == [(number, round) for number, round, _ in rows]


def test_a_transaction_that_fails_leaves_what_was_there(database: Database) -> None:
    with database.transaction():
        database.write_document([b"one"])
        database.write_records([(1, 0, b"a"), (2, 0, b"b")])
    with pytest.raises(KeyboardInterrupt):
        _interrupted(database)
    assert database.document() == [b"one"]
    assert list(database.records([1, 2, 3])) == [(1, 0, b"a"), (2, 0, b"b")]
    with database.transaction():
        database.drop_records([1, 7])
    assert list(database.records([1, 2])) == [(2, 0, b"b")]


def _interrupted(database: Database) -> None:
    with database.transaction():
        database.write_document([b"two"])
        database.write_records([(2, 1, b"B"), (3, 1, b"c")])
        database.drop_records([1])
        raise KeyboardInterrupt


def test_a_full_disk_is_told_and_loses_nothing(database: Database) -> None:
    with database.transaction():
        database.write_document([b"one"])
    pages = database._pragma("page_count")
    database._pragma(f"max_page_count = {pages}")  # SQLite then says what a full disk says
    with pytest.raises(StoreError, match=r"full.*free space"), database.transaction():
        database.write_document([bytes(100_000)])
    assert database.document() == [b"one"]


def test_databases_of_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE document (part INTEGER PRIMARY KEY)")
    with pytest.raises(StoreError, match=r"other\.sqlite: is not a database of this version"):
        Database(path)


def test_a_second_opening_is_refused_and_a_later_one_is_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rivage.core.database._WAIT_S", 0.0)
    with pytest.raises(StoreError, match="open in another process"):
        Database(database.path)
    database.close()
    Database(database.path).close()
