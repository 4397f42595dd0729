"""Certificates of an audit, computed from the evidence that ``audit.json`` holds.

Pure: no attack is run again, no model and no data are touched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rivage.core.certificates import Certificate
from rivage.core.errors import StoreError
from rivage.privacy.evidence import LEVEL, Finding, adjust, finding, verdict

__all__ = ["Audited", "judged_rows", "leakage", "leakages", "numbers"]

Told = Mapping[str, Any]

_SHOWN = 5  # clients that a claim names

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


def leakage(
    record: Audited, *, method: str, seed: int, attack: str, question: str, targets: Sequence[int]
) -> Certificate:
    """Did an attack on these targets find something that its baseline does not?

    Measured is its p-value after Holm's correction over all attacks ever made on the trial. The certificate fails when
    what the audit says of the attack does not follow from its evidence.
    """
    wanted = {"attack": attack, "question": question, "targets": list(targets)}
    for each in leakages(record.audit(method, seed)["attacks"], method=method, seed=seed):
        if wanted.items() <= dict(each.fields).items():
            return each
    raise StoreError(
        f'holds no evidence of attack "{attack}" on "{question}"', where="audit.json", mend="Audit again with --fresh."
    )


def leakages(rows: Sequence[Told], *, method: str, seed: int) -> list[Certificate]:
    """The certificate of every row that tests something; see `leakage`."""
    trial = {"method": method, "seed": seed}
    return [_certificate(row, one, p, tests, trial) for row, one, p, tests in judged_rows(rows) if p is not None]


def judged_rows(rows: Sequence[Told]) -> list[tuple[Told, Finding, float | None, int]]:
    """Rows with evidence: what follows from it, the p-value corrected over all of them, how many tests those are."""
    held = [row for row in rows if row["evidence"] is not None]
    found = [finding(row["evidence"]) for row in held]
    adjusted = adjust([each.p for each in found])
    tests = sum(p is not None for p in adjusted)
    return [(row, one, p, tests) for row, one, p in zip(held, found, adjusted, strict=True)]


def _certificate(told: Told, one: Finding, p: float, tests: int, trial: Mapping[str, Any]) -> Certificate:
    """Holds a row against what follows from its evidence."""
    honest = all(_same(told.get(key), value) for key, value in numbers(one, p, tests).items())
    attack, question, targets = told["attack"], told["question"], told["targets"]
    at = f"{told['view']}, {_clients(targets)}, {trial['method']}, seed {trial['seed']}"
    return Certificate(
        kind="test",
        claim=f"{attack} {_achievement(question)}: {one.metric} {one.value:.4f} against {one.baseline:.4f} ({at}).",
        measured=p,
        reference=LEVEL,
        method=f"one-sided p-value {one.p:.4g} from the evidence in audit.json, corrected by Holm's method over the "
        f"{tests} tests of the audit",
        confidence=1 - LEVEL,
        verdict="fails" if not honest else "holds" if p <= LEVEL else "no_power",
        check="leakage",
        fields={**trial, "attack": attack, "question": question, "targets": list(targets)},
    )


def _clients(targets: Sequence[int]) -> str:
    if len(targets) > _SHOWN:
        return f"{len(targets)} clients"
    return f"client{'s' * (len(targets) > 1)} {', '.join(map(str, targets))}"


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
