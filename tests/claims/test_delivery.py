"""The comparison of delivery policies: verdicts by hand, scenes that repeat, tuning that chooses, bounds that bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rivage.core.errors import DataError
from rivage.core.seeding import Streams
from rivage.inference.gain import contend
from rivage.inference.infida import INFIDA
from rivage.inference.simple import Anchor
from rivage.studies.claims.delivery import CLAIMS, golden_slot
from rivage.studies.claims.delivery_comparison import compare, fixed_bound, gain_per_request, paired, tuned
from rivage.studies.claims.delivery_scenarios import CANDIDATES, PROFILES, TEST_SEEDS, TUNING_SEEDS, Scene, scene


def test_a_verdict_by_hand() -> None:
    """Differences 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.303; three of three signs have p = 1/4."""
    found = paired(np.array([1.0, 2.0, 3.0]))
    assert found.mean == pytest.approx(2.0)
    assert found.half == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert found.p == pytest.approx(0.25)
    assert found.verdict == "level"


def test_both_tests_must_agree() -> None:
    twelve = np.linspace(1.0, 2.0, 12)
    assert paired(twelve).verdict == "wins"
    assert paired(-twelve).verdict == "loses"
    assert paired(np.zeros(12)).verdict == "level"
    few = np.r_[np.full(8, 5.0), np.full(4, -0.1)]  # a clear mean, but 8 of 12 signs: p = 0.39
    assert abs(paired(few).mean) > paired(few).half
    assert paired(few).verdict == "level"


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=15))
def test_verdicts_are_antisymmetric(differences: list[float]) -> None:
    one, other = paired(np.array(differences)), paired(-np.array(differences))
    assert one.mean == -other.mean
    assert {"wins": "loses", "loses": "wins", "level": "level"}[one.verdict] == other.verdict


def test_everybody_is_tuned_with_equal_effort_and_on_other_seeds() -> None:
    assert {len(choices) for choices in CANDIDATES.values()} == {4}
    assert len(TEST_SEEDS) >= 10
    assert not set(TEST_SEEDS) & set(TUNING_SEEDS)


@pytest.mark.parametrize("network", ["topology I", "tree"])
def test_scenes_repeat_and_differ(network: str) -> None:
    same = [scene(network, "bursty", 3, slots=20) for _ in range(2)]
    assert (same[0].requests == same[1].requests).all()
    other = scene(network, "bursty", 4, slots=20)
    assert not np.array_equal(same[0].instance.asked, other.instance.asked)
    fixed = scene(network, "fixed", 3, slots=20)
    assert (fixed.instance.asked == same[0].instance.asked).all()  # profiles share who asks for what


@pytest.mark.parametrize("profile", PROFILES)
def test_memory_and_throughput_are_scarce(profile: str) -> None:
    """No node can hold all it is asked for, and popular tasks are too much for one model of the best quality."""
    for network in ("topology I", "tree"):
        drawn = scene(network, profile, 0, slots=60)  # type: ignore[arg-type]
        instance = drawn.instance
        deciding = np.flatnonzero(~instance.pinned.any(axis=1))
        sizes = np.where(instance.usable, instance.sizes, 0.0)[deciding].sum(axis=1)
        assert (sizes > instance.budgets[deciding]).all()
        best = instance.accuracy == instance.accuracy.max()
        assert drawn.requests.max() > instance.throughput[deciding][:, best].min()


def test_load_and_memory_scale() -> None:
    once, twice = (scene("tree", "fixed", 0, slots=20, load=load, memory=load) for load in (1.0, 2.0))
    assert twice.requests.sum() == pytest.approx(2 * once.requests.sum(), rel=0.01)
    assert twice.instance.free_budgets[0] == pytest.approx(2 * once.instance.free_budgets[0])


def test_nothing_fixed_exceeds_the_bound() -> None:
    drawn = scene("tree", "sliding", 0, slots=24)
    bound = fixed_bound(drawn)
    for rule in ("all_device", "smallest", "best_accuracy", "random"):
        policy = Anchor(rule=rule)
        loaded = policy.act(policy.init(drawn.instance, Streams(0)))
        paid = sum(
            float(contend(drawn.instance, r, loaded).served @ drawn.instance.ranking.cost) for r in drawn.requests
        )
        base = sum(contend(drawn.instance, r, loaded).slot.base_cost for r in drawn.requests)
        assert base - paid <= bound * drawn.requests.sum() * (1 + 1e-9)


def test_gain_per_request_is_what_was_saved() -> None:
    drawn = scene("tree", "fixed", 0, slots=10)
    gain, ntag, moved = gain_per_request(Anchor(), drawn, 0)
    assert (gain, ntag, moved) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)
    gain, ntag, moved = gain_per_request(Anchor(rule="smallest"), drawn, 0)
    assert gain == pytest.approx(ntag, rel=0.02)
    assert moved > 0


def test_tuning_takes_the_better_and_never_sees_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def small(network: str, profile: str, seed: int) -> Scene:
        seen.append(seed)
        return scene(network, profile, seed, slots=12)  # type: ignore[arg-type]

    monkeypatch.setattr("rivage.studies.claims.delivery_comparison.scene", small)
    assert tuned("tree", "fixed", [Anchor(), Anchor(rule="smallest"), Anchor(rule="all_cloud")]) == 1
    assert seen == list(TUNING_SEEDS)
    cell = compare(
        "tree",
        "fixed",
        candidates={"INFIDA": [INFIDA(scale=3.0)], "cloud": [Anchor(), Anchor()]},
        foresight={},
        seeds=(0, 1, 2),
    )
    assert cell.chosen == {"INFIDA": 0, "cloud": 0}
    assert cell.gains["cloud"] == pytest.approx(np.zeros(3), abs=1e-9)
    assert cell.against("cloud").mean == pytest.approx(cell.gains["INFIDA"].mean())
    assert (cell.gains["INFIDA"] < cell.bound).all()


def test_without_the_file_of_a_network_nothing_is_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIVAGE_DATA", "nowhere")
    with pytest.raises(DataError, match="geantdistance"):
        scene("GÉANT", "fixed", 0)
    claim = next(claim for claim in CLAIMS if claim.name == "delivery-beats-olag-geant")
    assert claim.run().verdict == "not tested"


def test_the_real_network(data_root: object) -> None:
    drawn = scene("GÉANT", "fixed", 0, slots=10)
    assert drawn.instance.shape == (40, 100)
    assert drawn.instance.types == 39 * 6
    hops = (drawn.instance.paths >= 0).sum(axis=1) - 1
    assert hops.max() == 5


def test_the_golden_network_is_that_of_the_other_tests() -> None:
    """Figures of a brute force: costs of pinned models alone, and of the best allocation."""
    slot = golden_slot()
    assert slot.base_cost == pytest.approx(10290.0)
    best = slot.instance.pinned.copy()
    for node, models in enumerate(([7], [1, 7], [0, 1, 4])):
        best[node, models] = True
    assert slot.gain(best) == pytest.approx(1790.0)
