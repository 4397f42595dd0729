"""Counts, degrees and diameters that are known; the same graphs as networkx builds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import networkx as nx
import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.graphs import (
    Network,
    abilene,
    balanced_tree,
    cost_matrix,
    cycle,
    dtelekom,
    erdos_renyi,
    geant,
    grid,
    hypercube,
    path,
)


@pytest.mark.parametrize(
    ("network", "nodes", "links", "diameter"),
    [
        (path(4), 4, 3, 3),
        (path(1), 1, 0, 0),
        (cycle(5), 5, 5, 2),
        (grid(3, 4), 12, 17, 5),
        (balanced_tree(3, 2), 13, 12, 4),
        (balanced_tree(4, 4), 341, 340, 8),
        (balanced_tree(1, 3), 4, 3, 3),
        (balanced_tree(2, 0), 1, 0, 0),
        (hypercube(7), 128, 448, 7),
        (hypercube(0), 1, 0, 0),
        (abilene(), 9, 13, 4),
        (geant(), 22, 33, 6),
        (dtelekom(), 68, 273, 4),
    ],
    ids=lambda value: value.name if isinstance(value, Network) else None,
)
def test_sizes(network: Network, nodes: int, links: int, diameter: int) -> None:
    assert (network.nodes, len(network.edges), cost_matrix(network).max()) == (nodes, links, diameter)
    assert network.is_connected
    assert (network.weights == 1).all()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (path(5), nx.path_graph(5)),
        (cycle(6), nx.cycle_graph(6)),
        (balanced_tree(3, 3), nx.balanced_tree(3, 3)),
        (hypercube(4), nx.convert_node_labels_to_integers(nx.hypercube_graph(4), ordering="sorted")),
        (grid(3, 5), nx.convert_node_labels_to_integers(nx.grid_2d_graph(3, 5), ordering="sorted")),
    ],
    ids=["path", "cycle", "tree", "hypercube", "grid"],
)
def test_families_are_those_of_networkx(ours: Network, theirs: Any) -> None:
    assert (ours.adjacency == (nx.to_numpy_array(theirs, nodelist=range(ours.nodes)) > 0)).all()


def test_abilene_has_the_known_links() -> None:
    network = abilene()
    assert network.names == ("NEWY", "WASH", "CHIC", "ATLA", "HOUS", "KANS", "SALT", "LOSA", "SEAT")
    assert [network.label(v) for v in network.neighbours(network.node("KANS")).tolist()] == ["CHIC", "HOUS", "SALT"]
    assert sorted(network.degrees.tolist()) == [2, 2, 3, 3, 3, 3, 3, 3, 4]


def test_erdos_renyi_has_the_right_number_of_links() -> None:
    rng = np.random.default_rng(0)
    counts = [len(erdos_renyi(40, 0.2, rng, connected=False).edges) for _ in range(200)]
    mean, deviation = 0.2 * 780, (0.2 * 0.8 * 780) ** 0.5
    assert abs(np.mean(counts) - mean) < 4 * deviation / 200**0.5  # false alarm 6e-5
    assert erdos_renyi(30, 0.1, rng).is_connected
    assert len(erdos_renyi(5, 1.0, rng).edges) == 10


def test_a_graph_that_will_not_connect_is_told() -> None:
    with pytest.raises(ConfigError, match=r"were not connected. Give p above ln\(nodes\)/nodes = 0.0461"):
        erdos_renyi(100, 0.001, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: path(0), "nodes is 0"),
        (lambda: cycle(2), "nodes is 2"),
        (lambda: grid(0, 3), "rows is 0"),
        (lambda: balanced_tree(0, 3), "degree is 0"),
        (lambda: hypercube(-1), "dimension is -1"),
        (lambda: erdos_renyi(3, 1.5, np.random.default_rng(0)), "p is 1.5"),
    ],
)
def test_impossible_sizes_are_refused(build: Callable[[], Network], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
