"""Which method for these sites: a small tuned comparison on their own data, and an answer that says how sure it is.

Local, FedAvg, FedAvg+, kNN-Per, Ditto and FedEM get equally many settings, chosen on validation records
(`rivage.studies.tuning`); the best of each are played with several seeds, which divide the records anew, beside the
guarded model that chooses among them for every client. `rivage.studies.advice_checks` has the rule and its errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from rivage.core.certificates import CHECKS
from rivage.core.encoding import dumps
from rivage.core.errors import ConfigError
from rivage.core.observers import Observer, Silent
from rivage.core.records import RunRecord
from rivage.core.store import read_json, write_json, write_text
from rivage.core.toml import format_toml
from rivage.studies.advice_checks import CONFIDENCE, Decision, Difference, decide, values_of
from rivage.studies.advice_data import COMPARED, GUARDED, LOCAL, question, require_enough
from rivage.studies.advice_plan import Plan, choose_plan, measure
from rivage.studies.pipeline import identity
from rivage.studies.settings import Study, dump_study, parse_study
from rivage.studies.stage import Stage
from rivage.studies.tuning import run_tuned
from rivage.studies.tuning_settings import Tuning

__all__ = ["Advice", "advise", "compare", "require_writable"]

_HEAD = "# Written by rivage advise"
_RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Advice:
    """What the comparison says.

    Args:
        record: of the run.
        decision: the recommendation and what it rests on.
        compared: the methods, Local first.
        answer: in sentences.
        study: the file that was written.
    """

    record: RunRecord
    decision: Decision
    compared: tuple[str, ...]
    answer: str
    study: Path

    def as_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        summary = self.record.summary
        told = self.decision.verdict != "cannot_tell"
        return {
            "recommendation": self.decision.method,
            "verdict": self.decision.verdict,
            "confidence": CONFIDENCE if told else None,
            "answer": self.answer,
            "methods": {name: summary["methods"][name] for name in self.record.methods},
            "certificates": summary["certificates"],
            "study": str(self.study),
            "run": str(self.record.folder),
        }


def require_writable(study: Path) -> None:
    """Refuse to write over a file that is not ours.

    Raises:
        ConfigError: naming it.
    """
    if study.exists() and not study.read_text("utf-8", errors="replace").startswith(_HEAD):
        mend = "Give another file with --study, or move this one away."
        raise ConfigError(f'"{study}" is there, and rivage advise has not written it', where="--study", mend=mend)


def advise(
    data: str,
    *,
    target: str | None = None,
    minutes: float = 5.0,
    rounds: int | None = None,
    study: Path = Path("advice.toml"),
    overrides: Sequence[str] = (),
    seed: int | None = None,
    out: Path | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
) -> Advice:
    """Compare on the user's data, recommend, and write the study to run next.

    Args:
        data: a folder of tables, an ``.npz`` file, the TOML file of a study, or a kind of data.
        target: column to predict, for tables.
        minutes: what may be used, > 0, by estimate.
        rounds: of every trial, >= 1, whatever time that takes: the comparison then is the same on every machine.
        study: file to write.
        overrides: ``KEY=VALUE`` for single settings.
        seed: the first one; 0 when left out.
        out: folder that holds runs, ``runs`` by default.
        fresh: forget what an earlier start of the same comparison did.
        observer: is told what happens.

    Raises:
        ConfigError: for settings that do not fit, a file that is not ours, or too little time.
        DataError: for data that cannot be used, or are too few.
    """
    observer = Silent() if observer is None else observer
    if not minutes > 0:
        raise ConfigError(f"minutes is {minutes:g}", where="--minutes", mend="Give a number greater than 0.")
    if rounds is not None and rounds < 1:
        raise ConfigError(f"rounds is {rounds}", where="--rounds", mend="Give a whole number of at least 1.")
    if any(override.partition("=")[0].strip() == "run.rounds" for override in overrides):
        raise ConfigError("a plan says how many rounds are played", where="--set run.rounds", mend="Use --rounds.")
    require_writable(study)
    asked, notices = question(data, target, overrides)
    for text in notices:
        observer.on_event(_notice(text))
    first = asked.run.seeds[0] if seed is None else seed
    asked = replace(asked, tuning=asked.tuning or Tuning(learning_rates=_RATES))
    asked, plan = _planned(asked, first, minutes, rounds, out or Path("runs"), observer, fresh=fresh)
    return compare(asked, plan, first, study=study, out=out, fresh=fresh, observer=observer)


def _notice(text: str) -> dict[str, str]:
    return {"event": "notice", "text": text}


def _planned(
    asked: Study, seed: int, minutes: float, rounds: int | None, out: Path, observer: Observer, *, fresh: bool
) -> tuple[Study, Plan]:
    """The methods that these data allow, and what there is time for; decided once, or resuming could not be."""
    stage = Stage.build(asked, seed)
    require_enough(stage)
    assert asked.tuning is not None, "set by the caller"
    limit = [minutes] if rounds is None else ["rounds", rounds]
    question_ = dumps([identity(asked), stage.population.fingerprint, *limit, seed])
    path = out / f"{asked.name}-advice-{hashlib.sha256(question_.encode()).hexdigest()[:8]}.json"
    if fresh or not path.exists():
        costs, reasons = measure(stage, timed=rounds is None)
        able = _able(asked, reasons)
        plan, need = choose_plan(able, costs, asked.tuning, minutes) if rounds is None else (Plan.of(rounds), None)
        write_json(path, {"plan": asdict(plan), "without": reasons, "seconds": need})
    decided = read_json(path)
    plan, reasons, need = Plan(**decided["plan"]), decided["without"], decided["seconds"]
    for name, reason in reasons.items():
        observer.on_event(_notice(f"without {name}: {reason}"))
    budget = plan.tuning(asked.tuning).budget
    text = f"{budget} settings of each method, {plan.rounds} rounds, {plan.seeds} seeds"
    observer.on_event(_notice(text + ("" if need is None else _duration(need, minutes))))
    return _able(asked, reasons), plan


def _duration(seconds: float, minutes: float) -> str:
    told = f": about {max(seconds / 60, 0.1):.1f} minutes"
    return told if seconds <= 60 * minutes else f"{told}, which is the least; with fewer nothing could be said"


def _able(asked: Study, reasons: Mapping[str, str]) -> Study:
    """The study without the methods that cannot be played.

    Raises:
        ConfigError: when there is nothing left to compare with Local.
    """
    if LOCAL in reasons or not set(COMPARED[1:]) - set(reasons):
        name = LOCAL if LOCAL in reasons else COMPARED[1]
        raise ConfigError(f"{name} cannot be trained on these data ({reasons[name]})", mend="Mend that first.")
    return replace(asked, methods=tuple(method for method in asked.methods if method.name not in reasons))


def compare(
    asked: Study,
    plan: Plan,
    seed: int = 0,
    *,
    study: Path,
    out: Path | None = None,
    fresh: bool = False,
    observer: Observer | None = None,
) -> Advice:
    """Play a plan and answer; what was finished before is not played again.

    Args:
        asked: the methods to be compared, Local and a guarded one among them.
        plan: how much of it.
        seed: the first one.
        study: file to write.
        out: folder that holds runs.
        fresh: forget what was played before.
        observer: is told what happens.
    """
    tuning = plan.tuning(asked.tuning or Tuning(learning_rates=_RATES))
    played = replace(
        asked,
        name=f"{asked.name}-advice",
        tuning=tuning,
        run=replace(asked.run, rounds=plan.rounds, seeds=tuple(range(seed, seed + plan.seeds)), log="none"),
        evaluation=replace(asked.evaluation, every=plan.rounds),
    )
    record = run_tuned(played, out=out, fresh=fresh, observer=observer)
    methods = tuple(name for name in COMPARED if name in record.methods)
    decision = decide(values_of(record, methods), GUARDED)
    _certify(record, decision, methods)
    answer = _answer(record, decision, methods)
    write_text(study, _file(asked, record, decision, answer, study))
    return Advice(record, decision, methods, answer, study)


def _certify(record: RunRecord, decision: Decision, methods: Sequence[str]) -> None:
    """Put the certificates of the advice in front of those of the run."""
    pairs = [decision.against_local, *([] if decision.runner_up is None else [decision.runner_up])]
    asked: list[tuple[str, dict[str, Any]]] = [
        ("advised", {"method": pair.method, "reference": pair.reference, "methods": list(methods)})
        for pair in {(pair.method, pair.reference): pair for pair in pairs}.values()
    ]
    if decision.verdict == "local":
        asked = [("nothing_beats", {"local": LOCAL, "methods": list(methods)}), *asked[:1]]
    made = [CHECKS.get(name)(record, **fields) for name, fields in asked]
    kept = [each for each in record.certificates if each.check not in ("advised", "nothing_beats")]
    record.write_certificates([*made, *kept])
    record.write_summary({**record.summary, "certificates": [each.as_dict() for each in (*made, *kept)]})


def _answer(record: RunRecord, decision: Decision, methods: Sequence[str]) -> str:
    """The recommendation in sentences."""
    table: Mapping[str, Any] = record.summary["methods"]
    metric, lead = table[LOCAL]["metric"], decision.against_local
    span = f"{lead.mean:+.3g} ({CONFIDENCE:.0%} interval {lead.low:+.3g} to {lead.high:+.3g}; {metric})"
    if decision.verdict == "local":
        limit = (
            f"no method serves the average client better by {decision.most:.3g} or more"
            if decision.most > 0
            else f"every method serves the average client worse, by {-decision.most:.3g} at least"
        )
        return (
            f"Nothing beats {LOCAL} on these data: with {CONFIDENCE:.0%} confidence {limit} ({metric}). Let every "
            "client train alone; that sends nothing."
        )
    if decision.verdict == "cannot_tell":
        known = f"{lead.method} against {LOCAL}: {span}."
        if lead.better and decision.runner_up is not None:
            known = f"{known} It may be no better than {decision.runner_up.reference}, which is simpler."
        return (
            f"These data cannot tell which method is best. {known} Play {decision.method}: it keeps, for every client, "
            f"what its own validation records speak for. {_bytes(record, decision.method)}"
        )
    second = "" if decision.runner_up is None else _against(decision.runner_up)
    return (
        f"{decision.method} serves the average client better than {LOCAL}: {span}. {second}"
        f"{_bytes(record, decision.method)}"
    )


def _against(rival: Difference) -> str:
    """The lead over the next best in the mean, and why it is no more than that."""
    if rival.reference == LOCAL:
        return ""
    if rival.equal:
        return f"{rival.reference}, which is no simpler, gives every client the same. "
    told = f"Against the next best, {rival.reference}: {rival.mean:+.3g} ({rival.low:+.3g} to {rival.high:+.3g})"
    if rival.better:
        return f"{told}. "
    if rival.high < 0 and rival.always:
        return f"{told}; too little for a more complicated method. "
    if COMPARED.index(rival.reference) < COMPARED.index(rival.method):
        return f"{told}; these two cannot be told apart, but that one is not surely better than {LOCAL}. "
    return f"{told}; these two cannot be told apart, and the simpler one is taken. "


def _bytes(record: RunRecord, method: str) -> str:
    values = record.summary["methods"][method]
    up, down, rounds = values["bytes_up"] / 1e6, values["bytes_down"] / 1e6, record.settings["run"]["rounds"]
    return f"It sends {up:.3g} MB up and {down:.3g} MB down in {rounds} rounds, all clients together."


def _file(asked: Study, record: RunRecord, decision: Decision, answer: str, study: Path) -> str:
    """The study to run next: the recommendation with its references, settings as chosen."""
    tuned = parse_study(format_toml(record.settings), str(record.folder / "settings.toml"))
    wanted = {LOCAL, "fedavg+", GUARDED, decision.method, decision.best}
    if decision.verdict == "cannot_tell":
        wanted = {method.name for method in tuned.methods}
    next_one = replace(
        asked,
        methods=tuple(method for method in tuned.methods if method.name in wanted),
        run=replace(asked.run, rounds=tuned.run.rounds, seeds=tuned.run.seeds),
        evaluation=replace(asked.evaluation, every=max(tuned.run.rounds // 10, 1)),
        tuning=tuned.tuning,
    )
    return f"{_comment(study, answer)}\n\n{format_toml(dump_study(next_one))}"


def _comment(study: Path, answer: str) -> str:
    words = f"{_HEAD}. Run it with: rivage run {study}"
    return "\n".join([words, "#", *(f"# {line}" for line in wrap(answer, 110))])
