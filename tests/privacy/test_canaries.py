"""Canaries against mechanisms that keep their promise, and against faults that were planted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy import ndarray

from rivage.core.certificates import CHECKS
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.data import build_population
from rivage.data.partition import PARTITIONS
from rivage.data.readers import Digits
from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.algorithm import Phase
from rivage.federated.clipping import Clip
from rivage.federated.dp_ftrl import DPFTRL, step_covariance
from rivage.federated.engine import Session
from rivage.federated.fedavg import FedAvg
from rivage.federated.local_noise import GaussianNoise
from rivage.federated.privacy_ledger import EVERYONE
from rivage.federated.trial import Trial
from rivage.federated.user_privacy import PrivateMean
from rivage.learning.task import TaskSettings, make_task
from rivage.privacy.canaries import CanaryClients, Scored, _scores, ledger, planted, sign
from rivage.privacy.canary_records import CanaryRecords
from rivage.privacy.epsilon_audit import claimed, guesses_for, judged, proved, recorded
from rivage.privacy.epsilon_bounds import best_of_one_run, from_one_run, guesses
from rivage.studies.audit_epsilon import audited_epsilon
from rivage.studies.claims.epsilon_faults import ClippingLeftOut, QuarterOfTheNoise, TheSameNoiseEveryRound

DELTA = 1e-5


@pytest.fixture(scope="module")
def trial() -> Trial:
    population = build_population(Digits(), partition=PARTITIONS.get("iid")(clients=20), seed=0)
    task = make_task(TaskSettings(model="linear"), population.schema)
    algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=1))
    return Trial(name="x", algorithm=algorithm, population=population, task=task, rounds=20)


@pytest.fixture(scope="module")
def few(trial: Trial) -> Trial:
    """Four clients in turn, two of them each round."""
    population = build_population(Digits(), partition=PARTITIONS.get("iid")(clients=4), seed=0)
    algorithm = FedAvg(learning_rate=0.1, work=Phase(updates=1))
    return replace(trial, population=population, algorithm=algorithm, rounds=7, cohort=2, sampling="epochs")


def by_users(trial: Trial, collector: PrivateMean, canaries: int = 200, seed: int = 0) -> float:
    scored = CanaryClients(canaries, Streams(seed)).scored(replace(trial, collector=collector))
    return proved(recorded(scored, delta=DELTA))


def claim(noise: float, rounds: int = 20, sampling: float = 1.0) -> float:
    return epsilon_of([Release(noise, sampling, rounds)], DELTA)


def test_an_honest_sum_is_not_accused_and_not_for_lack_of_power(trial: Trial) -> None:
    found = [by_users(trial, PrivateMean(noise=2.0), seed=seed) for seed in range(2)]
    assert all(0.5 < bound < claim(2.0) for bound in found)


@pytest.mark.parametrize("fault", [QuarterOfTheNoise, ClippingLeftOut, TheSameNoiseEveryRound])
def test_a_planted_fault_is_a_violation(trial: Trial, fault: Callable[..., PrivateMean]) -> None:
    bound = by_users(trial, fault(noise=20.0), canaries=600)
    assert judged(claim(20.0), bound) == "VIOLATION"  # claims 0.82


def test_a_budget_that_begins_anew_is_a_violation(trial: Trial) -> None:
    noise = next(z for z in np.arange(3, 9, 0.01) if claim(z, rounds=1) <= 1)
    bound = by_users(trial, PrivateMean(noise=noise), canaries=400)
    assert bound > claim(noise, rounds=1)  # what is told after twenty rounds of it
    assert bound < claim(noise)


def test_clients_that_are_chosen_are_scored_in_their_rounds(trial: Trial) -> None:
    some = replace(trial, cohort=10, rounds=10)
    scored = CanaryClients(60, Streams(0)).scored(replace(some, collector=PrivateMean(noise=0.05)))
    areas = [_area(column, scored.inside) for column in scored.scores.T]
    assert areas[1] > 0.95
    assert areas[1] >= areas[0]


def test_who_was_sampled_by_chance_stays_a_secret(trial: Trial) -> None:
    """The accountant counts on it: knowing the rounds would prove more than is claimed of an honest mechanism."""
    sampled = replace(trial, cohort=10, rounds=2, sampling="poisson", collector=PrivateMean(noise=1.0))
    assert CanaryClients(60, Streams(0)).scored(sampled).scores.shape == (60, 1)


def _area(scores: ndarray, inside: ndarray) -> float:
    return float(np.mean(scores[inside][:, None] > scores[~inside][None]))


def test_canaries_that_are_out_leave_no_trace(trial: Trial) -> None:
    collector = PrivateMean(noise=1e-9, denominator=20.0)
    canaries = CanaryClients(5, Streams(3))
    none = replace_inside(canaries, np.zeros(5, bool))
    scored = none.scored(replace(trial, rounds=2, collector=collector))
    shorter = replace_inside(CanaryClients(5, Streams(4)), np.zeros(5, bool))
    again = shorter.scored(replace(trial, rounds=2, collector=collector))
    assert not np.allclose(scored.scores, again.scores)  # directions differ
    step = np.abs(scored.scores).max()
    with_all = replace_inside(canaries, np.ones(5, bool)).scored(replace(trial, rounds=2, collector=collector))
    lifted = (with_all.scores[:, 0] - scored.scores[:, 0]) / np.sqrt(650 // 5)  # of unit vectors
    np.testing.assert_allclose(lifted, 2 / 20, atol=0.2 * 2 / 20 + step)  # two rounds, norm 1, denominator 20


def replace_inside(canaries: CanaryClients, inside: ndarray) -> CanaryClients:
    canaries.__dict__["inside"] = inside
    return canaries


def by_records(trial: Trial, noise: float | None, claimed: float, canaries: int = 150) -> Scored:
    work = Phase(batch_size=None, batches="poisson", denominator="expected", clip=1.0, noise=noise)
    planted = CanaryRecords(0, canaries, 1.0, claimed, Streams(0))
    return planted.scored(replace(trial, algorithm=FedAvg(learning_rate=0.1, work=work)))


def test_records_under_honest_noise_are_told_apart_but_not_too_well(trial: Trial) -> None:
    bound = proved(recorded(by_records(trial, 1.0, 1.0), delta=DELTA))
    assert 0.5 < bound < claim(1.0)


def test_records_without_the_noise_that_is_claimed_are_a_violation(trial: Trial) -> None:
    bound = proved(recorded(by_records(trial, None, 10.0), delta=DELTA))
    assert judged(claim(10.0), bound) == "VIOLATION"


def test_one_step_without_noise_gives_the_coins_back(trial: Trial) -> None:
    scored = by_records(replace(trial, rounds=1), None, 1e-6, canaries=60)
    for column in scored.scores.T:  # every record's gradient has coefficient 1 or 0, up to the common length
        assert _area(column, scored.inside) == 1
        spread = column[scored.inside].max() - column[scored.inside].min()
        assert spread < 0.05 * (column[scored.inside].mean() - column[~scored.inside].mean())


# --- turns, trees and ledgers ---------------------------------------------------------------------------------------


def test_a_tree_is_weighed_away_and_only_rounds_of_a_canary_count(few: Trial) -> None:
    """Against the definition, epoch by epoch; an epoch that the training cuts short has a smaller tree."""
    tree = replace(few, epoch=4, rounds=6, collector=DPFTRL(noise=1.0))
    draw = np.random.default_rng(0)
    steps, sent = draw.normal(size=(6, 3)), (draw.random((6, 3)) < 0.4).astype(float)
    signs = np.array([sign(t) for t in range(6)])
    weighed = np.concatenate([np.linalg.inv(step_covariance(len(part))) @ part for part in (steps[:4], steps[4:])])
    np.testing.assert_allclose(_scores(steps, sent, tree), np.stack([signs @ steps, signs @ (sent * weighed)], 1))
    plain = replace(few, rounds=6, collector=PrivateMean())
    np.testing.assert_allclose(_scores(steps, sent, plain)[:, 1], signs @ (sent * steps))


def test_canaries_come_as_often_as_clients_in_an_even_number_of_rounds(few: Trial) -> None:
    tree = replace(few, unseen=np.array([1]), collector=DPFTRL(noise=1.0))
    larger = planted(tree, CanaryClients(60, Streams(0)))
    assert (tree.period, larger.period, larger.rounds, larger.cohort) == (2, 2, 6, 42)


def test_an_epoch_stays_as_long_where_canaries_would_change_it(few: Trial) -> None:
    tree = replace(few, collector=DPFTRL(noise=1.0))
    assert planted(tree, CanaryClients(1, Streams(0))).period == tree.period == 2


def test_who_answers_with_nothing_has_taken_part_all_the_same(few: Trial) -> None:
    """A canary that is out and one that is in are noted alike: the score must not know the coin."""
    everyone = replace(few, rounds=2, cohort=None, sampling="uniform", collector=PrivateMean(noise=1.0))
    larger: Any = planted(everyone, CanaryClients(60, Streams(0)))
    with Session(larger) as session:
        assert len(list(session)) == 2
    assert larger.adversary.sent == {(t, c) for t in range(2) for c in range(60)}


def journal(*rounds: tuple[list[Any], float]) -> Any:
    """Who spent what in each round, all with this chance."""
    spent = [{"clients": who, "sampling": [q] * len(who), "steps": [1] * len(who)} for who, q in rounds]
    return SimpleNamespace(events=[{"event": "round", "private": each} for each in spent])


def test_the_ledger_is_that_of_who_spent_most_of_those_asked_about(few: Trial) -> None:
    found = journal(([0, 5], 1.0), ([0, 6], 1.0), ([0, 6], 1.0))
    private = replace(few, sampling="uniform", collector=PrivateMean(noise=1.0))
    assert ledger(private, found, [5, 6]) == (Release(1.0, 1.0, 2),)
    assert ledger(private, found, [7]) == ()
    assert ledger(replace(few, sampling="uniform"), found, [5]) is None


def test_what_all_have_spent_together_counts_for_each(few: Trial) -> None:
    chance = replace(few, sampling="poisson", collector=PrivateMean(noise=1.0))
    assert ledger(chance, journal(([EVERYONE], 0.5)), [5]) == (Release(1.0, 0.5, 1),)


# --- evidence and certificates --------------------------------------------------------------------------------------


def test_evidence_is_the_order_of_coins_alone() -> None:
    inside = np.array([True, False, True, True] * 25)
    scores = np.random.default_rng(0).normal(size=(100, 2))
    evidence = recorded(Scored(scores, inside), delta=DELTA)
    assert set(evidence) == {"kind", "orders", "each", "ledger", "delta", "confidence"}
    assert evidence["orders"][0] == "".join("01"[int(inside[i])] for i in np.argsort(scores[:, 0], kind="stable"))
    assert proved(evidence) == proved(recorded(Scored(np.exp(scores), inside), delta=DELTA))
    assert tuple(evidence["each"]) == guesses_for(100)


def test_statistics_share_the_level_of_the_bound() -> None:
    """Two that say the same prove what one proves at half the level, and not what one proves at all of it."""
    generator = np.random.default_rng(1)
    inside = generator.random(200) < 0.5
    scores = inside + 0.5 * generator.normal(size=200)
    one, two, four = (proved(recorded(Scored(np.stack([scores] * n, axis=1), inside), delta=DELTA)) for n in (1, 2, 4))
    halved = best_of_one_run(scores, inside, each=guesses_for(200), delta=DELTA, confidence=0.995)
    assert two == pytest.approx(halved)
    assert one > two + 0.05 > four + 0.1 > 0.5


def test_the_level_is_shared_among_numbers_of_guesses_too() -> None:
    inside = np.arange(200) >= 100
    scores = np.arange(200.0)
    scores[:5], scores[-5:] = 300, -300
    alone = from_one_run(guesses(scores, inside, 40), delta=DELTA, confidence=0.9975)
    assert best_of_one_run(scores, inside, each=(1, 2, 3, 40), delta=DELTA, confidence=0.99) == pytest.approx(alone)
    assert alone < from_one_run(guesses(scores, inside, 40), delta=DELTA, confidence=0.99) - 0.05


def test_what_is_no_evidence_is_refused() -> None:
    sound = recorded(Scored(np.arange(40.0)[:, None], np.arange(40) % 2 == 0), delta=DELTA)
    for changed in ({"orders": ["01x1"]}, {"each": [1]}, {"confidence": 0.0}, {"orders": []}, {"orders": [""]}):
        with pytest.raises(StoreError, match="cannot be read"):
            proved(sound | changed)


def test_local_noise_is_audited_on_single_messages(trial: Trial) -> None:
    bounds = {}
    for real in (10.0, 1.0):
        played = replace(trial, stages=(Clip(norm=1.0), GaussianNoise(deviation=real)))
        row = audited_epsilon(played, 0, Streams(0), canaries=100)
        assert row is not None
        assert row["attack"] == "canary updates"
        bounds[real] = row["bound"]
        assert row["epsilon"] == pytest.approx(claim(real / 2), abs=2e-4)  # replaced: twice the norm
    assert bounds[10.0] < claim(5.0) < bounds[1.0] + 10
    assert bounds[1.0] > bounds[10.0]


def test_rows_of_records_and_users_hold_their_claim(trial: Trial) -> None:
    users = audited_epsilon(replace(trial, collector=PrivateMean(noise=4.0)), 0, Streams(1), canaries=100)
    work = Phase(batch_size=None, batches="poisson", denominator="expected", clip=1.0, noise=4.0)
    private = replace(trial, algorithm=FedAvg(learning_rate=0.1, work=work))
    records = audited_epsilon(private, 0, Streams(1), canaries=100)
    for row, unit, view in ((users, "user", "models_of_all_rounds"), (records, "record", "eavesdropper")):
        assert row is not None
        assert (row["unit"], row["view"]) == (unit, view)
        assert row["epsilon"] == pytest.approx(claim(4.0), abs=2e-4)
        assert row["verdict"] in ("consistent", "no power")
        assert proved(row["evidence"]) == row["bound"]
    assert audited_epsilon(trial, 0, Streams(1)) is None


NOISE = {5.0: 3.9891, 0.5: 31.5}
"""Of twenty rounds that spend this epsilon."""


@pytest.mark.parametrize(
    ("orders", "spends", "verdict"),
    [("0" * 50 + "1" * 50, 5.0, "holds"), ("0" * 50 + "1" * 50, 0.5, "fails"), ("01" * 50, 0.5, "no_power")],
)
def test_the_certificate_is_computed_from_the_evidence(
    orders: str, spends: float, verdict: str, tmp_path: Path
) -> None:
    inside = np.array([letter == "1" for letter in orders])
    ledger = (Release(NOISE[spends], 1.0, 20),)
    evidence = recorded(Scored(np.arange(100.0)[:, None], inside, ledger), delta=DELTA)
    row = {"unit": "user", "epsilon": claimed(evidence), "bound": proved(evidence), "evidence": evidence}
    assert row["epsilon"] == pytest.approx(spends, abs=0.01)
    record = RunRecord.create(tmp_path, "x", {"name": "x"})
    check = partial(CHECKS.get("epsilon_audited"), record, method="fedavg", seed=0)
    _keep(record, row)
    found = check(unit="user")
    assert found.verdict == verdict
    assert (found.measured, found.reference) == (row["bound"], row["epsilon"])
    with pytest.raises(StoreError, match="no canaries for records"):
        check(unit="record")
    for forged in ({"epsilon": 50.0}, {"bound": 0.1}):
        _keep(record, row | forged)
        assert check(unit="user").verdict == "fails"


def _keep(record: RunRecord, row: dict[str, object]) -> None:
    record.write_audit({"method": "fedavg", "seed": 0, "attacks": [], "epsilon": [row], "certificates": []})
