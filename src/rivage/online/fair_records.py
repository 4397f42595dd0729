"""What the record of a game of fair sharing holds, and how it is read again.

A trial has one event ``optimum``, what fixed allocations could have given, and an event ``point`` for every prefix at
which the meters were read. Of policies that promise something, each part of the game between two points leaves a
``part``: utilities, multipliers and the comparator's utilities of every slot, not rounded; or, where these are too
many, their `FairSums`. Tables give the same bound as sums, and say how hard the utilities were.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import StoreError
from rivage.core.records import RunRecord
from rivage.core.trial_records import TrialRecord
from rivage.core.trials import finished_trials
from rivage.online.fair_regret import FairBounded, FairSums, FairTerms
from rivage.online.fairness import AlphaFairness

__all__ = ["LARGEST_TABLE", "FairGame", "fair_games", "part_event"]

LARGEST_TABLE = 100_000
"""Numbers (slots times agents) of a table that records keep; they keep sums of larger ones."""

_ROUNDING = 1e-9  # sums are added up in another order

Table = Float64[ndarray, "slots agents"]


def part_event(
    sums: FairSums, utilities: Table, multipliers: Table, comparator: Table, first: int, whole: bool
) -> dict[str, Any]:
    """The event of a part of a game.

    Args:
        sums: over its slots.
        utilities: that were played.
        multipliers: λ_t.
        comparator: u_t(x*).
        first: slots before.
        whole: whether tables are kept.
    """
    if not whole:
        return {"event": "part", "first": first, "sums": sums.as_dict()}
    tables = {"utilities": utilities, "multipliers": multipliers, "comparator": comparator}
    return {"event": "part", "first": first, **{name: table.tolist() for name, table in tables.items()}}


@dataclass(frozen=True)
class FairGame:
    """A game that was played to its end, as its record tells it.

    Args:
        trial: the record.
    """

    trial: TrialRecord

    @property
    def promised(self) -> bool:
        """Whether the policy has a bound."""
        return self.trial.start["terms"] is not None

    @property
    def terms(self) -> FairTerms:
        """Of a game with a bound."""
        return FairTerms.from_dict(self.trial.start["terms"])

    @property
    def end(self) -> dict[str, Any]:
        """The last point."""
        return dict(self.trial.events("point")[-1])

    @property
    def optimum(self) -> dict[str, Any]:
        """What fixed allocations could have given."""
        return dict(self.trial.events("optimum")[0])

    @property
    def welfare(self) -> float:
        """Of the mean utilities, with the inequality aversion of the study."""
        start = self.trial.start
        net = np.array(self.end["utilities"]) - np.array(start["disagreement"])
        return AlphaFairness(start["judge"]).value(net)

    @property
    def sums(self) -> FairSums:
        """Over all slots.

        Raises:
            StoreError: when they are not those of the last point: a part was lost or changed.
        """
        found, end = reduce(add, map(self._sums, self.trial.events("part"))), self.end
        mean = found.utilities / found.slots + np.array(self.trial.start["disagreement"])
        if found.slots != end["slots"] or not np.allclose(mean, end["utilities"], rtol=_ROUNDING, atol=_ROUNDING):
            raise StoreError(
                "the parts of the game and its last point contradict each other",
                where=str(self.trial.folder),
                mend="The record was changed: play the study again with --fresh.",
            )
        return found

    @property
    def bounded(self) -> FairBounded:
        """The regret with the policy's own inequality aversion, and its bound."""
        return self.sums.bounded(self.terms, self.end["squares"])

    @property
    def comparator(self) -> Table | None:
        """Utilities of the best fixed allocation in every slot; None where only sums are kept."""
        parts = self.trial.events("part")
        if any("sums" in part for part in parts):
            return None
        return np.concatenate([np.array(part["comparator"], np.float64) for part in parts])

    def _sums(self, part: dict[str, Any]) -> FairSums:
        if "sums" in part:
            return FairSums.from_dict(part["sums"])
        played, weights, other = (
            np.array(part[name], np.float64) for name in ("utilities", "multipliers", "comparator")
        )
        return FairSums.of(self.terms, played, weights, other, part["first"])


def fair_games(record: RunRecord, method: str) -> list[FairGame]:
    """The games of one policy, one per seed.

    Raises:
        StoreError: when they have not been played to the end.
    """
    return [FairGame(trial) for trial in finished_trials(record, method)]
