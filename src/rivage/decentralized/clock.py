"""When each node of a graph starts each round, if work and transfers take random times.

    t_j(k + 1) = max over i in N_j and j itself of t_i(k) + X_i(k) + c_ij(k),   c_jj = 0,

with X_i(k) the time of the work of node i and c_ij(k) that of its message to j: `rivage.decentralized.cycle_time` with
delays that change. `Clock` draws times by laws (`rivage.decentralized.time_laws`), `Replay` from a measured table; who
waits for whom, and how, is in `rivage.decentralized.waiting`.

Draws are pure functions of (seed, node, round) and (seed, arc, round): two graphs over the same nodes meet the same
luck, adding arcs never lets a node start earlier, and any stretch of rounds can be computed alone from its first start
times. Cost: O(rounds · (nodes + arcs)), compiled.

References:
    Neglia, Calbi, Towsley, Vardoyan. The role of network topology for distributed machine learning. INFOCOM 2019 (the
    model).
    Baccelli, Cohen, Olsder, Quadrat. Synchronization and Linearity. Wiley, 1992 (stochastic max-plus systems).
    Politis, Romano. A circular block-resampling procedure for stationary data. In Exploring the limits of bootstrap,
    Wiley, 1992 (`Replay`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import ArrayLike

from rivage.core.errors import ConfigError, require
from rivage.core.schema import OneOf
from rivage.core.seeding import Streams
from rivage.decentralized.clock_kernel import draws
from rivage.decentralized.time_laws import LAWS, Constant, Exponential, Law, LogNormal
from rivage.decentralized.waiting import Waiting

__all__ = ["Clock", "Replay", "Times", "start_times"]

_WORK, _TRANSFER, _SPREAD, _ROWS = range(4)  # Philox streams

Rows = Float64[ndarray, "rounds nodes"]
Starts = Float64[ndarray, "rounds+1 nodes"]


@runtime_checkable
class Times(Protocol):
    """Random factors, of mean 1, of the mean times of work and transfers; ``key`` is a 64-bit seed of its own."""

    def work_factors(self, key: int, nodes: int, first: int, rounds: int) -> Rows:
        """A row for each of the rounds from ``first`` on."""
        ...

    def transfer_factors(
        self, key: int, arcs: Int64[ndarray, "arcs 2"], first: int, rounds: int
    ) -> Float64[ndarray, "rows arcs"]:
        """The same for arcs; one row where all rounds are alike."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Times by laws: how they scatter, how long they last, how silos differ.

    Args:
        law: of the work of a round.
        transfer: law of the time of a message, latency and all; None if it is always its mean.
        persistence: probability in [0, 1) that a silo's factor is that of the round before: the correlation of the
            times of k rounds apart is its k-th power.
        spread: standard deviation of the logarithm of a factor that each silo keeps for good, log-normal of mean 1;
            0 if silos are as fast as they are said to be.
    """

    law: Annotated[Law, OneOf(LAWS)] = field(default_factory=Exponential, metadata={"flat": True})
    transfer: Annotated[Law, OneOf(LAWS)] | None = None
    persistence: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        require(self.persistence, "persistence", least=0)
        require(self.spread, "spread", least=0)
        if self.persistence >= 1:
            raise ConfigError(f"persistence is {self.persistence}", mend="Give a number below 1, or a spread.")

    @property
    def is_steady(self) -> bool:
        """Whether every round takes the mean times."""
        laws = (self.law, self.transfer or Constant())
        return self.spread == 0 and all(isinstance(law, Constant) for law in laws)

    @property
    def is_independent(self) -> bool:
        """Whether the times of different rounds have nothing to do with one another."""
        return self.spread == 0 and self.persistence == 0

    def work_factors(self, key: int, nodes: int, first: int, rounds: int) -> Rows:
        """See `Times`."""
        if self.is_steady:
            return np.ones((rounds, nodes))
        ids = np.arange(nodes)
        factors = self.law.quantile(_uniforms(key, ids, first, rounds, _WORK, 1 - self.persistence))
        if self.spread == 0:
            return factors
        return np.asarray(factors * LogNormal(sigma=self.spread).quantile(_uniforms(key, ids, 0, 1, _SPREAD)))

    def transfer_factors(
        self, key: int, arcs: Int64[ndarray, "arcs 2"], first: int, rounds: int
    ) -> Float64[ndarray, "rows arcs"]:
        """See `Times`."""
        if self.transfer is None:
            return np.ones((1, len(arcs)))
        ids = (arcs[:, 0] << 32) | arcs[:, 1]
        return self.transfer.quantile(_uniforms(key, ids, first, rounds, _TRANSFER))


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """Measured times of all nodes, drawn again in blocks of consecutive rounds: who is slow together stays together.

    Args:
        factors: measured rounds of each node over the node's mean.
        mean: of each node, in the unit of the measurement: the ``work`` of the graph.
        block: rounds that are drawn at once; the table is a circle.
    """

    factors: Rows
    mean: Float64[ndarray, "nodes"]
    block: int = 1

    @classmethod
    def of(cls, times: ArrayLike, *, block: int = 1) -> Replay:
        """From a table with a row for each round and a column for each node.

        Raises:
            ConfigError: for an empty table, or times that are none.
        """
        table = np.asarray(times, np.float64)
        require(block, "block", least=1)
        if table.ndim != 2 or not table.size or not ((table >= 0) & (table < np.inf)).all() or not table.any(0).all():
            mend = "Give a row for each round and a column for each node, finite numbers >= 0, none all 0."
            raise ConfigError(f"measured times of shape {table.shape} are no such table", mend=mend)
        return cls(factors=table / table.mean(axis=0), mean=table.mean(axis=0), block=block)

    def work_factors(self, key: int, nodes: int, first: int, rounds: int) -> Rows:
        """See `Times`."""
        if nodes != self.factors.shape[1]:
            what = f"times of {self.factors.shape[1]} nodes were measured, the graph has {nodes}"
            raise ConfigError(what, mend="Give a column for each node.")
        if rounds == 0:
            return np.empty((0, nodes))
        count, numbers = len(self.factors), first + np.arange(rounds)
        begin, end = first // self.block, (first + rounds - 1) // self.block
        starts = _uniforms(key, np.zeros(1, np.int64), begin, end - begin + 1, _ROWS)[:, 0] * count
        rows = (starts.astype(np.int64)[numbers // self.block - begin] + numbers % self.block) % count
        return np.asarray(self.factors[rows])

    def transfer_factors(
        self, key: int, arcs: Int64[ndarray, "arcs 2"], first: int, rounds: int
    ) -> Float64[ndarray, "rows arcs"]:
        """Always the mean."""
        return np.ones((1, len(arcs)))


def start_times(
    graph: Waiting,
    times: Times,
    rounds: int,
    *,
    seed: int = 0,
    first: int = 0,
    start: Float64[ndarray, "nodes"] | None = None,
) -> Starts:
    """When each node starts each of the rounds ``first`` … ``first + rounds``.

    Args:
        graph: who waits for whom.
        times: how work and transfers scatter.
        rounds: how many to play, >= 0.
        seed: of the draws.
        first: number of the first round; a stretch played from its first start times equals that of the whole.
        start: times at which round ``first`` starts; all at 0 by default.

    Example:
        >>> from rivage.decentralized.waiting import Waits
        >>> ring = Waits.of(3, [(0, 1), (1, 2), (2, 0)], work=[1.0, 2.0, 3.0])
        >>> start_times(ring, Clock(law=Constant()), 2).tolist()
        [[0.0, 0.0, 0.0], [3.0, 2.0, 3.0], [6.0, 4.0, 6.0]]
    """
    require(rounds, "rounds", least=0)
    key, nodes = Streams(seed).seed("clock"), len(graph.work)
    starts = np.zeros((rounds + 1, nodes))
    starts[0] = 0.0 if start is None else start
    work = np.ascontiguousarray(graph.work * times.work_factors(key, nodes, first, rounds))
    transfer = graph.transfer * times.transfer_factors(key, graph.arcs, first, rounds)
    graph.play(work, transfer, first, starts)
    return starts


def _uniforms(
    key: int, ids: Int64[ndarray, "n"], first: int, rounds: int, stream: int, renewal: float = 1.0
) -> Float64[ndarray, "rounds n"]:
    out = np.empty((rounds, len(ids)))
    draws(np.uint64(key), ids, first, stream, renewal, out)
    return out
