"""Statements about long-term fairness.

Published utilities are those of the authors' stored result files (one seed, fractional states). Networks and traces are
the same here, see `rivage.studies.claims.fairness_instances`, so they are compared number by number. Step sizes add up
norms agent by agent (``norms="separate"``), as in the authors' code.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.convex.sets import Box
from rivage.core.seeding import Streams
from rivage.online.fair_benchmarks import horizon_optimum, price_of_fairness
from rivage.online.fair_game import play_fair, utilities_of
from rivage.online.fair_regret import severity
from rivage.online.fairness import OHF, OSF, AlphaFairness, FairInstance, FairPolicy
from rivage.online.utilities import CappedSums
from rivage.online.virtual_caches import zipf_law
from rivage.online.virtual_eviction import PathEviction
from rivage.studies.claims.claim import Claim, Outcome, within
from rivage.studies.claims.fairness_instances import (
    Game,
    Name,
    alternating_game,
    cycle_caches,
    stationary_game,
    zipf_trace,
)

__all__ = ["CLAIMS", "PUBLISHED", "linear_utilities", "played_rows", "published_game", "toy"]

PAPER = "Si Salem et al., SIGMETRICS 2023"
_ONLINE = "stored results of the authors' code, seed 42"

PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "cycle-3": {"OPT": (0.5334, 0.5334), "OHF": (0.5314, 0.5311), "OSF": (0.5535, 0.4682)},
    "tree-1": {"OPT": (0.6914, 0.4692, 0.3770), "OHF": (0.6911, 0.4661, 0.3745), "OSF": (0.6906, 0.4661, 0.3746)},
    "tree-3": {"OPT": (0.6154, 0.4697, 0.4064), "OHF": (0.6128, 0.4677, 0.4041), "OSF": (0.6148, 0.4685, 0.4024)},
    "grid-3": {"OPT": (0.5420, 0.3280, 0.5358), "OHF": (0.5402, 0.3266, 0.5333), "OSF": (0.5487, 0.3240, 0.5341)},
    "abilene-3": {"OPT": (0.6817, 0.4948, 0.4227), "OHF": (0.6772, 0.4852, 0.4242), "OSF": (0.690, 0.4881, 0.4192)},
}
"""Setting and α -> who -> time-averaged utilities."""

_PRICES = {"tree": 0.032, "grid": 0.025, "abilene": 0.032, "geant": 0.002}
_EVICTION: dict[Name, dict[str, tuple[float, ...]]] = {
    "tree": {"lfu": (0.668, 0.444, 0.358), "published_lru": (0.267, 0.192, 0.188)},
    "grid": {"lfu": (0.569, 0.289, 0.470), "published_lru": (0.281, 0.147, 0.315)},
    "abilene": {"lfu": (0.747, 0.453, 0.366), "published_lru": (0.373, 0.261, 0.213)},
}


def published_game(setting: str) -> tuple[Game, float]:
    """The game of a row of `PUBLISHED`, and its α."""
    name, alpha = setting.split("-")
    game = alternating_game() if name == "cycle" else stationary_game(name)  # type: ignore[arg-type]
    return game, float(alpha)


def played_rows(game: Game, alpha: float) -> dict[str, Float64[ndarray, "agents"]]:
    """Time-averaged utilities of the optimum, of OHF and of OSF."""
    instance = FairInstance(set=game.caches.set, agents=game.caches.agents)
    rows = {"OPT": horizon_optimum(instance.set, game.mean, alpha).utilities}
    policies: dict[str, FairPolicy] = {
        "OHF": OHF(alpha=alpha, norms="separate"),
        "OSF": OSF(alpha=alpha, norms="separate"),
    }
    slots = game.slots
    for name, policy in policies.items():
        rows[name] = play_fair(policy, instance, slots).average
    return rows


def _row(setting: str) -> Outcome:
    game, alpha = published_game(setting)
    rows = played_rows(game, alpha)
    worst = max(float(np.abs(rows[name] - said).max()) for name, said in PUBLISHED[setting].items())
    detail = "; ".join(f"{name} {' '.join(f'{u:.4f}' for u in found)}" for name, found in rows.items())
    return within(worst, 0.0, 0.001, detail)


def _saddle() -> Outcome:
    worst = 0.0
    for alpha in (0.5, 1.0, 2.0, 3.0):
        fairness = AlphaFairness(alpha)
        for u in np.random.default_rng(0).uniform(0.1, 1.0, (100, 3)):
            worst = max(worst, abs(fairness.saddle(fairness.weights(u), u) - fairness.value(u)))
    return within(worst, 0.0, 1e-10, "α = 0.5, 1, 2, 3, 100 points each")


def _cycle() -> Outcome:
    found = []
    rates = np.stack([zipf_law(20, 1.2)] * 2)
    for far in (2.0, 3.5):
        caches = cycle_caches(far).normalized(rates)
        found.append(float(horizon_optimum(caches.set, caches.utilities(rates), 0.0).utilities.sum()))
    worst = max(abs(found[0] - 1.47869), abs(found[1] - 1.19270))
    return within(worst, 0.0, 1e-5, f"totals {found[0]:.5f} and {found[1]:.5f}")


def _distances() -> Outcome:
    rates, worst, lines = np.stack([zipf_law(20, 1.2)] * 2), 0.0, []
    for far, alpha, said in ((2.5, 1.0, (0.6122, 0.7326)), (4.0, 2.0, (0.3889, 0.7510))):
        caches = cycle_caches(far).normalized(rates)
        found = horizon_optimum(caches.set, caches.utilities(rates), alpha).utilities
        worst = max(worst, float(np.abs(found - said).max()))
        lines.append(f"1-2-{far:g}, α = {alpha:g}: {' '.join(f'{u:.4f}' for u in found)}")
    return within(worst, 0.0, 0.0015, "; ".join(lines))


def _bargaining() -> Outcome:
    trace = zipf_trace(10_000, 1, 1.2)
    game = Game.of(cycle_caches(2.0), np.stack([trace, trace], axis=1))
    said = {0.0: (0.7419, 0.7419), 0.6: (0.6617, 0.7820), 0.75: (0.5503, 0.7901)}
    worst, lines = 0.0, []
    for point, utilities in said.items():
        best = horizon_optimum(game.caches.set, game.mean, 1.0, disagreement=np.array([0.0, point]))
        worst = max(worst, float(np.abs(best.utilities - utilities).max()))
        lines.append(f"d = {point:g}: {' '.join(f'{u:.4f}' for u in best.utilities)}")
    return within(worst, 0.0, 2e-4, "; ".join(lines))


def _price() -> Outcome:
    prices = {}
    for name in _PRICES:
        game = stationary_game(name)  # type: ignore[arg-type]
        least, fair = (horizon_optimum(game.caches.set, game.mean, alpha).utilities for alpha in (0.0, 3.0))
        prices[name] = price_of_fairness(least, fair)
    wrong = max(abs(prices[name] - said) for name, said in _PRICES.items())
    detail = ", ".join(f"{name} {100 * price:.2f} %" for name, price in prices.items())
    holds = max(prices.values()) < 0.04 and wrong < 1e-3
    return Outcome(max(prices.values()), "holds" if holds else "fails", detail)


def _eviction() -> Outcome:
    worst, lines = 0.0, []
    for name, rules in _EVICTION.items():
        game = stationary_game(name)
        for rule, said in rules.items():
            policy = PathEviction(rule=rule)  # type: ignore[arg-type]
            found = policy.play(game.caches, game.batches, Streams(0)).mean(axis=0)
            worst = max(worst, float(np.abs(found - said).max()))
            lines.append(f"{name} {rule} {' '.join(f'{u:.3f}' for u in found)}")
    return within(worst, 0.0, 0.06, "; ".join(lines))


def linear_utilities(rows: list[list[float]], offset: list[float]) -> CappedSums:
    """One agent per row: offset + row · x."""
    agents = len(rows)
    return CappedSums(
        rows=np.array(rows),
        owner=np.arange(agents),
        weights=np.ones(agents),
        caps=np.full(agents, np.inf),
        agents=agents,
        offset=np.array(offset),
    )


def toy(slots: int) -> tuple[FairInstance, list[CappedSums]]:
    """0 <= x <= 0.9; utilities alternate between (1 + x, 1 − x) and (1 + x, 1 + x)."""
    kinds = linear_utilities([[1.0], [-1.0]], [1.0, 1.0]), linear_utilities([[1.0], [1.0]], [1.0, 1.0])
    instance = FairInstance(set=Box(np.zeros(1), np.array([0.9])), agents=2, least=0.1, most=2.0)
    return instance, [kinds[slot % 2] for slot in range(slots)]


def _toy() -> Outcome:
    instance, slots = toy(20_000)
    horizon, slotwise = (play_fair(policy, instance, slots) for policy in (OHF(), OSF()))
    x = [float(played.utilities[-2000:, 0].mean() - 1) for played in (horizon, slotwise)]
    off = float(np.abs(horizon.average - [1.9, 1.0]).max())
    detail = f"x: OHF {x[0]:.4f} (0.9), OSF {x[1]:.4f} (0.5), mean of the last 2000 slots"
    holds = off < 0.005 and x[0] >= 0.895 and abs(x[1] - 0.5) < 0.01
    return Outcome(off, "holds" if holds else "fails", detail)


def _impossible() -> Outcome:
    """The smaller of the gaps over two horizons, each the larger of the gaps on two continuations."""
    feasible = Box(np.zeros(1), np.ones(1))
    first = linear_utilities([[0.9], [-0.9]], [0.1, 1.0])
    later = [linear_utilities([[0.0], [0.0]], offset) for offset in ([1.0, 0.1], [0.1, 1.0])]
    gaps, rates = [], []
    for half in (250, 1000):
        found = []
        for second in later:
            slots = [first] * half + [second] * half
            best = horizon_optimum(feasible, slots, 1.0, shares=None)
            average = play_fair(OHF(), FairInstance(set=feasible, agents=2), slots).average
            found.append(best.value - AlphaFairness(1.0).value(average))
            rates.append(severity(utilities_of(best.x, slots)).rate)
        gaps.append(max(found))
    least = -np.log(1 - (9 / 22) ** 2)
    holds = min(gaps) >= least - 1e-6 and min(rates) > 0.4
    detail = f"gap at T = 500 and 2000: {gaps[0]:.3f}, {gaps[1]:.3f}; min(V_T, W_T)/T at least {min(rates):.3f}"
    return Outcome(min(gaps), "holds" if holds else "fails", detail)


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="fairness-saddle",
        paper=PAPER,
        where="section 4, conjugate of the welfare (derived)",
        statement="The α-fair welfare is the minimum of the saddle function over the multipliers, at λ = u^(−α).",
        expected=0.0,
        tolerance=1e-10,
        cost="quick",
        run=_saddle,
    ),
    Claim(
        name="fairness-cycle-optima",
        paper=PAPER,
        where="CYCLE, costs 1-2-2 and 1-2-3.5, exact Zipf(1.2) requests",
        statement="The largest sums of utilities are 1.47869 and 1.19270 (linear programmes).",
        expected=0.0,
        tolerance=1e-5,
        cost="quick",
        run=_cycle,
    ),
    Claim(
        name="fairness-distances",
        paper=PAPER,
        where="CYCLE 1-2-2.5, α = 1, and 1-2-4, α = 2; published for one trace, here for the law it is drawn from",
        statement="The horizon-fair utilities are .6122 .7326 and .3889 .7510.",
        expected=0.0,
        tolerance=0.0015,
        cost="quick",
        run=_distances,
    ),
    Claim(
        name="fairness-bargaining",
        paper=PAPER,
        where=f"CYCLE 1-2-2, T = 10000, B = 1, disagreement points 0, 0.6 and 0.75 of agent 2; {_ONLINE}",
        statement="A better alternative gives an agent more of what both have: the bargaining solutions are those "
        "published.",
        expected=0.0,
        tolerance=2e-4,
        cost="quick",
        run=_bargaining,
    ),
    Claim(
        name="fairness-price",
        paper=PAPER,
        where=f"TREE, GRID, ABILENE, GEANT, α = 3; {_ONLINE}",
        statement="Horizon-fairness costs less than 4 % of the sum of utilities: 3.2, 2.5, 3.2 and 0.2 %.",
        expected="below 0.04",
        tolerance=0.0,
        cost="quick",
        run=_price,
    ),
    Claim(
        name="fairness-toy",
        paper=PAPER,
        where="two agents, alternating utilities (derived)",
        statement="OHF finds the horizon-fair x = 0.9 and mean utilities (1.9, 1), OSF the slot-fair x = 1/2.",
        expected=0.0,
        tolerance=0.005,
        cost="slow",
        run=_toy,
    ),
    Claim(
        name="fairness-impossible",
        paper=PAPER,
        where="impossibility of vanishing fairness regret (instance derived)",
        statement="On one of two continuations OHF, as any policy, stays 0.183 below the best welfare for every T.",
        expected="at least 0.1832",
        tolerance=0.0,
        cost="quick",
        run=_impossible,
    ),
    *(
        Claim(
            name=f"fairness-{setting}",
            paper=PAPER,
            where=f"{setting.split('-')[0].upper()}, α = {setting.split('-')[1]}; {_ONLINE}",
            statement="OPT, OHF and OSF reach "
            + "; ".join(" ".join(f"{u:.4f}" for u in row) for row in rows.values())
            + ".",
            expected=0.0,
            tolerance=0.001,
            cost="slow",
            run=partial(_row, setting),
        )
        for setting, rows in PUBLISHED.items()
    ),
    Claim(
        name="fairness-eviction",
        paper=PAPER,
        where=f"TREE, GRID, ABILENE: LFU and LRU; {_ONLINE}; other random requests",
        statement="LFU and what the authors' code does for LRU, which evicts the most recent item, reach the published "
        "utilities.",
        expected=0.0,
        tolerance=0.06,
        cost="slow",
        run=_eviction,
    ),
)
