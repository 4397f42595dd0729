"""Combining updates when some clients are faulty or lie.

Of n updates up to f may be arbitrary. Rules see single vectors, one per client and payload entry:

=============  ==========  ===========================================================================================
rule           condition   result
=============  ==========  ===========================================================================================
norm_bounded   n >= 1      mean of b_k + (x_k − b_k) min(1, τ / ‖x_k − b_k‖), b_k what was broadcast to client k
median         n >= 1      per coordinate; withstands f < n / 2
trimmed_mean   n >= 2f+1   per coordinate, mean without the f smallest and the f largest
krum           n >= 2f+3   mean of the ``keep`` clients with the smallest sums of squared distances to their n−f−2
                           nearest others
=============  ==========  ===========================================================================================

- **Weights are ignored**: every client counts once, since a weight is what a client says of itself. The result carries
  the sum of the weights of the clients it rests on, for methods that use totals.
- **The number that arrives decides**, not the cohort that was asked. Where the condition does not hold the round is not
  aggregated: no fallback could keep the promise of the rule, and a round without progress harms less than one that an
  adversary may have written. The round still counts.
- **Order is irrelevant**, bit for bit: updates are sorted by client before anything is computed, and ties between
  clients go to the smaller number. Sums are taken in float64.
- **Krum looks at all entries of an update together**, concatenated: clients are trusted or not, and one that lies only
  in a second entry must not pass. An entry of larger numbers weighs more. Distances are sums of squared differences,
  never ‖x‖² + ‖y‖² − 2⟨x, y⟩, which next to an outlier of 10⁹ cancels to nothing.

Memory O(n D); time O(n D) for norms, O(n D log n) for median and trimmed mean, O(n² D) for Krum. Updates that are not
finite never get here, the engine rejects their clients.

References:
    Blanchard, El Mhamdi, Guerraoui, Stainer. Machine learning with adversaries: Byzantine tolerant gradient descent.
    NeurIPS 2017, arXiv 1703.02757 (Krum, Multi-Krum).
    Yin, Chen, Ramchandran, Bartlett. Byzantine-robust distributed learning: towards optimal statistical rates. ICML
    2018, arXiv 1803.01498 (median, trimmed mean).
    Karimireddy, He, Jaggi. Learning from history for Byzantine robust optimization. ICML 2021, arXiv 2012.10333
    (bounding around a centre).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from rivage.core.errors import ConfigError, require
from rivage.federated.algorithm import Mean, Reference, State, Update

__all__ = ["Krum", "Median", "NormBounded", "Robust", "TrimmedMean"]

_CHUNK = 1 << 16  # coordinates whose distances are summed at once


_YIN = Reference(
    key="yin18",
    authors="Dong Yin and Yudong Chen and Kannan Ramchandran and Peter Bartlett",
    title="Byzantine-robust distributed learning: towards optimal statistical rates",
    venue="ICML",
    year=2018,
    arxiv="1803.01498",
)


@dataclass(frozen=True, slots=True)
class _Received:
    """One update and what had been broadcast to its client."""

    update: Update
    down: State

    def entry(self, name: str) -> Tensor:
        return self.update.payload[name][0]

    def base(self, name: str) -> Tensor:
        """What the entry started from; zero where nothing of its name and shape was broadcast."""
        entry, base = self.entry(name), self.down.get(name)
        return base if base is not None and base.shape == entry.shape else torch.zeros_like(entry)


class Robust(ABC):
    """What the rules share: they need single updates, and combine them into one vector per entry."""

    def refusal(self, received: int) -> str | None:
        """Why so many updates cannot be combined; None when they can."""
        return None if received >= self.least else f"{received} updates where {self} needs {self.least}"

    def excess(self, clients: int) -> str | None:
        """What the settings ask for that not even updates of all these clients can give; None when they can."""
        return None

    def __str__(self) -> str:
        return type(self).__name__

    @property
    def least(self) -> int:
        """Smallest number of updates for which the rule holds what it promises."""
        return 1

    def collector(self, *, each: bool) -> Gathered:
        """A collector that keeps every update until the round is over.

        Raises:
            ConfigError: for methods that want single updates: nothing would be left to guard.
        """
        if each:
            raise ConfigError(
                f"{self} combines updates, but the method combines single updates itself",
                mend="Leave collector out for this method.",
            )
        return Gathered(self)

    @abstractmethod
    def combine(self, received: Sequence[_Received]) -> dict[str, Mean]:
        """One vector per entry, from at least `least` updates sorted by client."""


@dataclass(slots=True)
class Gathered:
    """Keeps updates for a rule.

    Args:
        rule: combines them.

    Attributes:
        count: updates taken in.
        shapes: of their payload entries.
    """

    rule: Robust
    count: int = 0
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    _received: list[_Received] = field(default_factory=list)

    def add(self, update: Update, down: State | None = None) -> None:
        """Take in one update, in any order."""
        self.count += 1
        self.shapes = self.shapes or {name: vector.shape for name, (vector, _) in update.payload.items()}
        self._received.append(_Received(update, down or {}))

    @property
    def refusal(self) -> str | None:
        """Why what arrived must not be aggregated."""
        return self.rule.refusal(self.count)

    def result(self) -> Mapping[str, Mean]:
        """One vector per entry; none when too few updates arrived."""
        if self.refusal or not self.shapes:
            return {}
        return self.rule.combine(sorted(self._received, key=lambda one: one.update.client))


@dataclass(frozen=True, kw_only=True)
class NormBounded(Robust):
    """The mean of updates of bounded length: one client moves it by at most 2 norm / n.

    Args:
        norm: largest distance from the broadcast, per entry, > 0; None takes the median of the distances that arrived.
    """

    reference: ClassVar[Reference] = Reference(
        key="karimireddy21",
        authors="Sai Praneeth Karimireddy and Lie He and Martin Jaggi",
        title="Learning from history for Byzantine robust optimization",
        venue="ICML",
        year=2021,
        arxiv="2012.10333",
        part="centred clipping",
    )

    norm: float | None = field(default=None, metadata={"none": "median"})

    def __post_init__(self) -> None:
        if self.norm is not None:
            require(self.norm, "norm", above=0)

    def combine(self, received: Sequence[_Received]) -> dict[str, Mean]:
        """The mean of the bounded entries."""
        return {name: self._bounded(received, name) for name in received[0].update.payload}

    def _bounded(self, received: Sequence[_Received], name: str) -> Mean:
        lengths = torch.stack([_length(one.entry(name).double() - one.base(name).double()) for one in received])
        bound = _median(lengths) if self.norm is None else lengths.new_tensor(self.norm)
        shares = torch.where(lengths > bound, bound / lengths, 1.0)
        total = torch.zeros_like(received[0].entry(name), dtype=torch.float64)
        for one, share in zip(received, shares, strict=True):
            total += torch.lerp(one.base(name).double(), one.entry(name).double(), share)
        return _mean(total / len(received), received, name)


@dataclass(frozen=True, kw_only=True)
class Median(Robust):
    """The median of every coordinate; of an even number, the middle of the two."""

    reference: ClassVar[Reference] = replace(_YIN, part="median")

    def combine(self, received: Sequence[_Received]) -> dict[str, Mean]:
        """The medians."""
        return {name: _mean(_median(_stack(received, name)), received, name) for name in received[0].update.payload}


@dataclass(frozen=True, kw_only=True)
class TrimmedMean(Robust):
    """The mean of every coordinate without its extremes.

    Args:
        faulty: f, how many of the smallest and how many of the largest are left out, >= 0.
    """

    reference: ClassVar[Reference] = replace(_YIN, part="trimmed mean")

    faulty: int = 1

    def __post_init__(self) -> None:
        require(self.faulty, "faulty", least=0)

    def __str__(self) -> str:
        return f"TrimmedMean with faulty = {self.faulty}"

    @property
    def least(self) -> int:
        """2 f + 1."""
        return 2 * self.faulty + 1

    def combine(self, received: Sequence[_Received]) -> dict[str, Mean]:
        """The trimmed means."""
        return {name: self._trimmed(received, name) for name in received[0].update.payload}

    def _trimmed(self, received: Sequence[_Received], name: str) -> Mean:
        ordered = _stack(received, name).sort(dim=0).values[self.faulty : len(received) - self.faulty]
        return _mean(ordered.mean(dim=0, dtype=torch.float64), received, name)


@dataclass(frozen=True, kw_only=True)
class Krum(Robust):
    """The clients closest to the others: one of them (Krum), or the mean of several (Multi-Krum).

    Args:
        faulty: f, >= 0.
        keep: how many clients are averaged, >= 1; at most n − f − 2 of the n that are asked. Where fewer arrive, at
            most n − f − 2 of those are kept.
    """

    reference: ClassVar[Reference] = Reference(
        key="blanchard17",
        authors="Peva Blanchard and El Mahdi El Mhamdi and Rachid Guerraoui and Julien Stainer",
        title="Machine learning with adversaries: Byzantine tolerant gradient descent",
        venue="NeurIPS",
        year=2017,
        arxiv="1703.02757",
        part="Krum, Multi-Krum",
    )

    faulty: int = 1
    keep: int = 1

    def __post_init__(self) -> None:
        require(self.faulty, "faulty", least=0)
        require(self.keep, "keep", least=1)

    def __str__(self) -> str:
        return f"Krum with faulty = {self.faulty}"

    @property
    def least(self) -> int:
        """2 f + 3."""
        return 2 * self.faulty + 3

    def excess(self, clients: int) -> str | None:
        """More clients to keep than there are scores that count for something."""
        most = clients - self.faulty - 2
        if self.keep <= most:
            return None
        return f"keep is {self.keep}, but of {clients} updates {self} keeps at most {most} (n - faulty - 2)"

    def combine(self, received: Sequence[_Received]) -> dict[str, Mean]:
        """The mean of the clients with the best scores."""
        names = list(received[0].update.payload)
        near = len(received) - self.faulty - 2
        distances = torch.stack([_squared_distances(_stack(received, name)) for name in names]).sum(dim=0)
        # The smallest of a row is the client's distance to itself.
        scores = distances.sort(dim=1).values[:, 1 : near + 1].sum(dim=1)
        best = scores.argsort(stable=True)[: min(self.keep, near)].sort().values
        kept = [received[number] for number in best.tolist()]
        return {name: _mean(_stack(kept, name).mean(dim=0, dtype=torch.float64), kept, name) for name in names}


def _stack(received: Sequence[_Received], name: str) -> Float[Tensor, "n *shape"]:
    return torch.stack([one.entry(name) for one in received])


def _mean(combined: Tensor, received: Sequence[_Received], name: str) -> Mean:
    """In the entry's dtype, with the weights of those it rests on."""
    weight = sum(one.update.payload[name][1] for one in received)
    return Mean(combined.to(received[0].entry(name).dtype), weight)


def _median(values: Float[Tensor, "n *shape"]) -> Float[Tensor, "*shape"]:
    ordered, n = values.sort(dim=0).values, len(values)
    below, above = ordered[(n - 1) // 2], ordered[n // 2]
    return below if n % 2 else below / 2 + above / 2  # the sum could overflow


def _length(vector: Float64[Tensor, "*shape"]) -> Float64[Tensor, ""]:
    largest = vector.abs().max() if vector.numel() else vector.new_zeros(())
    if not 0 < largest < torch.inf:
        return largest
    length: Tensor = largest * torch.linalg.vector_norm(vector / largest)
    return length


def _squared_distances(vectors: Float[Tensor, "n *shape"]) -> Float64[Tensor, "n n"]:
    flat = vectors.reshape(len(vectors), -1)
    total = flat.new_zeros((len(flat), len(flat)), dtype=torch.float64)
    for start in range(0, flat.shape[1], _CHUNK):
        wide = flat[:, start : start + _CHUNK].double()
        total += torch.cdist(wide, wide, compute_mode="donot_use_mm_for_euclid_dist").square()
    return total
