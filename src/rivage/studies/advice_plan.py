"""How much can be compared in the time there is: a trial of each method, then the largest plan that fits.

The plan is decided by a clock, unless its rounds are given. Everything after it depends on the plan alone, which the
study that is written holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rivage.core.errors import ConfigError, RivageError
from rivage.federated.engine import run
from rivage.studies.settings import Study
from rivage.studies.stage import Stage
from rivage.studies.study_tables import Method
from rivage.studies.tuning_grid import candidates
from rivage.studies.tuning_settings import Tuning

__all__ = ["PLANS", "Cost", "Plan", "choose_plan", "measure"]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared.

    Args:
        rounds: of every trial.
        budget: settings tried for each method.
        seeds: of the comparison.
    """

    rounds: int
    budget: int
    seeds: int

    def tuning(self, tuning: Tuning) -> Tuning:
        """The same learning rates within the budget; all of them at least."""
        return replace(tuning, budget=max(self.budget, len(tuning.learning_rates)))

    @classmethod
    def of(cls, rounds: int) -> Plan:
        """So many rounds, with the budget and seeds of the nearest plan below."""
        return replace(next((plan for plan in PLANS if plan.rounds <= rounds), PLANS[-1]), rounds=rounds)


PLANS = (Plan(100, 8, 5), Plan(60, 8, 5), Plan(40, 8, 3), Plan(25, 6, 3), Plan(15, 6, 3))
"""From the best to the least that can still say something."""

_PATIENCE = 3
"""Times the minutes that the least plan may seem to take and is played all the same: a busy machine seems slow."""

_LENGTHS = (1, 5)
"""Rounds of the trials that are timed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds that a method takes.

    Args:
        trial: once, the evaluation among it.
        round: in every round; of Local, in every epoch.
    """

    trial: float
    round: float


def measure(stage: Stage, *, timed: bool = True) -> tuple[dict[str, Cost], dict[str, str]]:
    """What each method costs on these data, by two short trials, and why those that cannot be played cannot.

    Args:
        stage: of the study whose methods are to be compared.
        timed: False tries only whether they can be played; costs are 0 then.
    """
    costs, reasons = {}, {}
    for method in stage.study.methods:
        if not hasattr(method.algorithm, "learning_rate"):
            continue
        try:
            _seconds(stage, method, 1)  # the first one compiles and reads
            costs[method.name] = _cost(stage, method) if timed else Cost(0.0, 0.0)
        except RivageError as error:
            reasons[method.name] = str(error)
    return costs, reasons


def _cost(stage: Stage, method: Method) -> Cost:
    """The quicker of two trials of each length: other programs only slow one down."""
    short, long = (min(_seconds(stage, method, rounds) for _ in range(2)) for rounds in _LENGTHS)
    each = max(long - short, 0.0) / (_LENGTHS[1] - _LENGTHS[0])
    return Cost(max(short - each, 0.0), each)


def _seconds(stage: Stage, method: Method, rounds: int) -> float:
    algorithm: Any = method.algorithm
    if hasattr(algorithm, "epochs"):
        algorithm = replace(algorithm, epochs=rounds)
    trial = replace(stage.trial(method.name, method), algorithm=algorithm, rounds=rounds, every=rounds)
    started = time.perf_counter()
    run(trial, keep=0)
    return time.perf_counter() - started


def seconds(study: Study, costs: Mapping[str, Cost], plan: Plan, tuning: Tuning) -> float:
    """What a plan takes."""
    total = 0.0
    for method in study.methods:
        if method.name not in costs:
            continue
        cost = costs[method.name]
        tried = candidates(method, plan.tuning(tuning), 0)
        lengths = [values.get("epochs", plan.rounds) for values in tried]
        total += sum(cost.trial + cost.round * length for length in lengths)
        total += plan.seeds * (cost.trial + cost.round * max(lengths))
    return total


def choose_plan(study: Study, costs: Mapping[str, Cost], tuning: Tuning, minutes: float) -> tuple[Plan, float]:
    """The first of `PLANS` that fits, and the seconds that it should take; the last, where that is not far too long.

    Raises:
        ConfigError: when none fits by far.
    """
    needs = [seconds(study, costs, plan, tuning) for plan in PLANS]
    for plan, need in zip(PLANS, needs, strict=True):
        if need <= 60 * minutes:
            return plan, need
    if needs[-1] <= 60 * minutes * _PATIENCE:
        return PLANS[-1], needs[-1]
    raise ConfigError(
        f"the smallest comparison takes about {needs[-1] / 60:.2g} minutes on this machine",
        where="--minutes",
        mend=f"Give --minutes {int(1.3 * needs[-1] / 60) + 1}, or fewer clients, or a smaller model; or try again when "
        "the machine is less busy.",
    )
