"""Certificates of a game of fair sharing, computed from its record alone.

Regret and bound of a policy are those of its own inequality aversion; how good an allocation was, that of the study
says. A promise is for every sequence of utilities: of several seeds, the worst decides.
"""

from __future__ import annotations

from itertools import pairwise
from math import nan

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.certificates import Certificate, Verdict
from rivage.core.records import RunRecord
from rivage.online.fair_records import FairGame, fair_games
from rivage.online.fair_regret import severity
from rivage.online.fairness import AlphaFairness

__all__ = [
    "fairness_bound",
    "fairness_regret",
    "fairness_severity",
    "multipliers_in_box",
    "severity_falls",
    "severity_rates",
]

_ROUNDING = 1e-9
_PARTS = (8, 4, 2, 1)
_VANISHING = 0.9  # T^2/3 growth of the severity, as of independent utilities, gives 0.79 from half to all, linear 1


def fairness_regret(record: RunRecord, *, method: str) -> Certificate:
    """How far from the best fixed allocation: a gap, so it always holds; what the reader judges is its size."""
    games = fair_games(record, method)
    welfare = float(np.mean([game.welfare for game in games]))
    upper = float(np.mean([game.optimum["judge"]["upper"] for game in games]))
    alpha, slots = games[0].trial.start["judge"], games[0].end["slots"]
    return Certificate(
        kind="gap",
        claim=f"The time-averaged utilities of {method} are within {max(upper - welfare, 0.0):.4g} of the fairest "
        f"fixed allocation (α = {alpha:g}).",
        measured=welfare,
        reference=upper,
        method=f"F_α of the mean utilities of {slots} slots{_over(games)}, against the upper bound of a cutting-plane "
        "programme over all fixed allocations",
        confidence=None,
        verdict="holds",
        check="fairness_regret",
        fields={"method": method},
    )


def fairness_bound(record: RunRecord, *, method: str) -> Certificate:
    """Is the regret below what the analysis allows for these utilities?

    Nobody whose utilities stay above u_min can lose more than F_α of the best ones less F_α(u_min). A bound that is
    larger promises nothing, so keeping it shows nothing: no power.
    """
    games = fair_games(record, method)
    found = [game.bounded for game in games]
    worst = max(range(len(found)), key=lambda place: found[place].regret - found[place].bound)
    parts, empty = found[worst], any(each.bound >= _most_lost(game) for each, game in zip(found, games, strict=True))
    kept = all(each.regret <= each.bound + _ROUNDING for each in found)
    verdict: Verdict = "fails" if not kept else "no_power" if empty else "holds"
    return Certificate(
        kind="bound",
        claim=f"The fairness regret of {method} does not exceed what the primal-dual analysis allows for these "
        "utilities.",
        measured=parts.regret,
        reference=parts.bound,
        method=f"primal {parts.primal_bound:.4g} + dual {parts.dual_bound:.4g} + drift {parts.drift:.4g}"
        + (f" + out of range {parts.beyond:.4g}" if parts.beyond > _ROUNDING else "")
        + f", per slot, α = {games[worst].terms.alpha:g}; computed in hindsight from multipliers, utilities and the "
        f"comparator's utilities{_over(games, 'the worst of')}"
        + ("; it promises nothing here: who keeps to the range cannot lose as much" if empty else ""),
        confidence=None,
        verdict=verdict,
        check="fairness_bound",
        fields={"method": method},
    )


def _most_lost(game: FairGame) -> float:
    """What separates the comparator from utilities that are all u_min."""
    terms, sums = game.terms, game.sums
    fairness = AlphaFairness(terms.alpha)
    return fairness.value(sums.comparator / sums.slots) - fairness.value(np.full(len(terms.disagreement), terms.least))


def fairness_severity(record: RunRecord, *, method: str) -> Certificate:
    """Can the regret vanish? Where min(V_T, W_T)/T does not fall each time the slots double, nobody can tell.

    One doubling shows nothing: where utilities drift or turn, the severity often has just fallen. Of 1,000 sequences of
    400 slots it fell from half of them to all in 703 random walks, 491 with a few slow waves and 260 that turn once;
    three times in a row in 20, 0 and 0, and in 998 of independent utilities.
    """
    games = fair_games(record, method)
    tables = [table for game in games if (table := game.comparator) is not None]
    rates = [severity_rates(table) for table in tables]
    known = len(tables) == len(games)
    long = all(len(table) >= _PARTS[0] for table in tables)  # an eighth of fewer is no slot
    place = min(range(len(rates)), key=lambda each: (severity_falls(rates[each]), -rates[each][-1])) if known else 0
    shown = ", ".join(f"{rate:.4g}" for rate in rates[place]) if known else ""
    whole = severity(tables[place]) if known else None
    return Certificate(
        kind="test",
        claim="The utilities are of the kind that long-term fairness can be learnt for: min(V_T, W_T)/T falls with T "
        f"(α = {games[0].terms.alpha:g}).",
        measured=nan if whole is None else whole.rate,
        reference=rates[place][-2] if known else nan,
        method="the record keeps sums of so many slots, which do not tell"
        if whole is None
        else f"V_T = {whole.budgeted:.4g}, W_T = {whole.partitioned:.4g} for T = {whole.slots}; reference: the first "
        f"half. After an eighth, a quarter, half and all of the slots: {shown}. Holds where each is at most "
        f"{_VANISHING:g} times the one before{_over(games, 'the worst of')}"
        + ("" if long else f"; fewer than {_PARTS[0]} slots do not tell"),
        confidence=None,
        verdict="holds" if known and long and all(map(severity_falls, rates)) else "no_power",
        check="fairness_severity",
        fields={"method": method},
    )


def severity_rates(comparator: Float64[ndarray, "slots agents"]) -> list[float]:
    """min(V_T, W_T)/T after an eighth, a quarter, half and all of the slots."""
    slots = len(comparator)
    return [severity(comparator[: max(1, slots // part)]).rate for part in _PARTS]


def severity_falls(rates: list[float]) -> bool:
    """Whether each is clearly below the one before."""
    return all(later <= max(_VANISHING * earlier, _ROUNDING) for earlier, later in pairwise(rates))


def multipliers_in_box(record: RunRecord, *, method: str) -> Certificate:
    """Did every multiplier stay in its range?"""
    games = fair_games(record, method)
    low, high = games[0].terms.box
    sums = [game.sums for game in games]
    beyond = max(max(each.highest - high, low - each.lowest, 0.0) for each in sums)
    count = sum(each.slots * len(each.multipliers) for each in sums)
    return Certificate(
        kind="bound",
        claim=f"No agent ever weighed less than {low:.4g} or more than {high:.4g} for {method}.",
        measured=beyond,
        reference=0.0,
        method=f"largest excess over {count} multipliers",
        confidence=None,
        verdict="holds" if beyond <= _ROUNDING * high else "fails",
        check="multipliers_in_box",
        fields={"method": method},
    )


def _over(games: list[FairGame], how: str = "mean over") -> str:
    return f", {how} {len(games)} seeds" if len(games) > 1 else ""
