"""The model: costs along paths worked out by hand and by the published product, what is refused, the loop."""

from __future__ import annotations

from dataclasses import is_dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.graphs import Network, erdos_renyi, path
from rivage.online.cache_network_setups import published_setup
from rivage.online.cache_networks import CacheNetwork, NetworkOutcome, NetworkPolicy, play_network
from rivage.online.network_baselines import GRD, PGA
from rivage.online.path_replication import PathReplication
from rivage.online.references import reference_of
from rivage.online.registry import NETWORK_POLICIES
from rivage.online.tabular_greedy import DistributedTGOnline

LINE = Network.of(3, [(0, 1), (1, 2)], [2.0, 5.0], name="line")
POLICIES: dict[str, Any] = {
    **{kind: PathReplication(rule=kind) for kind in ("lru", "fifo", "lfu", "rr")},
    "pga": PGA(gain=1.0, every=7),
    "grd": GRD(),
    "tg": DistributedTGOnline(learning_rate=0.01, colors=5),
    "tg independent": DistributedTGOnline(learning_rate=0.01, colors=5, arms="independent"),
    "tg adaptive": DistributedTGOnline(colors=5),
    "tg adaptive batch": DistributedTGOnline(colors=5, batch=8),
    "tg batch": DistributedTGOnline(learning_rate=0.01, colors=5, batch=8, recolor=2),
}


def line(capacities: tuple[int, ...] = (1, 1, 0), items: int = 3) -> CacheNetwork:
    return CacheNetwork.routed(LINE, items=items, capacities=capacities, servers=[2] * items, origins=[0])


def random_instance(seed: int, *, nodes: int = 6, items: int = 4, most: int = 2) -> CacheNetwork:
    rng = np.random.default_rng(seed)
    network = erdos_renyi(nodes, 0.5, rng).with_random_weights(1, 10, rng)
    return CacheNetwork.routed(
        network,
        items=items,
        capacities=rng.integers(0, most + 1, nodes),
        servers=rng.integers(nodes, size=items),
        origins=rng.choice(nodes, 2, replace=False),
        horizon=500,
    )


def test_gains_on_a_line_by_hand() -> None:
    instance = line()
    assert instance.hops.tolist() == [2, 2, 2]
    assert instance.savings.tolist() == [[7.0, 5.0, 0.0]] * 3
    assert instance.costs.tolist() == [7.0] * 3
    assert (instance.slots, instance.useful_slots, instance.first.tolist()) == (2, 2, [0, 1, 2, 2])
    assert instance.gains(instance.placement(np.array([0, 1]))).tolist() == [7.0, 5.0, 0.0]
    assert instance.gains(instance.placement(np.array([1, 1]))).tolist() == [0.0, 7.0, 0.0]
    assert instance.gains(instance.placement(np.array([-1, 2]))).tolist() == [0.0, 0.0, 5.0]


@given(st.integers(0, 10**6))
def test_gains_are_costs_saved_by_the_published_product(seed: int) -> None:
    instance, rng = random_instance(seed), np.random.default_rng(seed)
    x = rng.random((6, 4)) < 0.3
    for d, gain in enumerate(instance.gains(x)):
        nodes = instance.paths[d][instance.paths[d] >= 0].tolist()
        missed, cost, full = 1.0, 0.0, 0.0
        for one, other in pairwise(nodes):
            missed *= not x[one, instance.item[d]]
            cost += instance.network.weight(one, other) * missed
            full += instance.network.weight(one, other)
        assert gain == pytest.approx(full - cost)
        assert instance.costs[d] == pytest.approx(full)


def test_what_is_stored_at_a_server_saves_nothing() -> None:
    instance = CacheNetwork.routed(LINE, items=2, capacities=[0, 0, 2], servers=[2, 2], origins=[0, 2])
    assert instance.useful_slots == 0
    assert instance.gains(np.ones((3, 2), bool)).tolist() == [7.0, 7.0, 0.0, 0.0]
    played = play_network(DistributedTGOnline(learning_rate=0.1), instance, np.arange(4), streams=Streams(0))
    assert played.last["gain"] == 0
    assert played.last["bound"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"items": 0}, "items is 0"),
        ({"capacities": np.array([1, 1])}, r"3 nodes, capacities of shape \(2,\)"),
        ({"capacities": np.array([1, -1, 0])}, "capacity -1"),
        ({"item": np.array([0, 3])}, "a request type asks for no item of 0 to 2"),
        ({"paths": np.array([[0, 1, 2]])}, r"2 request types, paths of shape \(1, 3\)"),
        ({"paths": np.array([[0, 1, 7], [0, 1, 2]])}, "a path has a node that is not 0 to 2"),
        ({"paths": np.array([[0, 1, 0], [0, 1, 2]])}, r"the path of type 0, \[0, 1, 0\], is not simple"),
        ({"paths": np.array([[-1, 1, 2], [0, 1, 2]])}, "the path of type 0, .*, is not simple"),
        ({"paths": np.array([[0, 2, -1], [0, 1, 2]])}, r"the path of type 0, \[0, 2\], leaves the links"),
        (
            {"item": np.array([1, 1]), "paths": np.array([[0, 1, 2], [0, 1, -1]])},
            r"the path of type 0, \[0, 1, 2\], passes a server of item 1 before its end",
        ),
        ({"horizon": 0}, "horizon is 0"),
    ],
)
def test_what_is_no_instance_is_refused(changed: dict[str, Any], message: str) -> None:
    given = {
        "items": 3,
        "capacities": np.array([1, 1, 0]),
        "item": np.array([0, 1]),
        "paths": np.array([[0, 1, 2]] * 2),
    }
    with pytest.raises(ConfigError, match=f'caches in "line": .*{message}'):
        CacheNetwork(network=LINE, **{**given, **changed})


def test_servers_must_be_reachable() -> None:
    split = Network.of(3, [(0, 1)], name="split")
    with pytest.raises(ConfigError, match="no path from 0 to 2"):
        CacheNetwork.routed(split, items=1, capacities=[1, 1, 0], servers=[2], origins=[0])


def test_every_item_has_a_server_and_origins_are_nodes() -> None:
    """With two servers for three items type q · items + i would be something else."""
    for servers in ([2, 2], [2] * 4):
        with pytest.raises(ConfigError, match=r"3 items, servers of shape"):
            CacheNetwork.routed(LINE, items=3, capacities=[1, 1, 0], servers=servers, origins=[0, 1])
    for origin in (-1, 3):
        with pytest.raises(ConfigError, match=f"origin {origin} is no node.*origins of 0 to 2"):
            CacheNetwork.routed(LINE, items=1, capacities=[1, 1, 0], servers=[2], origins=[0, origin])


def test_requests_must_be_types() -> None:
    with pytest.raises(DataError, match=r"a request of type 3.*Types are 0 to 2"):
        play_network(PathReplication(), line(), np.array([0, 3]), streams=Streams(0))
    with pytest.raises(DataError, match="a request of type -1"):
        line().counts(np.array([-1]))


@pytest.mark.parametrize("name", POLICIES)
def test_where_blocks_end_changes_nothing(name: str) -> None:
    setup = published_setup("abilene", "changing_oscillator", Streams(1))
    requests = setup.requests[:600]
    assert isinstance(POLICIES[name], NetworkPolicy)
    one, other = (
        play_network(POLICIES[name], setup.instance, requests, streams=Streams(2), every=every) for every in (600, 7)
    )
    for key, value in one.last.items():
        assert other.last[key] == pytest.approx(value), key
    assert (POLICIES[name].placement(one.state) == POLICIES[name].placement(other.state)).all()
    assert [point["requests"] for point in other.points][:3] == [7, 14, 21]


@pytest.mark.parametrize("name", POLICIES)
def test_accounts_add_up(name: str) -> None:
    instance = random_instance(3, nodes=8)
    requests = np.random.default_rng(0).integers(len(instance.item), size=500)
    policy = POLICIES[name]
    played = play_network(policy, instance, requests, streams=Streams(0), every=100)
    last = played.last
    assert last["requests"] == 500
    assert last["asked"] == pytest.approx(instance.costs[requests].sum())
    assert last["cost"] + last["gain"] == pytest.approx(last["asked"])
    assert 0 < last["gain"] < last["asked"]
    assert 0 < last["hits"] <= 500
    held = policy.placement(played.state)
    assert (held.sum(axis=1) <= instance.capacities).all()
    assert last["moves"] >= held.sum() - instance.slots * name.startswith("tg")
    assert (last["control"] == 0) == (name in ("lru", "fifo", "lfu", "rr"))


@pytest.mark.parametrize("name", POLICIES)
def test_a_request_gains_what_the_placement_before_it_promises(name: str) -> None:
    instance = random_instance(5, nodes=7)
    policy, requests = POLICIES[name], np.random.default_rng(1).integers(len(instance.item), size=200)
    state = policy.init(instance, Streams(4))
    for request in requests:
        expected = instance.gains(policy.placement(state))[request]
        assert policy.run_block(state, np.array([request])).gain == pytest.approx(expected)


@settings(deadline=None)
@given(st.permutations(range(5)))
def test_renaming_nodes_changes_no_gain(order: list[int]) -> None:
    """A path of five nodes, renamed: deterministic policies do the same."""
    base, place = path(5).with_weights(np.array([1.0, 2, 3, 4])), np.array(order)
    renamed = Network.of(5, [tuple(place[e]) for e in base.edges.tolist()], base.weights.tolist())
    requests = np.random.default_rng(0).integers(6, size=100)
    gains = []
    for network, at in ((base, np.arange(5)), (renamed, place)):
        capacities = np.zeros(5, np.int64)
        capacities[at] = [1, 2, 1, 0, 1]
        instance = CacheNetwork.routed(network, items=6, capacities=capacities, servers=[at[4]] * 6, origins=[at[0]])
        gains.append(
            [play_network(POLICIES[n], instance, requests, streams=Streams(0)).last["gain"] for n in ("lru", "grd")]
        )
    assert gains[0] == pytest.approx(gains[1])


@pytest.mark.parametrize("kind", sorted(NETWORK_POLICIES))
def test_a_registered_policy_is_settings_with_a_reference(kind: str) -> None:
    policy = NETWORK_POLICIES.get(kind)()
    assert isinstance(policy, NetworkPolicy)
    assert is_dataclass(policy)
    assert policy == NETWORK_POLICIES.get(kind)()
    assert reference_of(policy) is not None
    assert type(policy).__doc__


def test_an_outcome_is_zero_at_first() -> None:
    assert NetworkOutcome() == NetworkOutcome(requests=0, cost=0.0, gain=0.0, hits=0, moves=0, control=0)
    assert play_network(POLICIES["lru"], line(), np.zeros(0, np.int64), streams=Streams(0)).points == ()
