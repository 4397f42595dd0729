"""From network, catalog and sites to an instance: by hand on a small network, and what cannot be built."""

from __future__ import annotations

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.graphs.underlay import Underlay
from rivage.inference.catalog import Catalog, Model
from rivage.inference.scene import Asked, Site, build_instance, nodes_at

NETWORK = Underlay.of(
    ["phone", "cell", "hub", "east", "west"],
    [("phone", "cell"), ("cell", "hub"), ("hub", "east"), ("cell", "west")],
    latency_ms=[1.0, 2.0, 10.0, 11.0],
    tiers=["user", "edge", "edge", "cloud", "cloud"],
    name="toy",
)
CATALOG = Catalog(
    models=(
        Model(name="s", task="see", accuracy=0.5, size_mb=10, delay_ms={"cpu": 20, "gpu": 4}, throughput_rps=3),
        Model(name="l", task="see", accuracy=0.9, size_mb={"gpu": 60, "cpu": 50}, delay_ms={"gpu": 10}),
        Model(name="h", task="hear", accuracy=0.8, size_mb=5, delay_ms=0),
    )
)
SITES = (
    Site(at="*", budget_mb=12, hardware="cpu"),
    Site(at="cloud", hardware="gpu", repository=True),
    Site(at="hub", budget_mb=70, hardware="gpu"),
)
ASKED = Asked(entry=np.array([0, 0, 4]), task=np.array([0, 1, 0]), deadline_ms=np.array([20.0, np.inf, 5.0]))


def test_by_hand() -> None:
    made = build_instance(NETWORK, CATALOG, SITES, ASKED, slot_s=10.0, alpha_ms_per_point=2.0, late_cost=7.0)
    inf = np.inf
    assert made.sizes.tolist() == [[10, inf, 5], [10, inf, 5], [10, 60, 5], [10, 60, 5], [10, 60, 5]]
    assert made.delays_ms.tolist() == [[20, 0, 0], [20, 0, 0], [4, 10, 0], [4, 10, 0], [4, 10, 0]]
    assert made.throughput.tolist() == [[30, 10, inf], [30, 10, inf], [30, 1000, inf], [inf] * 3, [inf] * 3]
    assert made.budgets.tolist() == [12, 12, 70, 75, 75], "what a repository holds comes on top"
    assert made.pinned.tolist() == [[False] * 3] * 3 + [[True] * 3] * 2
    assert made.free.tolist() == [[True, False, True]] * 2 + [[True] * 3] + [[False] * 3] * 2
    # From the phone west is 2 + 22 and east 2 + 4 + 20 away; who enters at a repository is there.
    assert made.paths.tolist() == [[0, 1, 4], [0, 1, 4], [4, -1, -1]]
    assert made.latency_ms.tolist() == [[0, 2, 24], [0, 2, 24], [0, inf, inf]]
    assert (made.alpha, made.late_cost, made.models, made.tasks) == (2.0, 7.0, ("s", "l", "h"), ("see", "hear"))
    first = slice(*made.ranking.first[:2])
    assert made.ranking.cost[first].tolist() == [24 + 10 + 20 + 7], "large and accurate in the cloud is cheapest"
    assert made.nodes == NETWORK.names


def test_the_nearest_repository_of_the_task_ends_the_path() -> None:
    """West cannot see, and equally far repositories are told apart by links and numbers."""
    blind = Catalog(models=(*CATALOG.models[1:2], CATALOG.models[2]))
    sites = (Site(at="east", hardware="gpu", repository=True), Site(at="west", hardware="cpu", repository=True))
    made = build_instance(NETWORK, blind, sites, Asked(entry=np.array([0, 0]), task=np.array([0, 1])))
    assert [path[path >= 0].tolist() for path in made.paths] == [[0, 1, 2, 3], [0, 1, 4]]
    star = Underlay.of(["a", "b", "c"], [("a", "b"), ("a", "c")], latency_ms=[1.0, 1.0])
    made = build_instance(
        star,
        CATALOG,
        (Site(at=("b", "c"), hardware="gpu", repository=True),),
        Asked(entry=np.array([0]), task=np.array([0])),
    )
    assert made.paths.tolist() == [[0, 1]]


def test_later_sites_replace_earlier_ones_whole() -> None:
    sites = (Site(at="*", budget_mb=80, hardware="gpu", repository=True), Site(at="user", budget_mb=10, hardware="cpu"))
    made = build_instance(NETWORK, CATALOG, sites, ASKED)
    assert made.budgets.tolist() == [10, 155, 155, 155, 155]
    assert not made.pinned[0].any()


def test_nodes_that_no_site_names_hold_nothing() -> None:
    made = build_instance(NETWORK, CATALOG, SITES[1:2], ASKED)
    assert made.budgets.tolist() == [0, 0, 0, 75, 75]
    assert not made.free.any()


def test_throughput_is_per_slot_and_its_length_moves_nothing_else() -> None:
    one, ten = (build_instance(NETWORK, CATALOG, SITES, ASKED, slot_s=seconds) for seconds in (1.0, 10.0))
    assert (ten.throughput == 10 * one.throughput).all()
    assert np.array_equal(one.ranking.cost, ten.ranking.cost)


def test_nodes_by_tier_by_name_and_all() -> None:
    assert nodes_at(NETWORK, "*") == [0, 1, 2, 3, 4]
    assert nodes_at(NETWORK, "edge") == [1, 2]
    assert nodes_at(NETWORK, "west") == [4]
    assert nodes_at(NETWORK, ("west", "phone", "west")) == [4, 0]
    with pytest.raises(ConfigError, match=r'"wets" is neither a node nor a tier of "toy"\. Did you mean "west"'):
        nodes_at(NETWORK, "wets")


FAULTS = {
    "unknown node": ((Site(at="cloude", repository=True),), '"cloude" is neither a node nor a tier of "toy"'),
    "unknown hardware": (
        (*SITES, Site(at="cell", budget_mb=9, hardware="gpv")),
        '[[sites]] 4: no model of "catalog" names hardware "gpv". Did you mean "gpu"?',
    ),
    "too little memory": (
        (*SITES, Site(at="cell", budget_mb=4, hardware="gpu")),
        "[[sites]] 4: no model fits into 4 MB. The smallest model needs 5 MB; give as much, or 0 for nodes that hold",
    ),
    "no repository": (SITES[:1], "no site is a repository. Let one say repository = true"),
    "a model too large everywhere": (
        (Site(at="*", budget_mb=12, hardware="gpu"), Site(at="cloud", hardware="cpu", repository=True)),
        "model l of task see needs 60, more than any node has left, 12 at most",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_be_built(name: str) -> None:
    sites, text = FAULTS[name]
    with pytest.raises(ConfigError) as caught:
        build_instance(NETWORK, CATALOG, sites, ASKED)
    assert text in str(caught.value)


def test_all_that_is_wrong_is_told_at_once() -> None:
    sites = (Site(at=("x", "y")), Site(at="cell", hardware="gpv"), Site(at="hub", budget_mb=1, hardware="gpu"))
    with pytest.raises(ConfigError) as caught:
        build_instance(NETWORK, CATALOG, sites, ASKED)
    lines = str(caught.value).splitlines()
    assert lines[0] == "4 problems"
    assert [line.strip()[:11] for line in lines[1:]] == ["[[sites]] 1", "[[sites]] 1", "[[sites]] 2", "[[sites]] 3"]


def test_a_task_that_no_repository_does() -> None:
    seeing = Catalog(
        models=(*CATALOG.models[:2], Model(name="h", task="hear", accuracy=1, size_mb=5, delay_ms={"cpu": 1}))
    )
    with pytest.raises(ConfigError, match=r'no repository can run a model of task "hear"\. Give one hardware'):
        build_instance(NETWORK, seeing, SITES, ASKED)


@pytest.mark.parametrize("budget", [-1.0, np.nan, np.inf])
def test_budgets_that_are_none(budget: float) -> None:
    with pytest.raises(ConfigError, match="budget_mb"):
        Site(budget_mb=budget)
