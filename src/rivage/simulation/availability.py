"""Who is there: availability as a pure function of (seed, client, round), at any population size.

Nothing is stored and nothing is stepped: any client at any round may be asked alone, in any order, and the
answer is the same. The Markov chains are followed *backwards* to their last regeneration.

A two-state chain with stationary availability π and second eigenvalue λ has P01 = π(1 − λ) and P11 = π +
λ(1 − π). With a = min(P01, P11) and ρ = 1 − abs(λ), one step is: with probability ρ the state is drawn
afresh, 1 with probability a/ρ; otherwise it is the previous state (its negation if λ < 0). A fresh draw
forgets the past, so the state at round t depends only on the steps since the latest fresh draw: expected
1/ρ steps, an exact sample of the stationary chain.

References:
    Propp, Wilson. Exact sampling with coupled Markov chains and applications to statistical mechanics. Random
    Structures & Algorithms, 1996 (looking backwards).

    Rodio, Faticanti, Marfoq, Neglia, Leonardi. Federated learning under heterogeneous and correlated client
    availability. INFOCOM 2023, arXiv 2301.04632 (the availability model).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.philox import uniforms
from rivage.core.registry import Registry

__all__ = [
    "AVAILABILITY",
    "Always",
    "Availability",
    "Bernoulli",
    "Heterogeneous",
    "Markov",
    "bernoulli",
    "markov",
    "require_chain",
]

Ids = Int64[ndarray, "n"]
Mask = Bool[ndarray, "n"]
Rate = float | Float64[ndarray, "n"]

_log = logging.getLogger(__name__)

_STATE, _LOST, _MEAN = 0, 1, 2  # Philox streams
_ORIGIN = 1 << 31  # word of round 0: the walk may step back to rounds before the run
_MAX_WALK = 10_000  # steps
_BATCH = 8_192  # (client, step) pairs looked at together once few clients are left


@runtime_checkable
class Availability(Protocol):
    """A law of who is there; `seed` is a 64-bit key of its own."""

    def available(self, seed: int, ids: Ids, round: int) -> Mask:
        """Who could start this round."""
        ...

    def completes(self, seed: int, ids: Ids, round: int) -> Mask:
        """Of those who start this round, whose update would arrive."""
        ...


@dataclass(frozen=True, slots=True)
class Always:
    """Everyone is there, and every update arrives.

    Example:
        >>> Always().available(0, np.arange(3), 0).tolist()
        [True, True, True]
    """

    def available(self, seed: int, ids: Ids, round: int) -> Mask:
        """All of them."""
        return np.ones(len(ids), bool)

    def completes(self, seed: int, ids: Ids, round: int) -> Mask:
        """All of them."""
        return np.ones(len(ids), bool)


@dataclass(frozen=True, slots=True)
class Bernoulli:
    """Every client flips its own coin every round.

    Args:
        mean: probability π of being there, in (0, 1].
        lost: probability that a client that started drops before its update arrives, in [0, 1).
    """

    mean: float
    lost: float = 0.0

    def __post_init__(self) -> None:
        _require_rates(self.mean, self.lost)

    def available(self, seed: int, ids: Ids, round: int) -> Mask:
        """Who could start this round. O(n)."""
        return bernoulli(seed, ids, round, mean=self.mean)

    def completes(self, seed: int, ids: Ids, round: int) -> Mask:
        """Of those who start this round, whose update would arrive. O(n)."""
        return _completes(seed, ids, round, self.lost)


@dataclass(frozen=True, slots=True)
class Markov:
    """Every client is its own stationary two-state chain: on and off periods.

    Args:
        mean: stationary availability π, in (0, 1].
        correlation: second eigenvalue λ: the correlation between one round and the next. 0 is `Bernoulli`,
            near 1 gives long periods, below 0 clients alternate; at least max(1 − 1/π, 1 − 1/(1 − π)), less
            than 1.
        lost: probability that a client that started drops before its update arrives, in [0, 1).

    Raises:
        ConfigError: for a pair (mean, correlation) that no chain has.
    """

    mean: float
    correlation: float = 0.0
    lost: float = 0.0

    def __post_init__(self) -> None:
        _require_rates(self.mean, self.lost)
        require_chain(self.mean, self.correlation)

    def available(self, seed: int, ids: Ids, round: int) -> Mask:
        """Who could start this round. Expected O(n / (1 − abs(λ)))."""
        return markov(seed, ids, round, mean=self.mean, correlation=self.correlation)

    def completes(self, seed: int, ids: Ids, round: int) -> Mask:
        """Of those who start this round, whose update would arrive. O(n)."""
        return _completes(seed, ids, round, self.lost)


@dataclass(frozen=True, slots=True)
class Heterogeneous:
    """Chains as in `Markov`, every client with its own mean, uniform on [lowest, highest], fixed for the run.

    Args:
        lowest: smallest mean, in (0, 1].
        highest: largest mean, in [lowest, 1].
        correlation: λ of all chains; the bound of `Markov` must hold at both ends.
        lost: probability that a client that started drops before its update arrives, in [0, 1).
    """

    lowest: float
    highest: float
    correlation: float = 0.0
    lost: float = 0.0

    def __post_init__(self) -> None:
        _require_rates(self.lowest, self.lost, name="lowest")
        _require_rates(self.highest, self.lost, name="highest")
        if self.lowest > self.highest:
            raise ConfigError(f"lowest is {self.lowest}, highest is {self.highest}", mend="Give lowest <= highest.")
        require_chain(self.lowest, self.correlation)
        require_chain(self.highest, self.correlation)

    def means(self, seed: int, ids: Ids) -> Float64[ndarray, "n"]:
        """Stationary availability π_k of each client. O(n)."""
        return self.lowest + (self.highest - self.lowest) * uniforms(seed, ids, 0, _MEAN)[:, 0]

    def available(self, seed: int, ids: Ids, round: int) -> Mask:
        """Who could start this round. Expected O(n / (1 − abs(λ)))."""
        return markov(seed, ids, round, mean=self.means(seed, ids), correlation=self.correlation)

    def completes(self, seed: int, ids: Ids, round: int) -> Mask:
        """Of those who start this round, whose update would arrive. O(n)."""
        return _completes(seed, ids, round, self.lost)


AVAILABILITY = Registry(
    "rivage.availability",
    "availability",
    {
        "always": "rivage.simulation.availability:Always",
        "bernoulli": "rivage.simulation.availability:Bernoulli",
        "heterogeneous": "rivage.simulation.availability:Heterogeneous",
        "markov": "rivage.simulation.availability:Markov",
    },
)


def bernoulli(seed: int, ids: Ids, round: int, *, mean: Rate) -> Mask:
    """Independent coins with success probability ``mean`` (one for all, or one per client). O(n)."""
    result: Mask = uniforms(seed, ids, _ORIGIN + round, _STATE)[:, 0] < mean
    return result


def markov(seed: int, ids: Ids, round: int, *, mean: Rate, correlation: Rate) -> Mask:
    """States at ``round`` of stationary chains, exact and independent of what was asked before.

    Args:
        seed: 64-bit key.
        ids: clients, each with a chain of its own.
        round: from 0.
        mean: π, one for all or one per client.
        correlation: λ, one for all or one per client; see `require_chain`.

    Returns:
        Which chains are in state 1. Expected O(n / (1 − abs(λ))) Philox blocks and O(n) memory.

    A walk of more than 10^4 steps (possible for abs(λ) > 0.999) ends at a step of the client's own, one in
    10^4, which is taken for a fresh draw; the means stay exact, periods longer than that are cut. A warning
    is logged.
    """
    ids = np.asarray(ids, np.int64)
    pi, eigenvalue = np.broadcast_to(mean, ids.shape), np.broadcast_to(correlation, ids.shape)
    fresh = 1.0 - np.abs(eigenvalue)
    on = np.minimum(pi * (1.0 - eigenvalue), pi + eigenvalue * (1.0 - pi)) / fresh
    age, draw = _last_fresh(seed, ids, round, fresh)
    flipped = (eigenvalue < 0) & (age % 2 == 1)
    result: Mask = (draw < on) ^ flipped
    return result


def require_chain(mean: float, correlation: float) -> None:
    """Refuse (π, λ) that no two-state chain has: λ must lie in [max(1 − 1/π, 1 − 1/(1 − π)), 1).

    Raises:
        ConfigError: naming the pair and the range of λ.
    """
    lowest = max(1 - 1 / mean, 1 - 1 / (1 - mean) if mean < 1 else 0.0)
    # λ = −1 at π = 1/2 is the only bound that is not attained: that chain never forgets, so it has no past
    # to walk to.
    if not (lowest - 1e-12 <= correlation < 1 and correlation > -1):
        raise ConfigError(
            f"no on/off chain has mean {mean} and correlation {correlation}",
            mend=f"Give a correlation of at least {lowest:.4g} and below 1.",
        )


def _require_rates(mean: float, lost: float, *, name: str = "mean") -> None:
    if not 0 < mean <= 1:
        raise ConfigError(f"{name} is {mean}", mend="Give a probability above 0 and at most 1.")
    require(lost, "lost", least=0.0)
    if lost >= 1:
        raise ConfigError(f"lost is {lost}: no update would ever arrive", mend="Give a probability below 1.")


def _completes(seed: int, ids: Ids, round: int, lost: float) -> Mask:
    result: Mask = uniforms(seed, ids, _ORIGIN + round, _LOST)[:, 0] >= lost
    return result


def _last_fresh(
    seed: int, ids: Ids, round: int, fresh: Float64[ndarray, "n"]
) -> tuple[Int64[ndarray, "n"], Float64[ndarray, "n"]]:
    """How many steps ago each chain last drew afresh, and the uniform it drew its state from."""
    age, draw = np.zeros(len(ids), np.int64), np.empty(len(ids))
    left, walked = np.arange(len(ids)), 0
    while left.size and walked < _MAX_WALK:
        # One step at a time while many chains are left; many steps at a time when only the overhead of a
        # call counts.
        steps = min(max(1, _BATCH // left.size), 256, _MAX_WALK - walked)
        ages = walked + np.arange(steps)
        pairs = _draws(seed, ids[left, None], round - ages)
        hits = pairs[..., 0] < fresh[left, None]
        found, first = hits.any(axis=1), hits.argmax(axis=1)
        age[left[found]] = walked + first[found]
        draw[left[found]] = pairs[found, first[found], 1]
        left, walked = left[~found], walked + steps
    if left.size:
        _log.warning(
            "availability: %d of %d clients drew no fresh state in %d rounds (correlation too near 1); "
            "their periods are cut at that length",
            len(left),
            len(ids),
            _MAX_WALK,
        )
        age[left] = (round + ids[left]) % _MAX_WALK
        draw[left] = _draws(seed, ids[left], round - age[left])[:, 1]
    return age, draw


def _draws(seed: int, ids: Int64[ndarray, "*n"], rounds: Int64[ndarray, "*m"]) -> Float64[ndarray, "*k 2"]:
    ids, rounds = np.broadcast_arrays(ids, rounds)
    return uniforms(seed, ids, _ORIGIN + rounds, _STATE)
