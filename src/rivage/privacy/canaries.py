"""Canary clients: participants planted into a training, each in or out by a coin of its own, to measure its privacy.

In the k-th round of the training a canary c that is in sends the broadcast plus (−1)^k L u_c, with u_c a unit vector of
random signs on coordinates that no other canary has, and L longer than any norm that the server lets pass, so that it
is clipped to exactly that; one that is out sends the broadcast, which adds nothing to the sum. With Δ_k the step that
the server's model makes in round k, its scores are

    Σ_k (−1)^k ⟨u_c, Δ_k⟩                  over all rounds, an even number of them,
    Σ_k (−1)^k Σ_l (V⁻¹)_kl ⟨u_c, Δ_l⟩     over the rounds k in which c took part.

V is the covariance of the noise over the rounds: the identity for noise that is drawn anew; the noise that a tree
repeats is taken off with what other rounds show of it (`rivage.federated.dp_ftrl`). The second is left out where who
was chosen is a secret: under sampling by chance the accountant counts on that.

The signs cost no power against noise that is drawn anew, take out the drift that honest clients cause, and cancel noise
that is the same in every round: the first score is a sum of differences of successive rounds. The coins are what
`rivage.privacy.epsilon_bounds.best_of_one_run` needs. The run is played by the same engine with the same settings as
the one that is audited; a cohort grows with the population, so that each client is chosen as often.

References:
    Andrew, Kairouz, Oh, Oprea, McMahan, Suriyakumar. One-shot empirical privacy estimation for federated learning. ICLR
    2024, arXiv 2302.03098 (canary clients with random directions; signs by round and disjoint coordinates are ours).
    Steinke, Nasr, Jagielski. Privacy auditing with one (1) training run. NeurIPS 2023, arXiv 2305.08846 (coins).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError
from rivage.core.messages import Message
from rivage.core.seeding import Streams
from rivage.data.population import ClientData, ClientIds, Population, Schema
from rivage.federated.accounting import Release, epsilon_of
from rivage.federated.algorithm import State, Update
from rivage.federated.checkpoint import Notebook
from rivage.federated.dp_ftrl import DPFTRL
from rivage.federated.engine import Session
from rivage.federated.privacy_ledger import EVERYONE, releases_of
from rivage.federated.trial import Trial
from rivage.learning.params import from_numpy, to_numpy

__all__ = ["CanaryClients", "Scored", "coins", "ledger", "planted", "sign"]

_HEAVY = 1e12  # a canary says that it has so many records: it gets the largest weight that the server allows
_LONG = 1e6  # the norm of what a canary sends; whatever clips, clips it


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What an audit has measured.

    Args:
        scores: one column per statistic that was fixed in advance; higher says that the canary was in.
        inside: whether it was.
        ledger: what whoever of those watched spent most has released; None where nothing is promised.
    """

    scores: Float64[ndarray, "canaries statistics"]
    inside: Bool[ndarray, "canaries"]
    ledger: tuple[Release, ...] | None = None


def planted(trial: Trial, canaries: CanaryClients, *, opposed: bool = False) -> Trial:
    """The trial with canaries behind its clients, and an even number of rounds.

    Args:
        trial: to be audited.
        canaries: to be planted.
        opposed: those that are out send the opposite, not nothing.

    Raises:
        ConfigError: for more canaries than parameters.
    """
    first, rounds, dimension = trial.population.size, 2 * (trial.rounds // 2), trial.task.dimension
    trainable = max(1, first - len(trial.unseen))
    if canaries.count > dimension:
        raise ConfigError(
            f"{canaries.count} canaries in a model of {dimension} parameters", mend=f"Plant at most {dimension}."
        )
    return replace(
        trial,
        population=_Larger(trial.population, canaries.count),
        adversary=_Sends(canaries, first, opposed),
        cohort=None if trial.cohort is None else round(trial.cohort * (1 + canaries.count / trainable)),
        epoch=trial.period,
        rounds=rounds,
        every=max(rounds, 1),
    )


def ledger(trial: Trial, journal: Notebook, clients: Iterable[int]) -> tuple[Release, ...] | None:
    """Of these clients the ledger of the one that has spent most; None where nothing is promised.

    Args:
        trial: that has been played.
        journal: its events.
        clients: who is asked about; where all are accounted together, all count.
    """
    if trial.promise is None:
        return None
    start = {"event": "start", "differential_privacy": trial.promise}
    events = [start, *(event for event in journal.events if event["event"] == "round")]
    asked = {*clients, EVERYONE}
    ledgers = {own for client, own in releases_of(events).items() if client in asked}
    delta = float(trial.promise["delta"])
    return max(sorted(ledgers), key=lambda own: epsilon_of(own, delta), default=())


def coins(count: int, streams: Streams) -> Bool[ndarray, "canaries"]:
    """Which of so many canaries are in."""
    drawn: ndarray = streams.numpy("coins").random(count) < 0.5
    return drawn


@dataclass(frozen=True)
class CanaryClients:
    """Plants clients.

    Args:
        count: how many.
        streams: coins and directions.
    """

    count: int
    streams: Streams

    @cached_property
    def inside(self) -> Bool[ndarray, "canaries"]:
        """Which of them are in."""
        return coins(self.count, self.streams)

    def direction(self, canary: int, dimension: int) -> Float32[ndarray, "dim"]:
        """The unit vector u_c."""
        places, signs = _pattern(self, dimension)
        result = np.zeros(dimension, np.float32)
        result[places[canary]] = signs[canary] / np.sqrt(places.shape[1])
        return result

    def scored(self, trial: Trial) -> Scored:
        """Play the trial with the canaries in it, and score them. Time: that of the trial and O(rounds · D).

        The shared model after every round is read, and who was chosen where that is no secret: more than the final
        model tells, and no single update. A client sees as much only if it is sent the model of every round.

        Raises:
            ConfigError: for more canaries than parameters.
        """
        first, dimension = trial.population.size, trial.task.dimension
        larger = planted(trial, self)
        sends = larger.adversary
        assert isinstance(sends, _Sends)
        places, signs = _pattern(self, dimension)
        steps, sent = np.zeros((2, larger.rounds, self.count))
        journal = Notebook()
        with Session(larger, journal) as session:
            _require_one_model(session.state, dimension)
            before = to_numpy(session.state["params"]).copy()
            for event in session:
                after = to_numpy(session.state["params"]).copy()
                steps[event["round"]] = ((after - before)[places] * signs).sum(axis=1)
                before = after
        for round, canary in sends.sent:
            sent[round, canary] = 1
        secret = trial.promise is not None and trial.promise["sampling"] == "poisson"
        spent = ledger(trial, journal, range(first, first + self.count))
        scores = _scores(steps, sent, larger)
        return Scored(scores[:, :1] if secret else scores, self.inside, spent)


def _scores(
    steps: Float64[ndarray, "rounds canaries"], sent: Float64[ndarray, "rounds canaries"], trial: Trial
) -> Float64[ndarray, "canaries 2"]:
    """Both scores of all canaries."""
    signs = np.array([sign(round) for round in range(trial.rounds)])
    tree = trial.collector if isinstance(trial.collector, DPFTRL) else None
    weighed = steps if tree is None or trial.period is None else tree.weighed(steps, trial.period)
    return np.stack([signs @ steps, signs @ (sent * weighed)], axis=1)


def _require_one_model(state: State, dimension: int) -> None:
    shape = tuple(state["params"].shape) if "params" in state else None
    if shape != (dimension,):
        raise ConfigError(
            "canary clients need a method with one shared model of all parameters",
            mend="Audit the claim on FedAvg with the same noise.",
        )


@lru_cache(maxsize=2)
def _pattern(
    canaries: CanaryClients, dimension: int
) -> tuple[Int64[ndarray, "canaries block"], Float32[ndarray, "canaries block"]]:
    """Coordinates of every canary, and its signs there."""
    block = dimension // canaries.count
    order = canaries.streams.numpy("places").permutation(dimension)
    signs = canaries.streams.numpy("signs").choice(np.array([-1, 1], np.float32), (canaries.count, block))
    return order[: canaries.count * block].reshape(canaries.count, block), signs


def sign(round: int) -> int:
    """Of a round: 1 of even ones, −1 of odd ones."""
    return 1 - 2 * (round % 2)


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
    """What the canaries send, in the place where the engine asks clients that do harm; notes in which round who did."""

    canaries: CanaryClients
    first: int
    opposed: bool
    sent: set[tuple[int, int]] = field(default_factory=set, repr=False, compare=False)

    def malicious(self, ids: ClientIds, seed: int) -> Bool[ndarray, "clients"]:
        canary: ndarray = ids >= self.first
        return canary

    def corrupt(self, update: Update, down: State, client: int, streams: Streams) -> Update:
        canary, (_, weight) = client - self.first, update.payload["params"]
        self.sent.add((update.version, canary))
        sent = down["params"]
        way = 1 if self.canaries.inside[canary] else -1 if self.opposed else 0
        if way:
            direction = self.canaries.direction(canary, sent.numel())
            sent = sent + way * sign(update.version) * _LONG * from_numpy(direction, dtype=sent.dtype)
        return replace(update, payload={"params": (sent, weight)})
