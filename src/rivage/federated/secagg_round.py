"""One round of secure aggregation between the server and the clients of a cohort."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.seeding import Streams
from rivage.federated.algorithm import Cohort, Mean, State, Update
from rivage.federated.collectors import Post
from rivage.federated.secagg_client import Client
from rivage.federated.secagg_coding import Coding, Entry, entries_of
from rivage.federated.secagg_field import Ring
from rivage.federated.secagg_graph import degree, neighbours, threshold
from rivage.federated.secagg_messages import Boxes, Keys, Masked, Neighbours, Shares, Survivors
from rivage.federated.secagg_server import Aborted, Server

__all__ = ["Rules", "Secured"]

_KEYS, _SHARES, _MASKED, _UNMASK, _NEVER = range(5)


class Rules(Protocol):
    """What a round has to know of the settings."""

    @property
    def ring(self) -> Ring:
        """Where numbers are added up."""
        ...

    @property
    def neighbours(self) -> int | None:
        """Of each client; None for the usual number."""
        ...

    @property
    def threshold(self) -> float:
        """Share of holders to be exceeded."""
        ...

    @property
    def survivors(self) -> int:
        """Updates whose sum may be read."""
        ...

    @property
    def dropouts(self) -> Sequence[float]:
        """Probability of leaving at each stage."""
        ...

    def refusal(self, received: int) -> str | None:
        """Why a cohort of this size cannot work."""
        ...

    def most(self, weights: Float64[ndarray, "clients"]) -> float:
        """The largest weight of an update."""
        ...

    def coding(self, entries: Sequence[Entry], most: float) -> Coding:
        """How updates become whole numbers."""
        ...


class Secured:
    """One round.

    Args:
        rules: of the protocol.

    Attributes:
        count: updates that arrived.
        refusal: why the sum was not read.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules, self.ring = rules, rules.ring
        self.count = 0
        self.refusal: str | None = None
        self._means: dict[str, Mean] = {}
        self._facts: dict[str, Any] = {}
        self._coding: Coding | None = None
        self._server: Server | None = None
        self._clients: dict[int, Client] = {}

    def open(
        self,
        cohort: Cohort,
        arrives: Bool[ndarray, "clients"],
        downs: Mapping[int, State | None],
        post: Post,
        streams: Streams,
    ) -> Bool[ndarray, "clients"]:
        """Draw who leaves when; who will return an update.

        Keys and shares are exchanged once it is known that updates have entries: in some methods' rounds none has.
        """
        self._ids, self._post, self._streams = cohort.ids.tolist(), post, streams
        self._shared = _shared(list(downs.values()))
        self._most = self.rules.most(cohort.weights)
        self._leaves = self._departures(arrives)
        return np.array([self._leaves[client] > _MASKED for client in self._ids], bool)

    def _departures(self, arrives: Bool[ndarray, "clients"]) -> dict[int, int]:
        """At which stage each client leaves."""
        leaves = self._streams.numpy("dropouts").random((len(self._ids), _NEVER)) < self.rules.dropouts
        leaves[:, _MASKED] |= ~arrives
        stages = np.where(leaves.any(axis=1), leaves.argmax(axis=1), _NEVER)
        return dict(zip(self._ids, stages.tolist(), strict=True))

    def _begin(self) -> None:
        """Stages 1 and 2."""
        self.refusal = self.rules.refusal(len(self._ids))
        if self.refusal is not None:
            return
        k = degree(len(self._ids), self.rules.neighbours)
        graph = neighbours(self._streams.numpy("graph").permutation(self._ids), k)
        enough = threshold(self.rules.threshold, k)
        server = self._server = Server(graph, enough, self.rules.survivors, self._post.number, self.ring)
        clients = {client: self._client(client) for client in self._after(_KEYS, self._ids)}
        for client, member in clients.items():
            server.advertised(client, Keys.of(self._up(client, "keys", member.keys())))
        for client, member in clients.items():
            told = Neighbours.of(self._down(client, "keys", server.neighbours(client)))
            boxes = member.share(told) if self._leaves[client] > _SHARES else None
            if boxes is not None:
                server.shared(client, Boxes.of(self._up(client, "shares", boxes)))
        for client in server.sharing:
            if clients[client].receive(Boxes.of(self._down(client, "shares", server.boxes(client)))):
                self._clients[client] = clients[client]
        if len(self._clients) < self.rules.survivors:
            what = f"{len(self._clients)} clients hold shares of others"
            self.refusal = f"{what} where secure aggregation needs {self.rules.survivors}"

    def _after(self, stage: int, clients: Iterable[int]) -> list[int]:
        """Those that do not leave at this stage or before."""
        return [client for client in clients if self._leaves[client] > stage]

    def _client(self, number: int) -> Client:
        return Client(number, self._post.number, self.ring, self._streams.numpy("client", number).bytes)

    def fault(self, update: Update) -> str | None:
        """Why a client cannot send its update; None when it can, or when nobody can.

        Raises:
            ConfigError: for an update that these settings cannot carry.
        """
        if not update.payload:
            return None
        self._require_fit(update)
        if self._server is None:
            self._begin()
        if self.refusal is not None or update.client in self._clients:
            return None
        return "too few neighbours that share secrets with it"

    def _require_fit(self, update: Update) -> None:
        where = f"round {self._post.number}, client {update.client}"
        for name, (vector, weight) in update.payload.items():
            if weight > self._most:
                raise ConfigError(
                    f"{name} has weight {weight:g}, above max_weight {self._most:g}",
                    where=where,
                    mend="Give max_weight the largest weight that a client may have with this method.",
                )
            if not vector.is_floating_point():
                raise ConfigError(
                    f"{name} has whole numbers, which secure aggregation does not sum",
                    where=where,
                    mend="Leave the collector out for this method.",
                )

    def add(self, update: Update, down: State | None = None) -> None:
        """Stage 3: a client sends its update under masks, after `fault` found none. Without entries nothing is sent."""
        if self.refusal is not None:
            return
        self.count += 1
        if not update.payload:
            return
        assert self._server is not None, "fault has begun the exchange"
        if self._coding is None:
            self._coding = self.rules.coding(entries_of(update, self._shared), self._most)
        numbers = self._coding.numbers(update, self._streams.child("update", update.client))
        masked = self._clients[update.client].mask(self.ring.residues(numbers))
        self._server.arrived(update.client, Masked.of(self._up(update.client, "masked", masked)))

    def close(self) -> None:
        """Stage 4: shares that take the masks off, and the sum."""
        if self._server is None and self._ids and not self.count:  # all have left, some of them after sharing
            self._begin()
        server = self._server
        if server is None or self.refusal is not None:
            return
        try:
            server.require_enough()
            for client in server.arrivals:
                asked = Survivors.of(self._down(client, "unmask", server.survivors(client)))
                if self._leaves[client] > _UNMASK:
                    shares = self._clients[client].unmask(asked)
                    server.unmasked(client, Shares.of(self._up(client, "unmask", shares)))
            total = self.ring.centred(server.total())
        except Aborted as error:
            self.refusal = error.what
            return
        assert self._coding is not None, "something arrived"
        self._means = self._coding.means(total, self.count)
        self._facts = self._coding.report(total, self.count)
        self._post.sum(self._means)

    def report(self) -> dict[str, Any]:
        """How many clients sent keys, shares, updates and answers, and facts of the sum."""
        return {} if self._server is None else {"secure": {**self._server.counts, **self._facts}}

    @property
    def multiplier(self) -> float | None:
        """That of Gaussian noise with the ρ of the sum that was read; None when none was, and without noise."""
        rho = self._facts.get("rho")
        return None if rho is None else float((2 * rho) ** -0.5)

    def result(self) -> Mapping[str, Mean]:
        """The means; none when there is a refusal."""
        return self._means

    def _up(self, client: int, stage: str, message: Keys | Boxes | Masked | Shares) -> Any:
        return self._post.say(client, f"secagg_{stage}", message.payload(), up=True)

    def _down(self, client: int, stage: str, message: Neighbours | Boxes | Survivors) -> Any:
        return self._post.say(client, f"secagg_{stage}", message.payload(), up=False)


def _shared(downs: Sequence[State | None]) -> State:
    """What all clients were sent alike: entries that are the very same tensors."""
    sent = [down for down in downs if down is not None]
    if not sent or len(sent) < len(downs):
        return {}
    return {name: value for name, value in sent[0].items() if all(down.get(name) is value for down in sent)}
