"""What flows through the same links get: max-min fair rates of the arcs of an overlay.

The published tables give every path of h links the core capacity divided by h, whoever else sends. Here the flows that
are really there share each link, in each direction by itself: the rates are max-min fair, that is, no flow can get more
without another that has no more than it getting less (Bertsekas, Gallager. Data networks, 1992, section 6.5.2).

Progressive filling: all rates grow together until a link is full; its flows stop; the others grow on. O(L (F h + L))
for F flows over h links each and L links.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.graphs.path_rules import Connectivity
from rivage.graphs.underlay import Underlay

__all__ = ["fair_rates"]


def fair_rates(
    underlay: Underlay, paths: Connectivity, arcs: Iterable[tuple[int, int]], *, core_bps: float | None = None
) -> Float64[ndarray, "arcs"]:
    """Bits per second of each arc when all send at once over their paths.

    Args:
        underlay: with the capacity of each link in each direction.
        paths: of the same underlay, from `rivage.graphs.connectivity`.
        arcs: from and to, different nodes; an arc that is there twice is two flows.
        core_bps: one capacity for all links in place of their own.

    Raises:
        ConfigError: when capacities or paths are not known.

    Example:
        >>> from rivage.graphs import PathRule, connectivity
        >>> line = Underlay.of("abc", [("a", "b"), ("b", "c")], latency_ms=1, capacity_bps=[10, 4])
        >>> fair_rates(line, connectivity(line, PathRule()), [(0, 1), (0, 2), (1, 2), (2, 0)]).tolist()
        [8.0, 2.0, 2.0, 4.0]
    """
    if paths.next_hops is None or paths.names != underlay.names:
        mend = "Give what connectivity() made of this underlay."
        raise ConfigError("the paths are not known", where=f'underlay "{underlay.name}"', mend=mend)
    capacities = underlay.known("capacity_bps") if core_bps is None else np.full(len(underlay.edges), core_bps)
    flows, links = _crossings(underlay, paths.next_hops, arcs)
    rates = np.zeros(int(flows.max(initial=-1)) + 1)
    room, growing = np.concatenate([capacities, capacities]), np.ones(len(rates), bool)
    while growing.any():
        users = np.bincount(links[growing[flows]], minlength=len(room))
        shares = np.divide(room, users, out=np.full(len(room), np.inf), where=users > 0)
        full = shares <= shares.min() * (1 + 1e-12)
        rates[growing] += shares.min()
        room = np.maximum(room - shares.min() * users, 0)
        growing[flows[full[links]]] = False
    return rates


def _crossings(
    underlay: Underlay, next_hops: Int64[ndarray, "nodes nodes"], arcs: Iterable[tuple[int, int]]
) -> tuple[Int64[ndarray, "crossings"], Int64[ndarray, "crossings"]]:
    """Which flow crosses which link; links count twice, those against their first direction after all others."""
    number = {pair: link for link, pair in enumerate(map(tuple, underlay.edges.tolist()))}
    number |= {(b, a): link + len(underlay.edges) for (a, b), link in number.items()}
    crossed: list[tuple[int, int]] = []
    for flow, (source, target) in enumerate(arcs):
        if source == target:
            raise ConfigError(f"arc {flow} goes from node {source} to itself", mend="Leave it out.")
        at = source
        while at != target:
            ahead = int(next_hops[at, target])
            crossed.append((flow, number[at, ahead]))
            at = ahead
    flows, links = np.array(crossed, np.int64).reshape(-1, 2).T
    return flows, links
