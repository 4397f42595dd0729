"""Networks between places on the globe: great-circle distances, and links by nearness.

Distances are those of the haversine formula on a sphere of the Earth's mean radius; cables are longer. No latency
follows from them by itself: give one with `rivage.graphs.Underlay.with_links`, or a `rivage.graphs.PathRule` that
counts kilometres.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest, require, require_one_of
from rivage.core.settings import combine
from rivage.graphs.underlay import Underlay

__all__ = ["CITIES", "cities", "great_circle_km"]

_RADIUS_KM = 6371.0088  # mean radius of the Earth, IUGG

CITIES: Mapping[str, tuple[float, float]] = {
    "Amsterdam": (52.37, 4.90),
    "Ashburn": (39.04, -77.49),
    "Athens": (37.98, 23.73),
    "Atlanta": (33.75, -84.39),
    "Auckland": (-36.85, 174.76),
    "Bangkok": (13.76, 100.50),
    "Barcelona": (41.39, 2.17),
    "Beijing": (39.90, 116.41),
    "Berlin": (52.52, 13.41),
    "Bogotá": (4.71, -74.07),
    "Boston": (42.36, -71.06),
    "Brussels": (50.85, 4.35),
    "Buenos Aires": (-34.60, -58.38),
    "Cairo": (30.04, 31.24),
    "Cape Town": (-33.92, 18.42),
    "Chicago": (41.88, -87.63),
    "Copenhagen": (55.68, 12.57),
    "Dallas": (32.78, -96.80),
    "Denver": (39.74, -104.99),
    "Dubai": (25.20, 55.27),
    "Dublin": (53.35, -6.26),
    "Frankfurt": (50.11, 8.68),
    "Geneva": (46.20, 6.14),
    "Hamburg": (53.55, 9.99),
    "Helsinki": (60.17, 24.94),
    "Hong Kong": (22.32, 114.17),
    "Istanbul": (41.01, 28.98),
    "Jakarta": (-6.21, 106.85),
    "Johannesburg": (-26.20, 28.05),
    "Lagos": (6.52, 3.38),
    "Lille": (50.63, 3.06),
    "Lisbon": (38.72, -9.14),
    "London": (51.51, -0.13),
    "Los Angeles": (34.05, -118.24),
    "Lyon": (45.76, 4.84),
    "Madrid": (40.42, -3.70),
    "Marseille": (43.30, 5.37),
    "Melbourne": (-37.81, 144.96),
    "Mexico City": (19.43, -99.13),
    "Miami": (25.76, -80.19),
    "Milan": (45.46, 9.19),
    "Minneapolis": (44.98, -93.27),
    "Montréal": (45.50, -73.57),
    "Mumbai": (19.08, 72.88),
    "Munich": (48.14, 11.58),
    "Nairobi": (-1.29, 36.82),
    "New Delhi": (28.61, 77.21),
    "New York": (40.71, -74.01),
    "Nice": (43.70, 7.27),
    "Osaka": (34.69, 135.50),
    "Oslo": (59.91, 10.75),
    "Paris": (48.86, 2.35),
    "Philadelphia": (39.95, -75.17),
    "Phoenix": (33.45, -112.07),
    "Prague": (50.08, 14.44),
    "Rome": (41.90, 12.50),
    "San Francisco": (37.77, -122.42),
    "San José": (37.34, -121.89),
    "Santiago": (-33.45, -70.67),
    "São Paulo": (-23.55, -46.63),
    "Seattle": (47.61, -122.33),
    "Seoul": (37.57, 126.98),
    "Shanghai": (31.23, 121.47),
    "Singapore": (1.35, 103.82),
    "Stockholm": (59.33, 18.07),
    "Sydney": (-33.87, 151.21),
    "Tokyo": (35.68, 139.69),
    "Toronto": (43.65, -79.38),
    "Vienna": (48.21, 16.37),
    "Warsaw": (52.23, 21.01),
    "Zurich": (47.38, 8.54),
}
"""Latitude and longitude of some cities, in degrees, to about a kilometre."""


def great_circle_km(
    one: Float64[ndarray, "*places 2"], other: Float64[ndarray, "*places 2"]
) -> Float64[ndarray, "*places"]:
    """Length of the shortest way over the globe between two latitudes and longitudes in degrees.

    Example:
        >>> float(great_circle_km(np.array([48.86, 2.35]), np.array([51.51, -0.13])).round())  # Paris, London
        343.0
    """
    (north, east), (other_north, other_east) = (np.moveaxis(np.radians(place), -1, 0) for place in (one, other))
    half = np.sin((other_north - north) / 2) ** 2
    half = half + np.cos(north) * np.cos(other_north) * np.sin((other_east - east) / 2) ** 2
    return np.asarray(2 * _RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half, 1))))


def cities(
    places: Mapping[str, tuple[float, float]] | Iterable[str],
    *,
    links: Literal["mesh", "tree", "nearest"] = "mesh",
    neighbours: int = 2,
    name: str = "cities",
) -> Underlay:
    """A network between places, with the length of each link.

    Args:
        places: names -> latitude and longitude in degrees, or names of some of `CITIES`.
        links: between every two places (``mesh``), the shortest that join all (``tree``), or these and each place's
            nearest ``neighbours``.
        neighbours: how many nearest places, for ``nearest``.
        name: of the network.

    Raises:
        ConfigError: for unknown names, places outside the globe, or settings out of range.

    Example:
        >>> line = cities(["Paris", "Lyon", "Nice"], links="tree")
        >>> [line.label(link) for link in range(2)], line.distance_km.round().tolist()
        (['Paris–Lyon', 'Lyon–Nice'], [392.0, 299.0])
    """
    require_one_of(links, "links", ("mesh", "tree", "nearest"))
    require(neighbours, "neighbours", least=1)
    where = dict(places) if isinstance(places, Mapping) else _found(places)
    coordinates = np.array(list(where.values()), np.float64).reshape(-1, 2)
    lengths = great_circle_km(coordinates[:, None], coordinates[None])
    chosen = ~np.eye(len(where), dtype=bool) if links == "mesh" else _tree(lengths)
    if links == "nearest":
        chosen |= _nearest(lengths, neighbours)
    edges = np.argwhere(np.triu(chosen | chosen.T, 1)).astype(np.int64)
    return Underlay(
        names=tuple(where),
        edges=edges,
        distance_km=lengths[tuple(edges.T)],
        coordinates=coordinates,
        name=name,
    )


def _found(names: Iterable[str]) -> dict[str, tuple[float, float]]:
    listed = list(names)
    unknown = [name for name in dict.fromkeys(listed) if name not in CITIES]
    twice = sorted({name for name in listed if listed.count(name) > 1})
    problems = [
        ConfigError(f'no city "{name}"', mend=f"{nearest(name, CITIES)} Or give latitudes and longitudes.".strip())
        for name in unknown
    ]
    problems += [ConfigError(f'"{name}" is there twice', mend="Name each city once.") for name in twice]
    if problems:
        raise combine(problems)
    return {name: CITIES[name] for name in listed}


def _tree(lengths: Float64[ndarray, "nodes nodes"]) -> Bool[ndarray, "nodes nodes"]:
    """The shortest spanning tree (Prim); of equal links the one to the smallest number. O(N²)."""
    nodes = len(lengths)
    chosen = np.zeros((nodes, nodes), bool)
    nearby, parent = np.full(nodes, np.inf), np.zeros(nodes, np.int64)
    outside = np.ones(nodes, bool)
    at = 0
    for _ in range(nodes - 1):
        outside[at], nearby[at] = False, np.inf
        closer = outside & (lengths[at] < nearby)
        nearby[closer], parent[closer] = lengths[at][closer], at
        at = int(np.where(outside, nearby, np.inf).argmin())
        chosen[parent[at], at] = True
    return chosen


def _nearest(lengths: Float64[ndarray, "nodes nodes"], count: int) -> Bool[ndarray, "nodes nodes"]:
    nodes = len(lengths)
    order = np.argsort(np.where(np.eye(nodes, dtype=bool), np.inf, lengths), axis=1, kind="stable")
    chosen = np.zeros((nodes, nodes), bool)
    np.put_along_axis(chosen, order[:, : min(count, nodes - 1)], True, axis=1)
    return chosen
