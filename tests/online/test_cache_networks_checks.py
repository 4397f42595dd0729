"""Certificates of caching networks: what they say of real games, and of made-up ones that break the promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.seeding import Streams
from rivage.online.cache_network_setups import published_setup
from rivage.online.cache_networks import play_network
from rivage.online.network_checks import NetworkRecord, network_gap, network_regret
from rivage.online.path_replication import PathReplication
from rivage.online.tabular_greedy import DistributedTGOnline


@pytest.fixture(scope="module")
def record() -> NetworkRecord:
    setup = published_setup("abilene", "oscillator", Streams(0))
    policy = DistributedTGOnline()
    games = [play_network(policy, setup.instance, setup.requests, streams=Streams(seed)) for seed in range(3)]
    return NetworkRecord.of("tg", policy, setup.instance, setup.requests, games)


def test_a_real_game_keeps_its_promise(record: NetworkRecord) -> None:
    certificate = network_regret(record)
    assert certificate.verdict == "holds"
    assert record.factor == 0.5
    assert certificate.measured == pytest.approx(0.5 * record.relaxed - record.gains.mean())
    assert certificate.reference == pytest.approx(record.bounds.mean())
    assert Certificate.from_dict(certificate.as_dict()) == certificate


def test_the_gap_is_in_shares_of_the_cost(record: NetworkRecord) -> None:
    certificate = network_gap(record)
    assert 0 < certificate.measured < certificate.reference < 1
    assert "no fixed placement more than" in certificate.claim


def test_broken_promises_are_told_from_what_cannot_be_known(record: NetworkRecord) -> None:
    broken = replace(record, gains=np.zeros(3), bounds=np.zeros(3))
    assert network_regret(broken).verdict == "fails"
    between = replace(broken, bounds=np.full(3, 50.0), relaxed=200.0, placed=50.0)
    assert network_regret(between).verdict == "no_power"


def test_chance_breaks_no_promise(record: NetworkRecord) -> None:
    """Half of 200 minus 10 is promised: means of 90 keep that, and one of 80 shows nothing while gains differ a lot."""
    best = {"factor": 0.5, "relaxed": 200.0, "placed": 200.0}

    def verdict(gains: list[float], **more: float) -> str:
        bounds = np.full(len(gains), 10.0)
        return network_regret(replace(record, gains=np.array(gains), bounds=bounds, **best), **more).verdict

    assert verdict([60.0, 120.0]) == verdict([90.0]) == "holds"
    assert verdict([80.0]) == "no_power"
    assert verdict([70.0, 90.0]) == "no_power"  # t = 1 with one degree of freedom; 6.3 is needed
    assert verdict([79.0, 80.0, 81.0]) == "fails"  # t = 17; 2.9 is needed
    assert verdict([79.0, 80.0, 81.0], confidence=0.999) == "no_power"  # 22 is needed
    assert network_regret(record, confidence=0.9).confidence == 0.9


def test_a_promise_of_nothing_shows_nothing(record: NetworkRecord) -> None:
    for empty in ({"factor": 0.0}, {"bounds": np.full(3, 0.5 * record.relaxed)}):
        certificate = network_regret(replace(record, **empty))
        assert certificate.verdict == "no_power"
        assert "promises nothing here" in certificate.method


def test_bounds_that_come_from_the_draws_are_paired_with_them(record: NetworkRecord) -> None:
    """Each seed misses its own bound by 1, far less than seeds differ."""
    gains = np.array([20.0, 50.0, 80.0])
    told = replace(record, factor=0.5, relaxed=200.0, placed=200.0, gains=gains, bounds=99.0 - gains + 1e-3 * gains)
    assert network_regret(told).verdict == "fails"


def test_a_promise_kept_in_expectation_rarely_fails() -> None:
    """Gains are normal around what is promised: 5 % fail; of 1000, 25 to 78 with probability 0.9999."""
    random, failed = np.random.default_rng(0), 0
    for _ in range(1000):
        gains = random.normal(90, 20, 4)
        made = NetworkRecord("m", 0.5, gains, np.full(4, 10.0), relaxed=200.0, placed=200.0, asked=1000.0)
        failed += network_regret(made).verdict == "fails"
    assert 25 <= failed <= 78


def test_who_promises_nothing_has_a_gap_and_no_regret() -> None:
    setup = published_setup("path", "oscillator", Streams(0))
    games = [play_network(PathReplication(), setup.instance, setup.requests, streams=Streams(0))]
    record = NetworkRecord.of("lru", PathReplication(), setup.instance, setup.requests, games)
    assert record.factor is None
    assert network_gap(record).measured == 0
    with pytest.raises(AssertionError, match="promise something"):
        network_regret(record)


@pytest.mark.parametrize("name", ["network_gap", "network_regret"])
def test_checks_are_registered(name: str) -> None:
    assert CHECKS.get(name).__name__ == name
