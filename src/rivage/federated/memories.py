"""What clients keep between rounds, for any number of clients: a bounded cache over a shelf.

A memory never leaves its device; here the devices are simulated, so somebody has to keep what they keep. The engine
asks for the memories of a cohort at once and puts back what changed. In between they lie in three layers:

- *staged*: put since the last `Memories.mark`, that is in the round being played;
- *dirty*: part of a finished round, not yet on the shelf; never dropped;
- *cache*: equal to what is on the shelf, always; the least recently used ones are dropped first.

What `Memories.get` returns depends on neither the size of the cache nor the moments of writing: tensors are kept in one
normal form (on the CPU, contiguous, in storage of their own, names in order), the form in which they come back from a
file.

With a limit on the number of remembered clients, those that took part longest ago are forgotten: the smallest round
first, then the smallest id, as if each had been replaced by a new device with the same data. They start anew, with an
empty memory. This is part of the result, so it is counted and does not depend on the moments of writing either.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from rivage.core.encoding import RESTORE, decode_tensors, encode_tensors
from rivage.core.errors import ProtocolError, StoreError, require
from rivage.federated.algorithm import State
from rivage.federated.batches import Position
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["CACHE_BYTES", "Box", "Entry", "Memories", "Memory", "Shelf", "decode_memory", "encode_memory", "own"]

CACHE_BYTES = 256 << 20
"""Default bound of the memories held in RAM."""

_OVERHEAD = 512  # bytes of Python and torch objects, per memory and per tensor; about what tracemalloc and RSS show


@dataclass(frozen=True, slots=True)
class Memory:
    """What one client keeps between rounds; it never leaves the device.

    Args:
        values: the algorithm's tensors.
        position: where its endless loader stands.
        residuals: error feedback: what compression has held back so far, by payload entry.
    """

    values: State = field(default_factory=dict)
    position: Position = Position()
    residuals: State = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes in RAM, with an allowance for the objects that hold them."""
        tensors = (*self.values.values(), *self.residuals.values())
        return _OVERHEAD + sum(_OVERHEAD + tensor.nbytes for tensor in tensors)


Entry = tuple[int, Memory] | None
"""Round of the last participation, and the memory; None for a client that is forgotten."""


class Shelf(Protocol):
    """Where memories lie when they are not in the cache."""

    def read(self, ids: Sequence[int]) -> Mapping[int, Memory]:
        """The memories of those that have one; ``ids`` ascend."""
        ...

    def write(self, entries: Mapping[int, Entry]) -> None:
        """Keep these, drop those that are None."""
        ...

    def rounds(self) -> Iterable[tuple[int, int]]:
        """(id, round of the last participation) of everything on the shelf."""
        ...


class Box:
    """A shelf in RAM."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[int, Memory]] = {}

    def read(self, ids: Sequence[int]) -> Mapping[int, Memory]:
        """Those that are there."""
        return {client: self._entries[client][1] for client in ids if client in self._entries}

    def write(self, entries: Mapping[int, Entry]) -> None:
        """Keep or drop."""
        for client, entry in entries.items():
            if entry is None:
                self._entries.pop(client, None)
            else:
                self._entries[client] = entry

    def rounds(self) -> Iterator[tuple[int, int]]:
        """When each took part last."""
        return ((client, round) for client, (round, _) in self._entries.items())


class Memories:
    """The engine's view of all client memories.

    The engine calls `get` once per round for its cohort and `put` once with what changed; the journal calls the rest.

    Args:
        shelf: holds what is not in RAM.
        limit: clients that are remembered, >= 1; None for all that ever took part.
        cache_bytes: bound of what is held in RAM, >= 0. What a round changes is held beside it until the round is
            committed.
        forgotten: clients forgotten before (on resume).

    Example:
        >>> memories = Memories(Box(), limit=1)
        >>> memories.put({4: Memory(position=Position(2, 0))}, round=0)
        0
        >>> memories.put({7: Memory(position=Position(1, 5))}, round=1)
        1
        >>> [memory.position.passes for memory in memories.get([7, 4])], memories.forgotten
        ([1, 0], 1)
    """

    def __init__(
        self, shelf: Shelf, *, limit: int | None = None, cache_bytes: int = CACHE_BYTES, forgotten: int = 0
    ) -> None:
        if limit is not None:
            require(limit, "limit", least=1)
        require(cache_bytes, "cache_bytes", least=0)
        self.shelf, self._limit, self._cache_bytes = shelf, limit, cache_bytes
        self._staged, self._dirty, self._cache = _Layer(), _Layer(), _Layer()
        self._forgotten = self._forgotten_before = forgotten
        self._calendar = _Calendar(() if limit is None else shelf.rounds())

    # --- for the engine -------------------------------------------------------------------------------------

    def get(self, ids: Sequence[int]) -> list[Memory]:
        """The memories of these clients, in this order; who has none gets an empty one. One read of the shelf."""
        found: dict[int, Memory] = {}
        asked: list[int] = []
        for client in map(int, ids):
            layer = self._layer_of(client)
            if layer is None:
                asked.append(client)
            else:
                entry = layer.entries[client]
                found[client] = Memory() if entry is None else entry[1]
        if asked:
            for client, memory in self.shelf.read(sorted(set(asked))).items():
                found[client] = memory
                self._cache.put(client, (0, memory))  # the round is only needed for what is yet to be written
            self._trim()
        return [found.get(int(client)) or Memory() for client in ids]

    def put(self, changed: Mapping[int, Memory], round: int) -> int:
        """Replace these memories; permanent with the next commit of the journal.

        Args:
            changed: by client; the tensors are kept, not copied, and must not be written to afterwards.
            round: of the participation.

        Returns:
            How many clients were forgotten to make room; what a round's event reports.

        Raises:
            ProtocolError: for what is not a tensor.
        """
        for client, memory in changed.items():
            self._staged.put(int(client), (round, _normal(memory, client)))
        self._trim()
        if self._limit is None:
            return 0
        self._calendar.enter(map(int, changed), round)
        gone = self._calendar.oldest(self._limit)
        for client in gone:
            self._staged.put(client, None)
        self._forgotten += len(gone)
        return len(gone)

    @property
    def forgotten(self) -> int:
        """Clients forgotten since round 0; one that comes back and is forgotten again counts twice."""
        return self._forgotten

    @property
    def cached(self) -> int:
        """Memories in RAM, those of the shelf apart."""
        return sum(len(layer.entries) for layer in (self._staged, self._dirty, self._cache))

    @property
    def cached_bytes(self) -> int:
        """Bytes they take."""
        return sum(layer.nbytes for layer in (self._staged, self._dirty, self._cache))

    # --- for the journal ------------------------------------------------------------------------------------

    def mark(self) -> None:
        """The round is finished: what was put belongs to the next checkpoint."""
        for client, entry in self._staged.entries.items():
            self._dirty.put(client, entry)
        self._staged = _Layer()
        self._forgotten_before = self._forgotten

    @property
    def full(self) -> bool:
        """Whether what is not on the shelf fills the cache: time to write it."""
        return self._dirty.nbytes > self._cache_bytes

    @property
    def marked(self) -> int:
        """`forgotten` at the last `mark`."""
        return self._forgotten_before

    def write(self) -> None:
        """Bring everything up to the last `mark` to the shelf; to be followed by `settle` once that is permanent."""
        if self._dirty.entries:
            self.shelf.write(self._dirty.entries)

    def settle(self) -> None:
        """What `write` wrote is permanent: from now on it may be dropped from RAM."""
        written, self._dirty = self._dirty, _Layer()
        for client, entry in written.entries.items():
            if entry is None:
                self._cache.pop(client)
            else:
                self._cache.put(client, entry)
        self._trim()

    def roll_back(self) -> None:
        """Drop what was put since the last `mark`: its round is played again."""
        self._staged = _Layer()
        self._forgotten = self._forgotten_before
        if self._limit is not None:
            rounds = dict(self.shelf.rounds())
            for client, entry in self._dirty.entries.items():
                rounds.pop(client, None)
                if entry is not None:
                    rounds[client] = entry[0]
            self._calendar = _Calendar(rounds.items())

    def _layer_of(self, client: int) -> _Layer | None:
        for layer in (self._staged, self._dirty):
            if client in layer.entries:
                return layer
        if client in self._cache.entries:
            self._cache.entries.move_to_end(client)
            return self._cache
        return None

    def _trim(self) -> None:
        while self._cache.entries and self.cached_bytes > self._cache_bytes:
            self._cache.pop(next(iter(self._cache.entries)))


class _Layer:
    """Entries by client, and the bytes they take."""

    def __init__(self) -> None:
        self.entries: OrderedDict[int, Entry] = OrderedDict()
        self.nbytes = 0

    def put(self, client: int, entry: Entry) -> None:
        self.pop(client)
        self.entries[client] = entry
        self.nbytes += _nbytes(entry)

    def pop(self, client: int) -> None:
        self.nbytes -= _nbytes(self.entries.pop(client, None))


def _nbytes(entry: Entry) -> int:
    return 0 if entry is None else entry[1].nbytes


class _Calendar:
    """When each remembered client took part last; empty and unused without a limit."""

    def __init__(self, rounds: Iterable[tuple[int, int]]) -> None:
        self._round_of: dict[int, int] = {}
        self._clients: dict[int, set[int]] = {}
        for client, round in rounds:
            self.enter([client], round)

    def enter(self, clients: Iterable[int], round: int) -> None:
        for client in clients:
            self._leave(client)
            self._round_of[client] = round
            self._clients.setdefault(round, set()).add(client)

    def _leave(self, client: int) -> None:
        round = self._round_of.pop(client, None)
        if round is not None:
            self._clients[round].remove(client)
            if not self._clients[round]:
                del self._clients[round]

    def oldest(self, limit: int) -> list[int]:
        """Take out those beyond the limit: smallest round first, then smallest id."""
        gone: list[int] = []
        while len(self._round_of) > limit:
            first = sorted(self._clients[min(self._clients)])[: len(self._round_of) - limit]
            for client in first:
                self._leave(client)
            gone += first
        return gone


# --- normal form and bytes ----------------------------------------------------------------------------------


def own(tensor: Tensor) -> Tensor:
    """The same numbers on the CPU, contiguous, in storage of their own; not copied if they are so already.

    A row of a stacked tensor would keep the whole stack alive; another layout would add in another order.
    """
    tensor = tensor.detach().cpu()
    if tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def _normal(memory: Memory, client: int) -> Memory:
    for name, value in (*memory.values.items(), *memory.residuals.items()):
        if not isinstance(value, Tensor):
            raise ProtocolError(
                f'memory "{name}" is {type(value).__name__}, not a tensor',
                where=f"client {client}",
                mend="Keep tensors in memory; scalars as 0-d tensors.",
            )
    return Memory(_in_order(memory.values), memory.position, _in_order(memory.residuals))


def _in_order(state: State) -> State:
    return {name: own(state[name]) for name in sorted(state)}


def encode_memory(memory: Memory) -> bytes:
    """A memory as safetensors bytes.

    Raises:
        StoreError: for a dtype that safetensors cannot hold.
    """
    tensors = {f"values/{name}": to_numpy(value) for name, value in memory.values.items()}
    tensors |= {f"residuals/{name}": to_numpy(value) for name, value in memory.residuals.items()}
    at = memory.position
    return encode_tensors(tensors, {"position": f"{at.passes} {at.position}"})


def decode_memory(data: bytes, where: str) -> Memory:
    """The inverse of `encode_memory`.

    Raises:
        StoreError: for anything else, naming ``where``.
    """
    arrays, metadata = decode_tensors(data, where=where)
    parts: dict[str, dict[str, Tensor]] = {"values": {}, "residuals": {}}
    try:
        passes, position = map(int, metadata["position"].split())
        for name in sorted(arrays):
            kind, _, entry = name.partition("/")
            parts[kind][entry] = from_numpy(arrays[name]).clone()  # aligned as any tensor; frees the buffer
    except (KeyError, ValueError) as error:
        raise StoreError(f"is not the memory of a client ({error})", where=where, mend=RESTORE) from error
    return Memory(parts["values"], Position(passes, position), parts["residuals"])
