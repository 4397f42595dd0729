from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rivage.core.errors import ConfigError, ProtocolError
from rivage.core.messages import Message, encode
from rivage.core.seeding import Streams
from rivage.federated import FedAvg, FineTuned, Guarded, Notebook, Phase, Trial, Update, run
from rivage.federated import Local as LocalMethod
from rivage.federated.algorithm import Cohort, Local, LocalWork, Mean
from rivage.federated.exchange import fault_of, roster
from rivage.learning.losses import SQUARED
from rivage.learning.metrics import MAE
from rivage.learning.task import Task
from rivage.testing.toys import Clients, linear_clients, linear_task

WORK = Phase(epochs=1, batch_size=4)


def trial(**changes: Any) -> Trial:
    population = linear_clients()
    base = Trial(
        name="avg",
        algorithm=FedAvg(learning_rate=0.1, work=WORK),
        population=population,
        task=linear_task(population),
        rounds=6,
        cohort=2,
        every=3,
    )
    return replace(base, **changes)


def rounds_of(notebook: Notebook) -> list[dict[str, Any]]:
    return [event for event in notebook.events if event["event"] == "round"]


def test_a_round_stops_and_goes_on_bit_for_bit() -> None:
    whole = run(trial()).state["params"]
    notebook = Notebook()
    run(trial(rounds=2), notebook)
    resumed = run(trial(), notebook)
    assert torch.equal(resumed.state["params"], whole)


def test_remaining_cohorts_do_not_depend_on_the_interruption() -> None:  # F5
    whole, first, second = Notebook(), Notebook(), Notebook()
    run(trial(), whole)
    run(trial(rounds=3), first)
    second.snapshot = first.snapshot
    run(trial(), second)
    assert [e["cohort"] for e in rounds_of(whole)][3:] == [e["cohort"] for e in rounds_of(second)]


def test_the_same_seed_gives_the_same_record_and_another_does_not() -> None:
    a, b, c = Notebook(), Notebook(), Notebook()
    run(trial(seed=1), a)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002 - the global generators must not matter
    run(trial(seed=1), b)
    run(trial(seed=2), c)
    assert a.events == b.events
    assert a.events != c.events


def test_bytes_are_those_of_the_serialised_messages() -> None:
    notebook = Notebook(keep_messages=True)
    run(trial(), notebook)
    for direction, key in (("server", "bytes_up"), ("client", "bytes_down")):
        counted = sum(len(encode(m.payload)) for m in notebook.messages if m.receiver.startswith(direction))
        assert counted == sum(event[key] for event in rounds_of(notebook)) > 0


def test_a_client_lost_on_the_way_is_told_but_not_averaged() -> None:
    population = linear_clients()
    lost = replace(population, absent=frozenset((2, r) for r in range(6)))
    notebook = Notebook()
    outcome = run(trial(population=lost, cohort=None), notebook)
    assert all(event["lost"] == [2] for event in rounds_of(notebook))
    without = Clients(tuple(r for i, r in enumerate(population.records) if i != 2), population.schema)
    assert rounds_of(notebook)[0]["bytes_down"] > rounds_of(notebook)[0]["bytes_up"] * 0
    # full batches make the result independent of client numbers
    full = FedAvg(learning_rate=0.1, work=Phase(batch_size=None))
    a = run(trial(population=lost, cohort=None, algorithm=full)).state["params"]
    b = run(trial(population=without, cohort=None, algorithm=full)).state["params"]
    torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert outcome.seen.columns["clients"] == [0, 1, 2, 3]


def test_a_round_that_loses_everyone_leaves_the_model_and_counts() -> None:
    population = linear_clients()
    gone = replace(population, absent=frozenset((c, 0) for c in range(4)))
    notebook = Notebook()
    start = run(trial(rounds=0)).state["params"]
    assert torch.equal(run(trial(population=gone, rounds=1, cohort=None), notebook).state["params"], start)
    assert len(rounds_of(notebook)) == 1


@dataclass(frozen=True, kw_only=True)
class Poisoned(FedAvg):
    """FedAvg in which one client sends not-a-number."""

    bad: int = 1

    def finish(self, local: Local, task: Any) -> Update:
        value = local.params[0]
        return Update({"params": (value * float("nan") if local.records == self.bad else value, local.weight)})


def test_an_update_that_is_not_finite_is_rejected_named_and_left_out() -> None:
    notebook = Notebook()
    algorithm = Poisoned(learning_rate=0.1, work=WORK, bad=7)
    outcome = run(trial(algorithm=algorithm, cohort=None), notebook)
    assert [event["rejected"][0]["client"] for event in rounds_of(notebook)] == [1] * 6
    assert "norm nan" in rounds_of(notebook)[0]["rejected"][0]["reason"]
    assert torch.isfinite(outcome.state["params"]).all()


def test_what_is_no_algorithm_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigError, match="Guarded cannot be played by itself"):
        trial(algorithm=Guarded())


def test_one_bad_client_alone_in_its_round_stops_nothing() -> None:
    notebook = Notebook()
    run(trial(algorithm=Poisoned(learning_rate=0.1, work=WORK, bad=7), cohort=1), notebook)
    alone = [event for event in rounds_of(notebook) if event["cohort"] == [1]]
    assert alone
    assert all(event["rejected"] for event in alone)
    assert len(rounds_of(notebook)) == 6


def test_a_run_in_which_nothing_is_usable_says_which_client_and_how_to_mend() -> None:
    with pytest.raises(ProtocolError, match=r'method "avg".*client.*norm.*learning_rate'):
        run(trial(algorithm=FedAvg(learning_rate=1e200, work=WORK), cohort=None))


def test_unseen_clients_never_train_and_are_judged_apart() -> None:
    notebook = Notebook()
    outcome = run(trial(unseen=np.array([1]), cohort=None), notebook)
    assert all(1 not in event["cohort"] for event in rounds_of(notebook))
    assert outcome.unseen is not None
    assert outcome.unseen.columns["clients"] == [1]
    assert outcome.seen.columns["clients"] == [0, 2, 3]


def test_the_end_is_evaluated_once_and_the_middle_as_asked() -> None:
    notebook = Notebook()
    run(trial(rounds=7), notebook)
    evaluated = [event["round"] for event in notebook.events if event["event"] == "evaluation"]
    assert evaluated == [3, 6, 7]
    notebook = Notebook()
    run(trial(rounds=6), notebook)
    assert [event["round"] for event in notebook.events if event["event"] == "evaluation"] == [3, 6]


def test_fine_tuning_is_never_fed_back() -> None:
    plain = run(trial()).state["params"]
    tuned = FineTuned(learning_rate=0.1, work=WORK, tuning=Phase(epochs=5, batch_size=4), tuning_rate=0.2)
    outcome = run(trial(algorithm=tuned, every=1))
    assert torch.equal(outcome.state["params"], plain)
    assert all(not torch.equal(p.params[0], plain) for p in outcome.seen.predictors.values())


def test_fine_tuning_of_no_epoch_is_fedavg() -> None:
    tuned = FineTuned(learning_rate=0.1, work=WORK, tuning=Phase(epochs=0))
    assert run(trial(algorithm=tuned)).seen.columns == run(trial()).seen.columns


@dataclass(frozen=True, kw_only=True)
class Counting(FedAvg):
    """FedAvg whose clients count their rounds in memory, and whose server wants single updates."""

    needs: ClassVar[Any] = "each"

    def start(self, broadcast: Any, memory: Any, *rest: Any) -> Local:
        local = super().start(broadcast, memory, *rest)
        local.keep["rounds"] = memory.get("rounds", torch.zeros(1))
        return local

    def finish(self, local: Local, task: Any) -> Update:
        return Update(
            {"params": (local.params[0], local.weight)},
            {"steps": local.steps},
            {"rounds": local.keep["rounds"] + 1},
        )

    def aggregate(self, state: Any, received: Any, task: Any) -> Any:
        vectors = torch.stack([update.payload["params"][0] for update in received])
        return {"params": vectors.mean(dim=0)}


def test_memory_stays_with_the_client_and_survives_a_stop() -> None:
    notebook = Notebook(keep_messages=True)
    run(trial(algorithm=Counting(learning_rate=0.1, work=WORK), rounds=3), notebook)
    run(trial(algorithm=Counting(learning_rate=0.1, work=WORK)), notebook)
    counts = [int(memory.values.get("rounds", 0)) for memory in notebook.memories.get(range(4))]
    played = np.bincount(np.concatenate([e["cohort"] for e in rounds_of(notebook)]), minlength=4)
    assert counts == played.tolist()
    assert all("rounds" not in m.payload for m in notebook.messages)
    updates = [m for m in notebook.messages if m.kind == "update"]
    assert all(set(m.payload) == {"params", "params.weight", "metric.steps"} for m in updates)


def test_a_mean_of_one_is_exact_and_of_several_is_weighted() -> None:
    from rivage.federated.collectors import Plain

    one = Plain(each=False)
    vector = torch.randn(5, generator=torch.Generator().manual_seed(0))
    one.add(Update({"params": (vector, 3.7)}))
    assert torch.equal(one.result()["params"].mean, vector)  # type: ignore[call-overload]
    several = Plain(each=False)
    weights = [0.5, 2.0, 0.0, 1.5]
    vectors: list[Tensor] = [torch.full((2,), float(i)) for i in range(4)]
    for value, weight in zip(vectors, weights, strict=True):
        several.add(Update({"params": (value, weight)}))
    result: Mean = several.result()["params"]  # type: ignore[call-overload]
    torch.testing.assert_close(result.mean, torch.full((2,), (2.0 + 4.5) / 4.0))
    assert result.weight == 4.0


def test_streams_of_the_model_do_not_depend_on_the_method() -> None:
    task = trial().task
    start = task.initial(Streams(0).seed("model"))
    assert torch.equal(run(trial(rounds=0)).state["params"], start)


@dataclass(frozen=True, kw_only=True)
class Odd(FedAvg):
    """FedAvg in which the client with 7 records, and nobody else, sends something else than the rest."""

    kind: str = "shape"

    def finish(self, local: Local, task: Any) -> Update:
        sent = {"params": (local.params[0], local.weight), "extra": (local.params[0][:2], 1.0)}
        if local.records == 7:
            sent = {"shape": {**sent, "extra": (local.params[0], 1.0)}, "entry": {"params": sent["params"]}}[self.kind]
        return Update(sent)


@pytest.mark.parametrize(("kind", "reason"), [("shape", r"extra of shape \(3,\)"), ("entry", "entries params where")])
def test_an_update_unlike_the_others_is_rejected_and_named(kind: str, reason: str) -> None:
    notebook = Notebook()
    run(trial(algorithm=Odd(learning_rate=0.1, work=WORK, kind=kind), cohort=None), notebook)
    for event in rounds_of(notebook):
        assert [entry["client"] for entry in event["rejected"]] == [1]
        assert re.search(reason, event["rejected"][0]["reason"])


def test_a_round_tells_metrics_and_gradients() -> None:
    notebook = Notebook()
    work = Phase(epochs=2, batch_size=4)
    run(trial(algorithm=Counting(learning_rate=0.1, work=work), cohort=None, rounds=1), notebook)
    event = rounds_of(notebook)[0]
    assert event["gradients"] == 2 * (4 + 7 + 1 + 12)
    assert event["metrics"] == {"steps": 2 * (1 + 2 + 1 + 3) / 4}


@dataclass(frozen=True, kw_only=True)
class Watching(Counting):
    """Tells what its hooks were handed."""

    told: ClassVar[list[Any]] = []

    def init(self, task: Any, clients: int, streams: Streams) -> Any:
        self.told.append(clients)
        return super().init(task, clients, streams)

    def aggregate(self, state: Any, received: Any, task: Any) -> Any:
        self.told.append([(update.client, update.version) for update in received])
        return super().aggregate(state, received, task)

    def predictor(self, *given: Any) -> Any:
        self.told.append(torch.get_num_threads())
        return super().predictor(*given)


def test_hooks_know_who_takes_part_and_run_on_one_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    Watching.told.clear()
    try:
        run(trial(algorithm=Watching(learning_rate=0.1, work=WORK), cohort=None, rounds=1, unseen=np.array([2])))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert Watching.told == [3, [(0, 0), (1, 0), (3, 0)], 1, 1, 1, 1]


@dataclass(frozen=True, kw_only=True)
class Choosing(FedAvg):
    """Takes exactly these clients with these weights."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()

    def select(self, state: Any, candidates: Any, streams: Any, task: Any) -> Cohort:
        return Cohort(np.array(self.ids), np.array(self.weights), LocalWork((self.work,), self.learning_rate))


@pytest.mark.parametrize(
    ("ids", "weights", "fault"),
    [
        ((0, 0), (1.0, 1.0), "a client twice"),
        ((0, 9), (1.0, 1.0), "a client that is not registered"),
        ((0, 3), (1.0, 1.0), "an unseen client"),
        ((0, 1), (1.0, -1.0), "a weight that is negative"),
        ((0, 1), (1.0,), "2 clients and 1 weights"),
    ],
)
def test_a_cohort_that_breaks_the_rules_is_refused(ids: Any, weights: Any, fault: str) -> None:
    algorithm = Choosing(learning_rate=0.1, work=WORK, ids=ids, weights=weights)
    with pytest.raises(ProtocolError, match=f'method "avg", seed 0, round 0: select returned {fault}'):
        run(trial(algorithm=algorithm, unseen=np.array([3])))


def test_updates_without_weight_leave_the_model() -> None:
    start = run(trial(rounds=0)).state["params"]
    algorithm = Choosing(learning_rate=0.1, work=WORK, ids=(0, 1), weights=(0.0, 0.0))
    assert torch.equal(run(trial(algorithm=algorithm)).state["params"], start)


@pytest.mark.parametrize("change", [{"rounds": -1}, {"every": 0}, {"cohort": 0}])
def test_a_trial_out_of_range_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(change))} is"):
        trial(**change)


def test_personalisation_that_fails_says_where() -> None:
    """Batch norm cannot train on the one record of client 2; Local trains only before evaluation."""
    population = linear_clients()
    task = Task(
        lambda schema: nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1)),
        SQUARED,
        MAE,
        population.schema,
        dtype=torch.float64,
    )
    with pytest.raises(ProtocolError, match=r'method "avg", seed 0, evaluation after round 0, client 2: .*batch norm'):
        run(trial(algorithm=LocalMethod(learning_rate=0.1, epochs=1), task=task))


@dataclass(frozen=True, kw_only=True)
class Breaking(Counting):
    """Breaks down at its last client of the third round, once."""

    left: ClassVar[list[int]] = []

    def finish(self, local: Local, task: Any) -> Update:
        if self.left:
            self.left[0] -= 1
            if self.left[0] == 0:
                self.left.clear()
                raise KeyboardInterrupt
        return super().finish(local, task)


def test_a_round_broken_off_half_way_leaves_no_trace_in_memories() -> None:
    Breaking.left[:] = [12]
    broken, whole = Notebook(), Notebook()
    algorithm = Breaking(learning_rate=0.1, work=WORK)
    with pytest.raises(KeyboardInterrupt):
        run(trial(algorithm=algorithm, cohort=None), broken)
    run(trial(algorithm=algorithm, cohort=None), broken)
    run(trial(algorithm=algorithm, cohort=None), whole)
    assert [int(memory.values["rounds"]) for memory in broken.memories.get(range(4))] == [6, 6, 6, 6]


def test_the_identity_covers_what_is_learnt() -> None:
    population = linear_clients()
    single = trial(task=linear_task(population, torch.float32))
    assert single.identity != trial().identity
    others = (
        {"seed": 1},
        {"unseen": np.array([1])},
        {"population": replace(population, fingerprint="other")},
        {"rounds": 7},
        {"every": 2},
    )
    assert all(trial(**other).identity != trial().identity for other in others)
    assert trial().identity == trial().identity


def test_endless_batches_go_on_over_rounds() -> None:  # E4 through the engine
    population = linear_clients((7,))

    def after(rounds: int, updates: int) -> Tensor:
        work = Phase(updates=updates, batch_size=3, batches="endless")
        algorithm = FedAvg(learning_rate=0.1, work=work)
        params: Tensor = run(trial(population=population, algorithm=algorithm, rounds=rounds, cohort=None)).state[
            "params"
        ]
        return params

    assert torch.equal(after(4, 5), after(1, 20))


@dataclass(frozen=True)
class Stream(Clients):
    """Targets grow with the round."""

    def client(self, id: int, round: int = 0) -> Any:
        data = super().client(id, round)
        now = replace(data.train, y=data.train.y + round)
        return replace(data, train=now, test=now, validation=now)


def test_clients_hold_the_records_of_the_round_in_training_and_evaluation() -> None:
    x = np.ones((2, 1))
    schema = linear_clients((2,), features=1).schema
    population = Stream(((x, np.zeros((2, 1))),), schema)
    algorithm = FedAvg(learning_rate=1.0, work=Phase(updates=1, batch_size=None))  # one step reaches the target
    for rounds in (1, 3):
        outcome = run(trial(population=population, task=linear_task(population), algorithm=algorithm, rounds=rounds))
        assert float(outcome.state["params"]) == pytest.approx(rounds - 1)
        assert outcome.seen.columns["test"] == [pytest.approx(1.0)]


def test_setup_is_counted_and_logged_before_the_first_round() -> None:
    payload = {"sum": np.zeros(3)}
    setup = tuple(
        Message(round=-1, sender=a, receiver=b, kind="statistics", payload=payload)
        for a, b in (("client:0", "server"), ("client:1", "server"), ("server", "client:0"))
    )
    notebook = Notebook(keep_messages=True)
    run(trial(population=replace(linear_clients(), setup=setup), rounds=1), notebook)
    size = len(encode(payload))
    assert notebook.messages[:3] == list(setup)
    assert notebook.events[1] == {"event": "setup", "messages": 3, "bytes_up": 2 * size, "bytes_down": size}


def test_large_populations_are_judged_on_a_uniform_sample() -> None:
    @dataclass(frozen=True)
    class Crowd(Clients):
        @property
        def size(self) -> int:
            return 10**9

    crowd = Crowd((), linear_clients().schema)
    judged = replace(trial(), population=crowd).judged
    assert len(np.unique(judged)) == len(judged) == 1000
    assert (np.diff(judged) > 0).all()
    assert 4e8 < judged.mean() < 6e8  # ten standard errors
    assert (replace(trial(seed=1), population=crowd).judged != judged).any()


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"params": (torch.zeros(3), -1.0)}, "params with weight -1.0"),
        ({"params": (torch.zeros(3), float("nan"))}, "params with weight nan"),
        ({"params": (torch.zeros(4), 1.0)}, "params of shape (4,) where 3 parameters were expected"),
        ({"params": (torch.tensor([0.0, float("inf"), 0.0]), 1.0)}, "params with norm inf after local training"),
        ({"params": (torch.zeros(2, 3), 1.0)}, None),
    ],
)
def test_what_makes_an_update_unusable(payload: Any, reason: str | None) -> None:
    assert fault_of(Update(payload), 3, {}) == reason


def test_large_cohorts_are_counted_with_a_digest() -> None:
    assert roster(np.arange(1000)) == list(range(1000))
    many, others = roster(np.arange(1001)), roster(np.arange(1, 1002))
    assert many["count"] == others["count"] == 1001
    assert many["digest"] != others["digest"]
