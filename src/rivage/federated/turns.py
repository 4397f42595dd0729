"""Turns: each client may take part in one round of every epoch, and no list of who has been is kept.

An epoch has L rounds. A keyed permutation π of the clients, another one in every epoch, puts client c on place π⁻¹(c),
and its turn is round π⁻¹(c) mod L of the epoch. Whoever is away then waits for the next epoch. The turns depend on
nothing but the seed, so that any number of clients costs nothing and an interrupted run goes on with the same ones.

Where many are away a shorter epoch gives the server more clients to ask than it wants, so that it still finds its
cohort among them; clients then have more turns.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientIds
from rivage.federated.permutation import Permutation

__all__ = ["Turns", "period", "require_epoch"]


@dataclass(frozen=True, slots=True)
class Turns:
    """Who may take part when.

    Args:
        size: number of clients.
        epoch: rounds L in which everyone has one turn, >= 1.
        streams: of the trial.
        unseen: clients that never have one, ascending.
    """

    size: int
    epoch: int
    streams: Streams
    unseen: ClientIds = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        require(self.epoch, "epoch", least=1)

    def count(self, round: int) -> int:
        """How many have their turn in this round."""
        return max(0, -(-(self._trainable - round % self.epoch) // self.epoch))

    def called(self, places: Int64[ndarray, "m"], round: int) -> ClientIds:
        """Those at these places of the `count` in the round's order, which is pseudo-random. O(m)."""
        ranks = self._order(round)(round % self.epoch + self.epoch * np.asarray(places, np.int64))
        before = self.unseen - np.arange(len(self.unseen))  # ranks of those who come after the unseen ones, each
        ids: ClientIds = ranks + np.searchsorted(before, ranks, side="right")
        return ids

    def due(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Whether it is their turn; never that of somebody unseen or unknown. O(m)."""
        known = (ids >= 0) & (ids < self.size) & ~np.isin(ids, self.unseen)
        ranks = ids[known] - np.searchsorted(self.unseen, ids[known])
        mine = known.copy()
        mine[known] = self._order(round).inverse(ranks) % self.epoch == round % self.epoch
        return mine

    @property
    def _trainable(self) -> int:
        return self.size - len(self.unseen)

    def _order(self, round: int) -> Permutation:
        return Permutation(max(1, self._trainable), self.streams.child("epoch", round // self.epoch).seed("turns"))


def period(sampling: str, epoch: int | None, cohort: int | None, clients: int) -> int | None:
    """Rounds of an epoch; None without turns.

    Args:
        sampling: ``epochs``, or another.
        epoch: that was asked for; None takes what cohorts need to take in everyone once.
        cohort: clients per round.
        clients: who may train.
    """
    if sampling != "epochs":
        return None
    return epoch or -(-max(clients, 1) // (cohort or 1))


def require_epoch(sampling: str, epoch: int | None, cohort: int | None) -> None:
    """Refuse an epoch that nothing asks for, and epochs of which nothing tells the length.

    Raises:
        ConfigError: for either.
    """
    if epoch is not None:
        if not isinstance(epoch, int) or isinstance(epoch, bool):
            raise ConfigError(f"epoch is {epoch}", mend="Give a whole number of rounds.")
        require(epoch, "epoch", least=1)
        if sampling != "epochs":
            raise ConfigError(f"epoch is {epoch}, but sampling is {sampling}", mend='Set sampling = "epochs".')
    elif sampling == "epochs" and cohort is None:
        raise ConfigError(
            "clients have turns, but neither cohort nor epoch tells how many",
            mend="Set cohort to the clients per round, or epoch to the rounds of an epoch.",
        )
