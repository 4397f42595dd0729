"""The networks that overlays are designed for: three published ones, and random ones of 10 to 90 silos."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from rivage.decentralized import Silos
from rivage.graphs import PathRule, Underlay, connectivity, load_underlay
from rivage.graphs.spanning import minimum_spanning_tree

__all__ = ["BITS", "FILES", "STEP_MS", "published", "random_silos", "random_underlay"]

BITS, STEP_MS = 44_961_717, 25.4  # iNaturalist with ResNet-18, as in the published tables
FILES = {"Gaia": "gaia", "AWS North America": "amazon_us", "Géant": "geantdistance"}
SIDE_KM, RATES = 4000.0, (1e9, 2.5e9, 1e10)
ACCESS = (1e10, 1e9, 1e8)


def published(name: str, access_bps: float) -> tuple[Underlay, Silos]:
    """One of the networks of Marfoq et al., with a core of 1 Gb/s."""
    root = Path(os.environ.get("RIVAGE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    underlay = load_underlay(root / "underlays" / f"{FILES[name]}.gml")
    every = connectivity(underlay, PathRule.published(1e9))
    return underlay, Silos.of(every, model_bits=BITS, step_ms=STEP_MS, access_bps=access_bps)


def random_underlay(seed: int, nodes: int) -> Underlay:
    """Nodes in a square of 4,000 km; links of 1, 2.5 or 10 Gb/s drawn.

    Even seeds: all pairs within the least distance that connects the nodes. Odd seeds: Waxman's graph, pairs at a
    distance x with probability proportional to exp(−4 x / largest), about 4 links a node, and the lightest tree.
    """
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, SIDE_KM, (nodes, 2))
    apart = np.hypot(*(places[:, None] - places).transpose(2, 0, 1))
    tree = minimum_spanning_tree(apart)
    if seed % 2 == 0:
        linked = apart <= apart[tuple(tree.T)].max()
    else:
        chance = np.exp(-4 * apart / apart.max())
        chance *= 4 * nodes / (chance.sum() - nodes)
        linked = rng.random((nodes, nodes)) < chance
        linked[tuple(tree.T)] = linked[tuple(tree.T[::-1])] = True
    edges = np.argwhere(np.triu(linked, 1))
    return Underlay(
        names=tuple(f"s{k:02}" for k in range(nodes)),
        edges=edges,
        distance_km=apart[tuple(edges.T)],
        capacity_bps=rng.choice(RATES, len(edges)),
        name=f"{'geometric' if seed % 2 == 0 else 'Waxman'} {nodes}",
    )


def random_silos(seed: int, nodes: int) -> tuple[Underlay, Silos]:
    """Access of 10 Gb/s, 1 Gb/s and 100 Mb/s in turn; paths by the published rule with the links' own capacities."""
    underlay = random_underlay(seed, nodes)
    rule = PathRule(route="distance_km", ms_per_km=0.0085, ms_per_path=4, bandwidth="capacity_over_hops")
    every = connectivity(underlay, rule)
    return underlay, Silos.of(every, model_bits=BITS, step_ms=STEP_MS, access_bps=ACCESS[seed % 3])
