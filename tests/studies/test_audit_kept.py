"""What is kept of an audit: one correction over all that tests something, and faults that stay."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from rivage.studies.audit_kept import Kept, corrected


def two_right(attack: str, **changes: Any) -> dict[str, Any]:
    """Two of five records right, none by guessing. Five of five would give 1/32."""
    evidence = {"kind": "counts", "records": 5, "correct": 2, "baseline_correct": 0, "better": 2, "worse": 0}
    row = {"attack": attack, "question": "attribute sex", "view": "v", "targets": [0], "status": "", "verdict": ""}
    return {**row, "p": None, "evidence": evidence, **changes}


def test_what_tests_nothing_shares_no_level() -> None:
    """1/32 is enough for one test, too little for two."""
    told, refused = corrected([two_right("a"), two_right("b", evidence=None, verdict="refused")])
    assert (told["verdict"], refused["verdict"]) == ("nothing found", "refused")
    assert [row["verdict"] for row in corrected([two_right("a"), two_right("c")])] == ["no power"] * 2


def test_faults_that_were_met_once_stay_with_the_audit() -> None:
    scene: Any = SimpleNamespace(faults=["7 bytes", "no round 3"])
    kept = Kept({"method": "m", "seed": 0}, faults=("no round 3",))
    assert kept.now(scene).faults == ("no round 3", "7 bytes")
