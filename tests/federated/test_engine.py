from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from rivage.core.errors import ProtocolError
from rivage.core.messages import encode
from rivage.core.seeding import Streams
from rivage.federated import FedAvg, FineTuned, Notebook, Phase, Trial, Update, run
from rivage.federated.algorithm import Local, Mean
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
    counts = {client: int(m.values["rounds"]) for client, m in notebook.snapshot.memories.items()}
    played = np.bincount(np.concatenate([e["cohort"] for e in rounds_of(notebook)]), minlength=4)
    assert [counts.get(client, 0) for client in range(4)] == played.tolist()
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
