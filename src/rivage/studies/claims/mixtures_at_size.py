"""FedEM on the published synthetic setting at its full size: 300 clients, 150 features, 5,000 test records each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from rivage.data.mixture_clients import MixtureOnDemand
from rivage.federated.algorithm import Phase
from rivage.federated.fedem import FedEM
from rivage.federated.finetuned import FineTuned
from rivage.studies.claims.claim import Claim, Outcome
from rivage.studies.claims.mixtures import (
    PAPER,
    drawn,
    mean_and_decile,
    mixture_trial,
    recovered,
    true_accuracy,
    verdict,
)
from rivage.studies.starts import Played, best_start, judge, play

__all__ = ["CLAIMS", "large_line", "large_row"]

_RECALLED = "recalled from the published table, unverified: FedEM 0.747, FedAvg+ 0.689"
_LARGE = MixtureOnDemand()
_LARGE_RATE, _LARGE_WORK = 4.0, Phase(updates=5, batch_size=128)
_RATES = (0.25, 1.0, 4.0)  # of FedAvg, and of its fine-tuning


@dataclass(frozen=True, slots=True)
class Large:
    """One data seed of the published size; accuracies are (mean, bottom decile)."""

    cosine: float
    distance: float
    fedem: tuple[float, float]
    tuned: tuple[float, float]
    rates: tuple[float, float]
    true: tuple[float, float]

    @property
    def slack(self) -> float:
        """How far the tighter criterion is from its bound; negative where it is missed."""
        return min(self.fedem[0] - self.true[0] + 0.03, self.fedem[0] - self.tuned[0] - 0.05)


@cache
def large_row(seed: int, law: MixtureOnDemand = _LARGE, rounds: int = 100, starts: int = 3) -> Large:
    """FedEM, the best start by training likelihood, beside the true predictor and FedAvg+ tuned on validation data.

    All see the same four fifths of the training records; the last fifth is there to choose the rates of FedAvg+.
    """
    population, ids = drawn(law, seed, validation=0.2), list(range(law.clients))
    kept = best_start(
        mixture_trial(FedEM(learning_rate=_LARGE_RATE, work=_LARGE_WORK), population, rounds, seed), starts
    )
    found = recovered(kept, population, ids)
    rates, tuned = _tuned_rates(law, seed, rounds)
    return Large(
        cosine=float(found.cosines.min()),
        distance=float(found.distances.mean()),
        fedem=mean_and_decile(judge(kept, ids)["test"]),
        tuned=mean_and_decile(judge(replace(tuned, trial=replace(tuned.trial, population=population)), ids)["test"]),
        rates=rates,
        true=mean_and_decile(true_accuracy(population, ids)),
    )


def _tuned_rates(law: MixtureOnDemand, seed: int, rounds: int) -> tuple[tuple[float, float], Played]:
    """The learning rate of FedAvg, and of one epoch of fine-tuning, with the best mean validation accuracy."""
    untested = drawn(replace(law, test_records=1), seed, validation=0.2)  # validation does not depend on tests
    found: list[tuple[float, tuple[float, float], Played]] = []
    for rate in _RATES:
        method = FineTuned(learning_rate=rate, work=_LARGE_WORK, tuning=Phase(batch_size=128))
        played = play(mixture_trial(method, untested, rounds, seed))
        for tuning_rate in _RATES:
            algorithm = replace(method, tuning_rate=tuning_rate)
            chosen = replace(played, trial=replace(played.trial, algorithm=algorithm))
            accuracies = judge(chosen, range(law.clients))["validation"]
            found.append((float(np.mean(accuracies)), (rate, tuning_rate), chosen))
    _, rates, best = max(found, key=lambda one: one[0])
    return rates, best


def large_line(seed: int, row: Large) -> str:
    """A seed in words."""
    return (
        f"seed {seed}: FedEM {row.fedem[0]:.3f} / {row.fedem[1]:.3f}, true {row.true[0]:.3f} / {row.true[1]:.3f}, "
        f"FedAvg+ {row.tuned[0]:.3f} / {row.tuned[1]:.3f} at rates {row.rates[0]:g} and {row.rates[1]:g}, "
        f"cosine {row.cosine:.4f}, total variation {row.distance:.3f}"
    )


def _published_size() -> Outcome:
    rows = {seed: large_row(seed) for seed in (0, 1, 2)}
    lines = [large_line(seed, row) for seed, row in rows.items()]
    return verdict([row.slack for row in rows.values()], [*lines, _RECALLED])


CLAIMS: tuple[Claim, ...] = (
    Claim(
        name="fedem-on-300-clients",
        paper=PAPER,
        where="synthetic setting: 300 clients, 150 features, alpha 0.4, 5,000 test records each; three data seeds, "
        "best of 3 starts; 100 rounds of 5 steps",
        statement="FedEM is within 0.03 of the true predictor and at least 5 points above FedAvg+ whose rates were "
        "chosen on validation records, on every seed.",
        expected="slack of at least 0",
        tolerance=0.0,
        cost="slow",
        run=_published_size,
    ),
)
