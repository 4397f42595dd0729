"""Choosing a cohort without touching the rest of the population.

A keyed bijection of [0, N) (balanced Feistel network with Philox as round function, cycle-walking) visits the
population in a pseudo-random order; a cohort is the first m ids on that walk that are available. Memory is O(m) and
ids never repeat, for N = 10 as for N = 10^9.

References:
    Black, Rogaway. Ciphers with arbitrary finite domains. CT-RSA 2002 (cycle-walking).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.philox import philox4x32
from rivage.core.seeding import Streams
from rivage.data.population import ClientIds, Population

__all__ = ["Candidates", "Permutation"]

Wanted = Callable[[ClientIds], Bool[ndarray, "clients"]]

_FEISTEL_ROUNDS = 6
_TABULATED = 256  # values of a round function that are always worth a table
_MAX_WALK = 10_000  # candidates looked at per client wanted, before a shortfall is reported
_MAX_DENSE = 10_000_000  # populations up to this size may be asked for everyone


@dataclass(frozen=True, slots=True)
class Permutation:
    """A pseudo-random bijection of [0, size), evaluated where asked.

    Args:
        size: N, 1 <= N <= 2**62.
        key: 64-bit key; another key, another permutation.

    Example:
        >>> sorted(Permutation(5, key=1)(np.arange(5)).tolist())
        [0, 1, 2, 3, 4]
    """

    size: int
    key: int

    def __call__(self, positions: Int64[ndarray, "m"]) -> Int64[ndarray, "m"]:
        """Images of ``positions``; O(m) time and memory, at most 4 expected passes of cycle-walking."""
        mix = self._rounds(len(positions))
        values = self._encrypt(np.asarray(positions, np.int64), mix)
        while (outside := np.flatnonzero(values >= self.size)).size:
            values[outside] = self._encrypt(values[outside], mix)
        return values

    @property
    def _half_bits(self) -> int:
        return max(1, ((self.size - 1).bit_length() + 1) // 2)

    def _rounds(self, count: int) -> Callable[[int, Int64[ndarray, "m"]], Int64[ndarray, "m"]]:
        """The round function (round, half) -> half; tabulated where it has no more values than will be asked for."""
        key, half = (self.key & 0xFFFFFFFF, self.key >> 32), 1 << self._half_bits

        def mix(feistel_round: int | Int64[ndarray, "m"], right: Int64[ndarray, "m"]) -> Int64[ndarray, "m"]:
            counter = np.zeros((len(right), 4), np.uint32)
            counter[:, 0], counter[:, 1] = right, feistel_round
            mixed: Int64[ndarray, "m"] = philox4x32(counter, key)[:, 0].astype(np.int64) & (half - 1)
            return mixed

        if half > max(_TABULATED, count):
            return mix
        numbers = np.arange(_FEISTEL_ROUNDS * half)
        table = mix(numbers // half, numbers % half).reshape(_FEISTEL_ROUNDS, half)
        return lambda feistel_round, right: table[feistel_round, right]

    def _encrypt(
        self, values: Int64[ndarray, "m"], mix: Callable[[int, Int64[ndarray, "m"]], Int64[ndarray, "m"]]
    ) -> Int64[ndarray, "m"]:
        left, right = values >> self._half_bits, values & ((1 << self._half_bits) - 1)
        for feistel_round in range(_FEISTEL_ROUNDS):
            left, right = right, left ^ mix(feistel_round, right)
        result: Int64[ndarray, "m"] = (left << self._half_bits) | right
        return result


@dataclass(frozen=True, slots=True)
class Candidates:
    """Whom an algorithm may choose this round.

    Args:
        population: all registered clients.
        round: the current round.
        count: cohort size asked for; None asks for everyone available.
        excluded: clients that never train (unseen clients of the evaluation), sorted.
        sampling: whether `uniform` draws exactly ``count`` clients or, by ``poisson``, each by itself with probability
            count / clients, so that nobody's chance depends on who else is there.
    """

    population: Population
    round: int
    count: int | None
    excluded: ClientIds
    sampling: Literal["uniform", "poisson"] = "uniform"

    def sizes(self, ids: ClientIds) -> Float64[ndarray, "clients"]:
        """Raw weight of each client in this round."""
        return self.population.sizes(ids, self.round)

    def eligible(self, ids: ClientIds) -> ClientIds:
        """Those of ``ids`` that are available, have something to train on and may train, in the same order."""
        allowed: ClientIds = ids[~np.isin(ids, self.excluded)] if len(self.excluded) else ids
        allowed = allowed[self.sizes(allowed) > 0]
        there: ClientIds = allowed[self.population.available(allowed, self.round)]
        return there

    def everyone(self, wanted: Wanted | None = None) -> ClientIds:
        """All who could start this round, ascending. O(population).

        Args:
            wanted: leaves only those clients for which it is true.

        Raises:
            ConfigError: for populations too large to be scanned.
        """
        if self.population.size > _MAX_DENSE:
            raise ConfigError(
                f"the whole population of {self.population.size} clients was asked to take part",
                where="[run] cohort",
                mend="Set run.cohort to the number of clients per round.",
            )
        return self._chosen(np.arange(self.population.size, dtype=np.int64), wanted)

    def _chosen(self, ids: ClientIds, wanted: Wanted | None) -> ClientIds:
        eligible = self.eligible(ids)
        return eligible if wanted is None else eligible[wanted(eligible)]

    def uniform(self, streams: Streams, wanted: Wanted | None = None) -> ClientIds:
        """``count`` distinct available clients, uniformly without replacement; everyone when count is None.

        By ``poisson`` sampling so many on average, if all are there.

        Fewer come back when fewer are available, or when the walk has looked at 10^4 clients for each one wanted.
        Expected cost O(count / mean availability), independent of the population's size.

        Args:
            streams: of the round.
            wanted: leaves only those clients for which it is true.
        """
        if self.count is None:
            return self.everyone(wanted)
        if self.sampling == "poisson":
            return self._by_chance(self.count, streams, wanted)
        order = Permutation(self.population.size, streams.seed("cohort"))
        limit = min(self.population.size, _MAX_WALK * self.count)
        chosen = np.empty(0, np.int64)
        position, step = 0, max(64, 2 * self.count)
        while len(chosen) < self.count and position < limit:
            walked = np.arange(position, min(position + step, limit), dtype=np.int64)
            chosen = np.concatenate([chosen, self._chosen(order(walked), wanted)])
            position += step
        return chosen[: self.count]

    def _by_chance(self, count: int, streams: Streams, wanted: Wanted | None) -> ClientIds:
        """Each client with the same probability: a binomial number, then a uniform set of that size. O(count)."""
        size = self.population.size
        share = min(1.0, count / max(1, size - len(self.excluded)))
        drawn = int(streams.numpy("cohort size").binomial(size, share))
        order = Permutation(size, streams.seed("cohort"))
        return self._chosen(order(np.arange(drawn, dtype=np.int64)), wanted)
