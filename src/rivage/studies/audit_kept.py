"""What is kept of an audit: every row that was ever made on a trial, corrected for one another, and certificates.

A row is known by its attack, its question and its targets. Only another log, other data, another seed of the audit or
another version of this library begins anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rivage import __version__
from rivage.core.certificates import CHECKS
from rivage.core.encoding import dumps
from rivage.core.errors import RivageError, StoreError
from rivage.privacy.checks import judged_rows, leakages, numbers
from rivage.studies.audit_attack import Row
from rivage.studies.audit_scene import Scene

__all__ = ["Kept", "corrected"]


@dataclass(frozen=True)
class Kept:
    """An audit as it is kept, with a certificate for every attack that tests something.

    Args:
        head: what all rows depend on, beside attack, question and targets.
        rows: of attacks.
        faults: of the log.
        epsilon: rows of claims that canaries were held against.
    """

    head: Mapping[str, Any]
    rows: Sequence[Row] = ()
    faults: Sequence[str] = ()
    epsilon: Sequence[Row] = ()

    @classmethod
    def of(cls, scene: Scene, audits: Sequence[Any]) -> Kept:
        """What an earlier audit of the same log and seed has left; nothing without."""
        head = {
            "format": "rivage.audit/1",
            "method": scene.trial.name,
            "seed": scene.trial.seed,
            "version": __version__,
            "audit_seed": scene.seed,
            "log": scene.fingerprint,
            "data": scene.trial.population.fingerprint,
        }
        for audit in audits:
            if isinstance(audit, dict) and all(dumps(audit.get(key)) == dumps(value) for key, value in head.items()):
                return cls._read(head, audit)
        return cls(head)

    @classmethod
    def _read(cls, head: Mapping[str, Any], audit: Mapping[str, Any]) -> Kept:
        """An audit that is whole.

        Raises:
            StoreError: for one that is not.
        """
        try:
            found = cls(head, audit["attacks"], tuple(audit.get("faults", ())), audit.get("epsilon", ()))
            if not all({"cost", "reasons"} <= set(row) for row in found.rows):
                raise ValueError("an attack without its cost or its reasons")
            found.whole  # noqa: B018  # computes every certificate
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RivageError):
                raise
            what = f"what it says of {audit.get('method')} is no audit ({type(error).__name__}: {error})"
            raise StoreError(what, where="audit.json", mend="Audit again with --fresh.") from error
        return found

    def now(self, scene: Scene, *, rows: Sequence[Row] | None = None, epsilon: Sequence[Row] | None = None) -> Kept:
        """The same with these rows; faults of the log are met when it is read, and stay."""
        return replace(
            self,
            rows=self.rows if rows is None else rows,
            epsilon=self.epsilon if epsilon is None else epsilon,
            faults=tuple(dict.fromkeys([*self.faults, *scene.faults])),
        )

    def audit(self, method: str, seed: int) -> Mapping[str, Any]:
        """Itself, as checks read it."""
        return {**self.head, "attacks": self.rows, "epsilon": self.epsilon}

    @property
    def whole(self) -> dict[str, Any]:
        """What a file holds."""
        trial = {"method": self.head["method"], "seed": self.head["seed"]}
        claims = [{"unit": row["unit"], "client": row["client"]} for row in self.epsilon]
        certificates = [
            *leakages(self.rows, **trial),
            *(CHECKS.get("epsilon_audited")(self, **trial, **claim) for claim in claims),
        ]
        return {
            **self.head,
            "faults": list(self.faults),
            "attacks": list(self.rows),
            "epsilon": list(self.epsilon),
            "certificates": [each.as_dict() for each in certificates],
        }


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values corrected for one another, and verdicts after them."""
    told = {id(row): numbers(one, p, tests, status=row["status"]) for row, one, p, tests in judged_rows(rows)}
    return [row | told.get(id(row), {}) for row in rows]
