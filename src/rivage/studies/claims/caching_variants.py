"""Statements about policies next to those of `rivage.studies.claims.caching`: sketches, steps per item, couplings."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.convex.coupling import optimal_plan, systematic_law
from rivage.convex.rounding import madow
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.data.request_laws import zipf
from rivage.online.ftpl import FTPL
from rivage.online.nfpl import NFPL
from rivage.online.per_coordinate import PCOC
from rivage.online.policy import CacheInstance
from rivage.online.predictions import LastSlot, Nothing, Successor
from rivage.studies.claims.caching import web12
from rivage.studies.claims.claim import Claim, Outcome

__all__ = ["CLAIMS"]

BENMAZZIANE = "Ben Mazziane, Faticanti, Neglia, Alouf, 2023, hal-04318435"
WIDTHS = (64, 256, 1024, 4096, 16_384)

Vector = Float64[ndarray, "n"]


def _sketches(requests: Int64[ndarray, "n"], items: int, capacity: int) -> Outcome:
    """Hit ratios, three seeds, a tenth of the theory's noise; the measured value is the loss at w = 4096."""
    instance = CacheInstance(items=items, capacity=capacity, horizon=len(requests))

    def ratio(policy: Any) -> float:
        hits = [policy.run_block(policy.init(instance, Streams(seed)), requests).hits for seed in range(3)]
        return float(np.mean(hits)) / len(requests)

    full, details, lost = ratio(FTPL(scale=0.1)), [], 0.0
    for width in WIDTHS:
        plain, conservative = (ratio(NFPL(width=width, update=each, scale=0.1)) for each in ("plain", "conservative"))
        lost = full - conservative if width == 4096 else lost
        details.append(f"w = {width}: {plain:.3f} and {conservative:.3f}")
    detail = f"counts of all items {full:.3f}; sketches of 4 rows, plain and conservative: {', '.join(details)}"
    return Outcome(lost, "holds" if lost <= 0.01 else "fails", detail)


def _sketch_on_zipf() -> Outcome:
    return _sketches(zipf(100_000, 1_000_000, 0.8, 0).item.astype(np.int64), 100_000, 1000)


def _sketch_on_web12() -> Outcome:
    try:
        requests = web12()
    except DataError as error:
        return Outcome(None, "not tested", str(error))
    return _sketches(requests.astype(np.int64), int(requests.max()) + 1, 687)


def _pcoc_keeps_to_its_bound() -> Outcome:
    """Small games, half of them against whoever asks for what has the least of the cache."""
    random, worst, games = np.random.default_rng(0), -np.inf, 200
    for number in range(games):
        items, batch = int(random.integers(2, 12)), int(random.integers(1, 4))
        capacity, count = int(random.integers(1, items)), int(random.integers(1, 50))
        weights = random.random(items) if number % 3 == 0 else np.ones(items)
        instance = CacheInstance(items=items, capacity=capacity, weights=weights, batch=batch, multiplicity=batch)
        policy = PCOC(prediction=(Nothing(), LastSlot(), Successor())[number // 2 % 3])
        state, values, gained = policy.init(instance, Streams(number)), np.zeros(items), 0.0
        for _ in range(count):
            item = int(np.argmin(state.fractional)) if number % 2 else int(random.integers(items))
            values[item] += weights[item]
            gained += policy.run_block(state, np.array([item])).fractional
            worst = max(worst, float(np.sort(values)[-capacity:].sum() - gained - policy.bound(state)))
    return Outcome(worst, "holds" if worst <= 1e-9 else "fails", f"largest excess over all prefixes of {games} games")


def _coupling_moves_less() -> Outcome:
    """Along gradient descent with one request a slot, every tenth step; all expectations are exact."""
    items, capacity, slots = 40, 6, 1000
    ground, totals = CappedSimplex(items, capacity), np.zeros(4)
    x, step = ground.center, float(np.sqrt(ground.diameter_squared / slots))
    for slot, item in enumerate(zipf(items, slots, 0.8, 0).item):
        after = ground.project(x + step * (np.arange(items) == item))
        if slot % 10 == 0:
            totals += _movements(x, after)
        x = after
    least, optimal, same, fresh = totals / (slots // 10)
    detail = f"per slot ‖x' − x‖₁ {least:.3f}, optimal {optimal:.3f}, one draw {same:.3f}, fresh draws {fresh:.3f}"
    return Outcome(float(optimal / same), "holds" if least <= optimal < same < fresh else "fails", detail)


def _movements(old: Vector, new: Vector) -> Vector:
    """‖x' − x‖₁, and what the optimal coupling, one draw and fresh draws move."""
    laws = systematic_law(old), systematic_law(new)
    ends = np.concatenate([[0.0, 1.0], *(np.cumsum(x[(x > 0) & (x < 1)]) % 1.0 for x in (old, new))])
    ends = np.unique(ends)
    pairs = zip((ends[1:] + ends[:-1]) / 2, np.diff(ends), strict=True)
    same = sum(length * np.abs(madow(new, xi) - madow(old, xi)).sum() for xi, length in pairs)
    apart = np.abs(laws[0].sets[:, None, :] - laws[1].sets[None, :, :]).sum(axis=2)
    fresh = laws[0].masses @ apart @ laws[1].masses
    return np.array([np.abs(new - old).sum(), optimal_plan(*laws).movement, same, fresh])


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="sketched-counts-on-zipf",
        paper=BENMAZZIANE,
        where="count-min estimates; own trace, Zipf(0.8), N = 100,000, k = 1000, T = 1,000,000",
        statement="With four rows of 4096 counters, conservatively updated, the perturbed leader hits at most 0.01 "
        "less than with the counts of all items.",
        expected="at most 0.01 less",
        tolerance=0.01,
        cost="quick",
        run=_sketch_on_zipf,
    ),
    Claim(
        name="sketched-counts-on-web12",
        paper=BENMAZZIANE,
        where="count-min estimates; a trace of ours, web12 at C = 687",
        statement="The same on a real trace.",
        expected="at most 0.01 less",
        tolerance=0.01,
        cost="quick",
        run=_sketch_on_web12,
    ),
    Claim(
        name="pcoc-keeps-to-its-bound",
        paper="Faticanti, Neglia, Computer Networks 2024, arXiv 2310.01309",
        where="per-coordinate regularisation, constants derived in the module",
        statement="The regret of PCOC never exceeds its bound, after any prefix of 200 random and adversarial games.",
        expected="excess of at most 0",
        tolerance=0.0,
        cost="quick",
        run=_pcoc_keeps_to_its_bound,
    ),
    Claim(
        name="optimal-coupling-moves-least",
        paper="Si Salem, Neglia, Ioannidis, 2021, arXiv 2101.12588",
        where="online optimally coupled rounding; gradient descent on Zipf(0.8), N = 40, k = 6",
        statement="Optimal transport between the laws of two slots moves less than one draw for both, and that less "
        "than fresh draws.",
        expected="ratio to one draw below 1",
        tolerance=0.0,
        cost="quick",
        run=_coupling_moves_less,
    ),
)
