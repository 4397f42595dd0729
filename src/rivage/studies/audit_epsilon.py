"""Is the ε that a trial claims contradicted? A second training with canaries in it, held against the accountant.

Nothing is read off the audited run but its settings: it holds no canaries, and who is in must be decided by coins. The
claim is the accountant's for the training with canaries, under the same noise, sampling and rounds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from rivage.core.seeding import Streams
from rivage.federated.collectors import Averaged
from rivage.federated.secagg import SecAgg
from rivage.federated.trial import Trial
from rivage.privacy.canaries import CanaryClients, Scored
from rivage.privacy.canary_records import CanaryRecords
from rivage.privacy.canary_updates import CanaryUpdates
from rivage.privacy.epsilon_audit import claimed, judged, proved, recorded

__all__ = ["CANARIES", "audited_epsilon", "planted_at"]

CANARIES = {"user": 1000, "record": 300}
"""Planted at most, by unit; never more than the model has parameters."""

_MASKED = 100  # under secure aggregation, where every canary takes part in the protocol

_NAMES = {CanaryClients: "canary clients", CanaryUpdates: "canary updates", CanaryRecords: "canary records"}
_VIEWS = {CanaryClients: "models_of_all_rounds", CanaryUpdates: "eavesdropper", CanaryRecords: "eavesdropper"}


class _Canaries(Protocol):
    def scored(self, trial: Trial) -> Scored: ...


@dataclass(frozen=True)
class _Plan:
    canaries: _Canaries
    count: int


def audited_epsilon(
    trial: Trial, target: int, streams: Streams, *, canaries: int | None = None
) -> dict[str, Any] | None:
    """The row of an audit; None for a trial that promises nothing.

    Args:
        trial: whose promise is tested.
        target: client at which canary records are planted.
        streams: of the audit.
        canaries: how many, at most; None takes `CANARIES`.
    """
    if trial.promise is None:
        return None
    most = _MASKED if isinstance(trial.collector, SecAgg) else CANARIES[trial.promise["unit"]]
    count = min(most if canaries is None else canaries, trial.task.dimension)
    started, plan = time.monotonic(), _planned(trial, target, streams, count)
    scored = plan.canaries.scored(trial)
    evidence = recorded(scored, delta=float(trial.promise["delta"]))
    claim, bound, kind = claimed(evidence), proved(evidence), type(plan.canaries)
    return {
        "unit": trial.promise["unit"],
        "client": planted_at(trial, target),
        "mechanism": trial.promise["mechanism"],
        "epsilon": claim,
        "delta": evidence["delta"],
        "bound": bound,
        "confidence": evidence["confidence"],
        "attack": _NAMES[kind],
        "view": _VIEWS[kind],
        "canaries": plan.count,
        "verdict": judged(claim, bound),
        "seconds": time.monotonic() - started,
        "evidence": evidence,
    }


def planted_at(trial: Trial, target: int) -> int | None:
    """The client that holds the canaries; None where they are clients themselves."""
    return target if trial.promise is not None and trial.promise["unit"] == "record" else None


def _planned(trial: Trial, target: int, streams: Streams, count: int) -> _Plan:
    promise = trial.promise
    assert promise is not None, "asked before"
    if promise["unit"] == "record":
        norm, noise = float(promise["clip"]), float(promise["noise_multiplier"])
        return _Plan(CanaryRecords(target, count, norm, noise, streams), count)
    clients = CanaryClients(count, streams)
    return _Plan(clients if trial.collector != Averaged() else CanaryUpdates(clients), count)
