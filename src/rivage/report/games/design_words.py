"""What a run of ``rivage design`` says in sentences: which overlay is fastest, and how far from the best possible."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rivage.core.records import RunRecord
from rivage.report.games.design_numbers import BOUND, CLASSICAL, best_of, lower_bound, scene_of, trials_of, winner
from rivage.report.games.sentences import count, names_of
from rivage.report.tables import MISSING, human_seconds

__all__ = ["above", "circuit", "design_answer", "design_compared", "design_progress", "human_ms", "in_ms", "ms"]

Row = Mapping[str, Any]

_TWICE = 2.0  # times as long: from here on no percentages


def in_ms(value: float | None, std: float | None = None) -> str:
    """Milliseconds to a hundredth, many to a tenth, with a spread if it is not None.

    Example:
        >>> in_ms(116.4625), in_ms(18983.2), in_ms(80.073, 0.01), in_ms(None)
        ('116.46', '18,983.2', '80.07 ± 0.01', '–')
    """
    if value is None or not math.isfinite(value):
        return MISSING
    digits = 2 if value < 1000 else 1
    return f"{value:,.{digits}f}" if std is None else f"{value:,.{digits}f} ± {std:,.{digits}f}"


def ms(value: float | None, std: float | None = None) -> str:
    """The same with its unit."""
    return f"{in_ms(value, std)} ms"


def human_ms(value: float | None) -> str:
    """Milliseconds below a second, seconds, minutes and hours above.

    Example:
        >>> human_ms(116.46), human_ms(4_215.0), human_ms(60_000.0), human_ms(None)
        ('116 ms', '4.2 s', '1 min', 'never')
    """
    if value is None:
        return "never"
    return f"{value:.3g} ms" if value < 999.5 else human_seconds(value / 1000).removesuffix(" 0 s")


def above(gap: float | None) -> str:
    """A share above the bound in per cent, two digits.

    Example:
        >>> above(0.0123), above(2e-5), above(1e-12), above(0.2034), above(39.1), above(None)
        ('1.2 %', '0.0020 %', '0 %', '20 %', '3,910 %', '–')
    """
    if gap is None:
        return MISSING
    share = 100 * round(gap, 8) + 0.0  # below is rounding; 0.0 takes the sign of −0
    return f"{share:,.0f} %" if share >= 9.95 or not share else f"{share:#.2g} %"


def circuit(names: Sequence[str]) -> str:
    """A circuit in few words.

    Example:
        >>> circuit(["a"]), circuit(["a", "b"]), circuit(list("abcdef")), circuit([])
        ('a alone', 'a ↔ b', 'a → … (6 silos)', '–')
    """
    if len(names) > 2:
        return f"{names[0]} → … ({len(names)} silos)"
    return " ↔ ".join(names) if len(names) == 2 else f"{names[0]} alone" if names else MISSING


def design_compared(record: RunRecord, summary: Mapping[str, Row]) -> str:
    """What was compared: ``"5 overlays for 11 silos of gaia, 1 seed"``."""
    scene = scene_of(record)
    if not summary:
        return "No overlay has been designed yet."
    where = f" for {count(len(scene['names']), 'silo')} of {scene['network']}" if scene else ""
    return f"{count(len(summary), 'overlay')}{where}, {count(len(record.seeds), 'seed')}"


def design_answer(record: RunRecord, summary: Mapping[str, Row]) -> str:
    """The fastest overlay, how far above the bound at most, and how much faster than those of the literature."""
    best = winner(summary)
    if best is None:
        return "No overlay has been designed yet: there is no answer to report."
    row, bound = summary[best], lower_bound(record).get("value_ms")
    seeds = f", the fastest of {count(len(trials_of(record, best)), 'seed')} ({_spread(row)})" if row["std_ms"] else ""
    proved = (
        "; how far that is from the best possible is not known yet"
        if row["gap"] is None
        else f", at most {above(row['gap'])} above the best possible: no fixed overlay goes below {ms(bound)}"
    )
    equal = _equal(summary, best)
    who = f"{_and([best, *equal])} {'are' if equal else 'is'} the fastest"
    return f"{who}, {ms(row['cycle_time_ms'])} a round{seeds}{proved}.{_beaten(summary, best)}{_quicker(summary, best)}"


def _equal(summary: Mapping[str, Row], best: str) -> list[str]:
    """Others that are as fast but for rounding."""
    times = {name: row["cycle_time_ms"] for name, row in summary.items() if row["cycle_time_ms"] is not None}
    return [name for name in times if name != best and math.isclose(times[name], times[best], rel_tol=1e-9)]


def _spread(row: Row) -> str:
    return f"{ms(row['mean_ms'], row['std_ms'])} over all"


def _beaten(summary: Mapping[str, Row], best: str) -> str:
    """How much longer the fastest of each other classical kind takes, the fastest kind first."""
    rivals = {
        name: row
        for name, row in summary.items()
        if name not in {best, *_equal(summary, best)} and not _is_quicker(row, summary[best])
    }
    names = [found for kind in CLASSICAL if (found := best_of(rivals, (kind,))) is not None]
    ratios = {name: rivals[name]["cycle_time_ms"] / summary[best]["cycle_time_ms"] for name in names}
    order = sorted(names, key=lambda name: ratios[name])
    near = [f"{above(ratios[name] - 1)} longer over {name}" for name in order if ratios[name] < _TWICE]
    far = [f"{_times(ratios[name])} times as long over {name}" for name in order if ratios[name] >= _TWICE]
    return f" A round takes {_and([*near, *far])}." if near or far else ""


def _is_quicker(row: Row, best: Row) -> bool:
    """Whether rounds are drawn and take less than those of the fastest overlay that is the same in all."""
    return bool(row["drawn"] and row["cycle_time_ms"] < best["cycle_time_ms"])


def _quicker(summary: Mapping[str, Row], best: str) -> str:
    """What is drawn may go round faster: it need not connect all silos in every round, and agrees more slowly."""
    names = [name for name, row in summary.items() if _is_quicker(row, summary[best])]
    times = [f"{name} ({ms(summary[name]['cycle_time_ms'])})" for name in names]
    if not names:
        return ""
    return (
        f" Rounds of {_and(times)} are drawn and shorter, as they need not join all silos; the bound is not for them."
    )


def _and(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def _times(ratio: float) -> str:
    return f"{ratio:,.1f}" if ratio < 100 else f"{ratio:,.0f}"


def design_progress(record: RunRecord) -> list[str]:
    """Overlays that are not designed, and the bound if it is not there."""
    done = {(str(trial.start.get("policy", trial.method)), trial.seed) for trial in record.trials if trial.finished}
    texts = [
        f"{name}, seed {seed}: no overlay yet"
        for name, seed in names_of(record, "overlays")
        if (name, seed) not in done
    ]
    bounded = any(trial.finished for trial in trials_of(record, BOUND))
    return [*texts, *([] if bounded else ["no lower bound yet"])]
