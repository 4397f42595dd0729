"""Client memories: what comes back, what is dropped, what is forgotten, whatever the cache."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.database import Database
from rivage.core.errors import ConfigError, ProtocolError, StoreError
from rivage.core.messages import LogPolicy
from rivage.federated.batches import Position
from rivage.federated.checkpoint import Files, Notebook, Snapshot
from rivage.federated.memories import Box, Memories, Memory, decode_memory, encode_memory


def memory(number: int, size: int = 3) -> Memory:
    """A memory that shows its number everywhere."""
    return Memory({"v": torch.full((size,), float(number))}, Position(number, 0), {"params": torch.tensor(-number)})


def number_of(memory: Memory) -> int:
    """The inverse of `memory`; 0 for an empty one."""
    if not memory.values:
        assert memory == Memory()
        return 0
    number = memory.position.passes
    assert bool((memory.values["v"] == number).all())
    assert int(memory.residuals["params"]) == -number
    return number


def files(folder: Path, **settings: object) -> Files:
    return Files(folder, LogPolicy("none"), {}, **settings)  # type: ignore[arg-type]


def started(folder: Path, **settings: object) -> Files:
    journal = files(folder, **settings)
    journal.resume("me")
    return journal


# --- what comes back ----------------------------------------------------------------------------------------


def test_who_has_no_memory_gets_an_empty_one_and_order_is_that_of_the_question() -> None:
    memories = Memories(Box())
    memories.put({5: memory(5), 2: memory(2)}, 0)
    assert [number_of(m) for m in memories.get([5, 9, 2, 5])] == [5, 0, 2, 5]
    assert memories.get([]) == []


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.uint8, torch.bool]
)
def test_bytes_bring_back_every_tensor(dtype: torch.dtype) -> None:
    values = {"scalar": torch.ones((), dtype=dtype), "none": torch.ones(0, 3, dtype=dtype), "a/b": torch.ones(2, 2)}
    back = decode_memory(encode_memory(Memory(values, Position(7, 2**40), {"p": values["scalar"]})), "here")
    assert back.position == Position(7, 2**40)
    assert list(back.values) == sorted(values)
    for name, value in values.items():
        assert back.values[name].dtype == value.dtype
        assert torch.equal(back.values[name], value)
    assert torch.equal(back.residuals["p"], values["scalar"])


@pytest.mark.parametrize("data", [b"", b"{}", encode_memory(memory(1))[:-1], encode_memory(Memory())[:-4] + b"????"])
def test_other_bytes_are_refused_with_their_place(data: bytes) -> None:
    with pytest.raises(StoreError, match="client 3"):
        decode_memory(data, "client 3")


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_one_normal_form_whether_cached_or_read(tmp_path: Path, cache_bytes: int) -> None:
    stack = torch.arange(12.0).reshape(3, 4)
    with started(tmp_path, cache_bytes=cache_bytes, interval=0) as journal:
        journal.memories.put({1: Memory({"row": stack[1], "column": stack.T, "a": stack.requires_grad_()})}, 0)
        journal.commit(Snapshot(1, {}))
        (kept,) = journal.memories.get([1])
    assert list(kept.values) == ["a", "column", "row"]
    for name, value in kept.values.items():
        assert value.is_contiguous(), name
        assert not value.requires_grad, name
        assert value.untyped_storage().nbytes() == value.nbytes, "a view keeps the whole stack alive"
    assert torch.equal(kept.values["row"], stack[1].detach())
    assert torch.equal(kept.values["column"], stack.T.detach())


def test_what_is_no_tensor_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r'client 4: memory "seen" is list.*Keep tensors'):
        Memories(Box()).put({4: Memory({"seen": [1]})}, 0)  # type: ignore[dict-item]


# --- the cache changes nothing ------------------------------------------------------------------------------

# One step: (what, clients). A model of a few lines says what must come back.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "commit", "force", "resume"]), st.sets(st.integers(0, 6), min_size=1, max_size=3)
    ),
    max_size=30,
)


class Model:
    """The plain dictionary that everything else must equal."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.forgotten = limit, 0
        self.now: dict[int, tuple[int, int]] = {}
        self.committed: tuple[dict[int, tuple[int, int]], int] = ({}, 0)

    def put(self, clients: set[int], round: int, number: int) -> None:
        self.now |= dict.fromkeys(clients, (round, number))
        while self.limit is not None and len(self.now) > self.limit:
            del self.now[min(self.now, key=lambda client: (self.now[client][0], client))]
            self.forgotten += 1

    def commit(self) -> None:
        self.committed = dict(self.now), self.forgotten

    def resume(self) -> None:
        self.now, self.forgotten = dict(self.committed[0]), self.committed[1]


def play(journal: Files | Notebook, reopen: Callable[[], Files | Notebook], steps: list[tuple[str, set[int]]]) -> None:
    """Compare a journal with the model, step by step."""
    limit = journal.limit if isinstance(journal, Notebook) else journal._limit
    model, round = Model(limit), 0
    for count, (what, clients) in enumerate(steps, 1):
        if what == "put":
            before = model.forgotten
            model.put(clients, round, count)
            forgotten = journal.memories.put({client: memory(count) for client in clients}, round)
            assert forgotten == model.forgotten - before
        elif what == "get":
            got = [number_of(m) for m in journal.memories.get(list(clients))]
            assert got == [model.now.get(client, (0, 0))[1] for client in clients]
        elif what in ("commit", "force"):
            round += 1
            model.commit()
            journal.commit(Snapshot(round, {}), force=what == "force")
        else:
            model.resume()
            journal = reopen()
            snapshot = journal.resume("me")
            round = snapshot.rounds if snapshot else 0
        assert journal.memories.forgotten == model.forgotten
    everyone = [number_of(m) for m in journal.memories.get(range(7))]
    assert everyone == [model.now.get(client, (0, 0))[1] for client in range(7)]
    if isinstance(journal, Files):
        journal.__exit__(None, None, None)


@pytest.mark.parametrize("limit", [None, 1, 4])
@given(steps=STEPS)
def test_a_notebook_is_a_dictionary(limit: int | None, steps: list[tuple[str, set[int]]]) -> None:
    notebook = Notebook(limit=limit)
    notebook.resume("me")
    play(notebook, lambda: notebook, steps)


@pytest.mark.parametrize("limit", [None, 1, 4])
@pytest.mark.parametrize("cache_bytes", [0, 4_000, 1 << 20])
@given(steps=STEPS)
@settings(max_examples=25, deadline=None)
def test_files_are_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, limit: int | None, cache_bytes: int, steps: list[tuple[str, set[int]]]
) -> None:
    folder = tmp_path_factory.mktemp("trial")
    journals = [started(folder, limit=limit, cache_bytes=cache_bytes, interval=1e9)]

    def reopen() -> Files:
        journals[-1].__exit__(KeyboardInterrupt, None, None)
        journals.append(files(folder, limit=limit, cache_bytes=cache_bytes, interval=1e9))
        return journals[-1]

    play(journals[0], reopen, steps)


# --- forgetting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["notebook", "files"])
def test_who_took_part_longest_ago_is_forgotten_first_then_the_smallest_id(tmp_path: Path, kind: str) -> None:
    journal = Notebook(limit=3) if kind == "notebook" else started(tmp_path, limit=3)
    journal.resume("me")
    memories = journal.memories
    assert memories.put({9: memory(1), 3: memory(1), 5: memory(1)}, 0) == 0
    assert memories.put({3: memory(2)}, 1) == 0
    assert memories.put({4: memory(3)}, 2) == 1  # 5 and 9 have waited since round 0
    assert [number_of(m) for m in memories.get([3, 4, 5, 9])] == [2, 3, 0, 1]
    assert memories.put({5: memory(4), 6: memory(4)}, 3) == 2  # back, anew
    assert [number_of(m) for m in memories.get([3, 4, 5, 6, 9])] == [0, 3, 4, 4, 0]
    assert memories.forgotten == 3


def test_a_forgotten_client_is_not_found_in_the_cache(tmp_path: Path) -> None:
    with started(tmp_path, limit=1) as journal:
        for round, client in enumerate((4, 7, 4)):
            journal.memories.put({client: memory(round + 1)}, round)
            assert [number_of(m) for m in journal.memories.get([4, 7])] == [
                (client == 4) * (round + 1),
                2 * (round == 1),
            ]
            journal.commit(Snapshot(round + 1, {}), force=True)
            assert [number_of(m) for m in journal.memories.get([4, 7])] == [
                (client == 4) * (round + 1),
                2 * (round == 1),
            ]


def test_a_cohort_larger_than_the_limit_keeps_the_largest_ids() -> None:
    memories = Memories(Box(), limit=2)
    assert memories.put({client: memory(1) for client in range(5)}, 0) == 3
    assert [number_of(m) for m in memories.get(range(5))] == [0, 0, 0, 1, 1]


def test_the_store_does_not_outgrow_its_limit(tmp_path: Path) -> None:
    with started(tmp_path, limit=10, cache_bytes=0, interval=0) as journal:
        for round in range(20):
            journal.memories.put({7 * round + i: memory(1, 1000) for i in range(7)}, round)
            journal.commit(Snapshot(round + 1, {}))
        path = journal._drawer.path
    database = Database(path)
    assert sorted(dict(database.rounds())) == list(range(130, 140))
    database.close()
    assert path.stat().st_size < 200_000
    with files(tmp_path, limit=10) as journal:
        journal.resume("me")
        assert journal.memories.forgotten == 130


@pytest.mark.parametrize("settings", [{"limit": 0}, {"cache_bytes": -1}, {"limit": -3}])
def test_bounds_that_hold_nothing_are_refused(settings: Mapping[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Memories(Box(), **settings)


# --- memory is bounded --------------------------------------------------------------------------------------


def resident() -> int:
    """Peak resident bytes of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_what_is_held_does_not_grow_with_the_participants(tmp_path: Path) -> None:
    cache, size = 4 << 20, 10_000  # 2000 clients of 40 kB: 80 MB in all
    with started(tmp_path, cache_bytes=cache, interval=1e9) as journal:
        start = 0
        for round in range(100):
            ids = range(20 * round, 20 * round + 20)
            journal.memories.put({client: memory(client + 1, size) for client in ids}, round)
            journal.commit(Snapshot(round + 1, {}))
            assert journal.memories.cached_bytes <= cache + 20 * 42_000
            start = start or resident()
        assert resident() - start < 4 * cache
        assert 0 < journal.memories.cached < 110
        assert [number_of(m) for m in journal.memories.get([0, 1000, 1999])] == [1, 1001, 2000]
        everyone = [number_of(m) for ids in range(0, 2000, 50) for m in journal.memories.get(range(ids, ids + 50))]
        assert everyone == list(range(1, 2001))
        assert resident() - start < 4 * cache


def test_the_least_recently_used_are_dropped_first(tmp_path: Path) -> None:
    with started(tmp_path, cache_bytes=3 * memory(1, 1000).nbytes, interval=0) as journal:
        memories = journal.memories
        memories.put({client: memory(1, 1000) for client in range(3)}, 0)
        journal.commit(Snapshot(1, {}))
        memories.get([0])
        memories.put({3: memory(1, 1000)}, 1)
        journal.commit(Snapshot(2, {}))
        assert set(memories._cache.entries) == {0, 2, 3}


def test_the_estimate_of_bytes_is_near_what_python_takes() -> None:
    tracemalloc.start()
    kept = [memory(number, 1) for number in range(1000)]
    measured = tracemalloc.get_traced_memory()[0]  # tensors' own numbers are not seen by it
    tracemalloc.stop()
    assert measured < sum(m.nbytes for m in kept) < 6 * measured
