"""Virtual caches: agents whose users share a network of caches, each of which belongs to somebody.

Si Salem, Iosifidis, Neglia. Enabling long-term fairness in dynamic resource allocation. SIGMETRICS 2023, arXiv
2208.05898, section 6. Any cache may serve any request, so agents gain by what others store, and the question is whose
items the caches should hold.

Requests enter at query nodes; the requests that enter at a node are of the agent who owns it. An item is stored for
good at its source; x_v,i in [0, 1] is the fraction of item i in the cache of node v, Σ_i x_v,i = k_v. A request for
item i at node q goes from cache to cache in order of path cost c_1 <= c_2 <= … < c_m, m the source. Serving it at l
saves c_m − c_l, so that with r_q,i requests agent a's utility is

    u_a(x) = scale · Σ_{q of a} Σ_i r_q,i Σ_{l < m} (c_{l+1} − c_l) min(1, x_1,i + … + x_l,i),

which at integral x is the cost saved by the nearest copy. These are `CappedSums`; what depends on the network, the
terms, is laid out once, and a slot only brings weights. Neighbouring terms of one set of caches are merged.

Retrieval costs are those of cheapest paths, or whatever the caller says: the authors' code takes the path of the fewest
links, which need not be a cheapest one. Nodes at the cost of the source or beyond are never asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray
from scipy.sparse import csr_array

from rivage.convex.rounding import madow
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import ConfigError, ShapeError, require
from rivage.graphs.network import Network
from rivage.graphs.paths import cost_matrix
from rivage.online.cache_product import CacheProduct
from rivage.online.utilities import CappedSums

__all__ = ["VirtualCaches", "alternating_batches", "zipf_batches", "zipf_law"]

Vector = Float64[ndarray, "n"]
Batch = Float64[ndarray, "queries items"] | Int64[ndarray, "queries items"]


@dataclass(frozen=True, kw_only=True, eq=False)
class VirtualCaches:
    """A network of caches, who owns them, and where requests enter.

    Args:
        network: links and their retrieval costs.
        capacities: items that each node's cache holds; 0 is no cache. More than there are to hold means all.
        owners: agent of each node; −1 for nobody.
        sources: the node that stores each item for good.
        queries: nodes where requests enter, each with an owner.
        retrieval: cost of fetching from each node at each query node, >= 0; None means the cheapest path.
        scale: factor on all utilities, see `normalized`.

    Raises:
        ConfigError: naming all that is wrong.
    """

    network: Network
    capacities: Int64[ndarray, "nodes"]
    owners: Int64[ndarray, "nodes"]
    sources: Int64[ndarray, "items"]
    queries: Int64[ndarray, "queries"]
    retrieval: Float64[ndarray, "queries nodes"] | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        nodes = self.network.nodes
        faults = {
            f"capacities have shape {self.capacities.shape}": self.capacities.shape != (nodes,),
            f"owners have shape {self.owners.shape}": self.owners.shape != (nodes,),
            "a capacity is negative": bool((self.capacities < 0).any()),
            "no item, or no query node": not (self.sources.size and self.queries.size),
            "a source or query node is not in the network": bool(
                ((self.sources < 0) | (self.sources >= nodes)).any()
                or ((self.queries < 0) | (self.queries >= nodes)).any()
            ),
        }
        if self.retrieval is not None:
            shape, wanted = self.retrieval.shape, (len(self.queries), nodes)
            faults[f"retrieval costs have shape {shape}, not {wanted}"] = shape != wanted
            faults["a retrieval cost is negative or not finite"] = not bool(
                (np.isfinite(self.retrieval) & (self.retrieval >= 0)).all()
            )
        found = [fault for fault, present in faults.items() if present]
        if not found and (self.owners[self.queries] < 0).any():
            found = [f"query node {self.queries[int(np.argmin(self.owners[self.queries]))]} belongs to nobody"]
        if not found and not self.network.is_connected:
            found = ["the network is not connected"]
        if not found and not (self._caching & (self.capacities > 0)[:, None]).any():
            found = ["there is no cache"]
        if found:
            raise ConfigError(
                "; ".join(found), where="caches", mend=f"Give one capacity and owner for each of {nodes} nodes."
            )

    @property
    def agents(self) -> int:
        """How many agents there are."""
        return int(self.owners.max()) + 1

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.sources)

    @cached_property
    def costs(self) -> Float64[ndarray, "queries nodes"]:
        """Of retrieval from each node."""
        return cost_matrix(self.network)[self.queries] if self.retrieval is None else self.retrieval

    @cached_property
    def places(self) -> Int64[ndarray, "nodes items"]:
        """The coordinate of x for each item at each node; −1 where none is."""
        places = np.full((self.network.nodes, self.items), -1, np.int64)
        held = self._caching & (self.capacities > 0)[:, None]
        places[held] = np.arange(np.count_nonzero(held))
        return places

    @cached_property
    def set(self) -> CacheProduct:
        """X: a capped simplex for each cache, in order of nodes."""
        counts = (self.places >= 0).sum(axis=1)
        pairs = zip(counts, self.capacities, strict=True)
        return CacheProduct(tuple(CappedSimplex(int(n), min(int(k), int(n))) for n, k in pairs if n))

    @cached_property
    def _caching(self) -> Bool[ndarray, "nodes items"]:
        """Which items a node could cache: those that it does not store for good."""
        elsewhere: Bool[ndarray, "nodes items"] = np.not_equal.outer(np.arange(self.network.nodes), self.sources)
        return elsewhere

    @cached_property
    def _terms(self) -> tuple[csr_array, Int64[ndarray, "terms 2"], Float64[ndarray, "terms"]]:
        """Rows, (query, item) and saved cost of every term."""
        columns, begins, whose, saved = [], [0], [], []
        for query, item in np.ndindex(len(self.queries), self.items):
            for prefix, saving in self._steps(query, item):
                columns.append(prefix)
                begins.append(begins[-1] + len(prefix))
                whose.append((query, item))
                saved.append(saving)
        flat = np.concatenate(columns) if columns else np.empty(0, np.int64)
        rows = csr_array((np.ones(len(flat)), flat, np.array(begins)), shape=(len(saved), self.set.dimension))
        return rows, np.array(whose, np.int64).reshape(-1, 2), np.array(saved)

    def way(self, query: int, item: int) -> tuple[Int64[ndarray, "l"], Float64[ndarray, "steps"]]:
        """The caches that a request for an item passes, nearest first, and what each costs, the source's at the end.

        Args:
            query: position in ``queries``.
            item: what is asked for.

        Returns:
            Coordinates of x, as many as there are caches on the way; costs, one more.
        """
        costs, end = self.costs[query], self.costs[query, self.sources[item]]
        nodes = np.argsort(costs, kind="stable")
        nodes = nodes[(costs[nodes] < end) & (self.places[nodes, item] >= 0)]
        return self.places[nodes, item], np.append(costs[nodes], end)

    def _steps(self, query: int, item: int) -> Iterator[tuple[Int64[ndarray, "l"], float]]:
        """For every set of nearest caches: its coordinates, and the extra cost of looking beyond it."""
        places, costs = self.way(query, item)
        for last, saving in enumerate(np.diff(costs).tolist()):
            if saving > 0:
                yield places[: last + 1], saving

    def utilities(self, batch: Batch) -> CappedSums:
        """The utilities of a slot.

        Args:
            batch: requests (or mean requests) for each item at each query node.
        """
        if batch.shape != (len(self.queries), self.items):
            raise ShapeError(
                f"a batch of shape {batch.shape}",
                mend=f"Give {len(self.queries)} rows, one per query node, of {self.items} items.",
            )
        _, whose, saved = self._terms
        return self._shape.with_weights(self.scale * saved * batch[whose[:, 0], whose[:, 1]])

    @cached_property
    def _shape(self) -> CappedSums:
        rows, whose, saved = self._terms
        owner = self.owners[self.queries[whose[:, 0]]]
        return CappedSums(rows=rows, owner=owner, weights=saved, caps=np.ones(len(saved)), agents=self.agents)

    def uncached_cost(self, batch: Batch) -> Float64[ndarray, "agents"]:
        """What each agent's requests cost when all are served by the sources; without the scale."""
        each = (batch * self.costs[:, self.sources]).sum(axis=1)
        return np.bincount(self.owners[self.queries], each, self.agents)

    def normalized(self, rates: Batch) -> VirtualCaches:
        """With utilities in units of the largest agent's cost without caches, so that they are at most 1.

        Args:
            rates: mean requests per slot.
        """
        most = float(self.uncached_cost(rates).max())
        require(most, "the largest cost without caches", above=0.0)
        return replace(self, scale=1.0 / most)

    def rounded(self, x: Vector, draws: Float64[ndarray, "caches"]) -> Vector:
        """Whole items with E[z] = x: one systematic sample per cache.

        Args:
            x: an allocation.
            draws: one uniform number per cache. Kept from slot to slot, few items move (`rivage.convex.Coupled`).
        """
        pieces = zip(self.set.split(x), draws, strict=True)
        return np.concatenate([madow(np.clip(piece, 0, 1), float(draw)) for piece, draw in pieces]).astype(np.float64)


def zipf_batches(
    items: int, slots: int, batch: int, alpha: float, rng: np.random.Generator
) -> Int64[ndarray, "slots items"]:
    """Requests per item of every slot: independent, with probability ∝ (i + 1)^−α.

    Args:
        items: N.
        slots: T.
        batch: requests per slot, B.
        alpha: exponent of Zipf's law.
        rng: generator.
    """
    return rng.multinomial(batch, zipf_law(items, alpha), size=slots)


def zipf_law(items: int, alpha: float) -> Float64[ndarray, "items"]:
    """Probabilities ∝ (i + 1)^−α."""
    raw = np.arange(1, items + 1) ** -float(alpha)
    law: Float64[ndarray, "items"] = raw / raw.sum()
    return law


def alternating_batches(
    items: int, slots: int, batch: int, rng: np.random.Generator, *, alpha: float = 1.2, block: int = 50
) -> tuple[Int64[ndarray, "slots items"], Int64[ndarray, "slots items"]]:
    """The paper's non-stationary adversary: the same requests for two agents, mixed for one, in turns for the other.

    Blocks of ``block`` requests follow Zipf's law and the uniform law in turns. Agent 1 gets them all shuffled, which
    is stationary; agent 2 in order, from the second block on. Both have the same popularity over the horizon.

    Args:
        items: N.
        slots: T.
        batch: requests per slot, B.
        rng: generator.
        alpha: exponent of Zipf's law.
        block: requests of a block, D.

    Returns:
        Requests per item of every slot, for agent 1 and agent 2.
    """
    count = slots * batch
    if count % (2 * block):
        raise ConfigError(
            f"{slots} slots of {batch} are {count} requests", mend=f"Give a multiple of {2 * block}, two blocks."
        )
    law, uniform = zipf_law(items, alpha), zipf_law(items, 0.0)
    pairs = [rng.choice(items, (count // (2 * block), block), p=p) for p in (law, uniform)]
    requests = np.stack(pairs, axis=1).ravel()
    return _counted(rng.permutation(requests), items, slots), _counted(np.roll(requests, -block), items, slots)


def _counted(requests: Int64[ndarray, "n"], items: int, slots: int) -> Int64[ndarray, "slots items"]:
    slot = np.repeat(np.arange(slots), len(requests) // slots)
    counts = np.bincount(slot * items + requests, minlength=slots * items)
    return counts.reshape(slots, items).astype(np.int64)
