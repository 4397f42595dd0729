"""Certificates of an audit, computed from the evidence that ``audit.json`` holds.

Pure: no attack is run again, no model and no data are touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.privacy.evidence import LEVEL, Finding, adjust, finding, verdict

__all__ = ["Audited", "leakage", "numbers"]

_WORDS = {
    "membership": "tells training records from others better than chance",
    "property": "tells clients with the property from others better than chance",
    "record": "reads labels off an update better than their frequencies tell",
}


class Audited(Protocol):
    """What holds audits: the record of a run."""

    def audit(self, method: str, seed: int) -> Mapping[str, Any]:
        """The audit of one trial."""
        ...


def leakage(record: Audited, *, method: str, seed: int, attack: str, question: str) -> Certificate:
    """Did an attack find something that its baseline does not?

    Measured is its p-value after Holm's correction over all attacks of the audit. The certificate fails when what the
    audit says of the attack does not follow from its evidence.
    """
    rows = [row for row in record.audit(method, seed)["attacks"] if row["evidence"] is not None]
    at = next((n for n, row in enumerate(rows) if (row["attack"], row["question"]) == (attack, question)), None)
    if at is None:
        raise StoreError(
            f'holds no evidence of attack "{attack}" on "{question}"',
            where="audit.json",
            mend="Audit again with --fresh.",
        )
    found = [finding(row["evidence"]) for row in rows]
    adjusted = adjust([each.p for each in found])
    told, one, p = rows[at], found[at], adjusted[at]
    assert p is not None, "only what is tested is certified"
    tests = sum(each is not None for each in adjusted)
    computed = numbers(one, p, tests)
    honest = all(_same(told.get(key), value) for key, value in computed.items())
    return Certificate(
        kind="test",
        claim=f"{attack} {_achievement(question)}: {one.metric} {one.value:.4f} against {one.baseline:.4f} "
        f"({told['view']}, {method}, seed {seed}).",
        measured=p,
        reference=LEVEL,
        method=f"one-sided p-value {one.p:.4g} from the evidence in audit.json, corrected by Holm's method over the "
        f"{tests} tests of the audit",
        confidence=1 - LEVEL,
        verdict="fails" if not honest else "holds" if p <= LEVEL else "no_power",
        check="leakage",
        fields={"method": method, "seed": seed, "attack": attack, "question": question},
    )


def _achievement(question: str) -> str:
    kind, _, rest = question.partition(" ")
    return _WORDS.get(kind, f"guesses {rest} better than who has not seen the training")


def numbers(found: Finding, p_adjusted: float | None, tests: int, status: str = "") -> dict[str, Any]:
    """What a row of an audit says, as far as it follows from evidence."""
    return {
        "metric": found.metric,
        "value": found.value,
        "baseline": found.baseline,
        "ci": None if found.ci is None else list(found.ci),
        "p": found.p,
        "p_adjusted": p_adjusted,
        "verdict": verdict(found, p_adjusted, tests, status),
    }


def _same(one: Any, other: Any) -> bool:
    """Equal up to rounding: another machine may add in another order."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, str) or one is None or other is None:
        return bool(one == other)
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
