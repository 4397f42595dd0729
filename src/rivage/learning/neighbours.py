"""Predictions by the nearest entries of a datastore, and how far to trust them beside a model.

With d_i the Euclidean distance from the query's features to those of entry i, N the k nearest entries and D the width
of the features,

    K_i = exp(−d_i² / (D · scale)),        h(x) = Σ_{i in N} K_i y_i / Σ_{i in N} K_i ,

where y_i is the unit vector of a class or symbol, or real numbers: a probability of each class, or a kernel mean. A
store of fewer than k entries gives all it has. The smallest d² is subtracted before exponentiating, which changes no
ratio, so that far queries do not give 0 / 0. A client predicts with

    λ h(x) + (1 − λ) p(x) ,

p being its model; probabilities are mixed, never logits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rivage.learning.datastore import Datastore
from rivage.learning.nearest import Search, nearest
from rivage.learning.shares import Evidence, Peers

__all__ = ["Neighbours", "leave_one_out"]


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """A client's datastore, how it is asked, and what its answer counts.

    Args:
        store: what is remembered.
        share: λ in [0, 1]; None until it is settled.
        outputs: width of a prediction: classes, symbols or real numbers.
        k: entries that answer, >= 1.
        scale: of the kernel, > 0.
        search: ``exact``, or ``faiss`` to find candidates with that library.
        evidence: what the client's records say of the share; None where they cannot tell.
        trust: how much the client trusts its peers beside that, in records.
    """

    store: Datastore
    share: float | None
    outputs: int
    k: int = 10
    scale: float = 1.0
    search: Search = "exact"
    evidence: Evidence | None = None
    trust: float = 0.0

    def settled(self, peers: Peers) -> Neighbours:
        """With a share, whatever the client lacked to choose one."""
        if self.share is not None:
            return self
        share = peers.share(self.evidence, self.trust) if len(self.store) else 0.0
        return replace(self, share=share, evidence=None)

    @property
    def speak(self) -> bool:
        """Whether predictions differ from the model's: nothing is searched otherwise."""
        return bool(self.share) and len(self.store) > 0

    def predictions(self, features: Float[Tensor, "n *positions width"]) -> Float[Tensor, "n *positions outputs"]:
        """What the neighbours say of each record, or of each of its positions; the store is not empty."""
        width = self.store.features.shape[1]
        lead = features.shape[:-1] if features.shape[-1] == width else features.shape[:1]
        distances, rows = nearest(self.store.features, features.reshape(-1, width), self.k, self.search)
        return self._mean(distances, rows).reshape(*lead, self.outputs)

    def mixed(
        self, predictions: Float[Tensor, "n *output"], features: Float[Tensor, "n *positions width"]
    ) -> Float[Tensor, "n *output"]:
        """Model and neighbours together, for a share that is known."""
        assert self.share is not None, "the share has not been settled"
        if not self.speak:
            return predictions
        return (1 - self.share) * predictions + self.share * self.predictions(features)

    def _mean(
        self, distances: Float[Tensor, "queries k"], rows: Int64[Tensor, "queries k"]
    ) -> Float[Tensor, "queries outputs"]:
        """Kernel mean of the targets; ``distances`` are squared and ascending, infinite where an entry is barred."""
        targets, width = self.store.targets, self.store.features.shape[1]
        weights = ((distances[:, :1] - distances) / (width * self.scale)).softmax(dim=1)
        weights = weights.to(self.store.features.dtype)
        if targets.is_floating_point():
            return torch.einsum("qk,qko->qo", weights, targets.reshape(len(targets), -1)[rows])
        return weights.new_zeros(len(rows), self.outputs).scatter_add_(1, targets[rows], weights)


def leave_one_out(neighbours: Neighbours) -> Float[Tensor, "entries outputs"]:
    """What a store says of each of its own entries when the record that it belongs to is not in it.

    At least two records are stored. One search among k entries and those of one record.
    """
    store = neighbours.store
    distances, rows = nearest(store.features, store.features, neighbours.k + store.positions, neighbours.search)
    own = store.ids[rows] == store.ids[:, None]
    distances, order = distances.masked_fill(own, torch.inf).sort(dim=1, stable=True)
    return neighbours._mean(distances[:, : neighbours.k], rows.gather(1, order)[:, : neighbours.k])
