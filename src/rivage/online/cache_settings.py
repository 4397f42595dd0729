"""What a no-regret cache is told at its beginning, and what follows from that: steps, bounds, memory.

The equations and where they come from stand in `rivage.online.no_regret_cache`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require, require_one_of
from rivage.online import no_regret_memory as words

__all__ = ["CacheSettings", "whole"]

_NEVER = 2**62


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Settings of `rivage.online.no_regret_cache.NoRegretCache`, where they are explained.

    Args:
        capacity: C.
        horizon: T, or None when unknown.
        scale: multiple of the step that the bound asks for.
        start: ``fill`` or ``empty``.
        hard: never cache more than ``capacity`` keys.
        compare: count requests by key.
        max_bytes: never hold more, or None.
        seed: of the permanent numbers.

    Raises:
        ConfigError: for values of other types, and out of range.
    """

    capacity: int
    horizon: int | None = None
    scale: float = 1.0
    start: Literal["fill", "empty"] = "fill"
    hard: bool = False
    compare: bool = False
    max_bytes: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("capacity", "horizon", "max_bytes", "seed"):
            given = getattr(self, name)
            if given is not None or name in ("capacity", "seed"):
                least, bits = (0, 64) if name == "seed" else (1, 62)
                object.__setattr__(self, name, whole(given, name, least=least, bits=bits))
        if not _is_real(self.scale):
            raise ConfigError(f"scale is {self.scale!r}", mend="Give a number greater than 0.")
        require(self.scale, "scale", above=0)
        object.__setattr__(self, "scale", float(self.scale))
        require_one_of(self.start, "start", ("fill", "empty"))
        for name in ("hard", "compare"):
            given = getattr(self, name)
            if not isinstance(given, bool | np.bool_):
                raise ConfigError(f"{name} is {given!r}", mend="Give True or False.")
            object.__setattr__(self, name, bool(given))

    @property
    def distance(self) -> float:
        """D², how far the best corner may be from the state once the cache is full."""
        return float(self.capacity * (2 if self.start == "fill" else 1))

    @property
    def step(self) -> float:
        """η; without a horizon what is divided by √t."""
        return self.scale * math.sqrt(self.capacity if self.horizon is None else self.distance / self.horizon)

    def regret_bound(self, requests: int) -> float:
        """What the expected regret after so many requests cannot exceed."""
        filling = float(self.capacity) if self.start == "fill" else 0.0
        if self.horizon is None:
            steps = math.sqrt(self.capacity * requests) * (1 / self.scale + self.scale)
            return steps + filling * max(1 - self.scale, 0.0)
        return filling + self.distance / (2 * self.step) + self.step * requests / 2

    @property
    def fine(self) -> int:
        """Requests up to which the first wheels are fine enough: without a horizon steps shrink."""
        return min(max(4 * self.capacity, 4096), _NEVER) if self.horizon is None else _NEVER

    def bits(self, requests: int) -> int:
        """Of wheels that are fine enough up to so many requests."""
        return words.bits_for(self.capacity, self.step / (math.sqrt(requests) if self.horizon is None else 1))

    def memory(self, slots: int, bits: int) -> Int64[ndarray, "words"]:
        """An empty cache; see `rivage.online.no_regret_memory.make_memory`."""
        memory = words.make_memory(
            slots,
            bits,
            target=float(self.capacity),
            step=self.step,
            limit=self.capacity if self.hard else _NEVER,
            seed=self.seed,
            anytime=self.horizon is None,
            fills=self.start == "fill",
            counts=self.compare,
        )
        memory[words.FINE] = self.fine
        return memory


def whole(value: Any, name: str, *, least: int = 0, bits: int = 62) -> int:
    """A whole number as Python's: those of NumPy, which JSON has no place for, and floats such as 1e6 are some too.

    Raises:
        ConfigError: for anything else, and out of the range from ``least`` up to 2^bits − 1.
    """
    if not _is_real(value) or not least <= value < 2**bits or value != int(value):
        raise ConfigError(f"{name} is {value!r}", mend=f"Give a whole number from {least} to 2**{bits} - 1.")
    return int(value)


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
