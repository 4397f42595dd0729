"""Records that arrive while training goes on: some clients hold all of theirs from the start, others see a stream.

*Historical* clients have their training records in round 0 and keep them. At *streaming* clients the training records
arrive in batches, each record once; a memory of bounded size (`rivage.data.streams_memory`) decides what stays.
Validation and test records are there from the start at both.

A record that serves many rounds would count many times. With ``weights = "per_sample"`` its raw importance in round t
is

    λ = T / (number of rounds it stays in memory),

T the number of rounds of the run: 1 for historical records, T for those that serve a single round, and over the run
every record that was ever kept counts the same. The factor T is common to all and cancels wherever weights are
normalised.

Everything is a pure function of (seed, client, round). Arrivals do not wait for a client to take part: a record may
come and go without having been used.

Knowing how long a record will stay is exact for memories whose rule says so (a batch; first in, first out); for random
ones it is what the simulation knows and a device would have to estimate.

References:
    Marfoq, Neglia, Kameni, Vidal. Federated learning for data streams. AISTATS 2023, arXiv 2301.01542. No code was
    published with it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest, require
from rivage.core.messages import Message
from rivage.core.philox import uniforms
from rivage.core.seeding import Streams
from rivage.core.settings import OneOf
from rivage.data.population import ClientData, ClientIds, Population, Schema
from rivage.data.streams_memory import MEMORIES, ClientMemory, OneBatch, Residence, replay

__all__ = ["Stream", "StreamPopulation", "Volumes"]

_SHOWN = 10  # clients that an error lists

_MOST = 1_000_000  # clients whose streams are told apart and added up
_KEPT = 4096  # clients whose histories are remembered
_KEYS = 0  # Philox stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The ``[stream]`` table of a study.

    Args:
        historical: which clients hold their records from the start: a share of all clients in [0, 1], drawn at random,
            or their names.
        batch: records that arrive per round at each other client, >= 1; "even" spreads its records over all rounds.
        memory: what a streaming client keeps.
        order: in which its records arrive: ``shuffled``, or as ``given`` by the data, the first ones first.
        weights: ``per_sample`` divides a record's importance by the rounds it stays in memory; ``per_round`` counts it
            once in every round.
    """

    historical: float | tuple[str, ...] = 0.5
    batch: int | None = field(default=None, metadata={"none": "even"})
    memory: Annotated[ClientMemory, OneOf(MEMORIES)] = field(default_factory=OneBatch)
    order: Literal["shuffled", "given"] = "shuffled"
    weights: Literal["per_sample", "per_round"] = "per_sample"

    def __post_init__(self) -> None:
        if self.batch is not None:
            require(self.batch, "batch", least=1)
        if not isinstance(self.historical, tuple) and not 0 <= self.historical <= 1:
            raise ConfigError(
                f"historical is {self.historical}", mend="Give a share of at least 0 and at most 1, or a list of names."
            )

    def population(self, base: Population, *, rounds: int, seed: int) -> StreamPopulation:
        """The clients of ``base``, with their training records arriving as this table says.

        Args:
            base: all clients with all their records.
            rounds: T of the run, >= 1; what has not arrived by then never does.
            seed: of the study.

        Raises:
            ConfigError: for names that no client has, or a population too large to be looked through.
        """
        if rounds < 1:
            raise ConfigError(
                f"records arrive in {rounds} rounds", where="[stream]", mend="Set run.rounds to at least 1."
            )
        if base.size > _MOST:
            raise ConfigError(
                f"the streams of {base.size} clients cannot be added up",
                where="[stream]",
                mend=f"Use at most {_MOST} clients.",
            )
        return StreamPopulation(base=base, stream=self, rounds=rounds, seed=seed)


@dataclass(frozen=True, slots=True)
class Volumes:
    """How many records serve the run, at both kinds of clients.

    Args:
        historical: N_H, records of historical clients.
        fresh: N_F, records that are ever in the memory of a streaming client.
        drift: v in [0, 1], how far the memory of one round is from all of them: 0 if all stay, 1 if each serves one
            round; √((1/|M| − 1/N_F) / (1/b − 1/N_F)) with |M| the mean number of records in memory per round and
            b = N_F / T of those that come, both over all streaming clients together.
    """

    historical: float
    fresh: float
    drift: float


@dataclass(frozen=True, kw_only=True, eq=False)
class StreamPopulation:
    """A population some of whose clients see streams.

    Args:
        base: all clients with all their records.
        stream: who sees what.
        rounds: T of the run.
        seed: of the study.
    """

    base: Population
    stream: Stream
    rounds: int
    seed: int

    @property
    def size(self) -> int:
        """Number of clients."""
        return self.base.size

    @property
    def schema(self) -> Schema:
        """What a record looks like."""
        return self.base.schema

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the data and of how they arrive."""
        parts = (self.base.fingerprint, self.stream, self.rounds, self.seed)
        return hashlib.blake2b(repr(parts).encode(), digest_size=16).hexdigest()

    @property
    def setup(self) -> tuple[Message, ...]:
        """Messages exchanged to prepare the data."""
        return self.base.setup

    @cached_property
    def notes(self) -> dict[str, Any]:
        """Those of the data, and how much is historical."""
        found, memory = self.volumes(), type(self.stream.memory).__name__
        return {
            **self.base.notes,
            "stream": {
                "historical_clients": int(self.historical.sum()),
                "historical_records": found.historical,
                "fresh_records": found.fresh,
                "drift": found.drift,
                "memory": memory,
            },
        }

    @cached_property
    def historical(self) -> Bool[ndarray, "clients"]:
        """Which clients hold their records from the start."""
        wanted = self.stream.historical
        chosen = np.zeros(self.size, bool)
        if isinstance(wanted, tuple):
            numbers = {self.name(id): id for id in range(self.size)}
            for name in wanted:
                if name not in numbers:
                    shown = ", ".join([*numbers][:_SHOWN]) + (", …" if self.size > _SHOWN else "")
                    raise ConfigError(
                        f'historical names "{name}", but no client is called so',
                        where="[stream]",
                        mend=f"{nearest(name, numbers)} They are called: {shown}.".strip(),
                    )
                chosen[numbers[name]] = True
            return chosen
        order = self._streams.numpy("historical").permutation(self.size)
        chosen[order[: round(wanted * self.size)]] = True
        return chosen

    @property
    def _streams(self) -> Streams:
        return Streams(self.seed).child("stream")

    def name(self, id: int) -> str:
        """What people call this client."""
        return self.base.name(id)

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Who could start this round."""
        return self.base.available(ids, round)

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        """Of those who start this round, whose update would arrive."""
        return self.base.completes(ids, round)

    def client(self, id: int, round: int = 0) -> ClientData:
        """What the client holds at a round; after the last one, what it held then."""
        held = self.base.client(id)
        if self.historical[id]:
            return held
        history, now = self.history(id), min(round, self.rounds - 1)
        rows = history.at(now)
        importance = self.rounds / history.stay[rows] if self.stream.weights == "per_sample" else np.ones(len(rows))
        return ClientData(
            id=id,
            train=held.train.take(rows),
            validation=held.validation,
            test=held.test,
            weight=float(importance.sum()),
            importance=importance,
            arrives=True,
        )

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        """Raw weight of each client at a round."""
        result = np.array(self.base.sizes(ids), np.float64)
        for place in np.flatnonzero(~self.historical[ids]):
            result[place] = self._weight(int(ids[place]), min(round, self.rounds - 1))
        return result

    def _weight(self, id: int, round: int) -> float:
        history = self.history(id)
        rows = history.at(round)
        return float((self.rounds / history.stay[rows]).sum()) if self.stream.weights == "per_sample" else len(rows)

    def history(self, id: int) -> Residence:
        """When each training record of a streaming client is in memory; replayed once, then remembered."""
        if id not in self._histories:
            if len(self._histories) >= _KEPT:
                self._histories.clear()
            self._histories[id] = self._replayed(id)
        return self._histories[id]

    def _replayed(self, id: int) -> Residence:
        train, streams = self.base.client(id).train, self._streams
        records = np.arange(len(train))
        keys = uniforms(streams.seed("keys"), np.full(len(train), id), records, _KEYS)
        order = np.argsort(keys[:, 1], kind="stable") if self.stream.order == "shuffled" else records
        arrivals = np.split(order, np.cumsum(self._counts(len(train))))[:-1]  # the rest never arrives
        return replay(self.stream.memory, arrivals, train.y, keys[:, 0], lambda t: streams.numpy("memory", id, t))

    def _counts(self, records: int) -> Int64[ndarray, "rounds"]:
        """How many arrive in each round."""
        rounds = np.arange(self.rounds + 1)
        if self.stream.batch is None:
            return np.diff(records * rounds // self.rounds)
        return np.diff(np.minimum(self.stream.batch * rounds, records))

    def volumes(self, excluded: ClientIds | None = None) -> Volumes:
        """Records that serve the run, without clients that never train. O(all records), once.

        Args:
            excluded: clients that never train.
        """
        key = () if excluded is None else tuple(excluded.tolist())
        if key not in self._volumes:
            self._volumes[key] = self._added_up(np.setdiff1d(np.arange(self.size), np.array(key, np.int64)))
        return self._volumes[key]

    @cached_property
    def _histories(self) -> dict[int, Residence]:
        return {}

    @cached_property
    def _volumes(self) -> dict[tuple[int, ...], Volumes]:
        return {}

    def _added_up(self, ids: ClientIds) -> Volumes:
        static = self.historical[ids]
        stays = [self.history(id).stay for id in ids[~static].tolist()]
        fresh = float(sum(np.count_nonzero(stay) for stay in stays))
        present = float(sum(stay.sum() for stay in stays))
        return Volumes(float(self.base.sizes(ids[static]).sum()), fresh, _drift(fresh, present, self.rounds))


def _drift(records: float, present: float, rounds: int) -> float:
    """See `Volumes`; ``present`` counts records in memory over all rounds."""
    if not records or rounds == 1:
        return 0.0
    ratio = (rounds / present - 1 / records) / (rounds / records - 1 / records)
    return float(np.sqrt(np.clip(ratio, 0, 1)))
