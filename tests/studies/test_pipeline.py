from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from rivage.cli.app import main
from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.records import RunRecord
from rivage.data import build_population
from rivage.learning.bundle import ModelBundle
from rivage.studies.pipeline import built_in, run_study
from rivage.studies.settings import override_study, parse_study

SHORT = [
    "run.rounds=4",
    "run.seeds=[0,1]",
    "evaluation.every=2",
    "methods.local.epochs=3",
    "evaluation.unseen_clients=0.2",
]


class Events(list[dict[str, Any]]):
    def on_event(self, event: Any) -> None:
        self.append(dict(event))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run_study(override_study(built_in(), SHORT), out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def record(finished: RunRecord, tmp_path: Path) -> RunRecord:
    return RunRecord.open(shutil.copytree(finished.folder, tmp_path / finished.folder.name))


def test_the_summary_has_the_keys_of_the_contract(finished: RunRecord) -> None:
    assert set(finished.summary) == {"run", "hash", "report", "methods", "certificates"}
    assert finished.summary["hash"] == finished.hash
    assert set(finished.summary["methods"]) == {"local", "fedavg", "fedavg+", "fedem", "knnper", "guarded"}
    for values in finished.summary["methods"].values():
        keys = {"metric", "mean", "bottom_decile", "share_worse_than_local", "bytes_up", "bytes_down", "seconds"}
        assert keys <= set(values)
    for certificate in finished.summary["certificates"]:
        keys = {"kind", "claim", "measured", "reference", "method", "confidence", "verdict"}
        assert keys <= set(certificate)
        assert certificate["verdict"] in ("holds", "fails", "no_power")


def test_every_certificate_is_computed_again_from_the_folder(record: RunRecord) -> None:
    federated = {name for name in CHECKS if CHECKS.get(name).__module__ == "rivage.federated.checks"}
    assert {c.check for c in record.certificates} == federated
    for certificate in record.certificates:
        assert CHECKS.get(certificate.check)(record, **certificate.fields) == certificate
    assert main(["verify", str(record.folder), "--quiet"]) == 0


def test_a_touched_record_does_not_verify(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    path = record.trial("fedavg", 0).folder / "record.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for event in lines:
        if event["event"] == "evaluation":
            event["test"] = [None if value is None else min(1.0, value + 0.05) for value in event["test"]]
    path.write_text("".join(f"{json.dumps(event)}\n" for event in lines))
    assert main(["verify", str(record.folder), "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert not all(certificate["agrees"] for certificate in answer["certificates"])


def test_files_that_changed_do_not_verify(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(record.folder), "--quiet"]) == 0
    path = record.trial("fedavg", 0).folder / "record.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"skipped":0', '"skipped":1'))  # no certificate reads this
    assert main(["verify", str(record.folder), "--json"]) == 3
    assert len(json.loads(capsys.readouterr().out.partition("\n")[2])["changes"]) == 2
    path.write_text(whole)
    summary = record.summary
    summary["methods"]["fedavg"]["mean"] = 1.0
    record.write_summary(summary)
    assert main(["verify", str(record.folder), "--quiet"]) == 3
    models = record.trial("local", 0).folder / "models.safetensors"
    data = bytearray(models.read_bytes())
    data[-1] ^= 1
    models.write_bytes(data)
    assert main(["verify", str(record.folder), "--quiet"]) == 1


def test_a_population_of_a_billion_ends_with_a_report(tmp_path: Path) -> None:
    study = tmp_path / "fleet.toml"
    study.write_text(
        """
        data = { kind = "population", size = 1_000_000_000, features = 5, classes = 2 }
        availability = { kind = "markov", mean = 0.3, correlation = 0.5 }
        methods = [{ kind = "fedavg", learning_rate = 0.1 }]
        run = { rounds = 2, cohort = 10 }
        """
    )
    assert main(["run", str(study), "--out", str(tmp_path), "--quiet"]) == 0
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    assert (folder / "report.html").stat().st_size > 10_000
    assert main(["verify", str(folder), "--quiet"]) == 0


def test_hidden_traffic_does_not_verify(record: RunRecord) -> None:
    path = record.trial("fedavg", 1).folder / "record.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    next(event for event in lines if event["event"] == "round")["bytes_up"] -= 1
    path.write_text("".join(f"{json.dumps(event)}\n" for event in lines))
    assert CHECKS.get("wire_bytes")(record, method="fedavg").verdict == "fails"
    assert CHECKS.get("wire_bytes")(record, method="fedavg+").verdict == "holds"


def test_another_choice_than_the_rules_does_not_verify(record: RunRecord) -> None:
    path = record.trial("guarded", 0).folder / "record.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    choice = next(event for event in lines if event["event"] == "choice")
    choice["chosen"] = [next(name for name in choice["among"] if name != chosen) for chosen in choice["chosen"]]
    path.write_text("".join(f"{json.dumps(event)}\n" for event in lines))
    assert CHECKS.get("guard")(record, method="guarded").verdict == "fails"


def test_the_paired_test_is_students(finished: RunRecord) -> None:
    certificate = CHECKS.get("paired_difference")(finished, method="fedavg", reference="local", confidence=0.9)
    gains: dict[int, list[float]] = {}
    for seed in finished.seeds:
        ours, others = (finished.trial(m, seed).final() for m in ("fedavg", "local"))
        for client, a, b in zip(ours["clients"], ours["test"], others["test"], strict=True):
            gains.setdefault(client, []).append(a - b)
    means = [np.mean(values) for values in gains.values()]
    assert certificate.measured == pytest.approx(float(np.mean(means)))
    p, q = (ttest_1samp(means, 0, alternative=side).pvalue for side in ("greater", "less"))
    assert certificate.verdict == ("holds" if min(p, q) < 0.1 else "no_power")
    assert ("worse" if q < p else "better") in certificate.claim


def test_equal_methods_have_no_power_to_differ(finished: RunRecord) -> None:
    certificate = CHECKS.get("paired_difference")(finished, method="fedavg", reference="fedavg")
    assert (certificate.measured, certificate.verdict) == (0.0, "no_power")


def test_starting_again_changes_nothing_and_fresh_starts_over(record: RunRecord) -> None:
    study = override_study(built_in(), SHORT)
    before, watcher = record.hash, Events()
    stamp = (record.trial("fedavg", 0).folder / LOG_NAME).stat().st_mtime_ns
    again = run_study(study, out=record.folder.parent, observer=watcher)
    assert (again.folder, again.hash) == (record.folder, before)
    assert (record.trial("fedavg", 0).folder / LOG_NAME).stat().st_mtime_ns == stamp
    assert not [event for event in watcher if event["event"] == "round"]
    watcher.clear()
    assert run_study(study, out=record.folder.parent, fresh=True, observer=watcher).hash == before
    assert len([event for event in watcher if event["event"] == "round"]) == 4 * 2 * 4


def test_a_finished_trial_of_other_data_is_refused_and_kept(record: RunRecord) -> None:
    path = record.trial("fedavg", 0).folder / "record.jsonl"
    fingerprint = record.trial("fedavg", 0).start["population"]["fingerprint"]
    path.write_text(path.read_text().replace(fingerprint, "0" * len(fingerprint)))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"fedavg.*the data are not those.*--fresh"):
        run_study(override_study(built_in(), SHORT), out=record.folder.parent)
    assert path.read_bytes() == before


def test_methods_of_one_seed_are_paired(finished: RunRecord) -> None:
    starts = finished.events("start", seed=0)
    assert len({event["population"]["fingerprint"] for event in starts}) == 1
    cohorts = [[e["cohort"] for e in finished.trial(m, 0).events("round")] for m in ("fedavg", "fedavg+")]
    assert cohorts[0] == cohorts[1]
    other = finished.events("start", seed=1)[0]["population"]["fingerprint"]
    assert other != starts[0]["population"]["fingerprint"]


def test_guarded_costs_what_its_candidates_cost_and_chooses_among_them(finished: RunRecord) -> None:
    guarded = finished.trial("guarded", 0)
    others = [finished.trial(m, 0) for m in ("local", "fedavg", "fedavg+", "fedem", "knnper")]
    assert guarded.bytes_up == sum(t.bytes_up for t in others)
    choice = guarded.events("choice")[0]
    final = guarded.final()
    bundle = ModelBundle.load(guarded.folder / "models.safetensors")
    assert bundle.newcomer is not None
    for row, (client, name) in enumerate(zip(choice["clients"], choice["chosen"], strict=True)):
        source = ModelBundle.load(finished.trial(name, 0).folder / "models.safetensors")
        assert all((a == b).all() for a, b in zip(bundle.parts(client), source.parts(client), strict=True))
        assert final["test"][row] == finished.trial(name, 0).final()["test"][row]


def test_saved_models_predict_what_the_record_says(finished: RunRecord) -> None:
    study = override_study(built_in(), SHORT)
    population = build_population(
        study.data,
        partition=study.partition,
        availability=study.availability,
        seed=0,
        validation=study.evaluation.validation,
        test=study.evaluation.test,
    )
    for method in ("local", "fedavg+"):
        trial = finished.trial(method, 0)
        bundle = ModelBundle.load(trial.folder / "models.safetensors")
        client = trial.final()["clients"][2]
        data = population.client(client).test
        hits = bundle.predictor(client)(data.x).argmax(axis=1) == data.y
        assert hits.mean() == pytest.approx(trial.final()["test"][2])


def test_the_log_names_neither_seed_nor_data(finished: RunRecord) -> None:
    header = MessageLog.read_header(finished.trial("fedavg", 1).folder / LOG_NAME)
    assert "seed" not in json.dumps(header)
    assert header["parameters"][0]["name"]


def test_notices_tell_how_many_clients_and_parameters(tmp_path: Path) -> None:
    watcher = Events()
    run_study(override_study(built_in(), [*SHORT, "run.rounds=0", "run.seeds=[0]"]), out=tmp_path, observer=watcher)
    text = " ".join(event["text"] for event in watcher if event["event"] == "notice")
    assert "20 clients" in text
    assert "4,810 parameters" in text
    assert watcher[-1]["event"] == "study_end"


def test_a_cohort_that_cannot_be_filled_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    study = override_study(built_in(), ["run.cohort=17", "evaluation.unseen_clients=0.2"])
    with pytest.raises(ConfigError, match="only 16 clients can train"):
        run_study(study, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_whatever_does_not_fit_the_clients_is_refused_at_once_before_anything_is_written(tmp_path: Path) -> None:
    study = override_study(
        built_in(),
        [
            'run.cohort="all"',
            'run.log="clients:[0, 99, 20]"',
            "adversary={kind='sign_flip', clients=[9, 20]}",
            "methods.fedavg.collector={kind='krum', faulty=2, keep=17}",
        ],
    )
    with pytest.raises(ConfigError) as caught:
        run_study(study, out=tmp_path)
    assert str(caught.value).splitlines() == [
        "3 problems",
        "  [[methods]] 2: keep is 17, but of 18 updates Krum with faulty = 2 keeps at most 14 (n - faulty - 2). "
        "Lower keep.",
        "  [run] log: log names 20, 99, but there are 20 clients. Give numbers from 0 to 19.",
        "  [adversary] clients: clients names 20, but there are 20 clients. Give numbers from 0 to 19.",
    ]
    assert not list(tmp_path.iterdir())


SMALL = """
name = "small"
data = { kind = "digits" }
partition = { kind = "iid", clients = 8 }
run = { rounds = 3, cohort = 4 }
evaluation = { every = 2 }
methods = [
  { kind = "local" },
  { kind = "scaffold" },
  { name = "sparse", kind = "fedavg", stages = [{ kind = "top_k", share = 0.01 }] },
  { kind = "guarded" },
]
"""


def test_described_devices_give_simulated_time_and_energy(tmp_path: Path) -> None:
    record = run_study(override_study(parse_study(SMALL), ['devices.kind="lognormal"']), out=tmp_path)
    methods = record.summary["methods"]
    for key in ("simulated_s", "energy_j"):
        rounds = {method: [e[key] for e in record.trial(method, 0).events("round")] for method in methods}
        assert methods["scaffold"][key] == pytest.approx(sum(rounds["scaffold"]))
        assert 0 < methods["sparse"][key] < methods["scaffold"][key], "fewer bytes over the same links"
        assert methods["local"][key] is None, "it plays no rounds"
        assert methods["guarded"][key] == pytest.approx(methods["sparse"][key] + methods["scaffold"][key])
    assert record.trial("sparse", 0).start["devices"]["kind"] == "lognormal"
    assert main(["verify", str(record.folder), "--quiet"]) == 0


def test_without_devices_no_time_is_simulated(finished: RunRecord) -> None:
    for values in finished.summary["methods"].values():
        assert (values["simulated_s"], values["energy_j"]) == (None, None)
    assert "devices" not in finished.trial("fedavg", 0).start


def test_as_many_clients_are_remembered_as_the_study_says(tmp_path: Path) -> None:
    study = parse_study(SMALL)
    forgotten = {}
    for remembered in ('"all"', "8", "4"):
        record = run_study(override_study(study, [f"run.remembered={remembered}"]), out=tmp_path)
        rounds = [record.trial(method, 0).events("round") for method in ("scaffold", "sparse")]
        forgotten[remembered] = [[event.get("forgotten", 0) for event in events] for events in rounds]
    assert forgotten['"all"'] == forgotten["8"] == [[0, 0, 0]] * 2
    cohorts = [event["cohort"] for event in record.trial("scaffold", 0).events("round")]
    gone = [0, *(len(set(before) - set(now)) for before, now in pairwise(cohorts))]
    assert forgotten["4"] == [gone, gone], "four are remembered: those of the last cohort"


@pytest.mark.parametrize(("remembered", "unseen", "told"), [('"all"', 0, 0), (8, 0, 0), (7, 0, 1), (6, 0.25, 0)])
def test_forgetting_clients_that_must_not_be_forgotten_is_told(
    remembered: object, unseen: float, told: int, tmp_path: Path
) -> None:
    watcher = Events()
    changes = [f"run.remembered={remembered}", f"evaluation.unseen_clients={unseen}", "run.rounds=0"]
    run_study(override_study(parse_study(SMALL), changes), out=tmp_path, observer=watcher)
    notices = [event["text"] for event in watcher if event["event"] == "notice" and "forgotten" in event["text"]]
    assert len(notices) == told, "scaffold alone, and only where somebody is forgotten"
    for notice in notices:
        assert notice == (
            "scaffold: of 8 clients run.remembered = 7 are remembered and the others forgotten: the server's control "
            'is then no longer the mean of the clients\' controls (set run.remembered = "all")'
        )


def test_an_adversary_may_be_called_by_the_name_of_its_clients(tmp_path: Path) -> None:
    for name in ("lyon", "metz", "nice"):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "".join(f"{n % 7},{n % 2}\n" for n in range(30)))
    text = f"""
        name = "named"
        data = {{ kind = "tables", folder = "{tmp_path}", target = "y" }}
        methods = [{{ kind = "fedavg" }}]
        run = {{ rounds = 1 }}
        adversary = {{ kind = "nan", clients = ["nice", 0] }}
    """
    record = run_study(parse_study(text), out=tmp_path / "runs")
    (event,) = record.trial("fedavg", 0).events("round")
    assert [rejected["client"] for rejected in event["rejected"]] == [0, 2]
    assert record.settings["adversary"] == {"kind": "nan", "clients": ["nice", 0]}
    with pytest.raises(ConfigError, match=r'clients names "nicee".*Did you mean "nice"'):
        run_study(parse_study(text.replace('"nice"', '"nicee"')), out=tmp_path / "runs")


def test_a_scaled_target_is_judged_and_predicted_in_its_own_unit(tmp_path: Path) -> None:
    """The target times 1000 changes no training, and every error by 1000."""
    scores = []
    for factor in (1, 1000):
        folder = tmp_path / f"sites-{factor}"
        folder.mkdir()
        for name in ("a", "b"):
            x = np.random.default_rng(len(name) + ord(name)).normal(size=40)
            lines = [f"{v:.6f},{factor * (5 + 2 * v):.6f}" for v in x]
            (folder / f"{name}.csv").write_text("\n".join(["dose,level", *lines]) + "\n")
        text = f"""
            name = "scaled"
            data = {{ kind = "tables", folder = "{folder}", target = "level" }}
            methods = [{{ kind = "fedavg", learning_rate = 0.1 }}]
            run = {{ rounds = 5 }}
        """
        study = parse_study(text)
        trial = run_study(study, out=tmp_path).trial("fedavg", 0)
        scores.append(trial.final()["test"])
        if factor == 1000:
            predict = ModelBundle.load(trial.folder / "models.safetensors").predictor(0)
            population = build_population(study.data, seed=0)
            data, schema = population.client(0).test, population.schema
            own = data.y.reshape(-1, 1) * schema.unit + schema.center
            assert np.abs(predict(data.x) - own).mean() == pytest.approx(scores[1][0], rel=1e-4)
    np.testing.assert_allclose(np.array(scores[1]), 1000 * np.array(scores[0]), rtol=1e-4)
