from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.records import RunRecord
from rivage.core.summaries import (
    bottom_decile,
    local_method,
    mean_and_std,
    paired_with_local,
    share_worse,
    summarize,
    weighted_mean,
    worst_decile_mean,
    worst_first,
)
from rivage.core.trial_records import TrialRecord

Tests = Mapping[str, Mapping[int, Sequence[float | None]]]  # method -> seed -> last test values
VALUES = st.lists(st.none() | st.floats(-1e3, 1e3), max_size=45)


def test_weighted_mean_by_hand() -> None:
    assert weighted_mean([0.5, 1.0, 0.0], [2, 1, 1]) == 0.5
    assert weighted_mean([1.0, None, 0.0], [1, 100, 3]) == 0.25


@pytest.mark.parametrize(("values", "weights"), [([], []), ([None, None], [1, 2]), ([0.5], [0])])
def test_weighted_mean_of_nobody_is_none(values: list[float | None], weights: list[int]) -> None:
    assert weighted_mean(values, weights) is None


@pytest.mark.parametrize(
    ("count", "position"), [(1, 0), (9, 0), (10, 1), (19, 1), (20, 2), (25, 2), (30, 3), (1000, 100)]
)
def test_bottom_decile_is_at_position_floor_of_a_tenth(count: int, position: int) -> None:
    values = list(reversed(range(count)))
    assert bottom_decile(values, higher_is_better=True) == position
    assert bottom_decile(values, higher_is_better=False) == count - 1 - position


@pytest.mark.parametrize(("count", "worst"), [(1, 1), (10, 1), (11, 2), (20, 2), (25, 3)])
def test_worst_decile_mean_covers_at_least_a_tenth(count: int, worst: int) -> None:
    values = list(range(count))
    assert worst_decile_mean(values, higher_is_better=True) == sum(range(worst)) / worst
    assert worst_decile_mean(values, higher_is_better=False) == count - 1 - sum(range(worst)) / worst


@given(VALUES)
def test_lower_is_better_mirrors_higher_is_better(values: list[float | None]) -> None:
    mirrored = [None if value is None else -value for value in values]
    for number in (bottom_decile, worst_decile_mean):
        high, low = number(values, higher_is_better=True), number(mirrored, higher_is_better=False)
        assert high is None if low is None else high == pytest.approx(-low)


@given(VALUES, st.randoms())
def test_order_of_clients_does_not_matter(values: list[float | None], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    assert bottom_decile(values, higher_is_better=True) == bottom_decile(shuffled, higher_is_better=True)
    assert worst_first(values, higher_is_better=False).tolist() == sorted(
        (value for value in values if value is not None), reverse=True
    )


@given(VALUES)
def test_worst_mean_bottom_decile_and_best_are_ordered(values: list[float | None]) -> None:
    decile = bottom_decile(values, higher_is_better=True)
    worst = worst_decile_mean(values, higher_is_better=True)
    if decile is None or worst is None:
        assert all(value is None for value in values)
    else:
        assert worst <= decile + 1e-9


def test_ties_are_not_worse_and_undefined_pairs_do_not_count() -> None:
    values, reference = [0.5, 0.5, 0.4, None, 0.9], [0.5, 0.4, 0.5, 0.1, None]
    assert share_worse(values, reference, higher_is_better=True) == pytest.approx(1 / 3)
    assert share_worse(values, reference, higher_is_better=False) == pytest.approx(1 / 3)
    assert share_worse(values, values, higher_is_better=True) == 0
    assert share_worse([None], [0.5], higher_is_better=True) is None


@given(VALUES)
def test_worse_equal_and_better_sum_to_one(values: list[float | None]) -> None:
    reference = values[::-1]
    shares = [share_worse(values, reference, higher_is_better=up) for up in (True, False)]
    pairs = [(a, b) for a, b in zip(values, reference, strict=True) if a is not None and b is not None]
    if not pairs:
        assert shares == [None, None]
    else:
        ties = sum(a == b for a, b in pairs) / len(pairs)
        assert sum(share or 0 for share in shares) + ties == pytest.approx(1)


def test_spread_needs_two_seeds() -> None:
    assert mean_and_std([1.0, 3.0, None]) == pytest.approx((2.0, 2**0.5))
    assert mean_and_std([1.0, None]) == (1.0, None)
    assert mean_and_std([None]) == (None, None)


# --- of records -----------------------------------------------------------------------------------------------------


def _run(
    parent: Path,
    tests: Tests,
    sizes: Sequence[int],
    higher_is_better: bool = True,
) -> RunRecord:
    """Method -> seed -> last test values; kinds are the names, client 9 - i holds the i-th value."""
    record = RunRecord.create(parent, "study", {"methods": [{"kind": kind} for kind in tests]})
    for method, seed in ((m, s) for m, seeds in tests.items() for s in seeds):
        trial = TrialRecord.open(record.trial_folder(method, seed))
        trial.append(
            {
                "event": "start",
                "method": method,
                "kind": method,
                "seed": seed,
                "metric": "accuracy",
                "higher_is_better": higher_is_better,
                "population": {"size": 10},
            }
        )
        trial.append({"event": "setup", "bytes_up": 10, "bytes_down": 20, "messages": 2})
        trial.append(_evaluation(0, [0.0] * len(sizes), sizes))
        trial.append({"event": "round", "round": 0, "cohort": [9], "bytes_up": 100 + seed, "bytes_down": 7})
        trial.append_timing({"round": 0, "seconds": 1.5})
        trial.append(_evaluation(1, tests[method][seed], sizes))
        trial.append({"event": "end", "rounds": 1})
    return record


def _evaluation(done: int, test: Sequence[float | None], sizes: Sequence[int], **changes: Any) -> dict[str, Any]:
    ids = [9 - client for client in range(len(test))]
    event = {"event": "evaluation", "round": done, "group": "seen", "clients": ids, "skipped": 1}
    return event | {"test": list(test), "test_size": list(sizes)} | changes


def test_summary_by_hand(tmp_path: Path) -> None:
    tests: Tests = {
        "fedavg": {0: [0.5, 1.0, 0.75], 1: [0.7, 0.9, None]},
        "local": {0: [0.6, 1.0, 0.5], 1: [0.6, 1.0, 0.8]},
    }
    summary = summarize(_run(tmp_path, tests, sizes=[2, 1, 1]))
    row = summary["fedavg"]
    assert list(summary) == ["fedavg", "local"]
    seed0, seed1 = (2 * 0.5 + 1.0 + 0.75) / 4, (2 * 0.7 + 0.9) / 3
    assert row["mean"] == pytest.approx((seed0 + seed1) / 2)
    assert row["by_seed"] == {"0": pytest.approx(seed0), "1": pytest.approx(seed1)}
    assert row["std"] == pytest.approx(abs(seed0 - seed1) / 2**0.5)
    assert row["unweighted_mean"] == pytest.approx((0.75 + 0.8) / 2)
    assert row["bottom_decile"] == row["worst"] == pytest.approx(0.6)
    assert row["worst_decile_mean"] == pytest.approx(0.6)
    assert row["share_worse_than_local"] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert summary["local"]["share_worse_than_local"] == 0
    assert (row["bytes_up"], row["bytes_down"]) == (110, 27)  # 110 and 111: half goes to even
    assert row["seconds"] == 1.5
    assert (row["clients"], row["skipped"], row["undefined"], row["rounds"]) == (3, 1, 1, 1)
    assert (row["kind"], row["metric"], row["finished"]) == ("fedavg", "accuracy", True)
    assert row["unseen_mean"] is None
    assert (row["simulated_s"], row["energy_j"]) == (None, None), "no devices, nothing simulated"


def test_simulated_time_and_energy_add_up_over_rounds_and_average_over_seeds(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg": {0: [0.5], 1: [0.5]}, "local": {0: [0.5], 1: [0.5]}}, sizes=[1])
    for seed in (0, 1):
        for number in (1, 2):
            spent = {"simulated_s": 10.0 * number + seed, "energy_j": 0.25}
            record.trial("fedavg", seed).append({"event": "round", "round": number, "cohort": [9], **spent})
    summary = summarize(record)
    assert (summary["fedavg"]["simulated_s"], summary["fedavg"]["energy_j"]) == (31.0, 0.5)
    assert summary["local"]["simulated_s"] is None


def test_contract_keys_are_plain_json_values(tmp_path: Path) -> None:
    row = summarize(_run(tmp_path, {"fedavg": {0: [0.5]}}, sizes=[1]))["fedavg"]
    contract = ["metric", "mean", "bottom_decile", "share_worse_than_local", "bytes_up", "bytes_down", "seconds"]
    assert set(contract) <= set(row)
    assert all(type(value) in (str, int, float, bool, dict, type(None)) for value in row.values())
    assert row["share_worse_than_local"] is None, "there is no Local"
    assert row["std"] is None, "one seed has no spread"


def test_lower_is_better_turns_the_worst_around(tmp_path: Path) -> None:
    tests = {"fedavg": {0: [5.0, 1.0]}, "local": {0: [4.0, 2.0]}}
    row = summarize(_run(tmp_path, tests, sizes=[1, 1], higher_is_better=False))["fedavg"]
    assert (row["bottom_decile"], row["worst"], row["share_worse_than_local"]) == (5.0, 5.0, 0.5)


def test_no_defined_metric_gives_none(tmp_path: Path) -> None:
    row = summarize(_run(tmp_path, {"fedavg": {0: [None]}, "local": {0: [None]}}, sizes=[1]))["fedavg"]
    numbers = ["mean", "std", "bottom_decile", "worst", "client_std", "share_worse_than_local"]
    assert [row[key] for key in numbers] == [None] * len(numbers)


def test_a_trial_without_evaluation_and_a_run_without_trials(tmp_path: Path) -> None:
    record = RunRecord.create(tmp_path, "empty", {"methods": []})
    assert summarize(record) == {}
    trial = TrialRecord.open(record.trial_folder("fedavg", 0))
    trial.append(
        {"event": "start", "method": "fedavg", "kind": "fedavg", "seed": 0, "metric": "mse", "higher_is_better": False}
    )
    row = summarize(record)["fedavg"]
    assert (row["mean"], row["clients"], row["bytes_up"], row["finished"]) == (None, 0, 0, False)


def test_unseen_clients_are_apart(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg": {0: [0.5, 0.5]}}, sizes=[1, 1])
    record.trials[0].append(_evaluation(1, [1.0, 0.0], [3, 1], group="unseen"))
    row = summarize(record)["fedavg"]
    assert (row["mean"], row["unseen_mean"]) == (0.5, 0.75)


def test_pairs_follow_client_numbers_not_positions(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg": {0: [0.1, 0.2, 0.3]}, "local": {0: [0.4, 0.5, None]}}, sizes=[1, 2, 3])
    for order in itertools.permutations(range(3)):
        event = record.trial("fedavg", 0).final()
        assert event is not None
        picked = {key: [event[key][k] for k in order] for key in ("clients", "test", "test_size")}
        record.trial("fedavg", 0).append(event | picked)
        values, reference, sizes = paired_with_local(record, record.trial("fedavg", 0))
        assert sorted(zip(values, reference, sizes, strict=True)) == [(0.1, 0.4, 1), (0.2, 0.5, 2)]
    assert local_method(record) == "local"


def test_seeds_that_local_lacks_are_not_compared(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg": {0: [0.1], 1: [0.9]}, "local": {0: [0.5]}}, sizes=[1])
    assert summarize(record)["fedavg"]["share_worse_than_local"] == 1.0


def _with(record: RunRecord, method: str, **columns: Any) -> None:
    """The last evaluation of seed 0 again, with further columns."""
    trial = record.trial(method, 0)
    event = trial.final()
    assert event is not None
    trial.append(event | columns)


def test_unseen_clients_are_told_like_the_others(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg+": {0: [0.5]}, "local": {0: [0.5]}}, sizes=[1])
    assert summarize(record)["local"]["unseen"] is None
    known = {"train_size": [40, 20], "gradients": [80, 40]}
    record.trial("fedavg+", 0).append(_evaluation(1, [1.0, 0.5], [3, 1], group="unseen", **known))
    record.trial("local", 0).append(_evaluation(1, [0.9, 0.5], [3, 1], group="unseen"))
    row = summarize(record)["fedavg+"]["unseen"]
    assert (row["clients"], row["mean"], row["unweighted_mean"], row["worst"]) == (2, 0.875, 0.75, 0.5)
    assert (row["training_records"], row["gradients"]) == (30, 60)
    assert (row["share_worse_than_local"], row["share_better_than_local"]) == (0, 0.5)
    assert summarize(record)["local"]["unseen"]["gradients"] is None


def test_better_worse_and_equal_shares(tmp_path: Path) -> None:
    tests = {"fedavg": {0: [0.5, 0.6, 0.7, 0.8]}, "local": {0: [0.6, 0.6, 0.6, 0.6]}}
    row = summarize(_run(tmp_path, tests, sizes=[1] * 4))["fedavg"]
    assert (row["share_worse_than_local"], row["share_better_than_local"]) == (0.25, 0.5)


def test_cost_is_shared_among_the_clients_that_train(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg": {0: [0.5]}, "fedem": {0: [0.6]}}, sizes=[1])
    _with(record, "fedavg", gradients=[30])
    row = summarize(record)["fedavg"]
    assert row["bytes_per_client"] == (10 + 20 + 100 + 7) / 10
    assert row["gradients_per_client"] == 3
    assert row["at_equal_bytes"]["budget_per_client"] == row["bytes_per_client"]
    assert (row["at_equal_bytes"]["mean"], row["at_equal_bytes"]["rounds"]) == (0.5, 1)


def test_at_equal_bytes_a_dear_method_is_judged_earlier(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedavg": {0: [0.5, 0.7]}, "fedem": {0: [0.6, 0.8]}, "local": {0: [0.1, 0.1]}}, [3, 1])
    record.trial("fedem", 0).append({"event": "round", "round": 1, "cohort": [9], "bytes_up": 1, "bytes_down": 0})
    record.trial("fedem", 0).append(_evaluation(2, [0.9, 0.9], [3, 1]))
    summary = summarize(record)
    assert (summary["fedem"]["mean"], summary["fedem"]["at_equal_bytes"]["mean"]) == (0.9, pytest.approx(0.65))
    assert summary["fedem"]["at_equal_bytes"]["bottom_decile"] == 0.6
    assert summary["local"]["at_equal_bytes"]["mean"] == pytest.approx(0.1)
    alone = summarize(_run(tmp_path / "alone", {"fedavg": {0: [0.5]}, "local": {0: [0.5]}}, sizes=[1]))
    assert alone["fedavg"]["at_equal_bytes"] is None, "one method that sends is compared with none"


def test_mixtures_and_neighbours_in_one_number_each(tmp_path: Path) -> None:
    record = _run(tmp_path, {"fedem": {0: [0.5] * 2}, "knnper": {0: [0.5] * 2}}, sizes=[1, 1])
    _with(record, "fedem", mix=[[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    _with(record, "knnper", neighbour_share=[0.2, 0.6])
    summary = summarize(record)
    assert (summary["fedem"]["mixed_models"], summary["fedem"]["neighbour_share"]) == (3, None)
    assert summary["fedem"]["effective_models"] == pytest.approx((1 + 3) / 2)
    assert (summary["knnper"]["mixed_models"], summary["knnper"]["neighbour_share"]) == (None, 0.4)
