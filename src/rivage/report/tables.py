"""Numbers as people read them, and the rows of the report's tables.

Values stay values until here; everything returned is text or a plain mapping that the template lays out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rivage.core.certificates import Certificate
from rivage.core.records import RunRecord
from rivage.core.summaries import local_method
from rivage.core.trial_records import TrialRecord
from rivage.report import series

__all__ = [
    "Lead",
    "certificate_groups",
    "certificate_rows",
    "client_rows",
    "human_bytes",
    "human_joules",
    "human_seconds",
    "leader",
    "number",
    "participation_rows",
    "percent",
    "result_rows",
    "settings_differences",
    "speed",
    "whole",
    "with_spread",
]

Summary = Mapping[str, Mapping[str, Any]]
MISSING = "–"
MAX_CLIENT_ROWS = 200
_VERDICTS = {"fails": ("✗", "fails"), "no_power": ("?", "no power"), "holds": ("✓", "holds")}


def number(value: float | None) -> str:
    """Three decimals below 10, fewer above, powers of ten at the extremes; a dash for what is undefined.

    Example:
        >>> number(0.91234), number(12.345), number(1234.5), number(None), number(4e-7)
        ('0.912', '12.35', '1234', '–', '4e−07')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    text = f"{value:.3g}" if size and not 5e-4 <= size < 1e6 else f"{value:.{digits}f}"
    return text.replace("-", "−")


def whole(value: float | None) -> str:
    """A count, grouped; small ones keep their decimals.

    Example:
        >>> whole(1234567.8), whole(0.25), whole(None)
        ('1\N{NARROW NO-BREAK SPACE}234\N{NARROW NO-BREAK SPACE}568', '0.250', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    if abs(value) < 10 and value != round(value):
        return number(value)
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "−")


def speed(per_s: float | None) -> str:
    """Events per second, in millions from 10 000 on."""
    if per_s is None or per_s < 1e4:
        return whole(per_s)
    return f"{per_s / 1e6:.2f}\N{NO-BREAK SPACE}M"


def with_spread(mean: float | None, std: float | None) -> str:
    """``mean ± sd``, or the mean alone when one seed tells nothing about its spread."""
    return number(mean) if mean is None or std is None else f"{number(mean)} ± {number(std)}"


def percent(share: float | None) -> str:
    """A share in [0, 1] as a whole percentage; never "0 %" or "100 %" for a share that is not.

    Example:
        >>> percent(0.05).split(), percent(0.001).split(), percent(0.999).split(), percent(None)
        (['5', '%'], ['<', '1', '%'], ['>', '99', '%'], '–')
    """
    if share is None:
        return MISSING
    inexact = 0 < share < 0.01 or 0.99 < share < 1
    text = f"{100 * share:.0f} %" if not inexact else "< 1 %" if share < 0.5 else "> 99 %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def human_bytes(count: float) -> str:
    """Decimal units, three significant digits: ``'1.23 MB'``.

    Example:
        >>> human_bytes(0), human_bytes(999), human_bytes(1_234_567), human_bytes(999_999)
        ('0 B', '999 B', '1.23 MB', '1.00 MB')
    """
    return _scaled(count, ("B", "kB", "MB", "GB", "TB", "PB"), whole="B")


def human_joules(joules: float) -> str:
    """Decimal units, three significant digits.

    Example:
        >>> human_joules(0.0512), human_joules(61.5), human_joules(1.2e6)
        ('51.2 mJ', '61.5 J', '1.20 MJ')
    """
    return _scaled(1000 * joules, ("mJ", "J", "kJ", "MJ", "GJ", "TJ", "PJ"))


def _scaled(value: float, units: Sequence[str], whole: str = "") -> str:
    """Three significant digits in the first unit that needs no more; the unit ``whole`` has no decimals."""
    place = 0
    while value >= 999.5 and place < len(units) - 1:
        value, place = value / 1000, place + 1
    digits = 0 if units[place] == whole else 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {units[place]}"


def human_seconds(seconds: float) -> str:
    """Seconds, minutes or hours.

    Example:
        >>> human_seconds(1.234), human_seconds(75), human_seconds(7260)
        ('1.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@dataclass(frozen=True, slots=True)
class Lead:
    """Who is best by one number.

    Args:
        first: the best method; None if the number is defined for none.
        second: the next one; None if there is no other.
        clear: whether the lead is larger than both standard deviations over seeds. With one seed nothing is known
            about the spread, and no lead is clear.
    """

    first: str | None
    second: str | None = None
    clear: bool = False


def leader(summary: Summary, key: str, std: str) -> Lead:
    """Who is best by ``key``, a number with standard deviation ``std`` over seeds; ties go to the first method."""
    known = {method: numbers for method, numbers in summary.items() if numbers[key] is not None}
    if not known:
        return Lead(None)
    sign = 1 if next(iter(known.values()))["higher_is_better"] else -1
    first, *others = sorted(known, key=lambda method: -sign * known[method][key])
    if not others:
        return Lead(first)
    spreads = [known[method][std] for method in (first, others[0])]
    ahead = sign * (known[first][key] - known[others[0]][key])
    return Lead(first, others[0], None not in spreads and ahead > max(spreads))


def result_rows(record: RunRecord, summary: Summary) -> list[dict[str, Any]]:
    """One row per method: texts, and which are the best beyond the spread of the seeds."""
    best = {
        key: leader(summary, key, std)
        for key, std in (("mean", "std"), ("bottom_decile", "bottom_decile_std"), ("unseen_mean", "unseen_std"))
    }
    local = local_method(record)
    return [
        {
            "method": method,
            "mean": with_spread(row["mean"], row["std"]),
            "bottom_decile": with_spread(row["bottom_decile"], row["bottom_decile_std"]),
            "unseen_mean": with_spread(row["unseen_mean"], row["unseen_std"]),
            "best": [key for key, lead in best.items() if lead.clear and lead.first == method],
            "worse": "reference" if method == local else percent(row["share_worse_than_local"]),
            "up": human_bytes(row["bytes_up"]),
            "down": human_bytes(row["bytes_down"]),
            "seconds": human_seconds(row["seconds"]),
            "simulated": MISSING if row["simulated_s"] is None else human_seconds(row["simulated_s"]),
            "energy": MISSING if row["energy_j"] is None else human_joules(row["energy_j"]),
            "finished": row["finished"],
        }
        for method, row in summary.items()
    ]


def certificate_rows(certificates: Sequence[Certificate]) -> list[dict[str, str]]:
    """One row per certificate; what fails comes first, then what could not be decided."""
    return [_certificate_row(c) for c in _ordered(certificates)]


def certificate_groups(certificates: Sequence[Certificate]) -> list[dict[str, Any]]:
    """The same rows in groups: of those that hold, all that claim the same of several methods; each other one alone.

    Returns:
        per group its ``rows``, the ``claim`` without the method, and the ``methods``.
    """
    groups: dict[tuple[Any, ...], list[Certificate]] = {}
    for place, c in enumerate(_ordered(certificates)):
        key = (c.check, _unnamed(c)) if c.verdict == "holds" else (place,)
        groups.setdefault(key, []).append(c)
    return [
        {
            "rows": [_certificate_row(c) for c in group],
            "claim": _unnamed(group[0]),
            "methods": list(dict.fromkeys(str(c.fields["method"]) for c in group if "method" in c.fields)),
        }
        for group in groups.values()
    ]


def _ordered(certificates: Sequence[Certificate]) -> list[Certificate]:
    return sorted(certificates, key=lambda c: list(_VERDICTS).index(c.verdict))


def _unnamed(certificate: Certificate) -> str:
    """The claim without the method that it begins with."""
    return certificate.claim.removeprefix(f"{certificate.fields.get('method', '')} ")


def _certificate_row(c: Certificate) -> dict[str, str]:
    return {
        "verdict": c.verdict,
        "sign": _VERDICTS[c.verdict][0],
        "word": _VERDICTS[c.verdict][1],
        "kind": c.kind,
        "claim": c.claim,
        "measured": _exactly(c.measured),
        "reference": _exactly(c.reference),
        "method": c.method,
        "confidence": "exact" if c.confidence is None else f"{100 * c.confidence:g} %",
    }


def _exactly(value: float) -> str:
    """Whole numbers (bytes) in full, grouped; others to four significant digits."""
    if not math.isfinite(value):
        return MISSING
    text = f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "−")


def participation_rows(record: RunRecord) -> list[dict[str, Any]]:
    """One row per method: rounds, cohort, how often clients took part, what was lost, rejected or dropped."""
    rows = []
    for method in record.methods:
        trials = series.trials_of(record, method)
        p = series.participation(trials)
        if not p.rounds:
            continue
        known = len(p.chosen) > 0
        rows.append(
            {
                "method": method,
                "rounds": str(p.rounds),
                "cohort": f"{p.cohort:.1f}".removesuffix(".0"),
                "least": percent(p.chosen.min() / p.rounds) if known else MISSING,
                "most": percent(p.chosen.max() / p.rounds) if known else MISSING,
                "never": str(int((p.chosen == 0).sum())) if known else MISSING,
                "lost": str(p.lost),
                "rejected": str(sum(p.rejected.values())),
                "reasons": [f"{_blameless(reason, trials)} ({count})" for reason, count in p.rejected.items()],
                "refused": sum(p.refusals.values()),
                "forgotten": p.forgotten,
            }
        )
    return rows


def _blameless(reason: str, trials: Sequence[TrialRecord]) -> str:
    """Why an update was rejected; with an adversary about, training need not have been what spoilt it."""
    harmed = any(trial.start.get("adversary") for trial in trials)
    return reason.removesuffix(" after local training") if harmed else reason


def client_rows(record: RunRecord, summary: Summary) -> tuple[list[dict[str, Any]], int]:
    """Each client's value with each method, averaged over seeds, and how many clients there are in all.

    Beside the value of a method that chooses among others stands what it chose for the client, over all seeds.

    Of more than 200 clients only those are listed that are worst off with the best method.
    """
    values: dict[int, dict[str, list[float]]] = {}
    sizes: dict[int, int] = {}
    names: list[str] = []
    for trial in record.trials:
        event = trial.final("seen") or {"clients": [], "test": [], "test_size": []}
        names = names or list(trial.start["population"].get("names") or ())
        for client, value, size in zip(event["clients"], event["test"], event["test_size"], strict=True):
            sizes[client] = size
            of_client = values.setdefault(client, {}).setdefault(trial.method, [])
            of_client += [] if value is None else [value]
    chosen = _choices(record)
    means = {c: {m: math.fsum(v) / len(v) for m, v in row.items() if v} for c, row in values.items()}
    best = leader(summary, "mean", "std").first
    shown = sorted(means)
    if len(shown) > MAX_CLIENT_ROWS and best is not None:
        sign = 1 if summary[best]["higher_is_better"] else -1
        shown = sorted(shown, key=lambda c: sign * means[c].get(best, sign * math.inf))
    rows = [
        {
            "client": names[c] if c < len(names) else str(c),
            "size": str(sizes[c]),
            "values": [_with_choice(number(means[c].get(m)), chosen.get((c, m), ())) for m in summary],
        }
        for c in shown[:MAX_CLIENT_ROWS]
    ]
    return rows, len(means)


def _choices(record: RunRecord) -> dict[tuple[int, str], list[str]]:
    """(client, method that chooses) -> what it chose, each name once, for clients seen in training."""
    found: dict[tuple[int, str], list[str]] = {}
    for choice in record.events("choice"):
        for client, name in zip(choice["clients"], choice["chosen"], strict=True) if choice["group"] == "seen" else ():
            names = found.setdefault((client, choice["method"]), [])
            names += [name] if name not in names else []
    return found


def _with_choice(value: str, chosen: Sequence[str]) -> str:
    return f"{value} ({', '.join(chosen)})" if chosen else value


def settings_differences(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Settings in which the runs of a page differ: key, and the value in each run."""
    flat = [dict(_leaves(record.settings)) for record in records]
    keys = dict.fromkeys(key for settings in flat for key in settings)
    rows = [(key, [str(settings.get(key, MISSING)) for settings in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _leaves(tree: Any, place: str = "") -> list[tuple[str, Any]]:
    """Leaves of the settings by dotted key; methods by their name, other lists whole."""
    if isinstance(tree, Mapping):
        pairs = [(str(key), branch) for key, branch in tree.items()]
    elif isinstance(tree, list) and tree and all(isinstance(branch, Mapping) for branch in tree):
        named = [dict(branch) for branch in tree]
        pairs = [(str(branch.pop("name", branch.get("kind", at))), branch) for at, branch in enumerate(named, 1)]
    else:
        return [(place, tree)]
    return [leaf for key, branch in pairs for leaf in _leaves(branch, f"{place}.{key}" if place else key)]
