from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rivage.core.records import RunRecord
from rivage.core.summaries import bottom_decile, summarize
from rivage.report import series

MakeRun = Callable[..., RunRecord]


def test_learning_curve_counts_bytes_until_each_evaluation(make_run: MakeRun) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, seeds=(3,), rounds=4, every=2, clients=5, cohort=2)
    (trial,) = series.trials_of(record, "fedavg")
    curve = series.learning_curve([trial])
    sent = [event["bytes_up"] + event["bytes_down"] for event in trial.events("round")]
    assert curve.rounds.tolist() == [0, 2, 4]
    assert (5 * curve.size).tolist() == [6000, 6000 + sum(sent[:2]), 6000 + sum(sent)], "5 clients train"
    assert 5 * curve.size[-1] == trial.bytes_up + trial.bytes_down
    assert np.isnan(curve.gradients).all(), "the record does not count"
    assert (curve.low == curve.mean).all()
    assert (curve.high == curve.mean).all()


def test_learning_curve_over_seeds_by_hand(make_run: MakeRun) -> None:
    record = make_run(
        methods={"fedavg": "fedavg"},
        seeds=(0, 1),
        rounds=1,
        every=1,
        clients=2,
        values=lambda kind, seed, done: [0.2 * seed + 0.1 * done] * 2,
    )
    curve = series.learning_curve(series.trials_of(record, "fedavg"))
    assert curve.mean == pytest.approx([0.1, 0.2])
    assert curve.low == pytest.approx([0.0, 0.1])
    assert curve.high == pytest.approx([0.2, 0.3])


def test_unfinished_seed_shortens_no_curve(make_run: MakeRun) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, unfinished=True, rounds=10, every=5)
    assert series.learning_curve(series.trials_of(record, "fedavg")).rounds.tolist() == [0, 5, 10]


def test_undefined_evaluations_leave_no_point(make_run: MakeRun) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, clients=2, values=lambda kind, seed, done: [None, None])
    trials = series.trials_of(record, "fedavg")
    assert len(series.learning_curve(trials).rounds) == 0
    assert len(series.sorted_clients(trials, higher_is_better=True)[0]) == 0


@pytest.mark.parametrize("error", [False, True])
def test_points_agree_with_the_summary(make_run: MakeRun, error: bool) -> None:
    record = make_run(error=error)
    points = series.points_against_local(record, "fedavg+", higher_is_better=not error)
    assert len(points.value) == 60
    assert points.worse == pytest.approx(summarize(record)["fedavg+"]["share_worse_than_local"])
    above = np.mean(points.value > points.local)
    assert (points.worse if error else points.better) == pytest.approx(above)


def test_points_without_local_are_none(make_run: MakeRun) -> None:
    record = make_run(methods={"fedavg": "fedavg"})
    assert len(series.points_against_local(record, "fedavg", higher_is_better=True).value) == 0


@pytest.mark.parametrize("clients", [1, 7, 20, 25, 400, 1013])
@pytest.mark.parametrize("higher", [True, False])
def test_sorted_curve_passes_through_the_bottom_decile(make_run: MakeRun, clients: int, higher: bool) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, seeds=(0,), clients=clients, rounds=1)
    trials = series.trials_of(record, "fedavg")
    share, value = series.sorted_clients(trials, higher_is_better=higher)
    event = trials[0].final()
    assert event is not None
    at_a_tenth = value[np.searchsorted(share, 0.1 + 1e-12, side="right") - 1]
    assert at_a_tenth == bottom_decile(event["test"], higher_is_better=higher)
    assert (np.diff(value) * (1 if higher else -1) >= 0).all()


def test_choices_are_averaged_over_seeds(make_run: MakeRun) -> None:
    record = make_run(methods={"local": "local", "guarded": "guarded"}, seeds=(0, 1), clients=6)
    for seed, chosen in ((0, ["local"] * 6), (1, ["local"] * 3 + ["fedavg"] * 3)):
        event = {"event": "choice", "round": 50, "group": "seen", "clients": list(range(6)), "chosen": chosen}
        record.trial("guarded", seed).append(event)
    trials = series.trials_of(record, "guarded")
    assert series.choice_counts(trials, "seen") == {"fedavg": 1.5, "local": 4.5}
    assert series.choice_counts(trials, "unseen") == {}


def test_participation_counts_every_round_once(make_run: MakeRun) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, seeds=(0, 1), rounds=20, cohort=4, clients=9, unseen=2)
    trials = series.trials_of(record, "fedavg")
    seen = series.participation(trials)
    assert (seen.rounds, seen.cohort) == (40, 4)
    assert len(seen.chosen) == 9, "clients kept for the end are not asked"
    assert seen.chosen.sum() == 160
    assert seen.failed.sum() == seen.lost + 2
    assert seen.rejected == {"update is not finite": 2}


def test_participation_of_a_counted_cohort_names_nobody(make_run: MakeRun) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, seeds=(0,), rounds=2)
    event = {"event": "round", "round": 2, "cohort": {"count": 5000, "digest": "ab"}, "bytes_up": 1, "bytes_down": 1}
    record.trial("fedavg", 0).append(event | {"lost": {"count": 1500, "digest": "ab"}, "rejected": []})
    counted = series.participation(series.trials_of(record, "fedavg"))
    assert counted.cohort == pytest.approx((10 + 10 + 5000) / 3)
    assert counted.lost == series.participation(series.trials_of(make_run(seeds=(0,), rounds=2), "fedavg")).lost + 1500
    assert len(counted.chosen) == 0


def test_rounds_not_aggregated_and_dropped_memories_are_counted_over_seeds(make_run: MakeRun) -> None:
    record = make_run(methods={"plain": "fedavg", "fedavg": "fedavg"}, seeds=(0, 1), rounds=3)
    event = {"event": "round", "cohort": [1], "lost": [], "rejected": [], "bytes_up": 1, "bytes_down": 1}
    for number, seed, more in (
        (3, 0, {"refused": "3 updates", "forgotten": 2}),
        (4, 0, {"refused": "4 updates"}),
        (3, 1, {"refused": "4 updates", "forgotten": 5}),
        (4, 1, {}),
    ):
        record.trial("fedavg", seed).append(event | {"round": number} | more)
    seen = series.participation(series.trials_of(record, "fedavg"))
    assert seen.refusals == {"4 updates": 2, "3 updates": 1}
    assert seen.forgotten == 7
    row = summarize(record)["fedavg"]
    assert (row["played"], row["refused"], row["forgotten"], row["rounds"]) == (10, 3, 7, 5)
    assert list(row["refusals"].items()) == [("4 updates", 2), ("3 updates", 1)], "the most frequent first"
    plain = summarize(record)["plain"]
    assert (plain["played"], plain["refused"], plain["refusals"], plain["forgotten"]) == (6, 0, {}, 0)
