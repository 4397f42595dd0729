"""Canary records: planted at one client, each in or out by a coin of its own, to measure what protects a record.

Inputs and labels are drawn at random. Let g_t be what the client's update took off the model w_t that it was sent, and
G_t the gradients at w_t of all its records and all canaries, each scaled down to the clipping norm C as training scales
it. One local step makes g_t proportional to G_t' b + noise, with b_i = 1 for a record in the batch; the score of a
canary is its coefficient in

    b_t = (G_t G_t' + λ I)⁻¹ G_t g_t,        λ = 4 (z C)² / T,

summed over the T rounds that the client took part in: coefficients of ½ ± ½ under noise z C per coordinate, drawn anew
in each round. Without λ canaries would be told apart by directions that the noise drowns, without the inverse they hide
one another. A second score takes λ = 0, for noise that is claimed and not there. After several local steps the model is
no longer w_t and the score loses power, never validity: whatever the score, the coins decide. The auditor knows all
records but not the coins, which is what the definition grants.

References:
    Nasr, Hayes, Steinke, Balle, Tramèr, Jagielski, Carlini, Terzis. Tight auditing of differentially private machine
    learning. USENIX Security 2023, arXiv 2302.07956 (what an auditor may know).
    Steinke, Nasr, Jagielski. Privacy auditing with one (1) training run. NeurIPS 2023, arXiv 2305.08846 (coins).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.messages import Message
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds, Population, Samples, Schema, joined
from rivage.federated.checkpoint import Notebook
from rivage.federated.engine import Session
from rivage.federated.trial import Trial
from rivage.learning.params import from_numpy
from rivage.learning.task import Task
from rivage.privacy.canaries import Scored, coins, ledger
from rivage.privacy.probing import gradients_of

__all__ = ["CanaryRecords"]

_OTHERS = 500  # records of the client whose gradients are taken into account


@dataclass(frozen=True)
class CanaryRecords:
    """Plants records at one client.

    Args:
        client: whose.
        count: how many; about as many as D or fewer, or they hide one another.
        norm: C, that a record's gradient is clipped to.
        noise: z, multiplier of the norm.
        streams: coins, inputs and labels.
    """

    client: int
    count: int
    norm: float
    noise: float
    streams: Streams

    @cached_property
    def inside(self) -> Bool[ndarray, "canaries"]:
        """Which of them are in."""
        return coins(self.count, self.streams)

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
        """Play the trial with the canaries in it, and score them by what the client's channel shows.

        Time: that of the trial, and per round one backward pass for each canary and record, O((records)² D).
        """
        data = trial.population.client(self.client)
        canaries = self.records(trial.population.schema, data.train)
        everyone = joined([canaries, data.train.take(np.arange(min(len(data.train), _OTHERS)))])
        planted = replace(trial, population=_Fuller(trial.population, self, canaries), every=max(trial.rounds, 1))
        channel, scores = _Channel(self.client), np.zeros((self.count, 2))
        with Session(planted, channel) as session:
            for _event in session:
                for sent, returned in channel.taken():
                    scores += self._coefficients(trial, everyone, sent, sent - returned)
        return Scored(scores, self.inside, ledger(trial, channel, [self.client]))

    def _coefficients(
        self, trial: Trial, records: Samples, sent: ndarray, gone: ndarray
    ) -> Float64[ndarray, "canaries 2"]:
        """Of the canaries, in regressions of the client's step on everyone's clipped gradient."""
        rows = _clipped(trial.task, records, sent, self.norm)
        step = from_numpy(gone[: trial.task.layout.trainable], dtype=torch.float64)
        step /= torch.linalg.vector_norm(step).clamp_min(1e-300)  # its length is common to all scores of a round
        gram, products = rows @ rows.T, rows @ step
        expected = 4 * (self.noise * self.norm) ** 2 / trial.rounds
        least = 1e-9 * float(gram.diagonal().mean()) + 1e-300
        both = (gram + ridge * torch.eye(len(rows), dtype=torch.float64) for ridge in (expected + least, least))
        found: ndarray = torch.stack([torch.linalg.solve(each, products) for each in both], dim=1).numpy()
        return found[: self.count]


def _clipped(task: Task, records: Samples, params: ndarray, norm: float) -> Float64[Tensor, "records trainable"]:
    bound = task.bind()
    bound.load(from_numpy(params, dtype=task.dtype))
    x, y = task.tensors(records)
    rows: Tensor = torch.cat([part.double() for part in gradients_of(bound, task, x, y)])
    clipped: Tensor = rows * (norm / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(norm))
    return clipped


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
        return replace(data, train=joined([data.train, extra]), weight=data.weight + len(extra))

    def sizes(self, ids: ClientIds, round: int = 0) -> Float64[ndarray, "clients"]:
        more = np.where(ids == self.canaries.client, self.canaries.inside.sum(), 0)
        sizes: ndarray = self.base.sizes(ids, round) + more
        return sizes
