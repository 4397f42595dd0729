"""The verb ``verify``."""

from __future__ import annotations

import shlex
from inspect import signature
from math import isclose, isnan
from pathlib import Path
from typing import Any

from rivage.cli.folders import open_run
from rivage.cli.output import DEFAULTS, VIOLATION, Options, number, show, table
from rivage.core.certificates import CHECKS, Certificate
from rivage.core.errors import StoreError
from rivage.core.integrity import changes
from rivage.core.records import RunRecord

__all__ = ["verify"]

_AUDITED = {
    "leakage": ("attacks", ("attack", "question", "targets")),
    "epsilon_audited": ("epsilon", ("unit", "client")),
}
"""Check -> rows of an audit, and what names one of them."""


def _word(certificate: Certificate, record: RunRecord) -> str:
    """A verdict; of what an audit found in the words of the audit, which tell nothing found from no power."""
    if certificate.check not in _AUDITED or certificate.verdict == "fails":
        return certificate.verdict.replace("_", " ")
    rows, names = _AUDITED[certificate.check]
    fields = certificate.fields
    audit = record.audit(fields["method"], fields["seed"])
    return next(str(row["verdict"]) for row in audit[rows] if all(row[name] == fields[name] for name in names))


def verify(run: Path, /, *, options: Options = DEFAULTS) -> int:
    """Compute every certificate of a run again.

    Args:
        run: folder of a run.
        options: of every verb.
    """
    record = open_run(run)
    stored = (*record.certificates, *record.audit_certificates)
    if not stored:
        raise StoreError(
            "holds no certificates",
            where=str(run),
            mend="It is the search of --tune: verify the run that lies beside it."
            if run.resolve().name.rpartition("-")[0].endswith("-tuning")
            else f"Finish the run with: {_again(run)}",
        )
    again = [_recompute(certificate, record) for certificate in stored]
    agree = [_agree(one, two) for one, two in zip(stored, again, strict=True)]
    sound = [same and new.verdict != "fails" for same, new in zip(agree, again, strict=True)]
    changed = list(changes(record))
    show(
        options,
        {
            "run": str(run),
            "hash": record.hash,
            "changes": changed,
            "certificates": [
                {**new.as_dict(), "stored": old.as_dict(), "agrees": same}
                for old, new, same in zip(stored, again, agree, strict=True)
            ],
        },
        f"{run}: {'the record was CHANGED; ' if changed else ''}{sum(sound)} of {len(stored)} certificates verified",
        table(
            ("", "verdict", "claim", "stored", "recomputed", "reference"),
            [
                (
                    "ok" if good else "differs" if not same else "fails",
                    _word(new, record),
                    new.claim,
                    number(old.measured),
                    number(new.measured),
                    number(new.reference),
                )
                for old, new, same, good in zip(stored, again, agree, sound, strict=True)
            ],
        ),
        then="\n".join([f"record hash {record.hash}", *(f"changed: {change}" for change in changed)]),
    )
    return 0 if all(sound) and not changed else VIOLATION


def _again(run: Path) -> str:
    """The command that takes up this very run: settings name the folder of a run, ``--out`` what holds it."""
    run = run if run.name not in ("", "..") else run.resolve()
    return shlex.join(["rivage", open_run(run).verb, str(run / "settings.toml"), "--out", str(run.parent)])


def _recompute(certificate: Certificate, record: RunRecord) -> Certificate:
    check = CHECKS.get(certificate.check, where=str(record.folder / "certificates.json"))
    try:
        signature(check).bind(record, **certificate.fields)
    except TypeError as error:
        raise StoreError(
            f'certificate "{certificate.check}" cannot be checked again ({error})',
            where=str(record.folder),
            mend="Another version of rivage wrote it: verify with that one, or run or audit again.",
        ) from error
    result: Certificate = check(record, **certificate.fields)
    return result


def _agree(one: Certificate, two: Certificate) -> bool:
    """Equal in what they say; numbers up to rounding, since another machine may add in another order."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, float) and isinstance(b, (int, float)):
            return isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) or (isnan(a) and isnan(b))
        return bool(a == b)

    mine, other = one.as_dict(), two.as_dict()
    return all(same(mine[key], other[key]) for key in mine if key not in ("method", "fields"))
