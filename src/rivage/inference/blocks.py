"""Blocks: what each node has to decide, apart from all other nodes.

A node decides only where its free models together exceed its free budget b; otherwise it holds them all. The fractions
of such a node lie in Y = {0 <= y <= 1, Σ_m s_m y_m = b}; the gain is monotone, so equality loses nothing.

Rounding is dependent rounding of each block (`rivage.convex.rounding.dep_round`): E[x] = y, and Σ s x is within one
model of b. Memory does not know expectations, so there are three ways:

=========== ======================================================================================================
``strict``  models are dropped, those with the least y first, until the rest fits, and what still fits is added,
            largest y first. E[x] differs from y by what the overflow costs
``reserve`` Y is made for b' = b − max s, so that nothing ever overflows and E[x] = y. Nodes where no b' > 0 is left
            are rounded strictly
``paper``   overflow stays, as in the publication: E[x] = y, and no real node can do it
=========== ======================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy import ndarray

from rivage.inference import infida_kernel as kernel
from rivage.inference.instance import Instance

__all__ = ["ROUNDINGS", "BlockRounding", "Blocks", "mass_of_best"]

BlockRounding = Literal["strict", "reserve", "paper"]
ROUNDINGS: tuple[BlockRounding, ...] = ("strict", "reserve", "paper")

Places = Float64[ndarray, "decided"]
Matrix = Float64[ndarray, "nodes models"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Blocks:
    """The nodes that decide, with their models one after the other.

    Args:
        node: that each block belongs to.
        first: where each block begins, and at the end how many places there are.
        place: node · models + model, the place in a flattened allocation.
        sizes: of the models.
        room: b, the free budget of each block.
        budgets: what the fractions of each block sum up to: b, or b' with ``reserve``.
        held: what is loaded anyhow: pinned models, and all models of nodes that have nothing to decide.
    """

    node: Int64[ndarray, "blocks"]
    first: Int64[ndarray, "n"]
    place: Int64[ndarray, "decided"]
    sizes: Places
    room: Float64[ndarray, "blocks"]
    budgets: Float64[ndarray, "blocks"]
    held: Bool[ndarray, "nodes models"]

    @classmethod
    def of(cls, instance: Instance, rounding: BlockRounding = "strict") -> Blocks:
        """The blocks of a network. O(nodes · models)."""
        free, models = instance.free, instance.shape[1]
        wanted = np.where(free, instance.sizes, 0.0)
        node = np.flatnonzero(wanted.sum(axis=1) > instance.free_budgets)
        counts = free[node].sum(axis=1)
        place = np.flatnonzero(free[node].ravel())
        place = node[place // models] * models + place % models
        room = instance.free_budgets[node]
        reserved = room - wanted[node].max(axis=1, initial=0.0)
        held = instance.usable.copy()
        held.ravel()[place] = False
        return cls(
            node=node,
            first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            place=place,
            sizes=instance.sizes.ravel()[place],
            room=room,
            budgets=np.where(reserved > 0, reserved, room) if rounding == "reserve" else room,
            held=held,
        )

    def __len__(self) -> int:
        return len(self.node)

    def part(self, block: int) -> Blocks:
        """One block alone, as the only node of a network."""
        own, at = slice(block, block + 1), slice(self.first[block], self.first[block + 1])
        node = int(self.node[block])
        return replace(
            self,
            node=np.zeros(1, np.int64),
            first=np.array([0, self.first[block + 1] - self.first[block]]),
            place=self.place[at] - node * self.held.shape[1],
            held=self.held[node : node + 1],
            sizes=self.sizes[at],
            room=self.room[own],
            budgets=self.budgets[own],
        )

    @cached_property
    def uniform(self) -> Places:
        """The logarithms of b / Σ s, from where learning starts."""
        whole = np.add.reduceat(self.sizes, self.first[:-1]) if len(self) else np.empty(0)
        return np.repeat(np.log(self.budgets / whole), np.diff(self.first))

    @property
    def share(self) -> float:
        """The least b'/b: 1 but for ``reserve``."""
        return float((self.budgets / self.room).min(initial=1.0))

    def matrix(self, values: Places) -> Matrix:
        """Values of the places, in a whole allocation with what is held anyhow."""
        y = self.held.astype(np.float64)
        y.ravel()[self.place] = values
        return y

    def largest(self, values: Places) -> Float64[ndarray, "blocks"]:
        """The largest value of each block."""
        return np.maximum.reduceat(values, self.first[:-1]) if len(self) else np.empty(0)

    def reach(self, logs: Places) -> Float64[ndarray, "blocks"]:
        """No point x of a block has a larger Σ s x ln(x/y). O(n log n)."""
        parts = zip(self.first[:-1].tolist(), self.first[1:].tolist(), self.budgets.tolist(), strict=True)
        return np.array([mass_of_best(-logs[a:b], self.sizes[a:b], budget) for a, b, budget in parts])

    def rounded(
        self, values: Places, draws: Places, rounding: BlockRounding = "strict"
    ) -> Bool[ndarray, "nodes models"]:
        """An allocation drawn from fractions.

        Args:
            values: y of the places.
            draws: a uniform number for each place.
            rounding: see above.
        """
        loaded = self.held.copy()
        loaded.ravel()[self.place] = kernel.round_blocks(
            self.first, self.sizes, self.room, values, draws, rounding != "paper"
        )
        return loaded


def mass_of_best(worth: Float64[ndarray, "n"], sizes: Float64[ndarray, "n"], budget: float) -> float:
    """The largest Σ s x worth over {0 <= x <= 1, Σ s x = budget}: the most valuable size first. O(n log n)."""
    order = np.argsort(-worth, kind="stable")
    filled = np.clip(budget - (np.cumsum(sizes[order]) - sizes[order]), 0.0, sizes[order])
    return float(filled @ worth[order])
