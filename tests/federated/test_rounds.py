"""One round through the engine: what is refused, rejected, remembered, counted and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from rivage.core.messages import Message, encode
from rivage.core.philox import uniforms
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated import FedAvg, Notebook, Phase, Session, Trial, Update
from rivage.federated.adversaries import Huge, NotANumber, SignFlip
from rivage.federated.algorithm import Local, State
from rivage.federated.exchange import fault_of
from rivage.federated.memories import Memory, encode_memory
from rivage.federated.robust import Krum
from rivage.federated.scaffold import Scaffold
from rivage.federated.sparsifying import TopK
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=1, batch_size=4)
ENDLESS = Phase(updates=2, batch_size=3, batches="endless")
SIZES = (4, 7, 1, 12)


@dataclass(frozen=True)
class Spoiled(Clients):
    """Clients whose records are not numbers in some rounds: (client, round)."""

    spoiled: frozenset[tuple[int, int]] = frozenset()

    def client(self, id: int, round: int = 0) -> ClientData:
        data = super().client(id, round)
        if (id, round) not in self.spoiled:
            return data
        return replace(data, train=replace(data.train, y=data.train.y * np.nan))


def clients(sizes: tuple[int, ...] = SIZES, **changes: Any) -> Spoiled:
    toys = linear_clients(sizes)
    return Spoiled(toys.records, toys.schema, **changes)


def trial(population: Clients | None = None, dtype: torch.dtype = torch.float64, **changes: Any) -> Trial:
    population = population or clients()
    base = Trial(
        name="avg",
        algorithm=FedAvg(learning_rate=0.1, work=WORK),
        population=population,
        task=linear_task(population, dtype),
        rounds=3,
    )
    return replace(base, **changes)


def play(trial: Trial, notebook: Notebook) -> list[State]:
    """The server's state before the first round and after each."""
    with Session(trial, notebook) as session:
        return [session.state, *(session.state for _ in session)]


def rounds_of(notebook: Notebook) -> list[dict[str, Any]]:
    return [event for event in notebook.events if event["event"] == "round"]


def updates_of(notebook: Notebook) -> dict[tuple[int, int], Message]:
    """What clients sent, by round and client."""
    sent = [message for message in notebook.messages if message.kind == "update"]
    return {(message.round, int(message.sender.removeprefix("client:"))): message for message in sent}


def last_written(notebook: Notebook) -> dict[int, int]:
    """The clients that have a memory, and the round in which it was written last."""
    return dict(notebook.memories.shelf.rounds())


# --- what the collector refuses ------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["absent", "spoiled"])
def test_a_refused_round_leaves_the_server_says_why_and_training_goes_on(missing: str) -> None:
    population = clients((4, 7, 2, 12, 5, 3), **{missing: frozenset({(0, 1), (5, 1)})})
    notebook = Notebook()
    before, first, refused, after = play(trial(population, collector=Krum(faulty=1)), notebook)
    assert torch.equal(refused["params"], first["params"])
    assert not torch.equal(first["params"], before["params"])
    assert not torch.equal(after["params"], refused["params"])
    assert [event.get("refused") for event in rounds_of(notebook)] == [
        None,
        "4 updates where Krum with faulty = 1 needs 5",
        None,
    ]
    event = rounds_of(notebook)[1]
    assert event["lost"] == ([0, 5] if missing == "absent" else [])
    assert [entry["client"] for entry in event["rejected"]] == ([0, 5] if missing == "spoiled" else [])
    assert event["bytes_up"] > 0


# --- what clients remember -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [(), (TopK(count=1),)], ids=["plain", "feedback"])
def test_a_rejected_client_keeps_the_memory_it_had(stages: tuple[Any, ...]) -> None:
    spoiled = frozenset({(1, 1), (1, 2), (2, 0), (2, 1), (2, 2)})
    algorithm = Scaffold(learning_rate=0.1, work=ENDLESS)
    settings = {"population": clients(spoiled=spoiled), "algorithm": algorithm, "stages": stages}
    first, notebook = Notebook(), Notebook()
    play(trial(**settings, rounds=1), first)
    play(trial(**settings), notebook)
    assert [[e["client"] for e in event["rejected"]] for event in rounds_of(notebook)] == [[2], [1, 2], [1, 2]]
    early, late = ([encode_memory(m) for m in book.memories.get(range(4))] for book in (first, notebook))
    assert [one == other for one, other in zip(early, late, strict=True)] == [False, True, True, False]
    assert late[2] == encode_memory(Memory())
    assert last_written(notebook) == {0: 2, 1: 0, 3: 2}
    for memory in notebook.memories.get([0, 1, 3]):
        assert bool(torch.isfinite(memory.values["control"]).all())


def test_what_compression_held_back_is_kept_though_nothing_else_changed() -> None:
    plain, staged = Notebook(keep_messages=True), Notebook()
    (start, *_) = play(trial(rounds=1), plain)
    play(trial(rounds=1, stages=(TopK(count=1),)), staged)
    for client, memory in enumerate(staged.memories.get(range(4))):
        held_back = updates_of(plain)[0, client].payload["params"] - start["params"].numpy()
        held_back[np.abs(held_back).argmax()] = 0
        assert memory.values == {}
        np.testing.assert_allclose(memory.residuals["params"], held_back, rtol=1e-6, atol=1e-7)


@dataclass(frozen=True, kw_only=True)
class Once(FedAvg):
    """FedAvg whose clients change their memory the first time only."""

    def start(self, broadcast: State, memory: State, *rest: Any) -> Local:
        local = super().start(broadcast, memory, *rest)
        local.keep |= memory
        return local

    def finish(self, local: Local, task: Any) -> Update:
        return replace(super().finish(local, task), memory=None if local.keep else {"seen": torch.ones(1)})


@pytest.mark.parametrize(
    ("kind", "work", "stages", "written"),
    [
        (FedAvg, WORK, (), {}),
        (FedAvg, WORK, (TopK(count=1, feedback=False),), {}),
        (FedAvg, WORK, (TopK(count=1),), dict.fromkeys(range(4), 2)),
        (FedAvg, ENDLESS, (), dict.fromkeys(range(4), 2)),
        (Once, WORK, (), dict.fromkeys(range(4), 0)),
    ],
    ids=["nothing", "no feedback", "residuals", "position", "values"],
)
def test_a_memory_is_written_when_something_in_it_changed(
    kind: type[FedAvg], work: Phase, stages: tuple[Any, ...], written: dict[int, int]
) -> None:
    notebook = Notebook()
    play(trial(algorithm=kind(learning_rate=0.1, work=work), stages=stages), notebook)
    assert last_written(notebook) == written


# --- who sent what, and when ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Numbered(FedAvg):
    """Tells whose updates, of which broadcast, `aggregate` was handed."""

    needs: ClassVar[Any] = "each"
    told: ClassVar[list[Any]] = []

    def aggregate(self, state: Any, received: Any, task: Any) -> Any:
        self.told.append([(update.client, update.version) for update in received])
        return {"params": torch.stack([update.payload["params"][0] for update in received]).mean(dim=0)}


@dataclass(frozen=True, kw_only=True)
class Shared(Numbered):
    """All clients return one and the same object."""

    one: ClassVar[Update] = Update({"params": (torch.zeros(3, dtype=torch.float64), 1.0)})

    def finish(self, local: Local, task: Any) -> Update:
        return self.one


@pytest.mark.parametrize("kind", [Numbered, Shared])
def test_an_update_says_who_sent_it_and_which_broadcast_it_answers(kind: type[Numbered]) -> None:
    Numbered.told.clear()
    population = clients(absent=frozenset({(1, 1)}))
    play(trial(population, algorithm=kind(learning_rate=0.1, work=WORK)), Notebook())
    assert Numbered.told == [
        [(0, 0), (1, 0), (2, 0), (3, 0)],
        [(0, 1), (2, 1), (3, 1)],
        [(0, 2), (1, 2), (2, 2), (3, 2)],
    ]


# --- what is rejected ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Sending(FedAvg):
    """The client with 7 records sends these numbers in a second entry, the others ones."""

    numbers: tuple[float, ...] = ()

    def finish(self, local: Local, task: Any) -> Update:
        numbers = self.numbers if local.records == 7 else (1.0,) * len(self.numbers)
        extra = torch.tensor(numbers, dtype=local.params.dtype)
        return Update({"params": (local.params[0], local.weight), "extra": (extra, 1.0)})


INFINITE = float("inf")
NUMBERS = [
    (torch.float32, (1e38,) * 10, False),
    (torch.float32, (-3e38,) * 2, False),
    (torch.float32, (3e38,) * 3 + (-3e38,) * 3, False),
    (torch.float64, (1e308,) * 10, False),
    (torch.float32, (INFINITE, 0.0), True),
    (torch.float32, (INFINITE, -INFINITE), True),
    (torch.float32, (1e38,) * 9 + (-INFINITE,), True),
    (torch.float64, (0.0, float("nan")), True),
]


@pytest.mark.parametrize(("dtype", "numbers", "rejected"), NUMBERS)
def test_huge_numbers_pass_and_infinite_ones_do_not(
    dtype: torch.dtype, numbers: tuple[float, ...], rejected: bool
) -> None:
    notebook = Notebook()
    play(trial(dtype=dtype, algorithm=Sending(learning_rate=0.1, work=WORK, numbers=numbers)), notebook)
    for event in rounds_of(notebook):
        assert [entry["client"] for entry in event["rejected"]] == [1] * rejected
    fault = fault_of(Update({"extra": (torch.tensor(numbers, dtype=dtype), 1.0)}), 3, {})
    assert (fault is not None) == rejected


# --- bytes ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Mixed(FedAvg):
    """The client with 7 records sends another metric, or other numbers of the same shape, than the rest."""

    needs: ClassVar[Any] = "each"
    differs: str = "metrics"

    def finish(self, local: Local, task: Any) -> Update:
        odd = local.records == 7
        extra = torch.ones(100, dtype=torch.float16 if odd and self.differs == "dtype" else torch.float64)
        name = "a_name_that_takes_more_bytes_than_the_other" if odd and self.differs == "metrics" else "loss"
        return Update({"params": (local.params[0], local.weight), "extra": (extra, 1.0)}, {name: 1.0})

    def aggregate(self, state: Any, received: Any, task: Any) -> Any:
        return state


@pytest.mark.parametrize("differs", ["metrics", "dtype"])
def test_updates_of_one_shape_but_other_names_or_numbers_are_counted_one_by_one(differs: str) -> None:
    algorithm = Mixed(learning_rate=0.1, work=WORK, differs=differs)
    counted, logged = Notebook(), Notebook(keep_messages=True)
    play(trial(algorithm=algorithm), counted)
    play(trial(algorithm=algorithm), logged)
    sizes = {key: len(encode(message.payload)) for key, message in updates_of(logged).items()}
    assert sizes[0, 1] != sizes[0, 0] == sizes[0, 2] == sizes[0, 3]
    for number, event in enumerate(rounds_of(counted)):
        assert event["bytes_up"] == sum(size for (round, _), size in sizes.items() if round == number)
    assert counted.events == logged.events


# --- adversaries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Drawing(FedAvg):
    """Draws in its hooks, tells what, and never moves, so that every round can be compared."""

    told: ClassVar[list[Any]] = []

    def select(self, state: Any, candidates: Any, streams: Streams, task: Any) -> Any:
        self.told.append(streams.numpy("noise").standard_normal(3))
        return super().select(state, candidates, streams, task)

    def start(self, broadcast: State, memory: State, data: Any, losses: Any, streams: Streams, task: Any) -> Local:
        noise = streams.numpy("noise").standard_normal(3)
        self.told.append(noise)
        return Local((broadcast["params"] + torch.from_numpy(noise))[None])

    def aggregate(self, state: Any, received: Any, task: Any) -> Any:
        return state


DRAWING = trial(
    clients((4, 7, 2, 12, 5, 3)),
    algorithm=Drawing(learning_rate=0.1, work=Phase(batch_size=2, batches="poisson")),
    cohort=4,
    rounds=4,
)


@pytest.mark.parametrize(
    "adversary",
    [Huge(share=0.4), Huge(clients=(1, 4)), SignFlip(share=0.4), NotANumber(clients=(3,))],
    ids=["Huge", "Huge of two", "SignFlip", "NotANumber"],
)
def test_an_adversary_changes_nothing_that_others_draw(adversary: Any) -> None:
    alone, beside = Notebook(keep_messages=True), Notebook(keep_messages=True)
    Drawing.told.clear()
    play(DRAWING, alone)
    drawn = Drawing.told.copy()
    Drawing.told.clear()
    play(replace(DRAWING, adversary=adversary), beside)
    np.testing.assert_array_equal(Drawing.told, drawn)
    assert [e["cohort"] for e in rounds_of(alone)] == [e["cohort"] for e in rounds_of(beside)]
    harmful = set(np.flatnonzero(adversary.malicious(np.arange(6), DRAWING.seed)).tolist())
    honest, sent = updates_of(alone), updates_of(beside)
    assert honest.keys() == sent.keys()
    assert {client for _, client in sent} > harmful > set()
    for round, client in sent:
        assert (_bytes(sent[round, client]) == _bytes(honest[round, client])) == (client not in harmful)


def _bytes(message: Message) -> bytes:
    return encode(message.payload)


def test_what_an_adversary_draws_nobody_else_draws() -> None:
    alone, beside = Notebook(keep_messages=True), Notebook(keep_messages=True)
    play(DRAWING, alone)
    Drawing.told.clear()
    play(replace(DRAWING, adversary=Huge(share=1.0, scale=1.0)), beside)
    honest, sent = updates_of(alone), updates_of(beside)
    noise = [_params(sent[key]) - _params(honest[key]) for key in sent]
    assert len(noise) == 16
    vectors = np.array([*noise, *Drawing.told])
    apart = np.abs(vectors[:, None] - vectors[None]).max(axis=-1)
    assert apart[~np.eye(len(vectors), dtype=bool)].min() > 1e-6


def _params(message: Message) -> np.ndarray:
    return message.payload["params"]


@pytest.mark.parametrize("seed", [0, 7])
def test_who_is_malicious_is_independent_of_all_else_that_the_seed_draws(seed: int) -> None:
    ids, share = np.arange(20_000), 0.3
    malicious = Huge(share=share).malicious(ids, seed)
    keys: Mapping[str, int] = {"the seed": seed} | {name: Streams(seed).seed(name) for name in ("devices", "judged")}
    for name, key in keys.items():
        for stream in range(3):
            both = float(np.mean(malicious & (uniforms(key, ids, 0, stream)[:, 0] < share)))
            # Six standard deviations of a binomial: false alarm 2e-9 each, and the seeds are fixed.
            assert abs(both - share**2) < 6 * (share**2 / len(ids)) ** 0.5, name
