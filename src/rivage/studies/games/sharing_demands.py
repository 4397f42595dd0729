"""Who wants what, slot by slot: the kinds of the table ``[demand]`` of studies of fair sharing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from rivage.core.errors import ConfigError, RivageError, require
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.studies.games.sharing_files import Wanted, read_demands

if TYPE_CHECKING:
    from rivage.studies.claims.fairness_instances import Game

__all__ = ["DEMANDS", "Alternating", "FileDemand", "SharedCaches", "Stationary"]

DEMANDS = Registry(
    "rivage.share_demands",
    "kind of demand",
    {
        "alternating": "rivage.studies.games.sharing_demands:Alternating",
        "file": "rivage.studies.games.sharing_demands:FileDemand",
        "stationary": "rivage.studies.games.sharing_demands:Stationary",
        "virtual_caches": "rivage.studies.games.sharing_demands:SharedCaches",
    },
)
"""Kind -> settings; plug-ins register theirs, with ``drawn`` and ``wanted``, under the group of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDemand:
    """A CSV or Parquet file with one line for every slot and agent.

    Columns: ``slot``, whole numbers, played in their order; ``agent``; and where there are ``weight`` (1), ``demand``
    (no limit) and ``scale`` (1), all >= 0. Who is not listed in a slot wants nothing in it.

    Args:
        path: of the file.
        utility: ``capped`` is weight · min(work, demand), ``log`` is weight · ln(1 + work/scale).
    """

    drawn: ClassVar[bool] = False

    path: Path
    utility: Literal["capped", "log"] = "capped"

    def wanted(self, streams: Streams) -> Wanted:
        """Read it."""
        try:
            return read_demands(self.path, self.utility)
        except RivageError as error:
            raise error.at("[demand]") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stationary:
    """Independent demands, uniform around a mean.

    Args:
        means: agent -> mean demand > 0.
        slots: how many, >= 1.
        spread: demands lie in mean · [1 − spread, 1 + spread], in [0, 1].
    """

    drawn: ClassVar[bool] = True

    means: Mapping[str, float]
    slots: int = 1000
    spread: float = 0.5

    def __post_init__(self) -> None:
        require(self.slots, "slots", least=1)
        for agent, mean in self.means.items():
            require(mean, f"mean of {agent}", above=0.0)
        if not self.means:
            raise ConfigError("means is empty", mend="Name at least one agent.")
        if not 0 <= self.spread <= 1:
            raise ConfigError(f"spread is {self.spread}", mend="Give a number from 0 to 1.")

    def wanted(self, streams: Streams) -> Wanted:
        """Draw them."""
        factors = streams.numpy("demand").uniform(1 - self.spread, 1 + self.spread, (self.slots, len(self.means)))
        demands = factors * np.array([*self.means.values()])
        return Wanted(tuple(self.means), np.ones(demands.shape), demands, "capped", "stationary")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternating:
    """The publication's adversary, for demands: two agents want the same over the horizon, one of them in turns.

    Blocks of ``high`` and of ``low`` demand follow each other for the agent ``turns``; ``mixed`` has the same demands
    in random order. Whoever is fair in every slot is not fair to both.

    Args:
        slots: how many, two blocks or more.
        block: slots of a block, >= 1.
        high: demand of the first block, > low.
        low: demand of the second one, >= 0.
    """

    drawn: ClassVar[bool] = True

    slots: int = 2000
    block: int = 50
    high: float = 1.0
    low: float = 0.1

    def __post_init__(self) -> None:
        require(self.block, "block", least=1)
        require(self.slots, "slots", least=2 * self.block)
        require(self.low, "low", least=0.0)
        require(self.high, "high", above=self.low)

    def wanted(self, streams: Streams) -> Wanted:
        """Draw them."""
        turns = np.where(np.arange(self.slots) // self.block % 2, self.low, self.high)
        demands = np.stack([streams.numpy("demand").permutation(turns), turns], axis=1)
        return Wanted(("mixed", "turns"), np.ones(demands.shape), demands, "capped", "alternating")


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedCaches:
    """The publication's application: agents whose users share a network of caches, on its networks and requests.

    The budget is what the caches of the network hold. Networks and requests are those of the published code, and the
    same for all seeds; so are the utilities' units.

    Args:
        instance: ``cycle`` under the adversary, or ``tree``, ``grid``, ``abilene``, ``geant`` with stationary requests.
        slots: how many, >= 2.
        batch: requests of a slot, >= 1; slots · batch must be a multiple of 100, two blocks of the adversary.
    """

    drawn: ClassVar[bool] = False

    instance: Literal["cycle", "tree", "grid", "abilene", "geant"] = "cycle"
    slots: int = 5000
    batch: int = 50

    def __post_init__(self) -> None:
        require(self.slots, "slots", least=2)
        require(self.batch, "batch", least=1)
        if self.slots * self.batch % 100:
            raise ConfigError(
                f"{self.slots} slots of {self.batch} are {self.slots * self.batch} requests",
                mend="Give a multiple of 100, two blocks.",
            )

    def game(self) -> Game:
        """The network and its requests."""
        from rivage.studies.claims.fairness_instances import alternating_game, stationary_game

        if self.instance == "cycle":
            return alternating_game(self.slots, self.batch)
        return stationary_game(self.instance, self.slots, self.batch)
