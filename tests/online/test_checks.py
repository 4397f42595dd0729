"""Certificates of policies: from hand-written records, whatever a bound is about, and when data cannot tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.online.checks import optimum_gap, regret_bound


def write(
    folder: Path,
    regrets: list[list[float]],
    bounds: list[float],
    *,
    fractional: bool = False,
    finished: bool = True,
) -> RunRecord:
    """One policy, 100 requests between points, of which the best fixed set serves half; a row per seed."""
    record = RunRecord.create(folder, "toy", {"name": "toy", "policies": [{"kind": "p"}]})
    for seed, row in enumerate(regrets):
        trial = TrialRecord.open(record.trial_folder("p@5", seed))
        trial.append({"event": "start", "method": "p@5", "policy": "p", "kind": "p", "seed": seed, "place": 0})
        for number, (regret, bound) in enumerate(zip(row, bounds, strict=True), 1):
            optimum = 50.0 * number
            gain = optimum - regret
            more = {"gain": gain + fractional, "fractional": gain, "optimum": optimum, "windowed": optimum + 10}
            point = {"requests": 100 * number, "asked": 100.0 * number, "regret": regret, "bound": bound}
            trial.append({"event": "point", **point, **more})
        if finished:
            trial.append({"event": "end", "requests": 100 * len(row)})
    return RunRecord.open(record.folder)


def test_a_promise_for_every_sequence_must_be_kept_by_every_seed_after_every_prefix(tmp_path: Path) -> None:
    kept = regret_bound(write(tmp_path / "a", [[3, 5], [4, 6]], [4, 7], fractional=True), method="p@5")
    assert (kept.verdict, kept.measured, kept.reference, kept.confidence) == ("holds", 6, 7, None)
    early = regret_bound(write(tmp_path / "b", [[3, 5], [4.1, 6]], [4, 7], fractional=True), method="p@5")
    assert early.verdict == "fails"
    assert (early.measured, early.reference) == (6, 7), "the end is shown, all prefixes decide"


def test_a_promise_in_expectation_is_one_of_the_mean(tmp_path: Path) -> None:
    certificate = regret_bound(write(tmp_path / "a", [[2, 9], [2, 3]], [4, 7]), method="p@5")
    assert (certificate.verdict, certificate.measured, certificate.confidence) == ("holds", 6, 0.95)
    assert regret_bound(write(tmp_path / "b", [[5, 5]], [4, 7]), method="p@5").verdict == "no_power"
    wide = [[2, 20], [2, 1], [2, 3]]
    assert regret_bound(write(tmp_path / "c", wide, [4, 7]), method="p@5").verdict == "no_power"
    sure = [[2, 20], [2, 20.1], [2, 20.2]]
    assert regret_bound(write(tmp_path / "d", sure, [4, 7]), method="p@5").verdict == "fails"


def test_a_bound_above_all_there_is_to_lose_shows_nothing(tmp_path: Path) -> None:
    empty = write(tmp_path / "a", [[3, 5]], [50, 100], fractional=True)
    assert regret_bound(empty, method="p@5").verdict == "no_power"
    assert "promises nothing" in regret_bound(empty, method="p@5").method
    late = write(tmp_path / "b", [[3, 5]], [50, 99], fractional=True)
    assert regret_bound(late, method="p@5").verdict == "holds"
    broken = write(tmp_path / "c", [[51, 5]], [50, 100], fractional=True)
    assert regret_bound(broken, method="p@5").verdict == "fails"


def test_one_point_of_many_may_be_above_by_chance(tmp_path: Path) -> None:
    """Excess 1 ± 0.2 at one of ten points: t = 5 is beyond 2.9, the limit for one, and within 9.9, that for ten."""
    rows = [[0.0] * 4 + [7 + excess] + [0.0] * 5 for excess in (1 - 12**0.5 / 10, 1.0, 1 + 12**0.5 / 10)]
    record = write(tmp_path / "a", rows, [7.0] * 10)
    assert regret_bound(record, method="p@5").verdict == "no_power"
    alone = write(tmp_path / "b", [row[4:5] for row in rows], [7.0])
    assert regret_bound(alone, method="p@5").verdict == "fails"


def test_a_draw_that_never_varies_is_judged_exactly(tmp_path: Path) -> None:
    assert regret_bound(write(tmp_path / "a", [[8, 8]] * 2, [9, 7]), method="p@5").verdict == "fails"


@given(st.lists(st.floats(-40, 40), min_size=1, max_size=5))
def test_the_gap_is_that_of_the_means(tmp_path_factory: pytest.TempPathFactory, ends: list[float]) -> None:
    record = write(tmp_path_factory.mktemp("run"), [[0, end] for end in ends], [1, 1])
    certificate = optimum_gap(record, method="p@5")
    assert certificate.measured == pytest.approx(0.5 - sum(ends) / len(ends) / 200, abs=1e-12)
    assert certificate.reference == 0.5
    assert ("more" in certificate.claim) == (certificate.measured > 0.5 or "no more" in certificate.claim)
    windowed = optimum_gap(record, method="p@5", against="windowed")
    assert windowed.reference == pytest.approx(0.55)


def test_what_is_not_finished_has_no_certificate(tmp_path: Path) -> None:
    record = write(tmp_path, [[1, 2]], [4, 7], finished=False)
    with pytest.raises(StoreError, match="has not been played to the end"):
        regret_bound(record, method="p@5")
    with pytest.raises(StoreError, match="Finish the run"):
        optimum_gap(record, method="q@5")


def test_seeds_of_different_length_meet_at_the_end(tmp_path: Path) -> None:
    record = write(tmp_path, [[1, 2, 3]], [4, 7, 8])
    trial = TrialRecord.open(record.trial_folder("p@5", 1))
    for event in record.trials[0].events():
        if event.get("requests") != 200:
            trial.append({**event, **({"seed": 1} if event["event"] == "start" else {})})
    certificate = regret_bound(RunRecord.open(record.folder), method="p@5")
    assert certificate.measured == 3
    assert "2 prefixes and 2 seeds" in certificate.method
