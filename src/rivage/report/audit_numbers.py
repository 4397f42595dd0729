"""Numbers of an audit, as its section of the report shows them: rows of tables, curves with bands, reasons.

All is computed from what ``audit.json`` holds; nothing knows an attack, a model or a record.

Example:
    >>> reasons({"reasons": {"it has 9 layers.": ["client 0", "client 2"], "it has 8 layers.": ["client 1"]}})
    ['it has 9 layers.']
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.stats import beta

from rivage.report.tables import MISSING, human_bytes, human_seconds, number, whole

__all__ = [
    "SIGNS",
    "Curve",
    "alarm_rows",
    "answered",
    "asked",
    "attacked",
    "curve",
    "epsilon_rows",
    "numberless",
    "pooled",
    "reasons",
    "rows",
    "whose",
]

Row = Mapping[str, Any]
Array = Float64[ndarray, "points"]

_LEVEL = 0.05  # at which an audit calls a difference one

ALARMS = 10  # others that a share of false alarms must stand for
LEAST = 1e-5  # share of false alarms at which a curve begins, with others enough for that
_POINTS = 120
_SHOWN = 5  # clients that a row names
_SHARES = (0.1, 0.01, 0.001)

SIGNS: Mapping[str, tuple[str, str]] = {
    "leaks": ("◆", "fails"),
    "recovered": ("★", "fails"),
    "estimated": ("△", "no_power"),
    "no power": ("?", "no_power"),
    "nothing found": ("○", "plain"),
    "refused": ("–", "plain"),
}
"""Verdict -> its sign and its class in the style sheet, the gravest first."""
_EPSILON = {"VIOLATION": ("✗", "fails"), "consistent": ("✓", "holds"), "no power": ("?", "no_power")}
_METRICS = {
    "auc": "AUC",
    "exact": "records rebuilt",
    "labels": "labels right",
    "mae": "mean error",
    "distance": "distance",
}


def answered(row: Row) -> bool:
    """Whether the attack came to a number."""
    return row.get("value") is not None


def asked(row: Row) -> str:
    """What was asked for, in a word or two."""
    kind, _, name = str(row["question"]).partition(" ")
    if row.get("metric") == "labels":
        return "labels"
    return f"{name} at clients" if kind == "property" and name else name or kind


def reasons(row: Row) -> list[str]:
    """Why an attack was refused, without the targets; reasons that differ in numbers alone count once."""
    first: dict[str, str] = {}
    for why in row.get("reasons") or {}:
        first.setdefault(numberless(why), why)
    return list(first.values())


def numberless(text: str) -> str:
    """A text that is the same for texts that differ in numbers alone."""
    return re.sub(r"\d+", "#", text)


def whose(facts: Mapping[str, Any]) -> str:
    """Is what was found true of the trained records alone? From the facts of an attack that was put to others too."""
    if facts["beyond_held_out"]:
        return "part of it is about these very records"
    few = facts.get("held_out_least_p", 0.0) > _LEVEL
    return "these are too few to tell whose it is" if few else "it may hold for anyone alike"


def rows(audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per attack and question, what was found first."""
    order = {verdict: place for place, verdict in enumerate(SIGNS)}
    ordered = sorted(audit["attacks"], key=lambda row: order.get(str(row["verdict"]), len(order)))
    return [_row(row) | {"targets": _targets(row, audit)} for row in ordered]


def attacked(rows: Iterable[Row]) -> set[int]:
    """The clients that these attacks were about."""
    return {client for row in rows for client in row["targets"]}


def _targets(row: Row, audit: Mapping[str, Any]) -> str:
    """Whom an attack was about, where not all were about the same."""
    if all(each["targets"] == row["targets"] for each in audit["attacks"]):
        return ""
    clients = row["targets"]
    shown = ", ".join(map(str, clients)) if len(clients) <= _SHOWN else f"{len(clients)} of them"
    return f"client {shown}" if len(clients) == 1 else f"clients {shown}"


def _row(row: Row) -> dict[str, Any]:
    sign, style = SIGNS.get(str(row["verdict"]), ("", "plain"))
    interval, cost = row.get("ci"), row.get("cost") or {}
    peak, seconds = cost.get("peak_bytes"), cost.get("seconds")
    return {
        "attack": str(row["attack"]),
        "view": str(row["view"]).replace("_", " "),
        "asked": asked(row),
        "answered": answered(row),
        "metric": _METRICS.get(str(row.get("metric")), str(row.get("metric"))),
        "value": number(row.get("value")),
        "baseline": number(row.get("baseline")),
        "interval": MISSING if interval is None else f"{number(interval[0])}–{number(interval[1])}",
        "p": number(row.get("p_adjusted")),
        "verdict": str(row["verdict"]),
        "sign": sign,
        "style": style,
        "oracle": str(row.get("oracle") or ""),
        "reasons": reasons(row),
        "seconds": MISSING if seconds is None else human_seconds(seconds),
        "evaluations": whole(cost.get("evaluations")),
        "peak": MISSING if peak is None else human_bytes(peak),
    }


def epsilon_rows(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per promise that canaries were held against."""
    return [
        {
            "unit": str(row["unit"]),
            "mechanism": str(row["mechanism"]),
            "claimed": number(row["epsilon"]),
            "delta": f"{row['delta']:g}",
            "bound": number(row["bound"]),
            "confidence": f"{100 * row['confidence']:g} %",
            "attack": str(row["attack"]),
            "view": str(row["view"]).replace("_", " "),
            "canaries": whole(row.get("canaries")),
            "verdict": str(row["verdict"]),
            "sign": _EPSILON.get(str(row["verdict"]), ("", ""))[0],
            "style": _EPSILON.get(str(row["verdict"]), ("", "plain"))[1],
        }
        for row in audit.get("epsilon") or ()
    ]


# --- curves ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Members found against false alarms, as far as the others tell.

    Args:
        fpr: shares of false alarms, ascending from ten of the others; empty with fewer than ten.
        tpr: the largest share of members found at no more false alarms; nothing is interpolated.
        low: lower end of its interval.
        high: upper end.
        members: records behind ``tpr``.
        others: records behind ``fpr``.
    """

    fpr: Array
    tpr: Array
    low: Array
    high: Array
    members: int
    others: int

    @property
    def least(self) -> float:
        """The least share of false alarms that stands for ten records."""
        return ALARMS / self.others


def pooled(evidence: Mapping[str, Any]) -> tuple[Float64[ndarray, "n"], Bool[ndarray, "n"]]:
    """Scores of all targets on one scale, and who is a member.

    Each score becomes the share of its own target's others below it, ties counting one half: between targets differ
    the data and the model, and a difference between targets is no membership.
    """
    scores, member = [], []
    for target in evidence["targets"]:
        inside, others = (np.asarray(target[name], np.float64) for name in ("members", "others"))
        both, ranked = np.concatenate([inside, others]), np.sort(others)
        below, up_to = (np.searchsorted(ranked, both, side=side) for side in ("left", "right"))
        scores.append((below + up_to) / 2 / len(others))
        member.append(np.repeat([True, False], [len(inside), len(others)]))
    return np.concatenate(scores), np.concatenate(member)


def curve(evidence: Mapping[str, Any], confidence: float = 0.95) -> Curve:
    """The curve of one attack on membership, with exact intervals (Clopper, Pearson, *Biometrika* 26, 1934)."""
    scores, member = pooled(evidence)
    members, others = int(member.sum()), int((~member).sum())
    least = max(ALARMS / others, LEAST)
    # Half a count to the right of each share, so that rounding takes no false alarm away.
    fpr = np.geomspace(least, 1.0, _POINTS) if least <= 1 else np.empty(0)
    hits = _found(scores, member, fpr + 1e-9)
    low, high = bands(hits, members, confidence)
    return Curve(fpr, hits / members, low, high, members, others)


def _found(scores: Array, member: Bool[ndarray, "n"], fpr: Array) -> Int64[ndarray, "points"]:
    """The most members found at these shares of false alarms; equal scores stand or fall together."""
    order = np.argsort(-scores, kind="stable")
    hits, alarms = np.cumsum(member[order]), np.cumsum(~member[order])
    last = np.append(np.diff(scores[order]) != 0, True)
    hits, alarms = np.append(0, hits[last]), np.append(0, alarms[last])
    found: ndarray = hits[np.searchsorted(alarms, fpr * alarms[-1], side="right") - 1]
    return found


def bands(hits: Int64[ndarray, "points"], trials: int, confidence: float) -> tuple[Array, Array]:
    """Exact intervals of the rates behind so many hits in so many trials."""
    doubt = (1 - confidence) / 2
    low = np.where(hits > 0, beta.ppf(doubt, np.maximum(hits, 1), trials - hits + 1), 0.0)
    high = np.where(hits < trials, beta.ppf(1 - doubt, hits + 1, np.maximum(trials - hits, 1)), 1.0)
    return low, high


def alarm_rows(audit: Mapping[str, Any]) -> list[dict[str, str]]:
    """One row per attack on membership: members found at few false alarms; n/a where these are fewer than ten."""
    return [_alarms(row) | {"targets": _targets(row, audit)} for row in audit["attacks"] if is_scored(row)]


def is_scored(row: Row) -> bool:
    """Whether the evidence of an attack are scores, of which a curve can be drawn."""
    evidence = row.get("evidence")
    return evidence is not None and evidence.get("kind") == "scores"


def _alarms(row: Row) -> dict[str, str]:
    scores, member = pooled(row["evidence"])
    members, others = int(member.sum()), int((~member).sum())
    hits = _found(scores, member, np.array(_SHARES) + 1e-9)
    known = [others * share >= ALARMS * (1 - 1e-9) for share in _SHARES]
    rates = [f"{100 * k / members:.1f} %" if enough else "n/a" for k, enough in zip(hits, known, strict=True)]
    return {
        "attack": str(row["attack"]),
        "members": str(members),
        "others": str(others),
        **dict(zip(("tenth", "hundredth", "thousandth"), rates, strict=True)),
    }
