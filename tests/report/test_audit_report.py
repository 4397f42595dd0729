from __future__ import annotations

import doctest
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta

from rivage.core.records import RunRecord
from rivage.privacy.evidence import adjust, finding, verdict
from rivage.privacy.roc import clopper_pearson, roc, tpr_at
from rivage.report import audit_figures, audit_numbers, audit_words, write_report
from rivage.report.audit_numbers import alarm_rows, bands, curve, epsilon_rows, pooled, reasons, rows

MakeRun = Callable[..., RunRecord]
CONTEXT = {"clients": 20, "others": [], "not_run": [], "epsilon": None, "promise": None}
PROMISE = {"unit": "user", "protects": "what leaves the server", "delta": 1e-5,
           "not_covered": ["single updates"]}  # fmt: skip
SECTION = re.compile(r'<h2 id="r1-audit">.*?(?=<h2 id="r1-clients">)', re.DOTALL)


def scores(shift: float, targets: int = 3, size: int = 60, seed: int = 0) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    parts = [
        {"client": c, "members": sorted(draw.normal(shift, 1, size)), "others": sorted(draw.normal(0, 1, size))}
        for c in range(targets)
    ]
    return {"kind": "scores", "targets": parts}


def counts(correct: int, baseline: int, records: int = 200) -> dict[str, Any]:
    better = max(correct - baseline, 0)
    worse = better - (correct - baseline)
    return {"kind": "counts", "records": records, "correct": correct, "baseline_correct": baseline,
            "better": better, "worse": worse}  # fmt: skip


def row(attack: str, question: str, view: str, evidence: Mapping[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """A row as an audit writes it, not yet corrected for others."""
    found = None if evidence is None else finding(evidence)
    return {
        "attack": attack,
        "question": question,
        "view": view,
        "oracle": "",
        "targets": [0, 1, 2],
        "metric": None if found is None else found.metric,
        "value": None if found is None else found.value,
        "baseline": None if found is None else found.baseline,
        "ci": None if found is None or found.ci is None else list(found.ci),
        "p": None if found is None else found.p,
        "p_adjusted": None,
        "verdict": "refused",
        "status": "",
        "reasons": {},
        "facts": {"answers": {}},
        "evidence": evidence,
        "cost": {"seconds": 1.5, "peak_bytes": 2_000_000, "evaluations": 1200},
        **changes,
    }


def audit(*attacks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Rows corrected for one another, in an audit."""
    held = [each for each in attacks if each["evidence"] is not None]
    found = [finding(each["evidence"]) for each in held]
    adjusted = adjust([each.p for each in found])
    for each, one, p in zip(held, found, adjusted, strict=True):
        told = verdict(one, p, sum(p is not None for p in adjusted), each["status"])
        each |= {"p_adjusted": p, "verdict": told}
    return {"method": "fedavg", "seed": 0, "targets": [0, 1, 2], "faults": [], "attacks": list(attacks),
            "epsilon": [], "certificates": [], **changes}  # fmt: skip


def claim(judged: str, bound: float, **changes: Any) -> dict[str, Any]:
    return {"unit": "record", "mechanism": "DP-SGD", "epsilon": 2.0, "delta": 1e-5, "bound": bound, "confidence": 0.99,
            "attack": "canary records", "view": "eavesdropper", "canaries": 300, "verdict": judged, "seconds": 9.0,
            "evidence": {}, **changes}  # fmt: skip


LEAK = row("fedmia", "membership", "curious_server", scores(1.0))
NULL = row("loss_threshold", "membership", "released_model", scores(0.0, seed=5))
GUESS = row("model_attributes", "attribute smoker", "eavesdropper", counts(190, 150))
LABELS = row("idlg", "record", "eavesdropper", {**counts(100, 100), "metric": "labels"})
REBUILT = row("analytic_inversion", "record", "eavesdropper",
              {"kind": "matches", "records": 100, "correct": 40, "baseline_correct": 0, "targets": []})  # fmt: skip
MODEL = row("local_model", "model", "eavesdropper", {"kind": "estimates", "targets": [
    {"client": 0, "status": "recovered", "distance": 1e-9, "baseline": 0.5}]}, status="recovered")  # fmt: skip
REFUSED = row("dlg", "record", "eavesdropper", None, reasons={
    "the client holds 313 records, too many. Raise most_records.": ["client 0", "client 2"],
    "the client holds 297 records, too many. Raise most_records.": ["client 1"]})  # fmt: skip


def said(found: Mapping[str, Any], **context: Any) -> dict[str, str]:
    return dict(audit_words.sentences(found, {**CONTEXT, **context}))


# --- sentences ------------------------------------------------------------------------------------------------------


def test_a_leak_is_told_with_what_guessing_reaches() -> None:
    told = said(audit(LEAK, NULL, GUESS))
    assert "A server that keeps to the rules and every update can tell records" in told["What was found"]
    area = f"{100 * LEAK['value']:.0f}"
    assert f"the right one in {area} of 100 cases, by guessing 50" in told["What was found"]
    assert "can guess “smoker” right in 95 of 100 records, without the messages 75" in told["What was found"]
    assert (
        "That 1 attack did better than somebody who has seen no message could not be shown"
        in told["What was not found"]
    )
    assert "3 tests share one limit" in told["How sure this is"]
    assert "3 of the 20 clients" in told["What was tried"]


def test_what_is_found_about_anyone_is_told_apart_from_these_records() -> None:
    unseen = {"held_out": 0.94, "held_out_p": 0.4, "held_out_least_p": 0.01, "beyond_held_out": False}
    told = said(audit({**GUESS, "facts": unseen}))["What was found"]
    assert "without the messages 75, and in records that were never trained on 94 of 100: it may hold for any" in told
    told = said(audit({**GUESS, "facts": {**unseen, "held_out": 0.5, "beyond_held_out": True}}))["What was found"]
    assert "never trained on 50 of 100: part of it is about these very records" in told
    told = said(audit({**GUESS, "facts": {**unseen, "held_out_least_p": 0.2}}))["What was found"]
    assert "never trained on 94 of 100: these are too few to tell whose it is" in told


def test_a_null_is_told_as_one() -> None:
    told = said(audit(NULL, LABELS))
    assert told["What was found"] == "Nothing."
    assert told["What was not found"].startswith("About whether a given record was used in training and the labels")
    assert "does not show that there is nothing to find" in told["What was not found"]
    assert "clear" not in told["How sure this is"]


def test_properties_are_those_of_clients() -> None:
    told = said(audit(row("property", "property smoker", "curious_server", scores(2.0, targets=1))))
    assert told["What was tried"].endswith("What they want to know: at which clients “smoker” is common.")
    assert "can tell clients where “smoker” is common from others" in told["What was found"]


def test_what_was_rebuilt_is_told_beyond_chance() -> None:
    found = said(audit(REBUILT, MODEL))["What was found"]
    assert "can rebuild 40 of 100 records, without the messages 0" in found
    assert "to within a millionth of its size; the last model that the client sent is 50 %" in found


def test_estimates_are_no_findings() -> None:
    rough = row("emulator", "model", "eavesdropper", {"kind": "estimates", "targets": [
        {"client": 0, "status": "estimated", "distance": 0.7, "baseline": 0.5}]}, status="estimated")  # fmt: skip
    found = said(audit(rough))["What was found"]
    assert found.startswith("Nothing beyond doubt. A guess at the model")
    assert "no nearer than the last model" in found


def test_what_an_oracle_told_is_no_finding() -> None:
    assert said(audit({**LEAK, "oracle": "the true labels"}))["What was found"] == "Nothing."


def test_refusals_are_told_with_their_reason() -> None:
    told = said(audit(NULL, REFUSED, {**REFUSED, "attack": "cosine_inversion"}))
    assert told["What could not be tried"] == ("dlg and cosine_inversion (the client holds 313 records, too many).")
    assert "What could not be tried" not in said(audit(NULL))


def test_nobody_listened() -> None:
    told = said(audit(REFUSED))
    assert told["Who could listen"] == "Nobody could be imitated on these messages."
    assert "What was found" not in told
    assert "How sure this is" not in told


def test_too_few_records_are_not_called_safe() -> None:
    weak = row("zari21", "membership", "eavesdropper", scores(0.1, targets=1, size=2))
    told = said(audit(weak))
    assert weak["verdict"] == "no power"
    assert "1 attack had too few records to find anything" in told["What was not found"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (claim("VIOLATION", 3.1), "prove ε ≥ 3.100 (confidence 99 %): the promise is broken."),
        (claim("consistent", 0.6), "prove ε ≥ 0.600 (confidence 99 %), which does not contradict it."),
        (claim("no power", 0.0), "prove nothing, and would not have noticed a broken promise."),
        (
            claim("consistent", 0.6, unit="user"),
            "Not covered: what clients have in common; single updates. 300 made-up",
        ),
    ],
)
def test_promises_and_what_canaries_say_of_them(row: dict[str, Any], words: str) -> None:
    told = said(audit(NULL, epsilon=[row]), epsilon=2.5, promise={**PROMISE, "unit": row["unit"]})
    assert words in told["What is promised"]
    assert "ε = 2.500 allows" in told["What is promised"]
    assert "a repeat of the training with ε = 2.000" in told["What is promised"]


def test_promises_that_nobody_tested() -> None:
    assert said(audit(NULL))["What is promised"].startswith("Nothing:")
    told = said(audit(NULL), epsilon=2.5, promise=PROMISE)["What is promised"]
    assert told.startswith(
        "That what leaves the server tells of any one client at most what ε = 2.500 allows: it changes"
    )
    assert "by a factor of 12.2 at most, save with probability 1e-05. Not covered: what clients have in common" in told
    assert told.endswith("Whether that is kept was not tested.")


def test_what_was_not_tested() -> None:
    late = [{"attack": "lira", "question": "membership", "reason": "the budget"},
            {"attack": "fedmia", "question": "membership", "reason": "made good since"}]  # fmt: skip
    told = said(audit(LEAK), not_run=late, others=["fedem", "seed 1"])["What was not tested"]
    assert "a server that sends models of its own making" in told
    assert "for want of time lira;" in told
    assert "fedmia" not in told
    assert "17 further clients; the messages of fedem and seed 1; attacks that are not known yet." in told
    assert "server that keeps" not in told


def test_five_to_eight_sentences_without_jargon() -> None:
    found = audit_words.sentences(audit(LEAK, NULL, GUESS, REBUILT, REFUSED), CONTEXT)
    assert 5 <= len(found) <= 8
    words = " ".join(text for _, text in found)
    assert not re.search(r"\b(AUC|auc|p-value|ROC|Holm|baseline|null hypothesis|verdict)\b", words)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_examples_of_the_docstrings() -> None:
    assert doctest.testmod(audit_numbers).failed == 0


def test_bands_are_quantiles_of_the_beta_distribution() -> None:
    hits = np.array([0, 1, 7, 49, 50])
    low, high = bands(hits, 50, 0.9)
    np.testing.assert_allclose(low[1:], beta.ppf(0.05, hits[1:], 51 - hits[1:]), rtol=1e-12)
    np.testing.assert_allclose(high[:-1], beta.ppf(0.95, hits[:-1] + 1, 50 - hits[:-1]), rtol=1e-12)
    assert (low[0], high[-1]) == (0, 1)
    np.testing.assert_allclose(np.stack([low, high], 1), [clopper_pearson(k, 50, 0.9) for k in hits], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=40),
    st.lists(st.integers(0, 6), min_size=10, max_size=40),
)
def test_a_curve_is_the_largest_share_at_no_more_false_alarms(members: list[int], others: list[int]) -> None:
    evidence = {"targets": [{"members": sorted(members), "others": sorted(others)}]}
    found, (values, member) = curve(evidence), pooled(evidence)
    assert found.fpr[0] == pytest.approx(10 / len(others))
    exact = roc(np.array([*members, *others], float), np.repeat([True, False], [len(members), len(others)]))
    for share, rate in zip(found.fpr, found.tpr, strict=True):
        assert rate == exact.tpr[exact.fpr <= share + 1e-9].max() == tpr_at(values, member, share)
    assert (np.diff(found.tpr) >= 0).all()
    assert ((found.low <= found.tpr) & (found.tpr <= found.high)).all()


def test_targets_are_ranked_apart() -> None:
    evidence = scores(0.7)
    moved = json.loads(json.dumps(evidence))
    for c, target in enumerate(moved["targets"]):
        for name in ("members", "others"):
            target[name] = [100 * c + 3 * value for value in target[name]]
    np.testing.assert_array_equal(pooled(evidence)[0], pooled(moved)[0])
    np.testing.assert_array_equal(curve(evidence).tpr, curve(moved).tpr)


def test_too_few_others_have_no_curve() -> None:
    found = curve(scores(1.0, targets=1, size=9))
    assert len(found.fpr) == 0
    assert found.least > 1
    few = audit(row("zari21", "membership", "eavesdropper", scores(1.0, targets=1, size=9)))
    assert audit_figures.trade_offs(few, name="x") is None


def test_rates_that_stand_for_fewer_than_ten_are_not_told() -> None:
    (small,) = alarm_rows(audit(row("a", "membership", "eavesdropper", scores(9.0, targets=1, size=100))))
    assert (small["tenth"], small["hundredth"], small["thousandth"]) == ("100.0 %", "n/a", "n/a")
    (large,) = alarm_rows(audit(row("a", "membership", "eavesdropper", scores(0.0, targets=1, size=1000))))
    assert large["hundredth"] != "n/a"
    assert large["thousandth"] == "n/a"


def test_equal_reasons_are_told_once() -> None:
    assert reasons(REFUSED) == ["the client holds 313 records, too many. Raise most_records."]
    assert reasons(NULL) == []


def test_rows_have_all_that_was_measured_and_findings_first() -> None:
    found = rows(audit(NULL, LEAK, REFUSED))
    assert [each["attack"] for each in found] == ["fedmia", "loss_threshold", "dlg"]
    first = found[0]
    assert (first["metric"], first["baseline"], first["seconds"]) == ("AUC", "0.500", "1.5 s")
    assert (first["peak"], first["verdict"], first["sign"]) == ("2.00 MB", "leaks", "◆")
    assert not found[2]["answered"]
    assert epsilon_rows(audit(epsilon=[claim("VIOLATION", 3.0)]))[0]["style"] == "fails"


# --- the page -------------------------------------------------------------------------------------------------------


def test_figures_say_what_they_show() -> None:
    found = audit(LEAK, NULL, GUESS, MODEL, epsilon=[claim("VIOLATION", 3.0), claim("no power", 0.0)])
    for draw, words in (
        (audit_figures.trade_offs, "fedmia: area"),
        (audit_figures.leakage, "model_attributes on smoker: 0.950 against 0.750, leaks"),
        (audit_figures.promises, "per record claimed 2.000, proved 3.000, VIOLATION"),
    ):
        svg = draw(found, name="x") or ""
        label = re.findall(r'<svg role="img" aria-label="([^"]*)"', svg)
        assert len(label) == 1
        assert words in label[0]
        assert not re.search(r"#[0-9a-f]{6}", svg.partition(">")[2]), "all colours follow the theme"
        assert svg == draw(found, name="x")
    assert "VIOLATION" in (audit_figures.promises(found, name="x") or "").partition(">")[2], "not by colour alone"


def test_nothing_to_draw() -> None:
    for draw in (audit_figures.trade_offs, audit_figures.leakage, audit_figures.promises):
        assert draw(audit(REFUSED), name="x") is None


def test_an_audit_adds_its_section_and_nothing_else(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run(rounds=4, clients=6)
    before = write_report([record], tmp_path / "before.html").read_text("utf-8")
    assert "What the messages tell" not in before
    record.write_audit(audit(LEAK, NULL, GUESS, REFUSED, epsilon=[claim("consistent", 0.5)]))
    after = write_report([record], tmp_path / "after.html").read_text("utf-8")
    again = write_report([RunRecord.open(record.folder)], tmp_path / "again.html").read_text("utf-8")
    assert after == again
    (section,) = SECTION.findall(after)
    assert SECTION.sub("", after).replace("\n", "") == before.replace("\n", "")
    for words in ("What the messages tell", "Audit of fedavg, seed 0", "◆ ", "ε claimed", "loss threshold", "n/a"):
        assert words in section
    assert "the messages of fedavg+, guarded, seed 1 and seed 2" in section
    assert "None" not in section
    assert "NaN" not in section


def test_names_in_an_audit_are_escaped(make_run: MakeRun, tmp_path: Path) -> None:
    record, hostile = make_run(rounds=4, clients=6), "<img src=x>"
    asked, refused = {**GUESS, "question": f"attribute {hostile}"}, {**REFUSED, "reasons": {hostile: ["all targets"]}}
    record.write_audit(audit(asked, refused, faults=[hostile]))
    assert hostile not in write_report([record], tmp_path / "r.html").read_text("utf-8")


def test_several_audits_have_a_heading_each(make_run: MakeRun, tmp_path: Path) -> None:
    record = make_run(rounds=4, clients=6)
    record.write_audit(audit(LEAK))
    record.write_audit(audit(NULL, method="fedavg+", seed=1))
    text = write_report([record], tmp_path / "r.html").read_text("utf-8")
    assert "<h3>fedavg, seed 0</h3>" in text
    assert "<h3>fedavg+, seed 1</h3>" in text
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))


def test_the_section_needs_neither_torch_nor_attacks() -> None:
    code = (
        "import sys, rivage.report.page, rivage.report.audit_figures\n"
        "assert not {'torch', 'rivage.privacy', 'rivage.federated'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
