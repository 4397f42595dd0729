from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from rivage.cli.app import main
from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError, DataError, StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.studies.advice import Advice, advise, compare
from rivage.studies.advice_checks import Values, _differences, advised, decide, nothing_beats, values_of
from rivage.studies.advice_data import COMPARED, question, require_enough
from rivage.studies.advice_plan import PLANS, Cost, Plan, choose_plan, measure, seconds
from rivage.studies.settings import Study, load_study, parse_study
from rivage.studies.stage import Stage
from rivage.studies.tuning_settings import Tuning

SMALL = """
name = "small"
data = { kind = "linear", clients = 8, features = 3, records = 60, spread = 0.0 }
work = { batch_size = 16 }
tuning = { learning_rates = [0.03, 0.3] }
evaluation = { validation = 0.2 }
"""


def drawn(
    rng: np.random.Generator, effects: list[float], *, clients: int = 12, seeds: int = 3, noise: float = 0.05
) -> Values:
    """Clients' values: an effect of the client, one of the method, one of the model of each seed, and noise."""
    shape = (seeds, clients, len(effects))
    shared = rng.normal(0, 0.1, (1, clients, 1)) + rng.normal(0, 0.8 * noise, (seeds, clients, 1))
    models = rng.normal(0, 0.003, (seeds, 1, len(effects)))
    every = shared + models + rng.normal(0, 0.6 * noise, shape) + np.array(effects)
    return Values(COMPARED, every, "accuracy", 0.005)


# Intervals


def test_signs_are_those_of_brute_force() -> None:
    """With one seed, of which no variance is known."""
    every = drawn(np.random.default_rng(0), [0.0] * 6, clients=7).every[:1, :, :3]
    gaps = {(a, b): every[0, :, a] - every[0, :, b] for a, b in ((0, 1), (0, 2), (1, 2))}
    most = []
    for signs in product((1, -1), repeat=7):
        drawn_ = [np.array(signs) * (gap - gap.mean()) for gap in gaps.values()]
        most.append(max(abs(each.mean()) / (each.std(ddof=1) / 7**0.5) for each in drawn_))
    factor = sorted(most)[int(np.ceil(0.95 * 128))]
    found = _differences(Values(("local", "a", "b"), every, "accuracy", 0.005), 0.95)["local", "b"]
    gap = gaps[0, 2]
    assert found.mean == pytest.approx(gap.mean())
    assert found.high - found.mean == pytest.approx(factor * gap.std(ddof=1) / 7**0.5)


def test_few_clients_have_students_interval_divided_by_the_pairs() -> None:
    every = drawn(np.random.default_rng(1), [0.0] * 6, clients=4).every[:1]
    values = Values(COMPARED, every, "accuracy", 0.005)
    found = _differences(values, 0.95)["fedem", "local"]
    gap = every[0, :, 5] - every[0, :, 0]
    assert found.high == pytest.approx(gap.mean() + t.ppf(1 - 0.05 / 30, 3) * gap.std(ddof=1) / 2)
    alone = _differences(replace(values, every=every[:, :1]), 0.95)["fedem", "local"]
    assert alone.low == -np.inf
    assert not alone.better


def test_the_luck_of_seeds_is_no_lead_of_many_clients() -> None:
    """Two methods, the same but for their models: the interval is that of two crossed factors, by brute force."""
    rng = np.random.default_rng(1)
    every = rng.normal(0, 0.05, (3, 40, 2)) + rng.normal(0, 0.03, (3, 1, 2))
    gap = every[..., 1] - every[..., 0]
    people, shifts = gap.mean(axis=0).var(ddof=1) / 40, gap.mean(axis=1)
    left = gap - gap.mean(axis=0) - (shifts - shifts.mean())[:, None]
    seeds = (shifts.var(ddof=1) - (left**2).sum() / (2 * 39) / 40) / 3
    assert seeds > 0
    wider = np.sqrt(1 + seeds / people)
    two, averaged = (
        _differences(Values(("local", "fedavg"), part, "accuracy", 0.005), 0.95)["fedavg", "local"]
        for part in (every, every.mean(axis=0, keepdims=True))
    )
    assert two.high - two.mean == pytest.approx(wider * (averaged.high - averaged.mean))


@pytest.mark.parametrize("clients", [2, 3, 5, 8])
def test_clients_that_differ_by_the_same_prove_nothing(clients: int) -> None:
    """Of accuracies of a few records that is chance; rounding must not hide it."""
    local = np.linspace(0.3, 0.9, clients)
    every = np.repeat(np.stack([local, local + 0.1], axis=1)[None], 3, axis=0)
    found = _differences(Values(("local", "fedavg"), every, "accuracy", 0.005), 0.95)["fedavg", "local"]
    assert found.mean == pytest.approx(0.1)
    assert found.low == -np.inf
    assert not found.equal
    same = _differences(Values(("local", "fedavg"), every[..., [0, 0]], "accuracy", 0.005), 0.95)["fedavg", "local"]
    assert same.equal


def coarse(rng: np.random.Generator, effects: list[float], clients: int, records: int, models: float) -> Values:
    """Accuracies of so many test records in three seeds; models differ by seed, and methods err on the same records."""
    right = np.clip(rng.normal(0.75, 0.08, (1, clients, 1)) + np.array(effects), 0.05, 0.95)
    right = right + rng.normal(0, models, (3, 1, len(effects)))
    common, own, which = (rng.random((3, clients, size, records)) for size in (1, len(effects), len(effects)))
    return Values(COMPARED, (np.where(which < 0.6, common, own) < right[..., None]).mean(axis=-1), "accuracy", 0.005)


@pytest.mark.parametrize(("clients", "records", "models"), [(2, 10, 0.0), (3, 10, 0.0), (6, 20, 0.0), (100, 20, 0.01)])
def test_the_level_is_kept_where_accuracies_are_coarse_and_seeds_lucky(
    clients: int, records: int, models: float
) -> None:
    # Of 50 draws of equal methods; measured over 100 or more draws 0, 0, 3 and 5 % miss. Without the two
    # rules above 72, 15, 3 and 62 % do.
    rng = np.random.default_rng(10)
    missed = better = 0
    for _ in range(50):
        values = coarse(rng, [0.0] * 6, clients, records, models)
        missed += any(not found.low <= 0 <= found.high for found in _differences(values, 0.95).values())
        better += decide(values, "guarded").verdict == "better"
    assert missed <= 8
    assert better <= 3


def test_all_true_differences_lie_in_their_intervals_at_once() -> None:
    # Of 200 draws at most 20 may miss; with 5 % misses that fails with probability 0.002, and the draw is fixed.
    rng, effects = np.random.default_rng(2), [0.0, 0.01, 0.02, 0.03, 0.04, 0.05]
    missed = 0
    for _ in range(200):
        every = rng.normal(0, 0.1, (1, 10, 1)) + rng.normal(0, 0.05, (1, 10, 6)) + np.array(effects)
        found = _differences(Values(COMPARED, every, "accuracy", 0.005), 0.95)
        truth = dict(zip(COMPARED, effects, strict=True))
        missed += any(not d.low <= truth[a] - truth[b] <= d.high for (a, b), d in found.items())
    assert missed <= 20


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(9)))
def test_neither_the_order_of_clients_nor_a_common_change_matters(seed: int, order: list[int]) -> None:
    values = drawn(np.random.default_rng(seed), [0, 0.03, 0, 0, 0, 0.06], clients=9)
    moved = replace(values, every=values.every[:, order] + np.arange(9)[:, None])
    one, two = decide(values, "guarded"), decide(moved, "guarded")
    assert (one.method, one.best) == (two.method, two.best)
    assert one.against_local.low == pytest.approx(two.against_local.low)
    found = _differences(values, 0.95)
    assert found["fedem", "local"].low == -found["local", "fedem"].high


# The rule


@pytest.mark.parametrize("clients", [4, 6, 12])
def test_personalisation_is_not_recommended_by_noise(clients: int) -> None:
    # All methods but Local are the same. At 5 %, more than 5 of 60 would have probability 0.08; the draw is fixed, and
    # measured over 200 draws of other seeds it is 0 to 3 %.
    rng = np.random.default_rng(3)
    found = [decide(drawn(rng, [-0.08, 0, 0, 0, 0, 0], clients=clients), "guarded") for _ in range(60)]
    assert sum(each.verdict == "better" and each.method != "fedavg" for each in found) <= 3
    if clients >= 12:
        assert sum(each.method == "fedavg" for each in found) >= 57


@pytest.mark.parametrize("clients", [4, 12])
def test_where_all_are_the_same_nothing_is_recommended_by_noise(clients: int) -> None:
    rng = np.random.default_rng(4)
    found = [decide(drawn(rng, [0.0] * 6, clients=clients), "guarded") for _ in range(60)]
    assert sum(each.verdict == "better" for each in found) <= 3
    assert {each.method for each in found if each.verdict == "cannot_tell"} <= {"guarded"}


def test_a_real_lead_is_seen() -> None:
    rng = np.random.default_rng(5)
    found = [decide(drawn(rng, [0, -0.05, 0, 0.01, 0.02, 0.08], clients=20), "guarded") for _ in range(20)]
    assert sum(each.method == "fedem" for each in found) >= 16
    assert all(each.runner_up is not None and each.runner_up.reference != "fedem" for each in found if each.runner_up)


def test_where_concepts_differ_the_shared_model_is_never_recommended() -> None:
    rng = np.random.default_rng(6)
    for _ in range(20):
        found = decide(drawn(rng, [0, -0.4, -0.3, 0.05, 0.03, 0.05], clients=12), "guarded")
        assert found.method not in ("fedavg", "fedavg+")


def test_nothing_beats_local_where_all_are_worse() -> None:
    found = decide(drawn(np.random.default_rng(7), [0, -0.1, -0.1, -0.1, -0.1, -0.1], clients=30), "guarded")
    assert (found.verdict, found.method) == ("local", "local")
    assert found.most < 0.01


def test_a_lead_with_one_seed_alone_is_no_lead() -> None:
    values = drawn(np.random.default_rng(8), [0, 0.1, 0.1, 0.1, 0.1, 0.1], clients=30)
    assert decide(values, "guarded").verdict == "better"
    unlucky = values.every - np.array([0, 0, 0.11])[:, None, None] * np.array([0, 1, 1, 1, 1, 1])
    lead = _differences(replace(values, every=unlucky), 0.95)["fedem", "local"]
    assert not lead.always
    assert not lead.better
    assert not replace(lead, low=0.01).better


def test_a_lead_too_small_is_not_worth_a_complicated_method() -> None:
    rng = np.random.default_rng(9)
    exact = rng.normal(0.8, 0.1, (20, 1)) + np.array([[-0.1, 0, 0, 0, 0, 0.004]]) + rng.normal(0, 1e-4, (20, 6))
    values = Values(COMPARED, exact[None], "accuracy", 0.005)
    assert decide(values, "guarded").method == "fedavg"
    assert decide(replace(values, worth=0.001), "guarded").method == "fedem"


def test_a_lead_over_local_too_small_is_not_worth_sending_anything() -> None:
    rng = np.random.default_rng(9)
    exact = rng.normal(0.8, 0.1, (20, 1)) + np.array([[0, 0.004, 0, 0, 0, 0.003]]) + rng.normal(0, 1e-4, (20, 6))
    values = Values(COMPARED, exact[None], "accuracy", 0.005)
    assert _differences(values, 0.95)["fedavg", "local"].better
    assert decide(values, "guarded").method == "local"
    assert decide(replace(values, worth=0.001), "guarded").method == "fedavg"


# From records


def written(folder: Path, values: dict[str, list[list[float | None]]], higher: bool) -> RunRecord:
    """A record: method -> seed -> client."""
    record = RunRecord.create(folder, "toy", {"name": "toy", "methods": [{"kind": name} for name in values]})
    for name, seeds in values.items():
        for seed, row in enumerate(seeds):
            trial = TrialRecord.open(record.trial_folder(name, seed))
            head = {"method": name, "kind": name, "seed": seed, "metric": "m", "higher_is_better": higher}
            trial.append({"event": "start", **head})
            clients = {"group": "seen", "clients": list(range(len(row))), "test": row}
            trial.append({"event": "evaluation", "round": 1, **clients})
            trial.append({"event": "end", "rounds": 1})
    return RunRecord.open(record.folder)


def test_values_are_means_over_seeds_of_clients_that_are_defined(tmp_path: Path) -> None:
    made = {"local": [[1.0, 2.0, None], [3.0, 4.0, 5.0]], "fedavg": [[2.0, None, 9.0], [4.0, 5.0, 6.0]]}
    values = values_of(written(tmp_path / "up", made, True), ["local", "fedavg"])  # type: ignore[arg-type]
    assert values.clients.tolist() == [[2.0, 3.0], [4.0, 5.0], [5.0, 6.0]]
    assert values.seeds.tolist() == [[1.0, 2.0], [4.0, 5.0]]
    assert np.isnan(values.every).all(axis=2).tolist() == [[False, True, True], [False, False, False]]
    down = values_of(written(tmp_path / "down", made, False), ["local", "fedavg"])  # type: ignore[arg-type]
    assert (down.clients == -values.clients).all()
    assert down.worth == pytest.approx(0.01 * np.mean([2, 4, 5]))


def test_methods_that_are_the_same_for_everyone_are_said_to_be(tmp_path: Path) -> None:
    row: list[list[float | None]] = [[0.5, 0.6, 0.7, 0.8, 0.9, 0.7, 0.6]]
    record = written(tmp_path, {"local": row, "fedavg": row}, True)
    found = advised(record, method="fedavg", reference="local", methods=["local", "fedavg"])
    assert (found.verdict, found.measured) == ("holds", 0.0)
    assert "serves every client as well as local" in found.claim
    bound = nothing_beats(record, local="local", methods=["local", "fedavg"])
    assert (bound.verdict, bound.measured) == ("holds", 0.0)


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        ({"local": "local", "methods": ["local"]}, nothing_beats),
        ({"local": "local", "methods": ["fedavg", "fedem"]}, nothing_beats),
        ({"local": "local", "methods": ["local", "local", "fedavg"]}, nothing_beats),
        ({"method": "fedavg", "reference": "local", "methods": ["local", "fedem"]}, advised),
        ({"method": "fedavg", "reference": "local", "methods": ["local", "fedavg", "other"]}, advised),
    ],
)
def test_certificates_that_name_what_is_not_compared_are_refused(
    tmp_path: Path, fields: dict[str, Any], check: Any
) -> None:
    rows: list[list[float | None]] = [[0.5, 0.6, 0.7]]
    record = written(tmp_path, dict.fromkeys(("local", "fedavg", "fedem"), rows), True)
    with pytest.raises(StoreError, match="Name different methods of the run: local, fedavg, fedem"):
        check(record, **fields)


def test_a_bound_names_whom_it_was_computed_for(tmp_path: Path) -> None:
    """Leaving out the one that does beat Local says so."""
    made: dict[str, list[list[float | None]]] = {"local": [[0.5, 0.6, 0.7]], "fedavg": [[0.5, 0.6, 0.7]]}
    record = written(tmp_path, {**made, "fedem": [[0.9, 0.9, 0.9]]}, True)
    claim = nothing_beats(record, local="local", methods=["local", "fedavg"]).claim
    assert claim.startswith("Nothing of fedavg serves")
    assert nothing_beats(record, local="local", methods=["local", "fedavg", "fedem"]).verdict == "no_power"


# The question


def tables(folder: Path, sites: int = 3, records: int = 60) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    for site in range(sites):
        x = rng.normal(size=(records, 2))
        rows = [f"{a:.3f},{b:.3f},{'yes' if a + b > 0 else 'no'}" for a, b in x]
        (folder / f"site{site}.csv").write_text("\n".join(["age,dose,ill", *rows]))
    return folder


def test_a_folder_an_array_file_a_study_and_a_kind_are_understood(tmp_path: Path) -> None:
    folder = tables(tmp_path / "sites")
    study, _ = question(str(folder), "ill", ["data.ignore=['dose']"])
    assert study.name == "sites"
    assert [method.kind for method in study.methods] == [*COMPARED, "guarded"]
    np.savez(tmp_path / "all.npz", x=np.ones((4, 2)), y=np.arange(4), client=np.arange(4))
    assert question(str(tmp_path / "all.npz"))[0].name == "all"
    path = tmp_path / "own.toml"
    path.write_text(
        'data = { kind = "digits" }\npartition = { kind = "iid", clients = 3 }\nmethods = [{ kind = "afl" }]'
    )
    assert question(str(path))[0].name == "own"
    study, (notice,) = question("digits")
    assert study.partition is not None
    assert "dealt to 20" in notice
    assert question("linear")[1] == ()


@pytest.mark.parametrize(
    ("data", "target", "text"),
    [
        ("sites", None, "Name it with --target COLUMN. site0.csv has the columns: age,dose,ill."),
        ("all.npz", None, 'there is no array "client"'),
        ("digits", "ill", "is no folder of tables"),
        ("digit", None, 'Did you mean "digits"'),
        ("tables", None, 'data "tables" need settings'),
        ("no.toml", None, "no.toml"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, target: str | None, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    tables(tmp_path / "sites")
    np.savez(tmp_path / "all.npz", x=np.ones((4, 2)), y=np.arange(4))
    with pytest.raises((ConfigError, DataError)) as caught:
        question(data, target)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("sites", "records", "overrides", "text"),
    [
        (1, 60, [], "there is one client"),
        (3, 20, [], "are too few: no method could be told from another"),
        (3, 60, ["evaluation.validation=0.0"], "0 validation records over all 3 clients are too few"),
        (3, 60, ["evaluation.test=0.0"], "0 test records over all 3 clients are too few"),
    ],
)
def test_data_that_cannot_answer_are_refused(
    tmp_path: Path, sites: int, records: int, overrides: list[str], text: str
) -> None:
    asked, _ = question(str(tables(tmp_path / "sites", sites, records)), "ill", overrides)
    with pytest.raises(DataError, match=text):
        require_enough(Stage.build(asked, 0))


# The plan


def small() -> Study:
    path = parse_study(SMALL + 'methods = [{ kind = "local" }, { kind = "fedavg" }, { kind = "guarded" }]')
    assert path.tuning is not None
    return path


def test_the_largest_plan_that_fits_is_taken() -> None:
    study, tuning = small(), Tuning(learning_rates=(0.1, 1.0))
    costs = {"local": Cost(0.0, 0.0), "fedavg": Cost(1.0, 0.5)}
    needs = [(plan.budget + plan.seeds) * (1 + plan.rounds / 2) for plan in PLANS]
    assert [seconds(study, costs, plan, tuning) for plan in PLANS] == pytest.approx(needs)
    for plan, need in zip(PLANS, needs, strict=True):
        chosen, estimate = choose_plan(study, costs, tuning, need / 60 + 1e-9)
        assert chosen == plan
        assert estimate == pytest.approx(need)
    assert choose_plan(study, costs, tuning, needs[-1] / 179)[0] == PLANS[-1]
    with pytest.raises(ConfigError, match="the smallest comparison takes about"):
        choose_plan(study, costs, tuning, needs[-1] / 181)


@pytest.mark.parametrize(("rounds", "plan"), [(1, Plan(1, 6, 3)), (15, PLANS[-1]), (70, Plan(70, 8, 5))])
def test_rounds_that_are_given_fix_the_plan(rounds: int, plan: Plan) -> None:
    assert Plan.of(rounds) == plan


def test_where_rounds_are_given_no_clock_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivage.studies.advice_plan.PLANS", (Plan(1, 2, 2),))
    monkeypatch.setattr("rivage.studies.advice_plan._cost", lambda *_: pytest.fail("timed"))
    monkeypatch.setattr("rivage.studies.advice.compare", lambda asked, plan, *_, **__: (asked, plan))
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    options: dict[str, Any] = {"minutes": 1e-9, "study": tmp_path / "next.toml", "out": tmp_path / "runs"}
    _, plan = cast(Any, advise(str(path), rounds=2, **options))
    assert plan == Plan(2, 2, 2)
    with pytest.raises(ConfigError, match="rounds is 0"):
        advise(str(path), rounds=0, **options)


def test_what_cannot_be_trained_is_left_out_with_its_reason() -> None:
    broken = parse_study(SMALL + 'methods = [{ kind = "local" }, { kind = "fedavg", learning_rate = 1e38 }]')
    costs, reasons = measure(Stage.build(broken, 0))
    assert set(costs) == {"local"}
    assert "learning_rate" in reasons["fedavg"]


# The answer


@pytest.fixture(scope="module")
def advice(tmp_path_factory: pytest.TempPathFactory) -> Advice:
    folder = tmp_path_factory.mktemp("advice")
    (folder / "small.toml").write_text(SMALL)
    asked, _ = question(str(folder / "small.toml"))
    return compare(asked, Plan(3, 2, 2), study=folder / "advice.toml", out=folder / "runs")


def test_the_answer_has_the_keys_of_the_contract(advice: Advice) -> None:
    found = advice.as_dict()
    assert {"recommendation", "confidence", "methods", "certificates", "study"} <= set(found)
    assert list(found["methods"]) == [*COMPARED, "guarded"] or "knnper" not in found["methods"]
    assert found["certificates"][0]["check"] in ("advised", "nothing_beats")
    assert found["certificates"][0]["confidence"] == 0.95
    assert advice.answer.count("  ") == 0


def test_the_certificates_of_an_advice_verify(advice: Advice) -> None:
    for certificate in advice.record.certificates:
        assert CHECKS.get(certificate.check)(advice.record, **certificate.fields) == certificate
    assert main(["verify", str(advice.record.folder), "--quiet"]) == 0


def test_the_study_that_is_written_plays_what_was_chosen(advice: Advice, tmp_path: Path) -> None:
    text = advice.study.read_text()
    assert text.startswith(f"# Written by rivage advise. Run it with: rivage run {advice.study}\n")
    study = load_study(advice.study)
    assert study.name == "small"
    assert {"local", "fedavg+", "guarded"} <= {method.name for method in study.methods}
    tried = json.loads((advice.record.folder / "tuning.json").read_text())["methods"]
    local = next(method.algorithm for method in study.methods if method.name == "local")
    assert local.learning_rate == tried["local"]["chosen"]["learning_rate"]  # type: ignore[attr-defined]
    assert main(["train", str(advice.study), "--out", str(tmp_path), "--quiet"]) == 0


def test_asked_again_nothing_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rivage.studies.advice_plan.PLANS", (Plan(1, 2, 2),))
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    told: list[Any] = []

    class Seen:
        def on_event(self, event: Any) -> None:
            told.append(event)

    options: dict[str, Any] = {"minutes": 1.0, "study": tmp_path / "next.toml", "out": tmp_path / "runs"}
    first = advise(str(path), **options)
    again = advise(str(path), **options, observer=Seen())
    assert again.as_dict() == first.as_dict()
    assert not [event for event in told if event["event"] == "round"]
    assert list((tmp_path / "runs").glob("small-advice-*.json"))


def test_rounds_are_not_set_where_they_would_be_ignored(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Use --rounds"):
        advise("digits", study=tmp_path / "advice.toml", overrides=["run.rounds=5"], out=tmp_path)


def test_a_file_of_others_is_not_written_over(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("name = 'mine'\n")
    with pytest.raises(ConfigError, match="rivage advise has not written it"):
        advise("digits", study=path)
    with pytest.raises(ConfigError, match="minutes is 0"):
        advise("digits", minutes=0.0, study=tmp_path / "new.toml")


# On real training. Measured over the seeds named; every one of them is checked.


def answered(tmp_path: Path, data: str, overrides: list[str], plan: Plan, seed: int = 0) -> Advice:
    asked, _ = question(data, None, overrides)
    asked = replace(asked, tuning=Tuning(learning_rates=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0)))
    return compare(asked, plan, seed, study=tmp_path / f"{seed}.toml", out=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 10, 20, 30])
def test_on_an_iid_split_no_personalisation_is_recommended(tmp_path: Path, seed: int) -> None:
    found = answered(tmp_path, "digits", ["partition={ kind = 'iid', clients = 12 }"], Plan(15, 6, 3), seed)
    assert found.decision.method in ("fedavg", "guarded")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 10])
def test_on_a_mixture_fedem_is_recommended(tmp_path: Path, seed: int) -> None:
    overrides = [f"data.{key}={value}" for key, value in (("clients", 24), ("features", 20), ("max_records", 300))]
    found = answered(tmp_path, "synthetic", [*overrides, "data.test_records=300"], Plan(40, 8, 3), seed)
    assert (found.decision.verdict, found.decision.method) == ("better", "fedem")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 10])
def test_where_concepts_shift_the_shared_model_is_not_recommended(tmp_path: Path, seed: int) -> None:
    overrides = ["partition={ kind = 'iid', clients = 12 }", "shift={ kind = 'concept', share = 0.5, offset = 3 }"]
    found = answered(tmp_path, "digits", overrides, Plan(25, 6, 3), seed)
    assert found.decision.method != "fedavg"
    assert found.record.summary["methods"]["fedavg"]["mean"] < 0.6


@pytest.mark.slow
def test_where_every_client_has_names_of_its_own_nothing_beats_local(tmp_path: Path) -> None:
    overrides = ["partition={ kind = 'iid', clients = 14 }", "shift={ kind = 'concept', share = 1.0 }"]
    found = answered(tmp_path, "digits", overrides, Plan(15, 6, 3))
    assert (found.decision.verdict, found.decision.method) == ("local", "local")
    assert found.record.certificates[0].check == "nothing_beats"
    assert "every method serves the average client worse" in found.answer
