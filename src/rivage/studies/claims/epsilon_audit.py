"""Statements about audits of a claimed ε: honest mechanisms are seldom accused, planted faults are found.

Canaries are planted into federated training on the digits of scikit-learn, 20 clients, 20 rounds. A larger model has
room for more canaries, which tell more.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from scipy.optimize import brentq

from rivage.core.seeding import Streams
from rivage.data import build_population
from rivage.data.partition import PARTITIONS
from rivage.data.readers import Digits
from rivage.federated.accounting import Release, epsilon_of, gaussian_epsilon
from rivage.federated.algorithm import Phase
from rivage.federated.clipped_sum import ClippedMean
from rivage.federated.dp_ftrl import DPFTRL
from rivage.federated.fedavg import FedAvg
from rivage.federated.trial import Trial
from rivage.federated.user_privacy import PrivateMean
from rivage.learning.task import TaskSettings, make_task
from rivage.privacy.canaries import CanaryClients
from rivage.privacy.epsilon_audit import claimed, proved, recorded
from rivage.privacy.epsilon_bounds import best_of_one_run, from_scores
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.claims.epsilon_faults import (
    ClippingLeftOut,
    QuarterOfTheNoise,
    QuarterOfTheTree,
    TheSameNoiseEveryRound,
)

__all__ = ["CLAIMS", "DELTA", "ROUNDS", "private_trial", "proved_by_clients"]

DELTA = 1e-5
ROUNDS = 20
_AUDITS, _ALLOWED = 100, 13  # a bound of 95 % fails more often with probability below 0.001
_NOISE = 20.0  # claims an ε of 0.82 after twenty rounds
_MANY = 2000  # canaries in a model of 4810 parameters
_SEEDS = range(3)


@cache
def private_trial(model: str = "linear") -> Trial:
    """What the canaries are planted into; its collector is still to be chosen."""
    population = build_population(Digits(), partition=PARTITIONS.get("iid")(clients=20), seed=0)
    task = make_task(TaskSettings(model=model), population.schema)
    algorithm = FedAvg(learning_rate=0.1, work=Phase(epochs=1))
    return Trial(name="private", algorithm=algorithm, population=population, task=task, rounds=ROUNDS)


def proved_by_clients(collector: PrivateMean, seed: int, canaries: int = 600, model: str = "linear") -> float:
    """The ε that canary clients prove."""
    trial = replace(private_trial(model), collector=collector)
    return proved(recorded(CanaryClients(canaries, Streams(seed)).scored(trial), delta=DELTA))


def _claimed(noise: float, rounds: int = ROUNDS) -> float:
    return epsilon_of([Release(noise, 1.0, rounds)], DELTA)


def _honest(gaussian: bool) -> Outcome:
    """The largest number of accusations in a hundred audits of an exact Gaussian mechanism, over ε = 1, 2, 4."""
    generator, accused, mean = np.random.default_rng(0), [], []
    for epsilon in (1.0, 2.0, 4.0):
        mu = brentq(lambda mu, e=epsilon: gaussian_epsilon(mu, DELTA) - e, 0.01, 10)
        bounds = [
            from_scores(generator.normal(mu, 1, 2000), generator.normal(0, 1, 2000), delta=DELTA, gaussian=gaussian)
            for _ in range(_AUDITS)
        ]
        accused.append(sum(bound > epsilon for bound in bounds))
        mean.append(float(np.mean(bounds)))
    detail = f"accused {accused} of {_AUDITS}, mean bounds {', '.join(f'{bound:.2f}' for bound in mean)} at 1, 2, 4"
    good = max(accused) <= _ALLOWED and min(mean[1:]) > 0
    return Outcome(max(accused), "holds" if good else "fails", detail)


def _one_run() -> Outcome:
    """The smallest bound from 1000 coins behind Gaussian noise with μ = 2."""
    generator, bounds = np.random.default_rng(0), []
    for _ in _SEEDS:
        inside = generator.random(1000) < 0.5
        scores = 2.0 * inside + generator.normal(size=1000)
        bounds.append(best_of_one_run(scores, inside, each=(25, 50, 100, 200), delta=DELTA))
    limit = gaussian_epsilon(2.0, DELTA)
    detail = f"{', '.join(f'{bound:.2f}' for bound in bounds)}; the mechanism spends {limit:.2f}"
    return Outcome(min(bounds), "holds" if min(bounds) >= 2.0 and max(bounds) <= limit else "fails", detail)


def _fault(faulty: ClippedMean, honest: ClippedMean, **cohorts: Any) -> Outcome:
    """The smallest bound over seeds; the same audit of the honest mechanism must not accuse it."""
    trial = replace(private_trial("mlp"), collector=honest, **cohorts)
    evidence = [
        [recorded(CanaryClients(_MANY, Streams(seed)).scored(replace(trial, collector=collector)), delta=DELTA)
         for seed in _SEEDS]
        for collector in (faulty, honest)
    ]  # fmt: skip
    found, others = ([proved(each) for each in audits] for audits in evidence)
    claim = claimed(evidence[1][0])
    good = min(found) > claim >= max(others)
    detail = f"claimed {claim:.2f}; proved {_listed(found)}; of the honest mechanism {_listed(others)}"
    return Outcome(min(found), "holds" if good else "fails", detail)


def _reset() -> Outcome:
    """Twenty rounds that spend 1 each, told as 1."""
    noise = brentq(lambda z: _claimed(z, rounds=1) - 1.0, 1, 20)
    bounds = [proved_by_clients(PrivateMean(noise=noise), seed, canaries=_MANY, model="mlp") for seed in _SEEDS]
    whole = _claimed(noise)
    good = min(bounds) > 1.0 and max(bounds) <= whole
    detail = f"told 1.00, spent {whole:.2f}; proved {_listed(bounds)}"
    return Outcome(min(bounds), "holds" if good else "fails", detail)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


_HONEST, _TURNS = PrivateMean(noise=_NOISE), {"cohort": 10, "sampling": "epochs"}
_FAULTS: dict[str, tuple[str, partial[Outcome]]] = {
    "a-quarter-of-the-noise": (
        "A quarter of the claimed noise is found out by canary clients.",
        partial(_fault, QuarterOfTheNoise(noise=_NOISE), _HONEST),
    ),
    "a-quarter-of-the-noise-of-a-tree": (
        "A quarter of the claimed noise on prefix sums is found out by canary clients, in ten epochs of two rounds.",
        partial(_fault, QuarterOfTheTree(noise=_NOISE), DPFTRL(noise=_NOISE), **_TURNS),
    ),
    "clipping-left-out": (
        "Clipping that is left out is found out by canary clients.",
        partial(_fault, ClippingLeftOut(noise=_NOISE), _HONEST),
    ),
    "the-same-noise-every-round": (
        "Noise from one seed in every round is found out by canary clients, in differences of successive rounds.",
        partial(_fault, TheSameNoiseEveryRound(noise=_NOISE), _HONEST),
    ),
}


def _statement(name: str, where: str, statement: str, expected: str, run: partial[Outcome]) -> Claim:
    return Claim(
        name=f"audit-{name}",
        paper="own measurement",
        where=where,
        statement=statement,
        expected=expected,
        tolerance=0.0,
        cost="quick",
        run=run,
    )


CLAIMS = (
    *(
        _statement(
            f"honest-{form}",
            f"exact Gaussian mechanism, 2000 + 2000 scores, {form} bound of 95 %",
            "Bounds on epsilon from many runs seldom accuse a mechanism that keeps its promise.",
            f"at most {_ALLOWED} of {_AUDITS} accusations at each of epsilon 1, 2, 4; positive bounds from 2 on",
            partial(_honest, form == "gaussian"),
        )
        for form in ("general", "gaussian")
    ),
    _statement(
        "one-run-proves-2-of-10",
        "1000 canaries behind Gaussian noise, mu = 2, Bonferroni over four numbers of guesses",
        "One run with 1000 canaries proves an epsilon of 2 of a mechanism that spends 10.",
        "at least 2, at most what is spent",
        partial(_one_run),
    ),
    *(
        _statement(
            f"finds-{name}",
            "digits, 20 clients, an MLP, noise 20, 2000 canaries, bound of 99 %",
            statement,
            "the bound is above the claim, and not for the honest mechanism",
            run,
        )
        for name, (statement, run) in _FAULTS.items()
    ),
    _statement(
        "finds-a-budget-that-begins-anew",
        "digits, 20 clients, 20 rounds that spend 1 each, claim 1; MLP with 2000 canaries",
        "A budget that is told for one round and spent in twenty is found out by canary clients.",
        "the bound is above 1",
        partial(_reset),
    ),
)
