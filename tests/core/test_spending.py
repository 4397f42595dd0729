from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.records import RunRecord
from rivage.core.spending import budgets, covered, gradients, spent, training_clients
from rivage.core.trial_records import TrialRecord


def _record(parent: Path, methods: Mapping[str, str]) -> RunRecord:
    """A run with one trial per method -> kind, seed 0, ten clients of whom two are unseen."""
    record = RunRecord.create(parent, "study", {"methods": [{"name": n, "kind": k} for n, k in methods.items()]})
    for method, kind in methods.items():
        start = {"event": "start", "method": method, "kind": kind, "seed": 0}
        TrialRecord.open(record.trial_folder(method, 0)).append(
            start | {"population": {"size": 10, "unseen": [3, 4]}, "metric": "accuracy", "higher_is_better": True}
        )
    return record


def _play(trial: TrialRecord, rounds: int, size: int, every: int = 1, setup: int = 0, **more: Any) -> None:
    """Rounds of ``size`` bytes each way; an evaluation of value r / 100 after round r."""
    trial.append({"event": "setup", "bytes_up": setup, "bytes_down": 0, "messages": 0})
    for done in range(rounds + 1):
        if done % every == 0:
            trial.append(_evaluation(done))
        if done < rounds:
            trial.append({"event": "round", "round": done, "bytes_up": size, "bytes_down": size, **more})


def _evaluation(done: int, **columns: Any) -> dict[str, Any]:
    head = {"event": "evaluation", "round": done, "group": "seen", "skipped": 0, "clients": [0, 1]}
    return head | {"test": [done / 100] * 2, "test_size": [1, 1]} | columns


def test_bytes_of_both_directions_add_up(tmp_path: Path) -> None:
    trial = _record(tmp_path, {"a": "fedavg"}).trials[0]
    _play(trial, 3, 50, setup=7)
    cost = spent(trial)
    assert cost.size.tolist() == [7, 107, 207, 307]
    assert cost.size[-1] == trial.bytes_up + trial.bytes_down
    assert cost.gradients is None, "rounds that do not count"
    assert training_clients(trial) == 8


def test_a_trial_that_has_not_begun_a_round_has_spent_its_set_up(tmp_path: Path) -> None:
    trial = _record(tmp_path, {"a": "fedavg"}).trials[0]
    assert spent(trial).size.tolist() == [0]
    trial.append({"event": "setup", "bytes_up": 3, "bytes_down": 4, "messages": 1})
    assert spent(trial).size.tolist() == [7]
    assert covered(trial, 1e9) is None


def test_the_budget_is_that_of_the_cheapest_that_sends(tmp_path: Path) -> None:
    record = _record(tmp_path, {"local": "local", "a": "fedavg", "b": "fedem"})
    local, a, b = record.trials
    _play(local, 0, 0, setup=5)
    _play(a, 4, 10)
    assert budgets(record) == {}, "one method that sends has nothing to be compared with"
    _play(b, 4, 30)
    assert budgets(record) == {0: 80}


def test_the_budget_buys_every_method_an_evaluation(tmp_path: Path) -> None:
    record = _record(tmp_path, {"rare": "l2gd", "a": "fedavg", "b": "fedem", "g": "guarded"})
    rare, a, b, g = record.trials
    _play(rare, 8, 1)
    a.append({"event": "setup", "bytes_up": 0, "bytes_down": 0, "messages": 0})
    b.append({"event": "setup", "bytes_up": 0, "bytes_down": 0, "messages": 0})
    for number in range(8):
        for trial, size in ((a, 10), (b, 30)):
            trial.append({"event": "round", "round": number, "bytes_up": size, "bytes_down": size})
            if number % 2:
                trial.append(_evaluation(number + 1))
    g.append({"event": "setup", "bytes_up": 1, "bytes_down": 0, "messages": 0})
    g.append(_evaluation(8))
    assert [spent(t).size[-1] for t in (rare, a, b)] == [16, 160, 480]
    assert budgets(record) == {0: 160}, "16 B are no model of a; 160 B buy two rounds of b, and 120 B would too"
    found = covered(b, 160)
    assert found is not None
    assert found.event["round"] == 2


def test_three_times_the_bytes_get_a_third_of_the_rounds(tmp_path: Path) -> None:
    a, b = _record(tmp_path, {"a": "fedavg", "b": "fedem"}).trials
    _play(a, 12, 10, gradients=5)
    _play(b, 12, 30, gradients=15)
    found = covered(b, spent(a).size[-1])
    assert found is not None
    assert (found.event["round"], found.size, found.gradients) == (4, 240, 60)
    itself = covered(a, spent(a).size[-1])
    assert itself is not None
    assert itself.event["round"] == 12


def test_between_evaluations_nothing_is_read(tmp_path: Path) -> None:
    (trial,) = _record(tmp_path, {"a": "fedavg"}).trials
    _play(trial, 12, 10, every=4)
    for budget, done in ((79, 0), (80, 4), (159, 4), (160, 8), (1e9, 12)):
        found = covered(trial, budget)
        assert found is not None
        assert found.event["round"] == done


def test_what_is_composed_of_others_has_spent_all_of_it(tmp_path: Path) -> None:
    record = _record(tmp_path, {"a": "fedavg", "b": "fedem", "g": "guarded"})
    a, b, g = record.trials
    _play(a, 2, 10, gradients=5)
    _play(b, 2, 30, gradients=7)
    a.append(_evaluation(2, gradients=[4, 6]))
    g.append({"event": "setup", "bytes_up": 80, "bytes_down": 80, "messages": 0})
    g.append(_evaluation(2))
    g.append({"event": "choice", "round": 2, "group": "seen", "clients": [0, 1], "chosen": ["a", "b"], "among": ["a"]})
    assert covered(g, 159) is None
    assert covered(g, 160) is not None
    assert gradients(record, g) == gradients(record, a) == 2 * 5 + 10
    g.append({"event": "choice", "round": 2, "group": "seen", "chosen": [], "among": ["a", "b"]})
    assert gradients(record, g) == 20 + 14


def test_gradients_of_methods_without_rounds_are_those_of_their_adaptation(tmp_path: Path) -> None:
    record = _record(tmp_path, {"local": "local"})
    (trial,) = record.trials
    _play(trial, 0, 0)
    assert gradients(record, trial) is None, "a record that does not count"
    trial.append(_evaluation(0, gradients=[30, 12]))
    assert gradients(record, trial) == 42


@given(st.lists(st.integers(0, 50), min_size=1, max_size=15), st.integers(0, 3000))
def test_what_is_covered_fits_and_the_next_evaluation_would_not(
    tmp_path_factory: pytest.TempPathFactory, sizes: Sequence[int], budget: int
) -> None:
    (trial,) = _record(tmp_path_factory.mktemp("run"), {"a": "fedavg"}).trials
    trial.append(_evaluation(0))
    for number, size in enumerate(sizes):
        trial.append({"event": "round", "round": number, "bytes_up": size, "bytes_down": 2 * size})
        trial.append(_evaluation(number + 1))
    found = covered(trial, budget)
    assert found is not None, "the first evaluation is free"
    done = found.event["round"]
    assert found.size == 3 * sum(sizes[:done]) <= budget
    assert done == len(sizes) or 3 * sum(sizes[: done + 1]) > budget
