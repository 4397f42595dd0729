"""What happens between the clients' updates and the server's `aggregate`.

`Plain` is the collector of a trusted server: a running weighted mean per payload entry, O(D) memory for any cohort.
The mean is updated by ``mean += (w / W) (v − mean)``, so that a single update is returned bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rivage.federated.algorithm import Mean, Update

__all__ = ["Plain"]


class Plain:
    """Collects updates for `Algorithm.aggregate`.

    Args:
        each: keep single updates instead of summing.

    Attributes:
        count: updates taken in.
        shapes: of their payload entries, which are alike; empty before the first.
    """

    def __init__(self, *, each: bool) -> None:
        self._each: list[Update] | None = [] if each else None
        self._means: dict[str, Mean] = {}
        self.count = 0
        self.shapes: dict[str, torch.Size] = {}

    def add(self, update: Update) -> None:
        """Take in one update; call in the cohort's order, which fixes the rounding."""
        self.count += 1
        self.shapes = self.shapes or {name: vector.shape for name, (vector, _) in update.payload.items()}
        if self._each is not None:
            self._each.append(update)
            return
        for name, (vector, weight) in update.payload.items():
            self._means[name] = _fold(self._means.get(name), vector, weight)

    def result(self) -> Mapping[str, Mean] | list[Update]:
        """What `aggregate` receives."""
        return self._means if self._each is None else self._each


def _fold(so_far: Mean | None, vector: torch.Tensor, weight: float) -> Mean:
    if so_far is None:
        return Mean(vector.clone(), weight)
    total = so_far.weight + weight
    share = weight / total if total > 0 else 0.0
    return Mean(so_far.mean.lerp_(vector, share), total)
