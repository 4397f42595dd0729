"""Decentralised methods in a study: beside federated ones, over a network, resumed, killed, refused."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rivage.cli.app import main
from rivage.core.certificates import CHECKS
from rivage.core.errors import ConfigError
from rivage.core.message_log import LOG_NAME, MessageLog
from rivage.core.records import RunRecord
from rivage.data import build_population
from rivage.decentralized import Overlay, start_times_ms
from rivage.decentralized.silo_settings import SiloSettings
from rivage.learning.bundle import ModelBundle
from rivage.studies.pipeline import run_study
from rivage.studies.settings import Study, dump_study, override_study, parse_study

BASE = """
name = "silos"
data = { kind = "digits" }
partition = { kind = "dirichlet", clients = 6, alpha = 0.5 }
work = { updates = 2, batch_size = 8, batches = "endless" }
evaluation = { every = 3 }
"""
NETWORK = """
[silos]
step_ms = 5.0
access_bps = 1e8
core_bps = 1e9
[underlay]
kind = "cities"
places = ["Paris", "Lyon", "Marseille", "Nice", "Geneva", "Lille"]
ms_per_km = 0.005
links = "mesh"
"""
METHODS = """
[[methods]]
kind = "local"
epochs = 3
[[methods]]
kind = "fedavg"
[[methods]]
name = "ring"
kind = "dpasgd"
[[methods]]
name = "star"
kind = "dpasgd"
overlay = { kind = "star", hub = "Lyon" }
[[methods]]
name = "matcha"
kind = "dpasgd"
overlay = { kind = "matcha" }
[[methods]]
name = "tree"
kind = "exact_diffusion"
[[methods]]
name = "tracking"
kind = "gradient_tracking"
learning_rate = 0.02
[[methods]]
name = "sequence"
kind = "dpsgd"
overlay = { kind = "sequence", family = "base" }
[[methods]]
name = "push"
kind = "push_sum"
overlay = { kind = "given", arcs = [["Paris", "Lyon"], ["Lyon", "Marseille"], ["Marseille", "Nice"],
  ["Nice", "Geneva"], ["Geneva", "Lille"], ["Lille", "Paris"], ["Nice", "Paris"], ["Marseille", "Paris"]] }
[[methods]]
kind = "guarded"
[run]
rounds = 7
seeds = [0, 1]
"""
SILOS = ("ring", "star", "matcha", "tree", "tracking", "sequence", "push")


def study_of(text: str = BASE + "METHODS" + NETWORK, overrides: Any = ()) -> Study:
    return parse_study(text.replace("METHODS", METHODS), "s.toml", overrides)


def one(method: str, extra: str = "", network: str = "", run: str = "rounds = 3") -> Study:
    return parse_study(f"{BASE}\n{extra}\n[[methods]]\n{method}\n[run]\n{run}\n{network}", "s.toml")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return run_study(study_of(), out=tmp_path_factory.mktemp("runs"))


# --- a study --------------------------------------------------------------------------------------------------------


def test_decentralised_methods_stand_beside_federated_ones(finished: RunRecord) -> None:
    methods = finished.summary["methods"]
    assert finished.methods == ("local", "fedavg", *SILOS, "guarded")
    for name in SILOS:
        row = methods[name]
        assert row["rounds"] == 7
        assert row["clients"] == 6
        assert row["finished"]
        assert 0 < row["mean"] <= 1
        assert row["simulated_s"] > 0
        first, last = (np.mean(finished.trial(name, 0).events("evaluation")[at]["test_loss"]) for at in (1, -1))
        assert last < first, "the average model learns"
    assert methods["fedavg"]["simulated_s"] is None
    checks = [certificate.check for certificate in finished.certificates]
    assert checks.count("wire_bytes") == 1 + len(SILOS)
    assert all(c.verdict == "holds" for c in finished.certificates if c.check in ("wire_bytes", "guard"))


def test_evaluations_tell_of_own_models_and_of_the_average(finished: RunRecord) -> None:
    for name in SILOS:
        events = finished.trial(name, 0).events("evaluation")
        assert [(event["round"], event["group"]) for event in events] == [
            (3, "seen"), (3, "average"), (6, "seen"), (6, "average"), (7, "seen"), (7, "average"),
        ]  # fmt: skip
    star = finished.trial("star", 0).events("evaluation")
    assert star[-2]["test"] == star[-1]["test"], "a star leaves every silo with the average"
    ring = finished.trial("ring", 0).events("evaluation")
    assert ring[-2]["test_loss"] != ring[-1]["test_loss"]


def test_records_hold_the_overlay_and_the_silos(finished: RunRecord) -> None:
    start = finished.trial("ring", 1).start
    assert start["overlay"]["kind"] == "ring"
    assert len(start["overlay"]["arcs"]) == 6
    assert start["silos"]["names"] == ["Paris", "Lyon", "Marseille", "Nice", "Geneva", "Lille"]
    assert start["silos"]["step_ms"] == [10.0] * 6, "two local steps of 5 ms each"
    bits = 32 * start["parameters"]
    assert start["silos"]["model_bits"] == bits
    assert finished.trial("tracking", 0).start["silos"]["model_bits"] == 2 * bits, "the model and the tracker"
    assert finished.trial("push", 0).start["silos"]["model_bits"] == bits + 32, "the model and a number"
    assert finished.trial("tracking", 0).start["silos"]["step_ms"] == [5.0] * 6, "one gradient"
    assert finished.trial("star", 0).start["overlay"]["hub"] == "Lyon"
    assert finished.trial("ring", 0).start["overlay"] == start["overlay"], "one overlay for all seeds"


def test_clocks_are_those_of_the_overlay(finished: RunRecord) -> None:
    study = study_of()
    assert study.underlay is not None
    silos = SiloSettings(step_ms=10.0, access_bps=1e8, core_bps=1e9).silos(study.underlay.build(), 32.0 * 650)
    arcs = finished.trial("ring", 0).start["overlay"]["arcs"]
    expected = start_times_ms(Overlay.named(silos, [(a, b) for a, b in arcs]), 7).mean(axis=1)[1:]
    clock = [event["clock_ms"] for event in finished.trial("ring", 0).events("round")]
    np.testing.assert_allclose(clock, expected, rtol=1e-12)


def test_certificates_hold_the_clock_against_the_delays(finished: RunRecord, tmp_path: Path) -> None:
    told = {c.fields["method"]: c for c in finished.certificates if c.check == "round_times"}
    assert set(told) == {"ring", "star", "tree", "tracking", "push"}, "not of overlays that change from round to round"
    assert all(certificate.verdict == "holds" for certificate in told.values())
    assert all(certificate.measured < 1e-12 for certificate in told.values())
    copy = RunRecord.open(shutil.copytree(finished.folder, tmp_path / finished.folder.name))
    for method in ("ring", "star"):
        path = copy.trial(method, 1).folder / "record.jsonl"
        events = [json.loads(line) for line in path.read_text().splitlines()]
        [event for event in events if event["event"] == "round"][4]["clock_ms"] += 0.1
        path.write_text("".join(f"{json.dumps(event)}\n" for event in events))
        assert CHECKS.get("round_times")(copy, method=method).verdict == "fails"
    assert CHECKS.get("round_times")(copy, method="push").verdict == "holds"


def test_bytes_are_those_of_the_messages_between_silos(finished: RunRecord) -> None:
    for name in SILOS:
        trial = finished.trial(name, 0)
        messages = list(MessageLog.read(trial.folder / LOG_NAME))
        assert sum(message.nbytes for message in messages) == trial.bytes_up + trial.bytes_down
        assert all(message.sender.startswith("client:") for message in messages)
        assert all(message.receiver.startswith("client:") for message in messages)
        assert max(message.time for message in messages) > 0
        assert (trial.bytes_down > 0) == (name == "star")
    header = MessageLog.read_header(finished.trial("push", 0).folder / LOG_NAME)
    assert header["method"] == "push_sum"
    assert header["hyper_parameters"]["overlay"]["kind"] == "given"


def test_models_are_saved_and_newcomers_get_the_average(finished: RunRecord) -> None:
    bundle = ModelBundle.load(finished.trial("ring", 0).folder / "models.safetensors")
    vectors = [bundle.parts(client)[0][0] for client in range(6)]
    assert not np.array_equal(vectors[0], vectors[1])
    newcomer = bundle.parts(None)[0][0]
    np.testing.assert_allclose(newcomer, np.mean(vectors, axis=0), atol=1e-6)
    star = ModelBundle.load(finished.trial("star", 0).folder / "models.safetensors")
    assert np.array_equal(star.parts(0)[0], star.parts(5)[0])
    guarded = ModelBundle.load(finished.trial("guarded", 0).folder / "models.safetensors")
    assert guarded.newcomer is not None


def test_everything_verifies_and_reports(finished: RunRecord, tmp_path: Path) -> None:
    assert main(["verify", str(finished.folder), "--quiet"]) == 0
    assert main(["report", str(finished.folder), "--out", str(tmp_path / "r.html"), "--quiet"]) == 0
    page = (tmp_path / "r.html").read_text()
    for name in (*SILOS, "Throughput-Optimal Topology Design", "Stochastic Gradient Push"):
        assert name in page


def test_the_command_line_trains_and_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "s.toml"
    path.write_text(BASE + '[[methods]]\nkind = "dpsgd"\n[run]\nrounds = 2\n' + NETWORK)
    assert main(["train", str(path), "--out", str(tmp_path), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert set(answer["methods"]) == {"dpsgd"}
    assert answer["methods"]["dpsgd"]["simulated_s"] > 0


def test_settings_come_back_from_the_run_folder(finished: RunRecord) -> None:
    study = study_of()
    assert parse_study((finished.folder / "settings.toml").read_text(), "again") == study
    assert "underlay" not in dump_study(one('kind = "dpsgd"')), "what is not there is not told"


# --- resumed and killed ---------------------------------------------------------------------------------------------


class Stop:
    """Interrupts after so many rounds."""

    def __init__(self, rounds: int) -> None:
        self.left = rounds

    def on_event(self, event: Any) -> None:
        self.left -= event["event"] == "round"
        if self.left == 0:
            raise KeyboardInterrupt


def test_a_study_interrupted_again_and_again_has_the_same_record(finished: RunRecord, tmp_path: Path) -> None:
    stops = iter([1, 5, 9, 3, 8, 13, 2, 4, 20, 7])
    for rounds in stops:
        with pytest.raises(KeyboardInterrupt):
            run_study(study_of(), out=tmp_path, observer=Stop(rounds))
    record = run_study(study_of(), out=tmp_path)
    assert record.compare(finished) == []
    assert record.hash == finished.hash
    for trial, other in zip(record.trials, finished.trials, strict=True):
        for name in (LOG_NAME, "models.safetensors"):
            files = [each.folder / name for each in (trial, other)]
            assert files[0].exists() == files[1].exists()
            if files[0].exists():
                assert files[0].read_bytes() == files[1].read_bytes()


CHILD = """
import functools, pathlib, sys
from rivage.studies import pipeline
from rivage.studies.settings import load_study
pipeline.Files = functools.partial(pipeline.Files, interval=float(sys.argv[3]))

class Ready:
    said = False

    def on_event(self, event):
        if event["event"] in ("round", "study_end") and not self.said:
            self.said = True
            print("ready", flush=True)

pipeline.run_study(load_study(pathlib.Path(sys.argv[1])), out=pathlib.Path(sys.argv[2]), observer=Ready())
"""


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_any_instant_it_leaves_no_trace(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    text = METHODS[METHODS.index('[[methods]]\nname = "ring"') : METHODS.index('[[methods]]\nkind = "guarded"')]
    path.write_text(f"{BASE}{text}[run]\nrounds = 40\n{NETWORK}")
    start = lambda out, interval: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", CHILD, str(path), str(out), str(interval)], stdout=subprocess.PIPE, text=True
    )

    def ready(child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            assert child.stdout.readline() == "ready\n"

    whole = start(tmp_path / "whole", 0.0)
    ready(whole)
    began = time.perf_counter()
    assert whole.wait() == 0
    duration, instants = time.perf_counter() - began, random.Random(3)
    finished, kills = False, 0
    while not finished:
        child = start(tmp_path / "killed", kills % 2 * 0.05)
        ready(child)
        time.sleep(instants.uniform(0, duration / 3))
        child.send_signal(signal.SIGKILL)
        finished = child.wait() == 0
        kills += not finished
    assert kills >= 2
    runs = [RunRecord.open(next((tmp_path / name).iterdir())) for name in ("whole", "killed")]
    assert runs[1].compare(runs[0]) == []
    assert runs[0].hash == runs[1].hash


class Notices(list[str]):
    def on_event(self, event: Any) -> None:
        if event["event"] == "notice":
            self.append(event["text"])


def test_overlays_are_told_before_the_run_and_long_searches_before_they_begin(tmp_path: Path) -> None:
    text = 'kind = "dpasgd"\noverlay = { kind = "directed", steps = 20, seconds = 5 }\n[[methods]]\nkind = "dpsgd"'
    watcher = Notices()
    run_study(one(text, network=NETWORK, run="rounds = 1"), out=tmp_path, observer=watcher)
    search, found, ring = watcher[-3:]
    assert search == "dpasgd: looking for an overlay, for 5 s at most"
    assert found.startswith("dpasgd: ")
    assert ring.startswith("dpsgd: 6 arcs, at most 1 of one silo, ")
    assert ring.endswith(" ms a round")


def test_a_trial_that_has_begun_keeps_its_overlay(tmp_path: Path) -> None:
    study = one('kind = "push_sum"\noverlay = { kind = "directed", steps = 50 }', network=NETWORK, run="rounds = 30")
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out=tmp_path, observer=Stop(20))
    calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rivage.decentralized.designers.Directed.design", lambda *_, **__: calls.append(1))
        record = run_study(study, out=tmp_path)
    assert not calls, "it is not designed again"
    assert record.trial("push_sum", 0).finished


# --- names, unseen clients, no network ------------------------------------------------------------------------------


def folder_of(root: Path, names: list[str]) -> None:
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in names:
        rows = "".join(f"{a:.3f},{b:.3f},{int(a > 0)}\n" for a, b in rng.normal(size=(30, 2)))
        (root / f"{name}.csv").write_text(f"a,b,y\n{rows}")


def test_clients_called_like_the_nodes_belong_to_them(tmp_path: Path) -> None:
    folder_of(tmp_path / "sites", ["Lille", "Lyon", "Nice", "Paris"])
    text = f"""
    name = "sites"
    data = {{ kind = "tables", folder = "{tmp_path / "sites"}", target = "y" }}
    methods = [{{ kind = "dpsgd", overlay = {{ kind = "star", hub = "Paris" }} }}]
    silos = {{ step_ms = [1.0, 2.0, 3.0, 4.0], core_bps = 1e9 }}
    underlay = {{ kind = "cities", places = ["Paris", "Lyon", "Lille", "Nice"], ms_per_km = 0.005, links = "mesh" }}
    run = {{ rounds = 1 }}
    """
    record = run_study(parse_study(text), out=tmp_path)
    start = record.trial("dpsgd", 0).start
    assert start["population"]["names"] == start["silos"]["names"] == ["Lille", "Lyon", "Nice", "Paris"]
    assert start["silos"]["step_ms"] == [3.0, 2.0, 4.0, 1.0]
    log = list(MessageLog.read(record.trial("dpsgd", 0).folder / LOG_NAME))
    assert {m.receiver for m in log if m.kind == "update" and m.round == 0} == {"client:3"}


def test_clients_kept_apart_are_no_silos(tmp_path: Path) -> None:
    study = one('kind = "dpasgd"', run="rounds = 2")
    study = override_study(study, ["partition.clients=8", "evaluation.unseen_clients=0.25"])
    record = run_study(study, out=tmp_path)
    start = record.trial("dpasgd", 0).start
    assert len(start["silos"]["names"]) == 6
    assert record.trial("dpasgd", 0).final("unseen")["clients"] == start["population"]["unseen"]
    assert record.summary["methods"]["dpasgd"]["unseen_mean"] is not None
    assert record.summary["methods"]["dpasgd"]["simulated_s"] is None
    assert start["overlay"]["cycle_time_ms"] is None


@pytest.mark.parametrize("kind", ["ring", "star", "matcha", "family", "sequence", "mst", "delta_mbst"])
def test_without_a_network_all_silos_are_alike(kind: str, tmp_path: Path) -> None:
    record = run_study(one(f'kind = "dpsgd"\noverlay = {{ kind = "{kind}" }}', run="rounds = 1"), out=tmp_path)
    assert record.trial("dpsgd", 0).finished


@pytest.mark.parametrize("kind", ["ring", "star", "family", "sequence"])
@pytest.mark.parametrize(
    "method", ["dfedem", "dpasgd", "exact_diffusion", "gradient_tracking", "push_sum", "push_diging"]
)
def test_a_single_silo_trains_alone(method: str, kind: str, tmp_path: Path) -> None:
    if method == "exact_diffusion" and kind == "sequence":
        pytest.skip("it needs an overlay that stays")
    study = one(f'kind = "{method}"\noverlay = {{ kind = "{kind}" }}', run="rounds = 2")
    record = run_study(override_study(study, ["partition.clients=1"]), out=tmp_path)
    assert record.trial(method, 0).bytes_up == 0
    assert record.trial(method, 0).final("seen")["test"] == record.trial(method, 0).final("average")["test"]


def test_no_rounds_leave_all_with_the_start(tmp_path: Path) -> None:
    record = run_study(one('kind = "dpsgd"', network=NETWORK, run="rounds = 0"), out=tmp_path)
    trial = record.trial("dpsgd", 0)
    assert trial.finished
    assert trial.final("seen")["test"] == trial.final("average")["test"]
    assert [c.verdict for c in record.certificates if c.check == "round_times"] == ["no_power"]


# --- refusals -------------------------------------------------------------------------------------------------------


REFUSED = {
    "stages": ('kind = "dpsgd"\nstages = [{ kind = "float16" }]', "", "", "", '"dpsgd" has no server'),
    "collector": ('kind = "dpsgd"\ncollector = { kind = "median" }', "", "", "", "Leave stages and collector out"),
    "cohort": ('kind = "dpsgd"', "", "", "cohort = 3", "[run] cohort"),
    "availability": ('kind = "dpsgd"', 'availability = { kind = "markov", mean = 0.5 }', "", "", "[availability]"),
    "adversary": ('kind = "dpsgd"', 'adversary = { kind = "nan", clients = [1] }', "", "", "[adversary]"),
    "devices": ('kind = "dpsgd"', 'devices = { kind = "drawn" }', "", "", "[devices]"),
    "no method": ('kind = "fedavg"', "", NETWORK, "", "[underlay]: no method trains over a network"),
    "no network": ('kind = "dpsgd"', "silos = { step_ms = 3 }", "", "", "[silos]: there is no network"),
    "local steps": ('kind = "dpsgd"', "", NETWORK.replace("step_ms", "local_steps = 4\nstep_ms"), "", "local_steps"),
    "overlay": ('kind = "dpsgd"\noverlay = { kind = "rings" }', "", "", "", 'Did you mean "ring"?'),
    "setting": ('kind = "dpsgd"\noverlay = { kind = "ring", hub = 3 }', "", "", "", 'unknown key "hub"'),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_when_it_is_read(name: str) -> None:
    method, extra, network, run, told = REFUSED[name]
    with pytest.raises(ConfigError) as refusal:
        one(method, extra, network, run)
    assert told in str(refusal.value)
    assert str(refusal.value).startswith("s.toml")


def test_all_that_misfits_is_told_at_once_and_before_anything_is_trained(tmp_path: Path) -> None:
    methods = """
    [[methods]]
    name = "hub"
    kind = "dpsgd"
    overlay = { kind = "star", hub = "Lion" }
    [[methods]]
    name = "exact"
    kind = "exact_diffusion"
    overlay = { kind = "ring" }
    [[methods]]
    name = "uneven"
    kind = "dpsgd"
    overlay = { kind = "given", arcs = [["Paris", "Lyon"]] }
    [run]
    rounds = 1
    """
    with pytest.raises(ConfigError) as refusal:
        run_study(parse_study(BASE + methods + NETWORK), out=tmp_path)
    text = str(refusal.value)
    assert text.startswith("3 problems")
    assert 'method "hub": hub is "Lion"' in text
    assert 'Did you mean "Lyon"?' in text
    assert 'method "exact", overlay "ring": silos send to others from which they receive nothing' in text
    assert "uneven" in text
    assert not list(tmp_path.glob("*/trials/*/*/record.jsonl"))


def test_another_number_of_clients_than_nodes_is_refused(tmp_path: Path) -> None:
    study = override_study(one('kind = "dpsgd"', network=NETWORK), ["partition.clients=5"])
    with pytest.raises(ConfigError, match=r"\[underlay\]: 6 nodes for 5 clients that train"):
        run_study(study, out=tmp_path)


def test_the_size_of_the_model_can_be_told(tmp_path: Path) -> None:
    study = one('kind = "dpsgd"', network=NETWORK.replace("[silos]", "[silos]\nmodel_bits = 44961717"))
    record = run_study(study, out=tmp_path)
    assert record.trial("dpsgd", 0).start["silos"]["model_bits"] == 44_961_717
    population = build_population(study.data, partition=study.partition, seed=0)
    assert population.size == 6
