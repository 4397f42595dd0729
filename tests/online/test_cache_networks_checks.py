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
