"""Where statements about topologies are tested: softmax regression on nodes with data that are split in two ways.

Random: all records are dealt at random. Per class: each node holds records of one class, or of few, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from rivage.core.seeding import Streams
from rivage.data.dataset import Arrays, Source
from rivage.decentralized.probing import Mixing, descend, forecasts, probe
from rivage.graphs import cycle, exponential, metropolis, pull_weights, random_regular, torus

__all__ = [
    "GRAPHS",
    "Compared",
    "Problem",
    "Softmax",
    "Split",
    "compare",
    "gaussian_classes",
    "iterations_to",
    "loss_curve",
    "mixing_matrices",
    "records_of",
    "softmax",
]

Split = Literal["random", "per class"]
Features = Float64[ndarray, "records features"]
Labels = Int64[ndarray, "records"]
Matrix = Float64[ndarray, "nodes nodes"]
Params = Float64[ndarray, "dim"]


class Problem(Protocol):
    """A sum of losses at nodes."""

    @property
    def nodes(self) -> int:
        """How many."""
        ...

    def __call__(self, params: Float64[ndarray, "nodes dim"], batch: int) -> Float64[ndarray, "nodes dim"]:
        """Stochastic gradients, as `rivage.decentralized.probing.Gradients`."""
        ...

    def loss(self, params: Params) -> float:
        """F of one model."""
        ...


@dataclass(frozen=True, eq=False)
class Softmax:
    """Softmax regression without intercept at every node; parameters are [classes · features], flat.

    Args:
        x: inputs of each node.
        y: classes of each node.
        classes: how many there are.
        batch_size: records of a stochastic gradient, without repetition; None takes all.
        seed: of the batches.
    """

    x: Float64[ndarray, "nodes records features"]
    y: Int64[ndarray, "nodes records"]
    classes: int
    batch_size: int | None
    seed: int

    @property
    def nodes(self) -> int:
        """How many."""
        return len(self.y)

    @property
    def start(self) -> Float64[ndarray, "dim"]:
        """The model that knows nothing."""
        return np.zeros(self.classes * self.x.shape[2])

    def __call__(self, params: Float64[ndarray, "nodes dim"], batch: int) -> Float64[ndarray, "nodes dim"]:
        """The gradients of the mean losses of a batch."""
        x, y = self._rows(batch)
        weights = params.reshape(self.nodes, self.classes, -1)
        logits = x @ weights.transpose(0, 2, 1)
        errors = np.exp(logits - logits.max(axis=2, keepdims=True))
        errors /= errors.sum(axis=2, keepdims=True)
        errors[np.arange(self.nodes)[:, None], np.arange(y.shape[1]), y] -= 1
        return np.asarray((errors.transpose(0, 2, 1) @ x / y.shape[1]).reshape(params.shape))

    def loss(self, params: Float64[ndarray, "dim"]) -> float:
        """F: the mean loss of one model on the records of all nodes."""
        x, y = self._all
        logits = x @ params.reshape(self.classes, -1).T
        highest = logits.max(axis=1)
        losses = np.log(np.exp(logits - highest[:, None]).sum(axis=1)) + highest - logits[np.arange(len(y)), y]
        return float(losses.mean())

    def _rows(self, batch: int) -> tuple[ndarray, ndarray]:
        if self.batch_size is None or self.batch_size >= self.y.shape[1]:
            return self.x, self.y
        order = np.random.default_rng([self.seed, batch]).random(self.y.shape)
        rows = np.argpartition(order, self.batch_size, axis=1)[:, : self.batch_size]
        nodes = np.arange(self.nodes)[:, None]
        return self.x[nodes, rows], self.y[nodes, rows]

    @cached_property
    def _all(self) -> tuple[Features, Labels]:
        return self.x.reshape(-1, self.x.shape[2]), self.y.reshape(-1)


def gaussian_classes(
    seed: int, *, classes: int = 16, features: int = 10, per_class: int = 200
) -> tuple[Features, Labels]:
    """Records of unit noise around class means that are drawn from N(0, I)."""
    rng = Streams(seed).numpy("classes")
    centers = rng.normal(size=(classes, features))
    x = centers[:, None] + rng.normal(size=(classes, per_class, features))
    return x.reshape(-1, features), np.repeat(np.arange(classes), per_class)


def records_of(source: Source) -> tuple[Features, Labels]:
    """Inputs as vectors with a constant 1 at the end, and classes.

    Raises:
        DataError: when the files are missing.
    """
    records = source.load(0).records
    assert isinstance(records, Arrays)
    x = records.x.reshape(len(records.x), -1).astype(np.float64)
    return np.c_[x, np.ones(len(x))], np.asarray(records.y, np.int64)


def softmax(x: Features, y: Labels, split: Split, *, nodes: int, batch_size: int | None, seed: int) -> Softmax:
    """The records dealt to the nodes, equally many to each; a few are left out where they do not divide.

    Args:
        x: inputs.
        y: classes.
        split: ``random``, or ``per class``: sorted by class, then cut, and the parts put on the nodes at random.
        nodes: how many.
        batch_size: of a stochastic gradient; None takes all records of a node.
        seed: of the deal and the batches.
    """
    rng = Streams(seed).numpy("deal")
    order = rng.permutation(len(y))
    if split == "per class":
        order = order[np.argsort(y[order], kind="stable")]
    each = len(y) // nodes
    kept = order[np.linspace(0, len(y) - 1, nodes * each).round().astype(int)].reshape(nodes, each)
    kept = kept[rng.permutation(nodes)]
    return Softmax(x[kept], y[kept], int(y.max()) + 1, batch_size, Streams(seed).seed("batches"))


GRAPHS = ("complete", "exponential", "random 4-regular", "torus", "directed ring", "ring", "path", "star")


def mixing_matrices(nodes: int, seed: int, names: Iterable[str] = GRAPHS) -> dict[str, Matrix]:
    """Doubly stochastic weights of graphs by name, one of `GRAPHS`; random ones are drawn from the seed."""
    return {name: _mixing(name, nodes, seed) for name in names}


def _mixing(name: str, nodes: int, seed: int) -> Matrix:
    """Metropolis weights, and plain means on the two directed graphs."""
    links = np.zeros((nodes, nodes))
    if name == "complete":
        return np.full((nodes, nodes), 1 / nodes)
    if name == "directed ring":
        return pull_weights(np.roll(np.eye(nodes), 1, axis=1))
    if name == "exponential":
        links[tuple(exponential(nodes).T)] = 1
        return pull_weights(links)
    if name == "path":
        return metropolis(np.eye(nodes, k=1) + np.eye(nodes, k=-1))
    if name == "star":
        links[0, 1:] = links[1:, 0] = 1
        return metropolis(links)
    rows = max(r for r in range(1, int(nodes**0.5) + 1) if nodes % r == 0)
    network = {
        "random 4-regular": partial(random_regular, nodes, 4, Streams(seed).numpy("graph")),
        "ring": partial(cycle, nodes),
        "torus": partial(torus, rows, nodes // rows),
    }[name]()
    return metropolis(network.adjacency.astype(np.float64))


def iterations_to(
    problem: Problem,
    start: Params,
    graphs: Mapping[str, Mixing],
    *,
    rate: float,
    at: int = 150,
    most: int = 900,
) -> dict[str, float]:
    """Iterations until the mean model is as good as that of exact averages after ``at``; inf beyond ``most``.

    Args:
        problem: what is minimised.
        start: the model that all start from.
        graphs: mixing matrices by name.
        rate: η.
        at: when the target is read off.
        most: where to give up.
    """
    target = loss_curve(
        problem, start, np.full((problem.nodes, problem.nodes), 1 / problem.nodes), rate=rate, iterations=at
    )[-1]
    found: dict[str, float] = {}
    for name, weights in graphs.items():
        steps = descend(problem, np.tile(start, (problem.nodes, 1)), weights, rate=rate, iterations=most)
        reached = (k for k, params in enumerate(steps) if problem.loss(params.mean(axis=0)) <= target)
        found[name] = next(reached, float("inf"))
    return found


def loss_curve(
    problem: Problem, start: Params, weights: Mixing, *, rate: float, iterations: int
) -> Float64[ndarray, "iterations+1"]:
    """Loss of the mean model."""
    steps = descend(problem, np.tile(start, (problem.nodes, 1)), weights, rate=rate, iterations=iterations)
    return np.array([problem.loss(params.mean(axis=0)) for params in steps])


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Iterations over those of exact averages, by graph.

    Args:
        measured: in training.
        predicted: by rehearsals of a probe.
        kappa: κ by the same probe.
        ratio: √(H E_sp) / E by the same probe.
    """

    measured: Mapping[str, float]
    predicted: Mapping[str, float]
    kappa: Mapping[str, float]
    ratio: float


def compare(
    problem: Problem,
    start: Params,
    graphs: Mapping[str, Matrix],
    *,
    rate: float,
    probed: int = 50,
    at: int = 150,
    most: int = 900,
) -> Compared:
    """Train over every graph, and hold the iterations against what a probe says; batches of both are the same."""
    counts = iterations_to(problem, start, graphs, rate=rate, at=at, most=most)
    found = probe(problem, start, problem.nodes, rate=rate, iterations=probed, candidates=graphs)
    said = {each.name: each for each in forecasts(found, graphs)}
    return Compared(
        measured={name: count / at for name, count in counts.items()},
        predicted={name: said[name].slowdown for name in graphs},
        kappa={name: kappa for name in graphs if (kappa := said[name].kappa) is not None},
        ratio=found.energy.ratio,
    )
