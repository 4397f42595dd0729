"""Studies of overlays: the run folder, what it says, and certificates that a forged record does not pass."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.errors import ConfigError, MissingExtra, StoreError
from rivage.core.records import RunRecord
from rivage.core.settings import dump
from rivage.decentralized import Overlay, directed_search
from rivage.decentralized.checks import recorded_silos
from rivage.graphs.cycles import max_cycle_mean
from rivage.studies.games.design import BOUND, CONTENDERS, make_design
from rivage.studies.play import play_study

NODES = [{"name": name, "access_bps": 1e9} for name in "abcde"]
LENGTHS = {"ab": 300.0, "bc": 900.0, "cd": 2000.0, "de": 700.0, "ea": 1500.0, "ac": 400.0}
NETWORK = {
    "kind": "described",
    "nodes": NODES,
    "links": [{"ends": list(ends), "distance_km": km} for ends, km in LENGTHS.items()],
}
STUDY: dict[str, Any] = {
    "name": "five",
    "silos": {"model_bits": 2e7, "step_ms": 5.0},
    "underlay": NETWORK,
}
QUICK = ["overlays.best.steps=300", "overlays.matcha.rounds=100", "overlays.matcha_plus.rounds=100"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return play_study(make_design(STUDY, "", QUICK), out=tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def record(folder: Path) -> RunRecord:
    return RunRecord.open(folder)


@pytest.fixture
def forged(folder: Path, tmp_path: Path) -> Callable[[str, Callable[[dict[str, Any]], None]], RunRecord]:
    """A copy of the run in which the last but one event of a trial, what was found, is changed."""

    def make(method: str, change: Callable[[dict[str, Any]], None]) -> RunRecord:
        copy = tmp_path / folder.name
        for path in folder.rglob("*.*"):
            target = copy / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
        path = copy / "trials" / method / "seed-0" / "record.jsonl"
        *before, event, end = path.read_text().splitlines()
        changed = json.loads(event)
        change(changed)
        path.write_text("\n".join([*before, json.dumps(changed), end]) + "\n")
        return RunRecord.open(copy)

    return make


def certificate(record: RunRecord, check: str, **fields: str) -> Certificate:
    found: Certificate = CHECKS.get(check)(record, **fields)
    return found


def test_the_summary_is_the_contract(record: RunRecord) -> None:
    summary = record.summary
    assert {"overlays", "lower_bound_ms", "gap", "certificates", "answer", "hash", "run"} <= set(summary)
    assert set(summary["overlays"]) == {each["name"] for each in CONTENDERS}
    keys = {"cycle_time_ms", "arcs", "max_degree", "hub", "critical_circuit", "spectral_gap", "gap"}
    assert all(keys <= set(row) for row in summary["overlays"].values())
    best = min(row["cycle_time_ms"] for row in summary["overlays"].values() if row["critical_circuit"])
    assert summary["gap"] == pytest.approx(best / summary["lower_bound_ms"] - 1, rel=1e-9)
    assert record.verb == "design"


def test_every_fixed_overlay_is_certified_and_drawn_ones_promise_nothing(record: RunRecord) -> None:
    claims = {(c.check, c.fields.get("method")) for c in record.certificates}
    fixed = {each["name"] for each in CONTENDERS} - {"matcha", "matcha_plus"}
    assert claims == {("cycle_time_bound", None)} | {(c, m) for c in ("cycle_time", "overlay_gap") for m in fixed}
    assert {c.verdict for c in record.certificates} == {"holds"}


def test_the_record_says_what_karp_says(record: RunRecord) -> None:
    silos = recorded_silos(record)
    for method in {"mst", "delta_mbst", "ring", "ring_2opt", "best"}:
        (event,) = record.trial(method, 0).events("overlay")
        overlay = Overlay.named(silos, [tuple(arc) for arc in event["arcs"]])
        assert overlay.delays_ms.tolist() == pytest.approx(event["delays_ms"], rel=1e-12)
        karp = max_cycle_mean(overlay.delay_matrix_ms, method="karp").mean
        assert event["cycle_time_ms"] == pytest.approx(karp, rel=1e-12)


def test_the_bound_is_below_every_overlay_of_the_record(record: RunRecord) -> None:
    bound = record.trial(BOUND, 0).events("bound")[0]
    fixed = [e for e in record.events("overlay") if not e["drawn"]]
    assert bound["complete"]
    assert all(event["cycle_time_ms"] >= bound["value_ms"] for event in fixed)
    rate = np.array([[np.inf if cell is None else cell for cell in row] for row in _matrices(record)["available_bps"]])
    assert np.isinf(np.diag(rate)).all()


def _matrices(record: RunRecord) -> dict[str, Any]:
    return dict(record.trial(BOUND, 0).events("network")[0])


def test_starting_again_changes_nothing_and_an_interrupted_trial_is_played_again(record: RunRecord) -> None:
    before, out = record.hash, record.folder.parent
    study = make_design(STUDY, "", QUICK)
    assert play_study(study, out=out).hash == before
    path = record.trial_folder("best", 0) / "record.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:1]))
    assert play_study(study, out=out).hash == before, "the same steps of the same search"


def test_settings_repeat_the_run(record: RunRecord, tmp_path: Path) -> None:
    assert dump(make_design(record.settings)) == record.settings
    assert play_study(make_design(record.settings), out=tmp_path).hash == record.hash


def test_seeds_share_what_nothing_is_drawn_for(tmp_path: Path) -> None:
    study = make_design(STUDY, "", [*QUICK, "run.seeds=[0, 1]"])
    again = play_study(study, out=tmp_path)
    for method in (BOUND, "star", "mst", "ring_2opt"):
        one, two = (again.trial(method, seed).events()[1:] for seed in (0, 1))
        assert one == two
    times = [again.trial("matcha", seed).events("overlay")[0]["cycle_time_ms"] for seed in (0, 1)]
    row = again.summary["overlays"]["matcha"]
    assert row["cycle_time_ms"] == pytest.approx(np.mean(times), rel=1e-12)


@pytest.mark.parametrize("method", ["star_best", "mst", "best"])
def test_a_time_that_is_too_good_does_not_pass(forged: Any, method: str) -> None:
    def faster(event: dict[str, Any]) -> None:
        event["cycle_time_ms"] *= 0.999

    changed = forged(method, faster)
    assert certificate(changed, "cycle_time", method=method).verdict == "fails"


def test_potentials_and_circuits_of_another_overlay_do_not_pass(forged: Any) -> None:
    def other_potentials(event: dict[str, Any]) -> None:
        event["potentials"][0] += 1

    assert certificate(forged("ring", other_potentials), "cycle_time", method="ring").verdict == "fails"

    def arc_less(event: dict[str, Any]) -> None:
        event["critical_circuit"] = event["critical_circuit"][:2]

    assert certificate(forged("ring", arc_less), "cycle_time", method="ring").verdict == "fails"


def test_a_bound_without_its_multipliers_does_not_pass(forged: Any) -> None:
    def higher(event: dict[str, Any]) -> None:
        event["value_ms"] += 0.001

    assert certificate(forged(BOUND, higher), "cycle_time_bound").verdict == "fails"

    def no_cuts(event: dict[str, Any]) -> None:
        event["proof"]["degrees"] = [0.0] * 5
        event["proof"]["potentials"] = [0.0] * 5

    assert certificate(forged(BOUND, no_cuts), "cycle_time_bound").verdict == "fails"

    def negative(event: dict[str, Any]) -> None:
        event["proof"]["degrees"][0] = -1.0

    with pytest.raises(ConfigError, match="prove nothing"):
        certificate(forged(BOUND, negative), "cycle_time_bound")


@pytest.mark.parametrize(
    "change",
    [
        {"degrees": [1000.0]},  # σ for each, taken off v once only: it would prove any bound
        {"potentials": [0.0]},
        {"weights": [1.0]},
        {"members": [0]},
        {"silo": 5},
        {"sets": [[0, 7]], "members": [0], "weights": [1.0]},
        {"sets": [[0, 1]], "members": [-1], "weights": [1.0]},
    ],
)
def test_multipliers_that_do_not_fit_prove_nothing(forged: Any, change: dict[str, Any]) -> None:
    def other(event: dict[str, Any]) -> None:
        zeros = {"degrees": [0.0] * 5, "potentials": [0.0] * 5, "sets": [], "members": [], "weights": []}
        event["proof"] |= zeros | change

    with pytest.raises(StoreError, match="multipliers do not fit 5 silos"):
        certificate(forged(BOUND, other), "cycle_time_bound")


@pytest.mark.parametrize("slow_ms", [7.0, 9000.0])
def test_silos_that_differ_in_all_there_is_are_certified(tmp_path: Path, slow_ms: float) -> None:
    """Also where the work of one silo, the hub's among them, sets the pace, and the bound has no multipliers."""
    silos = {"model_bits": 2e7, "local_steps": 3, "step_ms": [5.0, 1.0, slow_ms, 2.0, 0.0]}
    silos |= {"access_bps": 1e8, "access_down_bps": [2e7, 1e8, 3e7, 1e9, 5e7]}
    rivals = [{"kind": "star", "hub": "c"}, {"kind": "mst"}, {"kind": "directed", "steps": 100}]
    played = play_study(make_design({**STUDY, "silos": silos, "overlays": rivals}), out=tmp_path)
    assert {c.verdict for c in played.certificates} == {"holds"}
    bound = played.trial(BOUND, 0).events("bound")[0]
    if slow_ms == 9000:
        assert (bound["silo"], bound["value_ms"], bound["proof"]) == ("c", 27000, None)
        assert {row["cycle_time_ms"] for row in played.summary["overlays"].values()} == {27000}


@pytest.mark.parametrize("check", ["cycle_time_bound", "overlay_gap"])
def test_multipliers_that_are_no_numbers_do_not_pass(forged: Any, check: str) -> None:
    def unknown(event: dict[str, Any]) -> None:
        event["proof"]["potentials"][0] = float("nan")

    fields = {"method": "ring"} if check == "overlay_gap" else {}
    assert certificate(forged(BOUND, unknown), check, **fields).verdict == "fails"


def test_the_bound_is_told_of_the_silo_that_gives_it(forged: Any) -> None:
    def another(event: dict[str, Any]) -> None:
        event["silo"] = next(name for name in "abcde" if name != event["silo"])

    with pytest.raises(StoreError, match="multipliers are those of"):
        certificate(forged(BOUND, another), "cycle_time_bound")


def test_an_overlay_without_a_hub_is_not_timed_as_a_star(forged: Any) -> None:
    """There and back between two silos says nothing of a circuit through others."""

    def star(event: dict[str, Any]) -> None:
        event |= {"hub": event["arcs"][0][0], "potentials": None}

    with pytest.raises(StoreError, match="not all arcs lead to"):
        certificate(forged("mst", star), "cycle_time", method="mst")


@pytest.mark.parametrize("circuit", [[], ["a", "z"]])
def test_circuits_that_are_none_do_not_pass(forged: Any, circuit: list[str]) -> None:
    def other(event: dict[str, Any]) -> None:
        event["critical_circuit"] = circuit

    changed = forged("ring", other)
    if circuit:
        with pytest.raises(StoreError, match='there is no silo "z"'):
            certificate(changed, "cycle_time", method="ring")
    else:
        assert certificate(changed, "cycle_time", method="ring").verdict == "fails"


def test_an_overlay_below_the_bound_does_not_pass(forged: Any) -> None:
    def faster(event: dict[str, Any]) -> None:
        event["cycle_time_ms"] = 1.0

    assert certificate(forged("ring", faster), "overlay_gap", method="ring").verdict == "fails"


def test_seeds_draw_anew(tmp_path: Path) -> None:
    """The draws of MATCHA and the walks of the search, and the times that scatter."""
    network = {**NETWORK, "nodes": [{**node, "access_bps": 5e7} for node in NODES]}
    regular = {"kind": "family", "family": "random_regular", "degree": 2}
    rivals = [{"kind": "matcha", "rounds": 50}, {"kind": "ring"}, regular]
    study = {
        **STUDY,
        "underlay": network,
        "overlays": rivals,
        "times": {"kind": "exponential"},
        "run": {"seeds": [1, 2]},
    }
    played = play_study(make_design(study), out=tmp_path)

    def both(method: str, key: str) -> list[Any]:
        return [played.trial(method, seed).events("overlay")[0][key] for seed in (1, 2)]

    for method, key in (("matcha", "cycle_time_ms"), ("ring", "scattered_ms"), ("family", "arcs")):
        one, other = both(method, key)
        assert one != other, method
    one, other = both("ring", "arcs")
    assert one == other


def test_a_bound_with_no_time_says_so(tmp_path: Path) -> None:
    """No silo is looked at: the own work of the slowest is what is left, and still a bound."""
    table = {**STUDY, "overlays": [{"kind": "ring"}], "bound": {"seconds": 1e-9}}
    played = play_study(make_design(table), out=tmp_path)
    bound = played.trial(BOUND, 0).events("bound")[0]
    assert (bound["value_ms"], bound["complete"], bound["proof"]) == (5.0, False, None)
    assert "not all silos were looked at" in certificate(played, "cycle_time_bound").method
    assert {c.verdict for c in played.certificates} == {"holds"}


def test_one_seed_below_the_bound_is_enough_to_fail(tmp_path: Path) -> None:
    study = {**STUDY, "overlays": [{"kind": "ring"}], "run": {"seeds": [0, 1]}}
    played = play_study(make_design(study), out=tmp_path)
    path = played.trial_folder("ring", 1) / "record.jsonl"
    start, event, end = path.read_text().splitlines()
    path.write_text("\n".join([start, json.dumps({**json.loads(event), "cycle_time_ms": 1.0}), end]) + "\n")
    assert certificate(RunRecord.open(played.folder), "overlay_gap", method="ring").verdict == "fails"


def test_who_watches_hears_of_the_search_and_the_record_does_not(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directed_search, "_WATCHED_S", 0.0)
    heard: list[Mapping[str, Any]] = []

    class Watching:
        def on_event(self, event: Mapping[str, Any]) -> None:
            heard.append(event)

    watched = play_study(make_design(STUDY, "", QUICK), out=tmp_path, observer=Watching())
    told = [event for event in heard if event["event"] == "point"]
    assert {event["method"] for event in told} == {"best"}
    assert told[-1]["score"].endswith(" % of the search")
    assert not watched.events("point")
    assert watched.hash == record.hash


def test_a_search_that_was_stopped_is_played_again(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directed_search, "_WATCHED_S", 0.0)

    class Stopping:
        def on_event(self, event: Mapping[str, Any]) -> None:
            if event["event"] == "point":
                raise KeyboardInterrupt

    study = make_design(STUDY, "", QUICK)
    with pytest.raises(KeyboardInterrupt):
        play_study(study, out=tmp_path, observer=Stopping())
    assert play_study(study, out=tmp_path).hash == record.hash


def test_families_and_sequences_compete(tmp_path: Path) -> None:
    kinds = [{"kind": "family", "family": "ring"}, {"kind": "sequence", "family": "base"}, {"kind": "mst"}]
    rows = play_study(make_design({**STUDY, "overlays": kinds}), out=tmp_path).summary["overlays"]
    assert rows["sequence"]["drawn"], "no bound, no certificate"
    assert rows["family"]["max_degree"] == 2
    cube = {**STUDY, "overlays": [{"kind": "family", "family": "hypercube"}]}
    with pytest.raises(ConfigError, match=r"\[\[overlays\]\] 1.*hypercube over 5 silos"):
        play_study(make_design(cube), out=tmp_path / "cube")
    assert not (tmp_path / "cube").exists(), "refused before anything is written"


def test_shared_links_have_the_capacity_of_the_rule(tmp_path: Path) -> None:
    """1 Gbit/s as published, whatever the file says of its links; their own by the rule of links."""
    links = [{"ends": list(ends), "distance_km": km, "capacity_bps": 1e8} for ends, km in LENGTHS.items()]
    table = {**STUDY, "underlay": {**NETWORK, "links": links}, "overlays": [{"kind": "mst"}]}

    def fair_ms(**silos: float) -> float:
        study = make_design({**table, "silos": {**STUDY["silos"], **silos}})
        return float(play_study(study, out=tmp_path).summary["overlays"]["mst"]["fair_ms"])

    assert fair_ms() == fair_ms(core_bps=1e9)
    assert fair_ms(core_bps=1e8) > fair_ms() + 100, "180 ms more on every link"


@pytest.mark.parametrize(
    "changed", ["distance_km = 200.0\ncapacity_bps = 1e9", "distance_km = 100.0\ncapacity_bps = 2e9"]
)
def test_a_network_that_has_changed_is_not_mixed_with_the_old_one(tmp_path: Path, changed: str) -> None:
    """Nor one whose links have another capacity: shared links depend on it."""
    file, before = tmp_path / "net.toml", "distance_km = 100.0\ncapacity_bps = 1e9"
    file.write_text(f'[[nodes]]\nname = "a"\n[[nodes]]\nname = "b"\n[[links]]\nends = ["a", "b"]\n{before}\n')
    table = {**STUDY, "underlay": {"kind": "file", "path": str(file)}, "overlays": [{"kind": "ring"}]}
    play_study(make_design(table), out=tmp_path)
    file.write_text(file.read_text().replace(before, changed))
    with pytest.raises(ConfigError, match="--fresh"):
        play_study(make_design(table), out=tmp_path)


def test_one_silo_and_two(tmp_path: Path) -> None:
    silos = {**STUDY["silos"], "core_bps": 1e9}
    one = {**STUDY, "silos": silos, "underlay": {"kind": "described", "nodes": NODES[:1], "links": []}}
    with pytest.raises(ConfigError, match="single silo"):
        play_study(make_design(one), out=tmp_path)
    alone = play_study(
        make_design({**one, "overlays": [{"kind": k} for k in ("star", "mst", "ring", "directed")]}), out=tmp_path
    )
    assert {row["cycle_time_ms"] for row in alone.summary["overlays"].values()} == {5.0}
    assert alone.summary["gap"] == 0
    two = {**STUDY, "underlay": {"kind": "described", "nodes": NODES[:2], "links": NETWORK["links"][:1]}}
    pair = play_study(make_design(two, "", QUICK), out=tmp_path)
    assert pair.summary["gap"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"overlays": [{"kind": "mesh"}]}, "mesh"),
        ({"overlays": []}, "there is no overlay"),
        ({"overlays": [{"kind": "ring"}, {"kind": "ring"}]}, '2 overlays have the name "ring"'),
        ({"overlays": [{"kind": "ring", "name": BOUND}]}, "is what the bound is called"),
        ({"silos": {"step_ms": 5.0}}, "the size of the model is not known"),
        ({"silos": {"model_bits": 1e6, "hub": "a"}}, "hub"),
        ({"bound": {"seconds": 0}}, "seconds is 0"),
        ({"name": " "}, "name"),
        ({"overlays": [{"kind": "star", "hub": "z"}]}, 'hub is "z"'),
        ({"underlay": {"kind": "file", "path": "missing.gml"}}, "missing.gml"),
    ],
)
def test_wrong_studies_are_told(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        play_study(make_design({**STUDY, **change}), out=tmp_path)


def test_a_solver_bounds_more_closely_where_it_is_installed(tmp_path: Path) -> None:
    """What it says stands beside the bound that can be checked, and changes no certificate."""
    study = make_design({**STUDY, "overlays": [{"kind": "directed", "steps": 300}]}, "", ["bound.solver_seconds=5"])
    if find_spec("ortools") is None:
        with pytest.raises(MissingExtra, match="ortools"):
            play_study(study, out=tmp_path)
        return
    summary = play_study(study, out=tmp_path).summary
    best = summary["overlays"]["directed"]["cycle_time_ms"]
    assert summary["lower_bound_ms"] <= summary["solver_bound_ms"] <= best * (1 + 1e-9)
    plain = play_study(make_design({**STUDY, "overlays": [{"kind": "directed", "steps": 300}]}), out=tmp_path).summary
    assert plain["solver_bound_ms"] is None
    assert plain["certificates"] == summary["certificates"]
