"""INFIDA as its nodes would run it: a policy of agents that know their own block and talk by messages.

Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on Networking
32(1), 2024, arXiv 2105.02510. It does what `rivage.inference.infida` does, message by message, and so is slower; it
shows what lost and late messages cost. Messages and agents stand in `rivage.inference.messages`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.inference.infida import INFIDA
from rivage.inference.instance import Instance
from rivage.inference.messages import Agent, Fate, Message, agents_of, exchange
from rivage.inference.policy import Seen

__all__ = ["InfidaByMessages", "MessageState"]


@dataclass(slots=True, eq=False)
class MessageState:
    """Agents and their mail.

    Args:
        agents: one for each node.
        random: of the fate of messages.
        late: what comes in the next slot.
        clock: slots so far.
        messages: sent so far.
        numbers: in them.
    """

    agents: list[Agent]
    random: np.random.Generator
    late: tuple[tuple[int, Message], ...] = ()
    clock: int = 0
    messages: int = 0
    numbers: int = 0


@dataclass(frozen=True, kw_only=True)
class InfidaByMessages:
    """INFIDA as its nodes would run it.

    Args:
        policy: settings of every node.
        lost: chance that a message between nodes never comes, in [0, 1).
        late: chance that it comes a slot later, in [0, 1).
        patience: slots after which an answer no longer counts, >= 1.
    """

    reference: ClassVar[str] = "sisalem24"

    policy: INFIDA = field(default_factory=INFIDA)
    lost: float = 0.0
    late: float = 0.0
    patience: int = 1

    def __post_init__(self) -> None:
        require(self.lost, "lost", least=0.0)
        require(self.late, "late", least=0.0)
        require(self.patience, "patience", least=1)
        if self.policy.candidates > 1:
            raise ConfigError("no node sees what candidates would have gained", mend="Set candidates to 1.")
        if self.lost + self.late >= 1:
            raise ConfigError(f"lost {self.lost:g} and late {self.late:g}: nothing arrives", mend="Give a sum below 1.")

    def init(self, instance: Instance, streams: Streams, *, slots: int | None = None) -> MessageState:
        """Agents that know their own part."""
        agents = agents_of(self.policy, instance, streams, slots=slots, patience=self.patience)
        return MessageState(agents, streams.numpy("messages"))

    def act(self, state: MessageState) -> Bool[ndarray, "nodes models"]:
        """What each node has loaded."""
        return np.array([agent.loaded for agent in state.agents])

    def fractions(self, state: MessageState) -> Float64[ndarray, "nodes models"]:
        """What it was drawn from."""
        return np.array([agent.drawn for agent in state.agents])

    def iterate(self, state: MessageState) -> Float64[ndarray, "nodes models"]:
        """The fractions now."""
        return np.array([agent.y for agent in state.agents])

    def bound(self, state: MessageState) -> float | None:
        """As INFIDA's, of all nodes together; None where messages may not come, or models stay while fractions move."""
        if self.lost or self.late or self.policy.refresh > 1 or self.policy.stretch > 1:
            return None
        return sum(self.policy.bound(agent.state) for agent in state.agents if agent.state is not None)

    def factor(self, state: MessageState) -> float:
        """As INFIDA's."""
        return min((self.policy.factor(agent.state) for agent in state.agents if agent.state is not None), default=1.0)

    def update(self, state: MessageState, seen: Seen) -> MessageState:
        """Messages, and a step of every node."""
        state.clock += 1
        mail = exchange(state.agents, state.clock, seen.slot, late=state.late, fate=lambda _: self._fate(state.random))
        for agent in state.agents:
            agent.step(state.clock)
        state.late = mail.late
        state.messages += mail.messages
        state.numbers += mail.numbers
        return state

    def _fate(self, random: np.random.Generator) -> Fate:
        if not self.lost and not self.late:
            return "now"
        drawn = random.random()
        return "never" if drawn < self.lost else "late" if drawn < self.lost + self.late else "now"
