"""Runs of policies that share something: records, certificates, resuming, demands from files, what cannot be played."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.sets import Product, Simplex
from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError, RivageError
from rivage.core.integrity import changes
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.settings import dump
from rivage.core.store import write_table
from rivage.core.toml import format_toml
from rivage.online import fair_records
from rivage.online.demands import DemandTable
from rivage.online.fair_benchmarks import horizon_optimum, slot_optimum
from rivage.online.fair_game import play_fair, utilities_of
from rivage.online.fair_regret import explain
from rivage.online.fairness import OHF, OSF, AlphaFairness, FairInstance, FairPolicy
from rivage.online.utilities import CappedSums
from rivage.studies.claims.fairness import PUBLISHED
from rivage.studies.games import sharing_stage
from rivage.studies.games.sharing import SharingPlay
from rivage.studies.games.sharing_stage import SharingStage
from rivage.studies.play import play_study
from rivage.studies.play_settings import parse_play

STUDY = """
name = "toy"
sharing = { alpha = 2.0, budget = 1.0 }
demand = { kind = "stationary", means = { a = 0.5, b = 0.8, c = 0.3 }, slots = 210 }
policies = [{ kind = "ohf" }, { kind = "osf" }, { kind = "even" }, { kind = "hf" }]
run = { seeds = [0, 1], points = 10 }
"""
POINTS = 10 * 4 * 2


def study(**replaced: str) -> SharingPlay:
    text = STUDY
    for key, value in replaced.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}".replace("\\", r"\\"), text, flags=re.MULTILINE)
        assert count == 1
    made = parse_play(text)
    assert isinstance(made, SharingPlay)
    return made


def stage(seed: int = 0, **replaced: str) -> SharingStage:
    return SharingStage.build(study(**replaced), seed)


class Watch:
    """Keeps what it sees, and may stop the run at one of the points."""

    def __init__(self, stop: int = -1) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.stop = stop

    def on_event(self, event: Mapping[str, Any]) -> None:
        self.events.append(event)
        if len([e for e in self.events if e["event"] == "point"]) == self.stop:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return play_study(study(), out=tmp_path_factory.mktemp("runs"))


# --- demands ----------------------------------------------------------------------------------------------------------


def random_table(seed: int, form: str, slots: int = 30) -> DemandTable:
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0.05, 1.0, (slots, 3))
    return DemandTable(rng.random((slots, 3)) + 0.1, levels, rng.random((2, 3)) + 0.1, form)  # type: ignore[arg-type]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["capped", "log"]))
def test_a_table_is_its_slots(seed: int, form: str) -> None:
    """Means and sums without a loop, slot by slot, and the formula; supergradients lie above."""
    table, rng = random_table(seed, form), np.random.default_rng(seed + 1)
    x, y = (Product((Simplex(3), Simplex(3))).project(rng.normal(size=6)) for _ in range(2))
    work = (table.gains * x.reshape(2, 3)).sum(axis=0)
    served = np.minimum(work, table.levels) if form == "capped" else np.log(1 + work / table.levels)
    np.testing.assert_allclose(table.given(x), table.weights * served, rtol=1e-12)
    np.testing.assert_array_equal(utilities_of(x, table), table.given(x))
    seen = [slot.at(x) for slot in table]
    mean = table.mean.at(x)
    np.testing.assert_allclose(mean.values, np.mean([each.values for each in seen], axis=0), rtol=1e-12)
    np.testing.assert_allclose(mean.gradients, np.mean([each.gradients for each in seen], axis=0), rtol=1e-12)
    assert (mean.values + mean.gradients @ (y - x) >= table.mean.at(y).values - 1e-12).all()
    np.testing.assert_array_equal(table[7:9].given(x), table.given(x)[7:9])


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_a_table_has_the_optimum_of_its_linear_programme(alpha: float) -> None:
    """The same demands as `CappedSums`, whose linear programme is exact."""
    table, feasible = random_table(3, "capped"), Product((Simplex(3), Simplex(3)))
    rows = np.hstack([np.diag(gains) for gains in table.gains])
    slots = [
        CappedSums(rows=rows, owner=np.arange(3), weights=weights, caps=levels, agents=3)
        for weights, levels in zip(table.weights, table.levels, strict=True)
    ]
    exact, found = horizon_optimum(feasible, slots, alpha), horizon_optimum(feasible, table.mean, alpha)
    assert found.gap <= 1e-6
    assert found.value == pytest.approx(exact.value, abs=2e-6)
    slotwise = slot_optimum(feasible, slots, alpha)
    welfare = table.slot_welfare(alpha, 1e-3, np.zeros(3))
    other = horizon_optimum(feasible, welfare, 0.0)
    value = AlphaFairness(alpha).each(table.given(other.x)).sum(axis=1).mean()
    assert value == pytest.approx(slotwise.value, abs=1e-5), "all utilities are above the least one"


def test_slots_without_a_wish_do_not_forbid_every_allocation() -> None:
    """Below the least utility the welfare goes on as a line, which is what OSF ascends."""
    table = random_table(4, "capped")
    table.weights[::3, 1] = 0.0
    x = np.full(6, 1 / 3)
    welfare, step = table.slot_welfare(2.0, 0.1, np.zeros(3)), 1e-7
    seen = welfare.at(x)
    assert (seen.values >= 0).all()
    for agent in range(3):
        moved = x.copy()
        moved[agent] += step
        slope = (welfare.at(moved).values[agent] - seen.values[agent]) / step
        assert slope == pytest.approx(seen.gradients[agent, agent], rel=1e-3)
    weighed = np.maximum(table.given(x), 0.1) ** -2.0
    own = np.mean([slot.at(x).gradients[1] * weight[1] for slot, weight in zip(table, weighed, strict=True)], axis=0)
    np.testing.assert_allclose(seen.gradients[1], own, rtol=1e-12)


# --- records ----------------------------------------------------------------------------------------------------------


def test_a_study_is_its_settings() -> None:
    for sharing in (
        "{ alpha = 0.5, budget = { gpu = 2.0, cpu = 8.0 }, rates = { a = { gpu = 3.0 }, b = 2.0 }, largest = 0.6 }",
        '{ disagreement = { a = 0.1 }, unit = "given", least = 0.01, most = 3.0 }',
    ):
        made = study(sharing=sharing, policies='[{ kind = "ohf", alpha = 3.0 }, { kind = "sf" }]')
        assert parse_play(format_toml(dump(made))) == made


def test_a_trial_per_policy_and_seed(whole: RunRecord) -> None:
    assert [(t.method, t.seed) for t in whole.trials] == [
        (name, seed) for name in ("ohf", "osf", "even", "hf") for seed in (0, 1)
    ]
    for trial in whole.trials:
        kinds = [event["event"] for event in trial.events()]
        parts = ["part", "point"] if trial.method == "ohf" else ["point"]
        bounded = ["bounded"] if trial.method == "ohf" else []
        assert kinds == ["start", "optimum", *parts * 10, *bounded, "end"]
        assert not any("seconds" in event for event in trial.events()), "no clock in what is hashed"
        assert trial.timings[0]["slots"] == 210
    prints = {(trial.seed, trial.start["fingerprint"]) for trial in whole.trials}
    assert len(prints) == 2, "policies of one seed meet the same demands"


def test_the_record_says_what_the_loop_says(whole: RunRecord) -> None:
    """Played by hand: demands, units, policies, optimum and regret."""
    demands = Streams(1).child("demand").numpy("demand").uniform(0.5, 1.5, (210, 3)) * [0.5, 0.8, 0.3]
    units = np.minimum(1.0, demands).mean(axis=0)
    slots = [
        CappedSums(rows=np.eye(3), owner=np.arange(3), weights=1 / units, caps=wanted, agents=3) for wanted in demands
    ]
    instance = FairInstance(set=Simplex(3), agents=3)
    best = horizon_optimum(Simplex(3), slots, 2.0)
    policies: dict[str, FairPolicy] = {"ohf": OHF(alpha=2.0), "osf": OSF(alpha=2.0)}
    for name, policy in policies.items():
        played, trial = play_fair(policy, instance, slots), whole.trial(name, 1)
        end = trial.events("point")[-1]
        np.testing.assert_allclose(end["utilities"], played.average, rtol=1e-9)
        assert end["welfare"] == pytest.approx(AlphaFairness(2.0).value(played.average))
        np.testing.assert_allclose(end["shares"]["budget"], played.mean, rtol=1e-9)
        assert trial.events("optimum")[0]["judge"]["welfare"] == pytest.approx(best.value, abs=2e-6)
    played, x = play_fair(OHF(alpha=2.0), instance, slots), stage(1).scene.horizon(2.0).x
    parts = explain(OHF(alpha=2.0), instance, played, utilities_of(x, slots))
    bounded = whole.trial("ohf", 1).events("bounded")[0]
    assert bounded["regret"] == pytest.approx(parts.regret, abs=1e-9)
    assert bounded["bound"] == pytest.approx(parts.bound)


def test_the_summary_and_its_certificates(whole: RunRecord) -> None:
    summary = whole.summary
    ohf, hf = summary["policies"]["ohf"], summary["policies"]["hf"]
    ends = [whole.trial("ohf", seed).events("point")[-1] for seed in (0, 1)]
    assert ohf["welfare"] == pytest.approx(np.mean([end["welfare"] for end in ends]))
    assert ohf["gain"] == pytest.approx(np.mean([sum(end["utilities"]) for end in ends]))
    assert ohf["utilities"] == pytest.approx(
        dict(zip("abc", np.mean([end["utilities"] for end in ends], axis=0), strict=True))
    )
    assert ohf["worst_agent"] == min("abc", key=lambda agent: ohf["utilities"][agent])
    assert ohf["least_utility"] == min(ohf["utilities"].values())
    assert ohf["regret"] <= ohf["regret_bound"]
    assert (hf["foresees"], hf["regret_bound"]) == (True, None)
    assert abs(hf["regret"]) < 1e-9
    assert summary["policies"]["even"]["shares"]["budget"] == pytest.approx(dict.fromkeys("abc", 1 / 3))
    assert summary["fairest_fixed"]["utilities"] == pytest.approx(hf["utilities"])
    assert summary["fairest_fixed"]["upper"] >= summary["fairest_fixed"]["welfare"]
    assert {(c.check, c.fields["method"]) for c in whole.certificates} == {
        ("fairness_bound", "ohf"),
        ("multipliers_in_box", "ohf"),
        ("fairness_severity", "ohf"),
        *(("fairness_regret", name) for name in ("ohf", "osf", "even")),
    }
    assert {c.verdict for c in whole.certificates if c.check != "fairness_severity"} == {"holds"}
    for certificate in whole.certificates:
        assert CHECKS.get(certificate.check)(whole, **certificate.fields) == certificate
    assert list(changes(whole)) == []


def test_sums_prove_the_same_bound_as_tables(whole: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing_stage, "LARGEST_TABLE", 600)
    record = play_study(study(), out=tmp_path, observer=(watch := Watch()))
    assert any("the record keeps sums" in e["text"] for e in watch.events if e["event"] == "notice")
    assert all("sums" in part for part in record.trial("ohf", 0).events("part"))
    told, sums = ({c.check: c for c in run.certificates if c.fields["method"] == "ohf"} for run in (whole, record))
    for check in ("fairness_bound", "multipliers_in_box", "fairness_regret"):
        assert sums[check].verdict == told[check].verdict
        assert sums[check].measured == pytest.approx(told[check].measured, abs=1e-12)
        assert sums[check].reference == pytest.approx(told[check].reference)
    assert sums["fairness_severity"].verdict == "no_power"
    assert list(changes(record)) == []


def test_what_was_tampered_with_breaks_the_bound(tmp_path: Path) -> None:
    demand = '{ kind = "stationary", means = { a = 0.5, b = 0.8, c = 0.3 }, slots = 3000 }'
    game = study(sharing="{}", demand=demand, run="{ points = 2 }", policies='[{ kind = "ohf" }]')
    record = play_study(game, out=tmp_path)
    path = record.trial("ohf", 0).folder / "record.jsonl"
    events = [json.loads(line) for line in path.read_text().splitlines()]
    for event in events:
        if event["event"] == "part":
            event["utilities"] = [[0.2] * 3 for _ in event["utilities"]]
        if event["event"] == "point":
            event["utilities"] = [0.2] * 3
    path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
    assert next(c for c in record.certificates if c.check == "fairness_bound").verdict == "holds"
    certificate = CHECKS.get("fairness_bound")(RunRecord.open(record.folder), method="ohf")
    assert certificate.verdict == "fails"


def test_policies_with_aims_of_their_own_are_judged_by_that_of_the_study(tmp_path: Path) -> None:
    policies = (
        '[{ kind = "ohf" }, { kind = "ohf", name = "sum", alpha = 0.0 }, { kind = "hf", name = "most", alpha = 0.0 }]'
    )
    record = play_study(study(policies=policies), out=tmp_path)
    rows = record.summary["policies"]
    assert (rows["ohf"]["alpha"], rows["sum"]["alpha"]) == (2.0, 0.0)
    assert rows["sum"]["welfare"] < rows["ohf"]["welfare"]
    assert rows["sum"]["regret_bound"] is None, "it promises something about another welfare"
    assert rows["most"]["price_of_fairness"] == pytest.approx(0.0, abs=1e-6)
    bound = next(c for c in record.certificates if (c.check, c.fields["method"]) == ("fairness_bound", "sum"))
    assert "α = 0" in bound.method
    assert bound.verdict == "holds"


# --- resuming ---------------------------------------------------------------------------------------------------------


def test_the_same_study_again_changes_nothing(whole: RunRecord, tmp_path: Path) -> None:
    digest, before = whole.hash, whole.summary
    again = play_study(study(), out=whole.folder.parent)
    assert (again.folder, again.hash, again.summary) == (whole.folder, digest, before)
    assert play_study(study(), out=tmp_path).hash == digest


@pytest.mark.parametrize("stop", [1, 13, 45, POINTS])
def test_an_interrupted_run_ends_like_one_that_was_not(whole: RunRecord, tmp_path: Path, stop: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        play_study(study(), out=tmp_path, observer=Watch(stop))
    watch = Watch()
    resumed = play_study(study(), out=tmp_path, observer=watch)
    replayed = sum(event["event"] == "point" for event in watch.events)
    assert replayed == POINTS - (stop - 1) // 10 * 10, "finished trials are kept, the interrupted one is played again"
    assert resumed.hash == whole.hash
    assert resumed.compare(whole) == []


def test_fresh_forgets(tmp_path: Path) -> None:
    play_study(study(), out=tmp_path)
    watch = Watch()
    play_study(study(), out=tmp_path, fresh=True, observer=watch)
    assert sum(event["event"] == "point" for event in watch.events) == POINTS


def test_more_points_than_slots(tmp_path: Path) -> None:
    demand = '{ kind = "stationary", means = { a = 1.0, b = 1.0 }, slots = 3 }'
    record = play_study(study(demand=demand, run="{ points = 50 }"), out=tmp_path)
    assert [point["slots"] for point in record.trial("ohf", 0).events("point")] == [1, 2, 3]
    assert next(c for c in record.certificates if c.check == "fairness_bound").verdict == "no_power"


# --- what is shared ---------------------------------------------------------------------------------------------------


def test_whoever_wants_the_same_gets_the_same() -> None:
    scene = stage(demand='{ kind = "stationary", means = { a = 0.5, b = 0.5 }, spread = 0.0, slots = 4 }').scene
    np.testing.assert_allclose(scene.horizon(2.0).x, [0.5, 0.5], atol=1e-3)


def test_nobody_has_more_than_the_largest_share(tmp_path: Path) -> None:
    demand = '{ kind = "stationary", means = { a = 5.0, b = 0.1, c = 0.1 }, slots = 50 }'
    sharing = '{ alpha = 0.0, budget = 2.0, largest = 0.5, unit = "given" }'
    record = play_study(study(sharing=sharing, demand=demand, run="{ points = 5 }"), out=tmp_path)
    most = record.summary["fairest_fixed"]["utilities"]["a"]
    assert most == pytest.approx(1.0), "half of two units, of five wanted"
    for row in record.summary["policies"].values():
        assert max(row["shares"]["budget"].values()) <= 0.5 + 1e-9
        assert sum(row["shares"]["budget"].values()) == pytest.approx(1.0)


def test_budgets_and_rates_make_work() -> None:
    demand = '{ kind = "stationary", means = { a = 100.0, b = 100.0 }, spread = 0.0, slots = 2 }'
    sharing = (
        '{ budget = { gpu = 2.0, cpu = 8.0 }, rates = { a = { gpu = 3.0 }, b = { cpu = 0.5 } }, unit = "given", '
        "most = 100.0 }"
    )
    scene = stage(sharing=sharing, demand=demand).scene
    assert scene.resources == ("gpu", "cpu")
    np.testing.assert_allclose(scene.slots[0].at(np.array([1.0, 0, 0, 1.0])).values, [2 * 3, 8 * 0.5])
    np.testing.assert_allclose(scene.slots[0].at(np.array([0, 1.0, 1.0, 0])).values, [8, 2])
    assert scene.horizon(0.0).utilities.sum() == pytest.approx(14.0)


def test_the_adversary_of_the_publication_is_unfair_to_the_slot_fair(tmp_path: Path) -> None:
    """Equal demands over the horizon: horizon-fairness gives equal utilities; slot by slot, who comes in turns pays."""
    demand = '{ kind = "alternating", slots = 2000 }'
    record = play_study(study(sharing="{ alpha = 2.0 }", demand=demand, run="{ points = 20 }"), out=tmp_path)
    rows = record.summary["policies"]
    gap = {name: abs(row["utilities"]["mixed"] - row["utilities"]["turns"]) for name, row in rows.items()}
    assert gap["hf"] < 1e-3
    assert gap["ohf"] < 0.03
    assert rows["ohf"]["welfare"] > rows["osf"]["welfare"]


@pytest.mark.slow
def test_virtual_caches_as_published(tmp_path: Path) -> None:
    policies = '[{ kind = "ohf", norms = "separate" }, { kind = "osf", norms = "separate" }, { kind = "hf" }]'
    demand = '{ kind = "virtual_caches", instance = "cycle" }'
    game = study(sharing="{ alpha = 3.0 }", demand=demand, policies=policies, run="{ points = 20 }")
    rows = play_study(game, out=tmp_path).summary["policies"]
    for name, said in zip(("hf", "ohf", "osf"), PUBLISHED["cycle-3"].values(), strict=True):
        np.testing.assert_allclose(list(rows[name]["utilities"].values()), said, atol=1e-3)


def test_virtual_caches_bring_their_own_budget(tmp_path: Path) -> None:
    demand = '{ kind = "virtual_caches", instance = "tree", slots = 20 }'
    record = play_study(study(sharing="{ alpha = 1.0 }", demand=demand, run="{ points = 2 }"), out=tmp_path)
    assert record.trials[0].start["scene"]["agents"] == ["agent 1", "agent 2", "agent 3"]
    assert record.summary["policies"]["ohf"]["shares"] == {}
    assert {c.verdict for c in record.certificates} <= {"holds", "no_power"}


def test_points_of_disagreement_are_taken_off(tmp_path: Path) -> None:
    demand = '{ kind = "stationary", means = { a = 9.0, b = 9.0 }, spread = 0.0, slots = 50 }'
    sharing = '{ alpha = 1.0, unit = "given", disagreement = { b = 0.4 } }'
    record = play_study(study(sharing=sharing, demand=demand, run="{ points = 5 }"), out=tmp_path)
    best = record.summary["fairest_fixed"]["utilities"]
    assert best == pytest.approx({"a": 0.3, "b": 0.7}, abs=2e-3)
    assert record.summary["policies"]["ohf"]["utilities"]["b"] > 0.55


def test_a_welfare_of_minus_infinity_is_none(tmp_path: Path) -> None:
    """With more to fall back on than equal shares give, b has no reason to agree to them."""
    demand = '{ kind = "stationary", means = { a = 9.0, b = 9.0 }, spread = 0.0, slots = 50 }'
    sharing = '{ alpha = 1.0, unit = "given", disagreement = { b = 0.6 } }'
    policies = '[{ kind = "even" }, { kind = "ohf" }]'
    record = play_study(study(sharing=sharing, demand=demand, policies=policies, run="{ points = 5 }"), out=tmp_path)
    assert record.summary["policies"]["even"]["welfare"] is None
    assert record.summary["policies"]["even"]["regret"] is None
    assert list(changes(record)) == []


# --- files ------------------------------------------------------------------------------------------------------------

LINES = [("slot", "agent", "demand"), (3, "web", 0.5), (1, "web", 0.25), (1, "batch", ""), (3, "batch", 2)]


def write(path: Path, lines: list[tuple[Any, ...]] = LINES) -> str:
    path.write_text("".join(f"{','.join(map(str, line))}\n" for line in lines))
    return f'{{ kind = "file", path = "{path.as_posix()}" }}'


def test_a_file_is_read_in_the_order_of_slots(tmp_path: Path) -> None:
    table = stage(demand=write(tmp_path / "a.csv"), sharing='{ unit = "given" }').scene.table
    assert table is not None
    np.testing.assert_array_equal(table.levels, [[0.25, np.inf], [0.5, 2.0]])
    np.testing.assert_array_equal(table.weights, 1.0)
    columns: dict[str, list[Any]] = {
        "slot": [3, 1, 1, 3],
        "agent": ["web", "web", "batch", "batch"],
        "demand": [0.5, 0.25, None, 2.0],
    }
    write_table(tmp_path / "a.parquet", columns)
    parquet = f'{{ kind = "file", path = "{(tmp_path / "a.parquet").as_posix()}" }}'
    other = stage(demand=parquet, sharing='{ unit = "given" }').scene
    assert other.table is not None
    np.testing.assert_array_equal(other.table.levels, table.levels)
    assert other.fingerprint == stage(demand=write(tmp_path / "a.csv"), sharing='{ unit = "given" }').scene.fingerprint


def test_who_is_not_listed_wants_nothing(tmp_path: Path) -> None:
    lines = [("slot", "agent", "weight"), (0, "a", 2), (0, "b", 1), (1, "b", 1)]
    scene = stage(demand=write(tmp_path / "a.csv", lines), sharing='{ unit = "given" }').scene
    np.testing.assert_array_equal(scene.slots[1].at(np.array([0.5, 0.5])).values, [0.0, 0.5])
    np.testing.assert_array_equal(scene.slots[0].at(np.array([0.5, 0.5])).values, [1.0, 0.5])


def test_logarithmic_utilities(tmp_path: Path) -> None:
    lines = [("slot", "agent", "weight", "scale"), (0, "a", 2, 0.5), (0, "b", 1, "")]
    demand = write(tmp_path / "a.csv", lines)[:-2] + ', utility = "log" }'
    scene = stage(demand=demand, sharing='{ unit = "given", budget = 3.0 }').scene
    seen = scene.slots[0].at(np.array([0.5, 0.5]))
    np.testing.assert_allclose(seen.values, [2 * np.log(4), np.log(2.5)])


def test_a_file_is_read_once_and_known_by_its_content(tmp_path: Path) -> None:
    game = study(demand=write(tmp_path / "a.csv"))
    record = play_study(game, out=tmp_path / "runs")
    assert record.trial("ohf", 0).events("point") == record.trial("ohf", 1).events("point")
    write(tmp_path / "a.csv", [*LINES[:-1], (3, "batch", 1.5)])
    with pytest.raises(ConfigError, match="not those this trial was played with"):
        play_study(game, out=tmp_path / "runs")


# --- refusals ---------------------------------------------------------------------------------------------------------

WRONG: dict[str, tuple[dict[str, str], str]] = {
    "alpha": ({"sharing": "{ alpha = -1.0 }"}, r"\[sharing\]: alpha is -1"),
    "several": ({"sharing": "{ alpha = -1.0, least = 0.0, largest = 2.0 }"}, r"3 problems(.|\n)*least(.|\n)*largest"),
    "no budget": ({"sharing": "{ budget = {} }"}, "budget is empty"),
    "an empty budget": ({"sharing": "{ budget = { gpu = 0.0 } }"}, "budget of gpu is 0"),
    "a negative rate": ({"sharing": "{ rates = { a = -1.0 } }"}, "rate of a is -1"),
    "nobody's rate": ({"sharing": "{ rates = { z = 1.0 } }"}, 'rates has "z", who is no agent. Agents are a, b, c'),
    "nobody's point": ({"sharing": "{ disagreement = { z = 0.1 } }"}, 'disagreement has "z"'),
    "no resource": (
        {"sharing": "{ budget = { gpu = 1.0 }, rates = { a = { gpx = 1.0 } } }"},
        'rates of a has "gpx", which is no resource. Resources are gpu',
    ),
    "one budget": ({"sharing": "{ rates = { a = { gpu = 1.0 } } }"}, "rates of a is a table"),
    "nothing to decide": ({"sharing": "{ largest = 0.3 }"}, "largest is 0.3: 3 agents cannot have more than 0.9"),
    "one agent": ({"demand": '{ kind = "stationary", means = { a = 1.0 } }'}, "there is only one agent"),
    "useless": ({"sharing": "{ rates = { b = 0.0 } }"}, "b gets nothing from any allocation"),
    "too steep": ({"sharing": "{ alpha = 400.0 }"}, r"\[sharing\]: alpha is 400"),
    "a steep policy": ({"policies": '[{ kind = "ohf", alpha = 400.0 }]'}, r"\[\[policies\]\] 1: alpha is 400"),
    "a negative policy": ({"policies": '[{ kind = "osf", alpha = -1.0 }]'}, r"\[\[policies\]\] 1: alpha is -1"),
    "an unknown policy": ({"policies": '[{ kind = "ohff" }]'}, "ohff"),
    "twice": ({"policies": '[{ kind = "ohf" }, { kind = "ohf" }]'}, '2 policies have the name "ohf"'),
    "out of reach": ({"sharing": "{ disagreement = 0.9 }"}, "no allocation was found"),
    "a budget of caches": (
        {"sharing": "{ budget = 3.0 }", "demand": '{ kind = "virtual_caches", slots = 2 }'},
        "budget of virtual caches is that of their network",
    ),
    "too large an optimum": (
        {"policies": '[{ kind = "sf" }]', "demand": '{ kind = "virtual_caches", slots = 2 }', "sharing": "{}"},
        r"\[\[policies\]\] 1: the slot-fair optimum of virtual caches",
    ),
    "a spread": ({"demand": '{ kind = "stationary", means = { a = 1.0, b = 1.0 }, spread = 2.0 }'}, "spread is 2"),
    "short": ({"demand": '{ kind = "alternating", slots = 3 }'}, "slots is 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_played_is_refused_before_anything_is_begun(name: str, tmp_path: Path) -> None:
    replaced, said = WRONG[name]
    with pytest.raises(RivageError, match=said) as caught:
        play_study(study(**replaced), out=tmp_path)
    assert "Traceback" not in str(caught.value)
    assert not list(tmp_path.iterdir())


FILES: dict[str, tuple[str, str]] = {
    "empty": ("", "its columns are none"),
    "header only": ("slot,agent\n", "there is no line"),
    "no agent": ("slot,user\n0,a\n", 'its columns are "slot", "user". It needs slot and agent'),
    "twice": ("slot,agent\n0,a\n0,a\n", 'line 3: slot 0 of "a" is there twice'),
    "half a slot": ("slot,agent\n0.5,a\n", 'line 2: slot is "0.5"'),
    "before": ("slot,agent\n-1,a\n", 'line 2: slot is "-1"'),
    "no name": ("slot,agent\n0,\n", "line 2: agent is ''"),
    "a word": ("slot,agent,demand\n0,a,lots\n", 'line 2: demand is "lots"'),
    "no number": ("slot,agent,weight\n0,a,nan\n", 'line 2: weight is "nan"'),
    "too many": ("slot,agent\n0,a,1\n", "line 2: it has not as many columns"),
    "several": ("slot,agent,demand\n0,a,-1\nx,b,1\n", r"2 problems(.|\n)*line 2: demand is(.|\n)*line 3: slot is"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_said_of_wrong_files(name: str, tmp_path: Path) -> None:
    text, said = FILES[name]
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(RivageError, match=said):
        stage(demand=f'{{ kind = "file", path = "{(tmp_path / "a.csv").as_posix()}" }}')


def test_hundreds_of_wrong_lines_are_not_all_listed(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("slot,agent\n" + "x,a\n" * 300)
    with pytest.raises(RivageError, match="280 more lines are wrong"):
        stage(demand=f'{{ kind = "file", path = "{(tmp_path / "a.csv").as_posix()}" }}')


def test_a_file_that_is_nowhere_has_a_neighbour(tmp_path: Path) -> None:
    write(tmp_path / "gpus.csv")
    with pytest.raises(RivageError, match=r'Did you mean "gpus\.csv"'):
        stage(demand=f'{{ kind = "file", path = "{(tmp_path / "gpu.csv").as_posix()}" }}')


def test_limits_are_what_the_documentation_says() -> None:
    assert fair_records.LARGEST_TABLE == 100_000


def test_the_optimum_of_many_agents_is_certified() -> None:
    """Without tangents from nothing to everything a gap of 0.2 is left after eight rounds without progress."""
    means = ", ".join(f"a{number} = {0.2 + number % 7 / 10}" for number in range(40))
    demand = f'{{ kind = "stationary", means = {{ {means} }}, slots = 400 }}'
    scene = stage(sharing="{ alpha = 1.0, budget = 8.0 }", demand=demand).scene
    assert scene.horizon(1.0).gap < 1e-5
    assert horizon_optimum(scene.instance.set, scene.mean, 1.0).gap > 1e-2


def test_shares_are_means_over_all_slots_however_they_are_cut(tmp_path: Path) -> None:
    demand = '{ kind = "stationary", means = { a = 0.5, b = 0.8, c = 0.3 }, slots = 10 }'
    ends = []
    for points in (1, 3, 10):  # parts of 10, of 4, 4 and 2, of 1
        game = study(sharing="{}", demand=demand, run=f"{{ points = {points} }}", policies='[{ kind = "ohf" }]')
        trial = play_study(game, out=tmp_path).trial("ohf", 0)
        for point in trial.events("point"):
            (shares,) = point["shares"].values()
            assert sum(shares) == pytest.approx(1.0), "all of the budget is handed out"
        ends.append(shares)
    assert ends[1] == pytest.approx(ends[0])
    assert ends[2] == pytest.approx(ends[0])
