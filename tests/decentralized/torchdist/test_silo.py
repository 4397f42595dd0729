"""The loop of one silo, in threads: equal to the simulation for every algorithm and plan, also when resumed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, ProtocolError, RivageError
from rivage.core.messages import LogPolicy
from rivage.decentralized import Overlay, Silos, matcha_law
from rivage.decentralized.dfedem import DFedEM
from rivage.decentralized.dpsgd import DPASGD, DPSGD
from rivage.decentralized.exact_diffusion import ExactDiffusion
from rivage.decentralized.gossip import GossipAlgorithm
from rivage.decentralized.gradient_tracking import GradientTracking, PushDIGing
from rivage.decentralized.mixing_plan import Cycled, Drawn, Exact, MixingPlan, arcs_of, fixed
from rivage.decentralized.pace import Pace
from rivage.decentralized.push_sum import PushSum
from rivage.decentralized.session import SiloSession
from rivage.decentralized.silo_trial import SiloTrial
from rivage.decentralized.torchdist.board import Board
from rivage.decentralized.torchdist.company import Company
from rivage.decentralized.torchdist.judging import require_local_metric
from rivage.decentralized.torchdist.mixer import legs_of
from rivage.decentralized.torchdist.silo import Silo
from rivage.decentralized.torchdist.transport import Transport
from rivage.federated.algorithm import Phase
from rivage.federated.checkpoint import Files, Notebook, Snapshot
from rivage.federated.engine import Outcome
from rivage.federated.executors.executor import Executor
from rivage.graphs import Connectivity
from rivage.learning.task import Task
from rivage.testing.toys import linear_clients, linear_task

Together = Callable[..., list[Any]]
CLIENTS = linear_clients((9, 7, 12, 6), 3, seed=3)
APART = Connectivity(names=tuple("abcd"), latency_ms=10 * (1 - np.eye(4)), available_bps=np.full((4, 4), 1e6))
SILOS = Silos.of(APART, model_bits=1e4, step_ms=[3, 4, 5, 6])
RING = fixed(Overlay.ring(SILOS, [0, 2, 1, 3]))
PATH = fixed(Overlay.links(SILOS, [(0, 1), (1, 3), (3, 2)]))
CHORD = fixed(Overlay.of(SILOS, [(0, 2), (2, 1), (1, 3), (3, 0), (1, 0)]), column=True)
STAR = Exact(silos=4, hub=2)
DRAWN = Drawn(law=matcha_law(SILOS, None, budget=0.5), seed=5)
ONE_PEER = Cycled(matrices=[0.5 * (np.eye(4) + np.roll(np.eye(4), shift, 0)) for shift in (1, 2)])
ENDLESS = Phase(updates=3, batch_size=4, batches="endless")


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads share torch's generator and what traces a model; the processes of real silos do not."""
    lock = threading.Lock()

    def locked(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*words: Any, **named: Any) -> Any:
            with lock:
                return function(*words, **named)

        return run

    monkeypatch.setattr(Task, "initial", locked(Task.initial))
    monkeypatch.setattr(Executor, "__init__", locked(Executor.__init__))


METHODS: dict[str, tuple[GossipAlgorithm, MixingPlan]] = {
    "combine": (DPSGD(batch_size=3), PATH),
    "adapt": (DPSGD(batch_size=3, order="adapt_then_combine"), RING),
    "local steps": (DPASGD(learning_rate=0.05, work=ENDLESS), ONE_PEER),
    "star": (DPASGD(learning_rate=0.05, work=ENDLESS), STAR),
    "drawn": (DPASGD(learning_rate=0.05, work=Phase(epochs=2, batch_size=4)), DRAWN),
    "tracking": (GradientTracking(learning_rate=0.05, batch_size=4), RING),
    "push_diging": (PushDIGing(learning_rate=0.05, batch_size=4), CHORD),
    "exact": (ExactDiffusion(batch_size=4), PATH),
    "by records": (DPSGD(batch_size=3, count_by="records"), RING),
    "push": (PushSum(learning_rate=0.05, work=Phase(batch_size=5)), CHORD),
    "mixed": (DFedEM(learning_rate=0.05, work=ENDLESS), PATH),
    "mixed star": (DFedEM(learning_rate=0.05, components=2, count_by="records"), STAR),
    "mixed drawn": (DFedEM(learning_rate=0.05, work=Phase(epochs=2, batch_size=4)), DRAWN),
}
MIXED = [name for name in METHODS if name.startswith("mixed")]


def trial(name: str, **changes: Any) -> SiloTrial:
    algorithm, plan = METHODS[name]
    given = {"name": name, "population": CLIENTS, "rounds": 5, "every": 2, "task": linear_task(CLIENTS)}
    return SiloTrial(algorithm=algorithm, plan=plan, clock=Pace(silos=SILOS, plan=plan), **{**given, **changes})


def real(
    playing: SiloTrial,
    together: Together,
    journals: list[Any],
    observe: Callable[[Any], None] = lambda event: None,
    **settings: Any,
) -> list[Any]:
    """What each silo ends with: its `Outcome` and last state, or its error."""

    def act(rank: int, group: Any, store: Any, watch: Any) -> tuple[Outcome | None, Any]:
        company = Company(rank=rank, names=tuple("abcd"), watch=watch, board=Board(store, watch), group=group)
        try:
            silo = Silo(playing, company, journals[rank], observe)
            result = silo.run()
        except ProtocolError as error:
            watch.accuse(rank, f"stopped: {error.what}")
            raise
        company.part()
        return result, silo.state

    return together(4, act, interval=0.1, **settings)


def simulated(playing: SiloTrial) -> tuple[SiloSession, Notebook, Outcome]:
    notebook = Notebook()
    with SiloSession(playing, notebook) as session:
        for _ in session:
            pass
        return session, notebook, session.outcome()


def close(one: Any, other: Any) -> bool:
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return bool(abs(one - other) <= 1e-12 * max(1, abs(one)) if isinstance(one, float) else one == other)


def assert_same(playing: SiloTrial, results: list[Any], notebook: Notebook) -> None:
    session, expected, outcome = simulated(playing)
    for rank, (_, state) in enumerate(results):
        assert state.keys() == session.state.keys()
        for name, values in state.items():
            torch.testing.assert_close(values[0], session.state[name][rank], rtol=0, atol=1e-12)
    judged = {round for round in range(5) if (round + 1) % 2 == 0 or round == 4}
    for here, there in zip(expected.events, notebook.events, strict=True):
        if here["event"] == "round" and here["round"] not in judged:
            assert there["consensus"] is None
            here = {**here, "consensus": None}
        if here.get("group") in ("seen", "average"):
            here.pop("mix", None)  # known to each silo alone
        assert here.keys() == there.keys()
        assert all(close(value, there[name]) for name, value in here.items()), (here, there)
    kept = {} if playing.name in MIXED else outcome.seen.predictors
    assert results[0][0].seen.predictors.keys() == kept.keys()
    assert not results[0][0].seen.dropped


@pytest.mark.parametrize("name", METHODS)
def test_silos_apart_are_the_silos_of_the_simulation(name: str, together: Together) -> None:
    journals = [Notebook() for _ in range(4)]
    assert_same(trial(name), real(trial(name), together, journals), journals[0])
    assert not any(journal.events for journal in journals[1:])  # silo 0 keeps the record


@pytest.mark.parametrize("name", MIXED)
def test_shares_are_told_to_nobody(name: str, together: Together, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the board nor over the arcs nor to whom collects models: what is posted and sent, number by number."""
    told: list[str] = []
    sent: list[torch.Tensor] = []
    post, exchange = Board.post, Transport.exchange

    def posted(self: Board, name: str, value: Any) -> None:
        told.append(dumps(value))
        post(self, name, value)

    def exchanged(self: Transport, leg: int, vector: torch.Tensor) -> Any:
        sent.append(vector.clone().flatten())
        return exchange(self, leg, vector)

    monkeypatch.setattr(Board, "post", posted)
    monkeypatch.setattr(Transport, "exchange", exchanged)
    playing = trial(name, unseen=np.array([4]), population=linear_clients((9, 7, 12, 6, 5), 3, seed=3))
    results = real(playing, together, [Notebook() for _ in range(4)])
    assert told
    assert sent
    everything = torch.cat(sent)
    for _, state in results:
        for share in state["shares"].flatten().tolist():
            assert not any(repr(share)[:10] in text for text in told)
            assert float((everything - share).abs().min()) > 1e-12


def test_judged_in_every_round_it_is_the_same_record(together: Together) -> None:
    """Byte for byte where sums have two terms, which are the same in any order."""
    playing = trial("adapt", every=1)
    journals = [Notebook() for _ in range(4)]
    real(playing, together, journals)
    assert journals[0].events == simulated(playing)[1].events


class Fails(Notebook):
    """A journal that breaks when it is to keep some round, or just after; its record ends with its checkpoint."""

    def __init__(self, round: int, *, after: bool = False) -> None:
        super().__init__()
        self.round, self.after, self.kept = round, after, 0

    def resume(self, identity: str) -> Snapshot | None:
        del self.events[self.kept :]
        return super().resume(identity)

    def commit(self, snapshot: Snapshot, *, force: bool = False) -> None:
        failing = snapshot.rounds == self.round
        if not failing or self.after:
            super().commit(snapshot, force=force)
            self.kept = len(self.events)
        if failing:
            self.round = -1
            raise ProtocolError("the disk is gone")


@pytest.mark.parametrize("name", ["star", "tracking", "push", "mixed"])
@pytest.mark.parametrize(("broken", "after"), [(0, False), (0, True), (2, False), (2, True)])
def test_from_whatever_checkpoints_there_are_the_last_common_one_is_taken(
    name: str, broken: int, after: bool, together: Together
) -> None:
    """One silo fails at the checkpoint of round 4: some have that of round 4 and some only that of round 2."""
    journals: list[Any] = [Fails(-1) for _ in range(4)]
    journals[broken] = Fails(4, after=after)
    errors = real(trial(name), together, journals)
    assert {error.what for error in errors} >= {f'silo "s{broken}" stopped: the disk is gone'}
    have = [journal.snapshot.rounds for journal in journals]
    assert have[0] == (4 if (broken, after) == (0, True) else 2)
    assert_same(trial(name), real(trial(name), together, journals), journals[0])


def test_a_silo_that_has_lost_its_checkpoint_is_told(together: Together) -> None:
    journals: list[Any] = [Notebook() for _ in range(4)]
    real(trial("adapt"), together, journals)
    journals[3] = Notebook()
    errors = real(trial("adapt"), together, journals, silence=1.0)
    assert isinstance(errors[3], ConfigError)
    assert "there is no checkpoint of round 5, which silo 0 goes on from" in str(errors[3])


def test_other_data_are_refused(together: Together) -> None:
    usual, others = trial("adapt"), trial("adapt", seed=1)

    def act(rank: int, group: Any, store: Any, watch: Any) -> None:
        company = Company(rank=rank, names=tuple("abcd"), watch=watch, board=Board(store, watch), group=group)
        Silo(others if rank == 3 else usual, company, Notebook())

    errors = together(4, act, interval=0.1, silence=1.0)
    assert isinstance(errors[3], ConfigError)
    assert "settings or data differ from those of silo 0" in errors[3].what


def test_the_checkpoint_of_a_simulation_is_refused(together: Together, tmp_path: Path) -> None:
    playing = trial("adapt")
    with Files(tmp_path, LogPolicy("none"), {}, interval=0) as journal, SiloSession(playing, journal) as session:
        next(iter(session))

    def act(rank: int, group: Any, store: Any, watch: Any) -> None:
        company = Company(rank=rank, names=("a", "b", "c", "d"), watch=watch, board=Board(store, watch), group=group)
        try:
            if rank == 0:
                with Files(tmp_path, LogPolicy("none"), {}) as again:
                    Silo(playing, company, again)
            Silo(playing, company, Notebook())
        except RivageError as error:
            watch.accuse(rank, error.what)
            raise

    errors = together(4, act, interval=0.1)
    assert isinstance(errors[0], ConfigError)
    assert "the checkpoint belongs to other settings" in errors[0].what


def test_pooled_metrics_are_refused() -> None:
    task = linear_task(CLIENTS)
    task.metric = replace(task.metric, kind="pooled")
    with pytest.raises(ConfigError, match="which they keep"):
        require_local_metric(trial("adapt", task=task))


@pytest.mark.parametrize("name", METHODS)
def test_legs_are_the_arcs_of_the_weights(name: str) -> None:
    """Nothing is sent without a weight, and nothing has a weight without being sent."""
    plan = METHODS[name][1]
    for round in range(4):
        if plan.hub is None:
            assert sorted(legs_of(plan, round)) == sorted(map(tuple, arcs_of(plan.weights(round)).tolist()))
        else:
            assert sorted(legs_of(plan, 2 * round)) == [(0, 2), (1, 2), (3, 2)]
            assert sorted(legs_of(plan, 2 * round + 1)) == [(2, 0), (2, 1), (2, 3)]


def test_observers_hear_of_what_is_kept(together: Together) -> None:
    """One that ends the run, as Ctrl-C does, costs nothing: what it has heard of is in the checkpoint."""
    playing, journals = trial("adapt", rounds=2), [Fails(-1) for _ in range(4)]
    heard: list[Any] = []

    def stop(event: Any) -> None:
        heard.append(event["event"])
        if event["event"] == "round":
            raise ProtocolError("interrupted")

    errors = real(playing, together, journals, observe=stop)
    assert {error.what for error in errors[1:]} == {'silo "s0" stopped: interrupted'}
    assert heard == ["start", "setup", "round"]
    assert [journal.snapshot.rounds for journal in journals if journal.snapshot is not None] == [2] * 4
    real(playing, together, journals)
    assert journals[0].events[-1]["round"] == 2
    assert len(journals[0].events) == len(simulated(playing)[1].events)
