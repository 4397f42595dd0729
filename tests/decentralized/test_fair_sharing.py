"""Messages that share links: closed forms on lines, and equality with the bottleneck rule where nothing is shared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rivage.core.errors import ConfigError
from rivage.decentralized import Overlay, Silos, cycle_time_ms
from rivage.decentralized.fair_sharing import fair_cycle_time_ms
from rivage.graphs import PathRule, Underlay, connectivity
from rivage.graphs.cycles import max_cycle_mean
from rivage.graphs.fair_rates import fair_rates

LINE = Underlay.of(list("abcd"), [("a", "b"), ("b", "c"), ("c", "d")], latency_ms=[1, 2, 3], capacity_bps=1e6)


def silos(underlay: Underlay, **more: Any) -> Silos:
    return Silos.of(connectivity(underlay, PathRule()), model_bits=1e4, step_ms=5, **more)


def test_a_ring_on_a_line_shares_what_comes_back() -> None:
    """a – b – c – d – a: every link carries one message each way, so nothing is shared."""
    ring = Overlay.ring(silos(LINE), [0, 1, 2, 3])
    assert fair_cycle_time_ms(ring, LINE) == pytest.approx(5 + 10 + (1 + 2 + 3 + 6) / 4)
    assert fair_cycle_time_ms(ring, LINE) == pytest.approx(cycle_time_ms(ring)), "as fast as its bottleneck says"


def test_two_messages_over_one_link_take_twice_as_long() -> None:
    """a – c – b – d – a crosses b–c twice forwards (a to c, b to d) and twice back (c to b, d to a)."""
    ring = Overlay.ring(silos(LINE), [0, 2, 1, 3])
    assert fair_cycle_time_ms(ring, LINE) == pytest.approx(5 + 20 + (3 + 2 + 5 + 6) / 4)
    assert fair_cycle_time_ms(ring, LINE, core_bps=2e6) == pytest.approx(5 + 10 + (3 + 2 + 5 + 6) / 4)


def test_access_links_count_as_before() -> None:
    slow = Overlay.links(silos(LINE, access_bps=2e5), [(0, 1), (1, 2), (2, 3)])
    assert fair_cycle_time_ms(slow, LINE) == pytest.approx(cycle_time_ms(slow)), "trees of links share nothing"
    assert fair_cycle_time_ms(slow, LINE) == pytest.approx(5 + 3 + 100), "c – d – c, two messages on each access link"


def test_the_published_rule_is_neither_above_nor_below() -> None:
    """It divides by hops: too slow for a ring along the line, too fast where many cross one link."""
    star = Underlay.of(list("abcde"), [("a", x) for x in "bcde"], latency_ms=1, capacity_bps=1e6, distance_km=1)
    rule = PathRule(bandwidth="capacity_over_hops")
    every = Silos.of(connectivity(star, rule), model_bits=1e4, step_ms=5)
    leaves = Overlay.ring(every, [1, 2, 3, 4, 0])
    assert fair_cycle_time_ms(leaves, star) < cycle_time_ms(leaves)
    full = Overlay.of(every, [(i, j) for i in range(5) for j in range(5) if i != j])
    assert fair_cycle_time_ms(full, star) > cycle_time_ms(full)


@pytest.mark.parametrize("seed", range(8))
def test_every_arc_by_its_formula(seed: int) -> None:
    """Silos, access links and degrees that all differ, arc by arc."""
    rng = np.random.default_rng(seed)
    up, down, step = rng.uniform(1e5, 1e6, 4), rng.uniform(1e5, 1e6, 4), rng.uniform(0, 300, 4)
    every = Silos.of(
        connectivity(LINE, PathRule()), model_bits=1e4, step_ms=step, access_bps=up, access_down_bps=down, local_steps=2
    )
    more = [(i, j) for i in range(4) for j in range(4) if i != j and (i + 1) % 4 != j and rng.random() < 0.4]
    arcs = [(0, 1), (1, 2), (2, 3), (3, 0), *more]
    rates = fair_rates(LINE, every.connectivity, arcs)
    matrix = np.full((4, 4), -np.inf)
    np.fill_diagonal(matrix, 2 * step)
    for (i, j), rate in zip(arcs, rates, strict=True):
        sends, gets = sum(a == i for a, _ in arcs), sum(b == j for _, b in arcs)
        slowest = min(up[i] / sends, down[j] / gets, rate)
        matrix[i, j] = 2 * step[i] + abs(i - j) * (i + j + 1) / 2 + 1e7 / slowest  # latencies 1, 2, 3
    found = fair_cycle_time_ms(Overlay.of(every, arcs), LINE)
    assert found == pytest.approx(max_cycle_mean(matrix, method="karp").mean, rel=1e-12)


def test_the_work_of_one_silo_may_set_the_pace() -> None:
    every = Silos.of(connectivity(LINE, PathRule()), model_bits=1e4, step_ms=[0, 900, 0, 0])
    assert fair_cycle_time_ms(Overlay.ring(every, [0, 1, 2, 3]), LINE) == 900


def test_what_is_not_known_is_told() -> None:
    bare = Underlay.of(list("ab"), [("a", "b")], latency_ms=1)
    pair = Silos.of(connectivity(bare, PathRule(core_bps=1e6)), model_bits=1, step_ms=1)
    overlay = Overlay.ring(pair, [0, 1])
    with pytest.raises(ConfigError, match="capacity_bps is not known"):
        fair_cycle_time_ms(overlay, bare)
    assert fair_cycle_time_ms(overlay, bare, core_bps=1e6) == pytest.approx(2.001)
    assert np.isfinite(cycle_time_ms(overlay))
