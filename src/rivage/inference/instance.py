"""Inference delivery networks: what can be placed where, and what may be asked.

Si Salem, Castellano, Neglia, Pianese, Araldo. Towards inference delivery networks: distributing machine learning with
optimality guarantees. IEEE/ACM Transactions on Networking 32(1), 2024, arXiv 2105.02510.

Node v holds models of total size b_v at most. A *request type* ρ is a task and a path p_1 … p_J from the node where
requests enter to one that always holds a model of the task; any model of the task on the way may answer. By the model m
on the j-th node that costs

    C = Σ_{i<j} w(p_i, p_{i+1}) + d_m + α (1 − a_m):

network round trip, inference delay on the node's hardware, and inaccuracy, α milliseconds per point of accuracy; more
where a deadline is missed.
*Pinned* models are always there (ω); an *allocation* x is a 0/1 matrix over nodes and models with x >= ω.

The possibilities of a type are *ranked* by cost, ties by fewer links and then by number of the model: `Ranking` is the
list of all of them. It ends where a pinned model takes whatever comes, since nothing beyond that is ever used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.settings import combine

__all__ = ["Instance", "Ranking"]

_LISTED = 20  # problems shown at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """What can answer each request type, cheapest first.

    Args:
        first: where the possibilities of each type begin, and at the end how many there are.
        node: that answers.
        model: with which it answers.
        hop: its place on the path, from 0.
        cost: γ, ascending within a type, milliseconds and inaccuracy together.
        latency_ms: what the answer takes: network and inference.
        place: node · models + model, the place in a flattened allocation.
    """

    first: Int64[ndarray, "n"]
    node: Int64[ndarray, "ranks"]
    model: Int64[ndarray, "ranks"]
    hop: Int64[ndarray, "ranks"]
    cost: Float64[ndarray, "ranks"]
    latency_ms: Float64[ndarray, "ranks"]
    place: Int64[ndarray, "ranks"]

    def __len__(self) -> int:
        return len(self.cost)

    @cached_property
    def type(self) -> Int64[ndarray, "ranks"]:
        """Request type of each possibility."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """A network with its models and request types; arrays are kept as they are given.

    Args:
        task: task that each model does.
        accuracy: of each model, in [0, 1].
        sizes: of each model on each node, > 0, in the unit of ``budgets``; inf where it cannot run.
        delays_ms: inference delay of each model on each node, >= 0.
        throughput: requests of a slot that a model serves on a node when it is alone, > 0; inf for as many as come.
        budgets: what each node holds, >= 0; inf for no limit.
        pinned: models that a node always holds; they count in its budget.
        asked: task of each request type.
        paths: nodes of each type's path, from where it enters; −1 fills up shorter ones.
        latency_ms: round trip from the first node of each path to each other one, ascending.
        alpha: α >= 0, milliseconds that one point of accuracy, 0.01, is worth.
        deadline_ms: after which an answer to each type comes too late; inf without; None for no deadlines.
        late_cost: >= 0, what an answer after its deadline costs more.
        keep_oversize: whether models beyond a node's budget take part there all the same. Then no guarantee holds; only
            published figures need it.
        nodes, models, tasks: names.

    Raises:
        ConfigError: listing all that is wrong.
    """

    task: Int64[ndarray, "models"]
    accuracy: Float64[ndarray, "models"]
    sizes: Float64[ndarray, "nodes models"]
    delays_ms: Float64[ndarray, "nodes models"]
    throughput: Float64[ndarray, "nodes models"]
    budgets: Float64[ndarray, "nodes"]
    pinned: Bool[ndarray, "nodes models"]
    asked: Int64[ndarray, "types"]
    paths: Int64[ndarray, "types longest"]
    latency_ms: Float64[ndarray, "types longest"]
    alpha: float = 1.0
    deadline_ms: Float64[ndarray, "types"] | None = None
    late_cost: float = 0.0
    keep_oversize: bool = False
    nodes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(self.alpha, "alpha", least=0.0)
        require(self.late_cost, "late_cost", least=0.0)
        found = list(self._misshapen()) or list(self._faults())
        if len(found) > _LISTED:
            found[_LISTED:] = [_fault(f"and {len(found) - _LISTED} more problems", "Mend these first.")]
        if found:
            raise combine(found, "inference delivery network")

    @property
    def shape(self) -> tuple[int, int]:
        """Nodes and models."""
        return len(self.budgets), len(self.task)

    @property
    def types(self) -> int:
        """Request types."""
        return len(self.asked)

    @cached_property
    def usable(self) -> Bool[ndarray, "nodes models"]:
        """Where each model could be: it runs there, and fits beside what is pinned."""
        room = (self.free_budgets * (1 + 1e-12))[:, None] if not self.keep_oversize else np.inf
        fits: Bool[ndarray, "nodes models"] = self.pinned | (np.isfinite(self.sizes) & (self.sizes <= room))
        return fits

    @cached_property
    def free(self) -> Bool[ndarray, "nodes models"]:
        """What there is to decide: models that could be on a node and are not pinned there."""
        return np.asarray(self.usable & ~self.pinned)

    @cached_property
    def free_budgets(self) -> Float64[ndarray, "nodes"]:
        """What each node has left beside its pinned models."""
        left = self.budgets - np.where(self.pinned, self.sizes, 0.0).sum(axis=1)
        return np.asarray(np.maximum(left, 0.0))

    @cached_property
    def ranking(self) -> Ranking:
        """All possibilities, cheapest first. O(K log K) for K of them."""
        hops = np.arange(self.paths.shape[1])
        parts = [self._ranked(type_, hops) for type_ in range(self.types)]
        counts = [len(part[0]) for part in parts]
        node, model, hop, cost, latency = (np.concatenate(column) for column in zip(*parts, strict=True))
        return Ranking(
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            node=node,
            model=model,
            hop=hop,
            cost=cost,
            latency_ms=latency,
            place=node * len(self.task) + model,
        )

    def _ranked(self, type_: int, hops: Int64[ndarray, "longest"]) -> tuple[ndarray, ...]:
        """Nodes, models, hops, costs and latencies of one type, in order, down to the first that takes all."""
        path, models = self.paths[type_], self._of_task[self.asked[type_]]
        inside = hops[path >= 0]
        usable = self.usable[np.ix_(path[inside], models)]
        at, which = np.nonzero(usable)
        hop, node, model = inside[at], path[inside[at]], models[which]
        latency = self.latency_ms[type_, hop] + self.delays_ms[node, model]
        cost = latency + 100.0 * self.alpha * (1.0 - self.accuracy[model])
        if self.deadline_ms is not None:
            cost = cost + self.late_cost * (latency > self.deadline_ms[type_])
        order = np.lexsort((model, hop, cost))
        last = np.flatnonzero(self.takes_all[node[order], model[order]])
        order = order[: last[0] + 1] if last.size else order
        return node[order], model[order], hop[order], cost[order], latency[order]

    @cached_property
    def takes_all(self) -> Bool[ndarray, "nodes models"]:
        """Pinned models that serve as many requests as come."""
        return np.asarray(self.pinned & np.isinf(self.throughput))

    @cached_property
    def absorbs(self) -> bool:
        """Whether every type ends at a model that takes all: no batch is too large."""
        last = self.ranking.first[1:] - 1
        return bool(self.takes_all.ravel()[self.ranking.place[last]].all())

    @cached_property
    def single_pinned(self) -> bool:
        """Whether each type has one pinned model in its ranking, which takes all: rounding keeps 1 − 1/e of gains."""
        pinned = self.pinned.ravel()[self.ranking.place]
        return self.absorbs and int(np.count_nonzero(pinned)) == self.types

    @cached_property
    def _of_task(self) -> tuple[Int64[ndarray, "n"], ...]:
        tasks = int(max(self.task.max(), self.asked.max())) + 1
        return tuple(np.flatnonzero(self.task == task) for task in range(tasks))

    def node_name(self, node: int) -> str:
        """Its name, or its number."""
        return self.nodes[node] if self.nodes else str(node)

    def model_name(self, model: int) -> str:
        """Its name, or its number."""
        return self.models[model] if self.models else str(model)

    def task_name(self, task: int) -> str:
        """Its name, or its number."""
        return self.tasks[task] if self.tasks else str(task)

    def _misshapen(self) -> Iterator[ConfigError]:
        nodes, models = self.budgets.shape[0], self.task.shape[0]
        types, longest = self.asked.shape[0], self.paths.shape[1] if self.paths.ndim == 2 else -1
        wanted = {
            "accuracy": (models,),
            "sizes": (nodes, models),
            "delays_ms": (nodes, models),
            "throughput": (nodes, models),
            "pinned": (nodes, models),
            "paths": (types, longest),
            "latency_ms": (types, longest),
        }
        if self.deadline_ms is not None:
            wanted["deadline_ms"] = (types,)
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                yield _fault(f"{name} has shape {getattr(self, name).shape}, not {shape}", "Give it that shape.")
        for name, count in {"nodes": nodes, "models": models}.items():
            given = getattr(self, name)
            if given and len(given) != count:
                yield _fault(f"{len(given)} names for {count} {name}", "Name each, or none.")
            for twice in sorted({each for each in given if given.count(each) > 1}):
                yield _fault(f'two {name} are called "{twice}"', "Give each a name of its own.")
        if not (nodes and models and types):
            yield _fault(f"{nodes} nodes, {models} models, {types} request types", "Give at least one of each.")
        elif min(self.task.min(), self.asked.min()) < 0:
            yield _fault("a task is negative", "Number tasks from 0 on.")

    def _faults(self) -> Iterator[ConfigError]:
        yield from self._model_faults()
        yield from self._node_faults()
        paths = list(self._path_faults())
        yield from paths
        if not paths:
            yield from self._unserved()

    def _model_faults(self) -> Iterator[ConfigError]:
        runs, known = np.isfinite(self.sizes), bool((self.budgets >= 0).all())
        for model in range(len(self.task)):
            name = f"model {self.model_name(model)} of task {self.task_name(int(self.task[model]))}"
            on = runs[:, model]
            if not 0 <= self.accuracy[model] <= 1:
                what = f"{name} has accuracy {self.accuracy[model]:g}"
                yield _fault(what, "Give a share in [0, 1]: 62.8 % is 0.628.")
            if not (self.sizes[:, model] > 0).all():
                what = f"{name} has size {np.min(self.sizes[:, model]):g}"
                yield _fault(what, "Give sizes above 0; inf where it cannot run.")
            elif known and not self._somewhere[model]:
                yield self._homeless(model, name)
            if not (self.delays_ms[on, model] >= 0).all():
                yield _fault(f"{name} has a delay that is negative or missing", "Give one >= 0 wherever it can run.")
            if not (self.throughput[on, model] > 0).all():
                yield _fault(f"{name} has a throughput that is not above 0", "Give one wherever it can run.")

    @cached_property
    def _somewhere(self) -> Bool[ndarray, "models"]:
        return np.asarray(self.usable.any(axis=0))

    def _homeless(self, model: int, name: str) -> ConfigError:
        """A model that no node could hold."""
        sizes = self.sizes[:, model]
        if not np.isfinite(sizes).any():
            return _fault(
                f"{name} can run on no node", "Leave it out, or give its size on some hardware that is there."
            )
        return _fault(
            f"{name} needs {sizes.min():g}, more than any node has left, {self.free_budgets.max():g} at most",
            "Leave it out, raise a budget, or pin it.",
        )

    def _node_faults(self) -> Iterator[ConfigError]:
        pinned = np.where(self.pinned, self.sizes, 0.0).sum(axis=1)
        for node, budget in enumerate(self.budgets):
            name = f"node {self.node_name(node)}"
            if not budget >= 0:
                yield _fault(f"{name} has budget {budget:g}", "Give one >= 0.")
            elif np.isinf(self.sizes[node, self.pinned[node]]).any():
                yield _fault(f"{name} has a pinned model that cannot run there", "Pin it elsewhere, or give its size.")
            elif pinned[node] > budget * (1 + 1e-12):
                what = f"{name} has pinned models of size {pinned[node]:g}, budget {budget:g}"
                yield _fault(what, "Raise the budget: what is pinned counts in it.")

    def _path_faults(self) -> Iterator[ConfigError]:
        for type_, path in enumerate(self.paths):
            on = path[path >= 0]
            latency = self.latency_ms[type_, : len(on)]
            name = f"request type {type_}"
            if not on.size or (path[: len(on)] < 0).any() or (on >= len(self.budgets)).any():
                what = f"the path of {name}, {path.tolist()}, is no list of nodes"
                yield _fault(what, f"Nodes are 0 to {len(self.budgets) - 1}, then −1.")
            elif len(set(on.tolist())) < len(on):
                what = f"the path of {name}, {on.tolist()}, is not simple"
                yield _fault(what, "Let it visit each node once.")
            elif not (np.isfinite(latency).all() and latency[0] >= 0 and (np.diff(latency) >= 0).all()):
                what = f"{name} has latencies {latency.tolist()}"
                yield _fault(what, "Give finite round trips from the first node that never fall.")
            elif self.deadline_ms is not None and not self.deadline_ms[type_] >= 0:
                yield _fault(f"{name} has deadline {self.deadline_ms[type_]:g}", "Give one >= 0, or inf.")

    def _unserved(self) -> Iterator[ConfigError]:
        """Types whose path has no pinned model of their task: their requests may find nobody."""
        for type_, path in enumerate(self.paths):
            on, task = path[path >= 0], self.asked[type_]
            if not self.pinned[np.ix_(on, self.task == task)].any():
                where = " → ".join(self.node_name(node) for node in on.tolist())
                what = f"no node of {where} has a pinned model of task {self.task_name(int(task))}"
                yield _fault(what, "Pin one, or let the path go on to where one is: some requests may find nobody.")


def _fault(what: str, mend: str) -> ConfigError:
    return ConfigError(what, mend=mend)
