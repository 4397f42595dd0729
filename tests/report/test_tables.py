from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.certificates import Certificate
from rivage.core.records import RunRecord
from rivage.core.summaries import summarize
from rivage.report import tables
from rivage.report.tables import Lead, leader

MakeRun = Callable[..., RunRecord]


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(tables).failed == 0


@given(st.floats(0, 1e17))
def test_bytes_never_show_four_digits_before_the_point(count: float) -> None:
    figure, unit = tables.human_bytes(count).split()
    assert len(figure.partition(".")[0]) <= 3
    scale = 1000 ** ["B", "kB", "MB", "GB", "TB", "PB"].index(unit)
    assert float(figure) * scale == pytest.approx(count, rel=0.006, abs=0.5)


@given(st.floats(0, 1))
def test_percent_says_never_and_always_only_when_it_is(share: float) -> None:
    text = tables.percent(share)
    assert (text == "0\xa0%") == (share == 0)
    assert (text == "100\xa0%") == (share == 1)


def _row(mean: float | None, std: float | None, higher: bool = True) -> dict[str, Any]:
    return {"mean": mean, "std": std, "higher_is_better": higher}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ({}, Lead(None)),
        ({"a": _row(None, None)}, Lead(None)),
        ({"a": _row(0.5, 0.1)}, Lead("a")),
        ({"a": _row(0.5, 0.01), "b": _row(0.6, 0.01)}, Lead("b", "a", True)),
        ({"a": _row(0.5, 0.2), "b": _row(0.6, 0.01)}, Lead("b", "a", False)),
        ({"a": _row(0.5, None), "b": _row(0.6, None)}, Lead("b", "a", False)),
        ({"a": _row(0.5, 0.01, False), "b": _row(0.6, 0.01, False)}, Lead("a", "b", True)),
        ({"a": _row(0.5, 0.0), "b": _row(0.5, 0.0)}, Lead("a", "b", False)),
    ],
)
def test_leader(rows: dict[str, dict[str, Any]], expected: Lead) -> None:
    assert leader(rows, "mean", "std") == expected


def test_certificates_that_fail_come_first(certificate: Callable[..., Certificate]) -> None:
    rows = tables.certificate_rows([certificate(v) for v in ("holds", "no_power", "fails", "holds")])
    assert [row["verdict"] for row in rows] == ["fails", "no_power", "holds", "holds"]
    exact = tables.certificate_rows([certificate("holds", measured=9660000.0, reference=float("nan"), confidence=None)])
    assert (exact[0]["measured"], exact[0]["reference"]) == ("9\u202f660\u202f000", "–")
    assert exact[0]["confidence"] == "exact"


def _sent(make: Callable[..., Certificate], method: str, verdict: str = "holds", **changes: Any) -> Certificate:
    claim = f"{method} sent no byte beyond those reported."
    return make(verdict, claim, check="wire_bytes", fields={"method": method}, **changes)


def test_only_what_holds_and_claims_the_same_is_folded(certificate: Callable[..., Certificate]) -> None:
    better = [certificate("holds", f"{m} serves better than local.", fields={"method": m}) for m in ("sent", "a")]
    worse = certificate("holds", "b serves worse than local.", fields={"method": "b"})
    unnamed = [certificate("holds", "The models are fine.", check="guard", fields={"method": m}) for m in ("g", "h")]
    given = [
        *(_sent(certificate, name) for name in ("sent", "a")),
        *better,
        _sent(certificate, "b", "fails"),
        _sent(certificate, "c", "fails"),
        worse,
        *unnamed,
        _sent(certificate, "d", "no_power"),
        _sent(certificate, "e", "no_power"),
    ]
    groups = tables.certificate_groups(given)
    told = [(group["rows"][0]["verdict"], group["claim"], group["methods"]) for group in groups]
    sent = "sent no byte beyond those reported."
    assert told == [
        ("fails", sent, ["b"]),
        ("fails", sent, ["c"]),
        ("no_power", sent, ["d"]),
        ("no_power", sent, ["e"]),
        ("holds", sent, ["sent", "a"]),
        ("holds", "serves better than local.", ["sent", "a"]),
        ("holds", "serves worse than local.", ["b"]),
        ("holds", "The models are fine.", ["g", "h"]),
    ]
    rows = [row for group in groups for row in group["rows"]]
    assert sorted(rows, key=str) == sorted(tables.certificate_rows(given), key=str), "none is lost"


@pytest.mark.parametrize(
    ("start", "reasons"),
    [
        ({}, ["params with norm nan after local training (2)", "update is not finite (3)"]),
        ({"adversary": {"kind": "nan", "share": 0.2}}, ["params with norm nan (2)", "update is not finite (3)"]),
    ],
)
def test_training_is_not_blamed_where_an_adversary_is_about(
    make_run: MakeRun, start: dict[str, Any], reasons: list[str]
) -> None:
    record = make_run(methods={"fedavg": "fedavg"}, rounds=10, exchange={"fedavg": start})
    for seed in (0, 1):
        event = {"event": "round", "round": 10, "cohort": [1], "bytes_up": 1, "bytes_down": 1}
        why = "params with norm nan after local training"
        record.trial("fedavg", seed).append(event | {"rejected": [{"client": 1, "reason": why}]})
    (row,) = tables.participation_rows(record)
    assert (row["rejected"], row["reasons"]) == ("5", reasons)
    assert (row["refused"], row["forgotten"]) == (0, 0)


def test_clients_are_listed_by_name_or_by_who_is_worst_off(make_run: MakeRun) -> None:
    few = make_run(clients=3, rounds=5)
    rows, total = tables.client_rows(few, summarize(few))
    assert (total, [row["client"] for row in rows]) == (3, ["site 0", "site 1", "site 2"])
    assert len(rows[0]["values"]) == 4
    many = make_run(name="many", clients=250, rounds=0, seeds=(0,), error=True)
    summary = summarize(many)
    rows, total = tables.client_rows(many, summary)
    best = list(summary).index(str(leader(summary, "mean", "std").first))
    values = [float(row["values"][best]) for row in rows]
    assert (total, len(rows)) == (250, tables.MAX_CLIENT_ROWS)
    assert values == sorted(values, reverse=True), "the largest error is the worst"


def test_clients_are_told_which_model_was_chosen_for_them(make_run: MakeRun) -> None:
    record = make_run(clients=3, rounds=5, seeds=(0, 1))
    for event in record.events("choice"):
        assert event["method"] == "guarded"
    rows, _ = tables.client_rows(record, summary := summarize(record))
    column = list(summary).index("guarded")
    for number, row in enumerate(rows):
        picked = {c["chosen"][c["clients"].index(number)] for c in record.events("choice") if c["group"] == "seen"}
        told = row["values"][column].partition(" (")[2].removesuffix(")")
        assert set(told.split(", ")) == picked
        assert not any("(" in value for place, value in enumerate(row["values"]) if place != column)


def test_settings_that_differ_are_named_by_method(make_run: MakeRun) -> None:
    runs = [make_run(rounds=5, seeds=(0,)), make_run(rounds=10, seeds=(0,), methods={"local": "local"})]
    rows = dict(tables.settings_differences(runs))
    assert rows["run.rounds"] == ["5", "10"]
    assert rows["methods.fedavg+.kind"] == ["finetuned", "–"]
    assert "methods.local.kind" not in rows
    assert tables.settings_differences(runs[:1]) == []
