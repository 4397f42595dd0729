"""Claimed ε held against the ε that canaries prove.

The evidence is which canaries were in, in the order of their scores: nothing else decides the bound, and no score, no
record and no direction leaves the audit. Several statistics and several numbers of guesses share the level.

===============  =====================================================================
verdict          when
===============  =====================================================================
``VIOLATION``    the bound is above the claim: at this confidence the claim is wrong
``consistent``   the bound is positive and not above the claim
``no power``     the bound is 0: these canaries would not have noticed a wrong claim
===============  =====================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from math import isclose
from typing import Any, Literal

import numpy as np

from rivage.core.certificates import Certificate, Verdict
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.federated.accounting import Release, epsilon_of
from rivage.privacy.canaries import Scored
from rivage.privacy.epsilon_bounds import best_of_one_run

__all__ = ["CONFIDENCE", "claimed", "epsilon_audited", "guesses_for", "judged", "proved", "recorded"]

CONFIDENCE = 0.99
"""Of a bound, unless something else is asked for: one honest run in a hundred is accused."""

_SHARES = (0.05, 0.1, 0.2, 0.4)  # of the canaries, guessed about on either side
_CERTIFIED: Mapping[str, Verdict] = {"VIOLATION": "fails", "consistent": "holds", "no power": "no_power"}


def guesses_for(canaries: int) -> tuple[int, ...]:
    """Numbers of guesses on either side that an audit tries, fixed before anything is scored."""
    return tuple(dict.fromkeys(max(1, round(share * canaries)) for share in _SHARES))


def recorded(scored: Scored, *, delta: float, confidence: float = CONFIDENCE) -> dict[str, Any]:
    """The evidence: JSON values. ``ledger`` holds noise, sampling rate and steps of all that was released."""
    orders = [scored.inside[column.argsort(kind="stable")] for column in scored.scores.T]
    return {
        "kind": "canaries",
        "orders": ["".join("1" if inside else "0" for inside in order.tolist()) for order in orders],
        "each": list(guesses_for(len(scored.inside))),
        "ledger": [list(astuple(release)) for release in scored.ledger or ()],
        "delta": delta,
        "confidence": confidence,
    }


def proved(evidence: Mapping[str, Any]) -> float:
    """The ε that the evidence proves.

    Raises:
        StoreError: if it is no evidence.
    """
    try:
        orders = [_order(text) for text in evidence["orders"]]
        each, confidence = [int(count) for count in evidence["each"]], float(evidence["confidence"])
        if tuple(each) != guesses_for(len(orders[0])) or not 0 < confidence < 1:
            raise ValueError("guesses or confidence are not what an audit takes")
        share = 1 - (1 - confidence) / len(orders)
        return max(_bound(order, each, float(evidence["delta"]), share) for order in orders)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise StoreError(
            f"the evidence of canaries cannot be read ({error})", where="audit.json", mend="Audit again with --fresh."
        ) from error


def claimed(evidence: Mapping[str, Any]) -> float:
    """The ε that the accountant tells of the evidence's ledger.

    Raises:
        StoreError: if it is no ledger.
        MissingExtra: where sampled noise is accounted for, and dp-accounting is not installed.
    """
    try:
        ledger = [
            Release(float(noise), float(sampling), int(steps), *map(bool, rest))
            for noise, sampling, steps, *rest in evidence["ledger"]
        ]
        return epsilon_of(ledger, float(evidence["delta"]))
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"the ledger of canaries cannot be read ({error})", where="audit.json", mend="Audit again with --fresh."
        ) from error


def _order(text: str) -> list[bool]:
    if not text or set(text) - {"0", "1"}:
        raise ValueError("an order is not made of 0 and 1")
    return [letter == "1" for letter in text]


def _bound(order: Sequence[bool], each: Sequence[int], delta: float, confidence: float) -> float:
    scores = np.arange(len(order), dtype=np.float64)
    return best_of_one_run(scores, np.array(order), each=each, delta=delta, confidence=confidence)


def judged(claim: float, bound: float) -> Literal["VIOLATION", "consistent", "no power"]:
    """What a bound says of a claim."""
    if bound > claim:
        return "VIOLATION"
    return "consistent" if bound > 0 else "no power"


def epsilon_audited(record: RunRecord, *, method: str, seed: int, unit: str, client: int | None = None) -> Certificate:
    """Is the claimed ε not contradicted by canaries?

    Claim and bound are computed again from what was released and from the coins; the certificate also fails where the
    audit says something else.
    """
    told = record.audit(method, seed).get("epsilon", [])
    rows = [row for row in told if (row["unit"], row.get("client")) == (unit, client)]
    if not rows:
        mend = "Audit again with --fresh."
        raise StoreError(f"holds no canaries for {unit}s", where=str(record.folder / "audit.json"), mend=mend)
    row = rows[0]
    evidence = row["evidence"]
    bound, claim = proved(evidence), claimed(evidence)
    honest = isclose(claim, row["epsilon"], rel_tol=1e-6) and isclose(bound, row["bound"], rel_tol=1e-6, abs_tol=1e-9)
    return Certificate(
        kind="test",
        claim=f"Canaries do not contradict that {method} spends at most ε = {claim:.4g} per {unit} at "
        f"δ = {evidence['delta']:g} (seed {seed}).",
        measured=bound,
        reference=claim,
        method=f"lower bound on ε from {len(evidence['orders'][0])} canary {unit}s in one run, each in by a coin; "
        f"{' and '.join(map(str, evidence['each']))} guesses on either side, corrected for the number of tries",
        confidence=float(evidence["confidence"]),
        verdict=_CERTIFIED[judged(claim, bound)] if honest else "fails",
        check="epsilon_audited",
        fields={"method": method, "seed": seed, "unit": unit, "client": client},
    )
