"""The exchange of a round for one silo: what it sends goes over its arcs, and what came is summed with its weights.

Sums are taken in the order of the silos, so that they do not depend on what comes first.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from rivage.core.messages import encoded_size
from rivage.decentralized.mixing_plan import MixingPlan
from rivage.decentralized.torchdist.transport import Transport
from rivage.federated.algorithm import State
from rivage.learning.params import to_numpy

__all__ = ["Mixer", "legs_a_round", "legs_of"]


def legs_a_round(plan: MixingPlan) -> int:
    """Two through a hub, otherwise one."""
    return 1 if plan.hub is None else 2


def legs_of(plan: MixingPlan, leg: int) -> list[tuple[int, int]]:
    """The arcs of a leg."""
    round, way = divmod(leg, legs_a_round(plan))
    arcs = [(int(one), int(other)) for one, other in plan.arcs(round)]
    if plan.hub is None:
        return arcs
    half = len(arcs) // 2
    return arcs[half:] if way else arcs[:half]


class Mixer:
    """Mixes what one silo sends with what it receives.

    Args:
        plan: who sends to whom, and the weights.
        transport: over the legs of the plan, for vectors of what a round sends.
        rank: position of this silo.
    """

    def __init__(self, plan: MixingPlan, transport: Transport, rank: int) -> None:
        self._plan, self._transport, self._rank = plan, transport, rank

    def mix(self, round: int, sent: State) -> State:
        """Σ_j W_ij sent_j, entry by entry, for this silo i.

        Args:
            round: index.
            sent: of this silo, every entry ``[1, …]``.

        Raises:
            ProtocolError: naming a silo that ended.
        """
        own = flattened(sent)
        if self._plan.hub is not None:
            return _parted(self._through(self._plan.hub, round, own, sent), sent)
        vectors = {**self._transport.exchange(round, own), self._rank: own}
        weights = self._plan.weights(round)[self._rank]
        total = torch.zeros_like(own)
        for silo in sorted(vectors):
            total.add_(vectors[silo], alpha=float(weights[silo]))
        return _parted(total, sent)

    def bytes(self, round: int, sent: State) -> tuple[int, int]:
        """Over all arcs of a round: up, and down from a hub; all silos send as much."""
        size = encoded_size({name: to_numpy(values[0].contiguous()) for name, values in sent.items()})
        arcs = len(self._plan.arcs(round))
        down = arcs // 2 if self._plan.hub is not None else 0
        return size * (arcs - down), size * down

    def _through(self, hub: int, round: int, own: Float[Tensor, "length"], sent: State) -> Float[Tensor, "length"]:
        """The mean of all, which the hub takes."""
        came = self._transport.exchange(2 * round, own)
        mean = own
        if self._rank == hub:
            vectors = {**came, hub: own}
            entries = [_parted(vectors[silo], sent) for silo in sorted(vectors)]
            mean = flattened({name: torch.cat([each[name] for each in entries]).mean(dim=0) for name in sent})
        back = self._transport.exchange(2 * round + 1, mean)
        return mean if self._rank == hub else back[hub]


def flattened(sent: State) -> Float[Tensor, "length"]:
    """All entries one after the other."""
    return torch.cat([values.reshape(-1) for values in sent.values()])


def _parted(vector: Float[Tensor, "length"], like: State) -> State:
    """Entries of the shapes of others, from one vector."""
    parts = torch.split(vector, [values.numel() for values in like.values()])
    return {name: part.view_as(values) for (name, values), part in zip(like.items(), parts, strict=True)}
