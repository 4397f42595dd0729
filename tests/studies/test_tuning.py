from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.cli.app import main
from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError, DataError, ProtocolError, StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.federated.ditto import Ditto
from rivage.federated.fedavg import FedAvg
from rivage.federated.fedopt import FedAdam
from rivage.federated.fedprox import FedProx
from rivage.federated.finetuned import FineTuned
from rivage.federated.local import Local
from rivage.federated.registry import ALGORITHMS
from rivage.studies.settings import Study, dump_study, override_study, parse_study
from rivage.studies.study_tables import Method
from rivage.studies.tuning import run_tuned, tune, with_references
from rivage.studies.tuning_checks import TUNING, best, tuning_of
from rivage.studies.tuning_grid import at_edge, candidates, finer, grid, label
from rivage.studies.tuning_settings import Tuning

STUDY = """
name = "small"
data = { kind = "linear", clients = 4, features = 3, records = 60, spread = 0.3 }
methods = [{ kind = "local", epochs = 3 }, { kind = "fedprox" }, { kind = "guarded" }]
work = { epochs = 1, batch_size = 16 }
run = { rounds = 3, seeds = [0, 1], log = "none" }
tuning = { budget = 3, learning_rates = [0.01, 0.1], rounds = 2 }
"""


class Events(list[dict[str, Any]]):
    def on_event(self, event: Any) -> None:
        self.append(dict(event))

    @property
    def notices(self) -> str:
        return "\n".join(event["text"] for event in self if event["event"] == "notice")


class Killed(BaseException):
    """Stands for kill -9."""


class Killer(Events):
    def __init__(self, after: int) -> None:
        self.left = after

    def on_event(self, event: Any) -> None:
        super().on_event(event)
        if event["event"] == "round":
            self.left -= 1
            if self.left == 0:
                raise Killed


def study(*overrides: str) -> Study:
    return override_study(parse_study(STUDY), overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run_tuned(study(), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def record(finished: RunRecord, tmp_path: Path) -> RunRecord:
    return RunRecord.open(shutil.copytree(finished.folder, tmp_path / finished.folder.name))


# What is tried


@pytest.mark.parametrize("algorithm", [FedAvg(), FedProx(), Ditto(), FineTuned(), FedAdam(), Local()])
@pytest.mark.parametrize("budget", [5, 8, 13, 40])
def test_every_method_gets_the_budget_and_every_rate(algorithm: Any, budget: int) -> None:
    tuning = Tuning(budget=budget)
    tried = candidates(Method(algorithm=algorithm), tuning, 0)
    assert len(tried) == budget
    assert len({label(values) for values in tried}) == budget
    assert [values["learning_rate"] for values in tried[:5]] == list(tuning.learning_rates)


def test_methods_without_settings_of_their_own_get_finer_rates() -> None:
    rates = [values["learning_rate"] for values in candidates(Method(algorithm=FedAvg()), Tuning(budget=9), 0)]
    assert rates[5:] == [0.173, 0.0548, 0.0173, 0.00548]
    assert finer((0.1,), 3) == (0.1, 0.316, 0.0316)
    assert finer((0.1, 0.2), 1) == (0.1, 0.2)


def test_declared_values_are_used_about_equally_often() -> None:
    tried = candidates(Method(algorithm=FedProx()), Tuning(budget=8), 0)
    counts = [sum(values["mu"] == mu for values in tried) for mu in FedProx.tuned["mu"]]
    assert sum(counts) == 8
    assert min(counts) >= 1
    assert max(counts) <= 3
    assert tried == candidates(Method(algorithm=FedProx()), Tuning(budget=8), 0)
    assert tried != candidates(Method(algorithm=FedProx()), Tuning(budget=8), 1)


def test_what_the_constructor_refuses_is_not_tried() -> None:
    tuning = Tuning(budget=16, learning_rates=(0.1, 0.3))
    tried = candidates(Method(algorithm=FedProx()), tuning, 0)
    assert len(tried) == 16
    assert all(values["learning_rate"] * values["mu"] < 2 for values in tried)
    with pytest.raises(ConfigError, match="accepts none"):
        candidates(Method(algorithm=FedProx()), Tuning(learning_rates=(1e6,), budget=1), 0)


def test_every_registered_class_declares_settings_that_it_has() -> None:
    tried = 0
    for kind in ALGORITHMS:
        cls = ALGORITHMS.get(kind)
        if getattr(cls, "tuned", None) is None:
            continue
        assert len(candidates(Method(algorithm=cls()), Tuning(), 0)) == 8, kind
        tried += 1
    assert tried >= 9


@given(st.lists(st.sampled_from([0.1, 1.0, 2.0, None]), min_size=1, max_size=6), st.booleans(), st.data())
def test_the_best_is_best_whatever_the_order(values: list[float | None], higher: bool, data: st.DataObject) -> None:
    tried: list[dict[str, Any]] = [
        {"value": value, "loss": data.draw(st.sampled_from([0.5, 1.0])), "settings": {}} for value in values
    ]
    place = best(tried, higher_is_better=higher)
    known = [value for value in values if value is not None]
    if known:
        assert values[place] == (max(known) if higher else min(known))
        equal = [trial["loss"] for trial in tried if trial["value"] == values[place]]
        assert tried[place]["loss"] == min(equal)


def test_edges_are_those_of_numbers_that_have_neighbours() -> None:
    tried: list[dict[str, Any]] = [
        {"learning_rate": rate, "mu": mu, "rate": None} for rate in (0.01, 0.1, 1.0) for mu in (0.1, 1.0)
    ]
    spans = grid(tried)
    assert spans == {"learning_rate": [0.01, 0.1, 1.0], "mu": [0.1, 1.0], "rate": [None]}
    assert at_edge(spans, {"learning_rate": 1.0, "mu": 1.0, "rate": None}) == ("learning_rate",)
    assert at_edge(spans, {"learning_rate": 0.1, "mu": 1.0, "rate": None}) == ()


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ({"budget": 4}, "budget is 4, but there are 5 learning rates"),
        ({"learning_rates": ()}, "Give one or several different"),
        ({"learning_rates": (0.1, 0.1)}, "Give one or several different"),
        ({"learning_rates": (0.1, -1.0)}, "greater than 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_tables_are_refused(table: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Tuning(**table)


# The run


def test_the_run_plays_the_best_by_validation(finished: RunRecord) -> None:
    """Brute force: every trial's value again, from the columns of its record."""
    table = tuning_of(finished)
    assert table is not None
    trials = RunRecord.open(finished.folder.parent / table["run"])
    assert set(table["methods"]) == {"fedavg+", "local", "fedprox"}
    for name, found in table["methods"].items():
        values = []
        for trial in found["trials"]:
            event = trials.trial(f"{name} ({label(trial['settings'])})", 0).final()
            assert event is not None
            values.append(np.average(event["validation"], weights=event["validation_size"]))
            assert event["round"] == (0 if name == "local" else 2)
        assert values == pytest.approx([trial["value"] for trial in found["trials"]])
        assert found["chosen"] == found["trials"][int(np.argmin(values))]["settings"]  # mean absolute error
        played = next(m for m in finished.settings["methods"] if m["name"] == name)
        assert played["learning_rate"] == found["chosen"]["learning_rate"]
    assert {len(found["trials"]) for found in table["methods"].values()} == {3}


def test_the_settings_of_the_run_repeat_it_untuned(finished: RunRecord, tmp_path: Path) -> None:
    path = finished.folder / "settings.toml"
    assert main(["train", str(path), "--out", str(tmp_path), "--quiet"]) == 0
    (again,) = tmp_path.iterdir()
    assert RunRecord.open(again).hash == finished.hash
    assert parse_study(path.read_text()).tuning == Tuning(budget=3, learning_rates=(0.01, 0.1), rounds=2)
    assert "tuning" not in dump_study(parse_study(STUDY.rpartition("tuning")[0]))


def test_what_is_missing_is_added_and_told(tmp_path: Path) -> None:
    events = Events()
    tune(study('methods=[{ kind = "fedavg", name = "local" }]'), out=tmp_path, observer=events)
    assert "added, for no comparison is fair without: local (reference), fedavg+" in events.notices
    whole, added = with_references(study('methods=[{ kind = "fedavg+" }, { kind = "local", name = "alone" }]'))
    assert added == ()
    assert len(whole.methods) == 2


def test_a_promise_that_leaves_tuning_out_says_so(tmp_path: Path) -> None:
    events = Events()
    noisy = (
        'methods = [{ kind = "fedprox", name = "noisy", collector = { kind = "private_mean" } }, { kind = "fedavg" }]'
    )
    text = "\n".join(noisy if line.startswith("methods") else line for line in STUDY.splitlines())
    pytest.importorskip("dp_accounting")
    tune(parse_study(text), out=tmp_path, observer=events)
    told = "the epsilon of noisy counts neither these trials nor the choice among them"
    assert [text for text in events.notices.splitlines() if "epsilon" in text and "these trials" in text] == [told]


def test_nobody_sees_test_records_while_tuning(tmp_path: Path) -> None:
    events = Events()
    tune(study(), out=tmp_path, observer=events)
    evaluations = [event for event in events if event["event"] == "evaluation"]
    assert evaluations
    assert all("test" not in event and event["metric"] == "validation" for event in evaluations)


def test_changed_test_records_change_no_choice(tmp_path: Path) -> None:
    """Two files that differ in test records alone: the same trials, the same choices."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    y = x @ np.array([1.0, -1.0, 0.5])
    client, test = np.repeat(np.arange(4), 30), np.tile(np.arange(30) < 10, 4)
    chosen = []
    for name, noise in (("one", 0.0), ("two", 5.0)):
        noisy = np.where(test, y + noise * rng.normal(size=120), y)
        np.savez(tmp_path / f"{name}.npz", x=x, y=noisy, client=client, test=test)
        data = f'data={{ kind = "arrays", path = "{tmp_path / name}.npz", target_type = "real" }}'
        chosen.append(tune(study(data), out=tmp_path / name).table)
    assert {**chosen[0], "run": ""} == {**chosen[1], "run": ""}


def test_a_killed_tuning_goes_on_to_the_same_record(finished: RunRecord, tmp_path: Path) -> None:
    for after in (1, 3):
        with pytest.raises(Killed):
            run_tuned(study(), out=tmp_path, observer=Killer(after))
    events = Events()
    again = run_tuned(study(), out=tmp_path, observer=events)
    assert again.hash == finished.hash
    assert tuning_of(again) == tuning_of(finished)
    table = tuning_of(again)
    assert table is not None
    one, two = (RunRecord.open(record.folder.parent / table["run"]).hash for record in (again, finished))
    assert one == two
    events.clear()
    assert run_tuned(study(), out=tmp_path, observer=events).hash == again.hash
    assert not [event for event in events if event["event"] == "round"]
    run_tuned(study(), out=tmp_path, fresh=True, observer=events)
    assert len([event for event in events if event["event"] == "round"]) == 6 * 2 + 2 * 2 * 3


def test_diverged_trials_count_as_worst(tmp_path: Path) -> None:
    events = Events()
    found = tune(
        study("tuning={ budget = 2, learning_rates = [1e30, 0.1], rounds = 2 }"), out=tmp_path, observer=events
    )
    for name in ("fedavg+", "local"):
        trials = found.table["methods"][name]["trials"]
        assert trials[0]["value"] is None
        assert "Lower learning_rate" in trials[0]["failed"]
        assert found.table["methods"][name]["chosen"]["learning_rate"] == 0.1
    with pytest.raises(ProtocolError, match="no setting of 1 can be used; the first"):
        tune(study("tuning={ budget = 1, learning_rates = [1e30] }", 'methods=[{ kind = "local" }]'), out=tmp_path)


def test_clients_without_validation_records_have_no_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(44, 2))
    client = np.concatenate([np.repeat(np.arange(2), 20), [2, 2, 3, 3]])
    np.savez(tmp_path / "few.npz", x=x, y=x.sum(axis=1), client=client)
    data = f'data={{ kind = "arrays", path = "{tmp_path / "few.npz"}", target_type = "real" }}'
    found = tune(study(data), out=tmp_path)
    (trial, *_) = found.table["methods"]["local"]["trials"]
    assert trial["clients"] == 2
    with pytest.raises(DataError, match="no client has a validation record"):
        tune(study(data, "evaluation.validation=0.0"), out=tmp_path)


def test_the_metric_or_the_loss_is_compared(tmp_path: Path) -> None:
    found = tune(study('tuning={ budget = 2, learning_rates = [0.01, 0.1], metric = "loss" }'), out=tmp_path)
    assert found.table["value"] == "loss"
    assert not found.table["higher_is_better"]
    trials = found.table["methods"]["local"]["trials"]
    assert [trial["value"] for trial in trials] == [trial["loss"] for trial in trials]


def test_the_seed_of_tuning_may_be_its_own(tmp_path: Path) -> None:
    found = tune(study("tuning={ budget = 2, learning_rates = [0.01, 0.1], rounds = 1, seed = 9 }"), out=tmp_path)
    assert found.table["seed"] == 9
    assert found.study.run.seeds == (0, 1)


# The certificate


def test_every_tuned_method_has_a_certificate_that_verifies(record: RunRecord) -> None:
    tuned = [certificate for certificate in record.certificates if certificate.check == "tuned"]
    assert {certificate.fields["method"] for certificate in tuned} == {"fedavg+", "local", "fedprox"}
    for certificate in tuned:
        assert certificate.verdict == "holds"
        assert certificate.measured == certificate.reference
        assert CHECKS.get("tuned")(record, **certificate.fields) == certificate
        assert "of 3 settings, as many as every tuned method had" in certificate.claim
    assert main(["verify", str(record.folder), "--quiet"]) == 0


def _better(found: dict[str, Any]) -> None:
    other = next(trial for trial in found["trials"] if trial["settings"] != found["chosen"])
    other["value"] = 0.0


def _fewer(found: dict[str, Any]) -> None:
    found["trials"] = [trial for trial in found["trials"] if trial["settings"] == found["chosen"]]


def _twice(found: dict[str, Any]) -> None:
    found["trials"][0] = found["trials"][1] = found["trials"][2]


def _unplayed(found: dict[str, Any]) -> None:
    trial = next(trial for trial in found["trials"] if trial["settings"] == found["chosen"])
    trial["settings"] = found["chosen"] = {**found["chosen"], "learning_rate": 0.02}


@pytest.mark.parametrize("touch", [_better, _fewer, _twice, _unplayed])
def test_a_choice_that_is_not_the_best_does_not_verify(record: RunRecord, touch: Any) -> None:
    path = record.folder / TUNING
    table = json.loads(path.read_text())
    touch(table["methods"]["fedprox"])
    path.write_text(json.dumps(table))
    assert CHECKS.get("tuned")(record, method="fedprox").verdict == "fails"
    assert main(["verify", str(record.folder), "--quiet"]) == 3


def test_a_table_that_turns_the_metric_round_does_not_verify(record: RunRecord) -> None:
    path = record.folder / TUNING
    table = json.loads(path.read_text())
    found = table["methods"]["fedprox"]
    rates = {trial["value"]: trial["settings"] for trial in found["trials"]}
    assert found["chosen"] == rates[min(rates)]  # mean absolute error
    for trial in found["trials"]:
        trial["value"] *= -1
    table["higher_is_better"] = True
    path.write_text(json.dumps(table))
    assert CHECKS.get("tuned")(record, method="fedprox").verdict == "fails"


def test_a_table_is_held_against_the_trials_beside_the_run(finished: RunRecord, tmp_path: Path) -> None:
    shutil.copytree(finished.folder.parent, tmp_path / "runs")
    record = RunRecord.open(tmp_path / "runs" / finished.folder.name)
    path = record.folder / TUNING
    assert CHECKS.get("tuned")(record, method="fedprox").verdict == "holds"
    table = json.loads(path.read_text())
    other = next(
        t for t in table["methods"]["fedprox"]["trials"] if t["settings"] != table["methods"]["fedprox"]["chosen"]
    )
    other["value"] += 1.0  # looks worse than it was
    path.write_text(json.dumps(table))
    assert CHECKS.get("tuned")(record, method="fedprox").verdict == "fails"
    shutil.rmtree(tmp_path / "runs" / table["run"])
    assert CHECKS.get("tuned")(record, method="fedprox").verdict == "holds"  # nothing is left to tell


def test_what_was_not_tuned_is_named(record: RunRecord) -> None:
    with pytest.raises(StoreError, match='"guarded" was not tuned'):
        CHECKS.get("tuned")(record, method="guarded")


# The command


def test_train_tune_prints_the_choices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    assert main(["train", str(path), "--tune", "--out", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr()
    assert "validation mae" in printed.out
    assert all(name in printed.out for name in ("fedavg+", "local", "learning_rate="))
    assert "3 settings for each of 3 methods" in printed.err.replace("\n", " ")
    assert main(["train", str(path), "--tune", "--out", str(tmp_path / "runs"), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["tuning"]["methods"]) == {"local", "fedavg+", "fedprox"}


def test_real_machines_do_not_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.toml"
    path.write_text(STUDY)
    assert main(["train", str(path), "--tune", "--engine", "torchdist"]) == 2
    assert "--tune: tuning simulates" in capsys.readouterr().err


def test_overlays_are_tuned_as_servers_are(tmp_path: Path) -> None:
    found = tune(study('methods=[{ kind = "dpsgd" }]'), out=tmp_path)
    assert len(found.table["methods"]["dpsgd"]["trials"]) == 3
    folder = next(tmp_path.glob("small-tuning-*/trials/dpsgd*/seed-0"))
    assert TrialRecord.open(folder).finished
