"""Certificates against small records whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.federated.checks import choice_gap, guard, paired_difference

Values = dict[str, Any]


def record(folder: Path, trials: dict[tuple[str, int], Values], *, higher: bool = True) -> RunRecord:
    """A run with one evaluation per trial; what was ``chosen`` goes into an event of its own."""
    methods = list(dict.fromkeys(method for method, _ in trials))
    run = RunRecord.create(folder, "run", {"methods": [{"kind": name} for name in methods]})
    for (method, seed), values in trials.items():
        trial = TrialRecord.open(run.trial_folder(method, seed))
        head = {"event": "start", "method": method, "kind": method, "seed": seed}
        trial.append({**head, "metric": "accuracy", "higher_is_better": higher})
        where = {"round": 1, "group": "seen", "clients": list(range(len(values["test"])))}
        trial.append({"event": "evaluation", **where, **values})
        if "chosen" in values:
            trial.append({"event": "choice", **where, "chosen": values["chosen"], "among": ["a", "b"]})
    return run


def guarded(folder: Path, losses: list[list[float | None]], errors: list[list[float]], chosen: list[str]) -> RunRecord:
    """Candidates ``a`` and ``b`` with these validation losses, one row per client, and what was chosen."""
    trials = {
        (name, 0): {
            "test": [0.5 + column / 10] * len(losses),
            "validation_loss": [row[column] for row in losses],
            "validation_se": [row[column] for row in errors],
        }
        for column, name in enumerate("ab")
    }
    return record(folder, {**trials, ("g", 0): {"test": [0.5] * len(losses), "chosen": chosen}})


def test_a_client_under_several_seeds_is_one_pair(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gains = rng.normal(0.05, 0.1, (6, 1)) + rng.normal(0, 1e-3, (6, 4))  # clients differ, seeds hardly do
    trials = {("a", seed): {"test": (0.5 + gains[:, seed]).tolist()} for seed in range(4)}
    trials |= {("b", seed): {"test": [0.5] * 6} for seed in range(4)}
    run = record(tmp_path, trials)
    certificate = paired_difference(run, method="a", reference="b", confidence=0.95)
    p = ttest_1samp(gains.mean(axis=1), 0, alternative="greater").pvalue
    assert certificate.measured == pytest.approx(gains.mean())
    assert "6 clients, each averaged over 4 seeds" in certificate.method
    assert "90 % interval" in certificate.method
    level = 1 - float(p)
    for confidence, verdict in ((level - 1e-6, "holds"), (level + 1e-6, "no_power")):
        assert paired_difference(run, method="a", reference="b", confidence=confidence).verdict == verdict


def test_the_sign_follows_the_metric(tmp_path: Path) -> None:
    trials = {("a", 0): {"test": [0.1, 0.2, 0.3]}, ("b", 0): {"test": [0.4, 0.5, 0.61]}}
    assert "better" in paired_difference(record(tmp_path / "e", trials, higher=False), method="a", reference="b").claim
    assert "worse" in paired_difference(record(tmp_path / "s", trials), method="a", reference="b").claim


def test_undefined_values_and_single_clients_say_nothing(tmp_path: Path) -> None:
    trials = {("a", 0): {"test": [0.9, None]}, ("b", 0): {"test": [0.1, 0.2]}}
    certificate = paired_difference(record(tmp_path, trials), method="a", reference="b")
    assert certificate.verdict == "no_power"
    assert "1 clients" in certificate.method
    assert "unbounded" in certificate.method


def test_a_choice_exactly_one_standard_error_away_holds(tmp_path: Path) -> None:
    assert (0.1 + 0.2 - 0.1) / 0.2 > 1, "rounding that must not fail a correct choice"
    run = guarded(tmp_path, [[0.1 + 0.2, 0.1]], [[0.2, 0.2]], ["a"])
    assert guard(run, method="g").verdict == "holds"


@pytest.mark.parametrize(
    ("losses", "errors", "chosen", "verdict", "measured"),
    [
        ([[0.5, 0.1]], [[0.2, 0.2]], ["b"], "holds", 0.0),
        ([[0.5, 0.1]], [[9.0, 0.2]], ["a"], "fails", 2.0),
        ([[0.25, 0.1]], [[0.2, 0.2]], ["b"], "fails", 0.0),  # within one error, the rule keeps the first
        ([[0.25, 0.1], [0.9, 0.1]], [[0.2, 0.2]] * 2, ["a", "b"], "holds", 0.75),
        ([[0.1, 0.1]], [[0.0, 0.0]], ["a"], "holds", 0.0),
        ([[0.2, 0.1]], [[0.0, 0.0]], ["a"], "fails", float("inf")),
    ],
)
def test_the_guard_repeats_the_rule(
    tmp_path: Path, losses: Any, errors: Any, chosen: list[str], verdict: str, measured: float
) -> None:
    certificate = guard(guarded(tmp_path, losses, errors, chosen), method="g")
    assert certificate.verdict == verdict
    assert certificate.measured == pytest.approx(measured)


def test_nothing_to_look_at_is_no_power_and_not_a_pass(tmp_path: Path) -> None:
    unknown = guarded(tmp_path / "unknown", [[None, None]], [[0.0, 0.0]], ["a"])
    assert guard(unknown, method="g").verdict == "no_power"
    run = guarded(tmp_path / "known", [[0.5, 0.1]], [[0.2, 0.2]], ["b"])
    for check in (guard, choice_gap):
        assert check(run, method="g", group="unseen").verdict == "no_power"
        assert check(run, method="a").verdict == "no_power"


@pytest.mark.parametrize(("higher", "best"), [(True, 0.6), (False, 0.5)])
def test_the_gap_is_to_the_best_choice_in_hindsight(tmp_path: Path, higher: bool, best: float) -> None:
    run = guarded(tmp_path, [[0.5, 0.1]] * 2, [[0.2, 0.2]] * 2, ["a", "b"])
    for trial in run.trials:
        path = trial.folder / "record.jsonl"
        path.write_text(
            path.read_text().replace('"higher_is_better":true', f'"higher_is_better":{str(higher).lower()}')
        )
    certificate = choice_gap(RunRecord.open(run.folder), method="g")
    assert (certificate.measured, certificate.reference) == (pytest.approx(0.55), pytest.approx(best))
    assert certificate.verdict == "holds"
