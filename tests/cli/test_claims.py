from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from rivage.cli.app import main
from rivage.core.errors import DataError

Capture = pytest.CaptureFixture[str]


@dataclass(frozen=True)
class Outcome:
    measured: float | None
    verdict: str
    detail: str = ""


@dataclass(frozen=True)
class Claim:
    name: str
    run: Callable[[], Outcome]
    cost: str = "quick"
    paper: str = "One et al."
    where: str = "Table 1"
    statement: str = "Averages average."
    expected: float = 0.5
    tolerance: float = 0.1


def no_data() -> Outcome:
    raise DataError("no such file", where="mnist", mend="Set RIVAGE_DATA.")


def crash() -> Outcome:
    raise ZeroDivisionError("a fault of ours")


CLAIMS = [
    Claim("good", lambda: Outcome(0.52, "holds", "over 3 seeds")),
    Claim("bad", lambda: Outcome(0.9, "fails")),
    Claim("long", lambda: Outcome(0.5, "holds"), cost="slow"),
    Claim("dataless", no_data),
    Claim("skipped", lambda: Outcome(None, "not tested", "no GPU")),
    Claim("crash", crash, cost="slow"),
]


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("rivage.studies.claims")
    module.__dict__["CLAIMS"] = {claim.name: claim for claim in CLAIMS}
    monkeypatch.setitem(sys.modules, "rivage.studies.claims", module)


def verdicts(capsys: Capture, words: list[str], code: int) -> dict[str, Any]:
    assert main(["reproduce", *words, "--json", "--quiet"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["claims"]
    return {name: claim["verdict"] for name, claim in found.items()}


def test_all_quick_claims_and_exit_3_because_one_fails(capsys: Capture) -> None:
    assert verdicts(capsys, [], 3) == {
        "good": "holds",
        "bad": "fails",
        "long": "not tested",
        "dataless": "not tested",
        "skipped": "not tested",
        "crash": "not tested",
    }


def test_named_claims_in_the_order_given(capsys: Capture) -> None:
    assert list(verdicts(capsys, ["skipped", "good"], 0)) == ["skipped", "good"]


def test_a_slow_claim_is_run_when_named_or_asked_for(capsys: Capture) -> None:
    assert verdicts(capsys, ["long"], 0) == {"long": "holds"}
    assert main(["reproduce", "--slow"]) == 1, "a fault of ours is no verdict"
    assert "unexpected ZeroDivisionError" in capsys.readouterr().err


def test_the_reason_is_told(capsys: Capture) -> None:
    main(["reproduce", "dataless", "long", "--json"])
    found = json.loads(capsys.readouterr().out)["claims"]
    assert found["dataless"]["detail"] == "mnist: no such file. Set RIVAGE_DATA."
    assert main(["reproduce", "--json", "--quiet"]) == 3
    assert json.loads(capsys.readouterr().out)["claims"]["long"]["detail"] == "slow; add --slow"


def test_the_table(capsys: Capture) -> None:
    assert main(["reproduce", "good", "skipped"]) == 0
    captured = capsys.readouterr()
    line, *rows = captured.out.splitlines()
    assert line == "2 claims: 1 holds, 0 fails, 1 not tested"
    assert any(row.split()[:4] == ["holds", "good", "0.52", "0.5"] for row in rows)
    assert captured.err.splitlines() == ["good: Averages average.", "skipped: Averages average."]


def test_listing_runs_nothing(capsys: Capture) -> None:
    assert main(["reproduce", "--list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["claims"]
    assert list(listed) == [claim.name for claim in CLAIMS]
    assert listed["crash"]["cost"] == "slow"
    assert main(["reproduce", "--list", "crash"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1 claims"


def test_unknown_claims_are_refused_before_any_is_run(capsys: Capture) -> None:
    assert main(["reproduce", "good", "baad"]) == 2
    assert 'unknown claim "baad". Did you mean "bad"?' in capsys.readouterr().err
