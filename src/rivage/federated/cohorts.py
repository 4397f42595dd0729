"""Choosing a cohort without touching the rest of the population.

A keyed permutation visits the population in a pseudo-random order; a cohort is the first m ids on that walk that are
available. Memory is O(m) and ids never repeat, for N = 10 as for N = 10^9.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.population import ClientIds, Population
from rivage.federated.permutation import Permutation
from rivage.federated.turns import Turns

__all__ = ["Candidates"]

Visit = Callable[[Int64[ndarray, "m"]], ClientIds]
Wanted = Callable[[ClientIds], Bool[ndarray, "clients"]]

_MAX_WALK = 10_000  # candidates looked at per client wanted, before a shortfall is reported
_MAX_DENSE = 10_000_000  # populations up to this size may be asked for everyone


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
        turns: leave only those whose turn it is; None asks everyone in every round.
    """

    population: Population
    round: int
    count: int | None
    excluded: ClientIds
    sampling: Literal["uniform", "poisson", "epochs"] = "uniform"
    turns: Turns | None = None

    def sizes(self, ids: ClientIds) -> Float64[ndarray, "clients"]:
        """Raw weight of each client in this round."""
        return self.population.sizes(ids, self.round)

    def eligible(self, ids: ClientIds) -> ClientIds:
        """Those of ``ids`` that are available, have something to train on and may train now, in the same order."""
        allowed: ClientIds = ids[~np.isin(ids, self.excluded)] if len(self.excluded) else ids
        allowed = allowed if self.turns is None else allowed[self.turns.due(allowed, self.round)]
        allowed = allowed[self.sizes(allowed) > 0]
        there: ClientIds = allowed[self.population.available(allowed, self.round)]
        return there

    def everyone(self, wanted: Wanted | None = None) -> ClientIds:
        """All who could start this round, ascending. O(population), of those whose turn it is where there are turns.

        Args:
            wanted: leaves only those clients for which it is true.

        Raises:
            ConfigError: for populations too large to be scanned.
        """
        asked = self.population.size if self.turns is None else self.turns.count(self.round)
        if asked > _MAX_DENSE:
            raise ConfigError(
                f"all {asked} clients were asked to take part in one round",
                where="[run] cohort",
                mend="Set run.cohort to the number of clients per round.",
            )
        ids = np.arange(asked, dtype=np.int64)
        return self._chosen(ids if self.turns is None else np.sort(self.turns.called(ids, self.round)), wanted)

    def _chosen(self, ids: ClientIds, wanted: Wanted | None) -> ClientIds:
        eligible = self.eligible(ids)
        return eligible if wanted is None else eligible[wanted(eligible)]

    def uniform(self, streams: Streams, wanted: Wanted | None = None) -> ClientIds:
        """``count`` distinct available clients, uniformly without replacement; everyone when count is None.

        By ``poisson`` sampling so many on average, if all are there; in ``epochs`` among those whose turn it is.

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
        if (turns := self.turns) is not None:
            return self._first(lambda places: turns.called(places, self.round), turns.count(self.round), wanted)
        return self._first(Permutation(self.population.size, streams.seed("cohort")), self.population.size, wanted)

    def _first(self, visit: Visit, there: int, wanted: Wanted | None) -> ClientIds:
        """The first ``count`` of so many who may be chosen."""
        assert self.count is not None, "everyone is asked otherwise"
        limit = min(there, _MAX_WALK * self.count)
        chosen = np.empty(0, np.int64)
        position, step = 0, max(64, 2 * self.count)
        while len(chosen) < self.count and position < limit:
            walked = np.arange(position, min(position + step, limit), dtype=np.int64)
            chosen = np.concatenate([chosen, self._chosen(visit(walked), wanted)])
            position += step
        return chosen[: self.count]

    def _by_chance(self, count: int, streams: Streams, wanted: Wanted | None) -> ClientIds:
        """Each client with the same probability: a binomial number, then a uniform set of that size. O(count)."""
        size = self.population.size
        share = min(1.0, count / max(1, size - len(self.excluded)))
        drawn = int(streams.numpy("cohort size").binomial(size, share))
        order = Permutation(size, streams.seed("cohort"))
        return self._chosen(order(np.arange(drawn, dtype=np.int64)), wanted)
