"""What the kernels of caching networks share: the ways of requests as arrays, and numbered draws."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy import ndarray

from rivage.online.cache_networks import CacheNetwork

__all__ = ["Ways", "uniform"]


class Ways(NamedTuple):
    """What never changes: request types, paths, slots.

    Args:
        item: of each type.
        hops: links of each type's path.
        paths: its nodes.
        savings: W at each place of a path.
        first: first slot of each node.
    """

    item: ndarray
    hops: ndarray
    paths: ndarray
    savings: ndarray
    first: ndarray

    @classmethod
    def of(cls, instance: CacheNetwork) -> Ways:
        """Those of a network."""
        return cls(instance.item, instance.hops, instance.paths, instance.savings, instance.first)


@njit(cache=True)
def uniform(seed: int, number: int) -> float:
    """Draw ``number`` of SplitMix64, on [0, 1) with 53 bits."""
    z = np.uint64(seed) + np.uint64(number + 1) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) * 2.0**-53
