"""Certificates of caching networks: what they say of real games, and of made-up ones that break the promise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from rivage.core.certificates import CHECKS, Certificate
from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.seeding import Streams
from rivage.core.trial_records import TrialRecord
from rivage.online.cache_network_setups import published_setup
from rivage.online.cache_networks import play_network
from rivage.online.chance import in_expectation
from rivage.online.network_checks import network_gap, network_regret
from rivage.online.network_optimum import yardsticks
from rivage.online.tabular_greedy import DistributedTGOnline


class Made:
    """Runs of one policy "m", with the numbers that are given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0

    def __call__(
        self,
        gains: Sequence[float],
        bounds: Sequence[float | None] | None = None,
        *,
        factor: float | None = 0.5,
        relaxed: float | None = 200.0,
        placed: float | None = 200.0,
        asked: float = 1000.0,
        end: bool = True,
    ) -> RunRecord:
        self.count += 1
        settings = {"name": "toy", "network": {"kind": "geant"}, "policies": [{"kind": "m"}]}
        record = RunRecord.create(self.folder / str(self.count), "toy", settings)
        for seed, (gain, bound) in enumerate(zip(gains, bounds or [10.0] * len(gains), strict=True)):
            trial = TrialRecord.open(record.trial_folder("m", seed))
            trial.append({"event": "start", "method": "m", "policy": "m", "kind": "m", "seed": seed, "factor": factor})
            trial.append({"event": "optimum", "relaxed": relaxed, "placed": placed, "asked": asked})
            trial.append({"event": "point", "gain": 0.0, "asked": 1.0, "bound": None})
            trial.append({"event": "point", "gain": gain, "asked": asked, "bound": bound})
            if end:
                trial.append({"event": "end"})
        return RunRecord.open(record.folder)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def verdict(record: RunRecord, confidence: float = 0.95) -> str:
    return network_regret(record, method="m", confidence=confidence).verdict


def test_a_real_game_keeps_its_promise(made: Made) -> None:
    setup = published_setup("abilene", "oscillator", Streams(0))
    instance, requests, policy = setup.instance, setup.requests, DistributedTGOnline()
    ends = [play_network(policy, instance, requests, streams=Streams(seed)).last for seed in range(3)]
    best = yardsticks(instance, instance.counts(requests))
    assert best.relaxed is not None
    gains, bounds = ([float(end[key]) for end in ends] for key in ("gain", "bound"))
    asked, factor = ends[0]["asked"], policy.factor(instance)
    record = made(gains, bounds, factor=factor, relaxed=best.relaxed, placed=best.placed, asked=asked)
    certificate = network_regret(record, method="m")
    assert certificate.verdict == "holds"
    assert certificate.measured == pytest.approx(0.5 * best.relaxed - np.mean(gains))
    assert certificate.reference == pytest.approx(np.mean(bounds))
    assert Certificate.from_dict(certificate.as_dict()) == certificate


def test_the_gap_is_in_shares_of_the_cost(made: Made) -> None:
    certificate = network_gap(made([100.0, 140.0], relaxed=250.0), method="m")
    assert (certificate.measured, certificate.reference) == pytest.approx((0.12, 0.25))
    assert certificate.claim == "m saves 12 % of the cost, and no fixed placement more than 25 %."
    assert "saves 20 %" in certificate.method


def test_broken_promises_are_told_from_what_cannot_be_known(made: Made) -> None:
    nothing, promised = [0.0] * 3, [0.0] * 3
    assert verdict(made(nothing, promised)) == "fails"
    assert verdict(made(nothing, [50.0] * 3, placed=50.0)) == "no_power"


def test_chance_breaks_no_promise(made: Made) -> None:
    """Half of 200 minus 10 is promised: means of 90 keep that, and one of 80 shows nothing while gains differ a lot."""
    assert verdict(made([60.0, 120.0])) == verdict(made([90.0])) == "holds"
    assert verdict(made([80.0])) == "no_power"
    assert verdict(made([70.0, 90.0])) == "no_power"  # t = 1 with one degree of freedom; 6.3 is needed
    assert verdict(made([79.0, 80.0, 81.0])) == "fails"  # t = 17; 2.9 is needed
    assert verdict(made([79.0, 80.0, 81.0]), confidence=0.999) == "no_power"  # 22 is needed
    assert network_regret(made([90.0]), method="m", confidence=0.9).confidence == 0.9


def test_a_promise_of_nothing_shows_nothing(made: Made) -> None:
    for record in (made([90.0] * 3, factor=0.0), made([90.0] * 3, [100.0] * 3)):
        certificate = network_regret(record, method="m")
        assert certificate.verdict == "no_power"
        assert "promises nothing here" in certificate.method


def test_bounds_that_come_from_the_draws_are_paired_with_them(made: Made) -> None:
    """Each seed misses its own bound by 1, far less than seeds differ."""
    gains = np.array([20.0, 50.0, 80.0])
    assert verdict(made(gains.tolist(), (99.0 - gains + 1e-3 * gains).tolist())) == "fails"


def test_a_promise_kept_in_expectation_rarely_fails() -> None:
    """Gains are normal around what is promised: 5 % fail; of 1000, 25 to 78 with probability 0.9999."""
    random = np.random.default_rng(0)
    failed = [in_expectation(90.0 - random.normal(90, 20, (4, 1)), 0.95) == "fails" for _ in range(1000)]
    assert 25 <= sum(failed) <= 78


def test_a_program_that_was_too_large_leaves_no_power(made: Made) -> None:
    record = made([90.0] * 3, relaxed=None)
    for certificate in (network_regret(record, method="m"), network_gap(record, method="m")):
        assert certificate.verdict == "no_power"
        assert "too large to be solved" in certificate.method
        assert Certificate.from_dict(certificate.as_dict()).as_dict() == certificate.as_dict()
    assert verdict(made([0.0] * 3, [0.0] * 3, relaxed=None)) == "fails", "greed alone shows that"
    assert verdict(made([0.0] * 3, [0.0] * 3, relaxed=None, placed=None)) == "no_power"
    assert "unknown share" in network_gap(made([1.0], placed=None), method="m").method


def test_who_promises_nothing_has_a_gap_and_no_regret(made: Made) -> None:
    record = made([0.0], [None], factor=None)
    assert network_gap(record, method="m").measured == 0
    with pytest.raises(AssertionError, match="promise something"):
        network_regret(record, method="m")


def test_what_has_not_been_played_has_no_certificate(made: Made) -> None:
    for record, method in ((made([1.0], end=False), "m"), (made([1.0]), "n")):
        with pytest.raises(StoreError, match="has not been played to the end"):
            network_gap(record, method=method)


@pytest.mark.parametrize("name", ["network_gap", "network_regret"])
def test_checks_are_registered(name: str) -> None:
    assert CHECKS.get(name).__name__ == name


def test_a_placement_above_the_relaxation_is_told(made: Made) -> None:
    gap = network_gap(made([100.0, 110.0], relaxed=200.0, placed=201.0), method="m")
    assert gap.verdict == "fails"
    assert network_gap(made([100.0, 110.0], relaxed=200.0, placed=200.0 + 1e-5), method="m").verdict == "holds"


def test_an_empty_promise_can_still_be_broken(made: Made) -> None:
    record = made([-400.0, -401.0, -402.0], bounds=[150.0] * 3)  # no honest gain is negative
    assert verdict(record) == "fails"


def test_the_rounding_of_the_linear_program_breaks_no_promise(made: Made) -> None:
    assert verdict(made([89.9999, 89.9999])) == "holds", "half of 200, less 10, to a millionth of 200"
    assert verdict(made([89.999, 89.999])) == "fails"
