"""DP-FTRL: differential privacy of whole clients without sampling, for those who come when they can.

The server's model follows noisy prefix sums instead of adding noise to every step: with Δ_s the sum of clipped updates
of round s (see `rivage.federated.clipped_sum`) and m the expected number of clients,

    θ_t = θ_0 + ( Σ_{s ≤ t} Δ_s + N_t ) / m ,        so that round t adds ( Δ_t + N_t − N_{t−1} ) / m .

N_t comes from a binary tree over the rounds 1 … L of an epoch. Every node that is complete, one of height h covers 2^h
rounds, has noise of its own n ~ N(0, (z S)² I). Prefix t is the sum of popcount(t) nodes. A node's noise is reduced by
that below it, which estimates the same sum once more; with v_h = 2^h / (2^{h+1} − 1), from 1 down to a half,

    e(leaf) = n(leaf),    e(node) = v_h n(node) + (1 − v_h) ( e(left) + e(right) ),    Var e = v_h (z S)² ,

    N_t = Σ over the nodes of prefix t of e(node),    Var N_t = (z S)² Σ over the bits h of t of v_h .

With V the covariance of what N adds in each round, in units of (z S)², whoever takes part in round t of an epoch alone
has caused one Gaussian release of multiplier

    z (V⁻¹)_tt^(−½) ,        (V⁻¹)_tt ≤ ⌊log₂ L⌋ + 1 ,

the right side the largest number of complete nodes that hold a round, which is what is accounted for epochs of more
than 1024 rounds. Where a client takes part at most once per epoch (``run.sampling = "epochs"``) its epochs add up, and
nothing is assumed of when anybody is there. A new epoch starts a new tree on top of what the last one has reached. The
relation is *zero out*: a client that takes part sends nothing new. Noise of a node is drawn from the seed and the place
of the node, so that nothing is kept between rounds, and no model ever carries it. Cost: round t draws twice as many
vectors as the lowest bit of t is worth, about log₂ L on average but 2 L − 1 where an epoch of L = 2^h rounds ends, and
holds log₂ L of them.

References:
    Kairouz, McMahan, Song, Thakkar, Thakurta, Xu. Practical and private (deep) learning without sampling or shuffling.
    ICML 2021, arXiv 2103.00039, Algorithm 1; restarts as in its section 5.
    Honaker. Efficient use of differentially private binary trees. TPDP 2015 (estimates from below).
    Denisov, McMahan, Rush, Smith, Thakurta. Improved differential privacy for SGD via optimal private linear operators
    on adaptive streams. NeurIPS 2022, arXiv 2202.08312 (updates may depend on earlier models).

Deviations: momentum is the method's (``kind = "fedavgm"``), applied to noisy steps: it is processing of what is public.
The papers account ⌈log₂ L⌉ + 1 nodes. But single nodes are never released, only steps are: with V = R Rᵀ, R triangular,
they are R times a sequence of sums with noise of variance 1 each, in which round t has weights R⁻¹_st, s ≥ t. These are
Gaussian releases one after the other, each free to depend on those before, and Σ_s (R⁻¹_st)² = (V⁻¹)_tt.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.federated.algorithm import Reference
from rivage.federated.clipped_sum import ClippedMean, ClippedSum

__all__ = ["DPFTRL", "PREFIXES", "TreeSum", "prefix_step", "releases", "step_covariance"]

_EXACT = 1024  # rounds of an epoch that are accounted by their covariance: a tenth of a GB for half a second

PREFIXES = "prefix sums"
"""What a promise has under ``noise_on`` where the place of a round decides what it costs."""

Draw = Callable[[int, int], Float64[ndarray, "dim"]]
"""Noise of a node, by its height and its number among those of that height, from 0."""


@dataclass(frozen=True, kw_only=True)
class DPFTRL(ClippedMean):
    """The mean of clipped updates with noise on prefix sums.

    Args:
        noise: multiplier z of the clip on every node, > 0.
        clip: largest norm S of an update, > 0.
        cap: records from which on a client has weight 1, > 0; None gives every client weight 1.
        denominator: m, > 0; None takes the expected number of clients in a round.
        delta: δ at which ε is told, in (0, 1).
    """

    needs_epochs: ClassVar[bool] = True
    reference: ClassVar[Reference] = Reference(
        key="kairouz21",
        authors="Peter Kairouz and H. Brendan McMahan and Shuang Song and Om Thakkar and Abhradeep Thakurta and "
        "Zheng Xu",
        title="Practical and private (deep) learning without sampling or shuffling",
        venue="ICML",
        year=2021,
        arxiv="2103.00039",
        part="Algorithm 1",
    )

    def summed(self) -> TreeSum:
        """The sum of one round."""
        return TreeSum(self)

    def promise(self) -> dict[str, Any]:
        """What record and message log say of it, but for who takes part."""
        mechanism = "DP-FTRL: Gaussian noise of the server on prefix sums, by a tree"
        return {"mechanism": mechanism, "noise_on": PREFIXES, **super().promise()}

    def weighed(self, steps: Float64[ndarray, "rounds m"], epoch: int) -> Float64[ndarray, "rounds m"]:
        """V⁻¹ times what the model has moved in each round, epoch by epoch: what best tells who took part in it.

        Epochs of more than 1024 rounds are handed back as they are.
        """
        result = steps.copy()
        for start in range(0, len(steps), epoch):
            part = result[start : start + epoch]
            if len(part) <= _EXACT:
                part[:] = np.linalg.solve(step_covariance(len(part)), part)
        return result


class TreeSum(ClippedSum):
    """Adds up clipped updates, and what the noise of the prefix sum changes in this round."""

    @property
    def multiplier(self) -> float:
        """Of the one Gaussian release that whoever takes part in this round has caused."""
        place = self.moment.round % self._epoch
        rounds = min(self._epoch, self.moment.rounds - self.moment.round + place)
        return float(self.settings.noise / math.sqrt(releases(rounds)[place]))

    def noise(self) -> Float64[ndarray, "dim"]:
        """N_t − N_{t−1}."""
        tree, place = divmod(self.moment.round, self._epoch)
        shape, deviation = tuple(self.base.shape), self.settings.noise * self.clip

        def draw(height: int, number: int) -> Float64[ndarray, "dim"]:
            node = self.moment.throughout.child("node", tree, height, number)
            drawn: ndarray = node.numpy("noise").standard_normal(shape) * deviation
            return drawn

        return prefix_step(draw, place + 1)

    @property
    def _epoch(self) -> int:
        assert self.moment.epoch is not None, "settings are refused otherwise"
        return self.moment.epoch


def prefix_step(draw: Draw, place: int) -> Float64[ndarray, "dim"]:
    """How the noise of the prefix sum changes with the leaf at this place, from 1.

    The new node replaces those that the last prefix had below it; both are estimated from the leaves of the node on.

    Example:
        >>> import numpy as np
        >>> float(prefix_step(lambda height, number: np.float64(10**height), 1))  # the first leaf
        1.0
        >>> round(float(prefix_step(lambda height, number: np.float64(10**height), 2)), 6)  # 2/3 · 10 + 1/3 · 2 − 1
        6.333333
    """
    lowest = place & -place
    stack: list[tuple[int, Float64[ndarray, "dim"]]] = []
    before: Any = 0.0
    for leaf in range(place - lowest, place):
        if leaf == place - 1:
            before = sum((estimate for _, estimate in stack), 0.0)
        height, estimate = 0, draw(0, leaf)
        while stack and stack[-1][0] == height:
            height, left = height + 1, stack.pop()[1]
            own = 2**height / (2 ** (height + 1) - 1)
            estimate = own * draw(height, leaf >> height) + (1 - own) * (left + estimate)
        stack.append((height, estimate))
    ((_, node),) = stack
    step: ndarray = node - before
    return step


@lru_cache(maxsize=2)
def step_covariance(rounds: int) -> Float64[ndarray, "rounds rounds"]:
    """Of the steps of one tree, with noise of variance 1 on every node. Time and memory O(rounds² log rounds).

    Example:
        >>> step_covariance(2).round(3).tolist()
        [[1.0, -0.667], [-0.667, 1.0]]
    """
    heights = [(height, number) for height in range(rounds.bit_length()) for number in range(rounds >> height)]
    places = {node: place for place, node in enumerate(heights)}
    units = np.eye(len(places))
    steps = np.array([prefix_step(lambda *node: units[places[node]], place) for place in range(1, rounds + 1)])
    covariance: ndarray = steps @ steps.T
    covariance.setflags(write=False)
    return covariance


@lru_cache(maxsize=4)
def releases(rounds: int) -> Float64[ndarray, "rounds"]:
    """How many Gaussian releases of multiplier z one round of an epoch is worth, by its place.

    Example:
        >>> releases(4).round(3).tolist()  # three nodes hold each of them
        [2.562, 2.562, 2.714, 2.333]
    """
    worth = np.full(rounds, float(rounds.bit_length()))
    if rounds <= _EXACT:
        worth = np.diag(np.linalg.inv(step_covariance(rounds))).copy()
    worth.setflags(write=False)
    return worth
