"""Guesses of the next requests, for optimistic policies.

A prediction says how often each item will be asked for in the next slot. It may be anything: policies that use it keep
a bound on their regret in any case, and the bound shrinks with the error. A new one is a frozen dataclass with three
methods, see `Prediction`, and a line in `PREDICTIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.online.policy import CacheInstance

__all__ = ["PREDICTIONS", "LastSlot", "Nothing", "Oracle", "Prediction", "Recent", "Successor"]

PREDICTIONS = Registry(
    "rivage.predictions",
    "prediction",
    {
        "last": "rivage.online.predictions:LastSlot",
        "nothing": "rivage.online.predictions:Nothing",
        "recent": "rivage.online.predictions:Recent",
        "successor": "rivage.online.predictions:Successor",
    },
)
"""Kind -> settings of a prediction; plug-ins register theirs under the entry-point group of the same name."""

Guess = Float64[ndarray, "items"]


@runtime_checkable
class Prediction(Protocol):
    """Foresees the requests of the next slot."""

    def init(self, instance: CacheInstance, streams: Streams) -> Any:
        """Its memory before the first slot."""
        ...

    def predict(self, memory: Any) -> Guess:
        """How often each item will be asked for in the next slot; called once before every slot."""
        ...

    def learn(self, memory: Any, requests: Int64[ndarray, "batch"]) -> None:
        """Take in the requests of a slot."""
        ...


@dataclass(slots=True)
class _Seen:
    """Requests so far, as far as a prediction needs them.

    Args:
        guess: of the next slot.
        last: requests of the last slot, or of a window.
        follows: the request that came a slot after the last one for each item, or −1.
    """

    guess: Guess
    last: Int64[ndarray, "n"]
    follows: Int64[ndarray, "items"]

    @classmethod
    def nothing(cls, instance: CacheInstance) -> _Seen:
        return cls(np.zeros(instance.items), np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """No request at all: the optimistic policy becomes the plain one."""

    def init(self, instance: CacheInstance, streams: Streams) -> _Seen:
        """Its memory before the first slot."""
        return _Seen.nothing(instance)

    def predict(self, memory: _Seen) -> Guess:
        """Zeros."""
        return memory.guess

    def learn(self, memory: _Seen, requests: Int64[ndarray, "batch"]) -> None:
        """Forget."""


@dataclass(frozen=True, kw_only=True)
class LastSlot:
    """The same requests again."""

    def init(self, instance: CacheInstance, streams: Streams) -> _Seen:
        """Its memory before the first slot."""
        return _Seen.nothing(instance)

    def predict(self, memory: _Seen) -> Guess:
        """Those of the last slot."""
        return memory.guess

    def learn(self, memory: _Seen, requests: Int64[ndarray, "batch"]) -> None:
        """Keep them."""
        memory.guess = np.bincount(requests, minlength=len(memory.guess)).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Recent:
    """Popularity as it was lately: R times the share of each item among the last requests.

    Args:
        window: how many requests count, W >= 1.
    """

    window: int = 1000

    def __post_init__(self) -> None:
        require(self.window, "window", least=1)

    def init(self, instance: CacheInstance, streams: Streams) -> _Seen:
        """Its memory before the first slot."""
        return _Seen.nothing(instance)

    def predict(self, memory: _Seen) -> Guess:
        """Shares of the window."""
        return memory.guess

    def learn(self, memory: _Seen, requests: Int64[ndarray, "batch"]) -> None:
        """Move the window on."""
        memory.last = np.concatenate([memory.last, requests])[-self.window :]
        counts = np.bincount(memory.last, minlength=len(memory.guess))
        memory.guess = counts * (len(requests) / len(memory.last))


@dataclass(frozen=True, kw_only=True)
class Successor:
    """What followed last time: after item i, at the same distance of R requests, the item that then came (Markov)."""

    def init(self, instance: CacheInstance, streams: Streams) -> _Seen:
        """Its memory before the first slot."""
        return _Seen(np.zeros(instance.items), np.empty(0, np.int64), np.full(instance.items, -1, np.int64))

    def predict(self, memory: _Seen) -> Guess:
        """The followers of the requests of the last slot."""
        return memory.guess

    def learn(self, memory: _Seen, requests: Int64[ndarray, "batch"]) -> None:
        """Note who followed whom."""
        if len(memory.last):
            memory.follows[memory.last] = requests
        memory.last = requests
        coming = memory.follows[requests]
        memory.guess = np.bincount(coming[coming >= 0], minlength=len(memory.guess)).astype(np.float64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Oracle:
    """The truth, mostly; for experiments.

    Args:
        requests: that will come, all of them.
        accuracy: probability that a predicted request is the true one; otherwise it is any item, uniformly.
    """

    requests: Int64[ndarray, "horizon"]
    accuracy: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.accuracy <= 1:
            raise ConfigError(f"accuracy is {self.accuracy}", mend="Give a probability.")

    def init(self, instance: CacheInstance, streams: Streams) -> _Seen:
        """All guesses are made at once."""
        random = streams.numpy("oracle")
        wrong = random.random(len(self.requests)) >= self.accuracy
        guesses = np.where(wrong, random.integers(instance.items, size=len(self.requests)), self.requests)
        memory = _Seen(np.zeros(instance.items), guesses, np.zeros(1, np.int64))
        memory.guess = np.bincount(guesses[: instance.batch], minlength=instance.items).astype(np.float64)
        return memory

    def predict(self, memory: _Seen) -> Guess:
        """Of the next slot."""
        return memory.guess

    def learn(self, memory: _Seen, requests: Int64[ndarray, "batch"]) -> None:
        """Move on."""
        memory.follows[0] += len(requests)
        coming = memory.last[memory.follows[0] :][: len(requests)]
        memory.guess = np.bincount(coming, minlength=len(memory.guess)).astype(np.float64)
