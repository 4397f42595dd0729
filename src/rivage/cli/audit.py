"""The verb ``audit``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage.cli.folders import named_settings, open_run
from rivage.cli.output import DEFAULTS, VIOLATION, Options, logs, number, show, stderr, table
from rivage.core.errors import ConfigError, RivageError, StoreError, require_extra

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.studies.audit_settings import Auditing

__all__ = ["audit", "audit_trained"]


def audit(
    run: Path,
    /,
    *,
    attacks: str = "all",
    method: str = "",
    clients: str = "",
    attribute: str = "",
    targets: int = 5,
    budget: float = 0.0,
    study: Path | None = None,
    fresh: bool = False,
    strict: bool = False,
    options: Options = DEFAULTS,
) -> int:
    """Say what the messages of a training tell those who read them.

    Args:
        run: Folder of a run; or, with --study, a message log or a folder of updates of another system.
        attacks: Kinds of attacks joined by commas, epsilon among them to test what is claimed; or all, epsilon too.
        method: Whose messages; left out, the first method that has any.
        clients: Clients to attack, by number or name, joined by commas; left out, those with most records and messages.
        attribute: Sensitive column of the tables; left out, every column of two to six values, the first three.
        targets: How many clients to attack, at most.
        budget: Seconds after which no further attack is started; 0 for no limit.
        study: TOML file of the study that a log or updates come from: it tells model and data.
        fresh: Forget an earlier audit.
        strict: Exit with 3 when an attack finds something, too.
        options: of every verb.
    """
    from rivage.studies.audit_settings import Auditing

    if not attacks.strip(" ,"):
        raise ConfigError("no attack is named", where="--attacks", mend="Give names joined by commas, or all.")
    kinds = tuple(filter(None, map(str.strip, attacks.split(","))))
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise ConfigError(f"seed is {options.seed}", where="--seed", mend="Give a whole number from 0 to 2**64 - 1.")
    settings = Auditing(
        attacks=() if "all" in kinds else kinds,
        method=method,
        clients=_clients(clients),
        targets=targets,
        attribute=attribute,
        budget=budget,
    )
    found = _found(run, settings, study, fresh=fresh, options=options)
    from rivage.studies.audit_answer import notes  # imports torch, which is there by now

    told = {key: list(map(_told, found[key])) for key in ("attacks", "epsilon")}
    result = {"run": str(run), **found, **told, "others": len(found["others"])}
    show(options, result, found["answer"], _table(found["attacks"]), then="\n".join(notes(found)))
    learnt = [row for row in found["attacks"] if row["verdict"] in ("leaks", "recovered") and not row["oracle"]]
    leaks = strict and bool(learnt)
    return VIOLATION if leaks or any(each["verdict"] == "fails" for each in found["certificates"]) else 0


def _found(run: Path, settings: Auditing, study: Path | None, *, fresh: bool, options: Options) -> dict[str, Any]:
    """What is found, in numbers and in words; progress on standard error."""
    require_extra("torch", extra="train", purpose="Auditing")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # where the model of a study may be, as for `train`
    from rivage.cli.progress import progress
    from rivage.studies.audit_answer import answer
    from rivage.studies.audit_imports import imported_log
    from rivage.studies.auditing import audit_log, audit_run
    from rivage.studies.settings import load_study

    _require_study(run, study)
    console, seed, theirs = stderr(), options.seed or 0, None if study is None else load_study(study)
    with logs(options, console), progress(console, quiet=options.quiet) as observer:
        if theirs is not None:
            with imported_log(run) if run.is_dir() else nullcontext(run) as log, named_settings(study):
                found = audit_log(log, theirs, settings, seed=seed, fresh=fresh, observer=observer)
        else:
            found = audit_run(open_run(run), settings, seed=seed, fresh=fresh, observer=observer)
    return {**found, "answer": answer(found["attacks"], found["epsilon"], found["faults"])}


def _require_study(run: Path, study: Path | None) -> None:
    """Logs and updates need a study beside them, runs know theirs.

    Raises:
        ConfigError: for the other one.
        StoreError: for a folder that is none of them.
    """
    from rivage.studies.audit_imports import is_import

    known, updates = (run / "settings.toml").is_file(), is_import(run)
    if run.is_dir() and not (known or updates):
        raise StoreError(
            "is neither the folder of a run, which has a settings.toml, nor one of updates, which has a header.toml",
            where=str(run),
            mend="Give a folder that `rivage run` or `train` has made, or updates with their header.",
        )
    if run.exists() and (not known) != (study is not None):
        kind = "the folder of a run" if known else "a folder of updates" if updates else "a file"
        raise ConfigError(
            f"{run} is {kind}",
            where="--study",
            mend="Give --study with a message log or with updates, and only with these: a run knows its study.",
        )


def audit_trained(record: RunRecord, settings: Auditing | None, options: Options) -> dict[str, Any] | None:
    """Audit a run that has just been trained, and keep the answer in its summary; None where it cannot be audited."""
    from rivage.studies.audit_settings import Auditing

    settings = settings or Auditing()
    if not settings.budget:
        return None
    try:
        found = _found(record.folder, settings, None, fresh=False, options=replace(options, seed=None))
    except RivageError as error:
        if not options.quiet:
            stderr().print(f"not audited: {error}", markup=False, highlight=False, soft_wrap=True)
        return None
    told = {"method": found["method"], "answer": found["answer"], "attacks": list(map(_told, found["attacks"]))}
    record.write_summary({**record.summary, "audit": {**told, "not_run": found["not_run"]}})
    return found


def _table(rows: Sequence[Mapping[str, Any]]) -> list[Sequence[str]]:
    """One row per attack; view and interval are in the JSON object."""
    return table(("attack", "question", "metric", "value", "base", "p", "verdict", "s"), map(_cells, rows))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    seconds = row["cost"]["seconds"]
    return (
        row["attack"],
        row["question"],
        row["metric"] or "–",
        number(row["value"], 3),
        number(row["baseline"], 3),
        _chance(row["p_adjusted"]),
        row["verdict"],
        f"{seconds:.1f}" if seconds < 10 else f"{seconds:.0f}",
    )


def _chance(p: float | None) -> str:
    """A p-value for a narrow column."""
    return "<0.0001" if p is not None and p < 1e-4 else "–" if p is None else f"{p:.2g}"


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without its evidence, which is long."""
    return {key: value for key, value in row.items() if key not in ("evidence", "status")}


def _clients(text: str) -> tuple[int | str, ...]:
    words = filter(None, map(str.strip, text.split(",")))
    return tuple(int(word) if word.isdecimal() else word for word in words)
