"""The traces that a study can ask for: settings that call the generators."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.data.adversarial_requests import changing_oscillator, cyclic, oscillator, shot_oscillator
from rivage.data.request_laws import (
    check_change,
    check_roundwise,
    check_shots,
    check_sizes,
    check_zipf,
    global_change,
    partial_change,
    rolled,
    roundwise_permuted,
    shot_noise,
    zipf,
)
from rivage.data.requests import RequestTrace

__all__ = [
    "Cyclic",
    "GlobalChange",
    "Oscillator",
    "PartialChange",
    "Rolled",
    "Roundwise",
    "ShotNoise",
    "Zipf",
]


@dataclass(frozen=True, slots=True)
class Zipf:
    """Fixed popularity; the arguments are those of `zipf`."""

    items: int
    requests: int
    alpha: float = 0.8

    def __post_init__(self) -> None:
        check_zipf(self.items, self.requests, self.alpha)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace. O(N + T log N)."""
        return zipf(self.items, self.requests, self.alpha, streams.numpy("requests"))


@dataclass(frozen=True, slots=True)
class PartialChange:
    """Some items exchange ranks now and then; the arguments are those of `partial_change`."""

    items: int
    requests: int
    period: int
    alpha: float = 0.4
    fraction: float = 0.1

    def __post_init__(self) -> None:
        check_change(self.items, self.requests, self.alpha, self.period, self.fraction)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace. O(T log N + N T / period)."""
        rng = streams.numpy("requests")
        return partial_change(self.items, self.requests, self.alpha, self.period, self.fraction, rng)


@dataclass(frozen=True, slots=True)
class GlobalChange:
    """All items get new ranks now and then; the arguments are those of `global_change`."""

    items: int
    requests: int
    period: int
    alpha: float = 0.8

    def __post_init__(self) -> None:
        check_change(self.items, self.requests, self.alpha, self.period, 1.0)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace. O(T log N + N T / period)."""
        return global_change(self.items, self.requests, self.alpha, self.period, streams.numpy("requests"))


@dataclass(frozen=True, slots=True)
class Roundwise:
    """New ranks for each round of batches; the arguments are those of `roundwise_permuted`."""

    items: int
    rounds: int
    slots: int
    batch: int = 1
    alpha: float = 0.8

    def __post_init__(self) -> None:
        check_roundwise(self.items, self.rounds, self.slots, self.batch, self.alpha)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace. O(T log N + N rounds)."""
        rng = streams.numpy("requests")
        return roundwise_permuted(self.items, self.rounds, self.slots, self.batch, self.alpha, rng)


@dataclass(frozen=True, slots=True)
class Rolled:
    """Ranks that move with each quarter; the arguments are those of `rolled`."""

    items: int = 50
    requests: int = 20_000
    alpha: float = 0.6
    step: int = 5

    def __post_init__(self) -> None:
        check_zipf(self.items, self.requests, self.alpha)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace. O(N + T log N)."""
        return rolled(self.items, self.requests, self.alpha, self.step, streams.numpy("requests"))


@dataclass(frozen=True, slots=True)
class Cyclic:
    """One item after the other; the arguments are those of `cyclic`."""

    items: int
    requests: int

    def __post_init__(self) -> None:
        check_sizes(items=self.items, requests=self.requests)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace, whatever the seed. O(T)."""
        return cyclic(self.items, self.requests)


@dataclass(frozen=True, slots=True)
class ShotNoise:
    """Items with a life of their own; the arguments are those of `shot_noise`."""

    items: int = 100
    rate: float = 5.0
    volume: float = 3.0

    def __post_init__(self) -> None:
        check_shots(self.items, self.rate, self.volume)

    def build(self, streams: Streams) -> RequestTrace:
        """The trace. O(T log T)."""
        return shot_noise(self.items, streams.numpy("requests"), rate=self.rate, volume=self.volume)


@dataclass(frozen=True, slots=True)
class Oscillator:
    """The adversarial traces of the caching networks.

    Args:
        version: ``fixed`` is `oscillator`, ``changing`` is `changing_oscillator`, ``shot`` is `shot_oscillator`.
        requests: T of the fixed version, 2,000 if left out; the other two have 3,000.
    """

    version: Literal["fixed", "changing", "shot"] = "fixed"
    requests: int | None = None

    def __post_init__(self) -> None:
        if self.version not in ("fixed", "changing", "shot"):
            raise ConfigError(f'version is "{self.version}"', mend='Give "fixed", "changing" or "shot".')
        if self.requests is not None:
            check_sizes(requests=self.requests)
            if self.version != "fixed":
                raise ConfigError(
                    f'requests is {self.requests}, but version "{self.version}" has 3000',
                    mend='Remove requests, or use version "fixed".',
                )

    def build(self, streams: Streams) -> RequestTrace:
        """The trace; only ``shot`` depends on the seed. O(T)."""
        if self.version == "shot":
            return shot_oscillator(streams.numpy("requests"))
        return changing_oscillator() if self.version == "changing" else oscillator(self.requests or 2_000)
