"""Networks as plain arrays: nodes, links with costs, the usual topologies, shortest paths.

Names are loaded on first use: a network that is only described loads no SciPy (`paths`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.graphs.cycles import CycleMean, max_cycle_mean, max_cycle_mean_of_arcs, start_times
    from rivage.graphs.geography import cities
    from rivage.graphs.network import Network
    from rivage.graphs.path_rules import Connectivity, PathRule, connectivity
    from rivage.graphs.paths import cost_matrix, next_hops, path_cost, shortest_path
    from rivage.graphs.tiered import tiers, topology_one, topology_two
    from rivage.graphs.topologies import (
        abilene,
        balanced_tree,
        cycle,
        dtelekom,
        erdos_renyi,
        geant,
        grid,
        hypercube,
        path,
    )
    from rivage.graphs.underlay import Underlay
    from rivage.graphs.underlay_files import format_underlay, load_connectivity, load_underlay, parse_underlay

_HOMES = {
    "Connectivity": "path_rules",
    "CycleMean": "cycles",
    "Network": "network",
    "PathRule": "path_rules",
    "Underlay": "underlay",
    "abilene": "topologies",
    "balanced_tree": "topologies",
    "cities": "geography",
    "connectivity": "path_rules",
    "cost_matrix": "paths",
    "cycle": "topologies",
    "dtelekom": "topologies",
    "erdos_renyi": "topologies",
    "format_underlay": "underlay_files",
    "geant": "topologies",
    "grid": "topologies",
    "hypercube": "topologies",
    "load_connectivity": "underlay_files",
    "load_underlay": "underlay_files",
    "max_cycle_mean": "cycles",
    "max_cycle_mean_of_arcs": "cycles",
    "next_hops": "paths",
    "parse_underlay": "underlay_files",
    "path": "topologies",
    "path_cost": "paths",
    "shortest_path": "paths",
    "start_times": "cycles",
    "tiers": "tiered",
    "topology_one": "tiered",
    "topology_two": "tiered",
}

__all__ = [
    "Connectivity",
    "CycleMean",
    "Network",
    "PathRule",
    "Underlay",
    "abilene",
    "balanced_tree",
    "cities",
    "connectivity",
    "cost_matrix",
    "cycle",
    "dtelekom",
    "erdos_renyi",
    "format_underlay",
    "geant",
    "grid",
    "hypercube",
    "load_connectivity",
    "load_underlay",
    "max_cycle_mean",
    "max_cycle_mean_of_arcs",
    "next_hops",
    "parse_underlay",
    "path",
    "path_cost",
    "shortest_path",
    "start_times",
    "tiers",
    "topology_one",
    "topology_two",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
