"""One attack of an audit: asked about every target, graded against the truth, and written down as a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.data.population import called
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.checks import numbers
from rivage.privacy.evidence import finding
from rivage.privacy.grading import Case, pooled
from rivage.privacy.questions import Attribute
from rivage.studies.audit_cost import Cost, Watch
from rivage.studies.audit_guarantees import guarantee
from rivage.studies.audit_scene import Scene

__all__ = ["ALL_TARGETS", "Row", "perform", "question_of", "reason"]

ALL_TARGETS = "all targets"

Row = dict[str, Any]

_NUMBERS = ("metric", "value", "baseline", "ci", "p", "p_adjusted", "verdict")


def perform(
    scene: Scene, kind: str, attribute: Attribute | None = None, attack: Attack | None = None, *, ends: float = math.inf
) -> Row:
    """One attack on all targets: its row, not yet corrected for others.

    Whatever goes wrong with it is among the row's reasons, and stops no other attack.

    Args:
        scene: what is audited.
        kind: of the attack.
        attribute: that it is asked for.
        attack: with its settings; None for the defaults.
        ends: when an attack that still runs is cut off, by the monotonic clock.

    Raises:
        Late: if it was cut off.
    """
    attack = ATTACKS.get(kind)() if attack is None else attack
    question, cost = question_of(kind, attribute), Cost()
    pieces: list[Mapping[str, Any]] = []
    facts: dict[str, Any] = {}
    failures: dict[str, list[str]] = {}
    for case in _asked(scene, attack, attribute, failures):
        tools = Tools(scene.trial.task, _streams(scene, kind, question, case), Watch(ends=ends), scene.shared)
        try:
            view = scene.views.of(attack.view, case.client)
            with cost:
                answer = attack.run(view, case.question, tools)
                piece = case.grade(answer)
                told = {**answer.facts, **guarantee(attack, view, case, piece, tools)}
            pieces.append(piece)
            facts |= {ALL_TARGETS if case.client is None else f"client {case.client}": told} if told else {}
        except Exception as error:
            failures.setdefault(reason(error), []).append(_name(scene, case.client))
        cost.evaluations += tools.meter.evaluations
    return _row(attack, kind, question, scene, pieces, facts, failures) | {"cost": asdict(cost.spent)}


def question_of(kind: str, attribute: Attribute | None) -> str:
    """What an attack is asked, as its row calls it."""
    asks = str(ATTACKS.get(kind).asks)
    return asks if attribute is None else f"{asks} {attribute.name}"


def reason(error: Exception) -> str:
    """Why an attack gives nothing, in a sentence."""
    return str(error) if isinstance(error, RivageError) else f"it failed ({type(error).__name__}: {error})"


def _name(scene: Scene, client: int | None) -> str:
    return ALL_TARGETS if client is None else called(scene.trial.population, client)


def _asked(scene: Scene, attack: Attack, attribute: Attribute | None, failures: dict[str, list[str]]) -> list[Case]:
    """The questions that can be asked; why others cannot goes to ``failures``."""
    if attack.asks in ("attribute", "property") and attribute is None:
        values = "two values" if attack.asks == "property" else "two to six values"
        failures[f"the data have no column of {values} with a name"] = [ALL_TARGETS]
        return []
    cases: list[Case] = []
    for client, case in scene.cases(attack, attribute):
        if isinstance(case, RivageError):
            failures.setdefault(reason(case), []).append(_name(scene, client))
        else:
            cases.append(case)
    return cases


def _streams(scene: Scene, kind: str, question: str, case: Case) -> Streams:
    # A root of their own: from that of the audit an attack could draw the question's answer.
    root = Streams(Streams(scene.seed).seed("attacks"))
    return root.child("attack", kind, question, -1 if case.client is None else case.client)


def _row(
    attack: Attack,
    kind: str,
    question: str,
    scene: Scene,
    pieces: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    failures: Mapping[str, Sequence[str]],
) -> Row:
    evidence, more = pooled(attack.asks, pieces) if pieces else (None, {})
    told = numbers(finding(evidence), None, 0) if evidence is not None else dict.fromkeys(_NUMBERS)
    states = {str(piece["status"]) for piece in pieces if "status" in piece}
    return {
        "attack": kind,
        "question": question,
        "view": attack.view.name,  # type: ignore[attr-defined]  # every view has one
        "oracle": attack.oracle,
        "targets": list(scene.targets),
        **told,
        "verdict": "refused" if evidence is None else told["verdict"],
        "status": "" if not states else "recovered" if states == {"recovered"} else "estimated",
        "reasons": dict(failures),
        "facts": {**more, "answers": dict(facts)},
        "evidence": evidence,
    }
