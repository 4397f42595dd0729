"""Splitting records among clients: heterogeneity on purpose.

Every partition is a frozen dataclass whose `deal` is a pure function of what it may look at (`Hand`) and a
generator; the parts are disjoint and cover all records. None rejects and tries again, so none can hang:
with more clients than records some clients get nothing.

References:
    McMahan, Moore, Ramage, Hampson, Agüera y Arcas. Communication-efficient learning of deep networks from
    decentralized data. AISTATS 2017, arXiv 1602.05629 (pathological shards).

    Marfoq, Neglia, Bellet, Kameni, Vidal. Federated multi-task learning under a mixture of distributions.
    NeurIPS 2021, arXiv 2108.10252 (Dirichlet over clients for each group of labels).

    Li, McCallum. Pachinko allocation: DAG-structured mixture models of topic correlations. ICML 2006.

    Reddi et al. Adaptive federated optimization. ICLR 2021, arXiv 2003.00295 (Pachinko as a partition).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int64, Shaped
from numpy import ndarray

from rivage.core.errors import ConfigError, nearest, require
from rivage.core.registry import Registry

__all__ = [
    "IID",
    "PARTITIONS",
    "Dirichlet",
    "Hand",
    "Natural",
    "Pachinko",
    "Partition",
    "Pathological",
    "Quantity",
]

Rows = Int64[ndarray, "_"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hand:
    """What a partition may look at.

    Args:
        size: number of records n.
        labels: class of each record; None if the target is no class.
        coarse: super-class of each record, where there is one.
        attributes: name -> text per record.
    """

    size: int
    labels: Int64[ndarray, "n"] | None = None
    coarse: Int64[ndarray, "n"] | None = None
    attributes: Mapping[str, Shaped[ndarray, "n"]] = field(default_factory=dict)

    def classes(self, wanted_by: str) -> Int64[ndarray, "n"]:
        """The labels.

        Raises:
            ConfigError: if there are none.
        """
        if self.labels is None:
            raise ConfigError(
                f"{wanted_by} splits by class, but the target is no class",
                where="[partition]",
                mend='Use kind = "iid", "quantity" or "natural".',
            )
        return self.labels


@runtime_checkable
class Partition(Protocol):
    """A registered kind of ``[partition]``."""

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """Name of each client -> its records; every record once."""
        ...


@dataclass(frozen=True, slots=True)
class IID:
    """A random split into parts of equal size (they differ by at most one record).

    Args:
        clients: number of clients T, >= 1.
    """

    clients: int

    def __post_init__(self) -> None:
        require(self.clients, "clients", least=1)

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """O(n)."""
        return _numbered(np.array_split(rng.permutation(hand.size), self.clients))


@dataclass(frozen=True, slots=True)
class Dirichlet:
    """Label skew: for each group of labels, its records go to clients in proportions drawn from Dir(α 1_T).

    The proportions are over *clients* for each group of labels, not over labels for each client. The C
    labels are shuffled and divided into K groups of near-equal size; the records of a group are pooled and
    shuffled; w ~ Dir(α 1_T), counts ~ Multinomial(group size, w), cut.

    Args:
        clients: number of clients T, >= 1.
        alpha: concentration α > 0; small is skewed, large is uniform.
        clusters: number of groups K of labels; -1 means one for each label.
    """

    clients: int
    alpha: float
    clusters: int = -1

    def __post_init__(self) -> None:
        require(self.clients, "clients", least=1)
        require(self.alpha, "alpha", above=0.0)
        if self.clusters < 1 and self.clusters != -1:
            raise ConfigError(f"clusters is {self.clusters}", mend="Give at least 1, or -1 for one per label.")

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """O(n + T K)."""
        labels = hand.classes("dirichlet")
        values = rng.permutation(np.unique(labels))
        groups = min(self.clusters, len(values)) if self.clusters > 0 else len(values)
        taken = [
            _cut(rng.permutation(np.flatnonzero(np.isin(labels, group))), self._weights(rng), rng)
            for group in np.array_split(values, groups)
        ]
        return _numbered([np.concatenate(pieces) for pieces in zip(*taken, strict=True)])

    def _weights(self, rng: np.random.Generator) -> Float64[ndarray, "clients"]:
        weights = rng.dirichlet(np.full(self.clients, self.alpha))
        normalized: Float64[ndarray, "clients"] = weights / weights.sum()
        return normalized


@dataclass(frozen=True, slots=True)
class Pathological:
    """Few labels per client: records sorted by label, cut into T·s shards, s of them dealt to each client.

    Args:
        clients: number of clients T, >= 1.
        shards: shards s per client, >= 1.
    """

    clients: int
    shards: int = 2

    def __post_init__(self) -> None:
        require(self.clients, "clients", least=1)
        require(self.shards, "shards", least=1)

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """O(n log n + T s)."""
        order = np.argsort(hand.classes("pathological"), kind="stable")
        cut = np.array_split(order, self.clients * self.shards)
        dealt = rng.permutation(len(cut)).reshape(self.clients, self.shards)
        return _numbered([np.concatenate([cut[shard] for shard in own]) for own in dealt])


@dataclass(frozen=True, slots=True)
class Pachinko:
    """Label skew on two levels: a client has Dir(α) over super-classes and Dir(β) over the classes of each.

    A client draws its n/T records one by one: super-class, class, then a record that is still there. What
    is exhausted leaves the draw and the rest is renormalised; when all that a client likes is gone, it
    takes what is left in proportion to its amount.

    Args:
        clients: number of clients T, >= 1.
        alpha: concentration over super-classes, > 0.
        beta: concentration over the classes within a super-class, > 0.
    """

    clients: int
    alpha: float = 0.4
    beta: float = 10.0

    def __post_init__(self) -> None:
        require(self.clients, "clients", least=1)
        require(self.alpha, "alpha", above=0.0)
        require(self.beta, "beta", above=0.0)

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """O(n · number of classes)."""
        labels = hand.classes("pachinko")
        if hand.coarse is None:
            raise ConfigError(
                "pachinko splits by super-class, and these records have none",
                where="[partition]",
                mend='Give the data an array "coarse", or use kind = "dirichlet".',
            )
        pairs, codes = np.unique(np.stack([hand.coarse, labels]), axis=1, return_inverse=True)
        coarse = np.unique(pairs[0], return_inverse=True)[1]
        piles = [rng.permutation(np.flatnonzero(codes.ravel() == code)).tolist() for code in range(len(coarse))]
        sizes = [len(part) for part in np.array_split(np.empty(hand.size), self.clients)]
        return _numbered([self._draw(size, coarse, piles, rng) for size in sizes])

    def _draw(
        self, size: int, coarse: Int64[ndarray, "classes"], piles: list[list[int]], rng: np.random.Generator
    ) -> Rows:
        """The records of one client, taken off the piles."""
        top = rng.dirichlet(np.full(coarse.max() + 1, self.alpha))
        within = np.empty(len(coarse))
        for group in range(len(top)):
            within[coarse == group] = rng.dirichlet(np.full(np.count_nonzero(coarse == group), self.beta))
        left = np.array([len(pile) for pile in piles])
        taken = []
        for _ in range(size):
            pile = int(rng.choice(len(piles), p=_alive(top, within, coarse, left)))
            taken.append(piles[pile].pop())
            left[pile] -= 1
        return np.array(taken, np.int64)


@dataclass(frozen=True, slots=True)
class Quantity:
    """Quantity skew: a random split into parts whose sizes are proportional to LogNormal(0, σ²) draws.

    Args:
        clients: number of clients T, >= 1.
        sigma: σ >= 0; 0 is a split into equal sizes.
    """

    clients: int
    sigma: float = 1.0

    def __post_init__(self) -> None:
        require(self.clients, "clients", least=1)
        require(self.sigma, "sigma", least=0.0)

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """O(n + T log T)."""
        exponents = self.sigma * rng.standard_normal(self.clients)
        shares = np.exp(exponents - exponents.max())  # the largest is 1: no overflow at any σ
        sizes = _apportion(hand.size, shares / shares.sum())
        return _numbered(np.split(rng.permutation(hand.size), np.cumsum(sizes)[:-1]))


@dataclass(frozen=True, slots=True)
class Natural:
    """One client for each value of an attribute: by hospital, by region, by education.

    Args:
        column: name of the attribute.
    """

    column: str

    def deal(self, hand: Hand, rng: np.random.Generator) -> dict[str, Rows]:
        """O(n log n); clients in the order of their names."""
        if self.column not in hand.attributes:
            known = ", ".join(hand.attributes) or "none"
            raise ConfigError(
                f'no attribute "{self.column}" to split by',
                where="[partition]",
                mend=nearest(self.column, hand.attributes) or f"These records have: {known}.",
            )
        names, codes = np.unique(hand.attributes[self.column].astype(str), return_inverse=True)
        return dict(zip(names.tolist(), by_code(codes, len(names)), strict=True))


PARTITIONS = Registry(
    "rivage.partitions",
    "partition",
    {
        "dirichlet": "rivage.data.partition:Dirichlet",
        "iid": "rivage.data.partition:IID",
        "natural": "rivage.data.partition:Natural",
        "pachinko": "rivage.data.partition:Pachinko",
        "pathological": "rivage.data.partition:Pathological",
        "quantity": "rivage.data.partition:Quantity",
    },
)


def by_code(codes: Int64[ndarray, "n"], size: int) -> list[Rows]:
    """The positions of each code 0 .. size - 1, ascending. O(n log n)."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.searchsorted(codes[order], np.arange(1, size)))


def _numbered(parts: Sequence[Rows]) -> dict[str, Rows]:
    return {f"client {number}": part.astype(np.int64) for number, part in enumerate(parts)}


def _cut(rows: Rows, weights: Float64[ndarray, "clients"], rng: np.random.Generator) -> list[Rows]:
    return np.split(rows, np.cumsum(rng.multinomial(len(rows), weights))[:-1])


def _apportion(total: int, shares: Float64[ndarray, "clients"]) -> Int64[ndarray, "clients"]:
    """Whole numbers of the given sum, nearest to ``total · shares`` (largest remainders)."""
    exact = total * shares
    sizes = np.floor(exact).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: total - sizes.sum()]] += 1
    result: Int64[ndarray, "clients"] = sizes
    return result


def _alive(
    top: Float64[ndarray, "groups"],
    within: Float64[ndarray, "classes"],
    coarse: Int64[ndarray, "classes"],
    left: Int64[ndarray, "classes"],
) -> Float64[ndarray, "classes"]:
    """Probability of each class among those with records left."""
    inner = np.where(left > 0, within, 0.0)
    mass = np.bincount(coarse, inner, len(top))
    joint = top[coarse] * np.divide(inner, mass[coarse], out=np.zeros_like(inner), where=mass[coarse] > 0)
    total = joint.sum()
    alive: Float64[ndarray, "classes"] = joint / total if total > 0 else left / left.sum()
    return alive
