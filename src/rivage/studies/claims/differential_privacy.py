"""What noise costs: three ways to protect training on digits at equal ε, and accountants against reference values.

A linear model on digits. Records of 10 clients are protected by DP-SGD on the devices; 100 clients of 11 records or so,
of whom about half take part in a round, by the noise of a trusted server or by noise of their own. All promise ε at
δ = 10⁻⁵ for the whole training of 30 rounds; the ε are those of the accountant, of clients that take part in every
round where sampling does not count. Step sizes and clips are the same for all ε.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from rivage.core.errors import MissingExtra
from rivage.data import build_population
from rivage.data.partition import IID
from rivage.data.readers import Digits
from rivage.federated.accounting import Accountant, Release, epsilon_of, noise_for
from rivage.federated.algorithm import Phase
from rivage.federated.clipping import Clip
from rivage.federated.engine import run
from rivage.federated.fedavg import FedAvg
from rivage.federated.local_noise import GaussianNoise
from rivage.federated.record_privacy import sampling_rate
from rivage.federated.trial import Trial
from rivage.federated.user_privacy import PrivateMean
from rivage.learning.task import TaskSettings, make_task
from rivage.studies.claims.claim import Claim, Outcome

__all__ = ["CLAIMS", "DELTA", "ROUNDS", "Way", "accuracy", "clipped_accuracy"]

Way = Literal["records", "server", "clients"]

DELTA, ROUNDS = 1e-5, 30
_USERS, _COHORT, _CLIP = 100, 50, 1.0
_SEEDS = range(3)


@cache
def _population(clients: int, seed: int) -> Any:
    return build_population(Digits(), partition=IID(clients=clients), seed=seed)


def _played(clients: int, seed: int, algorithm: FedAvg, **more: Any) -> float:
    population = _population(clients, seed)
    task = make_task(TaskSettings(model="linear"), population.schema)
    trial = Trial(
        name="claim",
        algorithm=algorithm,
        population=population,
        task=task,
        rounds=ROUNDS,
        every=ROUNDS,
        seed=seed,
        **more,
    )
    columns = run(trial).seen.columns
    return float(np.average(columns["test"], weights=columns["test_size"]))


def accuracy(way: Way, epsilon: float | None, seed: int) -> float:
    """Test accuracy after training under ε; None trains without noise, and without clip.

    Args:
        way: DP-SGD on records, a server's noise on clients, or clients' own noise.
        epsilon: for the whole training.
        seed: of everything.
    """
    if way == "records":
        return _records(epsilon, seed)
    work = FedAvg(learning_rate=0.1, work=Phase(epochs=1, batch_size=10))
    cohort = {"cohort": _COHORT, "sampling": "poisson"}
    if epsilon is None:
        return _played(_USERS, seed, work, **cohort)
    if way == "server":
        noise = noise_for(epsilon, DELTA, sampling=_COHORT / _USERS, steps=ROUNDS)
        return _played(_USERS, seed, work, **cohort, collector=PrivateMean(noise=noise, clip=_CLIP))
    deviation = 2 * _CLIP * noise_for(epsilon, DELTA, steps=ROUNDS)
    return _played(_USERS, seed, work, **cohort, stages=(Clip(norm=_CLIP), GaussianNoise(deviation=deviation)))


def _records(epsilon: float | None, seed: int) -> float:
    phase = Phase(epochs=1, batch_size=32, batches="poisson", denominator="expected")
    if epsilon is None:
        return _played(10, seed, FedAvg(learning_rate=0.5, work=phase))
    population = _population(10, seed)
    sizes = [len(population.client(client).train) for client in range(10)]
    least, steps = min(sizes), ROUNDS * -(-max(sizes) // 32)
    noise = noise_for(epsilon, DELTA, sampling=sampling_rate(phase, least), steps=steps)
    private = Phase(epochs=1, batch_size=32, batches="poisson", denominator="expected", clip=_CLIP, noise=noise)
    return _played(10, seed, FedAvg(learning_rate=0.5, work=private))


def clipped_accuracy(clip: float, seed: int, *, adaptive: bool = False, noise: float = 0.5) -> float:
    """Test accuracy under a server's noise with this clip, or starting from it."""
    work = FedAvg(learning_rate=0.1, work=Phase(epochs=1, batch_size=10))
    collector = PrivateMean(noise=noise, clip=clip, adaptive=adaptive)
    return _played(_USERS, seed, work, cohort=_COHORT, sampling="poisson", collector=collector)


_TABLE: Sequence[tuple[float, float, int, float, float]] = (
    (1.0, 0.01, 1000, 2.1014, 1.8282),
    (1.1, 256 / 60000, 14062, 2.5966, 2.3817),
    (4.0, 1.0, 20, 5.3777, 4.9833),
    (1.0, 1.0, 1, 4.7285, 4.3772),
)
"""Noise, sampling rate, steps, and ε at δ = 10⁻⁵ by Rényi divergences and by the privacy loss distribution."""


def _references() -> Outcome:
    try:
        kinds: tuple[Accountant, ...] = ("rdp", "pld")
        found = [{kind: epsilon_of([Release(*row[:3])], DELTA, kind) for kind in kinds} for row in _TABLE]
    except MissingExtra as reason:
        return Outcome(None, "not tested", str(reason))
    rdp = max(abs(each["rdp"] - row[3]) for each, row in zip(found, _TABLE, strict=True))
    pld = max(abs(each["pld"] - row[4]) for each, row in zip(found, _TABLE, strict=True))
    exact = max(abs(epsilon_of([Release(*row[:3])], DELTA, "exact") - row[4]) for row in _TABLE if row[1] == 1)
    detail = f"largest distance {rdp:.1e} (RDP), {pld:.1e} (PLD), {exact:.1e} (exact, full batches)"
    return Outcome(max(rdp, pld, exact), "holds" if rdp <= 1e-3 and pld <= 1e-2 and exact <= 1e-3 else "fails", detail)


_FIXED = (0.1, 0.3, 1.0, 3.0, 10.0)


def _adaptive() -> Outcome:
    fixed = {clip: float(np.mean([clipped_accuracy(clip, seed) for seed in _SEEDS])) for clip in _FIXED}
    found = float(np.mean([clipped_accuracy(0.1, seed, adaptive=True) for seed in _SEEDS]))
    best = max(fixed.values())
    told = ", ".join(f"{clip:g}: {value:.3f}" for clip, value in fixed.items())
    detail = f"adaptive, from 0.1: {found:.3f}; fixed {told}; 3 seeds"
    return Outcome(found - best, "holds" if found >= best - 0.02 else "fails", detail)


def _ways() -> Outcome:
    try:
        ways: tuple[Way, ...] = ("records", "server", "clients")
        means = {
            way: [float(np.mean([accuracy(way, epsilon, seed) for seed in _SEEDS])) for epsilon in (1.0, 8.0, None)]
            for way in ways
        }
    except MissingExtra as reason:
        return Outcome(None, "not tested", str(reason))
    told = "; ".join(f"{way} {one:.3f}, {eight:.3f}, {free:.3f}" for way, (one, eight, free) in means.items())
    gap = means["server"][1] - means["clients"][1]
    rises = all(one <= eight <= free + 0.01 for one, eight, free in means.values())
    detail = f"accuracy at epsilon 1, 8 and without noise: {told}; 3 seeds"
    return Outcome(gap, "holds" if gap >= 0.3 and rises else "fails", detail)


CLAIMS = (
    Claim(
        name="privacy-accountants",
        paper="dong22",
        where="Corollary 1; dp-accounting 0.6.0",
        statement="Our accountants give the epsilon of sampled and of full Gaussian noise that dp-accounting gives, "
        "and for full batches the exact one.",
        expected=0.0,
        tolerance=1e-2,
        cost="quick",
        run=_references,
    ),
    Claim(
        name="privacy-adaptive-clip",
        paper="andrew21",
        where="abstract",
        statement="Clipping at the median of the clients' norms does as well as the best fixed clip chosen in "
        "hindsight (digits, 100 clients, noise 0.5).",
        expected="at least -0.02",
        tolerance=0.0,
        cost="slow",
        run=_adaptive,
    ),
    Claim(
        name="privacy-trusted-server",
        paper="mcmahan18",
        where="own figures",
        statement="At epsilon 8 clients that trust no server lose far more accuracy by their own noise than by that "
        "of a trusted one, and every way gets better with epsilon (digits).",
        expected="at least 0.3",
        tolerance=0.0,
        cost="slow",
        run=_ways,
    ),
)
