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

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from rivage.learning.datastore import Datastore
from rivage.learning.losses import Loss
from rivage.learning.nearest import Search, nearest

__all__ = ["Neighbours", "choose_share", "leave_one_out"]

_GRID = 20  # shares that are tried: 0, 1/20, ..., 1
_LEVEL = 1e-9  # a smaller share is taken where losses differ by less, relatively: rounding must not decide


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """A client's datastore, how it is asked, and what its answer counts.

    Args:
        store: what is remembered.
        share: λ in [0, 1]; None where the client cannot tell.
        outputs: width of a prediction: classes, symbols or real numbers.
        k: entries that answer, >= 1.
        scale: of the kernel, > 0.
        search: ``exact``, or ``faiss`` to find candidates with that library.
    """

    store: Datastore
    share: float | None
    outputs: int
    k: int = 10
    scale: float = 1.0
    search: Search = "exact"

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
        assert self.share is not None, "the share has not been chosen"
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


def choose_share(
    predictions: Float[Tensor, "n *output"],
    remembered: Float[Tensor, "n *output"],
    y: Shaped[Tensor, "n *target"],
    loss: Loss,
) -> float:
    """The share λ with the smallest mean loss on a grid from 0 to 1; the smallest of equals.

    The loss is convex in λ, for probabilities as for real numbers.

    Args:
        predictions: of the model, on records that are not for test.
        remembered: of the neighbours, who have not seen these records.
        y: their targets.
        loss: of predictions.
    """
    shares = [step / _GRID for step in range(_GRID + 1)]
    mixtures = ((1 - share) * predictions + share * remembered for share in shares)
    found = [float(loss.of_predictions(mixture, y).mean()) for mixture in mixtures]
    least = min(found)
    return next(s for s, value in zip(shares, found, strict=True) if value <= least + _LEVEL * max(1.0, abs(least)))
