"""The schema of a study of policies: what is read, what is refused, and that a dump says it all."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import ConfigError
from rivage.core.settings import dump
from rivage.core.toml import format_toml
from rivage.online.registry import POLICIES
from rivage.studies.games.caches import Cache, PlayRun
from rivage.studies.play_settings import load_play, parse_play, short_play

STUDY = """
name = "toy"
trace = { kind = "zipf", items = 100, requests = 1000 }
cache = { capacity = [10, "5%"], costs = "trace", horizon = "unknown" }
policies = [{ kind = "lru" }, { name = "bold", kind = "ogb", scale = 10.0 }]
run = { seeds = [0, 3], points = 7, window = 50 }
"""


def test_a_dump_says_all_and_reads_the_same() -> None:
    study = parse_play(STUDY)
    assert parse_play(format_toml(dump(study))) == study
    assert [player.name for player in study.policies] == ["lru", "bold"]
    assert study.policies[1].policy.scale == 10
    assert dump(study)["policies"][1]["start"] == "uniform", "defaults are written"


@pytest.mark.parametrize("kind", sorted(POLICIES))
def test_every_registered_policy_survives_the_dump(kind: str) -> None:
    more = ", window = 9" if kind == "window_lfu" else ""
    study = parse_play(STUDY.replace('{ kind = "lru" }', f'{{ kind = "{kind}", name = "x"{more} }}'))
    assert parse_play(format_toml(dump(study))) == study
    assert study.policies[0].kind == kind


def test_the_name_is_that_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "shop.toml"
    path.write_text(STUDY.replace('name = "toy"', ""))
    assert load_play(path, ["run.points=3"]).name == "shop"
    assert load_play(path, ["run.points=3"]).run.points == 3


@given(st.integers(2, 10**6), st.data())
def test_capacities_are_whole_numbers_of_items(items: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, items - 1))
    assert Cache(capacity=count).capacities(items) == (count,)
    percent = data.draw(st.integers(1, 99))
    whole = items * percent // 100
    if whole:
        assert Cache(capacity=(f"{percent}%", f"{percent} %", whole)).capacities(items) == (whole,)
    else:
        with pytest.raises(ConfigError, match="less than one item"):
            Cache(capacity=f"{percent}%").capacities(items)


def test_shares_are_meant_as_written() -> None:
    """In floats 0.57 · 10,000 is 5699.999…, and 1.1 · 1000 is 1100.000…1."""
    assert Cache(capacity=("0.57%", "1.1%", "1.19%")).capacities(10_000) == (57, 110, 119)
    assert Cache(capacity="0.57%").capacities(9999) == (56,)


def test_all_capacities_that_do_not_fit_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*capacity is 10.*capacity is 99"):
        Cache(capacity=(3, 10, 99)).capacities(10)


@pytest.mark.parametrize("capacity", [0, -3, "0%", "100%", "5", "many", "-5%", (), (5, "x")])
def test_what_is_no_capacity_is_refused(capacity: object) -> None:
    with pytest.raises(ConfigError, match="capacity is"):
        Cache(capacity=capacity)  # type: ignore[arg-type]


def test_seeds_and_meters_in_their_ranges() -> None:
    for wrong in ({"seeds": ()}, {"seeds": (1, 1)}, {"seeds": (-1,)}, {"points": 0}, {"window": 0}, {"block": 0}):
        with pytest.raises(ConfigError):
            PlayRun(**wrong)


def test_options_stand_in_for_a_file() -> None:
    study = short_play(Path("logs/web.trace.xz"), None, ["687", "5%"], "lru, ogb", ["run.seeds=[4]"])
    assert (study.name, study.cache.capacity, study.run.seeds) == ("web", (687, "5%"), (4,))
    assert study.trace.path == Path("logs/web.trace.xz")
    assert parse_play(format_toml(dump(study))) == study
    assert short_play(Path("a.txt"), "csv", ["7"], None).cache.capacity == 7
    assert len(short_play(Path("a.txt"), None, [], None).policies) == 5
