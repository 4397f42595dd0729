"""Step sizes: steps by hand, bounds against adversaries, invariances."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rivage.convex import (
    CappedSimplex,
    Constant,
    Doubling,
    NegativeEntropy,
    QNorm,
    ScaleFree,
    Schedule,
    SelfConfident,
    Simplex,
    SquaredNorm,
    Theory,
)
from rivage.convex.mirrors import MirrorMap
from rivage.core.errors import ConfigError

ITEMS, SIZE = 30, 6
CACHE = CappedSimplex(ITEMS, SIZE)
D2 = CACHE.diameter_squared
WIDTH2 = 2.0 * SIZE  # two disjoint caches


def steps(schedule: Schedule, squares: list[float]) -> list[float]:
    progress, found = schedule.start(), []
    for square in squares:
        step, progress = schedule.next(progress, square)
        found.append(step)
    return found


def play(
    schedule: Schedule, gains: np.ndarray, cache: CappedSimplex | Simplex = CACHE, mirror: MirrorMap | None = None
) -> float:
    """Regret of mirror ascent on linear gains [T, N] against the best fixed point."""
    mirror = mirror or SquaredNorm()
    x, progress, earned = cache.center, schedule.start(), 0.0
    for gain in gains:
        earned += float(gain @ x)
        step, progress = schedule.next(progress, float(gain @ gain))
        x = mirror.project(cache, mirror.inverse(mirror.gradient(x) + step * gain))
        if progress.restart:
            x = cache.center
    best = np.sort(gains.sum(axis=0))[::-1][: round(cache.total)].sum()
    return float(best) - earned


def requests(kind: str, rounds: int, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(5)
    if kind == "cyclic":
        items = np.arange(rounds) % ITEMS
    elif kind == "switch":
        items = np.where(np.arange(rounds) < rounds // 2, np.arange(rounds) % SIZE, SIZE + np.arange(rounds) % SIZE)
    else:
        popularity = 1.0 / np.arange(1, ITEMS + 1)
        items = rng.choice(ITEMS, rounds, p=popularity / popularity.sum())
    gains = np.zeros((rounds, ITEMS))
    gains[np.arange(rounds), items] = scale * (rng.uniform(0.05, 1.0, rounds) if kind == "weights" else 1.0)
    return gains


T = 1000
BOUNDS: list[tuple[Schedule, Callable[[int, float], float]]] = [
    (Constant(0.1), lambda t, g2: Constant(0.1).bound(t, diameter_squared=D2, gradient_squared=g2)),
    (Theory(D2, 1.0, T), lambda t, _: Theory(D2, 1.0, T).bound(t)),
    (Theory(D2, 1.0, 50), lambda t, _: Theory(D2, 1.0, 50).bound(t)),
    (Doubling(D2, 1.0), lambda t, _: Doubling(D2, 1.0).bound(t)),
    (SelfConfident(D2), lambda t, g2: SelfConfident(D2).bound(t, gradient_squared=g2, width_squared=WIDTH2)),
    (ScaleFree(2.0), lambda t, g2: ScaleFree(2.0).bound(t, gradient_squared=g2, width_squared=WIDTH2)),
    (
        ScaleFree(0.1, decay=False),
        lambda t, g2: ScaleFree(0.1, decay=False).bound(t, gradient_squared=g2, width_squared=WIDTH2),
    ),
]


@pytest.mark.parametrize("kind", ["cyclic", "switch", "zipf", "weights"])
@pytest.mark.parametrize(("schedule", "bound"), BOUNDS, ids=[str(schedule)[:40] for schedule, _ in BOUNDS])
def test_regret_stays_below_the_bound(schedule: Schedule, bound: Callable[[int, float], float], kind: str) -> None:
    for rounds in (1, 7, 63, T):
        regret = play(schedule, requests(kind, rounds))
        assert regret <= bound(rounds, 1.0) + 1e-9
    assert bound(T, 1.0) < 10 * math.sqrt(D2 * T)  # and the bound is no empty promise


def test_an_adversary_takes_a_good_part_of_the_bound() -> None:
    # Fair signs in one dimension: regret √(2T/π) on average, the bound with D = 1/2, G = 2 is √T.
    line = CappedSimplex(2, 1)
    rng = np.random.default_rng(0)
    rounds, found = 200, []
    schedule = Theory(line.diameter_squared, 2.0, rounds)
    for _ in range(60):
        signs = rng.choice([-1.0, 1.0], rounds)
        found.append(play(schedule, np.stack([signs, -signs], axis=1), line))
    assert schedule.bound() == pytest.approx(math.sqrt(rounds))
    assert 0.4 * schedule.bound() < np.mean(found) < schedule.bound()


def test_steps_by_hand() -> None:
    squares = [4.0, 0.0, 12.0, 9.0]
    assert steps(Constant(0.3), squares) == [0.3] * 4
    assert steps(Theory(9.0, 4.0, 25), squares) == pytest.approx([0.3] * 4)
    assert steps(SelfConfident(16.0), squares) == pytest.approx([2, 2, 1, 0.8])
    assert steps(ScaleFree(6.0), squares) == pytest.approx([3, 3 / math.sqrt(2), 1, 6 / math.sqrt(48)])
    assert steps(ScaleFree(6.0, decay=False), squares) == pytest.approx([3, 3, 6 / math.sqrt(12), 6 / math.sqrt(12)])
    assert steps(ScaleFree(6.0, decay=False, warmup=2), [4, 1, 100, 1]) == [3, 3, 3, 3]
    assert steps(ScaleFree(6.0, decay=False, warmup=2), [4, 16, 100, 1]) == [3, 1.5, 1.5, 1.5]
    assert steps(ScaleFree(6.0, decay=False, warmup=2), [0, 0, 4, 100]) == [0, 0, 3, 3]
    assert steps(Doubling(9.0, 1.0), [1.0] * 8) == pytest.approx(
        [3.0 / math.sqrt(2**m) for m in (0, 1, 1, 2, 2, 2, 2, 3)]
    )


def test_doubling_restarts_after_each_epoch() -> None:
    schedule, progress, restarts = Doubling(1.0, 1.0), Doubling(1.0, 1.0).start(), []
    for t in range(1, 20):
        _, progress = schedule.next(progress, 1.0)
        restarts += [t] if progress.restart else []
    assert restarts == [1, 3, 7, 15]


def test_doubling_is_within_its_factor() -> None:
    factor = 1 / (math.sqrt(2) - 1) + 0.5
    ratios = [Doubling(3.0, 2.0).bound(t) / math.sqrt(6.0 * t) for t in range(1, 3000)]
    assert max(ratios) <= factor < 2.92
    assert max(ratios) > 0.95 * factor


def test_bounds_by_hand() -> None:
    assert Theory(9.0, 4.0, 25).bound() == 30
    assert Theory(9.0, 4.0, 25).bound(50) == 45
    assert Constant(0.3).bound(25, diameter_squared=9.0, gradient_squared=4.0) == pytest.approx(30)
    assert Constant(0.0).bound(25, diameter_squared=9.0, gradient_squared=4.0) == math.inf
    assert SelfConfident(9.0).bound(25, gradient_squared=4.0) == 3 * 3 * 10
    assert SelfConfident(9.0).bound(25, gradient_squared=4.0, width_squared=9.0) == 4.5 * 10
    assert ScaleFree(3.0).bound(25, gradient_squared=4.0, width_squared=18.0) == 60
    assert ScaleFree(3.0, decay=False).bound(25, gradient_squared=4.0, width_squared=18.0) == 6 + 75
    assert ScaleFree(3.0, warmup=5).bound(25, gradient_squared=4.0, width_squared=18.0) == math.inf


def test_nothing_moves_without_gradients_or_room() -> None:
    for schedule in (SelfConfident(1.0), ScaleFree(1.0)):
        assert steps(schedule, [0.0, 0.0]) == [0.0, 0.0]
    assert steps(SelfConfident(0.0), [1.0]) == [0.0]
    assert SelfConfident(0.0).bound(5, gradient_squared=1.0) == 0
    assert Theory(0.0, 1.0, 5).step == Theory(1.0, 0.0, 5).step == 0


@pytest.mark.parametrize("schedule", [SelfConfident(D2), ScaleFree(1.0), ScaleFree(1.0, decay=False, warmup=3)])
def test_units_of_the_gradient_do_not_matter(schedule: Schedule) -> None:
    small, large = (play(schedule, requests("weights", 300, scale)) for scale in (1.0, 2.0**20))
    assert large / 2.0**20 == pytest.approx(small, rel=1e-9)


def test_published_rates_of_the_three_geometries() -> None:
    # Caching by mirror descent (arXiv 2101.12588): steps and bounds of gradient descent, entropy and q-norms.
    w, h, R, k, n, horizon, q = 2.0, 3, 60, 25, 1000, 5000, 1.4
    p = q / (q - 1)
    euclidean = Theory(CappedSimplex(n, k).diameter_squared, w**2 * h * R, horizon)
    assert euclidean.step == pytest.approx(math.sqrt(k * (1 - k / n) / (w**2 * h * R * horizon)))
    assert euclidean.bound() == pytest.approx(w * math.sqrt(h * R * k * (1 - k / n) * horizon))
    entropic = Theory(2 * k * math.log(n / k), k * w**2 * h**2, horizon)
    assert entropic.step == pytest.approx(math.sqrt(2 * math.log(n / k) / (w**2 * h**2 * horizon)))
    assert entropic.bound() == pytest.approx(w * h * k * math.sqrt(2 * math.log(n / k) * horizon))
    room = k ** (-2 / p) - n ** (-2 / p)
    between = Theory(k**2 * room, (w * h * (R / h) ** (1 / p)) ** 2 / (q - 1), horizon)
    assert between.step == pytest.approx(
        math.sqrt((q - 1) * k**2 * room / (w**2 * h**2 * (R / h) ** (2 / p) * horizon))
    )
    assert between.bound() == pytest.approx(w * h * k * (R / h) ** (1 / p) * math.sqrt(room * horizon / (q - 1)))
    assert 2 * QNorm(q).value(np.repeat([1.0, 0.0], [k, n - k])) == pytest.approx(k ** (2 / q))


def test_entropy_wins_on_wide_batches() -> None:
    # N = 200, k = 10, 150 different items a slot: R/h > 2 √(N k) = 89. A prototype had 508 and 400.
    n, k, wide, rounds = 200, 10, 150, 1000
    popularity = np.arange(1, n + 1) ** -0.1
    rng = np.random.default_rng(0)
    gains = np.zeros((rounds, n))
    for gain in gains:
        gain[rng.choice(n, wide, replace=False, p=popularity / popularity.sum())] = 1.0
    cache = CappedSimplex(n, k)
    euclidean = Theory(cache.diameter_squared, wide, rounds)
    entropic = Theory(2 * k * math.log(n / k), k, rounds)
    assert (round(euclidean.bound()), round(entropic.bound())) == (1194, 774)
    ours = play(euclidean, gains, cache), play(entropic, gains, cache, NegativeEntropy())
    assert ours[1] < 0.9 * ours[0]
    assert ours[0] < euclidean.bound()
    assert ours[1] < entropic.bound()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(-0.1),
        lambda: Constant(math.nan),
        lambda: Theory(-1.0, 1.0, 5),
        lambda: Theory(1.0, math.inf, 5),
        lambda: Theory(1.0, 1.0, 0),
        lambda: Doubling(-1.0, 1.0),
        lambda: SelfConfident(-1.0),
        lambda: ScaleFree(0.0),
        lambda: ScaleFree(1.0, warmup=0),
    ],
)
def test_senseless_settings_are_refused(make: Callable[[], Schedule]) -> None:
    with pytest.raises(ConfigError):
        make()
