"""An audit: every attack on its least view of a recorded training, graded against the truth.

Attacks run one after another, cheapest first, and each is written down before the next begins: an audit that is
stopped goes on where it was, and the same command again computes only what is missing. What an attack draws depends on
the seed of the audit, its kind, its question and its target alone. Attacks are corrected for one another (Holm) over
all that were ever made on the trial; `rivage.privacy.evidence` says how.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.store import read_json, write_json
from rivage.privacy.attack import ATTACKS
from rivage.privacy.questions import Attribute
from rivage.studies.audit_attack import Row, perform, question_of
from rivage.studies.audit_claims import asked_claims, claims, require_claim
from rivage.studies.audit_cost import Late
from rivage.studies.audit_kept import Kept, corrected
from rivage.studies.audit_opening import scene_of_log, scene_of_run
from rivage.studies.audit_scene import Scene
from rivage.studies.audit_settings import EPSILON, Auditing

if TYPE_CHECKING:
    from rivage.studies.settings import Study

__all__ = ["CHEAPEST_FIRST", "audit_log", "audit_run", "requested"]

CHEAPEST_FIRST = (
    "loss_threshold",
    "local_loss_threshold",
    "analytic_inversion",
    "idlg",
    "model_attributes",
    "local_model",
    "emulator",
    "fedmia",
    "rmia",
    "lira",
    "white_box",
    "zari21",
    "local_lira",
    "local_rmia",
    "property",
    "active_attributes",
    "gradient_attributes",
    "isolated_attributes",
    "dlg",
    "cosine_inversion",
)
"""Order in which attacks run; those of plug-ins come last."""

_OVERTIME = 2  # budgets after which an attack that still runs is cut off

_Plan = Sequence[tuple[str, Attribute | None]]


def audit_run(
    record: RunRecord,
    settings: Auditing,
    *,
    seed: int = 0,
    fresh: bool = False,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Audit one trial of a run, and write what is found into its folder as it comes.

    Args:
        record: of the run.
        settings: what is asked for.
        seed: of the audit.
        fresh: forget an earlier audit of the trial.
        observer: is told of every attack.

    Returns:
        What was asked for, as ``audit.json`` holds it: ``attacks``, ``epsilon`` and their ``certificates``. Beside
        them ``targets``; ``others``, what else is on file of the trial; ``not_run``, attacks that were not
        started or not ended, and why.

    Raises:
        ConfigError: for unknown attacks, methods, clients or columns.
        StoreError: if the run has no log to audit.
    """
    started, kinds = time.monotonic(), requested(settings.attacks)
    scene = scene_of_run(record, settings, seed)
    kept = Kept.of(scene, [] if fresh else record.audits)
    return _audited(scene, kinds, kept, record.write_audit, started, observer)


def audit_log(
    log: Path,
    study: Study,
    settings: Auditing,
    *,
    seed: int = 0,
    fresh: bool = False,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """Audit a log that lies in no run folder; what is found stands beside it, in ``<log>.audit.json``.

    Args:
        log: of messages.
        study: which tells model and data.
        settings: what is asked for.
        seed: of the audit.
        fresh: forget an earlier audit.
        observer: is told of every attack.

    Returns:
        As `audit_run`.
    """
    started, kinds = time.monotonic(), requested(settings.attacks)
    scene, path = scene_of_log(log, study, settings, seed), log.with_name(f"{log.name}.audit.json")
    kept = Kept.of(scene, [] if fresh or not path.exists() else read_json(path))
    return _audited(scene, kinds, kept, lambda whole: write_json(path, [whole]), started, observer)


def requested(kinds: Sequence[str]) -> list[str]:
    """Kinds of attacks in the order in which they run; all for none. ``epsilon`` tests a claim and is no attack.

    Raises:
        ConfigError: for a kind that is not registered.
    """
    wanted = [kind for kind in kinds or ATTACKS if kind != EPSILON]
    for kind in wanted:
        ATTACKS.get(kind, where="--attacks")
    place = {kind: number for number, kind in enumerate(CHEAPEST_FIRST)}
    return sorted(wanted, key=lambda kind: place.get(kind, len(place)))


def _audited(
    scene: Scene,
    kinds: Sequence[str],
    kept: Kept,
    write: Callable[[Mapping[str, Any]], None],
    started: float,
    observer: Observer | None,
) -> dict[str, Any]:
    """Run what is missing, and pick what was asked for."""
    try:
        require_claim(scene)
        plan = [pair for kind in kinds for pair in _questions(scene, kind)]
        not_run: list[dict[str, str]] = []
        for rows in _attacked(scene, plan, kept.rows, not_run, observer or Silent()):
            kept = kept.now(scene, rows=rows)
            write(kept.whole)
        kept = kept.now(scene, epsilon=claims(scene, kept.epsilon, not_run, time.monotonic() - started))
        write(kept.whole)
        return {**_asked(scene, plan, kept), "not_run": not_run}
    finally:
        scene.close()


def _attacked(
    scene: Scene, plan: _Plan, known: Sequence[Row], not_run: list[dict[str, str]], observer: Observer
) -> Iterator[Sequence[Row]]:
    """Run attacks that are not known yet: all rows, after each of them.

    Args:
        scene: what is audited.
        plan: attacks and what they are asked for.
        known: rows of earlier audits.
        not_run: gets the attacks that were not started or not ended, and why.
        observer: is told of every attack.
    """
    rows, started, budget = list(known), time.monotonic(), scene.settings.budget
    ends = started + _OVERTIME * budget if budget else math.inf
    observer.on_event({"event": "study", "trials": 1, "rounds": len(plan), "unit": "attacks", "alike": False})
    trial = {"method": f"audit of {scene.trial.name}", "seed": scene.trial.seed}
    observer.on_event({"event": "trial", **trial, "rounds": len(plan)})
    done = {_identity(row) for row in known}
    for number, (kind, attribute) in enumerate(plan, 1):
        question = question_of(kind, attribute)
        if (kind, question, scene.targets) in done:
            continue
        if budget and time.monotonic() - started > budget:
            not_run.append({"attack": kind, "question": question, "reason": f"the budget of {budget:g} s is spent"})
            continue
        try:
            rows.append(perform(scene, kind, attribute, ends=ends))
        except Late:
            late = f"it was cut off {_OVERTIME * budget:g} s after the audit began"
            not_run.append({"attack": kind, "question": question, "reason": late})
            continue
        rows = corrected(rows)
        yield rows
        observer.on_event({"event": "point", "done": number, "score": f"{kind}: {rows[-1]['verdict']}"})
    observer.on_event({"event": "trial_end", **trial})


def _identity(row: Mapping[str, Any]) -> tuple[str, str, tuple[int, ...]]:
    return row["attack"], row["question"], tuple(row["targets"])


def _asked(scene: Scene, plan: _Plan, kept: Kept) -> dict[str, Any]:
    """What was asked for of what is kept, with its certificates."""
    order = [(kind, question_of(kind, attribute), scene.targets) for kind, attribute in plan]
    rows = {_identity(row): row for row in kept.rows}
    attacks, epsilon = [rows[each] for each in order if each in rows], asked_claims(scene, kept.epsilon)
    whole, claimed = kept.whole, [(row["unit"], row["client"]) for row in epsilon]

    def wanted(fields: Mapping[str, Any]) -> bool:
        return _identity(fields) in order if "attack" in fields else (fields["unit"], fields["client"]) in claimed

    return {
        **whole,
        "targets": list(scene.targets),
        "attacks": attacks,
        "others": [
            *({"attack": each[0], "targets": list(each[2])} for each in rows if each not in order),
            *({"attack": EPSILON, "targets": list(scene.targets)} for row in kept.epsilon if row not in epsilon),
        ],
        "epsilon": epsilon,
        "certificates": [each for each in whole["certificates"] if wanted(each["fields"])],
    }


def _questions(scene: Scene, kind: str) -> Iterator[tuple[str, Attribute | None]]:
    """An attack with each attribute that it is asked for, properties with binary ones; else with none."""
    asks = ATTACKS.get(kind).asks
    if asks not in ("attribute", "property"):
        yield kind, None
        return
    fitting = [each for each in scene.attributes if asks == "attribute" or each.kind == "binary"]
    attributes: list[Attribute | None] = [*fitting] or [None]
    yield from ((kind, attribute) for attribute in attributes)
