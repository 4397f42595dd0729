"""What all decentralised algorithms are told: step, overlay, what silos count for; and those that take one gradient."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from rivage.core.errors import require, require_one_of
from rivage.core.settings import OneOf
from rivage.decentralized.designers import DESIGNERS, Designer, Ring
from rivage.decentralized.gossip import BatchKind, CountBy, one_step
from rivage.federated.algorithm import Phase

__all__ = ["GossipSettings", "OneGradient"]


@dataclass(frozen=True, kw_only=True)
class GossipSettings:
    """Settings that every decentralised algorithm has.

    Args:
        learning_rate: step size η, > 0.
        overlay: who sends to whom.
        count_by: what silos count for: the same each (``silos``), or by their training ``records``.
    """

    learning_rate: float = 0.1
    overlay: Annotated[Designer, OneOf(DESIGNERS)] = field(default_factory=Ring)
    count_by: CountBy = "silos"

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require_one_of(self.count_by, "count_by", ("silos", "records"))


@dataclass(frozen=True, kw_only=True)
class OneGradient(GossipSettings):
    """Settings of algorithms that take one mini-batch gradient a round.

    Args:
        batch_size: records in a gradient, >= 1; ``"all"`` takes all of a silo.
        batches: ``shuffle``, ``poisson`` or ``endless``, as in ``[work]``.
    """

    batch_size: int | None = field(default=32, metadata={"none": "all"})
    batches: BatchKind = "shuffle"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.work  # which refuses batches that there are none of

    @property
    def work(self) -> Phase:
        """One mini-batch."""
        return one_step(self.batch_size, self.batches)
