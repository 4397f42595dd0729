"""Studies of one cache, table ``[cache]``: which requests, which capacities, which policies, judged how often.

The tables of the trace and of the policies are the registered classes themselves, so that adding one adds its settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from rivage.core.errors import ConfigError, require
from rivage.core.registry import Registry
from rivage.core.settings import OneOf, combine
from rivage.data.requests import REQUESTS
from rivage.online.registry import POLICIES
from rivage.studies.games.study import Competitor, GameRun, require_game

if TYPE_CHECKING:
    from rivage.online.policy import Policy
else:  # resolved when a study is read: policies are compiled
    Policy = Any

__all__ = ["Cache", "Play", "PlayRun", "Player"]

_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """The cache that is to be filled.

    Args:
        capacity: items that it holds, or a share of the trace's items such as ``"5%"``, rounded down; a list asks how
            much cache to buy. The first one is what the headline speaks of.
        costs: of fetching an item: ``none`` counts hits, ``trace`` takes the column ``cost`` of the requests, anything
            else is a CSV file with the columns ``item`` and ``cost``.
        horizon: whether policies are told how many requests will come.
    """

    capacity: int | str | tuple[int | str, ...]
    costs: str = "none"
    horizon: Literal["known", "unknown"] = "known"

    def __post_init__(self) -> None:
        if not self._listed:
            raise ConfigError("capacity is []", mend='Give one or several, such as 100 or "5%".')
        for given in self._listed:
            share = None if isinstance(given, int) else _SHARE.fullmatch(given)
            if isinstance(given, int):
                require(given, "capacity", least=1)
            elif share is None or not 0 < float(share[1]) < 100:
                raise ConfigError(f'capacity is "{given}"', mend='Give a number of items, or a share such as "5%".')
        if not self.costs.strip():
            raise ConfigError('costs is ""', mend='Give "none", "trace", or the path of a CSV file.')

    @property
    def _listed(self) -> tuple[int | str, ...]:
        return self.capacity if isinstance(self.capacity, tuple) else (self.capacity,)

    def capacities(self, items: int) -> tuple[int, ...]:
        """The numbers of items, each once, in the order in which they are given.

        Args:
            items: of the trace, N.

        Raises:
            ConfigError: naming those that are not between 1 and N − 1.
        """
        found = {given: _resolved(given, items) for given in self._listed}
        if problems := [fault for given, count in found.items() for fault in _unfit(given, count, items)]:
            raise combine(problems)
        return tuple(dict.fromkeys(found.values()))


def _resolved(given: int | str, items: int) -> int:
    if isinstance(given, int):
        return given
    share = _SHARE.fullmatch(given)
    assert share is not None, "checked when the settings were read"
    return math.floor(float(share[1]) * items / 100 * (1 + 1e-12))


def _unfit(given: int | str, count: int, items: int) -> Iterator[ConfigError]:
    if count < 1:
        yield ConfigError(
            f"capacity {given} of {items:,} items is less than one item",
            where="[cache] capacity",
            mend=f"Give at least 1, which is {math.ceil(100 / items)}% here.",
        )
    if count >= items:
        mend = f"Give at most {items - 1}." if items > 1 else "Give a trace of several items."
        yield ConfigError(
            f"capacity is {given}, but the trace has only {items:,} {'items' if items > 1 else 'item'}: all would fit, "
            "there is nothing to decide",
            where="[cache] capacity",
            mend=mend,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Player(Competitor):
    """A caching policy in a study.

    Args:
        name: what it is called in this study; its kind when left out.
        policy: the policy with its settings.
    """

    registry: ClassVar[Registry] = POLICIES
    policy: Annotated[Policy, OneOf(POLICIES)] = field(metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayRun(GameRun):
    """From which seeds, and how often the meters are read.

    Args:
        seeds: one trial of every policy and capacity for each, distinct, 0 <= seed < 2**64.
        points: how often the meters are read, evenly over the requests, >= 1.
        window: requests after which a second yardstick may change its fixed set, >= 1; left out, there is none.
        block: requests that are read and played at once, >= 1.
    """

    window: int | None = None
    block: int = 2**16

    def __post_init__(self) -> None:
        GameRun.__post_init__(self)  # dataclasses with slots have no zero-argument super()
        require(self.block, "block", least=1)
        if self.window is not None:
            require(self.window, "window", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Play:
    """A comparison of policies on the same requests, capacities and seeds.

    Args:
        name: what the run folder is called after.
        trace: the requests.
        cache: what is to be filled.
        policies: the competitors, at least one.
        run: seeds and meters.
    """

    game: ClassVar[str] = "cache"

    name: str
    trace: Annotated[Any, OneOf(REQUESTS)]
    cache: Cache
    policies: tuple[Player, ...]
    run: PlayRun = field(default_factory=PlayRun)

    def __post_init__(self) -> None:
        require_game(self.name, [each.name for each in self.policies])
