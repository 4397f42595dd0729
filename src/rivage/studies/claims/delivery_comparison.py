"""Policies of inference delivery against each other, on equal terms: tuned with equal effort, seed by seed.

In every cell each policy of `CANDIDATES` plays with its four settings on the tuning seeds; the one with the largest
mean gain per request then plays the test seeds, which all policies share. Policies with foresight play them as they
are. What is compared is the gain per request, in ms of cost, over all 240 slots, the first included.

INFIDA *wins* against a rival in a cell when the paired differences over the test seeds have a mean above 0 with 95 %
confidence (Student's t) and their signs say so as well (two-sided sign test, 5 %); it *loses* the other way round;
otherwise the two are *level*. Of a hundred level pairs a few would still be called won or lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.stats import binomtest, t

from rivage.core.seeding import Streams
from rivage.inference.demand import Profile
from rivage.inference.policy import DeliveryPolicy
from rivage.inference.pooled import pooled_optimum
from rivage.inference.replay import deliver
from rivage.studies.claims.delivery_scenarios import CANDIDATES, FORESIGHT, TEST_SEEDS, TUNING_SEEDS, Scene, scene

__all__ = ["Cell", "Paired", "compare", "fixed_bound", "gain_per_request", "paired", "tuned"]

Gains = Float64[ndarray, "seeds"]


@dataclass(frozen=True, slots=True)
class Paired:
    """Differences of two policies, seed by seed.

    Args:
        mean: of the differences.
        half: of the 95 % interval.
        p: of the sign test.
        verdict: of the first policy.
    """

    mean: float
    half: float
    p: float
    verdict: Literal["wins", "loses", "level"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What came out in a cell.

    Args:
        network: its name.
        profile: of popularity.
        gains: policy -> gain per request on each test seed.
        ntag: policy -> the same, normalised slot by slot.
        moved: policy -> MB fetched per slot, mean over seeds.
        chosen: policy -> number of the setting that tuning chose.
        bound: per seed, what no fixed fractions exceed.
    """

    network: str
    profile: Profile
    gains: dict[str, Gains] = field(default_factory=dict)
    ntag: dict[str, Gains] = field(default_factory=dict)
    moved: dict[str, float] = field(default_factory=dict)
    chosen: dict[str, int] = field(default_factory=dict)
    bound: Gains = field(default_factory=lambda: np.empty(0))

    def against(self, rival: str, policy: str = "INFIDA") -> Paired:
        """Paired differences."""
        return paired(self.gains[policy] - self.gains[rival])


def paired(differences: Gains) -> Paired:
    """Interval, sign test and verdict."""
    n, mean = len(differences), float(differences.mean())
    half = float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / np.sqrt(n))
    moving = differences[differences != 0]
    p = float(binomtest(int((moving > 0).sum()), len(moving)).pvalue) if len(moving) else 1.0
    clear = abs(mean) > half and p < 0.05
    return Paired(mean, half, p, "level" if not clear else "wins" if mean > 0 else "loses")


def gain_per_request(policy: DeliveryPolicy, drawn: Scene, seed: int) -> tuple[float, float, float]:
    """Gain per request over all slots, NTAG, and MB fetched per slot."""
    streams = Streams(seed).child("policy")
    last = deliver(policy, drawn.instance, drawn.requests, streams=streams, every=len(drawn.requests)).last
    return last["gain"] / last["requests"], last["ntag"], last["moved"] / last["slots"]


def tuned(network: str, profile: Profile, candidates: Sequence[DeliveryPolicy]) -> int:
    """The setting that gains most on the tuning seeds; the first of equals."""
    drawn = [scene(network, profile, seed) for seed in TUNING_SEEDS]
    means = [
        np.mean([gain_per_request(policy, each, seed)[0] for each, seed in zip(drawn, TUNING_SEEDS, strict=True)])
        for policy in candidates
    ]
    return int(np.argmax(means))


def fixed_bound(drawn: Scene) -> float:
    """Gain per request that no fixed fractions exceed, by linear program on the mean slot."""
    mean = drawn.requests.mean(axis=0)
    ranking = drawn.instance.ranking
    base = float(mean @ ranking.cost[ranking.first[1:] - 1])  # one pinned model takes all, and is last
    return (base - pooled_optimum(drawn.instance, mean).cost) / float(mean.sum())


def compare(
    network: str,
    profile: Profile,
    *,
    candidates: Mapping[str, Sequence[DeliveryPolicy]] = CANDIDATES,
    foresight: Mapping[str, DeliveryPolicy] = FORESIGHT,
    seeds: Sequence[int] = TEST_SEEDS,
    tell: Callable[[str], None] = lambda line: None,
) -> Cell:
    """Tune, then play the test seeds.

    Raises:
        DataError: when the network's file is missing.
    """
    cell = Cell(network, profile)
    drawn = [scene(network, profile, seed) for seed in seeds]
    cell = Cell(network, profile, bound=np.array([fixed_bound(each) for each in drawn]))
    chosen = dict(foresight)
    for name, choices in candidates.items():
        cell.chosen[name] = tuned(network, profile, choices) if len(choices) > 1 else 0
        chosen[name] = choices[cell.chosen[name]]
    for name, policy in chosen.items():
        found = np.array([gain_per_request(policy, each, seed) for each, seed in zip(drawn, seeds, strict=True)])
        cell.gains[name], cell.ntag[name] = found[:, 0], found[:, 1]
        cell.moved[name] = float(found[:, 2].mean())
        tell(f"{network}, {profile}: {name} {found[:, 0].mean():.3f}, setting {cell.chosen.get(name, 0)}")
    return cell
