"""Audits as a run keeps them in ``audit.json``: what such a list must hold, how one is found, replaced and hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from rivage.core.encoding import dumps
from rivage.core.errors import StoreError

__all__ = ["Audit", "audit_hashes", "audit_of", "read_audits", "with_audit"]

Audit = dict[str, Any]

_KEYS = {"method", "seed", "attacks", "certificates"}
_ROW_KEYS = {"attack", "question", "view", "evidence", "p"}


def read_audits(values: Sequence[Any], where: str) -> tuple[Audit, ...]:
    """The audits in a file.

    Args:
        values: what was read.
        where: the file.

    Raises:
        StoreError: if one of them is no audit.
    """
    if not all(map(_is_audit, values)):
        raise StoreError("does not hold audits", where=where, mend="Delete it and audit again.")
    return tuple(values)


def _is_audit(value: Any) -> bool:
    if not isinstance(value, dict) or not set(value) >= _KEYS:
        return False
    lists = value["attacks"], value["certificates"]
    if not all(isinstance(each, list) and all(isinstance(item, dict) for item in each) for each in lists):
        return False
    return all(set(row) >= _ROW_KEYS for row in value["attacks"])


def audit_of(audits: Sequence[Audit], method: str, seed: int, where: str) -> Audit:
    """The audit of one trial.

    Args:
        audits: of the run.
        method: of the trial.
        seed: of the trial.
        where: the file they come from.

    Raises:
        StoreError: if there is none.
    """
    found = next((each for each in audits if _trial(each) == (method, seed)), None)
    if found is None:
        what, mend = f'there is no audit of "{method}" with seed {seed}', "Audit it with `rivage audit`."
        raise StoreError(what, where=where, mend=mend)
    return found


def with_audit(audits: Sequence[Audit], audit: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """These audits and one more, which takes the place of an earlier one of its trial."""
    return [*(each for each in audits if _trial(each) != _trial(audit)), audit]


def _trial(audit: Mapping[str, Any]) -> tuple[str, int]:
    return audit["method"], audit["seed"]


def audit_hashes(audits: Sequence[Audit]) -> dict[str, str]:
    """Audited trial -> SHA-256 of what was found, without what it cost."""
    return {f"{audit['method']}, seed {audit['seed']}": _hash(audit) for audit in audits}


def _hash(audit: Audit) -> str:
    found = {**audit, "attacks": _without(audit["attacks"], "cost")}
    if "epsilon" in audit:
        found["epsilon"] = _without(audit["epsilon"], "seconds")
    return hashlib.sha256(dumps(found).encode()).hexdigest()


def _without(rows: Sequence[Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != key} for row in rows]
