"""kNN-Per: a shared model, and each client's memory of its own records beside it.

Marfoq, Neglia, Kameni, Vidal. Personalized federated learning through local memorization. ICML 2022,
arXiv 2111.09360, Algorithm 1.

A model h_S is trained together; φ(x) is the input of its last linear layer. Client m stores the pairs (φ(x_i), y_i) of
its training records, C_m of them at most, in one forward pass, and predicts with

    h_m(y | x) = λ_m h_m^kNN(y | x) + (1 − λ_m) h_S(y | x),
    h_m^kNN(y | x) = Σ_{i in N_k(x), y_i = y} K_i / Σ_{i in N_k(x)} K_i,        K_i = exp(−d_i² / (D · scale)) ,

N_k(x) being the k stored records whose φ is nearest to φ(x), d_i their Euclidean distances and D the width of φ.
λ_m = 0 is the shared model, 1 the nearest neighbours alone. For a real target the neighbours give the kernel mean of
theirs.

λ_m is chosen without test records, on a grid of 1/20 by the metric that is reported (`rivage.learning.shares`): on the
client's validation records if it has ``least`` of them; else on the stored records, each asked of a store without it; a
client with fewer than two stored records takes the median share of the others. The store is made anew before every
evaluation, from the records that the client holds then.

Deviations: the model was trained on the stored records, which flatters it where they are used to choose, so shares come
out small; validation records do not do that. ``trust`` lets a client listen to what its peers measured. With base
``fedavg+`` each client fine-tunes the model before it stores features.

Cost beyond FedAvg: at evaluation, one forward pass over the training records and a search among the stored ones for
each query; C_m (D + 1) numbers of memory. Nothing more travels in a round. Once, where a median is needed, one number
per client, and with ``trust`` 21.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.data.population import ClientData
from rivage.federated.algorithm import Local, LocalWork, Phase, Predictor, Reference, State
from rivage.federated.averaging import Averaging, global_predictor
from rivage.learning.datastore import Datastore, Keep, kept_rows
from rivage.learning.nearest import Search
from rivage.learning.neighbours import Neighbours, leave_one_out
from rivage.learning.params import from_numpy, to_numpy
from rivage.learning.shares import Evidence, score

if TYPE_CHECKING:
    from rivage.learning.task import Bound, Task

__all__ = ["KNNPer"]

_CHUNK = 1024  # records per forward pass


@dataclass(frozen=True, kw_only=True)
class KNNPer(Averaging):
    """FedAvg, interpolated with the nearest of each client's own records.

    Args:
        learning_rate: step size while training together, > 0.
        work: local epochs and batch size while training together.
        base: the model beside the neighbours: ``fedavg``, or ``fedavg+``, which each client fine-tunes first.
        tuning_rate: step size of the fine-tuning, > 0; None uses ``learning_rate``.
        tuning: epochs and batch size of the fine-tuning.
        neighbours: k, stored records that answer a query, >= 1.
        scale: of the kernel, > 0: the larger, the more the k records count alike.
        share: λ in [0, 1], the same for all clients; None lets every client choose its own.
        least: validation records from which on a client chooses on them, >= 1.
        trust: records' worth of what all clients measured that a client adds to its own when it chooses, >= 0; with 0
            it asks nobody.
        capacity: C, records that a client can store, >= 0; None stores all.
        fraction: share of its records that a client stores at most, in [0, 1].
        keep: which records stay where not all can: ``uniform`` draws, ``fifo`` keeps the newest, ``first`` the oldest.
        search: ``exact``, or ``faiss`` for large stores (the extra ``knn``).
    """

    reference: ClassVar[Reference] = Reference(
        key="marfoq22",
        authors="Othmane Marfoq and Giovanni Neglia and Laetitia Kameni and Richard Vidal",
        title="Personalized Federated Learning through Local Memorization",
        venue="ICML",
        year=2022,
        arxiv="2111.09360",
        part="Algorithm 1",
    )
    tuned: ClassVar[Mapping[str, tuple[Any, ...]]] = {"base": ("fedavg", "fedavg+")}

    learning_rate: float = 0.1
    work: Phase = Phase()
    base: Literal["fedavg", "fedavg+"] = "fedavg"
    tuning_rate: float | None = None
    tuning: Phase = Phase()
    neighbours: int = 10
    scale: float = 1.0
    share: float | None = field(default=None, metadata={"none": "auto"})
    least: int = 20
    trust: float = 0.0
    capacity: int | None = field(default=None, metadata={"none": "all"})
    fraction: float = 1.0
    keep: Keep = "uniform"
    search: Search = "exact"

    def __post_init__(self) -> None:
        require(self.learning_rate, "learning_rate", above=0)
        if self.tuning_rate is not None:
            require(self.tuning_rate, "tuning_rate", above=0)
        require(self.neighbours, "neighbours", least=1)
        require(self.scale, "scale", above=0)
        require(self.least, "least", least=1)
        require(self.trust, "trust", least=0)
        if self.capacity is not None:
            require(self.capacity, "capacity", least=0)
        for name, value in (("share", self.share), ("fraction", self.fraction)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"{name} is {value}", mend="Give a number from 0 to 1.")

    def start(
        self,
        broadcast: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """As FedAvg."""
        return Local(broadcast["params"][None])

    @property
    def adaptation(self) -> LocalWork | None:
        """The fine-tuning, if there is one."""
        if self.base == "fedavg":
            return None
        return LocalWork((self.tuning,), self.learning_rate if self.tuning_rate is None else self.tuning_rate)

    def adapt(
        self,
        state: State,
        memory: State,
        data: ClientData,
        losses: Tensor | None,
        streams: Streams,
        task: Task,
    ) -> Local:
        """The shared model, and the records to store and to choose with; features come when it is fine-tuned."""
        ids, seed = data.train.index, streams.seed("datastore")
        stored = data.train.take(kept_rows(ids, self._size(len(ids)), self.keep, seed))
        keep = dict(zip(("x", "y"), task.tensors(stored), strict=True)) | {"ids": from_numpy(stored.index)}
        if self.share is None and len(data.validation) >= self.least:
            keep |= dict(zip(("held_x", "held_y"), task.tensors(data.validation), strict=True))
        return Local(state["params"][None], keep=keep)

    def _size(self, records: int) -> int:
        """How many of so many records a client stores."""
        most = int(self.fraction * records + 0.5)
        return most if self.capacity is None else min(self.capacity, most)

    def predictor(self, state: State, memory: State, local: Local | None, task: Task) -> Predictor:
        """The model with the client's neighbours; without the client's records the shared model."""
        if local is None:
            return global_predictor(state["params"])
        params, held, schema = local.params[0] if self.adaptation else state["params"], local.keep, task.schema
        bound = task.bind()
        bound.load(params)
        store = _remembered(bound, held)
        outputs = schema.num_outputs if schema.target == "real" else schema.num_classes
        found = Neighbours(store, self.share, outputs, self.neighbours, self.scale, self.search, trust=self.trust)
        if self.share is None:
            found = replace(found, evidence=_evidence(found, bound, held, task))
        return Predictor(params[None], params.new_ones(1), found)


def _remembered(bound: Bound, held: State) -> Datastore:
    """The store of a client's records."""
    x, y, ids = held["x"], held["y"], held["ids"]
    if len(ids) == 0:  # some layers refuse a batch of nothing
        return Datastore(bound.vector.new_empty(0, 1), y.flatten(), ids)
    return Datastore.of(_by_chunks(bound.features, x), y, to_numpy(ids))


def _evidence(found: Neighbours, bound: Bound, held: State, task: Task) -> Evidence | None:
    """What the client's records say of the share; None where they cannot tell."""
    if "held_x" in held and len(found.store):
        x, y = held["held_x"], held["held_y"]
        remembered = found.predictions(_by_chunks(bound.features, x))
    elif len(held["ids"]) > 1:
        order = torch.argsort(held["ids"], stable=True)  # that of the store
        x, y = held["x"][order], held["y"][order]
        remembered = leave_one_out(found)
    else:
        return None
    predictions = _by_chunks(bound.predictions, x)
    return score(predictions, remembered.reshape(predictions.shape), y, task.metric, task.loss)


def _by_chunks(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.cat([function(part) for part in torch.split(x, _CHUNK)])
