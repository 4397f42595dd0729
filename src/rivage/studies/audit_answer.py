"""What an audit found, in sentences that need no table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["answer"]

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

Row = Mapping[str, Any]


def answer(rows: Sequence[Row], claims: Sequence[Row] = ()) -> str:
    """Who learns what; about what nothing was found; what could not be asked; whether what is claimed stands."""
    leaks = [row for row in rows if row["verdict"] in ("leaks", "recovered") and not row["oracle"]]
    found = {view: _best([row for row in leaks if row["view"] == view]) for view in dict.fromkeys(map(_view, leaks))}
    sentences = [f"{_WHO.get(view, view)} learns {'; '.join(map(_found, best))}." for view, best in found.items()]
    learnt = set(map(_what, leaks))
    tested = dict.fromkeys(_what(row) for row in rows if row["verdict"] == "nothing found")
    if clean := [what for what in tested if what not in learnt]:
        sentences.append(f"Nothing was found about {', '.join(clean)}.")
    if weak := sum(row["verdict"] == "no power" for row in rows):
        sentences.append(f"{_counted(weak)} had too few records to tell.")
    if refused := sum(row["verdict"] == "refused" for row in rows):
        sentences.append(f"{_counted(refused)} could not be run.")
    sentences += map(_held, claims)
    return " ".join(sentences) or "Nothing was asked."


_HELD = {
    "VIOLATION": "they contradict the claim",
    "consistent": "they do not contradict it",
    "no power": "they could not have told a wrong claim from a right one",
}


def _held(claim: Row) -> str:
    """A claimed ε against canaries."""
    return (
        f"Of a training with {claim['canaries']} canaries in it, epsilon {claim['epsilon']:.3g} per {claim['unit']} is "
        f"claimed; they prove at least {claim['bound']:.3g}: {_HELD[claim['verdict']]}."
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
    about = "part of it is about these records" if facts["beyond_held_out"] else "it may hold for anyone alike"
    return f"; {facts['held_out']:.3g} for records never trained on, so {about}"


def _what(row: Row) -> str:
    kind, _, name = str(row["question"]).partition(" ")
    if row["metric"] == "labels":
        return "the labels of records"
    if kind == "property":
        return f'at which clients "{name}" is common'
    return _WHAT.get(kind, f'the attribute "{name}"')


def _counted(count: int) -> str:
    return "One attack" if count == 1 else f"{count} attacks"
