"""What means of clipped updates with noise of the server have in common, see `rivage.federated.user_privacy`.

With Δ_u the difference of client u's update to the broadcast, w_u = min(n_u / cap, 1) and S the clip,

    Δ = ( Σ_u w_u Δ_u min(1, S/‖Δ_u‖) + noise ) / m ,

where m is fixed: the expected sum of weights, not the one that arrived. A round in which nobody takes part releases its
noise too, so that it looks like any other. Cost: one vector in float64 per round.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Mean, State, Update

__all__ = ["ClippedMean", "ClippedSum", "Moment", "require_inside"]


@dataclass(frozen=True, slots=True)
class Moment:
    """When a sum is taken.

    Args:
        round: from 0.
        rounds: of the whole training.
        epoch: rounds in which a client takes part at most once; None where nothing keeps it from more.
        streams: of this round and the collection.
        throughout: streams of the collection that are the same in all rounds.
    """

    round: int
    rounds: int
    epoch: int | None
    streams: Streams
    throughout: Streams


@dataclass(frozen=True, kw_only=True)
class ClippedMean(ABC):
    """The noisy mean of clipped updates.

    Args:
        noise: multiplier z of the clip, > 0.
        clip: largest norm S of an update, > 0.
        cap: records from which on a client has weight 1, > 0; None gives every client weight 1.
        denominator: m, > 0; None takes the expected number of clients in a round.
        delta: δ at which ε is told, in (0, 1).
    """

    needs_epochs: ClassVar[bool] = False
    """Whether the promise holds only for clients that take part at most once in an epoch."""

    noise: float = 1.0
    clip: float = 1.0
    cap: float | None = field(default=None, metadata={"none": "off"})
    denominator: float | None = field(default=None, metadata={"none": "auto"})
    delta: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("noise", "clip"):
            require(getattr(self, name), name, above=0)
        for name in ("cap", "denominator"):
            if (value := getattr(self, name)) is not None:
                require(value, name, above=0)
        require_inside(self.delta, "delta")

    def refusal(self, received: int) -> str | None:
        """Any number will do, 0 too."""
        return None

    @abstractmethod
    def summed(self) -> ClippedSum:
        """The sum of one round."""

    def collector(self, *, each: bool) -> ClippedSum:
        """The collector of one round.

        Raises:
            ConfigError: for methods that want single updates.
        """
        if each:
            raise ConfigError(
                "the method wants single updates, but the noise is on their sum",
                mend="Take another method or collector.",
            )
        return self.summed()

    def promise(self) -> dict[str, Any]:
        """What record and message log say of it, but for who takes part."""
        return {
            "unit": "user",
            "protects": "what leaves the server in all rounds",
            "noise_multiplier": self.noise,
            "clip": self.clip,
            "delta": self.delta,
            "not_covered": [
                "single updates, which server and links see",
                "whether training stopped for want of a usable update",
                "set-up messages",
                "evaluations",
                "choice of settings on the same data",
            ],
        }


class ClippedSum(ABC):
    """Adds up clipped updates, and noise.

    Args:
        settings: of the collection.

    Attributes:
        count: updates taken in; what it hands on is aggregated also when there were none.
    """

    def __init__(self, settings: ClippedMean) -> None:
        self.settings, self.count = settings, 0

    def begin(self, entry: str, state: State, expected: float, moment: Moment) -> None:
        """Before the first update.

        Args:
            entry: the one payload entry, broadcast under the same name.
            state: of the server.
            expected: number of clients.
            moment: when this is.
        """
        self.entry, self.base, self.expected, self.moment = entry, state[entry], expected, moment
        self.clip = self.settings.clip
        self._sum = torch.zeros_like(self.base, dtype=torch.float64)

    @property
    def refusal(self) -> str | None:
        """Any number of updates will do."""
        return None

    def add(self, update: Update, down: State | None = None) -> None:
        """Take in one update: its norm is bounded before its weight counts."""
        vector, records = update.payload[self.entry]
        change = (vector - self.base).double()
        norm = float(torch.linalg.vector_norm(change))
        weight = 1.0 if self.settings.cap is None else min(records / self.settings.cap, 1.0)
        self._sum += weight * min(1.0, self.clip / max(norm, 1e-300)) * change
        self.count += 1
        self.measured(norm)

    def measured(self, norm: float) -> None:
        """Told of the norm of every update before it is clipped."""
        return

    @abstractmethod
    def noise(self) -> Float64[ndarray, "dim"]:
        """What is added to the sum."""

    def result(self) -> Mapping[str, Mean]:
        """The noisy mean; its weight is the denominator."""
        total = self._sum + torch.from_numpy(np.asarray(self.noise())).to(self._sum.device)
        denominator = self.settings.denominator or self.expected
        return {self.entry: Mean((self.base.double() + total / denominator).to(self.base.dtype), denominator)}

    def carried(self) -> State:
        """What the server's state holds until the next round."""
        return {}

    def report(self) -> dict[str, Any]:
        """For the round's event."""
        return {}


def require_inside(value: float, name: str) -> None:
    """Refuse a setting outside (0, 1).

    Raises:
        ConfigError: naming the value.
    """
    if not 0 < value < 1:
        raise ConfigError(f"{name} is {value}", mend="Give a number above 0 and below 1.")
