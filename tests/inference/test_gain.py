"""Cost, gain and its slope: the golden line network, and what must hold on any network."""

from __future__ import annotations

from itertools import chain, combinations, product

import numpy as np
import pytest

from rivage.inference.gain import Slot, contend

from .conftest import alone, line


def loaded(slot: Slot, *sets: tuple[int, ...]) -> np.ndarray:
    x = slot.instance.pinned.copy()
    for node, models in enumerate(sets):
        x[node, list(models)] = True
    return x


@pytest.mark.parametrize(
    ("alpha", "base", "best", "sets"),
    [
        (0.0, 3850, 2460, ((0, 3), (0, 3, 6), (0, 2))),
        (0.25, 5880, 2390, ((0, 3), (0, 3, 6), (0, 2))),
        (1.0, 10290, 1790, ((7,), (1, 7), (0, 1, 4))),
        (4.0, 25970, 840, ((1,), (2,), (0, 2))),
    ],
)
def test_golden_costs_and_gains(alpha: float, base: float, best: float, sets: tuple[tuple[int, ...], ...]) -> None:
    slot = alone(line(alpha))
    assert slot.base_cost == pytest.approx(base)
    assert slot.gain(loaded(slot, *sets)) == pytest.approx(best)


@pytest.mark.slow
@pytest.mark.parametrize(("alpha", "best"), [(0.0, 2460), (0.25, 2390), (1.0, 1790), (4.0, 840)])
def test_no_allocation_does_better(alpha: float, best: float) -> None:
    slot = alone(line(alpha))
    choices = []
    for node, budget in enumerate((2.0, 4.0, 5.0)):
        sizes = slot.instance.sizes[node]
        subsets = chain.from_iterable(combinations(range(9), k) for k in range(6))
        fitting = [s for s in subsets if sizes[list(s)].sum() <= budget]
        choices.append([s for s in fitting if not any(set(s) < set(o) for o in fitting)])
    assert max(slot.gain(loaded(slot, *sets)) for sets in product(*choices)) == pytest.approx(best)


def test_golden_slope_of_uniform_fractions(golden: Slot) -> None:
    y = np.ones((4, 9))
    y[:3] = (np.array([2.0, 4.0, 5.0]) / 21.0)[:, None]
    assert golden.gain(y) == pytest.approx(825.95238, abs=1e-5)
    expected = [
        (210, 195, 0, 180, 180, 0, 90, 180, 0),
        (80, 350, 0, 10, 250, 0, 5, 125, 0),
        (0, 1040, 240, 0, 490, 130, 0, 245, 65),
    ]
    assert golden.slope(y).gradient[:3] == pytest.approx(np.array(expected, float))


def test_what_is_served_by_contention_is_what_the_rule_serves() -> None:
    instance = line()
    rng = np.random.default_rng(0)
    for _ in range(200):
        x = instance.pinned | (rng.random((4, 9)) < 0.3)
        requests = rng.integers(0, 90, 6).astype(float)
        slot, served = contend(instance, requests, x)
        assert slot.served(x) == pytest.approx(served)
        used = np.bincount(instance.ranking.place, served, minlength=36).reshape(4, 9)
        assert (used <= instance.throughput * (1 + 1e-12)).all()
