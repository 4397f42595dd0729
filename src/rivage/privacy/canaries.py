"""Canaries: participants planted into a training, each in or out by a coin of its own, to measure what privacy it has.

Two kinds, for the two units that a mechanism may protect.

**Canary clients** (`CanaryClients`) stand for a user. In the k-th round of the training a canary c that is in sends the
broadcast plus (−1)^k S u_c, with u_c a random direction and S the largest norm a client may have; one that is out sends
the broadcast, which adds nothing to the sum. With Δ_k the step that the server's model makes in round k, its scores are

    Σ_k (−1)^k ⟨u_c, Δ_k⟩        over all rounds, an even number of them,
    Σ_k (−1)^k ⟨u_c, Δ_k⟩        over the rounds in which c was chosen.

The signs cost no power against noise that is drawn anew, take out the drift that honest clients cause, and cancel noise
that is the same in every round: the first score is a sum of differences of successive rounds.

**Canary records** (`CanaryRecords`) stand for a record of one client: inputs at random, labels at random. With w_t the
model sent and g_t what the client's update took off it, the score of z is Σ_t ⟨g_t, ∇ℓ(z; w_t)⟩, each gradient scaled
to at most the clipping norm, as training scales it.

The coins are what `rivage.privacy.epsilon_bounds.best_of_one_run` needs; the run is played by the same engine with the
same settings as the run that is audited.

References:
    Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar. One-shot empirical privacy estimation for federated learning. ICLR
    2024, arXiv 2302.03098 (canary clients).
    Steinke, Nasr, Jagielski. Privacy auditing with one (1) training run. NeurIPS 2023, arXiv 2305.08846 (coins).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.messages import Message
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds, Population, Samples, Schema
from rivage.federated.algorithm import State, Update
from rivage.federated.checkpoint import Notebook
from rivage.federated.engine import Session
from rivage.federated.trial import Trial
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["CanaryClients", "CanaryRecords", "Scored"]

_HEAVY = 1e12  # a canary says that it has so many records: it gets the largest weight that the server allows
_LONG = 1e3  # times the clipping norm: whatever clips, clips to the norm


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What an audit has measured.

    Args:
        scores: one column per statistic that was fixed in advance; higher says that the canary was in.
        inside: whether it was.
    """

    scores: Float64[ndarray, "canaries statistics"]
    inside: Bool[ndarray, "canaries"]


def _coins(count: int, streams: Streams) -> Bool[ndarray, "canaries"]:
    coins: ndarray = streams.numpy("coins").random(count) < 0.5
    return coins


# --- clients ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CanaryClients:
    """Plants clients.

    Args:
        count: how many.
        norm: S, the norm that the mechanism clips a client's update to.
        streams: coins and directions.
    """

    count: int
    norm: float
    streams: Streams

    @cached_property
    def inside(self) -> Bool[ndarray, "canaries"]:
        """Which of them are in."""
        return _coins(self.count, self.streams)

    def direction(self, canary: int, dimension: int) -> Float32[ndarray, "dim"]:
        """The unit vector u_c."""
        drawn = self.streams.numpy("direction", canary).standard_normal(dimension, np.float32)
        direction: ndarray = drawn / np.linalg.norm(drawn)
        return direction

    def scored(self, trial: Trial) -> Scored:
        """Play the trial with the canaries in it, and score them. Time: that of the trial and of O(count · rounds · D).

        The models after each round are all that is read: what every client of the training is sent.
        """
        first, rounds = trial.population.size, 2 * (trial.rounds // 2)
        planted = replace(
            trial,
            population=_Larger(trial.population, self.count),
            adversary=_Sends(self, first),
            rounds=rounds,
            every=max(rounds, 1),
        )
        scores = np.zeros((self.count, 2))
        with Session(planted) as session:
            before = to_numpy(session.state["params"]).copy()
            for event in session:
                after = to_numpy(session.state["params"]).copy()
                self._add(scores, (after - before) * _sign(event["round"]), _chosen(event, first))
                before = after
        return Scored(scores, self.inside)

    def _add(self, scores: Float64[ndarray, "canaries 2"], step: ndarray, chosen: set[int]) -> None:
        for canary in range(self.count):
            value = float(self.direction(canary, step.size) @ step)
            scores[canary] += value, value * (canary in chosen)


def _sign(round: int) -> int:
    return 1 - 2 * (round % 2)


def _chosen(event: dict[str, Any], first: int) -> set[int]:
    return {client - first for client in event["cohort"] if client >= first}


@dataclass(frozen=True)
class _Larger:
    """A population with canaries behind its clients; each holds one record, so that it can be asked to train."""

    base: Population
    count: int

    @property
    def size(self) -> int:
        return self.base.size + self.count

    @property
    def schema(self) -> Schema:
        return self.base.schema

    @property
    def fingerprint(self) -> str:
        return f"{self.base.fingerprint} with {self.count} canaries"

    @property
    def setup(self) -> tuple[Message, ...]:
        return self.base.setup

    @property
    def notes(self) -> dict[str, Any]:
        return self.base.notes

    def name(self, id: int) -> str:
        return self.base.name(id) if id < self.base.size else f"canary {id - self.base.size}"

    def client(self, id: int, round: int = 0) -> ClientData:
        if id < self.base.size:
            return self.base.client(id, round)
        data = self.base.client(0, round)
        nothing = data.test.take(np.empty(0, np.int64))
        return ClientData(id, data.train.take(np.zeros(1, np.int64)), nothing, nothing, _HEAVY)

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        sizes: ndarray = self._by(ids, self.base.sizes(ids[ids < self.base.size], round), _HEAVY)
        return sizes

    def available(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        there: ndarray = self._by(ids, self.base.available(ids[ids < self.base.size], round), True)
        return there

    def completes(self, ids: ClientIds, round: int) -> Bool[ndarray, "clients"]:
        arrive: ndarray = self._by(ids, self.base.completes(ids[ids < self.base.size], round), True)
        return arrive

    def _by(self, ids: ClientIds, own: ndarray, canary: Any) -> ndarray:
        result = np.full(len(ids), canary, own.dtype)
        result[ids < self.base.size] = own
        return result


@dataclass(frozen=True)
class _Sends:
    """What the canaries send, in the place where the engine asks clients that do harm."""

    canaries: CanaryClients
    first: int

    def malicious(self, ids: ClientIds, seed: int) -> Bool[ndarray, "clients"]:
        canary: ndarray = ids >= self.first
        return canary

    def corrupt(self, update: Update, down: State, client: int, streams: Streams) -> Update:
        canary, (_, weight) = client - self.first, update.payload["params"]
        sent = down["params"]
        if self.canaries.inside[canary]:
            length = _sign(update.version) * _LONG * self.canaries.norm
            sent = sent + length * from_numpy(self.canaries.direction(canary, sent.numel()), dtype=sent.dtype)
        return replace(update, payload={"params": (sent, weight)})


# --- records ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CanaryRecords:
    """Plants records at one client.

    Args:
        client: whose.
        count: how many; about as many as D or fewer, or they hide one another.
        norm: that a record's gradient is clipped to.
        streams: coins, inputs and labels.
    """

    client: int
    count: int
    norm: float
    streams: Streams

    @cached_property
    def inside(self) -> Bool[ndarray, "canaries"]:
        """Which of them are in."""
        return _coins(self.count, self.streams)

    def records(self, schema: Schema, like: Samples) -> Samples:
        """All of them: normal inputs, targets drawn uniformly from the classes, or normal."""
        generator = self.streams.numpy("records")
        x = generator.standard_normal((self.count, *schema.input_shape)).astype(like.x.dtype)
        if schema.target == "class":
            y: ndarray = generator.integers(schema.num_classes, size=self.count)
        else:
            y = generator.standard_normal((self.count, *like.y.shape[1:]))
        return Samples(x, y.astype(like.y.dtype), -1 - np.arange(self.count))

    def scored(self, trial: Trial) -> Scored:
        """Play the trial with the canaries in it, and score them by what the client's channel shows."""
        data = trial.population.client(self.client)
        records = self.records(trial.population.schema, data.train)
        planted = replace(trial, population=_Fuller(trial.population, self, records), every=max(trial.rounds, 1))
        channel, scores = _Channel(self.client), np.zeros(self.count)
        with Session(planted, channel) as session:
            for _event in session:
                for sent, returned in channel.taken():
                    scores += self._products(trial, records, sent, sent - returned)
        return Scored(scores[:, None], self.inside)

    def _products(self, trial: Trial, records: Samples, sent: ndarray, gone: ndarray) -> Float64[ndarray, "canaries"]:
        """Inner product of the client's step with each canary's clipped gradient."""
        bound = trial.task.bind()
        bound.load(from_numpy(sent, dtype=trial.task.dtype))
        x, y = trial.task.tensors(records)
        direction = from_numpy(gone[: trial.task.layout.trainable], dtype=trial.task.dtype)
        found = np.empty(self.count)
        for i in range(self.count):
            loss = bound.losses(x[i : i + 1], y[i : i + 1]).sum()
            gradient = _flat(torch.autograd.grad(loss, bound.parameters, allow_unused=True, materialize_grads=True))
            norm = float(torch.linalg.vector_norm(gradient))
            found[i] = float(gradient @ direction) * min(1.0, self.norm / max(norm, 1e-30))
        return found


def _flat(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


class _Channel(Notebook):
    """Keeps the newest exchange of one client."""

    def __init__(self, client: int) -> None:
        super().__init__(keep_messages=True)
        self._party = f"client:{client}"

    def message(self, message: Message) -> None:
        """Keep what concerns the client."""
        if self._party in (message.sender, message.receiver):
            self.messages.append(message)

    def taken(self) -> Iterator[tuple[ndarray, ndarray]]:
        """Model sent and model returned, since the last call."""
        sent: ndarray | None = None
        for message in self.messages:
            if message.kind == "broadcast":
                sent = message.payload["params"]
            elif message.kind == "update" and sent is not None:
                yield sent, message.payload["params"]
        self.messages.clear()


@dataclass(frozen=True)
class _Fuller:
    """A population in which one client holds the canaries that are in, beside its own records."""

    base: Population
    canaries: CanaryRecords
    planted: Samples

    def __getattr__(self, name: str) -> Any:
        return getattr(self.base, name)

    @property
    def fingerprint(self) -> str:
        return f"{self.base.fingerprint} with canaries at {self.canaries.client}"

    def client(self, id: int, round: int = 0) -> ClientData:
        data = self.base.client(id, round)
        if id != self.canaries.client:
            return data
        extra = self.planted.take(np.flatnonzero(self.canaries.inside))
        joined = [np.concatenate([getattr(data.train, name), getattr(extra, name)]) for name in ("x", "y", "index")]
        return replace(data, train=Samples(*joined), weight=data.weight + len(extra))

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        more = np.where(ids == self.canaries.client, self.canaries.inside.sum(), 0)
        sizes: ndarray = self.base.sizes(ids, round) + more
        return sizes
