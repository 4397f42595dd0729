"""Canary updates: what local noise promises to a single message, measured on the messages themselves.

The relation is to *replace* all that a client has. In round k a canary that is in sends the broadcast plus
(−1)^k L u_c, one that is out minus that, L longer than any norm that passes the clipping. With m_k the difference to
the broadcast as it leaves the client, its score is Σ_k (−1)^k ⟨u_c, m_k⟩. Directions, coins and bounds are those of
`rivage.privacy.canaries`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rivage.core.messages import Message
from rivage.federated.checkpoint import Notebook
from rivage.federated.engine import Session
from rivage.federated.trial import Trial
from rivage.privacy.canaries import CanaryClients, Scored, ledger, planted, sign

__all__ = ["CanaryUpdates"]


@dataclass(frozen=True)
class CanaryUpdates:
    """Plants clients whose own messages are read.

    Args:
        canaries: who they are.
    """

    canaries: CanaryClients

    def scored(self, trial: Trial) -> Scored:
        """Play the trial with the canaries in it, and score them. Time: that of the trial and O(canaries · rounds · D).

        Raises:
            ConfigError: for more canaries than parameters.
        """
        first, count = trial.population.size, self.canaries.count
        larger = planted(trial, self.canaries, opposed=True)
        reader = _Reader(self.canaries, first, trial.task.dimension)
        with Session(larger, reader) as session:
            for _event in session:
                pass
        return Scored(reader.scores[:, None], self.canaries.inside, ledger(trial, reader, range(first, first + count)))


class _Reader(Notebook):
    """Scores the canaries' updates as they pass; stages have made them differences to the broadcast."""

    def __init__(self, canaries: CanaryClients, first: int, dimension: int) -> None:
        super().__init__(keep_messages=True)
        self.canaries, self.first, self.dimension = canaries, first, dimension
        self.scores = np.zeros(canaries.count)

    def message(self, message: Message) -> None:
        """Read an update; keep nothing."""
        if message.kind != "update":
            return
        canary = int(message.sender.removeprefix("client:")) - self.first
        if canary >= 0:
            direction = self.canaries.direction(canary, self.dimension)
            self.scores[canary] += sign(message.round) * float(direction @ message.payload["params"])
