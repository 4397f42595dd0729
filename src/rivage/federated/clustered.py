"""Clustered federated learning: FedAvg that splits its clients in two wherever they pull apart.

Sattler, Müller, Samek. Clustered federated learning: model-agnostic distributed multi-task optimization under privacy
constraints. IEEE Transactions on Neural Networks and Learning Systems, 2021, arXiv 1910.01991, Algorithms 2-3.

All clients begin in one cluster. A round is FedAvg's in each cluster c by itself. With Δ_k = w_k − θ_c and p_k = n_k /
Σ n over those of its clients that answered, the cluster is split when its model stands still while its clients do not,

    ‖Σ_k p_k Δ_k‖ < ε₁ ,     max_k ‖Δ_k‖ > ε₂ ,     and more than two of its clients answered,

in two, by complete linkage on the distances 1 − cos(Δ_i, Δ_j); each part takes the mean of its own models. Clusters are
never merged.

A client whose cluster was split without it, or that arrives later, belongs nowhere: it gets all models when it is
asked, takes the one with the least mean loss on its training records, and tells which.

Deviations: members are clients, not places in a cohort: code in circulation keeps places inside the cluster, and a
second split then mixes clients. Newcomers compare losses where the paper keeps the tree of splits and compares updates.
Norms and cosines leave out running means and variances of BatchNorm; a client that did not move is at distance 1 from
all. By default ε₁ and ε₂ are fractions of the longest update of any round so far: lengths depend on model, step size
and number of steps, and thresholds from elsewhere (0.4 and 1.6 are in circulation) may never be met, or at once.

Cost beyond FedAvg: a forward pass over the training records per client and round, for the loss that newcomers compare;
m models at the server until the round is over and O(m² D) to compare them, for a cohort of m; with C clusters, C models
down to whoever belongs nowhere. The server sees single updates, so there is no secure aggregation.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from rivage.core.errors import require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, Phase, Predictor, Reference, State, Update
from rivage.federated.averaging import Averaging, global_predictor
from rivage.learning.params import to_numpy

if TYPE_CHECKING:
    from rivage.learning.task import Task

__all__ = ["Clustered", "bipartition"]

_NOWHERE = -1  # what a client that was not asked tells
_CHUNK = 1 << 16  # coordinates that are multiplied at once


def bipartition(gram: Float64[ndarray, "m m"]) -> tuple[list[int], list[int]]:
    """The two groups that complete linkage on cosine distances joins last, each ascending; position 0 in the first.

    Args:
        gram: inner products of at least two vectors; a vector of length 0 is at distance 1 from all others.
    """
    from scipy.cluster.hierarchy import linkage, to_tree
    from scipy.spatial.distance import squareform

    norms = np.sqrt(np.diag(gram))
    lengths = np.outer(norms, norms)
    cosines = np.divide(gram, lengths, out=np.zeros_like(gram), where=lengths > 0)
    distances = np.maximum(1 - cosines, 0.0)  # rounding
    tree = to_tree(linkage(squareform(distances, checks=False), "complete"))
    parts = sorted(sorted(side.pre_order()) for side in (tree.get_left(), tree.get_right()))
    return parts[0], parts[1]


@dataclass(frozen=True, kw_only=True)
class Clustered(Averaging):
    """FedAvg in clusters that are split where clients pull apart.

    Args:
        learning_rate: local step size η, > 0.
        eps1: ε₁, below which the mean update of a cluster stands still, > 0.
        eps2: ε₂, above which some client of it does not, >= 0.
        relative: whether both are fractions of the longest update so far, or lengths.
        work: local epochs and batch size.
    """

    reference: ClassVar[Reference] = Reference(
        key="sattler21",
        authors="Felix Sattler and Klaus-Robert Müller and Wojciech Samek",
        title="Clustered Federated Learning: Model-Agnostic Distributed Multitask Optimization Under Privacy "
        "Constraints",
        venue="IEEE Transactions on Neural Networks and Learning Systems",
        year=2021,
        arxiv="1910.01991",
        part="Algorithms 2 and 3",
        entry="article",
    )
    needs: ClassVar[Literal["sum", "each"]] = "each"
    needs_losses: ClassVar[bool] = True
    tuned: ClassVar[Mapping[str, tuple[float, ...]]] = {"eps1": (0.1, 0.2, 0.3)}

    learning_rate: float = 0.1
    eps1: float = 0.2
    eps2: float = 0.5
    relative: bool = True
    work: Phase = Phase()

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        require(self.eps1, "eps1", above=0)
        require(self.eps2, "eps2", least=0)

    def init(self, task: Task, clients: int, streams: Streams) -> State:
        """One model, and nobody who has answered yet."""
        return {
            "params": task.initial(streams.seed("model"))[None],
            "clients": torch.empty(0, dtype=torch.int64),  # those that belong somewhere, ascending
            "clusters": torch.empty(0, dtype=torch.int64),  # and where
            "lengths": torch.zeros(3, dtype=torch.float64),  # the longest update so far; see `report`
        }

    def broadcast(self, state: State, client: int, task: Task) -> State:
        """The model of the client's cluster; all of them, ``[C, D]``, for whoever belongs nowhere."""
        number = _cluster(state, client)
        return {"params": state["params"] if number is None else state["params"][number]}

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records groups"] | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """From the cluster's model, or from the one that fits best."""
        params = broadcast["params"]
        known = params.ndim == 1
        number = _NOWHERE if known else _best(losses)
        chosen = params if known else params[number]
        return Local(chosen[None], keep={"start": chosen, "cluster": torch.tensor([number])})

    def finish(self, local: Local, task: Task) -> Update:
        """The change of the model, and which one the client took if it was asked."""
        change = local.params[0] - local.keep["start"]
        return Update({"change": (change, local.weight), "cluster": (local.keep["cluster"], 1.0)})

    def aggregate(self, state: State, received: Sequence[Update], task: Task) -> State:  # type: ignore[override]
        """Every cluster's mean, after those that pull apart have been split."""
        models, members = list(state["params"]), _members(state)
        groups = _groups(state, received, task.layout.trainable)
        longest = max(group.longest for group in groups)
        scale = max(float(state["lengths"][0]), longest)
        for group in groups:
            model, parts = models[group.number], self._parts(group, scale)
            if len(parts) > 1:  # who was not there to be sorted belongs nowhere
                members = {client: number for client, number in members.items() if number != group.number}
            for number, part in zip((group.number, len(models)), parts, strict=False):
                members |= dict.fromkeys((update.client for update in part), number)
                models[number : number + 1] = [model + _mean(part)]
        clients = sorted(members)
        return {
            "params": torch.stack(models),
            "clients": torch.tensor(clients),
            "clusters": torch.tensor([members[client] for client in clients]),
            "lengths": state["lengths"].new_tensor((scale, min(group.step for group in groups), longest)),
        }

    def _parts(self, group: _Group, scale: float) -> list[list[Update]]:
        """The group, or its two parts."""
        unit = scale if self.relative else 1.0
        if len(group.members) <= 2 or not (group.step < self.eps1 * unit and group.longest > self.eps2 * unit):
            return [group.members]
        return [[group.members[i] for i in part] for part in bipartition(group.gram)]

    @property
    def adaptation(self) -> None:
        """Nothing is trained to adapt."""

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Float[Tensor, "records groups"] | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The model of the client's cluster, or for whoever belongs nowhere the one that fits best."""
        known = _cluster(state, data.id)
        number = _best(losses) if known is None else known
        return Local(state["params"][number : number + 1])

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The model of a cluster; of the largest one for clients nobody knows."""
        if local is not None:
            return global_predictor(local.params[0])
        return global_predictor(state["params"][int(state["clusters"].bincount(minlength=1).argmax())])

    def report(self, state: State) -> Mapping[str, float]:
        """Clusters, and the lengths in the last round that are compared with ε₁ and ε₂."""
        _, step, longest = state["lengths"].tolist()
        return {"clusters": float(len(state["params"])), "shortest_mean_update": step, "longest_update": longest}


@dataclass(frozen=True, slots=True)
class _Group:
    """Members of one cluster that answered.

    Args:
        number: of the cluster.
        members: their updates, by client.
        gram: inner products of their moves.
    """

    number: int
    members: list[Update]
    gram: Float64[ndarray, "m m"]

    @property
    def longest(self) -> float:
        """max_k ‖Δ_k‖."""
        return math.sqrt(np.diag(self.gram).max())

    @property
    def step(self) -> float:
        """‖Σ_k p_k Δ_k‖; infinite where nobody counts."""
        weights = np.array([update.payload["change"][1] for update in self.members])
        if not weights.sum() > 0:
            return math.inf
        shares = weights / weights.sum()
        return math.sqrt(max(shares @ self.gram @ shares, 0.0))


def _groups(state: State, received: Sequence[Update], size: int) -> list[_Group]:
    """The updates by the cluster of their clients; only the first ``size`` coordinates are compared."""
    found: dict[int, list[Update]] = defaultdict(list)
    for update in sorted(received, key=lambda update: update.client):
        number = _cluster(state, update.client)
        told = int(update.payload["cluster"][0][0])
        # A client may tell anything.
        found[min(max(told, 0), len(state["params"]) - 1) if number is None else number].append(update)
    return [
        _Group(number, members, _gram([update.payload["change"][0][:size] for update in members]))
        for number, members in sorted(found.items())
    ]


def _gram(changes: Sequence[Float[Tensor, "d"]]) -> Float64[ndarray, "m m"]:
    """Inner products."""
    total = torch.zeros((len(changes), len(changes)), dtype=torch.float64, device=changes[0].device)
    for low in range(0, len(changes[0]), _CHUNK):
        rows = torch.stack([change[low : low + _CHUNK] for change in changes]).double()
        total += rows @ rows.T
    gram: Float64[ndarray, "m m"] = to_numpy(total)
    return gram


def _members(state: State) -> dict[int, int]:
    """The cluster of every client that belongs somewhere."""
    return dict(zip(state["clients"].tolist(), state["clusters"].tolist(), strict=True))


def _cluster(state: State, client: int) -> int | None:
    """The client's cluster; None for whoever belongs nowhere."""
    place = int(torch.searchsorted(state["clients"], client))
    if place == len(state["clients"]) or int(state["clients"][place]) != client:
        return None
    return int(state["clusters"][place])


def _best(losses: Float[Tensor, "records clusters"] | None) -> int:
    """The model with the least mean loss; the first one without records."""
    assert losses is not None, "needs_losses"
    return int(losses.mean(dim=0).argmin()) if len(losses) else 0


def _mean(part: Sequence[Update]) -> Float[Tensor, "d"]:
    """The weighted mean of changes; none if all of them have weight 0."""
    total = sum(update.payload["change"][1] for update in part)
    mean = torch.zeros_like(part[0].payload["change"][0])
    for update in part if total > 0 else ():
        change, weight = update.payload["change"]
        mean.add_(change, alpha=weight / total)
    return mean
