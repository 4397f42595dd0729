"""What training has cost after each round, and what methods have reached when they have spent the same.

A method that sends three models a round is three times as dear as one that sends one: after equal rounds it has had a
larger budget. Bytes are those of all messages in both directions, the set-up included, of all clients together. A value
at a budget is that of the last evaluation that the budget covers: nothing is read between two evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

if TYPE_CHECKING:
    from rivage.core.records import RunRecord
    from rivage.core.trial_records import TrialRecord

__all__ = ["Covered", "Spent", "budgets", "covered", "gradients", "spent", "training_clients"]

_EXACT = 1 + 1e-9  # a budget covers itself, whatever rounding says


@dataclass(frozen=True, slots=True)
class Spent:
    """What a trial has spent after each number of rounds; entry 0 is the set-up.

    Args:
        size: of all messages in both directions, each counted once, bytes.
        gradients: records differentiated by all clients together; None where the record does not count them.
    """

    size: Float64[ndarray, "rounds_and_one"]
    gradients: Float64[ndarray, "rounds_and_one"] | None

    def after(self, rounds: int) -> int:
        """Position of so many rounds; a trial composed of others has spent everything in its set-up."""
        return min(rounds, len(self.size) - 1)


@dataclass(frozen=True, slots=True)
class Covered:
    """The last evaluation that a budget covers.

    Args:
        event: of the clients seen in training.
        size: bytes spent until then.
        gradients: records differentiated in training until then; None where unknown.
    """

    event: Mapping[str, Any]
    size: float
    gradients: float | None


def spent(trial: TrialRecord) -> Spent:
    """Sums over the set-up and the rounds of a trial. O(rounds)."""
    rounds = {int(event["round"]): event for event in trial.events("round")}
    played = [rounds.get(number, {}) for number in range(max(rounds, default=-1) + 1)]
    setup = sum(_size(event) for event in trial.events("setup"))
    known = bool(played) and all("gradients" in event for event in rounds.values())
    return Spent(
        np.cumsum([setup, *map(_size, played)], dtype=np.float64),
        np.cumsum([0, *(event.get("gradients", 0) for event in played)], dtype=np.float64) if known else None,
    )


def _size(event: Mapping[str, Any]) -> float:
    return float(event.get("bytes_up", 0) + event.get("bytes_down", 0))


def training_clients(trial: TrialRecord) -> int:
    """Clients among which the cost is shared: all but those kept apart; at least 1."""
    population = trial.start.get("population", {})
    return max(int(population.get("size", 1)) - len(population.get("unseen", ())), 1)


def budgets(record: RunRecord) -> dict[int, float]:
    """Seed -> the bytes at which methods are compared; seeds where at least two methods send.

    That is what the cheapest method has spent in all, of those for whose bytes every method gets at least one
    evaluation: a method that sends once in ten rounds alone would leave the others nothing to be judged by. Only
    methods that play rounds count. Local is none, even where all clients had to agree on a scaling first.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    for trial in record.trials:
        size = spent(trial).size
        if len(size) > 1 and size[-1] > 0 and trial.kind != "local":
            found.setdefault(trial.seed, []).append((float(size[-1]), _first(trial)))
    least = {seed: max(first for _, first in costs) for seed, costs in found.items() if len(costs) > 1}
    return {seed: min(total for total, _ in found[seed] if total * _EXACT >= first) for seed, first in least.items()}


def _first(trial: TrialRecord) -> float:
    """Bytes until the first evaluation; 0 where there is none yet."""
    cost = spent(trial)
    rounds = [int(event["round"]) for event in trial.events("evaluation") if event["group"] == "seen"]
    return float(cost.size[cost.after(min(rounds))]) if rounds else 0.0


def covered(trial: TrialRecord, budget: float) -> Covered | None:
    """What a trial had reached with a budget; None when its first evaluation already costs more.

    Args:
        trial: whose evaluations of seen clients are asked.
        budget: bytes, of all clients together.
    """
    cost = spent(trial)
    for event in reversed(trial.events("evaluation")):
        place = cost.after(int(event["round"]))
        if event["group"] == "seen" and cost.size[place] <= budget * _EXACT:
            taken = None if cost.gradients is None else float(cost.gradients[place])
            return Covered(event, float(cost.size[place]), taken)
    return None


def gradients(record: RunRecord, trial: TrialRecord) -> float | None:
    """Records differentiated for the last models of a trial: in its rounds, and to adapt the models of seen clients.

    A method that chooses among others needs all of theirs. None where the record does not count.
    """
    if choices := trial.events("choice"):
        names = set(choices[-1].get("among", ())) - {trial.method}
        parts = [gradients(record, t) for t in record.trials if t.seed == trial.seed and t.method in names]
        return math.fsum(part for part in parts if part is not None) if parts and None not in parts else None
    rounds, event = spent(trial).gradients, trial.final("seen")
    adapted = None if event is None else event.get("gradients")
    if rounds is None and adapted is None:
        return None
    return (0.0 if rounds is None else float(rounds[-1])) + float(sum(adapted or ()))
