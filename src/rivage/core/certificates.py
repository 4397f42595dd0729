"""Certificates: every answer carries the bound or reference it was held against, and the measured gap.

A certificate names the registered *check* that computes it (entry-point group ``rivage.checks``) and the record
fields that the check reads. Checks are pure functions of a record: ``rivage verify`` runs them again on the files
of a run, without retraining.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from rivage.core.errors import StoreError
from rivage.core.registry import Registry

__all__ = ["CHECKS", "Certificate", "Check", "Kind", "Verdict", "read_certificates"]

Kind = Literal["bound", "gap", "test"]
Verdict = Literal["holds", "fails", "no_power"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A claim, what was measured, and what it was held against.

    Args:
        kind: ``bound`` (measured must not pass the reference), ``gap`` (distance to a reference optimum) or ``test``
            (a statistical statement).
        claim: one sentence a reader without the code understands.
        measured: the number found in the record.
        reference: the number it is held against.
        method: how both were computed.
        confidence: probability that a true claim passes, in [0, 1]; None for deterministic claims.
        verdict: ``holds``, ``fails``, or ``no_power`` when the data cannot tell.
        check: registered name of the function that computed it.
        fields: arguments of that function: which parts of the record it reads.
    """

    kind: Kind
    claim: str
    measured: float
    reference: float
    method: str
    confidence: float | None
    verdict: Verdict
    check: str
    fields: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """JSON form: the seven keys of the contract, then ``check`` and ``fields``."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Certificate:
        """The inverse of `as_dict`."""
        return cls(**values)


def read_certificates(values: Iterable[Any], where: str, mend: str) -> tuple[Certificate, ...]:
    """The certificates in a file; numbers that JSON cannot say come back as NaN.

    Args:
        values: what was read.
        where: the file.
        mend: what to do when it holds something else.

    Raises:
        StoreError: if it holds something else.
    """
    try:
        return tuple(_certificate(each) for each in values)
    except (TypeError, AttributeError) as error:
        raise StoreError(f"does not hold certificates ({error})", where=where, mend=mend) from error


def _certificate(values: Mapping[str, Any]) -> Certificate:
    numbers = {name: math.nan for name in ("measured", "reference") if values.get(name) is None}
    return Certificate.from_dict({**values, **numbers})


class Check(Protocol):
    """A pure function from a record and the certificate's fields to the certificate."""

    def __call__(self, record: Any, **fields: Any) -> Certificate:
        """Compute the certificate again."""
        ...


CHECKS = Registry(
    "rivage.checks",
    "check",
    {
        "paired_difference": "rivage.federated.checks:paired_difference",
        "guard": "rivage.federated.checks:guard",
        "choice_gap": "rivage.federated.checks:choice_gap",
        "privacy_spent": "rivage.federated.privacy_checks:privacy_spent",
        "stream_share": "rivage.federated.stream_checks:stream_share",
        "wire_bytes": "rivage.federated.checks:wire_bytes",
        "leakage": "rivage.privacy.checks:leakage",
        "epsilon_audited": "rivage.privacy.epsilon_audit:epsilon_audited",
        "tuned": "rivage.studies.tuning_checks:tuned",
        "advised": "rivage.studies.advice_checks:advised",
        "nothing_beats": "rivage.studies.advice_checks:nothing_beats",
        "cycle_time": "rivage.decentralized.checks:cycle_time",
        "cycle_time_bound": "rivage.decentralized.checks:cycle_time_bound",
        "overlay_gap": "rivage.decentralized.checks:overlay_gap",
        "round_times": "rivage.decentralized.training_checks:round_times",
        "delivery_gap": "rivage.inference.checks:delivery_gap",
        "delivery_regret": "rivage.inference.checks:delivery_regret",
        "placement_fits": "rivage.inference.checks:placement_fits",
        "placement_gap": "rivage.inference.checks:placement_gap",
        "optimum_gap": "rivage.online.checks:optimum_gap",
        "regret_bound": "rivage.online.checks:regret_bound",
        "fairness_bound": "rivage.online.fair_checks:fairness_bound",
        "fairness_regret": "rivage.online.fair_checks:fairness_regret",
        "fairness_severity": "rivage.online.fair_checks:fairness_severity",
        "multipliers_in_box": "rivage.online.fair_checks:multipliers_in_box",
        "network_gap": "rivage.online.network_checks:network_gap",
        "network_regret": "rivage.online.network_checks:network_regret",
    },
)
