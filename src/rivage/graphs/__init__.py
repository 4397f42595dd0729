"""Networks as plain arrays: nodes, links with costs, the usual topologies, shortest paths.

Names are loaded on first use: a network that is only described loads no SciPy (`paths`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rivage.graphs.network import Network
    from rivage.graphs.paths import cost_matrix, next_hops, path_cost, shortest_path
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

_HOMES = {
    "Network": "network",
    "abilene": "topologies",
    "balanced_tree": "topologies",
    "cost_matrix": "paths",
    "cycle": "topologies",
    "dtelekom": "topologies",
    "erdos_renyi": "topologies",
    "geant": "topologies",
    "grid": "topologies",
    "hypercube": "topologies",
    "next_hops": "paths",
    "path": "topologies",
    "path_cost": "paths",
    "shortest_path": "paths",
}

__all__ = [
    "Network",
    "abilene",
    "balanced_tree",
    "cost_matrix",
    "cycle",
    "dtelekom",
    "erdos_renyi",
    "geant",
    "grid",
    "hypercube",
    "next_hops",
    "path",
    "path_cost",
    "shortest_path",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
