"""Similarity caches: costs are the linear program, gains are concave and submodular, bounds and ratios hold."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.convex.programs import linear_program
from rivage.convex.rounding import dep_round
from rivage.convex.sets import CappedSimplex
from rivage.core.errors import RivageError
from rivage.core.seeding import Streams
from rivage.online.acai import ACAI
from rivage.online.nearest import Cells, exact_nearest, recall
from rivage.online.references import reference_of
from rivage.online.registry import SIMILARITY_POLICIES
from rivage.online.similarity import (
    SimilarityInstance,
    SimilarityPolicy,
    SimilarityRequests,
    merge,
    play_similarity,
    price,
)
from rivage.online.similarity_rivals import BestFixed, ObjectLRU, SimLRU, greedy_contents, relaxed_optimum


def game(
    seed: int,
    items: int = 7,
    capacity: int = 3,
    answers: int = 2,
    count: int = 12,
    fetch: float = 0.8,
    known: bool = True,
) -> tuple[SimilarityInstance, SimilarityRequests]:
    """Objects and requests in the plane, whole lists."""
    random = np.random.default_rng(seed)
    catalog, vectors = random.random((items, 2)), random.random((count, 2))
    instance = SimilarityInstance(
        items=items,
        capacity=capacity,
        answers=answers,
        fetch_cost=fetch,
        horizon=count if known else None,
        catalog=catalog,
    )
    return instance, SimilarityRequests.of(vectors, exact_nearest(catalog, vectors, items))


def gains(instance: SimilarityInstance, requests: SimilarityRequests, x: np.ndarray) -> np.ndarray:
    merged = merge(requests, instance)
    empty = price(np.zeros(instance.items), merged, instance.answers).cost
    return empty - price(x, merged, instance.answers).cost


def sets(instance: SimilarityInstance) -> list[np.ndarray]:
    chosen = itertools.combinations(range(instance.items), instance.capacity)
    return [np.isin(np.arange(instance.items), each).astype(float) for each in chosen]


# ---------------------------------------------------------------------------------------------------------------------
# Indexes


def test_nearest_objects_by_brute_force() -> None:
    random = np.random.default_rng(0)
    catalog, queries = random.integers(3, size=(40, 2)).astype(float), random.random((9, 2))  # many equal distances
    near = exact_nearest(catalog, queries, 11)
    for at, query in enumerate(queries):
        apart = np.linalg.norm(catalog - query, axis=1)
        assert near.distances[at] == pytest.approx(np.sort(apart)[:11])
        assert near.distances[at] == pytest.approx(apart[near.items[at]])
        assert len(set(near.items[at].tolist())) == 11
    for part in range(9):
        assert (exact_nearest(catalog, queries[part : part + 1], 11).items == near.items[part]).all()


def test_cells_are_exact_when_all_are_probed_and_better_the_more() -> None:
    random = np.random.default_rng(1)
    catalog, queries = random.normal(size=(500, 6)), random.normal(size=(60, 6))
    exact, found = exact_nearest(catalog, queries, 10), []
    for probes in (1, 4, 25):
        near = Cells.of(catalog, 25, probes, np.random.default_rng(2)).nearest(queries, 10)
        assert (np.diff(near.distances, axis=1) >= 0).all()
        assert (near.distances >= exact.distances - 1e-12).all()
        found.append(recall(near, exact, 10))
    assert found[0] < found[1] < found[2] == 1.0
    lonely = Cells.of(catalog, 500, 1, np.random.default_rng(2)).nearest(queries[:3], 10)  # one object a cell
    assert lonely.items.shape == (3, 10)


# ---------------------------------------------------------------------------------------------------------------------
# Costs and gains


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 7), st.floats(0.01, 2.0))
def test_the_cost_is_the_linear_program(seed: int, items: int, fetch: float) -> None:
    random = np.random.default_rng(seed)
    answers = int(random.integers(1, items + 1))
    instance, requests = game(seed, items, 1, answers, count=3, fetch=fetch)
    x = random.random(items)
    costs = price(x, merge(requests, instance), answers).cost
    for at in range(3):
        distances = np.empty(items)
        distances[requests.items[at]] = requests.distances[at]
        solution = linear_program(
            np.concatenate([distances, distances + fetch]),
            upper=(np.hstack([np.eye(items), np.eye(items)]), np.ones(items)),
            equal=(np.ones((1, 2 * items)), np.array([float(answers)])),
            high=np.concatenate([x, np.full(items, np.inf)]),
        )
        assert costs[at] == pytest.approx(solution.value, abs=1e-7)


def test_whole_contents_serve_the_cheapest_objects() -> None:
    instance, requests = game(3)
    merged = merge(requests, instance)
    for held in sets(instance):
        priced = price(held, merged, instance.answers)
        for at in range(len(requests)):
            each = requests.distances[at] + instance.fetch_cost * (1 - held[requests.items[at]])
            assert priced.cost[at] == pytest.approx(np.sort(each)[: instance.answers].sum())
            assert priced.last[at] == pytest.approx(np.sort(each)[instance.answers - 1])
            served = requests.items[at][np.argsort(each, kind="stable")[: instance.answers]]
            assert priced.local[at] == held[served].sum()


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**31), st.booleans())
def test_slopes_are_supergradients(seed: int, whole: bool) -> None:
    """G(y) <= G(x) + ⟨g(x), y − x⟩, entries between 0 and c_f; and g is what an added object brings, at whole x."""
    random = np.random.default_rng(seed)
    instance, requests = game(seed, items=6, capacity=2, answers=int(random.integers(1, 5)), count=4)
    x = (random.random(6) < 0.4).astype(float) if whole else random.random(6)
    y = random.random(6)
    last = price(x, merge(requests, instance), instance.answers).last
    slopes = np.zeros((4, 6))
    for at in range(4):
        slopes[at, requests.items[at]] = np.clip(last[at] - requests.distances[at], 0, instance.fetch_cost)
    assert ((slopes >= 0) & (slopes <= instance.fetch_cost)).all()
    before = gains(instance, requests, x)
    assert (gains(instance, requests, y) <= before + slopes @ (y - x) + 1e-9).all()
    if whole:
        for item in np.flatnonzero(x == 0):
            more = x.copy()
            more[item] = 1
            assert gains(instance, requests, more) == pytest.approx(before + slopes[:, item])


def test_the_gain_is_a_sum_of_truncated_counts() -> None:
    """The integral over λ, between all its breakpoints: exact, as the integrand is constant there."""
    instance, requests = game(5, answers=3)
    x = np.random.default_rng(5).random(7)
    found = gains(instance, requests, x)
    for at in range(len(requests)):
        distances, there, fetch = requests.distances[at], x[requests.items[at]], instance.fetch_cost
        ends = np.unique(np.concatenate([distances, distances + fetch]))
        total = 0.0
        for low, high in itertools.pairwise(ends):
            middle = (low + high) / 2
            window = there[(middle - fetch < distances) & (distances <= middle)].sum()
            left = max(0, instance.answers - np.count_nonzero(distances <= middle - fetch))
            total += (high - low) * min(window, left)
        assert found[at] == pytest.approx(total)


def test_exact_caching_is_a_special_case() -> None:
    """Objects far apart, one answer: the gain is c_f for a hit, whatever else is cached."""
    catalog = 100.0 * np.eye(5)
    instance = SimilarityInstance(items=5, capacity=2, answers=1, fetch_cost=1.0, catalog=catalog)
    requests = SimilarityRequests.of(catalog, exact_nearest(catalog, catalog, 5))
    x = np.array([0.3, 1.0, 0.0, 0.7, 0.0])
    assert gains(instance, requests, x) == pytest.approx(x)


# ---------------------------------------------------------------------------------------------------------------------
# The best fixed contents


def test_greedy_and_limits_against_all_sets_and_the_linear_program() -> None:
    for seed in range(12):
        instance, requests = game(seed, items=8, capacity=3, answers=2, count=15)
        values = {tuple(np.flatnonzero(x)): gains(instance, requests, x).sum() for x in sets(instance)}
        best = max(values.values())
        greedy = values[tuple(sorted(greedy_contents(instance, requests)))]
        assert (1 - 1 / math.e) * best <= greedy <= best + 1e-9
        relaxed, top = relaxed_optimum(instance, requests, steps=400), fractional_optimum(instance, requests)
        assert best <= top + 1e-6
        assert relaxed.gain <= top + 1e-6 <= relaxed.limit + 2e-6
        assert relaxed.gain >= 0.99 * top
        assert relaxed.gain == pytest.approx(gains(instance, requests, relaxed.x).sum())
    first = greedy_contents(instance, requests)
    assert (first == plain_greedy(instance, requests)).all()


def plain_greedy(instance: SimilarityInstance, requests: SimilarityRequests) -> list[int]:
    held, chosen = np.zeros(instance.items), list[int]()
    for _ in range(instance.capacity):
        tries = [gains(instance, requests, np.maximum(held, unit)).sum() for unit in np.eye(instance.items)]
        chosen.append(int(np.argmax(tries)))
        held[chosen[-1]] = 1
    return chosen


def fractional_optimum(instance: SimilarityInstance, requests: SimilarityRequests) -> float:
    """max over X of the gain of all requests, by one linear program in x, u and v."""
    n, count = instance.items, len(requests)
    distances = np.empty((count, n))
    np.put_along_axis(distances, requests.items, requests.distances, axis=1)
    width = n + 2 * n * count
    cost, upper, limits, equal, sums = np.zeros(width), [], [], [], []
    for at in range(count):
        u, v = n + 2 * n * at, n + 2 * n * at + n
        cost[u : u + n], cost[v : v + n] = distances[at], distances[at] + instance.fetch_cost
        for item in range(n):
            row, other = np.zeros(width), np.zeros(width)
            row[u + item], row[item] = 1, -1
            other[u + item] = other[v + item] = 1
            upper += [row, other]
            limits += [0.0, 1.0]
        full = np.zeros(width)
        full[u : v + n] = 1
        equal.append(full)
        sums.append(float(instance.answers))
    equal.append(np.arange(width) < n)
    sums.append(float(instance.capacity))
    high = np.full(width, np.inf)
    high[:n] = 1
    solution = linear_program(
        cost, upper=(np.array(upper), np.array(limits)), equal=(np.array(equal, float), np.array(sums)), high=high
    )
    empty = price(np.zeros(n), merge(requests, instance), instance.answers).cost.sum()
    return float(empty - solution.value)


# ---------------------------------------------------------------------------------------------------------------------
# AÇAI


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.booleans(), st.sampled_from([0.3, 1.0, 5.0]))
def test_the_fractional_gain_keeps_to_its_bound(seed: int, known: bool, scale: float) -> None:
    """After every prefix, against the certified limit's own argument: the best fractions by a linear program."""
    instance, requests = game(seed, items=6, capacity=2, answers=2, count=20, known=known)
    policy = ACAI(scale=scale)
    state, gained = policy.init(instance, Streams(seed)), 0.0
    for at in range(len(requests)):
        served = policy.run_block(state, requests.part(at, at + 1))
        gained += served.empty - served.fractional
        if at in (0, 4, 19):
            assert fractional_optimum(instance, requests.part(0, at + 1)) - gained <= policy.bound(state) + 1e-7
    if known:
        plain = 2 * instance.fetch_cost * math.sqrt(2 * math.log(3) * 20)
        assert policy.bound(state) == pytest.approx(plain * (1 / scale + scale) / 2)


def test_whoever_asks_for_what_is_missing_does_not_break_the_bound() -> None:
    random, catalog = np.random.default_rng(0), np.random.default_rng(1).random((12, 3))
    instance = SimilarityInstance(items=12, capacity=3, answers=2, fetch_cost=0.5, horizon=300, catalog=catalog)
    policy, whole = ACAI(), []
    state, gained = policy.init(instance, Streams(0)), 0.0
    for _ in range(300):
        vectors = catalog[[int(np.argmin(state.x))]] + 0.01 * random.normal(size=(1, 3))
        request = SimilarityRequests.of(vectors, exact_nearest(catalog, vectors, 12))
        whole.append(vectors[0])
        served = policy.run_block(state, request)
        gained += served.empty - served.fractional
    requests = SimilarityRequests.of(np.array(whole), exact_nearest(catalog, np.array(whole), 12))
    best = max(gains(instance, requests, x).sum() for x in sets(instance))
    assert 0 < best - gained <= policy.bound(state)


def test_one_step_by_hand() -> None:
    """Two objects in reach, one answer, x = ½ each: the nearer one serves ½, the last copy taken is the farther one."""
    instance = SimilarityInstance(items=2, capacity=1, answers=1, fetch_cost=1.0, horizon=8)
    requests = SimilarityRequests(np.zeros((1, 1)), np.array([[1, 0]]), np.array([[0.0, 0.25]]))
    policy = ACAI()
    state = policy.init(instance, Streams(0))
    served = policy.run_block(state, requests)
    assert served.empty == 1.0
    assert served.fractional == pytest.approx(0.125)
    factor = math.exp(math.sqrt(2 * math.log(2) / 8) * 0.25)  # g = (0, ¼)
    assert state.x == pytest.approx([1 / (1 + factor), factor / (1 + factor)])


def test_rounding_keeps_the_promised_share() -> None:
    """Independent draws by enumeration; pairwise trades over 400 draws a game, 4 standard errors (below 2e-3)."""
    shares = []
    for seed in range(10):
        instance, requests = game(seed, items=6, capacity=2, answers=2, count=5)
        x = CappedSimplex(6, 2).project(np.random.default_rng(seed).random(6))
        wanted, every = gains(instance, requests, x), list(itertools.product([0.0, 1.0], repeat=6))
        masses = [np.prod(np.where(np.array(z) > 0, x, 1 - x)) for z in every]
        independent = sum(m * gains(instance, requests, np.array(z)) for m, z in zip(masses, every, strict=True))
        assert (independent >= (1 - 1 / math.e) * wanted - 1e-12).all()
        shares.append((independent / wanted).min())
        random = np.random.default_rng(seed)
        values = np.array([gains(instance, requests, dep_round(x, random).astype(float)) for _ in range(400)])
        error = 4 * values.std(axis=0) / math.sqrt(400)
        assert (values.mean(axis=0) >= independent - error - 1e-12).all()
    assert min(shares) < 0.9  # the loss is real
    assert ACAI().ratio == ACAI(rounding="poisson").ratio == 1 - 1 / math.e
    assert ACAI(rounding="coupled").ratio is ACAI(every=2).ratio is None


@pytest.mark.parametrize("rounding", ["dep_round", "poisson", "coupled"])
def test_contents_follow_the_fractions(rounding: Any) -> None:
    """Frequencies of contents over 300 seeds are x, 4 standard errors (12 objects and 3 kinds: below 3e-3)."""
    instance, requests = game(2, items=12, capacity=4, answers=3, count=10)
    policy, held = ACAI(rounding=rounding, scale=2.0), []
    for seed in range(300):
        state = policy.init(instance, Streams(seed))
        served = policy.run_block(state, requests)
        held.append(state.kept)
        assert rounding == "poisson" or served.occupancy == 4
        assert served.inserted >= served.occupancy
    frequency = np.mean(held, axis=0)
    assert (np.abs(frequency - state.x) <= 4 * np.sqrt(state.x * (1 - state.x) / 300) + 1e-9).all()
    assert np.ptp(state.x) > 0.2


def test_rounding_less_often_moves_less() -> None:
    instance, requests = game(4, items=60, capacity=10, answers=3, count=200)
    moved = [
        play_similarity(ACAI(scale=20.0, every=every), instance, requests, streams=Streams(0), every=200)[-1][
            "inserted"
        ]
        for every in (1, 20)
    ]
    assert moved[1] < 0.5 * moved[0]


# ---------------------------------------------------------------------------------------------------------------------
# Rivals


def on_a_line(places: list[float], asked: list[float]) -> tuple[SimilarityInstance, SimilarityRequests]:
    catalog, vectors = np.array(places)[:, None], np.array(asked)[:, None]
    instance = SimilarityInstance(items=len(places), capacity=2, answers=1, fetch_cost=10.0, catalog=catalog)
    return instance, SimilarityRequests.of(vectors, exact_nearest(catalog, vectors, len(places)))


def test_object_lru_by_hand() -> None:
    instance, requests = on_a_line([0, 5, 20, 40], [0, 5, 1, 20, 5, 0])
    policy = ObjectLRU()
    state, costs = policy.init(instance, Streams(0)), []
    for at in range(6):
        costs.append(policy.run_block(state, requests.part(at, at + 1)).cost)
    # 0 and 5 come in; 1 is 0 at distance 1; 20 evicts 5; 5 evicts 0; 0 evicts 20.
    assert costs == [10, 10, 1, 10, 10, 10]
    assert state.cached.tolist() == [0, 1]
    composed = ObjectLRU(composed=True)
    state = composed.init(instance, Streams(0))
    assert (
        composed.run_block(state, requests).cost == 10 + 5 + 1 + 10 + 5 + 5
    )  # serves what it holds where that is cheaper


def test_sim_lru_by_hand() -> None:
    instance, requests = on_a_line([0, 5, 20, 40], [0, 1, 4, 5, 20, 0.5])
    policy = SimLRU(threshold=0.2)  # up to 2 apart
    state, served = policy.init(instance, Streams(0)), []
    for at in range(6):
        served.append(policy.run_block(state, requests.part(at, at + 1)))
    # 0 misses; 1 gets 0's answer; 4 misses, 5 is 1 from it; 20 misses and evicts the request at 0, 0.5 that at 4.
    assert [each.cost for each in served] == [10, 1, 11, 0, 10, 10.5]
    assert [each.local for each in served] == [0, 1, 0, 1, 0, 0]
    assert state.cached.tolist() == [0, 2]
    # A hit refreshes: 20 evicts the request at 5, not that at 0, which was asked for again.
    instance, requests = on_a_line([0, 5, 20, 40], [0, 5, 0, 20, 0])
    state = policy.init(instance, Streams(0))
    assert policy.run_block(state, requests).local == 2
    with pytest.raises(RivageError, match="catalog"):
        policy.init(SimilarityInstance(items=4, capacity=2, answers=1, fetch_cost=1.0), Streams(0))
    with pytest.raises(RivageError, match="holds no answer"):
        policy.init(SimilarityInstance(items=4, capacity=2, answers=3, fetch_cost=1.0), Streams(0))


# ---------------------------------------------------------------------------------------------------------------------
# All policies

POLICIES: dict[str, Any] = {
    "acai": ACAI(),
    "acai, doubling": ACAI(rounding="coupled", every=7),
    "best_fixed": BestFixed(),
    "object_lru": ObjectLRU(),
    "object_lru, composed": ObjectLRU(composed=True),
    "sim_lru": SimLRU(threshold=0.3),
    "sim_lru, composed": SimLRU(threshold=0.3, composed=True),
}


def test_all_registered_policies_are_here() -> None:
    assert {name.partition(",")[0] for name in POLICIES} == set(SIMILARITY_POLICIES)
    for kind in SIMILARITY_POLICIES:
        assert reference_of(SIMILARITY_POLICIES.get(kind)()) is not None


@pytest.mark.parametrize("name", POLICIES)
def test_accounts_add_up_wherever_blocks_end(name: str) -> None:
    policy = POLICIES[name]
    assert isinstance(policy, SimilarityPolicy)
    instance, requests = game(6, items=40, capacity=8, answers=3, count=90, fetch=0.2, known="doubling" not in name)
    whole, fine = (play_similarity(policy, instance, requests, streams=Streams(3), every=e) for e in (90, 1))
    last = whole[-1]
    for key in ("requests", "local", "inserted", "prefetched", "occupancy"):
        assert last[key] == fine[-1][key]
    for key in ("cost", "empty", "fractional"):
        assert last[key] == pytest.approx(fine[-1][key])
    assert last["bound"] == fine[-1]["bound"]
    assert len(fine) == last["requests"] == 90
    assert 0 < last["gain"] < last["empty"] or name == "sim_lru"
    assert 0 < last["local"] <= 3 * 90
    assert last["occupancy"] <= 8
    # Nobody saves more than c_f for each answer.
    assert last["gain"] <= 0.2 * 3 * 90


def test_on_a_stationary_trace_acai_comes_near_the_best_fixed_contents() -> None:
    """300 objects, Zipf(1.1), 3000 requests. Measured, of what greedy gains: 0.91; LRU 0.74, SIM-LRU 0.70."""
    random = np.random.default_rng(0)
    catalog, popularity = random.random((300, 3)), 1 / np.arange(1, 301) ** 1.1
    vectors = catalog[random.choice(300, 3000, p=popularity / popularity.sum())] + 0.02 * random.normal(size=(3000, 3))
    near = exact_nearest(catalog, vectors, 40)
    instance = SimilarityInstance(items=300, capacity=20, answers=3, fetch_cost=0.3, horizon=3000, catalog=catalog)
    requests = SimilarityRequests.of(vectors, near)
    gain = {
        name: play_similarity(policy, instance, requests, streams=Streams(0), every=3000)[-1]["gain"]
        for name, policy in {
            "acai": ACAI(scale=4.0),
            "fixed": BestFixed(),
            "sim": SimLRU(threshold=0.5, composed=True),
            "object": ObjectLRU(composed=True),
        }.items()
    }
    assert gain["acai"] > 0.85 * gain["fixed"]
    assert gain["acai"] > 1.1 * max(gain["sim"], gain["object"])


def test_senseless_input_is_refused() -> None:
    fine = {"items": 5, "capacity": 2, "answers": 1, "fetch_cost": 1.0}
    for wrong in (
        {"capacity": 5},
        {"answers": 6},
        {"fetch_cost": 0.0},
        {"horizon": 0},
        {"catalog": np.zeros((4, 2))},
    ):
        with pytest.raises(RivageError):
            SimilarityInstance(**{**fine, **wrong})  # type: ignore[arg-type]
    for bad in ({"scale": 0}, {"every": 0}, {"rounding": "best"}):
        with pytest.raises(RivageError):
            ACAI(**bad)  # type: ignore[arg-type]
    instance, requests = game(0, answers=2)
    with pytest.raises(RivageError, match="lists of 1"):
        merge(SimilarityRequests(requests.vectors, requests.items[:, :1], requests.distances[:, :1]), instance)
    with pytest.raises(RivageError, match="vectors"):
        SimilarityRequests(requests.vectors[:2], requests.items, requests.distances)
    with pytest.raises(RivageError, match="shape"):
        exact_nearest(np.zeros((3, 2)), np.zeros((1, 3)), 1)
    with pytest.raises(RivageError, match="asked for"):
        exact_nearest(np.zeros((3, 2)), np.zeros((1, 2)), 4)
    with pytest.raises(RivageError, match="probes"):
        Cells.of(np.zeros((3, 2)), 2, 3, np.random.default_rng(0))
