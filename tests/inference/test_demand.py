"""Requests of delivery networks: laws of the profiles, sums, seeds, traces, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rivage.core.errors import ConfigError, DataError
from rivage.core.seeding import Streams
from rivage.graphs.tiered import tiers
from rivage.inference.demand import Demand, Popularity, Recorded

TREE = tiers({"cell": 3, "hub": 1}, [6.0])
TASKS = ("a", "b", "c", "d")
LAW = np.arange(1.0, 5) ** -1.2
PROFILES = ("fixed", "sliding", "bursty", "reversing")


def built(seed: int = 0, *, tasks: tuple[str, ...] = TASKS, slot_s: float = 10.0, **settings: Any) -> Demand:
    given = {"rate_per_s": 30.0, "entries": "cell", "slots": 6, **settings}
    return Popularity(**given).build(TREE, tasks, slot_s, Streams(seed))


def means(**settings: Any) -> np.ndarray:
    """Of each slot, entry and task."""
    made = built(random=False, **settings)
    return made.requests.reshape(len(made.requests), 3, -1)


def test_types_are_entries_times_tasks() -> None:
    made = built()
    assert made.entry.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert made.task.tolist() == [0, 1, 2, 3] * 3
    assert made.requests.shape == (6, 12)


def test_fixed_popularities_are_zipf() -> None:
    assert means() == pytest.approx(np.broadcast_to(100 * LAW / LAW.sum(), (6, 3, 4)))


def test_sliding_popularities_go_round() -> None:
    shares = means(profile="sliding", shift=1, period=2)[:, 0] / 100 * LAW.sum()
    assert shares == pytest.approx(np.stack([np.roll(LAW, turn) for turn in (0, 0, 1, 1, 2, 2)]))
    assert means(profile="sliding", shift=4, period=1) == pytest.approx(means()), "all the way round"


def test_reversing_popularities_turn() -> None:
    shares = means(profile="reversing", period=3)[:, 1] / 100 * LAW.sum()
    assert shares == pytest.approx(np.stack([LAW] * 3 + [LAW[::-1]] * 3))


def test_bursts_are_ten_times_as_often_and_last_as_long_as_they_should() -> None:
    """10,000 slots: the share of slots in bursts is 0.1, with a standard deviation of about 0.007 here."""
    shares = means(profile="bursty", period=10, slots=10_000)[:, 0]
    odds = shares / LAW
    burst = odds > 3 * odds.min(axis=1, keepdims=True)
    assert set(np.unique(np.round(odds / odds.min(axis=1, keepdims=True), 9))) == {1.0, 10.0}
    assert burst.mean() == pytest.approx(0.1, abs=0.03)
    ends = (burst[:-1] & ~burst[1:]).sum()
    assert burst.sum() / ends == pytest.approx(10.0, rel=0.2)


@settings(max_examples=40)
@given(
    st.sampled_from(PROFILES),
    st.integers(1, 9),
    st.integers(1, 5),
    st.integers(1, 4),
    st.floats(0.0, 3000.0),
    st.integers(0, 99),
)
def test_every_entry_asks_at_the_same_rate_in_every_slot(
    profile: str, slots: int, period: int, asked: int, exponent: float, seed: int
) -> None:
    made = built(
        seed, profile=profile, slots=slots, period=period, tasks_per_entry=asked, exponent=exponent, random=False
    )
    assert made.requests.shape == (slots, 3 * asked)
    assert made.requests.reshape(slots, 3, asked).sum(axis=2) == pytest.approx(np.full((slots, 3), 100.0))
    for entry in range(3):
        chosen = made.task[made.entry == entry]
        assert len(set(chosen.tolist())) == asked
        assert (np.diff(chosen) > 0).all()


def test_draws_have_the_means_and_a_seed() -> None:
    """3,000 draws: means within 5 standard errors."""
    drawn, expected = built(3, slots=3000).requests, built(3, slots=3000, random=False).requests
    assert np.array_equal(drawn, built(3, slots=3000).requests)
    assert not np.array_equal(drawn, built(4, slots=3000).requests)
    error = np.sqrt(expected[0] / 3000)
    assert (np.abs(drawn.mean(axis=0) - expected[0]) <= 5 * error).all()
    assert drawn.var(axis=0) == pytest.approx(expected[0], rel=0.2), "Poisson"
    assert (drawn == drawn.round()).all()


def test_one_task_and_one_slot() -> None:
    assert means(slots=1)[0] == pytest.approx(means()[0])
    for profile in PROFILES:
        assert built(tasks=("a",), profile=profile, random=False).requests == pytest.approx(np.full((6, 3), 100.0))


def test_which_tasks_are_asked_for_does_not_depend_on_the_profile() -> None:
    fixed, bursty = built(5, tasks_per_entry=2), built(5, tasks_per_entry=2, profile="bursty")
    assert np.array_equal(fixed.task, bursty.task)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tasks_per_entry": 9}, "tasks_per_entry is 9. The catalog has 4 tasks."),
        ({"entries": ()}, "entries names no node"),
        ({"entries": "cel"}, 'Did you mean "cell"?'),
        ({"rate_per_s": 1e-9}, "no request comes in 6 slots of 10 s. Raise rate_per_s"),
        ({"rate_per_s": 1e20}, "rate_per_s is 1e+20. Give at most 1e+15 requests in a slot of 10 s."),
        ({"slots": 10**11}, "counts. Give fewer slots"),
        ({"rate_per_s": 0.0}, "rate_per_s is 0.0"),
        ({"rate_per_s": np.inf}, "rate_per_s is inf"),
        ({"exponent": -1.0}, "exponent is -1.0"),
        ({"profile": "slidng"}, 'profile is "slidng". Give "fixed", "sliding"'),
        ({"slots": 0}, "slots is 0"),
        ({"period": 0}, "period is 0"),
        ({"tasks_per_entry": 0}, "tasks_per_entry is 0"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        built(**settings)
    assert text in str(caught.value)


def recorded(folder: Path, text: str, slot_s: float = 10.0) -> Demand:
    (folder / "t.csv").write_text(text)
    return Recorded(path=folder / "t.csv").build(TREE, TASKS, slot_s, Streams(0))


def test_a_trace_is_counted_by_slot_entry_and_task(tmp_path: Path) -> None:
    made = recorded(tmp_path, "time_s,item,origin\n100,b,2\n101,a,0\n109.9,b,2\n110,b,2\n135,d,3\n")
    assert list(zip(made.entry.tolist(), made.task.tolist(), strict=True)) == [(0, 0), (2, 1), (3, 3)]
    assert made.requests.tolist() == [[1, 2, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], "from the first request on"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("item,origin\na,0\n", ["a column is missing. Give time_s, item and origin."]),
        ("time_s,item\n0,a\n", ["a column is missing"]),
        (
            "time_s,item,origin\n0,aa,0\n0,e,9\n",
            ['item "aa" is no task', 'item "e" is no task', "origin is 9. Nodes are"],
        ),
        ("time_s,item,origin\n0,a,0\n1e14,a,0\n", ["it lasts 1e+14 s", "Give time_s in seconds"]),
        ("time_s,item,origin\n", ["the file holds no request"]),
    ],
)
def test_traces_that_cannot_be_used(tmp_path: Path, text: str, parts: list[str]) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        recorded(tmp_path, text)
    assert all(part in str(caught.value) for part in parts)
    assert "t.csv" in str(caught.value)
