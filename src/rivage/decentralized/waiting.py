"""Who waits for whom: for all that send, for the first of them, now and then, or for a server.

Node j starts round k + 1 when its own work of round k is done and all it waits for has come. `Waits` waits for all
in-neighbours; for only the first b of them, the rest being *backup workers* whose late messages are dropped; or for
some only in every n-th round, as multigraphs do. `Server` is FedAvg: all send to one node's server, which averages and
sends back. How long work and transfers take is drawn in `rivage.decentralized.clock`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import ArrayLike

from rivage.core.errors import ConfigError, RivageError, require
from rivage.decentralized.clock_kernel import rounds_by_the_fastest, rounds_of_a_server, rounds_of_all
from rivage.decentralized.overlays import Overlay
from rivage.graphs.cycles import require_strong
from rivage.graphs.network import Network

__all__ = ["Server", "Waiting", "Waits"]

Rows = Float64[ndarray, "rounds nodes"]
Starts = Float64[ndarray, "rounds+1 nodes"]


@runtime_checkable
class Waiting(Protocol):
    """Nodes with mean times of work, arcs with mean times of transfer, and a rule of waiting."""

    @property
    def work(self) -> Float64[ndarray, "nodes"]:
        """Mean time of a round's work of each node."""
        ...

    @property
    def arcs(self) -> Int64[ndarray, "arcs 2"]:
        """Senders and receivers."""
        ...

    @property
    def transfer(self) -> Float64[ndarray, "arcs"]:
        """Mean time of a message on each arc."""
        ...

    def play(self, work: Rows, transfer: Float64[ndarray, "rows arcs"], first: int, times: Starts) -> None:
        """Fill rows 1 … of ``times`` from row 0; ``transfer`` has a row for each round, or one for all."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Waits:
    """Every node waits for its in-neighbours.

    Args:
        arcs: senders and receivers, without loops; they make the nodes strongly connected.
        work: mean time of a round's work of each node, >= 0.
        transfer: mean time of a message on each arc, >= 0.
        every: an arc is awaited in the rounds whose number is a multiple of this, >= 1.
        least: for how many in-neighbours each node waits; None for all of them.
        name: in messages and reports.

    Raises:
        ConfigError: for arcs or times that no graph has.

    Example:
        >>> Waits.of(4, [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)]).in_degrees.tolist()
        [1, 1, 2, 1]
    """

    arcs: Int64[ndarray, "arcs 2"]
    work: Float64[ndarray, "nodes"]
    transfer: Float64[ndarray, "arcs"]
    every: Int64[ndarray, "arcs"]
    least: Int64[ndarray, "nodes"] | None = None
    name: str = "graph"

    def __post_init__(self) -> None:
        try:
            self._check()
        except RivageError as error:
            raise error.at(f'"{self.name}"') from None

    @classmethod
    def of(
        cls, nodes: int, arcs: ArrayLike, *, work: ArrayLike = 1.0, transfer: ArrayLike = 0.0, name: str = "graph"
    ) -> Waits:
        """From plain pairs; one number may stand for all."""
        pairs = np.array(arcs, np.int64).reshape(-1, 2)
        return cls(
            arcs=pairs,
            work=np.array(np.broadcast_to(np.asarray(work, np.float64), nodes)),
            transfer=np.array(np.broadcast_to(np.asarray(transfer, np.float64), len(pairs))),
            every=np.ones(len(pairs), np.int64),
            name=name,
        )

    @classmethod
    def of_network(cls, network: Network, *, work: ArrayLike = 1.0, transfer: ArrayLike = 0.0) -> Waits:
        """Both directions of the links; times of transfer are one for all, or one for each link."""
        arcs = np.concatenate([network.edges, network.edges[:, ::-1]])
        both = np.tile(np.broadcast_to(np.asarray(transfer, np.float64), len(network.edges)), 2)
        return cls.of(network.nodes, arcs, work=work, transfer=both, name=network.name)

    @classmethod
    def of_overlay(cls, overlay: Overlay) -> Waits:
        """The work of the silos, and latency and transmission of the arcs, in ms."""
        work, tails = overlay.silos.work_ms, overlay.arcs[:, 0]
        transfer = np.maximum(overlay.delays_ms - work[tails], 0)
        return cls.of(len(overlay), overlay.arcs, work=work, transfer=transfer, name=overlay.name)

    def __len__(self) -> int:
        return len(self.work)

    @property
    def in_degrees(self) -> Int64[ndarray, "nodes"]:
        """From how many each node receives."""
        return np.bincount(self.arcs[:, 1], minlength=len(self))

    @property
    def adjacency(self) -> Float64[ndarray, "nodes nodes"]:
        """1 where the row sends to the column."""
        matrix = np.zeros((len(self), len(self)))
        matrix[self.arcs[:, 0], self.arcs[:, 1]] = 1
        return matrix

    @property
    def is_undirected(self) -> bool:
        """Whether every arc is there in both directions."""
        codes = self.arcs @ [len(self), 1]
        return bool(np.array_equal(np.sort(codes), np.sort(self.arcs @ [1, len(self)])))

    def with_backups(self, backups: int) -> Waits:
        """Each node goes on without the last ``backups`` of its in-neighbours, or alone if it has no more.

        Nodes that are slow for long then fall behind those that do without them, without limit.
        """
        require(backups, "backups", least=0)
        return replace(self, least=np.maximum(self.in_degrees - backups, 0))

    def awaited_every(self, every: ArrayLike) -> Waits:
        """Each arc is awaited only in the rounds whose number is a multiple of ``every``: one for all, or one each."""
        return replace(self, every=np.array(np.broadcast_to(np.asarray(every, np.int64), len(self.arcs))))

    def play(self, work: Rows, transfer: Float64[ndarray, "rows arcs"], first: int, times: Starts) -> None:
        """See `Waiting`."""
        if self._is_barrier and not transfer.any():
            ends = np.append((times[:1] + work[:1]).max(axis=1), work[1:].max(axis=1))
            times[1:] = np.cumsum(ends)[: len(times) - 1, None]
            return
        order, begins, tails = self._by_head
        rows = np.ascontiguousarray(transfer[:, order])
        if self.least is None:
            every = self.every[order] if (self.every > 1).any() else self.every[:0]
            rounds_of_all(begins, tails, work, rows, every, first, times)
        else:
            rounds_by_the_fastest(begins, tails, work, rows, self.least, times)

    @cached_property
    def _by_head(self) -> tuple[Int64[ndarray, "arcs"], Int64[ndarray, "nodes+1"], Int64[ndarray, "arcs"]]:
        """An order in which arcs into one node stand together, where those into each begin, and their tails."""
        order = np.argsort(self.arcs[:, 1], kind="stable")
        begins = np.searchsorted(self.arcs[order, 1], np.arange(len(self) + 1)).astype(np.int64)
        return order, begins, self.arcs[order, 0]

    @cached_property
    def _is_barrier(self) -> bool:
        """Whether all wait for all, in every round."""
        return self.least is None and len(self.arcs) == len(self) * (len(self) - 1) and bool((self.every == 1).all())

    def _check(self) -> None:
        require_strong(len(self), self.arcs)
        if (self.arcs[:, 0] == self.arcs[:, 1]).any():
            raise ConfigError("a node sends to itself", mend="Leave it out: it waits for its own work anyway.")
        if len(np.unique(self.arcs, axis=0)) < len(self.arcs):
            raise ConfigError("an arc is there twice", mend="Give each once.")
        for values, what, low in ((self.work, "work", 0), (self.transfer, "transfer", 0), (self.every, "every", 1)):
            good = (values >= low) & (values < np.inf)
            if not good.all():
                raise ConfigError(f"{what} is {values[~good][0]}", mend=f"Give finite numbers >= {low}.")
        if self.least is not None and (self.every > 1).any():
            raise ConfigError("backup workers with a schedule", mend="Give one of the two.")
        if self.least is not None and ((self.least < 0) | (self.least > self.in_degrees)).any():
            raise ConfigError("a node waits for more than there are", mend="Give 0 to the number of in-neighbours.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Server:
    """Every node sends to the server of one of them, which averages when all have come, and sends back.

    Args:
        hub: the node with the server.
        arcs: to the hub, then from the hub, one each way for every other node.
        work: mean time of a round's work of each node.
        transfer: mean time of a message on each arc.
        name: in messages and reports.
    """

    hub: int
    arcs: Int64[ndarray, "arcs 2"]
    work: Float64[ndarray, "nodes"]
    transfer: Float64[ndarray, "arcs"]
    name: str = "star"

    @classmethod
    def of_overlay(cls, overlay: Overlay, hub: int) -> Server:
        """The star that an overlay is.

        Raises:
            ConfigError: when it is none around this hub.
        """
        others = np.delete(np.arange(len(overlay)), hub)
        star = Waits.of_overlay(overlay)
        ways = np.concatenate([np.stack([others, 0 * others + hub], 1), np.stack([0 * others + hub, others], 1)])
        place = {(one, other): k for k, (one, other) in enumerate(star.arcs.tolist())}
        if place.keys() != set(map(tuple, ways.tolist())):
            raise ConfigError(f'"{overlay.name}" is not a star around "{overlay.silos.names[hub]}"', mend="Use Waits.")
        order = [place[one, other] for one, other in ways.tolist()]
        return cls(hub=hub, arcs=ways, work=star.work, transfer=star.transfer[order], name=overlay.name)

    def __len__(self) -> int:
        return len(self.work)

    def play(self, work: Rows, transfer: Float64[ndarray, "rows arcs"], first: int, times: Starts) -> None:
        """See `Waiting`."""
        ways = np.zeros((2, len(transfer), len(self)))
        ways[:, :, np.arange(len(self)) != self.hub] = transfer.reshape(len(transfer), 2, -1).swapaxes(0, 1)
        rounds_of_a_server(work, ways[0], ways[1], times)
