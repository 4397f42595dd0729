"""Studies of networks of caches, table ``[network]``: nodes and links, what each node keeps, who serves, who asks.

Nodes are named as the network names them. A whole number is a name where all names are whole numbers, and a position
from 0 on where they are not, or where there are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from rivage.core.errors import ConfigError
from rivage.core.registry import Registry
from rivage.core.settings import OneOf, combine
from rivage.data.requests import REQUESTS
from rivage.online.registry import NETWORK_POLICIES
from rivage.studies.games.network_topologies import TOPOLOGIES
from rivage.studies.games.study import Competitor, GameRun, require_game

if TYPE_CHECKING:
    from rivage.online.cache_networks import NetworkPolicy
else:  # resolved when a study is read: policies are compiled
    NetworkPolicy = Any

__all__ = ["NetworkPlay", "NetworkPlayer", "NetworkTable", "Node"]

Node = str | int
"""How a study names a node."""

_RANGE = re.compile(r"(\d+) ?[-–] ?(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkTable:
    """The network that is to be filled.

    Args:
        topology: its nodes and links.
        weights: cost of a response over each link: ``given`` is what the network says, 1 where it says nothing; one
            number stands for all; of two, ``[1, 1000]``, they are the ends of a range from which each is drawn.
        capacities: items that each node keeps: one number for all, a list in the order of the nodes, a table from names
            to numbers, in which others keep nothing, or a range such as ``"1-5"`` from which each is drawn.
        servers: the node where items are served for good; of a list, one is drawn for each item, and ``random`` draws
            among all nodes; a name that ends in ``.csv`` is that of a file with the columns ``item`` and ``server``.
        origins: where requests enter: ``trace`` takes the column ``origin``; of a list of nodes, one is drawn for each
            request; a number is that of nodes, which are drawn too.
        horizon: whether policies are told how many requests will come.
    """

    topology: Annotated[Any, OneOf(TOPOLOGIES)] = field(metadata={"flat": True})
    weights: Literal["given"] | float | tuple[float, float] = "given"
    capacities: int | str | tuple[int, ...] | Mapping[str, int]
    servers: Node | tuple[Node, ...] = "random"
    origins: Node | tuple[Node, ...] = "trace"
    horizon: Literal["known", "unknown"] = "known"

    def __post_init__(self) -> None:
        problems = [*self._weights(), *self._capacities(), *self._places()]
        if problems:
            raise combine(problems)

    def _weights(self) -> Iterator[ConfigError]:
        if self.weights == "given":
            return
        low, high = self.weights if isinstance(self.weights, tuple) else (self.weights, self.weights)
        assert not isinstance(low, str), "the only text is refused by its type"
        if not 0 <= low <= high < float("inf"):
            shown = list(self.weights) if isinstance(self.weights, tuple) else self.weights
            mend = "Give a finite number of at least 0, or the two ends of a range, the lower one first."
            yield ConfigError(f"weights is {shown}", mend=mend)

    def _capacities(self) -> Iterator[ConfigError]:
        given = self.capacities
        if isinstance(given, str):
            found = _RANGE.fullmatch(given)
            if found is None or int(found[1]) > int(found[2]):
                mend = 'Give a number, a list, a table, or a range such as "1-5".'
                yield ConfigError(f'capacities is "{given}"', mend=mend)
            return
        named = given.items() if isinstance(given, Mapping) else [("", each) for each in _listed(given)]
        for name, count in named:
            if count < 0:
                at = f" of {name}" if name else ""
                yield ConfigError(f"capacity{at} is {count}", mend="Give numbers of items, at least 0.")
        if not named:
            yield ConfigError("capacities is empty", mend="Give a number of items for at least one node.")

    def _places(self) -> Iterator[ConfigError]:
        if self.servers == ():
            yield ConfigError("servers is []: nobody serves", mend='Give at least one node, or "random".')
        if self.origins == ():
            yield ConfigError("origins is []: nobody asks", mend='Give at least one node, or "trace".')
        if isinstance(self.origins, int) and self.origins < 1:
            mend = "Give the number of nodes where requests enter, at least 1; one node in brackets."
            yield ConfigError(f"origins is {self.origins}", mend=mend)

    @property
    def serving_file(self) -> Path | None:
        """The file that says who serves what; None where the study says it."""
        given = self.servers
        return Path(given) if isinstance(given, str) and given.lower().endswith(".csv") else None

    @property
    def capacity_range(self) -> tuple[int, int] | None:
        """The ends of the range that capacities are drawn from; None where they are given."""
        found = _RANGE.fullmatch(self.capacities) if isinstance(self.capacities, str) else None
        return None if found is None else (int(found[1]), int(found[2]))


def _listed(given: Any) -> tuple[Any, ...]:
    return given if isinstance(given, tuple) else (given,)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlayer(Competitor):
    """A policy of a network of caches in a study.

    Args:
        name: what it is called in this study; its kind when left out.
        policy: the policy with its settings.
    """

    registry: ClassVar[Registry] = NETWORK_POLICIES
    policy: Annotated[NetworkPolicy, OneOf(NETWORK_POLICIES)] = field(metadata={"flat": True})


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkPlay:
    """A comparison of policies on the same network, requests and seeds.

    Args:
        name: what the run folder is called after.
        trace: the requests.
        network: what is to be filled.
        policies: the competitors, at least one.
        run: seeds and meters.
    """

    game: ClassVar[str] = "network"

    name: str
    trace: Annotated[Any, OneOf(REQUESTS)]
    network: NetworkTable
    policies: tuple[NetworkPlayer, ...]
    run: GameRun = field(default_factory=GameRun)

    def __post_init__(self) -> None:
        require_game(self.name, [each.name for each in self.policies], "grd")
