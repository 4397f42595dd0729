"""Trees of tiers, from many nodes near the users up to one cloud, as delivery networks have them.

The sizes and round trips of `topology_one` and `topology_two` are those remembered of Si Salem, Castellano, Neglia,
Pianese, Araldo. Towards inference delivery networks: distributing machine learning with optimality guarantees.
IEEE/ACM ToN 32(1), 2024, arXiv 2105.02510, whose first network follows Ceselli, Premoli, Secci. Mobile edge cloud
network design optimization. IEEE/ACM ToN 25(3), 2017. They could not be checked against the text: defaults, not
published figures. Four round trips (6, 6, 15, 40 ms) and four tiers are remembered; the first round trip is taken for
the radio link between a device and its base station, which needs a tier of devices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from rivage.core.errors import ConfigError
from rivage.core.settings import combine
from rivage.graphs.underlay import Underlay

__all__ = ["tiers", "topology_one", "topology_two"]

_STATIONS = {"base station": 24, "central office": 4, "ISP data centre": 2, "cloud": 1}
_RADIO_MS, _UPWARD_MS = 6.0, (6.0, 15.0, 40.0)


def tiers(
    counts: Mapping[str, int],
    round_trip_ms: Sequence[float],
    *,
    capacity_bps: ArrayLike | None = None,
    name: str = "tiers",
) -> Underlay:
    """A tree of tiers: each node hangs below one node of the next tier, evenly and in order.

    Node k of a tier of n hangs below node ⌊k m / n⌋ of a next tier of m. Nodes are numbered tier by
    tier, and links likewise: link i joins node i and the node above it.

    Args:
        counts: label of each tier -> how many nodes, from the users up; one node on top.
        round_trip_ms: over a link from each tier to the next, one fewer than tiers.
        capacity_bps: of the links from each tier to the next; one number may stand for all.
        name: of the network.

    Raises:
        ConfigError: naming all that is wrong.

    Example:
        >>> tree = tiers({"edge": 4, "office": 2, "cloud": 1}, [6, 40])
        >>> tree.names
        ('edge 1', 'edge 2', 'edge 3', 'edge 4', 'office 1', 'office 2', 'cloud')
        >>> tree.edges.tolist()
        [[0, 4], [1, 4], [2, 5], [3, 5], [4, 6], [5, 6]]
    """
    gaps = len(counts) - 1
    capacities = None if capacity_bps is None else np.asarray(capacity_bps, np.float64)
    if capacities is not None and capacities.ndim == 0:
        capacities = np.full(max(gaps, 0), capacities)
    _check(counts, round_trip_ms, None if capacities is None else len(capacities), name)
    sizes = list(counts.values())
    starts = np.cumsum([0, *sizes]).tolist()
    edges = [
        (low + k, high + k * above // below)
        for (low, high), (below, above) in zip(pairwise(starts[:-1]), pairwise(sizes), strict=True)
        for k in range(below)
    ]
    return Underlay(
        names=tuple(label if n == 1 else f"{label} {k}" for label, n in counts.items() for k in range(1, n + 1)),
        edges=np.array(edges, np.int64).reshape(-1, 2),
        latency_ms=np.repeat(np.asarray(round_trip_ms, np.float64) / 2, sizes[:-1]),
        capacity_bps=None if capacities is None else np.repeat(capacities, sizes[:-1]),
        tiers=tuple(label for label, n in counts.items() for _ in range(n)),
        name=name,
    )


def topology_one(*, devices_per_station: int = 0, capacity_bps: ArrayLike | None = None) -> Underlay:
    """24 base stations, 4 central offices, 2 ISP data centres, 1 cloud: 31 nodes in a tree.

    Round trips: 6 ms from base stations to offices, 15 ms on to data centres, 40 ms on to the cloud.

    Args:
        devices_per_station: so many devices below each base station, with a round trip of 6 ms; none by default, as
            the round trip to the base station is the same for all that may serve a request.
        capacity_bps: see `tiers`.
    """
    devices = {"device": 24 * devices_per_station} if devices_per_station else {}
    round_trips = [_RADIO_MS, *_UPWARD_MS] if devices else _UPWARD_MS
    return tiers({**devices, **_STATIONS}, round_trips, capacity_bps=capacity_bps, name="topology I")


def topology_two(*, capacity_bps: ArrayLike | None = None) -> Underlay:
    """One branch of `topology_one` with one device: 5 nodes in line, round trips 6, 6, 15 and 40 ms."""
    branch = dict.fromkeys(["device", *_STATIONS], 1)
    return tiers(branch, [_RADIO_MS, *_UPWARD_MS], capacity_bps=capacity_bps, name="topology II")


def _check(counts: Mapping[str, int], round_trip_ms: Sequence[float], capacities: int | None, name: str) -> None:
    gaps, problems = max(len(counts) - 1, 0), []
    if not counts:
        problems.append(ConfigError("there is no tier", mend="Give labels and how many nodes each has."))
    empty = [label for label, n in counts.items() if n < 1]
    if empty:
        problems.append(ConfigError(f"tiers without nodes: {', '.join(empty)}", mend="Leave them out."))
    top = list(counts.items())[-1:]
    if top and top[0][1] > 1:
        what = f'the last tier, "{top[0][0]}", has {top[0][1]} nodes'
        problems.append(ConfigError(what, mend="End with a tier of one node; it joins the branches."))
    if len(round_trip_ms) != gaps:
        what = f"{len(round_trip_ms)} round trips between {len(counts)} tiers"
        problems.append(ConfigError(what, mend=f"Give {gaps}: from each tier to the next."))
    if capacities is not None and capacities != gaps:
        what = f"{capacities} capacities between {len(counts)} tiers"
        problems.append(ConfigError(what, mend=f"Give {gaps}, or one for all."))
    if problems:
        raise combine(problems, f'underlay "{name}"')
