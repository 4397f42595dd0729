"""Who asks what, slot by slot: popularities that stay, slide, burst or turn against the policy, and measured traces.

Tasks have Zipf popularities, p_k ∝ k^(−s) for the task of rank k, and who is of which rank changes:

==============  ======================================================================================================
profile         ranks
==============  ======================================================================================================
``fixed``       the same in all slots
``sliding``     shifted cyclically by ``shift`` tasks every ``period`` slots
``bursty``      fixed, but at any time some tasks are asked for ten times as often; bursts last ``period`` slots on
                average, and a task is in one a tenth of the time
``reversing``   reversed every ``period`` slots: what was popular is not, an adversary for whoever averages
==============  ======================================================================================================

References:
    Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks. IEEE/ACM Transactions on
    Networking 32(1), 2024: the first two, with the defaults as remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, require, require_one_of
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.data.trace_files import read_trace
from rivage.graphs.underlay import Underlay
from rivage.inference.scene import nodes_at

__all__ = ["DEMANDS", "Demand", "Popularity", "Recorded"]

Profile = Literal["fixed", "sliding", "bursty", "reversing"]
Table = Float64[ndarray, "slots types"]

_BURST, _SHARE = 10.0, 0.1  # how much more a burst asks for, and how often a task is in one


@dataclass(frozen=True, kw_only=True, eq=False)
class Demand:
    """Request types, and how many requests of each come in every slot.

    Args:
        entry: node where the requests of each type enter.
        task: number of the task of each type.
        requests: of each slot and type, >= 0.
    """

    entry: Int64[ndarray, "types"]
    task: Int64[ndarray, "types"]
    requests: Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Popularity:
    """Zipf popularities of the tasks.

    Args:
        rate_per_s: requests per second of all nodes together, > 0.
        entries: where requests enter, all at the same rate: a tier, a node, or a list of nodes.
        exponent: s >= 0 of the popularities.
        profile: how they change.
        shift: tasks by which ``sliding`` shifts, >= 1.
        period: slots between changes, >= 1.
        tasks_per_entry: how many tasks, drawn at random, are asked for at each node, >= 1; left out, all are.
        slots: how many, >= 1.
        random: whether requests are Poisson; otherwise their means.
    """

    rate_per_s: float
    entries: str | tuple[str, ...] = "*"
    exponent: float = 1.2
    profile: Profile = "fixed"
    shift: int = 5
    period: int = 60
    tasks_per_entry: int | None = None
    slots: int = 600
    random: bool = True

    def __post_init__(self) -> None:
        require(self.rate_per_s, "rate_per_s", above=0.0)
        require(self.exponent, "exponent", least=0.0)
        require_one_of(self.profile, "profile", get_args(Profile))
        for name in ("shift", "period", "slots"):
            require(getattr(self, name), name, least=1)
        if self.tasks_per_entry is not None:
            require(self.tasks_per_entry, "tasks_per_entry", least=1)

    def build(self, underlay: Underlay, tasks: Sequence[str], slot_s: float, streams: Streams) -> Demand:
        """The types and their requests.

        Raises:
            ConfigError: for unknown nodes, and for more tasks than there are.
        """
        entries, count = nodes_at(underlay, self.entries), len(tasks)
        asked = count if self.tasks_per_entry is None else self.tasks_per_entry
        if asked > count:
            raise ConfigError(f"tasks_per_entry is {asked}", mend=f"The catalog has {count} tasks.")
        draw = streams.numpy("tasks")
        chosen = [np.sort(draw.choice(count, asked, replace=False)) for _ in entries]
        task = np.concatenate(chosen)
        shares = self._shares(count, streams.numpy("bursts"))[:, task]
        entry = np.repeat(np.array(entries, np.int64), asked)
        per_entry = shares.reshape(self.slots, len(entries), asked)
        means = (per_entry / per_entry.sum(axis=2, keepdims=True)).reshape(self.slots, -1)
        means = means * (self.rate_per_s * slot_s / len(entries))
        requests = streams.numpy("requests").poisson(means).astype(np.float64) if self.random else means
        return Demand(entry=entry, task=task.astype(np.int64), requests=requests)

    def _shares(self, count: int, draw: np.random.Generator) -> Float64[ndarray, "slots tasks"]:
        """How popular each task is in every slot, up to a factor."""
        law = np.arange(1.0, count + 1) ** -self.exponent
        turns = np.arange(self.slots) // self.period
        match self.profile:
            case "sliding":
                return np.stack([np.roll(law, self.shift * turn) for turn in turns])
            case "reversing":
                return np.stack([law[:: -1 if turn % 2 else 1] for turn in turns])
            case "bursty":
                return law * np.where(self._bursts(count, draw), _BURST, 1.0)
        return np.tile(law, (self.slots, 1))

    def _bursts(self, count: int, draw: np.random.Generator) -> ndarray:
        """Which tasks are in a burst in every slot: a Markov chain for each task, from its stationary law."""
        leave = 1.0 / self.period
        enter = min(leave * _SHARE / (1.0 - _SHARE), 1.0)
        states = [draw.random(count) < _SHARE]
        for chance in draw.random((self.slots - 1, count)):
            states.append(np.where(states[-1], chance >= leave, chance < enter))
        return np.stack(states)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Requests of a trace: columns ``time_s``, ``item`` (the task's name) and ``origin`` (number of the node).

    Args:
        path: of the file, see `rivage.data.trace_files`.
    """

    path: Path

    def build(self, underlay: Underlay, tasks: Sequence[str], slot_s: float, streams: Streams) -> Demand:
        """The types that occur, and their requests.

        Raises:
            DataError: for missing columns, unknown tasks and nodes.
        """
        trace = read_trace(self.path)
        if trace.time_s is None or trace.origin is None or trace.keys is None:
            raise DataError("a column is missing", where=str(self.path), mend="Give time_s, item and origin.")
        number = {task: place for place, task in enumerate(tasks)}
        names = [str(key) for key in trace.keys.tolist()]
        if unknown := [name for name in names if name not in number]:
            raise DataError(
                f'item "{unknown[0]}" is no task', where=str(self.path), mend=f"Tasks are {', '.join(tasks[:12])}."
            )
        if trace.origin.max(initial=0) >= len(underlay):
            raise DataError(
                f"origin is {trace.origin.max()}", where=str(self.path), mend=f"Nodes are 0 to {len(underlay) - 1}."
            )
        task = np.array([number[name] for name in names])[trace.item]
        pairs, kind = np.unique(np.stack([trace.origin, task]), axis=1, return_inverse=True)
        slot = ((trace.time_s - trace.time_s[0]) // slot_s).astype(np.int64)
        requests = np.zeros((int(slot[-1]) + 1, pairs.shape[1]))
        np.add.at(requests, (slot, kind.ravel()), 1.0)
        return Demand(entry=pairs[0], task=pairs[1], requests=requests)


DEMANDS = Registry(
    "rivage.demands",
    "requests",
    {"popularity": "rivage.inference.demand:Popularity", "trace": "rivage.inference.demand:Recorded"},
)
"""Kind -> where the requests of a delivery network come from."""
