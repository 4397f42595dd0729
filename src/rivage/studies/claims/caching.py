"""Statements about one cache: what is exact, which bounds hold, who wins on a real trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.convex.programs import minimize_over
from rivage.convex.rounding import Coupled, madow
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.data.adversarial_requests import cyclic
from rivage.data.files import Publication
from rivage.data.request_laws import roundwise_permuted, zipf
from rivage.data.trace_files import read_trace
from rivage.online.adaptive_eviction import ARC, S3FIFO
from rivage.online.experts import AdaptiveOGB
from rivage.online.game import Played, play
from rivage.online.mirror_descent import MirrorDescent
from rivage.online.ogb import OGB
from rivage.online.optimistic import OptimisticFTRL
from rivage.online.policy import CacheInstance
from rivage.online.predictions import LastSlot, Nothing, Successor
from rivage.studies.claims.claim import Claim, Outcome, within

__all__ = ["CLAIMS", "hit_ratio", "web12"]

CARRA = "Carra, Neglia, arXiv 2405.01263"
SISALEM = "Si Salem, Neglia, Ioannidis, ICC 2021, arXiv 2101.12588"

WEB12 = Publication(
    kind="web12",
    folder="traces",
    origin="https://github.com/ben-manes/caffeine (cache2k benchmark traces, CC BY 4.0)",
    hashes={"web12.trace.xz": "a76c78e129a982fe17055d0a291ebf385e7a0aa7964bd091d006bcde862bcdad"},
)

Requests = Int64[ndarray, "n"]


def _played(policy: Any, instance: CacheInstance, requests: Requests, points: int = 1) -> Played:
    return play(policy, instance, [requests], streams=Streams(0), every=max(len(requests) // points, 1))


def _ogb_is_the_projection() -> Outcome:
    """Against the projection by sorted breakpoints, which shares no code with the wheel."""
    worst = 0.0
    for items, capacity, step in ((20, 5, 0.3), (50, 10, 0.05), (30, 3, 0.9)):
        ground = CappedSimplex(items, capacity)
        requests = zipf(items, 2000, 0.8, 0).item
        instance = CacheInstance(items=items, capacity=capacity, horizon=len(requests))
        policy = OGB(scale=step / OGB().step(instance))
        state, x = policy.init(instance, Streams(0)), ground.center
        for item in np.concatenate([requests, np.arange(1000) % items]):
            policy.run_block(state, np.array([item]))
            x = ground.project(x + step * (np.arange(items) == item))
            worst = max(worst, float(np.abs(state.fractional - x).max()))
    return within(worst, 0.0, 1e-9, "largest difference of a fraction over 9000 requests of three caches")


def _entropy_is_the_minimiser() -> Outcome:
    """Against a general solver, on points from the path of the policy."""
    items, capacity, worst = 8, 3, 0.0
    ground = CappedSimplex(items, capacity)
    requests = zipf(items, 40, 0.8, 0).item
    instance = CacheInstance(items=items, capacity=capacity, horizon=len(requests))
    policy = MirrorDescent(scale=3.0)
    step = 3.0 * float(np.sqrt(2 * np.log(items / capacity) / len(requests)))
    state = policy.init(instance, Streams(0))
    for item in requests:
        x = state.fractional
        y = x * np.exp(step * (np.arange(items) == item))

        def value(z: ndarray, y: ndarray = y) -> float:
            return float((z * np.log(np.maximum(z, 1e-300) / y) - z).sum())

        def slope(z: ndarray, y: ndarray = y) -> ndarray:
            return np.asarray(np.log(np.maximum(z, 1e-300) / y))

        policy.run_block(state, np.array([item]))
        worst = max(worst, float(np.abs(state.fractional - minimize_over(ground, value, slope, start=x)).max()))
    return within(worst, 0.0, 1e-6, f"largest difference of a fraction over {len(requests)} requests")


def _batches() -> Requests:
    """Zipf(0.1) without replacement: 1000 slots of 150 of 200 items."""
    random = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 201) ** 0.1
    popularity /= popularity.sum()
    return np.concatenate([random.choice(200, 150, replace=False, p=popularity) for _ in range(1000)])


def _entropy_wins_on_diverse_batches() -> Outcome:
    requests = _batches()
    instance = CacheInstance(items=200, capacity=10, horizon=len(requests), batch=150)
    entropy, euclidean = (
        _played(MirrorDescent(map=kind), instance, requests).last for kind in ("entropy", "euclidean")
    )
    ratio = entropy["regret"] / euclidean["regret"]
    detail = ", ".join(
        f"{name} {last['regret']:.0f} (bound {last['bound']:.0f})"
        for name, last in (("entropy", entropy), ("gradient descent", euclidean))
    )
    kept = all(last["regret"] <= last["bound"] for last in (entropy, euclidean))
    return Outcome(ratio, "holds" if ratio < 1 and kept else "fails", detail)


def _reference_regrets() -> Outcome:
    """T = 50,000, N = 1000, C = 100."""
    instance = CacheInstance(items=1000, capacity=100, horizon=50_000)
    traces = {
        "cyclic": cyclic(1000, 50_000),
        "Zipf(0.8)": zipf(1000, 50_000, 0.8, 0),
        "permuted": roundwise_permuted(1000, 5, 10_000, 1, 0.8, 0),
    }
    lasts = {name: _played(OGB(), instance, trace.item, 50).last for name, trace in traces.items()}
    regret = {name: float(last["regret"]) for name, last in lasts.items()}
    detail = (
        ", ".join(f"{name} {value:.0f}" for name, value in regret.items()) + f", bound {lasts['cyclic']['bound']:.0f}"
    )
    sane = regret["permuted"] < 0 and max(regret.values()) < float(lasts["cyclic"]["bound"])
    return within(regret["cyclic"], 1060, 1, detail) if sane else Outcome(regret["cyclic"], "fails", detail)


def _no_bound_is_exceeded() -> Outcome:
    """A thousand small games, half of them against whoever asks for what has the least of the cache."""
    random, worst, games = np.random.default_rng(0), -np.inf, 1000
    for number in range(games):
        policy, instance, count = _small_game(number, random)
        state, asked, gained = policy.init(instance, Streams(number)), list[int](), 0.0
        values = np.zeros(instance.items)
        weights = np.ones(instance.items) if instance.weights is None else instance.weights
        for _ in range(count):
            item = int(np.argmin(state.fractional)) if number % 2 else int(random.integers(instance.items))
            asked.append(item)
            values[item] += weights[item]
            gained += policy.run_block(state, np.array([item])).fractional
            regret = np.sort(values)[-instance.capacity :].sum() - gained
            worst = max(worst, float(regret - policy.bound(state)))
    return Outcome(worst, "holds" if worst <= 1e-9 else "fails", f"largest excess over all prefixes of {games} games")


def _small_game(number: int, random: np.random.Generator) -> tuple[Any, CacheInstance, int]:
    policies = (
        OGB(),
        OGB(scale=3.0, start="empty"),
        MirrorDescent(),
        MirrorDescent(step="doubling", scale=2.0),
        MirrorDescent(map="euclidean", step="self_confident"),
        OptimisticFTRL(prediction=Nothing()),
        OptimisticFTRL(prediction=LastSlot()),
        OptimisticFTRL(prediction=Successor()),
    )
    policy, items = policies[number // 2 % len(policies)], int(random.integers(2, 12))
    batch = 1 if isinstance(policy, OGB) else int(random.integers(1, 4))
    count = int(random.integers(1, 50))
    instance = CacheInstance(
        items=items,
        capacity=int(random.integers(1, items)),
        horizon=None if isinstance(policy, OGB) and policy.start == "uniform" else count,
        weights=random.random(items) if number % 3 == 0 else None,
        batch=batch,
        multiplicity=batch,
    )
    return policy, instance, count


def _coupled_rounding_moves_less() -> Outcome:
    """Along the path of the entropy with one request a slot: one draw for all slots, against fresh ones."""
    items, capacity, slots = 100, 10, 10_000
    requests = zipf(items, slots, 0.8, 0).item
    instance = CacheInstance(items=items, capacity=capacity, horizon=slots)
    policy, random = MirrorDescent(), np.random.default_rng(0)
    state, coupled = policy.init(instance, Streams(0)), Coupled.draw(random)
    hits, moved = np.zeros(2), np.zeros(2)
    before = [coupled.round(state.fractional), madow(state.fractional, random.random())]
    for item in requests:
        hits += [kept[item] for kept in before]
        policy.run_block(state, np.array([item]))
        after = [coupled.round(state.fractional), madow(state.fractional, random.random())]
        unasked = np.arange(items) != item
        moved += [np.count_nonzero((new > old) & unasked) for new, old in zip(after, before, strict=True)]
        before = after
    same = abs(hits[0] - hits[1]) <= 0.01 * hits[1]
    ratio = float(moved[1] / moved[0])
    detail = f"items fetched unasked per slot {moved[0] / slots:.3f} and {moved[1] / slots:.2f}"
    return Outcome(
        ratio, "holds" if same and ratio >= 10 else "fails", f"{detail}; hits {hits[0]:.0f} and {hits[1]:.0f}"
    )


def web12() -> Requests:
    """The requests of the trace.

    Raises:
        DataError: when it is not below RIVAGE_DATA, or is another file.
    """
    name = "web12.trace.xz"
    path = WEB12.locate(None) / name
    WEB12.verify(name, path.read_bytes(), path)
    return read_trace(path).item


def _on_web12(test: Callable[[Requests], Outcome]) -> Callable[[], Outcome]:
    """Not tested where the trace is missing."""

    def run() -> Outcome:
        try:
            requests = web12()
        except DataError as error:
            return Outcome(None, "not tested", str(error))
        return test(requests)

    return run


def hit_ratio(policy: Any, capacity: int, requests: Requests) -> float:
    """Hits of a policy that knows the number of requests, as a share of them."""
    instance = CacheInstance(items=int(requests.max()) + 1, capacity=capacity, horizon=len(requests))
    return float(_played(policy, instance, requests).last["hits"]) / len(requests)


def _ogb_on_web12(requests: Requests) -> Outcome:
    instance = CacheInstance(items=int(requests.max()) + 1, capacity=687, horizon=len(requests))
    last = _played(OGB(), instance, requests, 50).last
    count, faster = len(requests), hit_ratio(OGB(scale=10), 687, requests)
    detail = (
        f"fractional {last['fractional'] / count:.3f}, cached {last['hits'] / count:.3f}, best fixed set "
        f"{last['optimum'] / count:.3f}, regret {last['regret']:.0f} of {last['bound']:.0f}; "
        f"cached at ten times the step {faster:.3f}"
    )
    if last["regret"] > last["bound"]:
        return Outcome(last["fractional"] / count, "fails", detail)
    return within(last["fractional"] / count, 0.552, 0.001, detail)


def _adaptive_on_web12(requests: Requests) -> Outcome:
    behind, details = -1.0, []
    for capacity in (137, 687):
        fixed = max(hit_ratio(OGB(scale=2.0**power), capacity, requests) for power in range(-4, 11))
        adaptive = hit_ratio(AdaptiveOGB(), capacity, requests)
        behind = max(behind, fixed - adaptive)
        others = ", ".join(f"{type(p).__name__} {hit_ratio(p, capacity, requests):.4f}" for p in (S3FIFO(), ARC()))
        details.append(f"C = {capacity}: adaptive {adaptive:.4f}, best fixed step {fixed:.4f}, {others}")
    return Outcome(behind, "holds" if behind <= 0.01 else "fails", "; ".join(details))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="ogb-is-the-projection",
        paper=CARRA,
        where="Algorithm 1",
        statement="OGB's state is the projected gradient step after every request.",
        expected=0.0,
        tolerance=1e-9,
        cost="quick",
        run=_ogb_is_the_projection,
    ),
    Claim(
        name="entropic-caching-is-the-minimiser",
        paper=SISALEM,
        where="negative-entropy mirror map, one request a slot",
        statement="The constant-time multiplicative update minimises linear gain and relative entropy on the capped "
        "simplex.",
        expected=0.0,
        tolerance=1e-6,
        cost="quick",
        run=_entropy_is_the_minimiser,
    ),
    Claim(
        name="entropy-wins-on-diverse-batches",
        paper=SISALEM,
        where="optimality of the entropy for R/h > 2 sqrt(N k); own instance N = 200, k = 10, R = 150, T = 1000",
        statement="With diverse batches the entropy has less regret than gradient descent, both below their bounds.",
        expected="ratio of regrets below 1",
        tolerance=0.0,
        cost="quick",
        run=_entropy_wins_on_diverse_batches,
    ),
    Claim(
        name="gradient-caching-regret",
        paper=SISALEM,
        where="Euclidean mirror map, bound of w sqrt(k (1 - k/N) T); N = 1000, k = 100, T = 50,000",
        statement="On the cyclic trace gradient descent has half of the regret of its bound (derived), and negative "
        "regret when popularity changes.",
        expected=1060.0,
        tolerance=1.0,
        cost="quick",
        run=_reference_regrets,
    ),
    Claim(
        name="regret-bounds-hold",
        paper=f"{SISALEM}; {CARRA}; Mhaisen et al., SIGMETRICS 2023",
        where="regret theorems, with the constants derived in the modules",
        statement="The regret of the fractional state never exceeds the bound, after any prefix of 1000 random and "
        "adversarial games.",
        expected="excess of at most 0",
        tolerance=0.0,
        cost="quick",
        run=_no_bound_is_exceeded,
    ),
    Claim(
        name="coupled-rounding-moves-less",
        paper=SISALEM,
        where="online coupled rounding against independent rounding, negative entropy, R = 1",
        statement="One draw for all slots fetches at least ten times fewer items unasked than fresh draws, with equal "
        "hits (1 %). Not so for gradient descent, 4 to 6 times, nor for large batches, 1.8 times.",
        expected="ratio of at least 10",
        tolerance=0.0,
        cost="quick",
        run=_coupled_rounding_moves_less,
    ),
    Claim(
        name="ogb-on-web12",
        paper=CARRA,
        where="a trace of ours, web12 at C = 687",
        statement="OGB with the step of the theory keeps to its bound on a real trace, and below the best fixed set.",
        expected=0.552,
        tolerance=0.001,
        cost="quick",
        run=_on_web12(_ogb_on_web12),
    ),
    Claim(
        name="adaptive-step-on-web12",
        paper="de Rooij et al., JMLR 2014 (AdaHedge), over OGB",
        where="a trace of ours, web12 at C = 137 and 687",
        statement="Learning the step while playing reaches the hit ratio of the best of 15 fixed steps, less 0.01.",
        expected="at most 0.01 behind",
        tolerance=0.01,
        cost="quick",
        run=_on_web12(_adaptive_on_web12),
    ),
)
