"""Virtual caches: utilities against requests served one by one, supergradients, rounding, linear programmes, traces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.sets import CappedSimplex, Product
from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.graphs.network import Network
from rivage.graphs.topologies import abilene, balanced_tree, grid
from rivage.online.cache_product import CacheProduct
from rivage.online.fair_benchmarks import horizon_optimum
from rivage.online.fair_game import play_fair
from rivage.online.fairness import OHF, OSF, FairInstance
from rivage.online.virtual_caches import VirtualCaches, alternating_batches, zipf_batches, zipf_law
from rivage.online.virtual_eviction import PathEviction


def cycle_of_three(far: float = 2.0, items: int = 20, capacity: int = 5) -> VirtualCaches:
    """Agents 0 and 1 with a cache each, the repository third; costs 1-2-far, paths of the fewest links."""
    return VirtualCaches(
        network=Network.of(3, [(0, 1), (0, 2), (1, 2)], [1.0, 2.0, far]),
        capacities=np.array([capacity, capacity, 0]),
        owners=np.array([0, 1, -1]),
        sources=np.full(items, 2),
        queries=np.array([0, 1]),
        retrieval=np.array([[0.0, 1.0, 2.0], [1.0, 0.0, far]]),
    )


def random_caches(seed: int) -> VirtualCaches:
    rng = np.random.default_rng(seed)
    network = (abilene(), grid(3, 3), balanced_tree(2, 2))[seed % 3]
    nodes = network.nodes
    whole = network.with_weights(rng.integers(1, 6, len(network.edges)).astype(float))  # whole costs: many ties
    owners = rng.integers(0, 3, nodes)
    owners[:3] = np.arange(3)
    return VirtualCaches(
        network=whole,
        capacities=rng.integers(0, 4, nodes) + (np.arange(nodes) == 1),
        owners=owners,
        sources=rng.integers(0, 2, 6) * (nodes - 1),
        queries=rng.choice(nodes, 4, replace=False),
    )


def nearest_copy(caches: VirtualCaches, x: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Saved cost per agent, request by request, from the nearest node that has the item."""
    saved = np.zeros(caches.agents)
    for q, query in enumerate(caches.queries):
        for item in range(caches.items):
            source = caches.sources[item]
            holders = [v for v in range(caches.network.nodes) if caches.places[v, item] >= 0]
            stored = [v for v in holders if x[caches.places[v, item]] == 1] + [int(source)]
            saved[caches.owners[query]] += batch[q, item] * (
                caches.costs[q, source] - min(caches.costs[q, v] for v in stored)
            )
    return caches.scale * saved


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_whole_items_save_the_way_beyond_the_nearest_copy(seed: int) -> None:
    """online-learning.md C4."""
    caches, rng = random_caches(seed), np.random.default_rng(seed)
    batch = rng.integers(0, 4, (4, 6))
    x = caches.rounded(caches.set.project(rng.random(caches.set.dimension)), rng.random(len(caches.set.parts)))
    assert set(np.unique(x)) <= {0.0, 1.0}
    assert caches.set.contains(x)
    np.testing.assert_allclose(caches.utilities(batch).at(x).values, nearest_copy(caches, x, batch), atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_supergradients_and_sizes(seed: int) -> None:
    caches, rng = random_caches(seed), np.random.default_rng(seed)
    batch = rng.integers(0, 4, (4, 6))
    utilities = caches.normalized(batch + 1).utilities(batch)
    x, y = (caches.set.project(rng.random(caches.set.dimension) * 3 - 1) for _ in range(2))
    here, there = utilities.at(x), utilities.at(y)
    assert (there.values <= here.values + here.gradients @ (y - x) + 1e-12).all()
    assert (here.values >= 0).all()
    assert (here.values <= 1 + 1e-12).all(), "no more can be saved than is spent without caches"
    assert (here.gradients >= 0).all()


def test_utilities_of_the_mean_batch_are_mean_utilities() -> None:
    caches, rng = random_caches(4), np.random.default_rng(4)
    batches = rng.integers(0, 5, (30, 4, 6))
    x = caches.set.project(rng.random(caches.set.dimension))
    each = np.mean([caches.utilities(batch).at(x).values for batch in batches], axis=0)
    np.testing.assert_allclose(caches.utilities(batches.mean(axis=0)).at(x).values, each, atol=1e-12)


@settings(deadline=None, max_examples=100)  # the kernel is compiled on first use
@given(st.integers(0, 10_000))
def test_caches_are_projected_together_as_one_by_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = tuple(
        CappedSimplex(n, int(rng.integers(0, n + 1))) for n in rng.integers(1, 9, rng.integers(1, 6)).tolist()
    )
    together, plain = CacheProduct(parts), Product(parts)
    y = rng.choice([0.1, 1.0, 30.0, 1e6]) * rng.normal(size=plain.dimension)
    if seed % 3 == 0:
        y = np.round(y)  # ties, and flat pieces
    x = together.project(y)
    np.testing.assert_allclose(x, plain.project(y), atol=1e-9 * max(1.0, np.abs(y).max()))
    assert together.contains(x)
    np.testing.assert_array_equal(together.project(x.copy()).round(9), x.round(9))
    assert together.diameter_squared == plain.diameter_squared
    np.testing.assert_array_equal(together.project_entropic(np.abs(y)), plain.project_entropic(np.abs(y)))


@pytest.mark.parametrize("y", [np.zeros(3), np.array([0.0, np.nan, 1.0, 1.0])])
def test_points_that_are_none_are_refused(y: np.ndarray) -> None:
    with pytest.raises(RivageError, match="point"):
        CacheProduct((CappedSimplex(4, 2),)).project(y)


@pytest.mark.parametrize(("far", "total"), [(2.0, 1.47869), (3.5, 1.19270)])
def test_optima_of_the_cycle(far: float, total: float) -> None:
    """online-learning.md C2: exact Zipf(1.2), N = 20, capacities 5 + 5; and the fair point, which costs nothing."""
    caches = cycle_of_three(far)
    rates = np.stack([zipf_law(20, 1.2)] * 2)
    utilities = caches.normalized(rates).utilities(rates)
    assert horizon_optimum(caches.set, utilities, 0.0).utilities.sum() == pytest.approx(total, abs=5e-6)
    if far == 2.0:
        for alpha in (1.0, 3.0):
            fair = horizon_optimum(caches.set, utilities, alpha)
            np.testing.assert_allclose(fair.utilities, [0.7393, 0.7393], atol=1e-3)
            assert fair.utilities.sum() == pytest.approx(total, abs=1e-5)


def test_cheapest_paths_are_not_those_of_the_fewest_links() -> None:
    """With costs 1-2-3.5 the way over node 0 costs 3: the published totals are those of the direct link."""
    rates = np.stack([zipf_law(20, 1.2)] * 2)
    cheapest = replace(cycle_of_three(3.5), retrieval=None)
    np.testing.assert_array_equal(cheapest.costs, [[0, 1, 2], [1, 0, 3]])
    total = horizon_optimum(cheapest.set, cheapest.normalized(rates).utilities(rates), 0.0).utilities.sum()
    assert total == pytest.approx(1.25547, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1.0, 3.0])
def test_horizon_fair_on_the_cycle(alpha: float) -> None:
    """C2: OHF with B = 50, T = 10⁴ comes within 0.01 of the fair point."""
    rng = np.random.default_rng(0)
    batches = np.stack([zipf_batches(20, 10_000, 50, 1.2, rng) for _ in range(2)], axis=1)
    caches = cycle_of_three().normalized(np.stack([50 * zipf_law(20, 1.2)] * 2))
    instance = FairInstance(set=caches.set, agents=2)
    played = play_fair(OHF(alpha=alpha), instance, (caches.utilities(batch) for batch in batches))
    np.testing.assert_allclose(played.average, [0.73935, 0.73935], atol=0.01)


def test_rounding_keeps_the_marginals_and_moves_little_with_kept_draws() -> None:
    """Means of 4000 roundings within 4.5 standard errors (false alarm below 1e-3 for all coordinates together)."""
    caches, rng = cycle_of_three(items=8, capacity=3), np.random.default_rng(0)
    x = caches.set.project(rng.random(16))
    rounded = np.array([caches.rounded(x, rng.random(2)) for _ in range(4000)])
    assert (rounded.reshape(-1, 2, 8).sum(axis=2) == 3).all()
    errors = np.sqrt(np.maximum(x * (1 - x), 1e-12) / 4000)
    assert (np.abs(rounded.mean(axis=0) - x) <= 4.5 * errors + 1e-12).all()
    draws = rng.random(2)
    near = caches.set.project(x + 0.01 * rng.standard_normal(16))
    assert np.abs(caches.rounded(x, draws) - caches.rounded(near, draws)).sum() <= 4


def test_the_adversary_gives_both_agents_the_same_requests() -> None:
    mixed, turns = alternating_batches(20, 200, 50, np.random.default_rng(1))
    np.testing.assert_array_equal(mixed.sum(axis=0), turns.sum(axis=0))
    assert (mixed.sum(axis=1) == 50).all()
    assert (turns.sum(axis=1) == 50).all()
    top = turns[:, 0] / 50
    assert top[0::2].mean() == pytest.approx(1 / 20, abs=0.02), "uniform first, since the trace begins one block later"
    assert top[1::2].mean() == pytest.approx(zipf_law(20, 1.2)[0], abs=0.03)
    with pytest.raises(RivageError, match="multiple of 100"):
        alternating_batches(20, 3, 50, np.random.default_rng(1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_order_alone_makes_slot_fairness_unfair(seed: int) -> None:
    """online-learning.md C3, for other traces than the published one: T = 5000, B = 50, α = 3."""
    batches = np.stack(alternating_batches(20, 5_000, 50, np.random.default_rng(seed)), axis=1)
    caches = cycle_of_three().normalized(batches.mean(axis=0))
    instance, slots = FairInstance(set=caches.set, agents=2), [caches.utilities(batch) for batch in batches]
    best = horizon_optimum(caches.set, caches.utilities(batches.mean(axis=0)), 3.0).utilities
    horizon, slot = (play_fair(policy, instance, slots).average for policy in (OHF(alpha=3.0), OSF(alpha=3.0)))
    assert abs(horizon[0] - horizon[1]) < 0.005
    assert np.abs(horizon - best).max() < 0.005
    assert slot[0] - slot[1] > 0.05


# --- caches that evict ------------------------------------------------------------------------------------------------


def play_slowly(rule: str, caches: VirtualCaches, items: list[int], held: list[int]) -> list[float]:
    """One cache, one query node, from what it holds (least recent first): hits, by lists."""
    hits, counts = [], dict.fromkeys(range(caches.items), 0)
    for item in items:
        hits.append(float(item in held))
        counts[item] += 1
        if rule == "lru":
            held = [*(i for i in held if i != item), item][-len(held) :]
        elif item not in held:
            victim = min(held, key=lambda i: counts[i])
            if counts[item] > counts[victim]:
                held = [i for i in held if i != victim] + [item]
    return hits


@pytest.mark.parametrize(("rule", "later"), [("lru", 0.0), ("lfu", 0.0), ("published_lru", 1.0)])
def test_caches_beyond_a_hit_do_not_hear_of_the_request(rule: str, later: float) -> None:
    """Node 1 asks for item 0 fifty times, which its own cache then has; after that node 0, next on the way, asks."""
    caches = VirtualCaches(
        network=Network.of(3, [(0, 1), (0, 2)], [1.0, 5.0]),
        capacities=np.array([1, 1, 0]),
        owners=np.array([0, 1, -1]),
        sources=np.full(3, 2),
        queries=np.array([0, 1]),
    )
    batches = np.zeros((62, 2, 3), np.int64)
    batches[:2, 1, 0] = 1  # both caches fetch item 0, if they had it not
    batches[2:6, 0, 1] = 1  # the cache of node 0 turns to item 1
    batches[6:61, 1, 0] = 1
    batches[61, 0, 0] = 1
    values = PathEviction(rule=rule).play(caches, batches, Streams(0))  # type: ignore[arg-type]
    assert values[61, 0] in ({4.0, 5.0} if later else {4.0})


def test_all_caches_up_to_a_hit_fetch_what_they_miss() -> None:
    """Node 1 asks for item 0, then for item 1, which it cannot have any more: its cache and node 0's fetch it."""
    caches = VirtualCaches(
        network=Network.of(3, [(0, 1), (0, 2)], [1.0, 5.0]),
        capacities=np.array([1, 1, 0]),
        owners=np.array([0, 1, -1]),
        sources=np.full(9, 2),
        queries=np.array([0, 1]),
    )
    batches = np.zeros((3, 2, 9), np.int64)
    batches[0, 1, 0] = batches[1, 1, 1] = batches[2, 0, 1] = 1
    assert [PathEviction(rule="lru").play(caches, batches, Streams(seed))[2, 0] for seed in range(5)] == [5.0] * 5


@pytest.mark.parametrize("rule", ["lru", "lfu"])
def test_a_single_cache_against_lists(rule: str) -> None:
    caches = VirtualCaches(
        network=Network.of(2, [(0, 1)]),
        capacities=np.array([3, 0]),
        owners=np.array([0, -1]),
        sources=np.ones(8, int),
        queries=np.array([0]),
    )
    items = [0, 1, 2, *np.random.default_rng(0).choice(8, 300, p=zipf_law(8, 0.8)).tolist()]
    batches = np.eye(8, dtype=np.int64)[items][:, None, :]
    values = PathEviction(rule=rule).play(caches, batches, Streams(0))[:, 0]  # type: ignore[arg-type]
    expected = play_slowly(rule, caches, items[3:], [0, 1, 2]) if rule == "lru" else None
    if expected is not None:
        np.testing.assert_array_equal(values[3:], expected)
    else:  # which of equals is held may differ, the frequency of hits hardly
        start = [i for i in range(8) if i in items[:3]]
        assert values.mean() == pytest.approx(np.mean(play_slowly(rule, caches, items, start)), abs=0.05)


@pytest.mark.parametrize("rule", ["lru", "lfu", "published_lru"])
def test_caches_that_evict_are_full_and_below_the_best_fixed_allocation(rule: str) -> None:
    rng = np.random.default_rng(5)
    caches = cycle_of_three()
    batches = np.stack([zipf_batches(20, 400, 10, 1.2, rng) for _ in range(2)], axis=1)
    caches = caches.normalized(batches.mean(axis=0))
    values = PathEviction(rule=rule).play(caches, batches, Streams(1))  # type: ignore[arg-type]
    np.testing.assert_array_equal(values, PathEviction(rule=rule).play(caches, batches, Streams(1)))  # type: ignore[arg-type]
    best = horizon_optimum(caches.set, caches.utilities(batches.mean(axis=0)), 0.0)
    assert 0.3 * best.utilities.sum() < values.mean(axis=0).sum() <= best.utilities.sum() + 1e-9


@pytest.mark.parametrize(
    "wrong",
    [
        {"capacities": np.array([5, 5])},
        {"capacities": np.array([5, -1, 0])},
        {"capacities": np.zeros(3, int)},
        {"owners": np.array([0, 1])},
        {"owners": np.array([0, -1, -1])},
        {"sources": np.full(20, 3)},
        {"queries": np.array([0, 9])},
        {"queries": np.empty(0, int)},
        {"retrieval": np.ones((3, 3))},
        {"retrieval": np.full((2, 3), np.inf)},
        {"network": Network.of(3, [(0, 1)])},
    ],
)
def test_networks_that_mean_nothing_are_refused(wrong: dict) -> None:  # type: ignore[type-arg]
    with pytest.raises(RivageError, match="caches"):
        replace(cycle_of_three(), **wrong)


def test_batches_of_another_shape_are_refused() -> None:
    with pytest.raises(RivageError, match="one per query node"):
        cycle_of_three().utilities(np.ones((3, 20)))


def test_what_costs_nothing_has_no_unit_and_rules_have_names() -> None:
    with pytest.raises(RivageError, match=r"the largest cost without caches is 0\.0"):
        cycle_of_three().normalized(np.zeros((2, 20)))
    with pytest.raises(RivageError, match=r'rule is "mru".*"lru", "lfu" or "published_lru"'):
        PathEviction(rule="mru")  # type: ignore[arg-type]


def test_caches_as_far_away_as_the_source_are_never_asked() -> None:
    far = replace(cycle_of_three(), retrieval=np.array([[0.0, 2.0, 2.0], [1.9, 0.0, 2.0]]))
    assert [far.way(query, 7)[1].tolist() for query in (0, 1)] == [[0.0, 2.0], [0.0, 1.9, 2.0]]
