"""Whole audits of small runs: what is asked, what is kept, what goes on when something fails."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.cli.audit import audit_trained
from rivage.cli.output import Options
from rivage.core.errors import ConfigError, DataError, StoreError
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.toml import format_toml
from rivage.data.population import Schema
from rivage.privacy.attack import ATTACKS
from rivage.privacy.checks import leakages
from rivage.privacy.model_attributes import ModelAttributes
from rivage.privacy.questions import AttributeAnswer, MembershipAnswer, ModelAnswer
from rivage.privacy.views import ActiveServer, CuriousServer, Eavesdropper, Refused, ReleasedModel
from rivage.studies.audit_answer import answer
from rivage.studies.audit_attack import _row, _streams, perform
from rivage.studies.audit_attributes import attributes
from rivage.studies.audit_imports import imported_log
from rivage.studies.audit_opening import _trial, scene_of_run
from rivage.studies.audit_settings import Auditing
from rivage.studies.audit_views import Views
from rivage.studies.auditing import CHEAPEST_FIRST, audit_run, requested
from rivage.studies.pipeline import identity, run_study
from rivage.studies.settings import parse_study

STUDY = """
name = "audited"
data = { kind = "digits" }
partition = { kind = "iid", clients = 5 }
methods = [{ kind = "fedavg", learning_rate = 0.3 }, { kind = "local" }, { kind = "fedem" }]
run = { rounds = 3 }
"""
TABLE = "age,smoker,sex,group,y\n" + "\n".join(
    f"{20 + n * 7 % 50},{'yes' if n * 5 % 7 < 3 else 'no'},{'m' if n * 11 % 13 < 6 else 'f'},{'abcdefgh'[n % 8]},"
    f"{(n * 5 % 7 < 3) * 4 + n % 3 * 0.3}"
    for n in range(64)
)


@dataclass(frozen=True, kw_only=True)
class Told:
    """Finds every member: it looks where no attack can."""

    reference: ClassVar[Any] = None
    asks: ClassVar[str] = "membership"
    view: ClassVar[type] = Eavesdropper
    oracle: ClassVar[str] = ""

    def run(self, view: Any, question: Any, tools: Any) -> MembershipAnswer:
        assert question.target == view.target
        tools.meter.count(7)
        first = question.records.x.reshape(len(question.records), -1).sum(axis=1)
        return MembershipAnswer(np.where(question.known, np.nan, first), {"exchanges": view.rounds})


@dataclass(frozen=True, kw_only=True)
class Failing(Told):
    """Breaks down at one client."""

    def run(self, view: Any, question: Any, tools: Any) -> MembershipAnswer:
        if view.target == 1:
            raise ZeroDivisionError("division by zero")
        return super().run(view, question, tools)


@dataclass(frozen=True, kw_only=True)
class Refusing(Told):
    """Refuses all."""

    view: ClassVar[type] = CuriousServer

    def run(self, view: Any, question: Any, tools: Any) -> MembershipAnswer:
        raise Refused("there is nothing to see", mend="Look elsewhere.")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Answers the first value."""

    reference: ClassVar[Any] = None
    asks: ClassVar[str] = "attribute"
    view: ClassVar[type] = ReleasedModel
    oracle: ClassVar[str] = ""

    def run(self, view: Any, question: Any, tools: Any) -> AttributeAnswer:
        assert (question.x[:, list(question.attribute.columns)] == 0).all()
        return AttributeAnswer(np.zeros(len(question.x), np.int64))


@dataclass(frozen=True, kw_only=True)
class Sending:
    """The target's answer to its own last model."""

    reference: ClassVar[Any] = None
    asks: ClassVar[str] = "model"
    view: ClassVar[type] = ActiveServer
    oracle: ClassVar[str] = ""

    def run(self, view: Any, question: Any, tools: Any) -> ModelAnswer:
        client = view.clients[0]
        last = view.of(client).last().returned
        returned = view.send(client, last, 0)
        assert returned.shape == last.shape
        assert not np.array_equal(returned, last)
        assert np.array_equal(returned, view.send(client, last, 0))
        assert not np.array_equal(returned, view.send(client, last, 1))
        return ModelAnswer(returned, "estimated")


@dataclass(frozen=True, kw_only=True)
class Endless(Told):
    """Never ends by itself."""

    def run(self, view: Any, question: Any, tools: Any) -> MembershipAnswer:
        while True:
            time.sleep(0.01)
            tools.meter.count(1)


@dataclass(frozen=True, kw_only=True)
class Wrong(ModelAttributes):
    """Answers the value that fits worst."""

    def run(self, view: Any, question: Any, tools: Any) -> AttributeAnswer:
        return AttributeAnswer(1 - super().run(view, question, tools).values)


@pytest.fixture(autouse=True)
def attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("toy_attacks")
    kinds = {"told": Told, "failing": Failing, "refusing": Refusing, "constant": Constant, "sending": Sending}
    kinds |= {"endless": Endless, "wrong": Wrong}
    module.__dict__.update(kinds)
    monkeypatch.setitem(sys.modules, "toy_attacks", module)
    for kind in kinds:
        monkeypatch.setitem(ATTACKS.builtin, kind, f"toy_attacks:{kind}")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(parse_study(STUDY), out=tmp_path_factory.mktemp("runs")).folder


@pytest.fixture
def record(played: Path, tmp_path: Path) -> RunRecord:
    import shutil

    return RunRecord.open(Path(shutil.copytree(played, tmp_path / played.name)))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A run on tables with two named sites."""
    (tmp_path / "sites").mkdir()
    lines = TABLE.splitlines()
    for site, rows in (("north", lines[1:33]), ("south", lines[33:])):
        (tmp_path / "sites" / f"{site}.csv").write_text("\n".join([lines[0], *rows]))
    study = f"""
    data = {{ kind = "tables", folder = "{tmp_path / "sites"}", target = "y", target_type = "real" }}
    methods = [{{ kind = "fedavg", learning_rate = 0.05, work = {{ epochs = 10 }} }}]
    run = {{ rounds = 20 }}
    """
    return run_study(parse_study('name = "sites"' + study), out=tmp_path / "runs").folder


def rows(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{row['attack']} {row['question']}": row for row in found["attacks"]}


def why(row: dict[str, Any]) -> str:
    """All reasons with the targets that they hold for."""
    return "; ".join(f"{', '.join(names)}: {text}" for text, names in row["reasons"].items())


def test_one_attack_that_fails_stops_no_other(record: RunRecord) -> None:
    settings = Auditing(attacks=("failing", "refusing", "told", "loss_threshold"), targets=3)
    found = audit_run(record, settings)
    row = rows(found)
    assert row["refusing membership"]["verdict"] == "refused"
    assert "there is nothing to see. Look elsewhere." in why(row["refusing membership"])
    assert row["refusing membership"]["p"] is None
    hurt = [target for target in found["targets"] if target == 1]
    assert ("ZeroDivisionError: division by zero" in why(row["failing membership"])) == bool(hurt)
    assert len(row["failing membership"]["evidence"]["targets"]) == 3 - len(hurt)
    assert row["told membership"]["cost"]["evaluations"] == 21
    assert row["told membership"]["facts"]["answers"][f"client {found['targets'][0]}"] == {"exchanges": 3}
    assert found["attacks"][0]["attack"] == "loss_threshold"  # cheapest first
    assert {c["check"] for c in found["certificates"]} == {"leakage"}
    assert len(found["certificates"]) == 3


def test_an_audit_goes_on_where_it_was(record: RunRecord) -> None:
    first = audit_run(record, Auditing(attacks=("told",)))
    again = audit_run(record, Auditing(attacks=("told", "loss_threshold")))
    assert rows(again)["told membership"]["cost"] == rows(first)["told membership"]["cost"]  # not run again
    assert audit_run(record, Auditing(attacks=("told", "loss_threshold"))) == again
    same = audit_run(record, Auditing(attacks=("told", "loss_threshold")), fresh=True)
    assert [{**row, "cost": 0} for row in same["attacks"]] == [{**row, "cost": 0} for row in again["attacks"]]
    other = audit_run(record, Auditing(attacks=("told",)), seed=1)
    assert len(other["attacks"]) == 1  # another seed, another audit
    assert rows(other)["told membership"]["value"] != rows(first)["told membership"]["value"]


def test_every_attack_has_its_place_in_the_order() -> None:
    assert {kind for kind in ATTACKS.builtin if not ATTACKS.builtin[kind].startswith("toy_")} == set(CHEAPEST_FIRST)
    assert requested(())[: len(CHEAPEST_FIRST)] == list(CHEAPEST_FIRST)


def test_what_the_budget_does_not_allow_is_named(record: RunRecord) -> None:
    found = audit_run(record, Auditing(attacks=("told", "refusing"), budget=1e-9))
    assert [each["attack"] for each in found["not_run"]] == ["told", "refusing"]
    assert "1e-09 s is spent" in found["not_run"][0]["reason"]


def test_what_takes_too_long_is_cut_off_and_the_rest_still_kept(record: RunRecord) -> None:
    found = audit_run(record, Auditing(attacks=("endless", "loss_threshold"), budget=0.5))
    assert [row["attack"] for row in found["attacks"]] == ["loss_threshold"]
    assert [(each["attack"], "cut off 1 s after" in each["reason"]) for each in found["not_run"]] == [("endless", True)]


def test_run_audits_within_its_budget_and_says_so(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    settings = Auditing(attacks=("told", "loss_threshold"))
    found = audit_trained(record, settings, Options(quiet=True))
    assert found is not None
    kept = RunRecord.open(record.folder).summary
    assert kept["audit"]["answer"] == found["answer"] == "Nothing was found about which records were trained on."
    assert [row["attack"] for row in kept["audit"]["attacks"]] == ["loss_threshold", "told"]
    assert audit_trained(record, replace(settings, budget=0.0), Options()) is None
    assert audit_trained(record, replace(settings, method="local"), Options()) is None
    assert 'not audited: --method: "local" sends nothing' in capsys.readouterr().err
    before = identity(parse_study(STUDY))
    assert identity(parse_study(STUDY + "[audit]\nbudget = 0\n")) == before


def test_an_answer_below_what_is_guaranteed_is_a_fault_of_the_attack(tables: Path) -> None:
    settings = Auditing(attacks=("model_attributes", "wrong"), attribute="smoker")
    found = rows(audit_run(RunRecord.open(tables), settings))
    facts = found["model_attributes attribute smoker"]["facts"]["answers"]["client 0"]
    assert facts["markov_bound"] > 0.5
    assert found["model_attributes attribute smoker"]["verdict"] != "refused"
    assert "cannot be below" in why(found["wrong attribute smoker"])
    assert found["wrong attribute smoker"]["verdict"] == "refused"


def test_an_active_server_trains_the_clients_of_the_run(record: RunRecord) -> None:
    row = rows(audit_run(record, Auditing(attacks=("sending",), targets=1)))["sending model"]
    assert row["verdict"] == "estimated", why(row)
    assert (row["p"], row["metric"]) == (None, "distance")
    assert row["value"] > 0


def test_methods_of_several_models_are_audited_or_refused(record: RunRecord) -> None:
    found = audit_run(record, Auditing(attacks=("sending", "loss_threshold"), method="fedem", targets=2))
    assert found["method"] == "fedem"
    assert rows(found)["sending model"]["verdict"] == "refused"
    assert rows(found)["loss_threshold membership"]["verdict"] != "refused"
    with pytest.raises(ConfigError, match='"local" sends nothing'):
        audit_run(record, Auditing(method="local"))
    with pytest.raises(ConfigError, match=r'no method "fedavgg".*Did you mean "fedavg"'):
        audit_run(record, Auditing(method="fedavgg"))


def test_named_clients_and_unknown_ones(record: RunRecord) -> None:
    found = audit_run(record, Auditing(attacks=("told",), clients=(4, 2)))
    assert found["targets"] == [2, 4]
    with pytest.raises(ConfigError, match="client 9 has no message"):
        audit_run(record, Auditing(attacks=("told",), clients=(9,)))
    with pytest.raises(ConfigError, match='Did you mean "told"'):
        requested(("tolt",))


def test_records_never_trained_on_are_paid_for_as_well(tables: Path) -> None:
    """Two values for each record that is asked about, and for each that is held out; the guarantee needs none."""
    scene = scene_of_run(RunRecord.open(tables), Auditing(attribute="smoker"), 0)
    row = perform(scene, "model_attributes", scene.attributes[0], ModelAttributes(closed_form=False))
    records = row["evidence"]["records"] + row["facts"]["held_out_records"]
    assert row["facts"]["held_out_records"] > 0
    assert row["cost"]["evaluations"] == 2 * records


def test_attributes_are_found_in_the_schema(tables: Path) -> None:
    found = audit_run(RunRecord.open(tables), Auditing(attacks=("constant",)))
    asked = [row["question"] for row in found["attacks"]]
    assert asked == ["attribute smoker", "attribute sex"]  # eight groups are too many, ages are numbers
    row = found["attacks"][0]
    assert row["value"] <= row["baseline"]
    assert row["verdict"] in ("nothing found", "no power")
    assert row["facts"]["baseline"] in ("majority", "imputation")
    record = RunRecord.open(tables)
    named = audit_run(record, Auditing(attacks=("constant",), attribute="age"), fresh=True)
    assert [(row["question"], row["metric"]) for row in named["attacks"]] == [("attribute age", "mae")]
    with pytest.raises(ConfigError, match=r'no column "smokr"\. Did you mean "smoker"'):
        audit_run(record, Auditing(attacks=("constant",), attribute="smokr"))


def test_a_property_of_clients_is_asked_about_and_refused_where_all_are_alike(tmp_path: Path) -> None:
    """At every other of twelve sites most people smoke, and smoking decides the label; men are as rare everywhere."""
    generator = np.random.default_rng(0)
    (tmp_path / "sites").mkdir()
    for site in range(12):
        smokes, men = generator.random(60) < (0.85 if site % 2 else 0.15), np.arange(60) % 3 == 0
        p = generator.normal(size=60)
        y = p + 2.0 * smokes - 1.0 + 0.5 * generator.normal(size=60) > 0
        words = (np.where(each, "yes", "no") for each in (smokes, men, y))
        lines = [",".join(map(str, row)) for row in zip(p.round(3), *words, strict=True)]
        (tmp_path / "sites" / f"{site:02}.csv").write_text("\n".join(["p,smokes,male,y", *lines]))
    study = f"""
    name = "sites"
    data = {{ kind = "tables", folder = "{tmp_path / "sites"}", target = "y" }}
    methods = [{{ kind = "fedavg" }}]
    run = {{ rounds = 2 }}
    """
    record = run_study(parse_study(study), out=tmp_path / "runs")
    found = rows(audit_run(record, Auditing(attacks=("property",))))
    smoking, men = found["property property smokes"], found["property property male"]
    assert smoking["verdict"] == "leaks", why(smoking)
    assert smoking["value"] > 0.9
    assert sum(len(smoking["evidence"]["targets"][0][side]) for side in ("members", "others")) == 12
    assert men["verdict"] == "refused"
    assert 'all of 12 clients hold mostly records with "no"' in why(men)


def test_images_have_no_attributes(record: RunRecord) -> None:
    row = rows(audit_run(record, Auditing(attacks=("constant",))))["constant attribute"]
    assert (row["verdict"], "no column of two to six values" in why(row)) == ("refused", True)


def test_certificates_of_an_audit_are_verified(record: RunRecord, capsys: pytest.CaptureFixture[str]) -> None:
    audit_run(record, Auditing(attacks=("told", "loss_threshold")))
    assert main(["verify", str(record.folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(c["check"] == "leakage" and c["agrees"] for c in told["certificates"]) == 2
    path = record.folder / "audit.json"
    audits = json.loads(path.read_text())
    evidence = audits[0]["attacks"][0]["evidence"]["targets"][0]
    evidence["members"] = [score + 100 for score in evidence["members"]]
    path.write_text(json.dumps(audits))
    assert main(["verify", str(record.folder), "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert "audit.json is not what the audit wrote" in told["changes"]
    assert "fails" in {c["verdict"] for c in told["certificates"] if c["check"] == "leakage"}
    assert not all(c["agrees"] for c in told["certificates"])


def test_a_certificate_that_fails_ends_with_code_3(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def leaky(*args: Any, **names: Any) -> Any:
        return [replace(each, verdict="fails") for each in leakages(*args, **names)]

    words = ["audit", str(record.folder), "--attacks", "told", "--json", "--quiet"]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told) >= {"attacks", "epsilon", "certificates", "answer", "run", "not_run"}
    assert "evidence" not in told["attacks"][0]
    assert told["attacks"][0]["verdict"] == "nothing found"
    assert main([*words, "--strict"]) == 0
    monkeypatch.setattr("rivage.studies.audit_kept.leakages", leaky)
    assert main([*words, "--fresh"]) == 3


def test_codes_are_those_that_occur() -> None:
    schema = Schema(
        input_shape=(6,), target="class", num_classes=2, features=("age", "sex", "ward=a", "ward=b", "ward=c", "id")
    )
    generator = np.random.default_rng(0)
    sex, ward = generator.integers(2, size=40), generator.integers(4, size=40)  # ward 3 is missing: all zero
    x = np.stack(
        [generator.normal(size=40), sex * 2.0 - 0.8, *(ward == each for each in range(3)), np.ones(40)], axis=1
    )
    found = {each.name: each for each in attributes(schema, x.astype(np.float32))}
    assert list(found) == ["sex", "ward"]  # ages are many, the id is one
    assert found["sex"].values == ("-0.8", "1.2")
    assert found["ward"].values == ("other", "c", "b", "a")
    assert found["ward"].codes.tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    (age,) = attributes(schema, x, "age")
    assert (age.kind, age.codes.shape) == ("numerical", (2, 1))
    with pytest.raises(ConfigError, match="the same in all records"):
        attributes(schema, x, "id")
    with pytest.raises(ConfigError, match="no columns with names"):
        attributes(Schema(input_shape=(8, 8), target="class", num_classes=2), np.zeros((3, 8, 8)), "age")


def test_the_answer_names_who_learns_what() -> None:
    base = {"oracle": "", "metric": "auc", "value": 0.7, "baseline": 0.5}
    told = answer(
        [
            {"attack": "a", "question": "membership", "view": "eavesdropper", "verdict": "leaks", **base},
            {"attack": "b", "question": "membership", "view": "eavesdropper", "verdict": "leaks", **base, "value": 0.8},
            {"attack": "c", "question": "attribute sex", "view": "active_server", "verdict": "nothing found", **base},
            {"attack": "d", "question": "attribute age", "view": "active_server", "verdict": "no power", **base},
            {
                "attack": "e",
                "question": "model",
                "view": "eavesdropper",
                "verdict": "refused",
                **base,
                "metric": None,
                "reasons": {"it holds 9 records, too many. Take fewer.": ["client 0"]},
            },
        ]
    )
    assert told == (
        "An eavesdropper of one client's channel learns which records were trained on (b, auc 0.8 against 0.5). "
        "One attack could not be run, because it holds 9 records, too many. "
        'Nothing was found about the attribute "sex". One attack had too few records to tell.'
    )
    facts = {"held_out": 0.69, "held_out_p": 0.6, "held_out_least_p": 0.01, "beyond_held_out": False}
    guess = {"attack": "f", "question": "attribute sex", "view": "eavesdropper", "verdict": "leaks", **base}
    (apart,) = answer([{**guess, "facts": facts}]).split(" (")[1:]
    assert apart == "f, auc 0.7 against 0.5; 0.69 for records never trained on: it may hold for anyone alike)."
    assert ": part of it is about these" in answer([{**guess, "facts": {**facts, "beyond_held_out": True}}])
    assert ": these are too few to tell" in answer([{**guess, "facts": {**facts, "held_out_least_p": 0.2}}])


# --- logs that are not what they should be ---------------------------------------------------------------------------


def log_of(record: RunRecord) -> Path:
    return record.trial("fedavg", 0).folder / "messages.rvg"


def rewritten(record: RunRecord, change: Any, **header: Any) -> None:
    """The log with every message changed, or left out where ``change`` returns None, or doubled for a list."""
    path = log_of(record)
    head, messages = MessageLog.read_header(path), list(MessageLog.read(path))
    with MessageLog.create(path, {**head, **header}) as log:
        for message in messages:
            for each in changed if isinstance(changed := change(message), list) else [changed]:
                if each is not None:
                    log.append(each)


def with_params(message: Any, params: Any) -> Any:
    return replace(message, payload={**message.payload, "params": params})


def told(record: RunRecord) -> dict[str, Any]:
    return audit_run(record, Auditing(attacks=("local_loss_threshold", "told", "loss_threshold"), targets=5))


def test_one_client_of_nan_is_named_and_the_rest_is_audited(record: RunRecord) -> None:
    def poison(message: Any) -> Any:
        if message.kind == "update" and message.sender == "client:2":
            return with_params(message, np.full_like(message.payload["params"], np.nan))
        return message

    rewritten(record, poison)
    found = told(record)
    row = rows(found)["local_loss_threshold membership"]
    assert "client 2" in why(row)
    assert sorted(t["client"] for t in row["evidence"]["targets"]) == [0, 1, 3, 4]
    assert any("client 2" in fault for fault in found["faults"])


def test_wrong_shapes_duplicates_and_missing_rounds_are_told(record: RunRecord) -> None:
    def spoil(message: Any) -> Any:
        if message.round == 1:
            return None
        if message.kind == "update" and message.sender == "client:0":
            return [message, message]
        if message.kind == "update" and message.sender == "client:3":
            return with_params(message, message.payload["params"][:-1])
        if message.kind == "update" and message.sender == "client:4" and message.round == 2:
            return replace(message, round=0)
        return message

    rewritten(record, spoil)
    found = told(record)
    assert "1 message stands behind those of a later round, taken for lost" in found["faults"]
    assert "1 model was sent and never answered" in found["faults"]
    assert "no messages of round 1" in found["faults"]
    assert any("sent again" in fault for fault in found["faults"])
    assert any("client 3" in fault for fault in found["faults"])
    row = rows(found)["local_loss_threshold membership"]
    assert sorted(t["client"] for t in row["evidence"]["targets"]) == [0, 1, 2, 4]


def test_rounds_in_which_nobody_came_are_no_gap(tmp_path: Path) -> None:
    """The log of such a round is empty, and whole."""
    study = """
        name = "rare"
        data = { kind = "digits" }
        partition = { kind = "iid", clients = 6 }
        availability = { kind = "markov", mean = 0.5, correlation = 0.0 }
        task = { model = "linear" }
        run = { rounds = 12, cohort = 1, sampling = "epochs", epoch = 12 }
        [[methods]]
        kind = "fedavg"
    """
    record = run_study(parse_study(study), out=tmp_path)
    cohorts = [event["cohort"] for event in record.trials[0].events("round")]
    first, last = (next(n for n in order if cohorts[n]) for order in (range(12), range(11, -1, -1)))
    assert [] in cohorts[first:last], "this seed has an empty round between others"
    found = audit_run(record, Auditing(attacks=("loss_threshold",), targets=5))
    assert not any("no messages" in fault for fault in found["faults"])


def test_a_torn_tail_is_told(record: RunRecord) -> None:
    path = log_of(record)
    path.write_bytes(path.read_bytes()[:-100])
    found = told(record)
    assert any("no whole message" in fault for fault in found["faults"])
    assert rows(found)["told membership"]["verdict"] != "refused"


def test_the_log_of_another_model_is_refused(record: RunRecord) -> None:
    layout = MessageLog.read_header(log_of(record))
    text = json.dumps(layout).replace("weight", "wait")
    rewritten(record, lambda message: message, **json.loads(text))
    with pytest.raises(DataError, match="the model is not the one of the log"):
        told(record)


def test_a_log_without_payloads_refuses_what_reads_them(tmp_path: Path) -> None:
    study = parse_study(STUDY + "[evaluation]\nevery = 3\n")
    study = replace(study, run=replace(study.run, log="meta", rounds=1))
    record = run_study(study, out=tmp_path)
    found = rows(audit_run(record, Auditing(attacks=("local_loss_threshold", "loss_threshold"), targets=2)))
    assert "the log holds no payloads" in why(found["local_loss_threshold membership"])
    assert found["loss_threshold membership"]["verdict"] != "refused"  # it needs the final model only


def test_single_updates_of_a_secure_aggregation_are_out_of_reach(tmp_path: Path) -> None:
    text = STUDY.replace("learning_rate = 0.3", 'learning_rate = 0.3, collector = { kind = "secagg" }')
    record = run_study(parse_study(text.replace("rounds = 3", "rounds = 2")), out=tmp_path)
    settings = Auditing(attacks=("local_loss_threshold", "fedmia", "loss_threshold"), targets=2)
    found = rows(audit_run(record, settings))
    for kind in ("local_loss_threshold", "fedmia"):
        assert "aggregation was secure" in why(found[f"{kind} membership"])
    assert found["loss_threshold membership"]["verdict"] != "refused"


def test_a_log_alone_is_audited_with_its_study(record: RunRecord, tmp_path: Path) -> None:
    log, study = tmp_path / "their.rvg", tmp_path / "their.toml"
    log.write_bytes(log_of(record).read_bytes())
    study.write_text(STUDY)
    assert main(["audit", str(log), "--study", str(study), "--attacks", "told,loss_threshold", "--quiet"]) == 0
    (kept,) = json.loads((tmp_path / "their.rvg.audit.json").read_text())
    assert [row["verdict"] == "refused" for row in kept["attacks"]] == [True, False]  # no final model
    assert main(["audit", str(log), "--quiet"]) == 2


def saved(record: RunRecord, folder: Path) -> None:
    """The messages of a run as another system would save them."""
    folder.mkdir()
    header = MessageLog.read_header(log_of(record))
    shapes = [{name: entry[name] for name in ("name", "shape")} for entry in header["parameters"]]
    told = {"loss": header["loss"], "parameters": shapes, "hyper_parameters": {"learning_rate": 0.3}}
    (folder / "header.toml").write_text(format_toml(told))
    for message in MessageLog.read(log_of(record)):
        back = f"-client-{message.sender.removeprefix('client:')}"
        name = f"round-{message.round}{'-sent' if message.kind == 'broadcast' else back}.npz"
        np.savez(folder / name, params=message.payload["params"])


def test_updates_of_another_system_are_audited_with_their_study(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, study = tmp_path / "updates", tmp_path / "their.toml"
    saved(record, folder)
    study.write_text(STUDY)
    words = ["audit", str(folder), "--study", str(study), "--attacks", "local_loss_threshold", "--json", "--quiet"]
    assert main(words) == 0
    (row,) = json.loads(capsys.readouterr().out)["attacks"]
    own = rows(audit_run(record, Auditing(attacks=("local_loss_threshold",))))["local_loss_threshold membership"]
    assert (row["value"], row["p"]) == (own["value"], own["p"])
    beside, kept = tmp_path / "updates.rvg", tmp_path / "updates.rvg.audit.json"
    before = beside.read_bytes(), kept.read_bytes()
    monkeypatch.chdir(folder)
    assert main(["audit", ".", *words[2:]]) == 0  # the same log again, so nothing is run
    assert (beside.read_bytes(), kept.read_bytes()) == before
    beside.write_bytes(log_of(record).read_bytes())
    assert main(words) == 2
    assert "updates.rvg: is in the way" in capsys.readouterr().err
    assert beside.read_bytes() == log_of(record).read_bytes()


def test_updates_in_a_place_that_cannot_be_written_are_audited(
    record: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(record, tmp_path / "updates")
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr("rivage.studies.audit_imports.os.access", lambda *_: False)  # tests may run as root
    with imported_log(tmp_path / "updates") as log:
        assert log.exists()
        assert len(list(MessageLog.read(log))) == 30
    assert not log.exists()
    assert sorted(tmp_path.iterdir()) == before


def test_methods_without_a_server_are_refused_and_passed_over(tmp_path: Path) -> None:
    methods = '[{ kind = "fedavg", learning_rate = 0.3 }, { kind = "local" }, { kind = "fedem" }]'
    text = STUDY.replace(methods, '[{ kind = "dpasgd" }, { kind = "fedavg" }]').replace("rounds = 3", "rounds = 1")
    record = run_study(parse_study(text), out=tmp_path)
    assert told(record)["method"] == "fedavg"
    with pytest.raises(ConfigError, match='"dpasgd" has no server'):
        audit_run(record, Auditing(method="dpasgd"))


def test_malicious_clients_are_attacked_when_named_or_nobody_else_is_left(tmp_path: Path) -> None:
    text = STUDY.replace("rounds = 3", "rounds = 1") + "[adversary]\nkind = 'sign_flip'\nclients = "
    record = run_study(parse_study(text + "[0, 3]\n"), out=tmp_path)
    assert scene_of_run(record, Auditing(), 0).targets == (1, 2, 4)
    assert scene_of_run(record, Auditing(clients=(3, 1)), 0).targets == (1, 3)
    record = run_study(parse_study(text + "[0, 1, 2, 3, 4]\n"), out=tmp_path)
    assert len(scene_of_run(record, Auditing(), 0).targets) == 5


def some(**fields: Any) -> Any:
    return SimpleNamespace(**fields)


def test_attacks_draw_from_a_root_that_is_not_the_audits() -> None:
    assert _streams(some(seed=3), "lira", "membership", some(client=0)).root != 3


@pytest.mark.parametrize("states", [("recovered", "recovered"), ("recovered", "estimated")])
def test_an_estimate_is_recovered_where_all_targets_are(states: tuple[str, str]) -> None:
    sizes = {"distance": 1.0, "baseline": 2.0, "outputs": 0.0, "outputs_of_last": 0.0}
    pieces = [{"client": 0, "status": state, **sizes} for state in states]
    row = _row(ATTACKS.get("local_model")(), "local_model", "model", some(targets=(0,)), pieces, {}, {})
    assert row["status"] == states[1]


def test_the_first_seed_is_audited_once_it_is_finished(tmp_path: Path) -> None:
    def played(seed: int, *, finished: bool = True) -> Any:
        folder = tmp_path / f"{seed}"
        folder.mkdir(exist_ok=True)
        (folder / LOG_NAME).touch()
        events = [{"bytes_up": 1}]
        return some(method="m", seed=seed, folder=folder, finished=finished, events=lambda kind: events)

    one, two = played(1), played(2)
    assert _trial(some(trials=[two, one], folder=tmp_path), "m", ()) is one
    with pytest.raises(StoreError, match="no message log of a finished trial"):
        _trial(some(trials=[played(1, finished=False)], folder=tmp_path), "", ())


def test_the_curious_client_is_the_one_that_is_asked_most_often_beside_the_target() -> None:
    nothing: Any = None
    views = Views(nothing, nothing, nothing, {0: 2, 1: 5, 2: 5, 3: 1}, Streams(0))
    assert (views._curious(None), views._curious(1)) == (1, 2)


# --- nulls -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["told", "loss_threshold", pytest.param("local_loss_threshold", marks=pytest.mark.slow)]
)
def test_shuffled_membership_is_found_by_nobody(record: RunRecord, kind: str) -> None:
    """40 audits at level 5 %: more than 6 rejections have probability 0.3 %, for each of the attacks."""
    base = scene_of_run(record, Auditing(targets=2), 0)
    rejected = 0
    for seed in range(40):
        row = perform(replace(base, seed=seed).shuffled(), kind)
        assert row["p"] is not None, why(row)
        rejected += row["p"] <= 0.05
    assert rejected <= 6
