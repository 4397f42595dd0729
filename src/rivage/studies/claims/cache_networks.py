"""Statements about networks of caches, tested as ranks: the authors' own draws of networks and demands are not known.

Published gains are those of the authors' stored results, one draw per cell, with the best settings of GRD, PGA and
TGOnline over a grid chosen in hindsight; we choose in the same way, and take means over draws. A pair of policies
counts when its published gains differ by more than a tenth, and contradicts when ours differ the other way by more than
two standard errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.online.cache_network_setups import Demand, Setup, published_setup
from rivage.online.cache_networks import NetworkPolicy, play_network
from rivage.online.network_baselines import GRD, PGA
from rivage.online.path_replication import PathReplication
from rivage.online.tabular_greedy import DistributedTGOnline
from rivage.studies.claims.claim import Claim, Outcome, within

__all__ = ["CLAIMS"]

LI = "Li, Si Salem, Neglia, Ioannidis, SIGMETRICS 2022"
POLICIES = ("LRU", "LFU", "RR", "GRD", "PGA", "TGOnline")

PUBLISHED: Mapping[tuple[str, Demand], tuple[float, ...]] = {
    ("path", "oscillator"): (0.0, 0.0, 13.8, 0.0, 15.5, 19.1),
    ("path", "changing_oscillator"): (0.0, 0.0, 14.9, 0.0, 19.6, 19.6),
    ("path", "shot_oscillator"): (0.0, 0.0, 8.2, 0.0, 8.5, 9.4),
    ("abilene", "oscillator"): (0.0, 0.0, 52.9, 17.0, 73.8, 65.2),
    ("abilene", "changing_oscillator"): (0.0, 0.0, 50.7, 27.4, 73.0, 72.9),
    ("abilene", "shot_oscillator"): (0.0, 0.0, 32.9, 9.5, 33.1, 36.3),
    ("geant", "poisson"): (1034.0, 1292.0, 984.0, 1548.0, 1468.0, 1447.0),
    ("dtelekom", "poisson"): (532.0, 697.0, 495.0, 957.0, 907.0, 925.0),
    ("erdos_renyi", "poisson"): (1141.0, 1331.0, 1091.0, 1546.0, 1470.0, 1454.0),
    ("balanced_tree", "poisson"): (3535.0, 4016.0, 3914.0, 5421.0, 4672.0, 4729.0),
    ("hypercube", "poisson"): (1787.0, 2107.0, 1834.0, 2417.0, 2265.0, 2196.0),
    ("geant", "changing"): (650.0, 660.0, 625.0, 1029.0, 882.0, 916.0),
    ("dtelekom", "changing"): (475.0, 492.0, 428.0, 848.0, 712.0, 753.0),
}
"""Network and demand -> time-average gain of each policy, requests and responses."""


def _gain(policy: NetworkPolicy, setup: Setup, seed: int) -> float:
    """Per request, both ways as in the published figures."""
    gain = play_network(policy, setup.instance, setup.requests, streams=Streams(seed)).last["gain"]
    return 2 * float(gain) / len(setup.requests)


def _settings(setup: Setup) -> Mapping[str, Iterable[NetworkPolicy]]:
    """The grids of the published comparison."""
    per_time = setup.per_time
    periods = sorted({max(1, round(period * per_time)) for period in (1, 5)})
    return {
        "LRU": [PathReplication(rule="lru")],
        "LFU": [PathReplication(rule="lfu")],
        "RR": [PathReplication(rule="rr")],
        "GRD": [GRD(forgetting=rate, per_time=per_time) for rate in (0.005, 0.01, 0.05, 0.1)],
        "PGA": [
            PGA(gain=gain, every=every, per_time=per_time)
            for gain in (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.0, 5.0)
            for every in periods
        ],
        "TGOnline": [
            DistributedTGOnline(learning_rate=rate, arms="independent")
            for rate in (1e-4, 5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1)
        ],
    }


def _row(network: str, demand: Demand, draws: int) -> dict[str, Float64[ndarray, "draws"]]:
    """Gain of each policy in each draw, with the best settings for it."""
    gains = {name: np.zeros(draws) for name in POLICIES}
    for seed in range(draws):
        setup = published_setup(network, demand, Streams(seed))
        for name, policies in _settings(setup).items():
            gains[name][seed] = max(_gain(policy, setup, seed) for policy in policies)
    return gains


def _ranks(network: str, demand: Demand, draws: int) -> Outcome:
    ours, notes, reversed_pairs = _row(network, demand, draws), list[str](), 0
    published = dict(zip(POLICIES, PUBLISHED[network, demand], strict=True))
    for low, high in permutations(POLICIES, 2):
        lead = ours[low] - ours[high]
        if published[low] >= 0.9 * published[high] or lead.mean() < 0:
            continue
        clear = lead.mean() > 2 * lead.std(ddof=1) / draws**0.5 or not lead.any()
        reversed_pairs += clear
        notes.append(f"{low} not below {high}{'' if clear else ', within two standard errors'}")
    figures = ", ".join(f"{name} {ours[name].mean():.1f} ({published[name]:g})" for name in POLICIES)
    return within(
        reversed_pairs, 0, 0, "; ".join([f"{figures}; means of {draws} draws, published in brackets", *notes])
    )


def _rank_claim(network: str, demand: Demand, cost: Literal["quick", "slow"]) -> Claim:
    def run() -> Outcome:
        return _ranks(network, demand, 5)

    return Claim(
        name=f"cache-network-{network}-{demand}".replace("_", "-"),
        paper=LI,
        where="figures of time-average gains, from the authors' stored results",
        statement=f"On {network} under {demand} demand the policies rank as published: reversed pairs.",
        expected=0.0,
        tolerance=0.0,
        cost=cost,
        run=run,
    )


def _nothing() -> Outcome:
    gains = {
        f"{kind} on {network}, {demand}, draw {n}": _gain(
            PathReplication(rule=kind), published_setup(network, demand, Streams(n)), n
        )
        for network, demand in PUBLISHED
        if demand.endswith("oscillator")
        for kind in ("lru", "lfu", "fifo")
        for n in range(5)
    }
    most = max(gains, key=gains.__getitem__)
    return within(gains[most], 0.0, 0.5, f"largest of {len(gains)} games: {most}")


def _path() -> Outcome:
    setup = published_setup("path", "oscillator", Streams(0))
    gains = [_gain(DistributedTGOnline(learning_rate=5e-4, arms="independent"), setup, seed) for seed in range(20)]
    return within(float(np.mean(gains)), 19.1, 2.0, f"20 seeds, {min(gains):.1f} to {max(gains):.1f}; optimum 20")


def _update_costs() -> Outcome:
    moves: dict[str, list[int]] = {"correlated": [], "independent": []}
    gains: dict[str, list[float]] = {"correlated": [], "independent": []}
    for seed in range(10):
        setup = published_setup("dtelekom", "changing", Streams(seed))
        for arms in ("correlated", "independent"):
            policy = DistributedTGOnline(learning_rate=5e-4, arms=arms)
            last = play_network(policy, setup.instance, setup.requests, streams=Streams(seed)).last
            moves[arms].append(last["moves"])
            gains[arms].append(2 * last["gain"] / len(setup.requests))
    ratio = float(np.sum(moves["independent"]) / np.sum(moves["correlated"]))
    detail = "; ".join(f"{arms} {np.mean(moves[arms]):.0f} moves, gain {np.mean(gains[arms]):.1f}" for arms in moves)
    lost = 1 - float(np.mean(gains["correlated"]) / np.mean(gains["independent"]))
    holds = ratio >= 10 and abs(lost) < 0.05
    return Outcome(ratio, "holds" if holds else "fails", f"10 draws: {detail}")


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="cache-network-adversary",
        paper=LI,
        where="figures of time-average gains, adversarial rows",
        statement="Against the oscillators LRU, LFU and FIFO gain nothing, to the digits published.",
        expected=0.0,
        tolerance=0.5,
        cost="quick",
        run=_nothing,
    ),
    Claim(
        name="cache-network-path-gain",
        paper=LI,
        where="figures of time-average gains, path under the oscillator, step 5e-4",
        statement="TGOnline comes close to the best placement, which gains 20.",
        expected=19.1,
        tolerance=2.0,
        cost="quick",
        run=_path,
    ),
    *(_rank_claim(network, demand, "quick" if network == "path" else "slow") for network, demand in PUBLISHED),
    Claim(
        name="cache-network-update-costs",
        paper=LI,
        where="update costs on dtelekom, changing popularity: 5929 against 332 moves",
        statement="Correlated arms move items at least ten times less often, and gain as much.",
        expected="18, at least 10",
        tolerance=0.0,
        cost="slow",
        run=_update_costs,
    ),
)
