"""What a client remembers of its own records for nearest-neighbour search: features, targets and whose they are.

A datastore is a value: adding and removing give a new one. Entries lie in the order of their records' numbers, however
they came in, so equal contents are equal arrays; taking a record out leaves what would be there had it never been
stored. Numbers of records grow with time, so the oldest are the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from numpy import ndarray
from torch import Tensor

from rivage.core.philox import uniforms

__all__ = ["Datastore", "Keep", "kept_rows"]

Keep = Literal["uniform", "fifo", "first"]
"""Which records stay where not all can: a uniform random subset, the newest, or the oldest."""


@dataclass(frozen=True, slots=True, eq=False)
class Datastore:
    """Entries that a query is compared with. A record of a text has one entry per position, all others have one.

    Args:
        features: representation of each entry.
        targets: what was observed there: a class or symbol, or real numbers.
        ids: number of the record that each entry belongs to, ascending.
    """

    features: Float[Tensor, "entries width"]
    targets: Shaped[Tensor, "entries *target"]
    ids: Int64[Tensor, "entries"]

    @classmethod
    def of(
        cls,
        features: Float[Tensor, "n *positions width"],
        targets: Shaped[Tensor, "n *target"],
        ids: Int64[ndarray, "n"],
    ) -> Datastore:
        """The store of some records, with an entry for every position of each; O(n log n + size of the features)."""
        order = np.argsort(ids, kind="stable")
        rows = torch.from_numpy(order).to(features.device)
        features, targets, numbers = features[rows], targets[rows], torch.from_numpy(ids[order]).to(features.device)
        if not targets.is_floating_point() and targets.dim() > 1:  # a text
            numbers, targets = numbers.repeat_interleave(targets.shape[1]), targets.flatten()
            return cls(features.flatten(0, 1), targets, numbers)
        return cls(features.flatten(1), targets, numbers)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes on the device."""
        return self.features.nbytes + self.targets.nbytes + self.ids.nbytes

    @property
    def positions(self) -> int:
        """Entries of one record, at most."""
        return int(torch.unique_consecutive(self.ids, return_counts=True)[1].max()) if len(self) else 1

    def add(self, other: Datastore) -> Datastore:
        """With the entries of another store; records that both have are taken from the other."""
        mine = self.remove(torch.unique(other.ids))
        parts = zip(mine._columns(), other._columns(), strict=True)
        features, targets, ids = (torch.cat(pair) for pair in parts)
        order = torch.sort(ids, stable=True).indices
        return Datastore(features[order], targets[order], ids[order])

    def remove(self, ids: Int64[Tensor, "m"]) -> Datastore:
        """Without these records, as if they had never been stored; unknown ones are no matter."""
        return self._only(~torch.isin(self.ids, ids))

    def newest(self, records: int) -> Datastore:
        """With so many records at most: the oldest leave first."""
        known = torch.unique(self.ids)
        return self if len(known) <= records else self.remove(known[: len(known) - records])

    def _only(self, kept: Tensor) -> Datastore:
        return Datastore(*(column[kept] for column in self._columns()))

    def _columns(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.features, self.targets, self.ids


def kept_rows(ids: Int64[ndarray, "n"], capacity: int, keep: Keep, seed: int) -> Int64[ndarray, "m"]:
    """Rows of the records that a store of so many records keeps, ascending; all of them if they fit. O(n log n).

    ``uniform`` gives every record a random priority that depends on (seed, number) alone and keeps the smallest: the
    choice does not depend on the order of the records, and without some record it is the choice among the others.

    Args:
        ids: numbers of the records, distinct.
        capacity: records that fit, >= 0.
        keep: which stay.
        seed: of this client, for ``uniform``.
    """
    if len(ids) <= capacity:
        return np.arange(len(ids))
    rank = uniforms(seed, ids, 0, 0)[:, 0] if keep == "uniform" else ids if keep == "first" else -ids
    return np.sort(np.argsort(rank, kind="stable")[:capacity])
