"""The loop for fair policies: it plays slots of utilities, and keeps what certificates need.

A game can be played in parts: one that goes on from the state of the last is the same as one in a single part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.online.fairness import FairInstance, FairPolicy
from rivage.online.utilities import Seen, Utilities

__all__ = ["FairPlayed", "play_fair", "utilities_of"]


@dataclass(frozen=True, slots=True, eq=False)
class FairPlayed:
    """How a game went.

    Args:
        utilities: of every slot and agent, at the allocation that was played.
        multipliers: λ_t, the weights that the agents had in the slot.
        mean: the time-averaged allocation.
        squares: Σ ‖gradient_t‖² from the first slot of the game, what the step size adds up.
        state: of the policy, at the end.
    """

    utilities: Float64[ndarray, "slots agents"]
    multipliers: Float64[ndarray, "slots agents"]
    mean: Float64[ndarray, "n"]
    squares: float
    state: Any

    @property
    def average(self) -> Float64[ndarray, "agents"]:
        """The time-averaged utilities."""
        average: Float64[ndarray, "agents"] = self.utilities.mean(axis=0)
        return average


def play_fair(
    policy: FairPolicy,
    instance: FairInstance,
    slots: Iterable[Utilities],
    *,
    state: Any = None,
    observe: Callable[[Any, Seen], None] = lambda state, seen: None,
) -> FairPlayed:
    """Let a policy allocate.

    Args:
        policy: decides.
        instance: what is shared.
        slots: the utilities of each slot, at least one slot.
        state: where an earlier part of the game ended; None begins a new game.
        observe: called in every slot, with the state that allocates and what it saw.
    """
    state = policy.init(instance) if state is None else state
    utilities, multipliers, total = [], [], np.zeros(instance.set.dimension)
    for slot in slots:
        seen = slot.at(state.x)
        observe(state, seen)
        utilities.append(seen.values)
        multipliers.append(state.multipliers)
        total += state.x
        state = policy.update(state, seen)
    played = np.array(utilities).reshape(-1, instance.agents)
    weights = np.array(multipliers).reshape(-1, instance.agents)
    return FairPlayed(played, weights, total / max(len(played), 1), state.progress.squares, state)


def utilities_of(x: Float64[ndarray, "n"], slots: Iterable[Utilities]) -> Float64[ndarray, "slots agents"]:
    """What one fixed allocation would have given in every slot."""
    return np.array([slot.at(x).values for slot in slots])
