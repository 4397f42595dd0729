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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, DataError, nearest, require, require_one_of
from rivage.core.registry import Registry
from rivage.core.seeding import Streams
from rivage.core.settings import combine
from rivage.data.trace_files import read_trace
from rivage.graphs.underlay import Underlay
from rivage.inference.scene import nodes_at

__all__ = ["DEMANDS", "Demand", "Popularity", "Recorded"]

Profile = Literal["fixed", "sliding", "bursty", "reversing"]
Table = Float64[ndarray, "slots types"]

_BURST, _SHARE = 10.0, 0.1  # how much more a burst asks for, and how often a task is in one
_LARGEST_TABLE = 10**8  # counts of requests: 800 MB
_LEAST = 1e-200  # popularity
_LISTED = 20  # problems shown at once
_COUNTED = 1e15  # requests of a type in a slot; beyond, doubles no longer count


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
        if problems := list(self._misfits(entries, asked, count, slot_s)):
            raise combine(problems)
        draw = streams.numpy("tasks")
        chosen = [np.sort(draw.choice(count, asked, replace=False)) for _ in entries]
        task = np.concatenate(chosen)
        shares = self._shares(count, streams.numpy("bursts"))[:, task]
        entry = np.repeat(np.array(entries, np.int64), asked)
        per_entry = shares.reshape(self.slots, len(entries), asked)
        means = (per_entry / per_entry.sum(axis=2, keepdims=True)).reshape(self.slots, -1)
        means = means * (self.rate_per_s * slot_s / len(entries))
        requests = streams.numpy("requests").poisson(means).astype(np.float64) if self.random else means
        if not requests.any():
            raise ConfigError(
                f"no request comes in {self.slots} slots of {slot_s:g} s",
                mend="Raise rate_per_s or slots, or set random = false.",
            )
        return Demand(entry=entry, task=task.astype(np.int64), requests=requests)

    def _misfits(self, entries: Sequence[int], asked: int, count: int, slot_s: float) -> Iterator[ConfigError]:
        """What does not fit this network and catalog."""
        if not entries:
            yield ConfigError("entries names no node", mend="Give a tier, or some nodes.")
        if asked > count:
            yield ConfigError(f"tasks_per_entry is {asked}", mend=f"The catalog has {count} tasks.")
        if self.rate_per_s * slot_s > _COUNTED:
            yield ConfigError(
                f"rate_per_s is {self.rate_per_s:g}",
                mend=f"Give at most {_COUNTED:g} requests in a slot of {slot_s:g} s.",
            )
        if (cells := self.slots * len(entries) * asked) > _LARGEST_TABLE:
            yield ConfigError(
                f"{self.slots:,} slots of {len(entries) * asked:,} request types are {cells:,} counts",
                mend=f"Give fewer slots: at most {_LARGEST_TABLE:,} counts are kept in memory.",
            )

    def _shares(self, count: int, draw: np.random.Generator) -> Float64[ndarray, "slots tasks"]:
        """How popular each task is in every slot, up to a factor."""
        # Never so rare that what an entry asks for could vanish altogether.
        law = np.maximum(np.arange(1.0, count + 1) ** -self.exponent, _LEAST)
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
        slot = (trace.time_s - trace.time_s[0]) // slot_s
        problems = [
            DataError(f'item "{name}" is no task', mend=nearest(name, tasks) or f"Tasks are {', '.join(tasks[:12])}.")
            for name in names
            if name not in number
        ][:_LISTED]
        if trace.origin.max() >= len(underlay):
            problems.append(DataError(f"origin is {trace.origin.max()}", mend=f"Nodes are 0 to {len(underlay) - 1}."))
        if (slot[-1] + 1) * len(underlay) * len(tasks) > _LARGEST_TABLE:
            problems.append(
                DataError(
                    f"it lasts {trace.time_s[-1] - trace.time_s[0]:g} s, {slot[-1] + 1:g} slots of {slot_s:g} s",
                    mend="Give time_s in seconds, or slots that last longer: slot_s.",
                )
            )
        if problems:
            raise combine([problem.at(str(self.path)) for problem in problems])
        task = np.array([number[name] for name in names])[trace.item]
        pairs, kind = np.unique(np.stack([trace.origin, task]), axis=1, return_inverse=True)
        requests = np.zeros((int(slot[-1]) + 1, pairs.shape[1]))
        np.add.at(requests, (slot.astype(np.int64), kind.ravel()), 1.0)
        return Demand(entry=pairs[0], task=pairs[1], requests=requests)


DEMANDS = Registry(
    "rivage.demands",
    "requests",
    {"popularity": "rivage.inference.demand:Popularity", "trace": "rivage.inference.demand:Recorded"},
)
"""Kind -> where the requests of a delivery network come from."""
