"""What an audit found, in sentences that need no table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rivage.report.audit_numbers import numberless, reasons, whose
from rivage.studies.audit_attack import ALL_TARGETS
from rivage.studies.audit_scene import UNANSWERED

__all__ = ["answer", "notes"]

_WHO = {
    "eavesdropper": "An eavesdropper of one client's channel",
    "curious_server": "A server that reads all updates",
    "curious_client": "A client that keeps the models it is sent",
    "active_server": "A server that sends models of its own",
    "released_model": "Whoever holds the final model",
    "secagg_server": "A server that sees sums only",
}
_WHAT = {
    "membership": "which records were trained on",
    "model": "the model that a client's data alone would give",
    "record": "whole records",
}

_SHOWN = 2  # targets that a note names

Row = Mapping[str, Any]


def answer(rows: Sequence[Row], claims: Sequence[Row] = (), faults: Sequence[str] = ()) -> str:
    """What of the log is missing; who learns what; what could not be asked, and why; about what nothing was found.

    Args:
        rows: of attacks.
        claims: of epsilon, held against canaries.
        faults: of the log.
    """
    leaks = [row for row in rows if row["verdict"] in ("leaks", "recovered") and not row["oracle"]]
    found = {view: _best([row for row in leaks if row["view"] == view]) for view in dict.fromkeys(map(_view, leaks))}
    torn = [fault for fault in faults if not fault.endswith(UNANSWERED)]
    sentences = [_torn(torn)] if torn else []
    sentences += [f"{_WHO.get(view, view)} learns {'; '.join(map(_found, best))}." for view, best in found.items()]
    if refused := [row for row in rows if row["verdict"] == "refused"]:
        sentences.append(_refused(refused, len(rows)))
    learnt = set(map(_what, leaks))
    tested = dict.fromkeys(_what(row) for row in rows if row["verdict"] == "nothing found")
    if clean := [what for what in tested if what not in learnt]:
        where = "In what is left of it nothing" if torn else "Nothing"
        sentences.append(f"{where} was found about {', '.join(clean)}.")
    if weak := sum(row["verdict"] == "no power" for row in rows):
        sentences.append(f"{_counted(weak)} had too few records to tell.")
    sentences += map(_held, claims)
    return " ".join(sentences or [_rest(rows)])


def _rest(rows: Sequence[Row]) -> str:
    """Where no attack has learnt anything, been refused or been tested."""
    rough = ", ".join(dict.fromkeys(_what(row) for row in rows if row["verdict"] == "estimated"))
    return f"{rough[:1].upper()}{rough[1:]} was estimated, which no test can judge." if rough else "Nothing was tried."


def _torn(faults: Sequence[str]) -> str:
    more = f", and {len(faults) - 1} more {'fault' if len(faults) == 2 else 'faults'}" if len(faults) > 1 else ""
    return f"The log is not whole: {faults[0].rstrip('.')}{more}."


def _refused(rows: Sequence[Row], total: int) -> str:
    """How many could not be run, and the first sentence of the reason that most of them have."""
    whys = [reasons(row)[0] for row in rows]
    kinds = [numberless(why) for why in whys]
    most = max(kinds, key=kinds.count)
    why = whys[kinds.index(most)].removeprefix("message log: ").partition(". ")[0].rstrip(".")
    count = kinds.count(most)
    part = "" if count == len(rows) else f" {'one' if count == 1 else count} of them"
    who = f"None of {total} attacks could" if len(rows) == total > 1 else f"{_counted(len(rows))} could not"
    return f"{who} be run,{part} because {why}."


_HELD = {
    "VIOLATION": "they contradict the claim",
    "consistent": "they do not contradict it",
    "no power": "they could not have told a wrong claim from a right one",
}


def _held(claim: Row) -> str:
    """A claimed ε against canaries."""
    return (
        f"A repeat of the training with {claim['canaries']} canaries in it claims epsilon {claim['epsilon']:.3g} per "
        f"{claim['unit']} for itself; they prove at least {claim['bound']:.3g}: {_HELD[claim['verdict']]}."
    )


def _view(row: Row) -> str:
    return str(row["view"])


def _best(rows: Sequence[Row]) -> list[Row]:
    """The strongest finding on each question, in the order of the attacks."""
    strongest: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: -abs(row["value"] - row["baseline"])):
        strongest.setdefault(_what(row), row)
    return [row for row in rows if row in strongest.values()]


def _found(row: Row) -> str:
    if row["metric"] == "exact":
        records = int(row["evidence"]["records"])
        return f"{_what(row)}, {round(row['value'] * records)} of {records} ({row['attack']})"
    numbers = f"{row['value']:.3g} against {row['baseline']:.3g}"
    return f"{_what(row)} ({row['attack']}, {row['metric']} {numbers}{_unseen(row.get('facts') or {})})"


def _unseen(facts: Mapping[str, Any]) -> str:
    """Whether the same is found about records that nobody trained on."""
    if "held_out" not in facts:
        return ""
    return f"; {facts['held_out']:.3g} for records never trained on: {whose(facts)}"


def _what(row: Row) -> str:
    kind, _, name = str(row["question"]).partition(" ")
    if row["metric"] == "labels":
        return "the labels of records"
    if kind == "property":
        return f'at which clients "{name}" is common'
    return _WHAT.get(kind, f'the attribute "{name}"')


def _counted(count: int) -> str:
    return "One attack" if count == 1 else f"{count} attacks"


def notes(found: Mapping[str, Any]) -> list[str]:
    """What is missing of the log, of attacks, and attacks as a whole, equal reasons once; and what else is on file."""
    grouped: dict[tuple[str, tuple[str, ...]], tuple[str, list[str]]] = {}
    for row in found["attacks"]:
        for why, names in _targets_of(row).items():
            grouped.setdefault((numberless(why), tuple(names)), (why, []))[1].append(row["attack"])
    lines = [f"{_once(kinds)}: {_some(names)}{why}" for (_, names), (why, kinds) in grouped.items()]
    late: dict[str, list[str]] = {}
    for each in found["not_run"]:
        late.setdefault(each["reason"], []).append(each["attack"])
    lines += [f"{_once(kinds)}: not run, {why}" for why, kinds in late.items()]
    return [*(f"log: {fault}" for fault in found["faults"]), *lines, *_on_file(found)]


def _targets_of(row: Row) -> dict[str, list[str]]:
    """Reason -> the targets that it holds for; reasons that differ in numbers alone are one."""
    named: dict[str, list[str]] = {}
    for why, names in row["reasons"].items():
        first = next((each for each in named if numberless(each) == numberless(why)), why)
        named.setdefault(first, []).extend(names)
    return named


def _some(names: Sequence[str]) -> str:
    """``client 0 (north), client 2 (west) and 3 more: ``; nothing for all targets together."""
    if list(names) == [ALL_TARGETS]:
        return ""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}: "


def _on_file(found: Mapping[str, Any]) -> list[str]:
    same = [row["attack"] for row in found["others"] if row["targets"] == found["targets"]]
    other = len(found["others"]) - len(same)
    told = [f"{len(same)} more on file: {_once(same)}"] if same else []
    return [*told, *([f"{other} more on file about other clients; p counts them, too"] if other else [])]


def _once(kinds: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(kinds))
