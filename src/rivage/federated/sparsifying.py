"""Sending the largest coordinates only.

Of d numbers the k largest in absolute value travel, ties by lowest position, and where they stand: each position in
⌈log₂ d⌉ bits, or one bit for each of the d positions, whichever is smaller. Both sides know d and k, so nothing says
which. Values travel as float32, in float64 runs too, or in two bytes if a rounding stage follows:

    4 k + min(⌈k ⌈log₂ d⌉ / 8⌉, ⌈d / 8⌉)   bytes,   2 k + …   behind rounding,

and with C(v) the k largest, ‖v − C(v)‖² ≤ (1 − k / d) ‖v‖², to the rounding of the values. What is not sent is kept on
the device and added to the next update (see `rivage.federated.stages`). Finding them is O(d) time.

References:
    Stich, Cordonnier, Jaggi. Sparsified SGD with memory. NeurIPS 2018, arXiv 1809.07599, Algorithm 1 and
    definition 2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Int64, UInt8
from numpy import ndarray

from rivage.core.errors import ConfigError, require
from rivage.core.seeding import Streams
from rivage.federated.stages import Encoded, narrow

__all__ = ["TopK"]


@dataclass(frozen=True, kw_only=True)
class TopK:
    """Sends the largest coordinates of each entry. Give either ``share`` or ``count``.

    Args:
        share: of the coordinates, in (0, 1]; rounded to a whole number of them, at least 1.
        count: number of coordinates, >= 1; all of them where an entry has fewer.
        feedback: keep what was not sent and add it to the next update.
    """

    linear: ClassVar[bool] = False
    role: ClassVar[Literal["chooses"]] = "chooses"

    share: float | None = None
    count: int | None = None
    feedback: bool = True

    def __post_init__(self) -> None:
        if (self.share is None) == (self.count is None):
            both = f"share is {self.share} and count is {self.count}"
            raise ConfigError(both, mend="Give one of the two, such as share = 0.01.")
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share}", mend="Give a number above 0 and at most 1.")
        if self.count is not None:
            require(self.count, "count", least=1)

    def encode(self, vector: Float[ndarray, "d"], streams: Streams) -> Encoded:
        """The k largest and where they stand."""
        chosen = _largest(vector, self.sends(vector.size))
        return Encoded(narrow(vector[chosen], np.float32), {"positions": _pack(chosen, vector.size)})

    def decode(self, encoded: Encoded, dimension: int) -> Float[ndarray, "d"]:
        """The chosen numbers in their places, zeros elsewhere."""
        dense = np.zeros(dimension, encoded.vector.dtype)
        dense[_unpack(encoded.side["positions"], encoded.vector.size, dimension)] = encoded.vector
        return dense

    def sends(self, dimension: int) -> int:
        """K."""
        wanted = self.count if self.share is None else max(1, round(self.share * dimension))
        assert wanted is not None, "checked by the constructor"
        return min(wanted, dimension)

    def nbytes(self, dimension: int) -> int:
        """4 k and the positions."""
        kept = self.sends(dimension)
        return 4 * kept + min(-(-kept * _width(dimension) // 8), -(-dimension // 8))


def _largest(vector: ndarray, count: int) -> Int64[ndarray, "k"]:
    """Positions of the largest in absolute value, ascending; NaN is larger than every number."""
    sizes = np.nan_to_num(np.abs(vector), nan=np.inf, posinf=np.inf)
    if count == 0:
        return np.empty(0, np.int64)
    least = np.partition(sizes, sizes.size - count)[sizes.size - count]
    above = np.flatnonzero(sizes > least)
    ties = np.flatnonzero(sizes == least)[: count - above.size]
    return np.sort(np.concatenate([above, ties]))


def _width(dimension: int) -> int:
    """⌈log₂ d⌉ bits tell d positions apart."""
    return max(dimension - 1, 0).bit_length()


def _indexed(count: int, dimension: int) -> bool:
    """Whether a list of positions is no longer than one bit per coordinate."""
    return -(-count * _width(dimension) // 8) <= -(-dimension // 8)


def _pack(positions: Int64[ndarray, "k"], dimension: int) -> UInt8[ndarray, "bytes"]:
    if _indexed(positions.size, dimension):
        shifts = np.arange(_width(dimension) - 1, -1, -1)
        return np.packbits((positions[:, None] >> shifts & 1).astype(np.uint8))
    mask = np.zeros(dimension, np.uint8)
    mask[positions] = 1
    return np.packbits(mask)


def _unpack(packed: UInt8[ndarray, "bytes"], count: int, dimension: int) -> Int64[ndarray, "k"]:
    if _indexed(count, dimension):
        width = _width(dimension)
        bits = np.unpackbits(packed, count=count * width).reshape(count, width)
        return bits @ (1 << np.arange(width - 1, -1, -1))
    return np.flatnonzero(np.unpackbits(packed, count=dimension))
