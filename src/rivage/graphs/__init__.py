"""Networks as plain arrays: nodes, links with costs, the usual topologies, shortest paths.

Names are loaded on first use: a network that is only described loads no SciPy (`paths`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.graphs.cycles import CycleMean, max_cycle_mean, max_cycle_mean_of_arcs, require_strong, start_times
    from rivage.graphs.families import (
        base_graphs,
        exponential,
        hyper_hypercube,
        one_peer_exponential,
        random_regular,
        torus,
    )
    from rivage.graphs.fastest import FastestMixing, fastest_mixing
    from rivage.graphs.fastest_large import nearly_fastest_mixing
    from rivage.graphs.geography import cities
    from rivage.graphs.matchings import edge_coloring
    from rivage.graphs.mixing import (
        best_constant,
        contraction,
        laplacian,
        metropolis,
        pull_weights,
        push_weights,
        spectral_gap,
    )
    from rivage.graphs.network import Network
    from rivage.graphs.path_rules import Connectivity, PathRule, connectivity
    from rivage.graphs.paths import cost_matrix, next_hops, path_cost, shortest_path
    from rivage.graphs.rings import christofides_ring, improved_ring
    from rivage.graphs.spanning import cube_path, degree_bounded_tree, minimum_spanning_tree
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
    "FastestMixing": "fastest",
    "Network": "network",
    "PathRule": "path_rules",
    "Underlay": "underlay",
    "abilene": "topologies",
    "balanced_tree": "topologies",
    "base_graphs": "families",
    "best_constant": "mixing",
    "christofides_ring": "rings",
    "cities": "geography",
    "connectivity": "path_rules",
    "contraction": "mixing",
    "cost_matrix": "paths",
    "cube_path": "spanning",
    "cycle": "topologies",
    "degree_bounded_tree": "spanning",
    "dtelekom": "topologies",
    "edge_coloring": "matchings",
    "erdos_renyi": "topologies",
    "exponential": "families",
    "format_underlay": "underlay_files",
    "fastest_mixing": "fastest",
    "geant": "topologies",
    "grid": "topologies",
    "hyper_hypercube": "families",
    "hypercube": "topologies",
    "improved_ring": "rings",
    "laplacian": "mixing",
    "load_connectivity": "underlay_files",
    "load_underlay": "underlay_files",
    "max_cycle_mean": "cycles",
    "max_cycle_mean_of_arcs": "cycles",
    "metropolis": "mixing",
    "minimum_spanning_tree": "spanning",
    "nearly_fastest_mixing": "fastest_large",
    "next_hops": "paths",
    "one_peer_exponential": "families",
    "parse_underlay": "underlay_files",
    "path": "topologies",
    "path_cost": "paths",
    "pull_weights": "mixing",
    "push_weights": "mixing",
    "random_regular": "families",
    "require_strong": "cycles",
    "shortest_path": "paths",
    "spectral_gap": "mixing",
    "start_times": "cycles",
    "tiers": "tiered",
    "topology_one": "tiered",
    "topology_two": "tiered",
    "torus": "families",
}

__all__ = [
    "Connectivity",
    "CycleMean",
    "FastestMixing",
    "Network",
    "PathRule",
    "Underlay",
    "abilene",
    "balanced_tree",
    "base_graphs",
    "best_constant",
    "christofides_ring",
    "cities",
    "connectivity",
    "contraction",
    "cost_matrix",
    "cube_path",
    "cycle",
    "degree_bounded_tree",
    "dtelekom",
    "edge_coloring",
    "erdos_renyi",
    "exponential",
    "fastest_mixing",
    "format_underlay",
    "geant",
    "grid",
    "hyper_hypercube",
    "hypercube",
    "improved_ring",
    "laplacian",
    "load_connectivity",
    "load_underlay",
    "max_cycle_mean",
    "max_cycle_mean_of_arcs",
    "metropolis",
    "minimum_spanning_tree",
    "nearly_fastest_mixing",
    "next_hops",
    "one_peer_exponential",
    "parse_underlay",
    "path",
    "path_cost",
    "pull_weights",
    "push_weights",
    "random_regular",
    "require_strong",
    "shortest_path",
    "spectral_gap",
    "start_times",
    "tiers",
    "topology_one",
    "topology_two",
    "torus",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
