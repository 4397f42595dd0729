"""An audit: every attack on its least view of a recorded training, graded against the truth.

Attacks run one after another, cheapest first, and each is written down before the next begins: an audit that is
stopped goes on where it was, and the same command again computes only what is missing. What an attack draws depends on
the seed of the audit, its kind and its question alone. Attacks are corrected for one another (Holm) over all that were
ever made on the trial; `rivage.privacy.evidence` says how.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rivage import __version__
from rivage.core.certificates import CHECKS
from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError, RivageError, StoreError
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.store import read_json, write_json
from rivage.federated.secagg import SecAgg
from rivage.privacy.attack import ATTACKS, Attack, Tools
from rivage.privacy.checks import leakage, numbers
from rivage.privacy.evidence import adjust, finding
from rivage.privacy.grading import Case, pooled
from rivage.privacy.questions import Attribute
from rivage.studies.audit_cost import Cost, Late, Watch
from rivage.studies.audit_epsilon import audited_epsilon
from rivage.studies.audit_guarantees import guarantee
from rivage.studies.audit_scene import Scene, scene_of_log, scene_of_run
from rivage.studies.audit_settings import EPSILON, Auditing

if TYPE_CHECKING:
    from rivage.studies.settings import Study

__all__ = ["CHEAPEST_FIRST", "audit_log", "audit_run", "audit_scene", "perform", "requested"]

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

Row = dict[str, Any]
Keep = Callable[[Sequence[Row]], None]


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
        What ``audit.json`` holds of the trial, and ``not_run``: which attacks were not started, and why.

    Raises:
        ConfigError: for unknown attacks, methods, clients or columns.
        StoreError: if the run has no log to audit.
    """
    kinds, started = requested(settings.attacks), time.monotonic()
    scene = scene_of_run(record, settings, seed)
    trial = scene.trial
    head = _head(scene)
    before = _Written.continued([] if fresh else record.audits, head)

    def keep(rows: Sequence[Row]) -> None:
        record.write_audit(before.now(rows, scene).whole)

    try:
        not_run = audit_scene(scene, kinds, before.rows, keep=keep, observer=observer)
        before = replace(before, epsilon=claims(scene, before.epsilon, not_run, time.monotonic() - started))
        keep(record.audit(trial.name, trial.seed)["attacks"])
    finally:
        scene.close()
    return {**record.audit(trial.name, trial.seed), "not_run": not_run}


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
    """
    kinds, started = requested(settings.attacks), time.monotonic()
    scene = scene_of_log(log, study, settings, seed)
    head, path = _head(scene), log.with_name(f"{log.name}.audit.json")
    before = written = _Written.continued([] if fresh or not path.exists() else read_json(path), head)

    def keep(rows: Sequence[Row]) -> None:
        nonlocal written
        written = before.now(rows, scene)
        write_json(path, [written.whole])

    try:
        not_run = audit_scene(scene, kinds, before.rows, keep=keep, observer=observer)
        before = replace(before, epsilon=claims(scene, before.epsilon, not_run, time.monotonic() - started))
        keep(written.rows)
    finally:
        scene.close()
    return {**written.whole, "not_run": not_run}


@dataclass(frozen=True)
class _Written:
    """An audit as it is kept, with a certificate for every attack that tests something."""

    head: Mapping[str, Any]
    rows: Sequence[Row]
    faults: Sequence[str] = ()
    epsilon: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def continued(cls, audits: Sequence[Any], head: Mapping[str, Any]) -> _Written:
        """What an earlier audit of the same log, targets and seed has left; nothing without."""
        for audit in audits:
            if isinstance(audit, dict) and all(dumps(audit.get(key)) == dumps(value) for key, value in head.items()):
                return cls._read(head, audit)
        return cls(head, ())

    @classmethod
    def _read(cls, head: Mapping[str, Any], audit: Mapping[str, Any]) -> _Written:
        """An audit that is whole.

        Raises:
            StoreError: for one that is not.
        """
        try:
            found = cls(head, audit["attacks"], tuple(audit.get("faults", ())), audit.get("epsilon", ()))
            if not all("cost" in row for row in found.rows):
                raise ValueError("an attack without its cost")
            found.whole  # noqa: B018  # computes every certificate
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, RivageError):
                raise
            what = f"what it says of {audit.get('method')} is no audit ({type(error).__name__}: {error})"
            raise StoreError(what, where="audit.json", mend="Audit again with --fresh.") from error
        return found

    def now(self, rows: Sequence[Row], scene: Scene) -> _Written:
        """The same with these rows; faults of the log are met when it is read, and stay."""
        return replace(self, rows=rows, faults=tuple(dict.fromkeys([*self.faults, *scene.faults])))

    def audit(self, method: str, seed: int) -> Mapping[str, Any]:
        return {**self.head, "attacks": self.rows, "epsilon": self.epsilon}

    @property
    def whole(self) -> dict[str, Any]:
        trial = {"method": self.head["method"], "seed": self.head["seed"]}
        names = [{name: row[name] for name in ("attack", "question")} for row in self.rows if row["p"] is not None]
        certificates = [leakage(self, **trial, **name).as_dict() for name in names]
        claims = [row["unit"] for row in self.epsilon if row.get("evidence") is not None]
        certificates += [CHECKS.get("epsilon_audited")(self, **trial, unit=unit).as_dict() for unit in claims]
        found = {"attacks": list(self.rows), "epsilon": list(self.epsilon), "certificates": certificates}
        return {**self.head, "faults": list(self.faults), **found}


def _head(scene: Scene) -> dict[str, Any]:
    """What all rows of an audit depend on, beside attack and question."""
    return {
        "format": "rivage.audit/1",
        "method": scene.trial.name,
        "seed": scene.trial.seed,
        "version": __version__,
        "audit_seed": scene.seed,
        "targets": list(scene.targets),
        "log": scene.fingerprint,
        "data": scene.trial.population.fingerprint,
    }


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


def audit_scene(
    scene: Scene,
    kinds: Sequence[str],
    known: Iterable[Row] = (),
    *,
    keep: Keep = lambda rows: None,
    observer: Observer | None = None,
) -> list[dict[str, str]]:
    """Run attacks that are not known yet, and hand all rows to ``keep`` after each.

    Returns:
        Which attacks were not started, and why.
    """
    observer = Silent() if observer is None else observer
    plan = [pair for kind in kinds for pair in _questions(scene, kind)]
    rows, started = list(known), time.monotonic()
    observer.on_event({"event": "study", "trials": 1, "rounds": len(plan), "unit": "attacks"})
    trial = {"method": f"audit of {scene.trial.name}", "seed": scene.trial.seed}
    observer.on_event({"event": "trial", **trial, "rounds": len(plan)})
    not_run, budget = [], scene.settings.budget
    ends = started + _OVERTIME * budget if budget else math.inf
    for done, (kind, attribute) in enumerate(plan, 1):
        question = _question(kind, attribute)
        if any((row["attack"], row["question"]) == (kind, question) for row in rows):
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
        keep(rows)
        observer.on_event({"event": "point", "done": done, "score": f"{kind}: {rows[-1]['verdict']}"})
    keep(rows)
    observer.on_event({"event": "trial_end", **trial})
    return not_run


def claims(
    scene: Scene, known: Sequence[Mapping[str, Any]], not_run: list[dict[str, str]], elapsed: float
) -> Sequence[Mapping[str, Any]]:
    """The claimed ε held against canaries, where one is claimed and this is asked for.

    Args:
        scene: what is audited.
        known: rows of an earlier audit, which are kept.
        not_run: gets the reason why nothing was tested.
        elapsed: seconds since the audit began.

    Raises:
        ConfigError: where this is asked for by name, and nothing is claimed.
    """
    asked = EPSILON in scene.settings.attacks
    if asked and scene.trial.promise is None:
        raise ConfigError(
            f'"{scene.trial.name}" claims no epsilon, so there is nothing to test',
            where="--attacks epsilon",
            mend='Train with noise, such as collector.kind = "private_mean" or work.noise.',
        )
    if known or scene.trial.promise is None or (scene.settings.attacks and not asked):
        return known
    budget = scene.settings.budget
    if budget and elapsed > budget:
        why = f"the budget of {budget:g} s is spent"
    elif budget and isinstance(scene.trial.collector, SecAgg):
        why = "a training under secure aggregation with canaries takes minutes, and there is a budget"
    else:
        try:
            row = audited_epsilon(scene.trial, scene.targets[0], Streams(scene.seed).child(EPSILON))
            return () if row is None else (row,)
        except Exception as error:  # whatever goes wrong stops nothing else
            why = reason(error)
    not_run.append({"attack": EPSILON, "question": "claim", "reason": why})
    return ()


def _questions(scene: Scene, kind: str) -> Iterator[tuple[str, Attribute | None]]:
    """An attack with each attribute that it is asked for, properties with binary ones; else with none."""
    asks = ATTACKS.get(kind).asks
    if asks not in ("attribute", "property"):
        yield kind, None
        return
    fitting = [each for each in scene.attributes if asks == "attribute" or each.kind == "binary"]
    attributes: list[Attribute | None] = [*fitting] or [None]
    yield from ((kind, attribute) for attribute in attributes)


def _question(kind: str, attribute: Attribute | None) -> str:
    asks = str(ATTACKS.get(kind).asks)
    return asks if attribute is None else f"{asks} {attribute.name}"


def corrected(rows: Sequence[Row]) -> list[Row]:
    """The rows with p-values corrected for one another, and verdicts after them."""
    held = [row for row in rows if row["evidence"] is not None]
    found = [finding(row["evidence"]) for row in held]
    adjusted = adjust([each.p for each in found])
    tests = sum(p is not None for p in adjusted)
    told = {
        id(row): numbers(each, p, tests, status=row["status"])
        for row, each, p in zip(held, found, adjusted, strict=True)
    }
    return [row | told.get(id(row), {}) for row in rows]


def perform(
    scene: Scene,
    kind: str,
    attribute: Attribute | None = None,
    attack: Attack | None = None,
    *,
    ends: float = math.inf,
) -> Row:
    """One attack on all targets: its row, not yet corrected for others.

    Whatever goes wrong with it is the row's reason, and stops no other attack.

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
    question, cost = _question(kind, attribute), Cost()
    pieces: list[Mapping[str, Any]] = []
    facts: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for case in _asked(scene, attack, attribute, failures):
        name = "all targets" if case.client is None else f"client {case.client}"
        tools = Tools(scene.trial.task, _streams(scene, kind, question, case), Watch(ends=ends), scene.shared)
        try:
            (view,) = scene.views(attack, [case.client])
            with cost:
                answer = attack.run(view, case.question, tools)
            piece = case.grade(answer)
            told = {**answer.facts, **guarantee(attack, view, case, piece, tools)}
            pieces.append(piece)
            facts |= {name: told} if told else {}
        except Exception as error:
            failures[name] = reason(error)
        cost.evaluations += tools.meter.evaluations
    return _row(attack, kind, question, scene, pieces, facts, failures) | {"cost": asdict(cost.spent)}


def _asked(scene: Scene, attack: Attack, attribute: Attribute | None, failures: dict[str, str]) -> list[Case]:
    """The questions that can be asked; why others cannot goes to ``failures``."""
    if attack.asks in ("attribute", "property") and attribute is None:
        values = "two values" if attack.asks == "property" else "two to six values"
        failures["all targets"] = f"the data have no column of {values} with a name"
        return []
    found = dict(scene.cases(attack, attribute))
    failures |= {name: reason(case) for name, case in found.items() if isinstance(case, RivageError)}
    return [case for case in found.values() if not isinstance(case, RivageError)]


def _streams(scene: Scene, kind: str, question: str, case: Case) -> Streams:
    # A root of their own: from that of the audit an attack could draw the question's answer.
    root = Streams(Streams(scene.seed).seed("attacks"))
    return root.child("attack", kind, question, -1 if case.client is None else case.client)


def reason(error: Exception) -> str:
    """Why an attack gives nothing, in a sentence."""
    return str(error) if isinstance(error, RivageError) else f"it failed ({type(error).__name__}: {error})"


def _row(
    attack: Attack,
    kind: str,
    question: str,
    scene: Scene,
    pieces: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    failures: Mapping[str, str],
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
        "reason": _reasons(failures),
        "facts": {**more, "answers": dict(facts)},
        "evidence": evidence,
    }


_NUMBERS = ("metric", "value", "baseline", "ci", "p", "p_adjusted", "verdict")


def _reasons(failures: Mapping[str, str]) -> str:
    """Equal reasons once."""
    named: dict[str, list[str]] = {}
    for name, why in failures.items():
        named.setdefault(why, []).append(name)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in named.items())
