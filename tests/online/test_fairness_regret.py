"""Fair optima against grids and closed forms; regret is the sum of its parts; severities against brute force."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.sets import Box, CappedSimplex, Simplex
from rivage.core.certificates import CHECKS
from rivage.core.errors import RivageError, ShapeError, StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.online.fair_benchmarks import horizon_optimum, price_of_fairness, slot_optimum
from rivage.online.fair_checks import (
    fairness_bound,
    fairness_regret,
    fairness_severity,
    multipliers_in_box,
    severity_falls,
    severity_rates,
)
from rivage.online.fair_game import play_fair, utilities_of
from rivage.online.fair_records import fair_games, part_event
from rivage.online.fair_regret import (
    FairSums,
    FairTerms,
    budgeted_severity,
    explain,
    partitioned_severity,
    severity,
)
from rivage.online.fairness import OHF, AlphaFairness, FairInstance
from rivage.online.utilities import CappedSums, Seen, mean_utilities


def linear(rows: list[list[float]], offset: list[float]) -> CappedSums:
    count = len(rows)
    return CappedSums(
        rows=np.array(rows, float),
        owner=np.arange(count),
        weights=np.ones(count),
        caps=np.full(count, np.inf),
        agents=count,
        offset=np.array(offset, float),
    )


class Plain:
    """Utilities that show no terms, so that only supergradients are known."""

    def __init__(self, hidden: CappedSums) -> None:
        self.hidden = hidden

    def at(self, x: np.ndarray) -> Seen:
        return self.hidden.at(x)


class Roots:
    """u_i = √(a_i x_i + 0.01)."""

    a = np.array([1.0, 2.0, 3.0])

    def at(self, x: np.ndarray) -> Seen:
        values = np.sqrt(self.a * x + 0.01)
        return Seen(values, np.diag(self.a / (2 * values)))


TOY = (linear([[1.0], [-1.0]], [1.0, 1.0]), linear([[1.0], [1.0]], [1.0, 1.0]))
SEGMENT = Box(np.zeros(1), np.array([0.9]))
INSTANCE = FairInstance(set=SEGMENT, agents=2, least=0.1, most=2.0)


# --- optima -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_toy_optima(known: bool) -> None:
    """online-learning.md C1: the horizon-fair x is 0.9, the slot-fair one 1/2 (3/(1 + x) = 1/(1 − x))."""
    slots = TOY if known else tuple(Plain(slot) for slot in TOY)
    horizon = horizon_optimum(SEGMENT, slots, 1.0)
    assert horizon.x[0] == pytest.approx(0.9, abs=1e-6)
    np.testing.assert_allclose(horizon.utilities, [1.9, 1.0], atol=1e-6)
    slot = slot_optimum(SEGMENT, slots, 1.0, tolerance=1e-8)
    assert slot.x[0] == pytest.approx(0.5, abs=1e-3)
    assert slot.value == pytest.approx(1.5 * np.log(1.5) + 0.5 * np.log(0.5), abs=1e-7)
    assert horizon.gap <= 1e-6
    assert slot.gap <= 1e-6


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_optimum_of_smooth_utilities_is_that_of_a_fine_grid(alpha: float) -> None:
    found = horizon_optimum(Simplex(3), Roots(), alpha)
    steps = np.linspace(0, 1, 101)
    grid = [np.array([a, b, 1 - a - b]) for a in steps for b in steps if a + b <= 1 + 1e-12]
    best = max(AlphaFairness(alpha).value(Roots().at(np.maximum(x, 0)).values) for x in grid)
    assert best <= found.upper + 1e-9, "the upper bound holds for every allocation"
    assert found.value >= best - 1e-6
    assert found.gap <= 1e-6


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_no_allocation_beats_the_upper_bound(seed: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    utilities = CappedSums(
        rows=rng.random((8, 5)),
        owner=np.arange(8) % 2,
        weights=rng.random(8),
        caps=rng.random(8) * 2,
        agents=2,
        offset=np.full(2, 0.05),
    )
    feasible = CappedSimplex(5, 2)
    exact = horizon_optimum(feasible, utilities, alpha)
    cut_short = horizon_optimum(feasible, Plain(utilities), alpha, rounds=4)
    assert exact.gap <= 1e-6
    assert cut_short.value - 1e-6 <= exact.value <= cut_short.upper + 1e-6
    for y in rng.random((20, 5)):
        tried = AlphaFairness(alpha).value(utilities.at(feasible.project(3 * y)).values)
        assert tried <= exact.upper + 1e-6


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_disagreement_points_are_taken_off(alpha: float) -> None:
    """u = (x1, x2) on the simplex; with points d the bargaining solution shares what is left: d + (1 − Σ d)/2."""
    points = np.array([0.1, 0.4])
    both = linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    for utilities in (both, Plain(both)):
        found = horizon_optimum(Simplex(2), utilities, alpha, disagreement=points, tolerance=1e-8)
        np.testing.assert_allclose(found.utilities, [0.35, 0.65], atol=2e-3)
        assert found.gap <= 1e-6


def test_what_nobody_disagrees_with_does_not_matter_and_what_cannot_be_had_is_refused() -> None:
    mean = mean_utilities(TOY)
    same = horizon_optimum(SEGMENT, mean, 1.0, disagreement=np.zeros(2))
    assert same.value == pytest.approx(horizon_optimum(SEGMENT, mean, 1.0).value)
    with pytest.raises(RivageError, match="disagreement"):
        horizon_optimum(SEGMENT, mean, 1.0, disagreement=np.array([0.0, 3.0]))


def test_price_of_fairness() -> None:
    """One machine, u = (x, 2 (1 − x)): all to agent 2 gives 2, equal utilities 4/3, so the price tends to a third."""
    machine = linear([[1.0], [-2.0]], [0.0, 2.0])
    best = horizon_optimum(Box(np.zeros(1), np.ones(1)), machine, 0.0)
    prices = [
        price_of_fairness(best.utilities, horizon_optimum(Box(np.zeros(1), np.ones(1)), machine, alpha).utilities)
        for alpha in (1.0, 4.0, 8.0)
    ]
    assert best.utilities.sum() == pytest.approx(2.0)
    assert prices[0] == pytest.approx(0.25, abs=2e-3), "x = 1/2 maximises x · 2 (1 − x)"
    assert prices == sorted(prices)
    assert prices[-1] == pytest.approx(1 / 3, abs=0.015)


# --- regret and its parts ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]),
    st.sampled_from(["paper", "theory"]),
    st.sampled_from(["sum", "separate"]),
)
def test_regret_is_the_sum_of_its_parts_and_below_its_bound(seed: int, alpha: float, step: str, norms: str) -> None:
    """For any utilities and any comparator, also out of the range of utilities."""
    rng = np.random.default_rng(seed)
    low = 0.02 if seed % 2 else 0.3  # of utilities; the range is told to begin at 0.2
    slots = [
        CappedSums(
            rows=rng.random((6, 4)),
            owner=np.arange(6) % 3,
            weights=0.3 * rng.random(6),
            caps=rng.random(6) * 2,
            agents=3,
            offset=np.full(3, low),
        )
        for _ in range(25)
    ]
    instance = FairInstance(set=CappedSimplex(4, 2), agents=3, least=0.2, most=1.0)
    policy = OHF(alpha=alpha, dual_step=step, norms=norms)  # type: ignore[arg-type]
    played = play_fair(policy, instance, slots)
    other = utilities_of(instance.set.project(rng.random(4) * 3), slots)
    parts = explain(policy, instance, played, other)
    total = parts.primal + parts.dual + parts.drift - parts.slack + parts.beyond
    assert parts.regret == pytest.approx(total, abs=1e-9)
    assert parts.slack >= -1e-9
    assert parts.beyond >= -1e-9
    assert parts.primal <= parts.primal_bound + 1e-9
    assert parts.dual <= parts.dual_bound + 1e-9
    assert parts.regret <= parts.bound + 1e-9
    assert parts.bound == pytest.approx(parts.primal_bound + parts.dual_bound + parts.drift + parts.beyond)
    terms = FairTerms.of(policy, instance)
    first, second = (
        FairSums.of(terms, played.utilities[part], played.multipliers[part], other[part], part.start)
        for part in (slice(0, 7), slice(7, 25))
    )
    told = FairSums.from_dict((first + second).as_dict())
    found = told.bounded(FairTerms.from_dict(asdict(terms)), played.squares)
    assert found.regret == pytest.approx(parts.regret)
    assert found.bound == pytest.approx(parts.bound)


def swinging(agents: int, slots: int) -> list[CappedSums]:
    """u = 0.5 ± 0.4 x for all agents alike: what they pull adds up."""
    kinds = [linear([[slope]] * agents, [0.5] * agents) for slope in (0.4, -0.4)]
    return [kinds[t % 2] for t in range(slots)]


@pytest.mark.parametrize("norms", ["sum", "separate"])
@pytest.mark.parametrize("agents", [1, 4, 12])
def test_the_bound_holds_where_all_agents_pull_alike(agents: int, norms: str) -> None:
    """Steps from separate norms are then √agents too long: with 12 agents the regret is 3.4 times 3 D √G."""
    instance = FairInstance(set=Box(np.full(1, -1.0), np.ones(1)), agents=agents)
    policy, slots = OHF(alpha=0.0, norms=norms), swinging(agents, 400)  # type: ignore[arg-type]
    played = play_fair(policy, instance, slots)
    parts = explain(policy, instance, played, utilities_of(np.zeros(1), slots))
    assert 0 < parts.primal <= parts.primal_bound
    assert parts.regret <= parts.bound + 1e-12


def test_a_part_of_a_game_has_no_bound_of_its_own() -> None:
    """Its steps, and what they add up, began before it."""
    slots, policy = [TOY[t % 2] for t in range(20)], OHF()
    first = play_fair(policy, INSTANCE, slots[:8])
    rest = play_fair(policy, INSTANCE, slots[8:], state=first.state)
    best = horizon_optimum(SEGMENT, slots, 1.0)
    explain(policy, INSTANCE, first, utilities_of(best.x, slots[:8]))
    with pytest.raises(ShapeError, match="8 slots of the game were played before these 12"):
        explain(policy, INSTANCE, rest, utilities_of(best.x, slots[8:]))


def test_the_comparator_has_no_regret_against_itself() -> None:
    slots = [TOY[t % 2] for t in range(10)]
    instance = FairInstance(set=Box(np.full(1, 0.9), np.full(1, 0.9)), agents=2, least=0.1, most=2.0)
    played = play_fair(OHF(), instance, slots)
    parts = explain(OHF(), instance, played, utilities_of(np.array([0.9]), slots))
    assert parts.regret == pytest.approx(0.0, abs=1e-12)
    assert parts.primal == 0.0


# --- severity ---------------------------------------------------------------------------------------------------------


def every_partition(deviations: np.ndarray) -> float:
    slots = len(deviations)
    costs = []
    for count in range(slots):
        for inner in combinations(range(1, slots), count):
            ends = [0, *inner, slots]
            costs.append(
                sum(np.abs(deviations[a:b].sum(axis=0)).sum() + (b - a) ** 2 / (a + 1) for a, b in pairwise(ends))
            )
    return float(min(costs))


@settings(deadline=None)  # the kernel is compiled on first use
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(1, 3), st.sampled_from([0.1, 1.0, 10.0]))
def test_partitioned_severity_is_the_least_over_all_partitions(seed: int, slots: int, agents: int, size: float) -> None:
    deviations = size * np.random.default_rng(seed).normal(size=(slots, agents))
    assert partitioned_severity(deviations) == pytest.approx(every_partition(deviations))
    singles = budgeted_severity(deviations) + sum(1 / (t + 1) for t in range(slots))
    assert partitioned_severity(deviations) <= singles + 1e-9, "single slots are a partition"


def test_periodic_utilities_have_vanishing_severity_and_a_flip_has_not() -> None:
    rates = {}
    for slots in (500, 2000, 8000):
        signs = np.where(np.arange(slots) % 2, 1.0, -1.0)
        flip = np.where(np.arange(slots) < slots // 2, 1.0, -1.0)
        rates[slots] = tuple(severity(np.stack([1 + 0.5 * s, 1 - 0.5 * s], axis=1)).rate for s in (signs, flip))
    assert rates[2000][0] < 0.4 * rates[500][0]
    assert rates[8000][0] < 0.4 * rates[2000][0]
    assert rates[8000][1] > 0.9 * rates[500][1] > 0.1


# --- an adversary that no policy withstands ---------------------------------------------------------------------------

FIRST = linear([[0.9], [-0.9]], [0.1, 1.0])
LATER = (linear([[0.0], [0.0]], [1.0, 0.1]), linear([[0.0], [0.0]], [0.1, 1.0]))
LEAST_GAP = -np.log(1 - (9 / 22) ** 2)  # 0.1832


@pytest.mark.parametrize("policy", [OHF(alpha=1.0), OHF(alpha=1.0, start="middle"), None])
def test_one_of_two_continuations_leaves_a_gap(policy: OHF | None) -> None:
    """online-learning.md C5. For T/2 slots u = (0.1 + 0.9 x, 1 − 0.9 x), then whatever x, (1, 0.1) or (0.1, 1).

    The optimum is x = 0 or x = 1, both with mean utilities (0.55, 0.55). A policy with mean x̄ in the first half has
    (0.55 + 0.45 x̄, 0.55 − 0.45 x̄), or the same with 1 − x̄, and one of the two is at least 1/2:
    gap >= −ln(1 − (0.45/0.55)²/4). The gap is there for T = 500 and T = 2000 alike, and so is min(V_T, W_T)/T.
    """
    feasible = Box(np.zeros(1), np.ones(1))
    instance = FairInstance(set=feasible, agents=2)
    for half in (250, 1000):
        gaps, rates = [], []
        for later in LATER:
            slots = [FIRST] * half + [later] * half
            best = horizon_optimum(feasible, slots, 1.0)
            np.testing.assert_allclose(best.utilities, [0.55, 0.55], atol=1e-6)
            if (
                policy is None
            ):  # any other sequence does: here the fixed allocation in the middle, for which it is tight
                average = utilities_of(np.array([0.5]), slots).mean(axis=0)
            else:
                average = play_fair(policy, instance, slots).average
            gaps.append(best.value - AlphaFairness(1.0).value(average))
            rates.append(severity(utilities_of(best.x, slots)).rate)
        assert max(gaps) >= LEAST_GAP - 1e-6
        assert min(rates) > 0.4
    if policy is None:
        assert max(gaps) == pytest.approx(LEAST_GAP, abs=1e-6)


# --- certificates -----------------------------------------------------------------------------------------------------


def record_of(
    folder: Path, slots: list[CappedSums], policy: OHF, whole: bool = True, **changed: np.ndarray
) -> RunRecord:
    """A run of one policy with one seed, in parts of 100 slots; ``changed`` are tables that are not what was played."""
    record = RunRecord.create(folder, "toy", {"policies": [{"kind": "ohf"}]})
    trial = TrialRecord.open(record.trial_folder("ohf", 0))
    best, played = horizon_optimum(SEGMENT, slots, policy.alpha), play_fair(policy, INSTANCE, slots)
    tables = {"utilities": played.utilities, "multipliers": played.multipliers}
    tables = {**tables, "comparator": utilities_of(best.x, slots), **changed}
    terms = FairTerms.of(policy, INSTANCE)
    facts = {"method": "ohf", "seed": 0, "disagreement": [0.0, 0.0], "judge": policy.alpha, "terms": asdict(terms)}
    trial.append({"event": "start", **facts})
    trial.append({"event": "optimum", "judge": {"upper": best.upper}})
    for first in range(0, len(slots), 100):
        part = [table[first : first + 100] for table in tables.values()]
        trial.append(part_event(FairSums.of(terms, *part, first), *part, first, whole))  # type: ignore[call-arg,arg-type]
    mean = tables["utilities"].mean(axis=0).tolist()
    trial.append({"event": "point", "slots": len(slots), "utilities": mean, "squares": played.squares})
    trial.append({"event": "end"})
    return record


@pytest.mark.parametrize("whole", [True, False])
def test_certificates_of_an_honest_game_hold(tmp_path: Path, whole: bool) -> None:
    slots, policy = [TOY[t % 2] for t in range(850)], OHF(alpha=1.0)
    record = record_of(tmp_path, slots, policy, whole)
    regret, bound, box = (
        check(record, method="ohf") for check in (fairness_regret, fairness_bound, multipliers_in_box)
    )
    played, best = play_fair(policy, INSTANCE, slots), horizon_optimum(SEGMENT, slots, 1.0)
    parts = explain(policy, INSTANCE, played, utilities_of(best.x, slots))
    assert regret.kind == "gap"
    assert regret.reference - regret.measured == pytest.approx(parts.regret, abs=1e-6)
    assert regret.verdict == bound.verdict == box.verdict == "holds"
    assert bound.measured == pytest.approx(parts.regret)
    assert bound.reference == pytest.approx(parts.bound)
    hope = fairness_severity(record, method="ohf")
    assert hope.verdict == ("holds" if whole else "no_power"), "sums do not say how hard the utilities were"
    for certificate in (regret, bound, box):
        assert CHECKS.get(certificate.check)(record, **certificate.fields) == certificate


def test_tables_are_kept_to_the_last_bit(tmp_path: Path) -> None:
    slots = [TOY[t % 2] for t in range(250)]
    (game,) = fair_games(record_of(tmp_path, slots, OHF(alpha=1.0)), "ohf")
    comparator = utilities_of(horizon_optimum(SEGMENT, slots, 1.0).x, slots)
    np.testing.assert_array_equal(game.comparator, comparator)


def test_an_unfinished_game_has_no_certificates(tmp_path: Path) -> None:
    record = record_of(tmp_path, [TOY[0]] * 8, OHF(alpha=1.0))
    path = record.trial("ohf", 0).folder / "record.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    for check in (fairness_bound, fairness_regret, fairness_severity, multipliers_in_box):
        with pytest.raises(StoreError, match="not been played to the end"):
            check(record, method="ohf")


def lines_of(record: RunRecord) -> tuple[Path, list[dict[str, Any]]]:
    path = record.trial("ohf", 0).folder / "record.jsonl"
    return path, [json.loads(line) for line in path.read_text().splitlines()]


def rewritten(record: RunRecord, path: Path, lines: list[dict[str, Any]]) -> RunRecord:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return RunRecord.open(record.folder)


@pytest.mark.parametrize("whole", [True, False])
def test_a_record_that_lost_or_changed_a_part_is_refused(tmp_path: Path, whole: bool) -> None:
    record = record_of(tmp_path, [TOY[t % 2] for t in range(250)], OHF(alpha=1.0), whole)
    path, lines = lines_of(record)
    part = next(place for place, line in enumerate(lines) if line["event"] == "part")
    lost = [*lines[:part], *lines[part + 1 :]]
    changed = json.loads(json.dumps(lines))
    if whole:
        changed[part]["utilities"][0][0] += 1e-3
    else:
        changed[part]["sums"]["utilities"][0] += 1e-3
    for tampered in (lost, changed):
        with pytest.raises(StoreError, match="contradict"):
            fairness_bound(rewritten(record, path, tampered), method="ohf")


def test_a_broken_promise_fails(tmp_path: Path) -> None:
    record = record_of(tmp_path, [TOY[t % 2] for t in range(250)], OHF(alpha=1.0))
    path, lines = lines_of(record)
    for line in lines:  # what was played gives far less than the record's steps allow
        if line["event"] == "part":
            line["utilities"] = [[0.2 * each for each in row] for row in line["utilities"]]
            line["multipliers"] = [[1.0 for _ in row] for row in line["multipliers"]]
        if line["event"] == "point":
            line["utilities"], line["squares"] = [0.2 * each for each in line["utilities"]], 1e-6
    record = rewritten(record, path, lines)
    assert fairness_bound(record, method="ohf").verdict == "fails"


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_multipliers_beyond_either_end_of_their_box_fail(tmp_path: Path, factor: float) -> None:
    slots, policy = [TOY[t % 2] for t in range(20)], OHF(alpha=1.0)
    low, high = FairTerms.of(policy, INSTANCE).box
    weights = np.full((20, 2), low if factor < 1 else high) * factor
    assert multipliers_in_box(record_of(tmp_path, slots, policy, multipliers=weights), method="ohf").verdict == "fails"


def test_fewer_than_eight_slots_do_not_tell_whether_fairness_can_be_learnt(tmp_path: Path) -> None:
    for slots, verdict in ((1, "no_power"), (7, "no_power"), (8, "holds")):
        record = record_of(tmp_path / str(slots), [TOY[0]] * slots, OHF(alpha=1.0))
        assert fairness_severity(record, method="ohf").verdict == verdict, slots


def severity_of(comparator: np.ndarray) -> str:
    """The verdict for these utilities, whoever played."""
    return "holds" if severity_falls(severity_rates(comparator)) else "no_power"


def walk(random: np.random.Generator, slots: int) -> np.ndarray:
    steps = random.normal(0, 3 / slots**0.5, (slots, 2))
    return np.asarray(np.abs((np.cumsum(steps, axis=0) + random.random(2)) % 2 - 1))


def season(random: np.random.Generator, slots: int) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * (random.uniform(0.5, 4) * np.arange(slots) / slots + random.random()))
    return np.stack([0.5 + wave, 0.5 - wave], axis=1) + 0.1 * random.random((slots, 2))


def late(random: np.random.Generator, slots: int) -> np.ndarray:
    utilities = 0.3 * random.random((slots, 2))
    utilities[int(slots * random.uniform(0.1, 0.95)) :, 0] += 0.7
    return utilities


def doubling(random: np.random.Generator, slots: int) -> np.ndarray:
    block = np.floor(np.log2(np.arange(slots) + 1 + random.integers(0, 9))).astype(int) % 2
    return np.array([[0.1, 1.0], [1.0, 0.1]])[block] + 0.1 * random.random((slots, 2))


@pytest.mark.parametrize(("make", "falls"), [(walk, 30), (season, 15), (late, 8), (doubling, 0)])
def test_severity_that_is_linear_hardly_holds_by_chance(make: Callable[..., np.ndarray], falls: int) -> None:
    """That it has just fallen is no evidence: it has at some time in every sequence. Measured: 2 % of walks hold."""
    holds = fell = 0
    for seed in range(60):
        utilities = make(np.random.default_rng(seed), 400)
        holds += severity_of(utilities) == "holds"
        fell += severity(utilities).rate <= 0.9 * severity(utilities[:200]).rate
    assert holds <= (3 if make is walk else 0)
    assert fell >= falls


@pytest.mark.parametrize("slots", [400, 1500])
def test_severity_of_independent_and_of_periodic_utilities_vanishes(slots: int) -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        assert severity_of(random.random((slots, 2))) == "holds"
        assert severity_of(np.tile(random.random((7, 2)), (slots // 7, 1))) == "holds"
    assert severity_of(np.full((slots, 2), 0.5)) == "holds"


@pytest.mark.parametrize("slots", [1, 2, 5, 15])
def test_a_few_slots_show_nothing(slots: int) -> None:
    verdicts = [severity_of(np.random.default_rng(seed).random((slots, 2))) for seed in range(20)]
    assert verdicts.count("holds") <= (20 if slots == 1 else 0)


def test_certificates_tell_what_is_wrong(tmp_path: Path) -> None:
    turned = [FIRST] * 200 + [LATER[0]] * 200
    assert fairness_severity(record_of(tmp_path / "a", turned, OHF(alpha=1.0)), method="ohf").verdict == "no_power"
    weights = np.ones((400, 2))
    weights[7, 1] = 11.0 / 0.1
    heavy = multipliers_in_box(record_of(tmp_path / "b", turned, OHF(alpha=1.0), multipliers=weights), method="ohf")
    assert heavy.verdict == "fails"
    assert heavy.measured == pytest.approx(100.0)
    slots = [TOY[t % 2] for t in range(800)]
    more = np.full((800, 2), 2.0)  # than any allocation gives
    better = record_of(tmp_path / "c", slots, OHF(alpha=1.0), utilities=more)
    assert fairness_regret(better, method="ohf").verdict == "holds"
    other = np.full((800, 2), 0.2)  # not what the multipliers were made for
    worse = record_of(tmp_path / "d", slots, OHF(alpha=1.0), utilities=other)
    assert fairness_bound(worse, method="ohf").verdict == "fails"


def test_a_bound_that_nobody_can_break_shows_nothing(tmp_path: Path) -> None:
    """After a few slots it is larger than what all would lose who only ever had u_min."""
    assert (
        fairness_bound(record_of(tmp_path, [TOY[t % 2] for t in range(3)], OHF()), method="ohf").verdict == "no_power"
    )
