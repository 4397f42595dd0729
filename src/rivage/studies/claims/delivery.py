"""Statements about inference delivery: what the publication's evaluation found, on networks of ours.

The text of the evaluation was not at hand: what is claimed is as remembered, without figures, and thresholds are ours.
Networks and demands are those of `rivage.studies.claims.delivery_scenarios`; each claim says what it changes. INFIDA
takes steps of 3 over the largest gradient, other policies their defaults, and gains are per request, in ms of cost.
Quick claims play three draws of who asks for what, slow ones ten. Not all hold: docs/explanation/delivery-compared.md
says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.inference.gain import Slot, contend
from rivage.inference.greedy import StaticGreedy
from rivage.inference.infida import INFIDA
from rivage.inference.infida_offline import INFIDAOffline
from rivage.inference.instance import Instance
from rivage.inference.model_caches import ModelCaches
from rivage.inference.olag import OLAG
from rivage.inference.policy import DeliveryPolicy, Seen
from rivage.inference.replay import Delivered, deliver
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.claims.delivery_comparison import fixed_bound
from rivage.studies.claims.delivery_scenarios import NETWORKS, SLOTS, Scene, scene

__all__ = ["ALPHAS", "CLAIMS", "LOADS", "golden_slot", "refreshed", "scarcity", "traded"]

PAPER = "Si Salem, Castellano, Neglia, Pianese, Araldo, IEEE/ACM ToN 32(1), 2024, arXiv 2105.02510"
_ROUGHLY = "evaluation, as remembered; network and demand of ours"
ALPHAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
LOADS = (0.25, 1.0, 4.0)
SEEDS = tuple(range(10))
_ONLINE = INFIDA(scale=3.0)
_WAITING: Mapping[str, INFIDA] = {
    "every slot": INFIDA(scale=3.0, keep_draws=False),
    "every 10 slots": INFIDA(scale=3.0, keep_draws=False, refresh=10),
    "every 60 slots": INFIDA(scale=3.0, keep_draws=False, refresh=60),
    "ever more rarely": INFIDA(scale=3.0, keep_draws=False, stretch=1.5),
    "every slot, the same numbers": INFIDA(scale=3.0),
}

Row = Float64[ndarray, "n"]


def _play(policy: DeliveryPolicy, drawn: Scene, seed: int, *, points: int = 1) -> Delivered:
    slots = len(drawn.requests)
    streams = Streams(seed).child("policy")
    return deliver(policy, drawn.instance, drawn.requests, streams=streams, every=slots // points)


def _gain(played: Delivered) -> float:
    return float(played.last["gain"] / played.last["requests"])


def _late(played: Delivered, key: str = "gain") -> float:
    """Per request after the last point but one."""
    before, last = played.points[-2:]
    return float((last[key] - before[key]) / (last["requests"] - before["requests"]))


def traded(seed: int, slots: int) -> dict[str, Row]:
    """What INFIDA serves with each α of `ALPHAS`, over all slots of fixed demand on Topology I.

    A fifth of the load and twice the memory, so that stations have room for a large model and can use it. Latency,
    accuracy in points, and shares of all requests: answered by large models, at stations and further up, and by small
    ones at stations.
    """
    rows = []
    for alpha in ALPHAS:
        drawn = scene("topology I", "fixed", seed, slots=slots, load=0.2, memory=2.0, alpha=alpha)
        served = _served(_ONLINE, drawn, seed)
        ranking, accuracy = drawn.instance.ranking, drawn.instance.accuracy[drawn.instance.ranking.model]
        large, near = accuracy > 0.5, ranking.hop == 0
        rows.append(
            [
                served @ ranking.latency_ms,
                100 * served @ accuracy,
                served[large & near].sum(),
                served[large & ~near].sum(),
                served[~large & near].sum(),
            ]
        )
    names = ("latency", "accuracy", "large near", "large far", "small near")
    return dict(zip(names, np.array(rows).T, strict=True))


def _served(policy: DeliveryPolicy, drawn: Scene, seed: int) -> Row:
    """Share of the requests that each possibility served."""
    state = policy.init(drawn.instance, Streams(seed).child("policy"), slots=len(drawn.requests))
    total = np.zeros(len(drawn.instance.ranking))
    for requests in drawn.requests:
        loaded = policy.act(state)
        slot, served = contend(drawn.instance, requests, loaded)
        total += served
        state = policy.update(state, Seen(slot, loaded, served))
    return np.asarray(total / total.sum())


def _trade(seeds: Sequence[int], slots: int) -> Outcome:
    found = [traded(seed, slots) for seed in seeds]
    rows = {name: np.mean([each[name] for each in found], axis=0) for name in found[0]}
    latency, accuracy = rows["latency"], rows["accuracy"]
    back = max(float(-np.diff(latency).min()), float(-np.diff(accuracy).min()), 0.0)
    detail = "α, ms, points, large near and far, small near: " + "; ".join(
        f"{alpha:g}: {latency[i]:.1f} {accuracy[i]:.1f} "
        + " ".join(f"{rows[name][i]:.0%}" for name in ("large near", "large far", "small near"))
        for i, alpha in enumerate(ALPHAS)
    )
    moves = rows["large far"][-1] > rows["large far"][0] and rows["small near"][-1] < rows["small near"][0]
    return Outcome(back, "holds" if back <= 0.1 and moves else "fails", detail)


def _near_offline(network: str, seeds: Sequence[int]) -> Outcome:
    """INFIDA in the last quarter of fixed demand, against INFIDA offline there."""
    shares, greedy = [], []
    for seed in seeds:
        drawn = scene(network, "fixed", seed)
        offline, online, static = (
            _late(_play(policy, drawn, seed, points=4))
            for policy in (INFIDAOffline(steps=100, tolerance=0.01), _ONLINE, StaticGreedy())
        )
        shares.append(online / offline)
        greedy.append(static / offline)
    share, detail = float(np.mean(shares)), f"static greedy {np.mean(greedy):.3f} of INFIDA offline"
    return Outcome(share, "holds" if share >= 0.98 and np.mean(greedy) >= 0.98 else "fails", detail)


def _beats_olag(network: str, seeds: Sequence[int]) -> Outcome:
    pairs = []
    for seed in seeds:
        drawn = scene(network, "fixed", seed)
        pairs.append([_gain(_play(policy, drawn, seed)) for policy in (_ONLINE, OLAG())])
    return _ahead(np.array(pairs), ("INFIDA", "OLAG"))


def _tracks(network: str, seeds: Sequence[int]) -> Outcome:
    """Against the better of the two."""
    pairs, bounds = [], []
    for seed in seeds:
        drawn = scene(network, "sliding", seed)
        policies = (_ONLINE, StaticGreedy(), INFIDAOffline(steps=100, tolerance=0.01))
        ours, *fixed = (_gain(_play(policy, drawn, seed)) for policy in policies)
        pairs.append([ours, max(fixed)])
        bounds.append(fixed_bound(drawn))
    outcome = _ahead(np.array(pairs), ("INFIDA", "the better of the two"))
    detail = f"{outcome.detail}; no fixed fractions exceed {np.mean(bounds):.2f}"
    return Outcome(outcome.measured, outcome.verdict, detail)


def _ahead(pairs: Float64[ndarray, "seeds 2"], names: tuple[str, str]) -> Outcome:
    """The mean difference; it holds when it is positive on nine seeds of ten."""
    differences = pairs[:, 0] - pairs[:, 1]
    detail = f"{names[0]} {pairs[:, 0].mean():.2f}, {names[1]} {pairs[:, 1].mean():.2f}"
    clear = differences.mean() > 0 and (differences > 0).mean() >= 0.9
    return Outcome(float(differences.mean()), "holds" if clear else "fails", detail)


def refreshed(seed: int) -> dict[str, tuple[float, float]]:
    """NTAG, and MB fetched per slot, for each way to wait between draws: 960 slots of fixed demand on the tree."""
    drawn = scene("tree", "fixed", seed, slots=4 * SLOTS)
    lasts = {name: _play(policy, drawn, seed).last for name, policy in _WAITING.items()}
    return {name: (last["ntag"], last["moved"] / last["slots"]) for name, last in lasts.items()}


def _refresh(seeds: Sequence[int]) -> Outcome:
    found = [refreshed(seed) for seed in seeds]
    means = {name: np.mean([each[name] for each in found], axis=0) for name in _WAITING}
    often, rarely = means["every slot"], means["ever more rarely"]
    fewer = float(often[1] / rarely[1])
    detail = ", ".join(f"{name}: NTAG {ntag:.2f}, {moved:.0f} MB" for name, (ntag, moved) in means.items())
    return Outcome(fewer, "holds" if fewer >= 10 and rarely[0] >= 0.95 * often[0] else "fails", detail)


def scarcity(network: str, seed: int) -> dict[str, Row]:
    """Gain per request of INFIDA and of OLAG for each load of `LOADS`, fixed demand."""
    rows = []
    for load in LOADS:
        drawn = scene(network, "fixed", seed, slots=120, load=load)
        rows.append([_gain(_play(policy, drawn, seed)) for policy in (_ONLINE, OLAG())])
    return dict(zip(("INFIDA", "OLAG"), np.array(rows).T, strict=True))


def _scarce(network: str, seeds: Sequence[int]) -> Outcome:
    found = [scarcity(network, seed) for seed in seeds]
    ours, theirs = (np.mean([each[name] for each in found], axis=0) for name in ("INFIDA", "OLAG"))
    ratio = ours / theirs
    detail = ", ".join(
        f"load {load:g}: {a:.2f} to {b:.2f}, {r:.3f} times"
        for load, a, b, r in zip(LOADS, ours, theirs, ratio, strict=True)
    )
    return Outcome(float(ratio[-1] - ratio[0]), "holds" if (np.diff(ratio) > 0).all() else "fails", detail)


def golden_slot() -> Slot:
    """A small network by hand: nodes 0 – 1 – 2 – 3 in line, three tasks with three models each, no contention."""
    requests = np.array([60.0, 20.0, 30.0, 10.0, 15.0, 5.0])
    delays = np.array([[8.0, 20, 60], [8, 20, 60], [3, 8, 25], [2, 6, 24]])
    pinned = np.zeros((4, 9), bool)
    pinned[3] = True
    far = np.array([0.0, 6.0, 12.0, 27.0])
    instance = Instance(
        task=np.repeat(np.arange(3), 3),
        accuracy=np.tile([0.40, 0.58, 0.66], 3),
        sizes=np.tile(np.tile([1.0, 2.0, 4.0], 3), (4, 1)),
        delays_ms=np.tile(delays, (1, 3)),
        throughput=np.vstack([np.outer([30.0, 60.0, 120.0], np.tile([1.0, 1 / 2, 1 / 3], 3)), np.full(9, np.inf)]),
        budgets=np.array([2.0, 4.0, 5.0, 21.0]),
        pinned=pinned,
        asked=np.repeat(np.arange(3), 2),
        paths=np.array([[0, 1, 2, 3], [1, 2, 3, -1]] * 3),
        latency_ms=np.array([far, [*(far[1:] - 6.0), np.inf]] * 3),
        alpha=1.0,
    )
    most = instance.throughput[instance.ranking.node, instance.ranking.model]
    return Slot(instance=instance, requests=requests, capacity=np.minimum(requests[instance.ranking.type], most))


def _against_lru() -> Outcome:
    """The same slot 500 times."""
    slot = golden_slot()
    policies = {
        "INFIDA": INFIDA(step="constant", scale=1e-3),
        "LRU": ModelCaches(),
        "LRU at the first node": ModelCaches(fetch="first"),
    }
    means = {
        name: float(np.mean([_repeat(policy, slot, seed) for seed in range(5)])) for name, policy in policies.items()
    }
    ours, *others = means.values()
    ratio = ours / max(others)
    detail = ", ".join(f"{name} {mean:.0f}" for name, mean in means.items())
    return Outcome(ratio, "holds" if ratio >= 1.15 else "fails", detail)


def _repeat(policy: Any, slot: Slot, seed: int, slots: int = 500) -> float:
    state, total = policy.init(slot.instance, Streams(seed), slots=slots), 0.0
    for _ in range(slots):
        loaded = policy.act(state)
        total += slot.gain(loaded)
        state = policy.update(state, Seen(slot, loaded, slot.served(loaded)))
    return total / slots


def _on(test: Callable[[str, Sequence[int]], Outcome], network: str, seeds: Sequence[int]) -> Callable[[], Outcome]:
    """A test on a network; not tested where its file is missing."""

    def run() -> Outcome:
        try:
            return test(network, seeds)
        except DataError as error:
            return Outcome(None, "not tested", str(error))

    return run


_SLUGS = {"topology I": "topology-i", "tree": "tree", "GÉANT": "geant"}


def _everywhere(
    name: str, statement: str, expected: str, test: Callable[[str, Sequence[int]], Outcome], *, quick: bool
) -> tuple[Claim, ...]:
    """The same claim on all networks."""
    return tuple(
        Claim(
            name=f"delivery-{name}-{_SLUGS[network]}",
            paper=PAPER,
            where=f"{_ROUGHLY}: {network}",
            statement=statement,
            expected=expected,
            tolerance=0.0,
            cost="quick" if quick else "slow",
            run=_on(test, network, SEEDS[:3] if quick else SEEDS),
        )
        for network in NETWORKS
    )


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="delivery-against-lru",
        paper="KServe ModelMesh and Ray Serve multiplexing (LRU) against " + PAPER,
        where="four nodes in line, three tasks, three models each; 500 equal slots",
        statement="INFIDA gains at least 15 % more than LRU caches of models, whether all nodes fetch what they miss "
        "or the first alone.",
        expected="ratio of at least 1.15",
        tolerance=0.0,
        cost="quick",
        run=_against_lru,
    ),
    Claim(
        name="delivery-latency-accuracy",
        paper=PAPER,
        where=f"{_ROUGHLY}: Topology I, fixed",
        statement="Small α serves small models at base stations, large α large models further up; from α to α latency "
        "and accuracy both rise.",
        expected="largest step back of at most 0.1",
        tolerance=0.1,
        cost="quick",
        run=partial(_trade, SEEDS[:3], 60),
    ),
    Claim(
        name="delivery-refresh",
        paper=PAPER,
        where=f"{_ROUGHLY}: tree, fixed, 960 slots, new random numbers in every draw",
        statement="Drawing models ever more rarely fetches at least ten times less and keeps 95 % of the NTAG.",
        expected="ratio of at least 10",
        tolerance=0.0,
        cost="quick",
        run=partial(_refresh, SEEDS[:2]),
    ),
    *_everywhere(
        "near-offline",
        "Under fixed popularity INFIDA comes within 2 % of INFIDA offline, and static greedy does.",
        "at least 0.98",
        _near_offline,
        quick=False,
    ),
    *_everywhere(
        "beats-olag",
        "Under fixed popularity INFIDA gains more than OLAG.",
        "difference above 0, on nine seeds of ten",
        _beats_olag,
        quick=True,
    ),
    *_everywhere(
        "tracks",
        "Under sliding popularity INFIDA gains more than static greedy and INFIDA offline, which know all requests.",
        "difference above 0, on nine seeds of ten",
        _tracks,
        quick=False,
    ),
    *_everywhere(
        "scarcity",
        "The more load, the more INFIDA gains over OLAG: the ratio of gains rises from load to load.",
        "ratio at the largest load above that at the smallest",
        _scarce,
        quick=False,
    ),
)
