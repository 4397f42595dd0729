"""Carries what silos send in a round: mixes it, counts its bytes on every arc, and logs it where asked.

What a silo sends to all its out-neighbours is the same, one ``broadcast``, and stored once. Over a star every silo but
the hub sends an ``update`` to the hub, which broadcasts the means: bytes up and down. Otherwise all bytes are up: every
one is counted once, at its sender.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.messages import Message, Payload, encoded_size
from rivage.decentralized.gossip import State
from rivage.decentralized.mixing_plan import MixingPlan
from rivage.federated.checkpoint import Journal
from rivage.learning.params import to_numpy

__all__ = ["Exchange"]


class Exchange:
    """The messages of one round.

    Args:
        plan: who sends to whom, and the weights.
        journal: where messages go.
        silos: the clients that the silos are, in the order of the plan.
        round: index.
        begun_s: simulated time at which each silo began the round, noted with its messages.

    Attributes:
        bytes_up: over all arcs, of a star over those to the hub.
        bytes_down: over the arcs from the hub of a star.
    """

    def __init__(
        self,
        plan: MixingPlan,
        journal: Journal,
        silos: Sequence[int],
        round: int,
        begun_s: Float64[ndarray, "silos"],
    ) -> None:
        self.plan, self.journal, self.silos, self.round, self.begun_s = plan, journal, silos, round, begun_s
        self.bytes_up = self.bytes_down = 0

    def mix(self, sent: State) -> State:
        """The sums of all silos, stacked as what they sent."""
        sums = {name: self._sum(values) for name, values in sent.items()}
        size = encoded_size(_payload(sent, 0))
        arcs = self.plan.arcs(self.round).tolist()
        down = len(arcs) // 2 if self.plan.hub is not None else 0
        self.bytes_up, self.bytes_down = size * (len(arcs) - down), size * down
        if self.journal.logs:
            self._log(sent, sums, arcs)
        return sums

    def _sum(self, values: Tensor) -> Tensor:
        if self.plan.hub is not None:
            return values.mean(dim=0, keepdim=True).expand_as(values)
        weights = torch.as_tensor(self.plan.weights(self.round), dtype=values.dtype, device=values.device)
        return (weights @ values.flatten(1)).view_as(values)

    def _log(self, sent: State, sums: State, arcs: Sequence[Sequence[int]]) -> None:
        payloads: dict[int, Payload] = {}
        hub = self.plan.hub
        for sender, receiver in sorted(arcs, key=lambda arc: (arc[0] == hub, arc)):
            if sender not in payloads:
                payloads[sender] = _payload(sums if sender == hub else sent, sender)
            self.journal.message(
                Message(
                    round=self.round,
                    sender=f"client:{self.silos[sender]}",
                    receiver=f"client:{self.silos[receiver]}",
                    kind="update" if receiver == hub else "broadcast",
                    payload=payloads[sender],
                    time=float(self.begun_s[sender]),
                )
            )


def _payload(state: State, silo: int) -> Payload:
    return {name: to_numpy(values[silo].contiguous()) for name, values in state.items()}
