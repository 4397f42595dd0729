"""What happens between the clients' updates and the server's `aggregate`.

A *collection* is the setting, a *collector* takes in the updates of one round. `Plain` is the collector of a trusted
server: a running weighted mean per payload entry, O(D) memory for any cohort. The mean is updated by
``mean += (w / W) (v − mean)``, so that a single update is returned bit for bit. Rules for servers that do not trust
every client are in `rivage.federated.robust`; a server that clients do not trust is in `rivage.federated.secagg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool
from numpy import ndarray

from rivage.core.messages import Payload
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Cohort, Mean, State, Update

__all__ = ["Averaged", "Collection", "Collector", "Conversing", "Plain", "Post"]


class Collector(Protocol):
    """Takes in the updates of one round.

    Attributes:
        count: updates taken in.
    """

    count: int

    def add(self, update: Update, down: State | None = None) -> None:
        """Take in one update, and what was broadcast to its client (None or empty: nothing)."""
        ...

    @property
    def refusal(self) -> str | None:
        """Why what arrived must not be aggregated: the round then leaves the server's state as it is."""
        ...

    def result(self) -> Mapping[str, Mean] | Sequence[Update]:
        """What `Algorithm.aggregate` receives; nothing when there is a `refusal`."""
        ...


@runtime_checkable
class Collection(Protocol):
    """How updates are combined, a frozen dataclass of settings."""

    def refusal(self, received: int) -> str | None:
        """Why so many updates cannot be combined; None when they can."""
        ...

    def collector(self, *, each: bool) -> Collector:
        """A new collector for one round.

        Args:
            each: hand on single updates instead of combining them.

        Raises:
            ConfigError: when the collection cannot do that.
        """
        ...


class Post(Protocol):
    """Carries the messages of a collector that has some of its own.

    Attributes:
        number: of the round.
    """

    number: int

    def say(self, client: int, kind: str, payload: Payload, *, up: bool) -> Payload:
        """Send a message from a client (``up``) or to it; what arrives."""
        ...

    def sum(self, means: Mapping[str, Mean]) -> None:
        """Note what the server read off the cohort's messages; nobody sends it."""
        ...


@runtime_checkable
class Conversing(Collector, Protocol):
    """A collector that exchanges messages of its own: single updates, and the clients' metrics, reach no server."""

    def open(
        self,
        cohort: Cohort,
        arrives: Bool[ndarray, "clients"],
        downs: Mapping[int, State | None],
        post: Post,
        streams: Streams,
    ) -> Bool[ndarray, "clients"]:
        """What is said before training.

        Args:
            cohort: that takes part.
            arrives: whose update would arrive.
            downs: what was broadcast to each.
            post: carries messages.
            streams: of this round and this collector.

        Returns:
            Whose update will arrive; the others do not train.
        """
        ...

    def fault(self, update: Update) -> str | None:
        """Why a client cannot send its update; None when it can."""
        ...

    def close(self) -> None:
        """What is said after the last update; `result` and `refusal` hold from here on."""
        ...

    def report(self) -> Mapping[str, Any]:
        """Entries of the round's event."""
        ...


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """The weighted mean: what every method expects, and what one faulty client can move anywhere."""

    def refusal(self, received: int) -> str | None:
        """Any number will do."""
        return None

    def collector(self, *, each: bool) -> Plain:
        """The plain collector."""
        return Plain(each=each)


class Plain:
    """Collects updates for `Algorithm.aggregate`.

    Args:
        each: keep single updates instead of summing.

    Attributes:
        count: updates taken in.
    """

    def __init__(self, *, each: bool) -> None:
        self._each: list[Update] | None = [] if each else None
        self._means: dict[str, Mean] = {}
        self.count = 0

    @property
    def refusal(self) -> str | None:
        """Any number of updates will do."""
        return None

    def add(self, update: Update, down: State | None = None) -> None:
        """Take in one update; call in the cohort's order, which fixes the rounding."""
        self.count += 1
        if self._each is not None:
            self._each.append(update)
            return
        for name, (vector, weight) in update.payload.items():
            self._means[name] = _fold(self._means.get(name), vector, weight)

    def result(self) -> Mapping[str, Mean] | list[Update]:
        """What `aggregate` receives."""
        return self._means if self._each is None else self._each


def _fold(so_far: Mean | None, vector: torch.Tensor, weight: float) -> Mean:
    if so_far is None:
        return Mean(vector.clone(), weight)
    total = so_far.weight + weight
    share = weight / total if total > 0 else 0.0
    return Mean(so_far.mean.lerp_(vector, share), total)
