from __future__ import annotations

from collections.abc import Callable

from rivage.core.records import RunRecord
from rivage.core.summaries import summarize
from rivage.core.trial_records import TrialRecord
from rivage.report import client_tables

MakeRun = Callable[..., RunRecord]


def test_three_times_the_bytes_are_judged_at_a_third_of_the_rounds(make_personal_run: MakeRun) -> None:
    summary = summarize(make_personal_run(rounds=12, every=4, seeds=(0,)))
    rows = {row["method"]: row for row in client_tables.cost_rows(summary)}
    assert rows["fedavg"]["rounds_then"] == rows["knnper"]["rounds_then"] == "12"
    assert rows["fedem"]["rounds_then"] == "4"
    assert rows["fedem"]["mean_then"] < rows["fedem"]["mean"]
    assert rows["fedavg"]["mean_then"] == rows["fedavg"]["mean"]
    assert client_tables.budget(summary) == summary["fedavg"]["bytes_per_client"]
    assert rows["local"]["mean_then"] == rows["local"]["mean"], "who sends nothing is never too dear"
    assert rows["fedavg"]["gradients"] == "300", "12 rounds of 500 among 20 clients"
    assert rows["fedavg"]["stored"] == client_tables.MISSING
    assert rows["knnper"]["stored"].endswith(" kB")


def test_equal_costs_are_not_told_twice(make_run: MakeRun) -> None:
    summary = summarize(make_run(rounds=5))
    assert summary["fedavg"]["at_equal_bytes"] is not None
    assert client_tables.budget(summary) is None
    assert client_tables.budget({}) is None


def test_what_is_made_of_others_and_costs_more_has_a_dash(make_run: MakeRun) -> None:
    record = make_run(methods={"a": "fedavg", "b": "fedem"}, rounds=4, every=1, seeds=(0,))
    composed = RunRecord.create(record.folder.parent, "three", {"methods": [{"name": m} for m in ("a", "b", "c")]})
    for method, source in (("a", "a"), ("b", "b"), ("c", "a")):
        trial = TrialRecord.open(composed.trial_folder(method, 0))
        for event in record.trial(source, 0).events():
            named = {"method": method} if event["event"] == "start" else {}
            spent = {"bytes_up": 10**9} if (method, event["event"]) == ("c", "setup") else {}
            if (method, event["event"]) != ("c", "round"):
                trial.append(event | named | spent)
    rows = client_tables.cost_rows(summarize(composed))
    assert [row["mean_then"] == client_tables.MISSING for row in rows] == [False, False, True]
    assert [row["rounds_then"] for row in rows] == ["4", "1", client_tables.MISSING]


def test_what_unseen_clients_have_to_do(make_personal_run: MakeRun) -> None:
    methods = {"local": "local", "a": "fedavg", "b": "finetuned", "c": "fedem", "d": "knnper", "g": "guarded"}
    rows = client_tables.unseen_rows(summarize(make_personal_run(methods=methods, rounds=2, unseen=4)), "local")
    told = {row["method"]: row["adaptation"] for row in rows}
    assert list(told.values()) == [
        "trains alone",
        "none",
        "trains further",
        "fits its shares",
        "stores its records",
        "of the model it chose",
    ]
    gradients = {row["method"]: row["gradients"] for row in rows}
    assert gradients["a"] == gradients["c"] == gradients["d"] == "0"
    assert gradients["b"] != "0"
    assert rows[0]["worse"] == "reference"


def test_records_of_before_leave_dashes(make_run: MakeRun) -> None:
    rows = client_tables.unseen_rows(summarize(make_run(rounds=2, unseen=4)), None)
    told = {row["method"]: (row["adaptation"], row["records"], row["gradients"]) for row in rows}
    assert told["fedavg+"] == ("–", "–", "–")
    assert client_tables.unseen_rows(summarize(make_run(name="none", rounds=2)), None) == []


def test_spread_counts_every_client_once(make_run: MakeRun) -> None:
    values = [0.0, *[1.0] * 9]
    record = make_run(methods={"a": "fedavg"}, clients=10, seeds=(0,), rounds=1, values=lambda *_: values)
    (row,) = client_tables.spread_rows(summarize(record), None)
    assert (row["unweighted"], row["decile"], row["worst_tenth"], row["worst"]) == ("0.900", "1.000", "0.000", "0.000")
    assert (row["std"], row["better"]) == ("0.300", "–")
    assert row["mean"] != row["unweighted"], "clients differ in their number of records"


def test_undefined_methods_have_no_row(make_run: MakeRun) -> None:
    summary = summarize(make_run(rounds=1, clients=3, cohort=2, values=lambda *_: [None] * 3))
    assert client_tables.spread_rows(summary, "local") == client_tables.cost_rows(summary) == []
