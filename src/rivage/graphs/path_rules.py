"""From an underlay to the connectivity graph: latency and bandwidth between every two nodes.

A path through the underlay becomes a latency and an available bandwidth by a rule that the caller names. The published
one (Marfoq, Xu, Neglia, Vidal. Throughput-optimal topology design for cross-silo federated learning. NeurIPS 2020,
arXiv 2010.12229, as in its public code): paths are shortest by distance, and over a path of D km and h links

    l(i, j) = 0.0085 · D + 4 ms,        A(i, j) = C_core / h.

The 4 ms are counted once per path. Of paths of one length the one with the fewest links is taken, then the one through
the smallest numbers (`rivage.graphs.paths`).

Cost of `connectivity`: O(N (E + N log N)) for N nodes and E links, memory O(N²).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, RivageError, require, require_one_of
from rivage.core.settings import combine
from rivage.graphs.underlay import Underlay

__all__ = ["Connectivity", "PathRule", "connectivity", "latency_from_distance", "triangle_violations"]

_LOGGER = logging.getLogger(__name__)
_MS_PER_KM, _MS_PER_PATH = 0.0085, 4.0
_TIE = 1e-9  # relative: sums of the same delays in another order violate nothing


def latency_from_distance(
    distance_km: Float64[ndarray, "*shape"], *, ms_per_km: float = _MS_PER_KM, ms_per_path: float = _MS_PER_PATH
) -> Float64[ndarray, "*shape"]:
    """One-way latency of paths by their length in km: ``ms_per_km`` · D + ``ms_per_path``, by default as published.

    Applied to the links of an underlay, it counts the constant once per link instead of once per path.
    """
    return ms_per_km * distance_km + ms_per_path


@dataclass(frozen=True, kw_only=True, slots=True)
class PathRule:
    """Which path joins two nodes, and what it offers. By default what its links say: fastest path, slowest link.

    Args:
        route: what shortest paths are short by.
        ms_per_km: latency per km of the path; None to add up the latencies of its links.
        ms_per_path: latency to add, once per path.
        bandwidth: the least capacity among the links of the path (``bottleneck``), or that divided by their number.
        core_bps: one capacity for all links in place of their own; None for their own.

    Raises:
        ConfigError: for numbers out of range, or routes and bandwidths of other names.
    """

    route: Literal["latency_ms", "distance_km", "hops"] = "latency_ms"
    ms_per_km: float | None = None
    ms_per_path: float = 0.0
    bandwidth: Literal["bottleneck", "capacity_over_hops"] = "bottleneck"
    core_bps: float | None = None

    def __post_init__(self) -> None:
        require_one_of(self.route, "route", ("latency_ms", "distance_km", "hops"))
        require_one_of(self.bandwidth, "bandwidth", ("bottleneck", "capacity_over_hops"))
        require(self.ms_per_path, "ms_per_path", least=0)
        if self.ms_per_km is not None:
            require(self.ms_per_km, "ms_per_km", least=0)
        if self.core_bps is not None:
            require(self.core_bps, "core_bps", above=0)

    @classmethod
    def published(cls, core_bps: float = 1e9) -> PathRule:
        """Marfoq et al.: by distance, 0.0085 ms per km and 4 ms per path, one core capacity divided by the links."""
        return cls(
            route="distance_km",
            ms_per_km=_MS_PER_KM,
            ms_per_path=_MS_PER_PATH,
            bandwidth="capacity_over_hops",
            core_bps=core_bps,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Connectivity:
    """Latency and available bandwidth of every ordered pair of nodes.

    Args:
        names: of the nodes.
        latency_ms: one way, >= 0; 0 from a node to itself.
        available_bps: > 0, inf from a node to itself; None when not known.
        hops: links on each path, when it was found in an underlay.
        next_hops: the node after i on the path to j, −1 for j itself.
        name: of the network.

    Raises:
        ConfigError: naming all that is wrong.
    """

    names: tuple[str, ...]
    latency_ms: Float64[ndarray, "nodes nodes"]
    available_bps: Float64[ndarray, "nodes nodes"] | None = None
    hops: Int64[ndarray, "nodes nodes"] | None = None
    next_hops: Int64[ndarray, "nodes nodes"] | None = None
    name: str = "connectivity"

    def __post_init__(self) -> None:
        problems: list[RivageError] = list(self._problems())
        if problems:
            raise combine(problems, f'network "{self.name}"')

    def __len__(self) -> int:
        return len(self.names)

    def delay_ms(self, bits: float) -> Float64[ndarray, "nodes nodes"]:
        """Time for so many bits from each node to each: latency plus transfer over the available bandwidth.

        Raises:
            ConfigError: when the bandwidth is not known.
        """
        if self.available_bps is None:
            raise ConfigError(
                "available_bps is not known",
                where=f'network "{self.name}"',
                mend="Give the links capacities, the rule a core_bps, or a matrix of bandwidths.",
            )
        return self.latency_ms + 1000 * bits / self.available_bps

    def _problems(self) -> Iterator[ConfigError]:
        nodes = len(self.names)
        for field in ("latency_ms", "available_bps", "hops", "next_hops"):
            values = getattr(self, field)
            if values is not None and values.shape != (nodes, nodes):
                mend = f"Give a row and a column for each of the {nodes} nodes."
                yield ConfigError(f"{field} has shape {values.shape}", mend=mend)
                return
        bad = ~(np.isfinite(self.latency_ms) & (self.latency_ms >= 0))
        if bad.any():
            yield self._refused("latency_ms", self.latency_ms, bad, "a finite number >= 0")
        if np.diagonal(self.latency_ms).any():
            yield ConfigError("latency from a node to itself", mend="Put 0 on the diagonal.")
        if self.available_bps is not None:
            bad = ~((self.available_bps > 0) & ((self.available_bps < np.inf) | np.eye(nodes, dtype=bool)))
            if bad.any():
                yield self._refused("available_bps", self.available_bps, bad, "a finite number > 0")

    def _refused(
        self, field: str, values: Float64[ndarray, "nodes nodes"], bad: Bool[ndarray, "nodes nodes"], need: str
    ) -> ConfigError:
        one, other = np.argwhere(bad)[0].tolist()
        more = f", and {bad.sum() - 1} more are bad" if bad.sum() > 1 else ""
        what = f"{field} from {self.names[one]} to {self.names[other]} is {values[one, other]}{more}"
        return ConfigError(what, mend=f"Give {need}.")


def connectivity(underlay: Underlay, rule: PathRule) -> Connectivity:
    """Latency and available bandwidth between every two nodes of an underlay.

    Both are the same in both directions, save where two paths of one length differ in what the rule adds up or bounds.

    Args:
        underlay: nodes and links.
        rule: which paths, and what they offer; `PathRule.published` for the published one. Bandwidths are None when
            neither the rule nor the links have capacities.

    Raises:
        ConfigError: when the links lack what the rule is made of.

    Example:
        >>> line = Underlay.of(["a", "b", "c"], [("a", "b"), ("b", "c")], distance_km=[1000, 3000])
        >>> every = connectivity(line, PathRule.published())
        >>> every.latency_ms[0].tolist(), every.available_bps[0].tolist()
        ([0.0, 12.5, 38.0], [inf, 1000000000.0, 500000000.0])
    """
    from rivage.graphs.paths import cost_matrix, next_hops  # with SciPy, which matrices that are only read do not need

    network = underlay.network(rule.route)
    lengths = cost_matrix(network)
    routes = np.stack([next_hops(network, target) for target in range(len(underlay))], axis=1)
    walk = list(_steps(underlay, routes))
    added: Literal["latency_ms", "distance_km"] = "latency_ms" if rule.ms_per_km is None else "distance_km"
    if added == rule.route:
        total = np.minimum(lengths, lengths.T)  # the same sums in another order
    else:
        total = _totals(walk, underlay.known(added), len(underlay))
    latency = total if rule.ms_per_km is None else rule.ms_per_km * total
    return Connectivity(
        names=underlay.names,
        latency_ms=np.where(np.eye(len(underlay), dtype=bool), 0, latency + rule.ms_per_path),
        available_bps=_available(underlay, walk, rule),
        hops=_hops(walk, len(underlay)),
        next_hops=routes,
        name=underlay.name,
    )


def triangle_violations(delays: Float64[ndarray, "nodes nodes"]) -> int:
    """How many ordered triples of different nodes have d(i, k) > d(i, j) + d(j, k). O(N³).

    Designers of overlays that promise something for Euclidean delays promise nothing where there are any.
    """
    inner = np.where(np.eye(len(delays), dtype=bool), np.inf, delays)  # a detour through an end is none
    direct = np.where(np.isinf(inner), -np.inf, inner) * (1 - _TIE)
    return sum(int((direct > inner[:, [j]] + inner[[j], :]).sum()) for j in range(len(delays)))


_Walk = list[tuple[Int64[ndarray, "pairs"], Int64[ndarray, "pairs"], Int64[ndarray, "pairs"]]]


def _steps(underlay: Underlay, routes: Int64[ndarray, "nodes nodes"]) -> Iterator[Any]:
    """All paths in step: the pairs that are still under way, by rows and columns, and the link that each crosses."""
    nodes = len(underlay)
    links = np.full((nodes, nodes), -1, np.int64)
    one, other = underlay.edges.T
    links[one, other] = links[other, one] = np.arange(len(underlay.edges))
    rows, columns = np.nonzero(~np.eye(nodes, dtype=bool))
    at = rows
    while len(rows):
        ahead = routes[at, columns]
        yield rows, columns, links[at, ahead]
        going = ahead != columns
        rows, columns, at = rows[going], columns[going], ahead[going]


def _hops(walk: _Walk, nodes: int) -> Int64[ndarray, "nodes nodes"]:
    hops = np.zeros((nodes, nodes), np.int64)
    for rows, columns, _ in walk:
        hops[rows, columns] += 1
    return hops


def _totals(walk: _Walk, values: Float64[ndarray, "edges"], nodes: int) -> Float64[ndarray, "nodes nodes"]:
    total = np.zeros((nodes, nodes))
    for rows, columns, links in walk:
        total[rows, columns] += values[links]
    return total


def _available(underlay: Underlay, walk: _Walk, rule: PathRule) -> Float64[ndarray, "nodes nodes"] | None:
    nodes, capacities = len(underlay), underlay.capacity_bps
    if rule.core_bps is not None:
        capacities = np.full(len(underlay.edges), rule.core_bps)
    if capacities is None:
        if "capacity_bps" in underlay.left_out:
            text = "%s: %s have no capacity_bps, so bandwidths are not known; core_bps stands for all links"
            _LOGGER.warning(text, underlay.name, underlay.left_out["capacity_bps"])
        return None
    least = np.full((nodes, nodes), np.inf)
    for rows, columns, links in walk:
        least[rows, columns] = np.minimum(least[rows, columns], capacities[links])
    return least if rule.bandwidth == "bottleneck" else least / np.maximum(_hops(walk, nodes), 1)
