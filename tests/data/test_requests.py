"""Request traces and their generators: closed forms, laws, adversaries against plain caches, refusals."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.data.adversarial_requests import (
    AskUncached,
    changing_oscillator,
    cyclic,
    oscillator,
    shot_oscillator,
)
from rivage.data.request_kinds import (
    Cyclic,
    GlobalChange,
    Oscillator,
    PartialChange,
    Rolled,
    Roundwise,
    ShotNoise,
    Zipf,
)
from rivage.data.request_laws import (
    global_change,
    partial_change,
    rolled,
    roundwise_permuted,
    shot_noise,
    zipf,
)
from rivage.data.requests import REQUESTS, RequestTrace

SETTINGS = [
    Zipf(items=50, requests=400),
    PartialChange(items=50, requests=400, period=100),
    GlobalChange(items=50, requests=400, period=100),
    Roundwise(items=50, rounds=4, slots=10, batch=10),
    Rolled(items=50, requests=400),
    Cyclic(items=50, requests=400),
    ShotNoise(items=20),
    Oscillator(),
    Oscillator(version="changing"),
    Oscillator(version="shot"),
]


def law(items: int, alpha: float) -> np.ndarray:
    weights = np.array([(rank + 1.0) ** -alpha for rank in range(items)])
    return weights / weights.sum()


def full() -> RequestTrace:
    """A trace with every column."""
    return RequestTrace(
        item=np.array([2, 0, 2, 1, 2]),
        items=4,
        time_s=np.array([0.0, 1.0, 1.0, 2.5, 3.0]),
        origin=np.array([0, 1, 0, 1, 0]),
        size_bytes=np.array([10, 20, 10, 0, 10]),
        cost=np.array([1.0, 0.0, 1.0, 2.0, 1.0]),
        deadline_ms=np.array([5.0, 5.0, 5.0, 5.0, 0.0]),
        keys=np.array(["a", "b", "c", "d"]),
        name="small",
    )


def lru_hits(requests: list[int], capacity: int) -> int:
    cache: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for item in requests:
        hits += item in cache
        cache[item] = None
        cache.move_to_end(item)
        if len(cache) > capacity:
            cache.popitem(last=False)
    return hits


class TestTrace:
    def test_describes_itself(self) -> None:
        trace = full()
        assert len(trace) == 5
        assert trace.popularity().tolist() == [1, 1, 3, 0]
        assert trace.describe() == {
            "requests": 5,
            "items": 4,
            "distinct": 3,
            "one_hit_share": 2 / 3,
            "infinite_cache_hit_ratio": 1 - 3 / 5,
        }

    def test_parts_are_views_of_every_column(self) -> None:
        trace = full()
        part = trace[1:4]
        assert (
            set(part.columns())
            == set(trace.columns())
            == {field.name for field in fields(trace)}
            - {
                "items",
                "keys",
                "name",
            }
        )
        for name, column in part.columns().items():
            assert column.base is trace.columns()[name]
            np.testing.assert_array_equal(column, trace.columns()[name][1:4])
        assert (part.items, part.name) == (4, "small")
        assert part.keys is trace.keys
        assert len(trace[5:]) == 0
        assert trace[5:].describe()["one_hit_share"] == 0

    @given(st.integers(0, 40), st.integers(1, 45))
    def test_blocks_put_together_are_the_trace(self, requests: int, size: int) -> None:
        trace = RequestTrace(item=np.arange(requests) % 7, items=7)
        blocks = list(trace.blocks(size))
        assert [len(block) for block in blocks] == [size] * (requests // size) + [requests % size] * (
            requests % size > 0
        )
        assert [item for block in blocks for item in block.item] == trace.item.tolist()

    @pytest.mark.parametrize("part", [3, slice(None, None, -1), slice(None, None, 0)])
    def test_cuts_that_run_backward_are_refused(self, part: slice) -> None:
        with pytest.raises(ConfigError, match="a trace cannot be cut by"):
            full()[part]

    def test_blocks_of_nothing_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="size is 0"):
            full().blocks(0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"items": 0, "keys": None}, "items is 0. Give the number of items"),
            ({"items": 2, "keys": None}, "item is 2 at request 0, but items are 0 to 1. Number the items densely"),
            ({"item": np.array([0, 0, -3, -1, 0])}, "item is -3 at request 2"),
            ({"item": np.zeros(5, np.int32)}, "item is an array of int32 with shape (5,). Give one int64 per request."),
            ({"item": np.zeros((5, 1), np.int64)}, "item is an array of int64 with shape (5, 1)"),
            ({"time_s": np.array([0.0, 1, 1, 0.5, 0])}, "time_s is 0.5 after 1.0 at request 3. Sort the requests"),
            ({"time_s": np.array([0.0, 1, np.nan, 0, 0])}, "time_s is nan at request 2. Give finite seconds."),
            ({"time_s": np.array([0.0, 1, np.inf, 0, 0])}, "time_s is inf at request 2"),
            ({"origin": np.array([0, 0, 0, 0, -1])}, "origin is -1 at request 4"),
            ({"size_bytes": np.array([0, -7, 0, 0, -1])}, "size_bytes is -7 at request 1. Give finite values of at"),
            ({"cost": np.array([0, 1, -1e-9, 0, 0.0])}, "cost is -1e-09 at request 2"),
            ({"cost": np.array([0, 1, 2, np.nan, 0.0])}, "cost is nan at request 3"),
            ({"deadline_ms": np.array([np.inf, 1, 2, 3, 0.0])}, "deadline_ms is inf at request 0"),
            ({"cost": np.zeros(4)}, "cost has 4 values for 5 requests"),
            ({"keys": np.array(["a"])}, "keys have shape (1,). Give one key for each of the 4 items."),
        ],
    )
    def test_flaws_are_named_with_their_place(self, change: dict[str, object], message: str) -> None:
        good = {field.name: getattr(full(), field.name) for field in fields(RequestTrace)}
        with pytest.raises(DataError) as caught:
            RequestTrace(**{**good, **change})  # type: ignore[arg-type]
        assert str(caught.value).startswith(f'trace "small": {message}')
        assert caught.value.mend


class TestLaws:
    @pytest.mark.parametrize(("items", "alpha"), [(1, 0.8), (7, 0.0), (50, 0.6), (20, 1.0), (30, 2.5)])
    def test_zipf_has_zipf_s_law(self, items: int, alpha: float) -> None:
        # Each of at most 50 counts is within 5.5 standard deviations: false alarm below 2e-6 a seed.
        requests = 200_000
        counts, expected = zipf(items, requests, alpha, 3).popularity(), requests * law(items, alpha)
        assert (np.abs(counts - expected) <= 5.5 * np.sqrt(expected * (1 - law(items, alpha))) + 1e-9).all()

    def test_requests_do_not_depend_on_the_one_before(self) -> None:
        # P(first, next) = p p'; the largest of 16 deviations, 5.5 standard deviations: below 1e-6.
        item = zipf(4, 100_000, 0.7, 8).item
        pairs = np.bincount(4 * item[:-1] + item[1:], minlength=16) / (len(item) - 1)
        p = np.outer(law(4, 0.7), law(4, 0.7)).ravel()
        assert (np.abs(pairs - p) < 5.5 * np.sqrt(p / len(item))).all()

    def test_zipf_agrees_with_plain_inversion_and_with_its_own_beginning(self) -> None:
        trace = zipf(1_000, 1_200_000, 0.9, 5)  # more than two chunks
        draws = np.random.default_rng(5).random(1_200_000)
        plain = np.searchsorted(np.cumsum(law(1_000, 0.9)), draws, side="right")
        assert np.count_nonzero(plain != trace.item) <= 2  # where rounding moves a border
        np.testing.assert_array_equal(zipf(1_000, 700_000, 0.9, 5).item, trace.item[:700_000])

    def test_large_catalogs_and_steep_laws_stay_in_range(self) -> None:
        assert zipf(10, 1_000, 800.0, 0).item.max() == 0  # the others underflow
        trace = zipf(2_000_000, 200_000, 0.8, 0)
        assert 1_900_000 < trace.item.max() < 2_000_000

    @pytest.mark.slow
    def test_sorted_look_ups_are_faster_than_plain_ones_in_a_large_catalog(self) -> None:
        items, requests = 10**7, 3 * 10**6

        def plainly() -> None:
            table = np.cumsum(np.arange(1.0, items + 1) ** -0.8)
            np.searchsorted(table / table[-1], np.random.default_rng(0).random(requests))

        seconds = []
        for make in (lambda: zipf(items, requests, 0.8, 0), plainly):
            start = time.perf_counter()
            make()
            seconds.append(time.perf_counter() - start)
        assert seconds[0] < seconds[1]

    def test_a_partial_change_moves_that_share_of_the_items(self) -> None:
        """With the same draws, requests differ from fixed popularity exactly where an item has lost its rank."""
        items, period = 40, 5_000
        fixed, changed = zipf(items, 3 * period, 0.3, 9), partial_change(items, 3 * period, 0.3, period, 0.25, 9)
        np.testing.assert_array_equal(fixed.item[:period], changed.item[:period])
        maps = []
        for part in range(3):
            pairs = {*zip(fixed[part * period : (part + 1) * period].item, changed[part * period :][:period].item)}  # noqa: B905
            assert len({rank for rank, _ in pairs}) == len(pairs) == len({item for _, item in pairs}) == items
            maps.append(dict(pairs))
        moved = [sum(maps[part][rank] != maps[part - 1][rank] for rank in range(items)) for part in (1, 2)]
        assert all(2 <= count <= 10 for count in moved)  # ten take part, few of them keep their rank by chance
        assert {rank for rank in maps[1] if maps[1][rank] != rank} != {
            rank for rank in maps[2] if maps[2][rank] != maps[1][rank]
        }

    @pytest.mark.parametrize(("items", "fraction"), [(1, 1.0), (2, 0.01), (3, 1.0)])
    def test_small_catalogs_change_too(self, items: int, fraction: float) -> None:
        assert partial_change(items, 50, 0.5, 10, fraction, 0).describe()["distinct"] == items

    def test_a_global_change_gives_each_period_its_own_permutation(self) -> None:
        period = 4_000
        fixed, changed = zipf(30, 3 * period, 0.2, 9), global_change(30, 3 * period, 0.2, period, 9)
        np.testing.assert_array_equal(fixed.item[:period], changed.item[:period])
        orders = [_permutation(fixed, changed, start, period, 30) for start in (period, 2 * period)]
        assert orders[0] != orders[1]
        assert all(order != list(range(30)) for order in orders)

    def test_each_round_has_its_own_permutation_from_the_first(self) -> None:
        trace = roundwise_permuted(30, rounds=3, slots=40, batch=100, alpha=0.2, rng=9)
        fixed = zipf(30, 12_000, 0.2, 9)
        assert len(trace) == 12_000
        orders = [_permutation(fixed, trace, start, 4_000, 30) for start in (0, 4_000, 8_000)]
        assert list(range(30)) not in orders
        assert orders[0] != orders[1] != orders[2] != orders[0]

    def test_rolled_moves_ranks_with_each_quarter(self) -> None:
        fixed, moved = zipf(50, 4_000, 0.6, 2).item, rolled(50, 4_000, 0.6, 5, 2).item
        for quarter in range(4):
            part = slice(1_000 * quarter, 1_000 * (quarter + 1))
            np.testing.assert_array_equal(moved[part], (fixed[part] + 5 * quarter) % 50)
        np.testing.assert_array_equal(rolled(50, 4_000, 0.6, 0, 2).item, fixed)

    def test_the_most_popular_item_of_a_quarter_is_the_rolled_one(self) -> None:
        trace = Rolled().build(Streams(1))
        assert (len(trace), trace.items) == (20_000, 50)
        tops = [int(trace[5_000 * q : 5_000 * (q + 1)].popularity().argmax()) for q in range(4)]
        assert tops == [0, 5, 10, 15]  # p_1 - p_2 is 5 standard deviations of 5,000 draws: see law(50, 0.6)


def _permutation(fixed: RequestTrace, changed: RequestTrace, start: int, period: int, items: int) -> list[int]:
    """Item of each rank during a period."""
    part = slice(start, start + period)
    found = dict(zip(fixed.item[part].tolist(), changed.item[part].tolist(), strict=True))
    order = [found[rank] for rank in range(items)]
    assert [order[rank] for rank in fixed.item[part]] == changed.item[part].tolist()
    assert sorted(order) == list(range(items))
    return order


class TestShots:
    def test_the_published_catalog(self) -> None:
        """100 items: classes of 3, 5, 3, 4 and 85; 8,938 requests on average (li22's file has 8,931)."""
        sizes = [3, 5, 3, 4, 85]
        volumes = np.repeat(3 * np.array([86.4, 41.9, 59.5, 36.9, 25.7]), sizes)
        assert volumes.sum() == pytest.approx(8937.9)
        counts = np.array([shot_noise(100, seed).popularity() for seed in range(200)])
        # 100 means of 200 Poisson counts, 5.5 standard deviations: false alarm below 5e-6.
        assert (np.abs(counts.mean(axis=0) - volumes) < 5.5 * np.sqrt(volumes / 200)).all()
        # Poisson: a variance equal to the mean; the ratio over 20,000 counts has a deviation near 0.01.
        assert (counts.var(axis=0, ddof=1) / volumes).mean() == pytest.approx(1.0, abs=0.06)

    def test_an_item_lives_for_its_lifespan(self) -> None:
        trace = shot_noise(100, 4)
        assert trace.time_s is not None
        days = trace.time_s / 86_400
        lifespans = np.repeat([1.14, 3.36, 6.40, 10.53, 24.61], [3, 5, 3, 4, 85])
        spread = np.array([np.ptp(days[trace.item == item]) for item in range(100)])
        assert (spread <= lifespans).all()
        assert (spread > 0.7 * lifespans).all()  # of 77 requests or more: false alarm 100 * 77 * 0.7^76 < 1e-7

    def test_shots_start_at_the_given_rate_and_in_no_order(self) -> None:
        trace = shot_noise(2_000, 6)
        assert trace.time_s is not None
        starts = np.full(2_000, np.inf)
        np.minimum.at(starts, trace.item, trace.time_s / 86_400)
        assert np.ptp(starts) == pytest.approx(2_000 / 5, rel=0.12)  # 5 standard deviations
        assert abs(np.corrcoef(starts, np.arange(2_000))[0, 1]) < 0.12  # likewise
        assert ShotNoise(items=50, rate=5e9, volume=1.0).build(Streams(0)).describe()["items"] == 50

    @pytest.mark.parametrize("items", [1, 2, 3, 10, 33])
    def test_every_catalog_size_has_as_many_items(self, items: int) -> None:
        assert shot_noise(items, 0).items == items
        assert shot_noise(items, 0).describe()["distinct"] == items


class TestAdversaries:
    def test_cyclic_beats_lru_and_not_the_best_static_set(self) -> None:
        trace = cyclic(10, 995)
        assert trace.item[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
        assert lru_hits(trace.item.tolist(), 9) == 0
        assert trace.popularity().max() - trace.popularity().min() <= 1

    def test_the_oscillator_takes_turns(self) -> None:
        trace = oscillator()
        assert (len(trace), trace.items) == (2_000, 50)
        assert trace.item[:4].tolist() == [0, 25, 1, 26]
        assert trace.item[48:52].tolist() == [24, 49, 0, 25]
        assert lru_hits(trace.item.tolist(), 49) == 0
        assert (trace.popularity() == 40).all()  # any 5 items: 5/50 of 200 is the published optimum 20

    def test_the_changing_oscillator_is_the_written_out_one(self) -> None:
        """Against the definition written as loops over exact fractions of time."""
        events = []
        for cycle in range(5):
            for (a, da), (b, db) in (((0, 1), (0, 2)), ((100, 2), (200, 1)), ((300, 2), (300, 2))):
                for turn in range(100):
                    events.append((a + da * turn, turn % 5 + 5 * cycle))
                    events.append((b + db * turn, 25 + turn % 5 + 5 * cycle))
        expected = [item for _, item in sorted(events, key=lambda event: event[0])]
        trace = changing_oscillator()
        assert trace.item.tolist() == expected
        assert len(trace) == 3_000
        assert (trace.popularity() == 60).all()

    def test_shots_of_oscillators_keep_to_their_items_and_order(self) -> None:
        trace = shot_oscillator(3)
        assert (len(trace), trace.items) == (3_000, 100)
        assert (trace.popularity() == 30).all()  # any 5 of 100: 10 of 200, as published
        for shot in range(5):
            own = trace.item[trace.item // 10 % 5 == shot]
            turns = np.arange(600)
            np.testing.assert_array_equal(own, turns // 2 % 10 + 10 * shot + 50 * (turns % 2))
        assert trace.item.tolist() != shot_oscillator(4).item.tolist()

    @pytest.mark.parametrize("form", ["array", "function"])
    def test_ask_uncached_is_never_served(self, form: str) -> None:
        """Against FIFO: no hit, and the best static set of k items has k / N of the requests."""
        items, capacity, requests = 11, 4, 1_100
        adversary, queue, asked = AskUncached(items), list(range(4)), []
        for _ in range(requests):
            mask = np.isin(np.arange(items), queue)
            cached: np.ndarray | Callable[[int], bool] = mask if form == "array" else queue.__contains__
            item = adversary.next(cached)
            assert isinstance(item, int)
            assert item not in queue
            queue = [*queue[1:], item]
            asked.append(item)
        counts = np.sort(np.bincount(asked, minlength=items))
        assert counts[-capacity:].sum() >= capacity / items * requests

    def test_ask_uncached_goes_round(self) -> None:
        adversary = AskUncached(4, position=2)
        cached = np.array([False, True, False, False])
        assert [adversary.next(cached) for _ in range(5)] == [2, 3, 0, 2, 3]

    def test_a_cache_of_everything_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"all 3 items are cached\. Give the cache a capacity below"):
            AskUncached(3).next(np.ones(3, bool))


class TestSettings:
    @pytest.mark.parametrize("settings", SETTINGS, ids=repr)
    def test_a_seed_gives_one_trace(self, settings: Zipf) -> None:
        first, again, other = (settings.build(Streams(seed)) for seed in (7, 7, 8))
        np.testing.assert_array_equal(first.item, again.item)
        fixed = isinstance(settings, Cyclic) or getattr(settings, "version", "shot") != "shot"
        assert (first.item.tolist() == other.item.tolist()) == fixed
        assert first.name
        assert first.item.max() < first.items

    def test_every_generator_is_registered(self) -> None:
        classes = {REQUESTS.get(kind) for kind in REQUESTS}
        assert {type(settings) for settings in SETTINGS} <= classes
        assert len(list(REQUESTS)) == len(classes) == 9
        with pytest.raises(ConfigError, match=r'unknown trace kind "zipff"\. Did you mean "zipf"'):
            REQUESTS.get("zipff")

    def test_settings_call_their_function(self) -> None:
        rng = Streams(7).numpy
        pairs = [
            (Zipf(30, 500, 0.7), zipf(30, 500, 0.7, rng("requests"))),
            (PartialChange(30, 500, 90, 0.7, 0.5), partial_change(30, 500, 0.7, 90, 0.5, rng("requests"))),
            (GlobalChange(30, 500, 90, 0.7), global_change(30, 500, 0.7, 90, rng("requests"))),
            (Roundwise(30, 4, 5, 25, 0.7), roundwise_permuted(30, 4, 5, 25, 0.7, rng("requests"))),
            (Rolled(30, 500, 0.7, 3), rolled(30, 500, 0.7, 3, rng("requests"))),
            (ShotNoise(30, 2.0, 0.5), shot_noise(30, rng("requests"), rate=2.0, volume=0.5)),
            (Oscillator("shot"), shot_oscillator(rng("requests"))),
            (Oscillator("fixed", 77), oscillator(77)),
        ]
        for settings, trace in pairs:
            np.testing.assert_array_equal(settings.build(Streams(7)).item, trace.item)

    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda: Zipf(0, 10), "items is 0. Give a number of at least 1"),
            (lambda: Zipf(10, 0), "requests is 0"),
            (lambda: Zipf(10, 10, -0.1), "alpha is -0.1"),
            (lambda: Zipf(10, 10, float("nan")), "alpha is nan"),
            (lambda: PartialChange(10, 10, 0), "period is 0"),
            (lambda: PartialChange(10, 10, 5, fraction=0.0), "fraction is 0.0. Give a share"),
            (lambda: PartialChange(10, 10, 5, fraction=1.1), "fraction is 1.1"),
            (lambda: GlobalChange(10, 10, -1), "period is -1"),
            (lambda: Roundwise(10, 0, 1), "rounds is 0"),
            (lambda: Roundwise(10, 1, 0), "slots is 0"),
            (lambda: Roundwise(10, 1, 1, 0), "batch is 0"),
            (lambda: Rolled(0), "items is 0"),
            (lambda: Cyclic(3, 0), "requests is 0"),
            (lambda: ShotNoise(rate=0.0), "rate is 0.0"),
            (lambda: ShotNoise(volume=float("inf")), "volume is inf"),
            (lambda: Oscillator("slow"), 'version is "slow". Give "fixed"'),  # type: ignore[arg-type]
            (lambda: Oscillator("shot", 100), 'requests is 100, but version "shot" has 3000. Remove requests'),
            (lambda: Oscillator(requests=0), "requests is 0"),
            (lambda: AskUncached(0), "items is 0"),
            (lambda: zipf(0, 1, 1.0, 0), "items is 0"),
            (lambda: partial_change(5, 5, 1.0, 1, 2.0, 0), "fraction is 2.0"),
            (lambda: roundwise_permuted(5, 1, 1, 0, 1.0, 0), "batch is 0"),
            (lambda: rolled(5, 5, -1.0, 1, 0), "alpha is -1.0"),
            (lambda: cyclic(0, 5), "items is 0"),
            (lambda: oscillator(0), "requests is 0"),
            (lambda: shot_noise(0, 0), "items is 0"),
        ],
    )
    def test_bad_values_are_refused(self, make: Callable[[], object], message: str) -> None:
        with pytest.raises(ConfigError) as caught:
            make()
        assert message in str(caught.value)
        assert caught.value.mend
